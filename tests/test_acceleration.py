"""speed="fast": the same pictures up to rounding, and diffusers' own arithmetic wherever it cannot be that."""

from __future__ import annotations

import copy
import json
import sys
import warnings

import numpy as np
import pytest
import torch

import sdwidgets
from sdwidgets.acceleration import openvino_graph, speed_up
from sdwidgets.acceleration.change_detector import ChangeDetector
from sdwidgets.acceleration.decoder import ChannelwiseGroupNorm, DoubleAndConvolve, is_pointwise, pointwise_forward
from sdwidgets.acceleration.openvino_graph import ALLOWED_ERROR, Compiled, Runner, import_openvino, relative_error
from sdwidgets.acceleration.threads import reserve_core, usable_threads
from sdwidgets.acceleration.undo import is_fast as replaced
from sdwidgets.acceleration.undo import restore
from sdwidgets.acceleration.unet import PrecomputedInputs, UNetGraph, compiled_unet
from sdwidgets.analysis.attention_processors import attention_unet
from sdwidgets.generation.code_export import code
from sdwidgets.loading.errors import DeviceError
from sdwidgets.paths import cache_folder
from tests import tiny

openvino = import_openvino()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDWIDGETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield cache_folder() / "compiled"


@pytest.fixture(scope="module")
def pockets(cache):
    """(exact, fast): the carried model twice."""
    both = sdwidgets.load("pocket", "cpu"), sdwidgets.load("pocket", "cpu", speed="fast")
    for pipe in both:
        pipe.set_progress_bar_config(disable=True)
    return both


def draw(pipe, prompts=("a cat on a red background",), steps: int = 8, **settings) -> np.ndarray:
    """(n, h, w, 3) float32 in [0, 1]."""
    generators = [tiny.generator(seed) for seed in range(len(prompts))]
    return pipe(
        list(prompts),
        num_inference_steps=steps,
        guidance_scale=3.0,
        generator=generators,
        output_type="np",
        **settings,
    ).images


def states_of(pipe, count: int) -> torch.Tensor:
    """(count, 77, 192) text states as the model knows them: on random ones bfloat16 is more than `ALLOWED_ERROR` off."""
    captions = ["a cat on a red background", "a red circle on a blue background", "a doctor on a white background"]
    return pipe.encode_prompt(captions[:count], "cpu", 1, False)[0]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(1 / max(np.square(a - b).mean(), 1e-12)))


def is_fast(pipe) -> bool:
    return "forward" in vars(pipe.unet) and "forward" in vars(pipe.vae.decoder)


@pytest.mark.slow
def test_fast_pictures_are_the_exact_ones_up_to_rounding(pockets):
    exact, fast = pockets
    assert is_fast(fast) and not is_fast(exact)
    prompts = ["a cat on a red background", "a red circle above a green square on a white background"]
    assert psnr(draw(exact, prompts), draw(fast, prompts)) > 35
    assert psnr(draw(exact, prompts[:1]), draw(fast, prompts[1:])) < 25, "another prompt is another picture"


@pytest.mark.slow
@pytest.mark.parametrize("size", [{"height": 64, "width": 96}, {"height": 72, "width": 128}])
def test_other_sizes_and_no_guidance_are_drawn_alike(pockets, size):
    exact, fast = pockets
    a, b = (draw(pipe, steps=4, **size) for pipe in pockets)
    assert a.shape == (1, size["height"], size["width"], 3) and psnr(a, b) > 35
    with torch.no_grad():
        z, text = torch.randn(3, 4, 16, 16, generator=tiny.generator()), states_of(exact, 3)
        (a,), (b,) = (pipe.unet(z, 500, text, return_dict=False) for pipe in (exact, fast))
    assert torch.allclose(a, b, atol=0.1) and not torch.equal(a, b)


@pytest.mark.slow
def test_a_fast_run_is_recorded_like_any_other(pockets):
    _, fast = pockets
    with sdwidgets.record(fast) as trace:
        picture = draw(fast)
    assert trace.complete and len(trace) == 8 and trace.steps[0].noise_pred_cond is not None
    assert np.array_equal(trace.images[0], (picture[0] * 255).round().astype(np.uint8))
    again = draw(fast)
    assert np.array_equal(picture, again), "the same seed, the same picture"


def test_gradients_flow_as_if_nothing_had_happened(pockets):
    exact, fast = pockets
    z, text = torch.randn(1, 4, 16, 16, generator=tiny.generator()), torch.zeros(1, 77, 192)
    grads = []
    for pipe in pockets:
        here = z.clone().requires_grad_()
        pipe.unet(here, 500, text).sample.square().mean().backward()
        grads.append(here.grad)
        pipe.unet.zero_grad()
    assert torch.equal(*grads)


def test_what_openvino_does_not_know_is_computed_by_the_network(pockets):
    from diffusers.models.attention_processor import AttnProcessor

    exact, fast = pockets
    calls = []
    bare = type(fast.unet).forward

    def counted(self, *args, **kwargs):
        calls.append(1)
        return bare(self, *args, **kwargs)

    z, text = torch.randn(1, 4, 16, 16, generator=tiny.generator()), torch.zeros(1, 77, 192)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        fast.unet(z, 500, text)  # compared with the network once
        patch.setattr(type(fast.unet), "forward", counted)
        fast.unet(z, 500, text)
        assert not calls
        fast.unet(z, 500, text, cross_attention_kwargs={"scale": 1.0})
        assert len(calls) == 1
        processors = fast.unet.attn_processors
        fast.unet.set_attn_processor(AttnProcessor())
        with pytest.warns(UserWarning, match="speed_up"):
            fast.unet(z, 500, text)
        assert len(calls) == 2
        fast.unet.set_attn_processor(processors)
        fast.unet(z, 500, text)
        assert len(calls) == 2, "fast again"
        copied = copy.deepcopy(fast.unet)
        copied.conv_out.weight.data.zero_()
        copied.conv_out.bias.data.zero_()
        assert not copied(z, 500, text).sample.any(), "a copy computes with its own weights"


@pytest.mark.slow
def test_changed_weights_are_never_ignored(pockets):
    exact, _ = pockets
    fast = sdwidgets.load("pocket", "cpu", speed="fast")
    fast.set_progress_bar_config(disable=True)
    weight = fast.unet.conv_out.weight
    with pytest.warns(UserWarning, match="speed_up"):
        weight.data += 0.02  # as a LoRA that is fused does
        changed = draw(fast)
    exact.unet.conv_out.weight.data += 0.02
    try:
        assert psnr(changed, draw(exact)) > 40, "the new weights count; the decoder is still the compiled one"
        speed_up(fast)
        assert psnr(draw(fast), changed) > 35
    finally:
        exact.unet.conv_out.weight.data -= 0.02


def test_captions_are_encoded_once(pockets):
    _, fast = pockets
    ids = fast.tokenizer("a dog", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        first, again = fast.text_encoder(ids), fast.text_encoder(ids.clone())
        assert again.last_hidden_state is first.last_hidden_state
        other = fast.text_encoder(ids, output_hidden_states=True)
        assert other.hidden_states is not None
        row = fast.text_encoder.get_input_embeddings().weight.data
        row += 0.5
        try:
            assert not torch.equal(fast.text_encoder(ids).last_hidden_state, first.last_hidden_state)
        finally:
            row -= 0.5


def test_it_is_taken_back_as_it_was(pockets):
    exact, _ = pockets
    pipe = sdwidgets.load("pocket", "cpu", speed="fast")
    pipe.set_progress_bar_config(disable=True)
    fast = draw(pipe)
    restore(pipe)
    bare = draw(pipe)
    assert not is_fast(pipe) and not np.array_equal(bare, fast)
    assert "forward" not in vars(pipe.vae.post_quant_conv) and "postprocess" not in vars(pipe.image_processor)
    # Two pipelines may differ in the last bits: where memory happens to lie can choose another kernel on some CPUs.
    assert np.allclose(bare, draw(exact), atol=1e-4)


def test_openvino_tells_no_one(pockets):
    assert sys.modules["openvino_telemetry"] is None
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]


def test_a_second_start_finds_what_the_first_compiled(pockets, cache, monkeypatch):
    assert list(cache.glob("*.xml"))
    monkeypatch.setattr(openvino, "convert_model", lambda *args, **kwargs: pytest.fail("converted again"))
    pipe = sdwidgets.load("pocket", "cpu", speed="fast")
    pipe.set_progress_bar_config(disable=True)
    assert psnr(draw(pipe), draw(pockets[1])) > 60


def test_a_wrong_precision_is_noticed_and_a_wrong_graph_refused(pockets, cache, monkeypatch):
    decoder, example = pockets[0].vae.decoder, (torch.zeros(1, 4, 16, 16),)
    compile_decoder = lambda: Compiled(decoder, decoder, example, cache)
    honest = Compiled.__call__
    spoiled = lambda self, *t, **k: honest(self, *t, **k) * (float("nan") if self.precision == "bf16" else 1)
    monkeypatch.setattr(openvino_graph, "faster_precision", lambda *args: "bf16")
    monkeypatch.setattr(Compiled, "__call__", spoiled)
    assert compile_decoder().precision == "f32"
    monkeypatch.setattr(Compiled, "__call__", lambda self, *t: honest(self, *t) + 1)
    with pytest.raises(RuntimeError, match="use speed='exact'"):
        compile_decoder()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_order_of_memory_gives_the_same_answer(pockets, count):
    """Latents that come from an encoder of pictures are often channels_last: what is copied for OpenVINO has to live as long as it reads."""
    decoder, unet = pockets[1].vae.decoder, pockets[1].unet
    noise = torch.randn(count, 4, 16, 16, generator=tiny.generator(7))
    strided = noise.contiguous(memory_format=torch.channels_last), torch.cat([noise, noise], 1)[:, :4]
    with torch.no_grad():
        text = states_of(pockets[0], count)
        for network, more in ((decoder, ()), (unet, (500, text))):
            right = network(noise, *more, **({"return_dict": False} if more else {}))
            for other in strided:
                filler = [
                    torch.randn(count, 4, 16, 16) for _ in range(8)
                ]  # takes memory that was given back too early
                found = network(other, *more, **({"return_dict": False} if more else {}))
                assert torch.equal(found[0], right[0]) and len(filler) == 8


def test_a_new_shape_is_compared_with_the_network_and_computed_by_it_where_it_is_wrong(pockets, tmp_path, monkeypatch):
    decoder, asked = pockets[0].vae.decoder, []
    graph = Compiled(decoder, decoder, (torch.zeros(1, 4, 16, 16),), tmp_path)
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        right = type(decoder).forward(decoder, noise)
    exact = lambda: asked.append(True) or right
    first = graph(noise, exact=exact)
    assert torch.equal(graph(noise, exact=exact), first) and len(asked) == 1, (
        "compared once, and the same answer twice"
    )
    assert relative_error(first, right) < 0.02
    graph.runners.clear()
    compiled = []
    monkeypatch.setattr(Runner, "__call__", lambda self, tensors: compiled.append(1) or right * float("nan"))
    with pytest.warns(UserWarning, match="tell us of it"):
        assert torch.equal(graph(noise, exact=exact), right)
    assert torch.equal(graph(noise, exact=exact), right) and len(compiled) == 1, "remembered, and not tried again"
    assert list(graph.runners.values()) == [None]
    graph.runners.clear()
    with pytest.raises(MemoryError):
        graph(noise, exact=lambda: (_ for _ in ()).throw(MemoryError()))
    assert not graph.runners, "what was not compared is not trusted"


def test_a_graph_is_put_into_the_cache_in_one_move(pockets, tmp_path, monkeypatch):
    """Two processes may start at once: neither may read what the other has half written, nor leave anything behind."""
    decoder, example, seen = pockets[0].vae.decoder, (torch.zeros(1, 4, 16, 16),), []
    save = openvino.save_model

    def watched(model, file, **settings):
        save(model, file, **settings)
        seen.append(sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()))

    monkeypatch.setattr(openvino, "save_model", watched)
    Compiled(decoder, decoder, example, tmp_path)
    assert len(seen) == 1 and not {".xml", ".bin"} & set(seen[0])
    assert sorted(path.suffix for path in tmp_path.iterdir()) in ([".bin", ".xml"], [".bin", ".json", ".xml"])
    (graph,) = tmp_path.glob("*.xml")
    graph.write_bytes(graph.read_bytes()[:5000])
    with pytest.raises(RuntimeError):
        openvino.Core().read_model(graph)
    Compiled(decoder, decoder, example, tmp_path)
    assert openvino.Core().read_model(graph).inputs, "a file that was cut short is made again"


def test_a_precision_that_cannot_be_compiled_is_left_out(pockets, tmp_path, monkeypatch):
    """As bfloat16 is where ONEDNN_MAX_CPU_ISA=AVX2 forbids the instructions that OpenVINO counts on."""
    bare = Runner.__init__

    def narrow(self, compiled, shapes, precision):
        if precision == "bf16":
            raise RuntimeError("Supported primitive descriptors list is empty")
        bare(self, compiled, shapes, precision)

    monkeypatch.setattr(Runner, "__init__", narrow)
    decoder = pockets[0].vae.decoder
    assert Compiled(decoder, decoder, (torch.zeros(1, 4, 16, 16),), tmp_path).precision == "f32"


@pytest.mark.slow
def test_a_precision_is_measured_for_each_network_and_again_where_it_cannot_be_compiled(
    pockets, tmp_path, monkeypatch
):
    decoder, example = pockets[0].vae.decoder, (torch.zeros(1, 4, 16, 16),)
    other = copy.deepcopy(decoder)
    other.conv_out.bias.data += 1
    monkeypatch.setattr(openvino.Core, "get_property", property_with_bf16(openvino.Core.get_property))
    made, bare = [], Runner.__init__

    def narrow(self, compiled, shapes, precision):
        made.append(precision)
        if precision == "bf16":
            raise RuntimeError("Supported primitive descriptors list is empty")
        bare(self, compiled, shapes, precision)

    monkeypatch.setattr(Runner, "__init__", narrow)
    make = lambda network: Compiled(network, network, example, tmp_path)
    file = tmp_path / "precisions.json"
    make(decoder)
    first = json.loads(file.read_text())
    make(other)
    assert len(first) == 1 and len(json.loads(file.read_text())) == 2, "one shape, two networks"
    (name,) = first
    made.clear()
    file.write_text(json.dumps({name: "bf16"}))
    assert make(decoder).precision == "f32"
    assert made == ["bf16", "f32", "bf16"], "the one that was kept, then both"
    assert json.loads(file.read_text()) == {name: "f32"}
    made.clear()
    assert make(decoder).precision == "f32" and made == ["f32"], "compiled once, and used"


def property_with_bf16(bare):
    """A processor that says it knows bfloat16, as this test needs two precisions to choose from."""

    def get_property(self, device, name):
        found = bare(self, device, name)
        return [*found, "BF16"] if name == "OPTIMIZATION_CAPABILITIES" and "BF16" not in found else found

    return get_property


def test_a_batch_of_any_size_is_what_the_network_computes(pockets, cache):
    unet = pockets[0].unet
    z, text = torch.randn(3, 4, 16, 16, generator=tiny.generator()), torch.randn(3, 77, 192)
    given = PrecomputedInputs(unet)
    graph = compiled_unet(unet, given, torch.zeros_like(z[:2]), text[:2], cache)
    with torch.no_grad():
        for count in (2, 3, 1):
            right = unet(z[:count], 300, text[:count]).sample
            computed = graph(z[:count], given.times(300.0), *given.texts(text[:count]))
            assert torch.allclose(computed, right, atol=1e-3)


def test_what_the_text_alone_decides_is_computed_once_a_prompt(pockets, monkeypatch):
    _, fast = pockets
    calls = []
    bare = Compiled.__call__

    def counted(self, *tensors, **more):
        if self.channels == 77:  # tokens: the graph of all keys and values
            calls.append(1)
        return bare(self, *tensors, **more)

    z, text = torch.randn(2, 4, 16, 16, generator=tiny.generator()), torch.randn(2, 77, 192)
    with torch.no_grad():
        fast.unet(z, 900, text[:, :-1])  # compared with the network once, which computes them too
        fast.unet(z, 900, text)
        text = text + 1
        monkeypatch.setattr(Compiled, "__call__", counted)
        first = fast.unet(z, 900, text).sample
        fast.unet(z, torch.tensor(500), text.clone())
        assert len(calls) == 1
        text *= 2  # as a notebook does that plays with embeddings
        assert not torch.allclose(fast.unet(z, 900, text).sample, first) and len(calls) == 2


# ---- what may change behind its back ---------------------------------------------------------------------------------


def noise_and_text(count: int = 2) -> tuple[torch.Tensor, int, torch.Tensor]:
    """What a U-Net of Pocket's shape is called with."""
    z = torch.randn(count, 4, 16, 16, generator=tiny.generator())
    return z, 500, torch.randn(count, 77, 192, generator=tiny.generator(1))


@pytest.fixture
def lone():
    """A fast pipeline of the test's own, small."""
    pipe = tiny.pipeline("sd")
    parts = {name: copy.deepcopy(getattr(pipe, name)) for name in ("unet", "vae", "text_encoder", "tokenizer")}
    pipe = tiny.pipeline("sd", **parts)
    speed_up(pipe)
    return pipe


def own_states(pipe, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(what the encoder answers, what it computes): (batch, tokens, channels) each."""
    encoder = pipe.text_encoder
    return encoder(ids).last_hidden_state, type(encoder).forward(encoder, ids).last_hidden_state


@pytest.mark.slow
def test_a_word_that_is_added_and_learned_is_never_answered_from_memory(lone):
    """Textual inversion: the table of embeddings is another one, then one row of it is trained, then one is loaded."""
    encoder = lone.text_encoder
    ids = torch.arange(10)[None]
    with torch.no_grad():
        before, _ = own_states(lone, ids)
        encoder.resize_token_embeddings(encoder.config.vocab_size + 1)
        table = encoder.get_input_embeddings().weight
        new = torch.cat([ids[:, :-1], torch.tensor([[len(table) - 1]])], 1)
        first, right = own_states(lone, new)
        assert torch.equal(first, right)
        table[3] += 1.0
        second, right = own_states(lone, new)
        assert torch.equal(second, right) and not torch.equal(first, second)
        table.data[-1] = 5.0  # past autograd's counter, as diffusers' loader does it
        third, right = own_states(lone, new)
        assert torch.equal(third, right) and not torch.equal(second, third)
        assert encoder(new).last_hidden_state is encoder(new.clone()).last_hidden_state, "and known again"
    table.grad = torch.zeros_like(table)
    table.grad[-1] = 1.0
    torch.optim.SGD([table], lr=1.0).step()
    with torch.no_grad():
        fourth, right = own_states(lone, new)
    assert torch.equal(fourth, right) and not torch.equal(third, fourth)


def replace_parameter(unet):
    unet.conv_out.weight = torch.nn.Parameter(unet.conv_out.weight.detach() * 2)


def assign_state(unet):
    changed = {
        name: tensor * 2 if name == "conv_out.weight" else tensor.clone() for name, tensor in unet.state_dict().items()
    }
    unet.load_state_dict(changed, assign=True)


def edit_row(unet):
    with torch.no_grad():
        unet.conv_out.weight[0] += 1.0


def replace_layer(unet):
    unet.mid_block.resnets[0].nonlinearity = torch.nn.ReLU()


def change_attribute(unet):
    for layer in unet.modules():  # as is done for pictures that continue themselves
        if isinstance(layer, torch.nn.Conv2d):
            layer.padding_mode = "circular"
            layer._reversed_padding_repeated_twice = [1, 1, 1, 1] if layer.padding == (1, 1) else [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("change", [replace_parameter, assign_state, edit_row, replace_layer, change_attribute])
def test_every_way_to_change_a_network_counts(lone, change):
    z, text = torch.randn(2, 4, 8, 8, generator=tiny.generator()), torch.randn(2, 77, 32, generator=tiny.generator(1))
    with torch.no_grad():
        first = lone.unet(z, 500, text).sample
        change(lone.unet)
        with pytest.warns(UserWarning, match="speed_up"):
            changed = lone.unet(z, 500, text).sample
        right = type(lone.unet).forward(lone.unet, z, 500, text).sample
        assert torch.equal(changed, right)
        assert relative_error(first, right) > 0.01, "the change is one that shows"
        speed_up(lone)  # a graph in the cache is that of a network before the change
        again = lone.unet(z, 500, text).sample
    assert not torch.equal(again, right) and relative_error(again, right) < ALLOWED_ERROR / 2


def test_freeu_counts_while_it_is_on(pockets):
    fast, given = pockets[1], noise_and_text()
    own = lambda: type(fast.unet).forward(fast.unet, *given).sample
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said once, perhaps by an earlier test
        plain = fast.unet(*given).sample
        fast.enable_freeu(s1=0.5, s2=0.2, b1=1.5, b2=1.6)
        try:
            scaled = fast.unet(*given).sample
            assert torch.equal(scaled, own()) and relative_error(scaled, plain) > 0.1
        finally:
            fast.disable_freeu()
        assert torch.equal(fast.unet(*given).sample, plain) and not torch.equal(plain, own()), "fast again"


def test_a_hook_on_a_layer_inside_is_called(pockets):
    fast, given, seen = pockets[1], noise_and_text(), []
    ids = torch.arange(77)[None]
    with torch.no_grad():
        plain, states = fast.unet(*given).sample, fast.text_encoder(ids).last_hidden_state
        layers = (
            fast.unet.mid_block.resnets[0],
            fast.vae.decoder.mid_block,
            next(m for n, m in fast.text_encoder.named_modules() if n.endswith("mlp")),
        )
        hooks = [layer.register_forward_hook(lambda module, *_: seen.append(module)) for layer in layers]
        try:
            hooked = fast.unet(*given).sample
            fast.vae.decode(given[0])
            fast.text_encoder(ids)
            fast.text_encoder(ids)
        finally:
            for hook in hooks:
                hook.remove()
        assert seen == [*layers, layers[2]], "the text encoder was called twice"
        assert torch.equal(hooked, type(fast.unet).forward(fast.unet, *given).sample)
        assert torch.equal(fast.unet(*given).sample, plain), "fast again"
        assert fast.text_encoder(ids).last_hidden_state is states
        outer = fast.unet.register_forward_hook(lambda *_: seen.append("all"))
        try:
            assert torch.equal(fast.unet(*given).sample, plain) and seen[-1] == "all", "this one costs nothing"
        finally:
            outer.remove()


def test_a_hook_is_not_kept_in_the_cache(pockets, tmp_path):
    """Traced together with a hook, the graph would hold what that did, also after it was gone."""
    unet = copy.deepcopy(pockets[0].unet)
    unet.mid_block.register_forward_hook(lambda module, inputs, output: output * 0)
    graph = UNetGraph(unet, PrecomputedInputs(unet))
    assert not any(m._forward_hooks for m in graph.modules()) and unet.mid_block._forward_hooks


def test_inference_tensors_are_watched_without_a_counter():
    with torch.inference_mode():
        network = torch.nn.Sequential(torch.nn.Linear(3, 3))
    watched = ChangeDetector(network)
    assert watched.unchanged()
    network[0].weight.data += 1
    assert not watched.unchanged()


def test_a_change_counts_at_once_in_a_new_run_and_within_four_steps_in_one(pockets):
    _, fast = pockets
    z, text = torch.randn(1, 4, 16, 16, generator=tiny.generator()), torch.zeros(1, 77, 192)
    from bench.cpu import graph_of

    graph, norm = graph_of(fast.unet), fast.unet.up_blocks[0].resnets[0].norm1
    before, calls = norm.eps, []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        fast.unet(z, 900, text)
        bare = type(fast.unet).forward
        patch.setattr(type(fast.unet), "forward", lambda self, *a, **k: calls.append(a[1]) or bare(self, *a, **k))
        graph.said = True  # the warning is another test's
        try:
            fast.unet(z, 900, text)
            norm.eps = 1.0
            for timestep in (800, 700, 600, 500):
                fast.unet(z, timestep, text)
            assert 500 in calls, "each quarter of the layers was asked once"
            norm.eps = before
            fast.unet(z, 900, text)
            norm.eps, calls[:] = 1.0, []
            fast.unet(z, 800, text.clone())
            assert calls == [800], "other states: a new run, though at a lower timestep"
        finally:
            norm.eps, graph.said = before, False
        calls.clear()
        fast.unet(z, 900, text)
        assert not calls, "and back again"


def test_a_core_is_spared_only_inside_the_block(pockets):
    _, fast = pockets
    z, text = torch.randn(2, 4, 16, 16, generator=tiny.generator()), torch.zeros(2, 77, 192)
    from bench.cpu import graph_of

    graph, threads = graph_of(fast.unet), torch.get_num_threads()
    graph.runners.clear()  # other tests may have drawn on one thread
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            (both,) = fast.unet(z, 500, text, return_dict=False)
            with reserve_core():
                (alone,) = fast.unet(z, 500, text, return_dict=False)
            (again,) = fast.unet(z, 500, text, return_dict=False)
        (runner,) = [graph.runners[key] for key in graph.runners if key[0] == 1 and key[1][0] == (2, 4, 16, 16)]
        assert runner.network.get_property("INFERENCE_NUM_THREADS") == 1
        assert torch.equal(both, again) and psnr(both.numpy(), alone.numpy()) > 40
        torch.set_num_threads(1)
        with reserve_core():
            assert usable_threads() == 1, "of one there is none to spare"
    finally:
        torch.set_num_threads(threads)


def test_a_caption_is_read_as_the_encoder_reads_it(pockets, monkeypatch):
    exact, fast = pockets
    tokens = lambda prompts: (
        exact.tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    )
    calls, bare = [], Compiled.__call__
    counted = lambda self, *tensors, **more: calls.append(1) or bare(self, *tensors, **more)
    monkeypatch.setattr(Compiled, "__call__", counted)
    with torch.no_grad():
        for prompts in (["three owls on a pink background"], [""], ["a bus", "a red bus to the left of a boat"]):
            ours, theirs = (pipe.text_encoder(tokens(prompts)) for pipe in (fast, exact))
            assert torch.allclose(ours.last_hidden_state, theirs.last_hidden_state, atol=1e-4)
            assert torch.allclose(ours.pooler_output, theirs.pooler_output, atol=1e-4)
        assert len(calls) == 2, "two captions at once are left to the encoder"
        ids = tokens(["a bus on a gray background"])
        assert isinstance(fast.text_encoder(ids, return_dict=False), tuple) and len(calls) == 2
        weight = fast.text_encoder.get_parameter(
            next(n for n, _ in fast.text_encoder.named_parameters() if n.endswith("fc1.weight"))
        )
        weight.mul_(1.5)
        try:
            changed = fast.text_encoder(ids).last_hidden_state
            assert not torch.allclose(changed, exact.text_encoder(ids).last_hidden_state, atol=1e-2)
        finally:
            weight.div_(1.5)


def test_a_pointwise_convolution_of_few_numbers_is_computed_without_threads():
    for channels, bias in ((4, True), (8, False)):
        layer = torch.nn.Conv2d(channels, 4, 1, bias=bias)
        for side in (5, 16, 96):  # the last is left to the layer
            x = torch.randn(2, channels, side, side + 1, generator=tiny.generator())
            assert is_pointwise(layer)
            assert torch.allclose(pointwise_forward(layer, x), layer(x), atol=1e-5)
    for other in (
        torch.nn.Conv2d(4, 4, 3),
        torch.nn.Conv2d(4, 4, 1, groups=2),
        torch.nn.Conv2d(4, 4, 1, stride=2),
        None,
    ):
        assert not is_pointwise(other)


def test_pictures_are_postprocessed_with_the_same_numbers(pockets):
    exact, fast = (pipe.image_processor for pipe in pockets)
    assert "postprocess" in vars(fast) and "postprocess" not in vars(exact)
    decoded = 2 * torch.randn(2, 3, 32, 24, generator=tiny.generator())
    decoded[0, 0, 0, 0] = float("nan")
    for settings in (
        {"output_type": "np"},
        {"output_type": "pt"},
        {"output_type": "np", "do_denormalize": [True, False]},
    ):
        ours, theirs = (np.asarray(processor.postprocess(decoded, **settings)) for processor in (fast, exact))
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs, equal_nan=True)
    decoded = decoded.nan_to_num()
    ours, theirs = (processor.postprocess(decoded) for processor in (fast, exact))
    assert [picture.tobytes() for picture in ours] == [picture.tobytes() for picture in theirs]
    assert fast.postprocess(decoded, "latent") is decoded


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_group_norm_by_channels_is_the_group_norm(offset):
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(3, 12, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 12, 5, 7) + offset
    exact = norm.double()(x.double()).float()
    assert torch.allclose(ChannelwiseGroupNorm(norm.float())(x), exact, atol=1e-5 if not offset else 1e-2)


def test_doubling_and_convolving_is_one_transposed_convolution():
    convolution = torch.nn.Conv2d(3, 5, 3, padding=1)
    x = torch.randn(2, 3, 4, 6, generator=tiny.generator())
    doubled = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    assert torch.allclose(DoubleAndConvolve(convolution)(x), convolution(doubled), atol=1e-5)


def test_a_fast_pipeline_does_not_search_its_layers_for_a_device_and_is_still_its_own_kind(tmp_path, monkeypatch):
    from diffusers import AutoPipelineForImage2Image, StableDiffusionPipeline

    pipe = tiny.pipeline("sd")
    pipe = type(pipe)(**copy.deepcopy(pipe.components), requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    asked = []
    search = StableDiffusionPipeline._execution_device.fget
    monkeypatch.setattr(
        StableDiffusionPipeline, "_execution_device", property(lambda self: asked.append(1) or search(self))
    )
    tiny.run(pipe, steps=1)
    assert asked and not asked.clear()
    for card in (True, False):
        with monkeypatch.context() as there:
            there.setattr(torch.cuda, "is_available", lambda card=card: card)
            speed_up(pipe)
        tiny.run(pipe, steps=1)
        assert bool(asked) == card, "with a card in the machine, hooks may name it"
        asked.clear()
    assert isinstance(pipe, StableDiffusionPipeline) and pipe._execution_device == torch.device("cpu")
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
    assert type(AutoPipelineForImage2Image.from_pipe(pipe)).__name__ == "StableDiffusionImg2ImgPipeline"
    restore(pipe)
    assert type(pipe) is StableDiffusionPipeline


@pytest.mark.slow
def test_a_fast_turbo_picture_is_the_exact_ones_up_to_rounding():
    exact, fast = (sdwidgets.load("pocket", "cpu", "float32", turbo=True, speed=speed) for speed in ("exact", "fast"))
    for pipe in (exact, fast):
        pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "np"}
    one, other = (p("a red circle", generator=tiny.generator(), **settings).images for p in (exact, fast))
    assert 10 * np.log10(1 / ((one - other) ** 2).mean()) > 30 and "forward" in vars(fast.vae.decoder)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        latents = torch.randn(1, 4, 16, 16, generator=tiny.generator())
        given = fast.vae.decoder(latents)
        assert relative_error(given, exact.vae.decoder(latents)) < ALLOWED_ERROR


def test_exact_is_stock_bit_for_bit(pockets):
    from diffusers import StableDiffusionPipeline

    exact, _ = pockets
    stock = StableDiffusionPipeline(**exact.components, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    assert type(exact) is StableDiffusionPipeline
    assert not any(
        "forward" in vars(m) for part in (exact.unet, exact.vae, exact.text_encoder) for m in part.modules()
    )
    assert np.array_equal(draw(stock, steps=3), draw(exact, steps=3))
    with sdwidgets.record(exact):
        assert np.array_equal(draw(stock, steps=3), draw(exact, steps=3))


def test_what_cannot_be_fast_says_so(monkeypatch):
    with pytest.raises(DeviceError, match="exact, fast"):
        sdwidgets.load("pocket", speed="warp")
    with pytest.raises(TypeError, match="use speed='exact'"):
        speed_up(tiny.pipeline("sdxl"))
    with pytest.raises(TypeError, match="use speed='exact'"):
        speed_up(tiny.pipeline("sd3"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"sdwidgets\[fast\]"):
        speed_up(tiny.pipeline("sd"))


def loaded_slowly(match: str, capsys, name="pocket"):
    """What `load` gives where speed="fast" is not possible; one warning, which says why."""
    with pytest.warns(UserWarning, match=match) as said:
        pipe = sdwidgets.load(name, "cpu", speed="fast")
    assert len(said) == 1 and "computes exactly" in str(said[0].message) and said[0].filename == __file__
    assert "exact, not fast" in capsys.readouterr().out
    assert not any("forward" in vars(m) for part in (pipe.unet, pipe.vae, pipe.text_encoder) for m in part.modules())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_without_openvino_a_person_loses_speed_and_nothing_else(pockets, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    pipe = loaded_slowly(r"pip install 'sdwidgets\[fast\]'", capsys)
    assert np.allclose(draw(pipe, steps=2), draw(pockets[0], steps=2), atol=1e-4)


def test_a_wrong_graph_or_another_family_loses_speed_and_nothing_else(tmp_path, monkeypatch, capsys):
    tiny.pipeline("sdxl").save_pretrained(tmp_path / "sdxl")
    loaded_slowly("StableDiffusionXLPipeline$", capsys, tmp_path / "sdxl")
    honest = Compiled.__call__
    spoiled = lambda self, *tensors, **more: (
        honest(self, *tensors, **more) + (self.channels == 4 and len(tensors) == 1)
    )
    monkeypatch.setattr(Compiled, "__call__", spoiled)  # the decoder's; the U-Net's was well before
    loaded_slowly("differs by", capsys)


def test_on_a_mac_load_computes_exactly(monkeypatch, capsys):
    """The pipeline stays on the CPU here; only what `load` chooses is a Mac's."""
    from sdwidgets.loading import pipeline

    monkeypatch.setattr(pipeline, "choose_device", lambda device: (torch.device("mps"), "Apple GPU"))
    monkeypatch.setattr(pipeline, "_move", lambda *args: "")
    loaded_slowly("for CPU and CUDA so far", capsys)


def test_a_forward_that_another_library_replaced_is_not_ours():
    """accelerate's hooks and DeepCache put their own in its place: `restore` leaves it, and the sentence names the cause."""
    pipe = tiny.pipeline("sd", unet=copy.deepcopy(tiny.pipeline("sd").unet))
    bare = pipe.unet.forward
    pipe.unet.forward = lambda *args, **kwargs: bare(*args, **kwargs)
    assert not replaced(pipe.unet)
    restore(pipe)
    assert "forward" in vars(pipe.unet), "DeepCache's own, which undoes it itself"
    with pytest.raises(RuntimeError, match="another library has replaced, as DeepCache does"):
        attention_unet(pipe, "edit")
    assert "speed" not in code(pipe, {"prompt": "a", "seed": 0})

"""speed="fast": the same pictures up to rounding, and diffusers' own arithmetic wherever it cannot be that."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch

import sdwidgets
from sdwidgets import speed
from sdwidgets.errors import DeviceError
from tests import tiny

openvino = speed._import_openvino()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDWIDGETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield speed.cache_folder() / "compiled"


@pytest.fixture(scope="module")
def pockets():
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


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(1 / max(np.square(a - b).mean(), 1e-12)))


def is_fast(pipe) -> bool:
    return "forward" in vars(pipe.unet) and "forward" in vars(pipe.vae.decoder)


def test_fast_pictures_are_the_exact_ones_up_to_rounding(pockets):
    exact, fast = pockets
    assert is_fast(fast) and not is_fast(exact)
    prompts = ["a cat on a red background", "a red circle above a green square on a white background"]
    assert psnr(draw(exact, prompts), draw(fast, prompts)) > 35
    assert psnr(draw(exact, prompts[:1]), draw(fast, prompts[1:])) < 25, "another prompt is another picture"


@pytest.mark.parametrize("size", [{"height": 64, "width": 96}, {"height": 72, "width": 128}])
def test_other_sizes_and_no_guidance_are_drawn_alike(pockets, size):
    exact, fast = pockets
    a, b = (draw(pipe, steps=4, **size) for pipe in pockets)
    assert a.shape == (1, size["height"], size["width"], 3) and psnr(a, b) > 35
    with torch.no_grad():
        z, text = (
            torch.randn(3, 4, 16, 16, generator=tiny.generator()),
            torch.randn(3, 77, 192, generator=tiny.generator(1)),
        )
        (a,), (b,) = (pipe.unet(z, 500, text, return_dict=False) for pipe in (exact, fast))
    assert torch.allclose(a, b, atol=0.1) and not torch.equal(a, b)


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
        speed.speed_up(fast)
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
    speed.slow_down(pipe)
    bare = draw(pipe)
    assert not is_fast(pipe) and not np.array_equal(bare, fast)
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
    compile_decoder = lambda: speed.Compiled(decoder, decoder, example, cache, openvino)  # noqa: E731
    honest = speed.Compiled.__call__
    spoiled = lambda self, *t, **k: honest(self, *t, **k) * (float("nan") if self.plan.precision == "bf16" else 1)  # noqa: E731
    monkeypatch.setattr(speed, "_faster_plan", lambda *args: speed.Plan("bf16", 1))
    monkeypatch.setattr(speed.Compiled, "__call__", spoiled)
    assert compile_decoder().plan.precision == "f32"
    monkeypatch.setattr(speed.Compiled, "__call__", lambda self, *t: honest(self, *t) + 1)
    with pytest.raises(RuntimeError, match="use speed='exact'"):
        compile_decoder()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_order_of_memory_gives_the_same_answer(pockets, count):
    """Latents that come from an encoder of pictures are often channels_last: what is copied for OpenVINO has to live as long as it reads."""
    decoder, unet = pockets[1].vae.decoder, pockets[1].unet
    noise, text = torch.randn(count, 4, 16, 16, generator=tiny.generator(7)), torch.randn(count, 77, 192, generator=tiny.generator(8))
    strided = noise.contiguous(memory_format=torch.channels_last), torch.cat([noise, noise], 1)[:, :4]
    with torch.no_grad():
        for network, more in ((decoder, ()), (unet, (500, text))):
            right = network(noise, *more, **({"return_dict": False} if more else {}))
            for other in strided:
                filler = [torch.randn(count, 4, 16, 16) for _ in range(8)]  # takes memory that was given back too early
                found = network(other, *more, **({"return_dict": False} if more else {}))
                assert torch.equal(found[0], right[0]) and len(filler) == 8


def test_a_new_shape_is_compared_with_the_network_and_computed_by_it_where_it_is_wrong(pockets, tmp_path, monkeypatch):
    decoder, asked = pockets[0].vae.decoder, []
    graph = speed.Compiled(decoder, decoder, (torch.zeros(1, 4, 16, 16),), tmp_path, openvino)
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        right = type(decoder).forward(decoder, noise)
    exact = lambda: asked.append(True) or right  # noqa: E731
    first = graph(noise, exact=exact)
    assert torch.equal(graph(noise, exact=exact), first) and len(asked) == 1, "compared once, and the same answer twice"
    assert speed.relative_error(first, right) < 0.02
    graph.runners.clear()
    compiled = []
    monkeypatch.setattr(speed._Runner, "__call__", lambda self, tensors: compiled.append(1) or right * float("nan"))
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
    speed.Compiled(decoder, decoder, example, tmp_path, openvino)
    assert len(seen) == 1 and not {".xml", ".bin"} & set(seen[0])
    assert sorted(path.suffix for path in tmp_path.iterdir()) in ([".bin", ".xml"], [".bin", ".json", ".xml"])
    (graph,) = tmp_path.glob("*.xml")
    graph.write_bytes(graph.read_bytes()[:5000])
    with pytest.raises(RuntimeError):
        openvino.Core().read_model(graph)
    speed.Compiled(decoder, decoder, example, tmp_path, openvino)
    assert openvino.Core().read_model(graph).inputs, "a file that was cut short is made again"


def test_a_plan_that_cannot_be_compiled_is_left_out(pockets, tmp_path, monkeypatch):
    """As bfloat16 is where ONEDNN_MAX_CPU_ISA=AVX2 forbids the instructions that OpenVINO counts on."""
    bare = speed._Runner.__init__

    def narrow(self, compiled, shapes, plan):
        if plan.precision == "bf16":
            raise RuntimeError("Supported primitive descriptors list is empty")
        bare(self, compiled, shapes, plan)

    monkeypatch.setattr(speed._Runner, "__init__", narrow)
    decoder = pockets[0].vae.decoder
    assert speed.Compiled(
        decoder, decoder, (torch.zeros(1, 4, 16, 16),), tmp_path, openvino
    ).plan == speed.Plan("f32", 1)


def test_two_halves_at_once_compute_what_one_call_does(pockets, cache, monkeypatch):
    unet = pockets[0].unet
    z, text = torch.randn(2, 4, 16, 16, generator=tiny.generator()), torch.randn(2, 77, 192)
    answers = []
    for parts in (1, 2):
        monkeypatch.setattr(speed, "_faster_plan", lambda *args, parts=parts: speed.Plan("f32", parts))
        given = speed._Given(unet)
        graph = speed._compiled_unet(unet, given, torch.zeros_like(z), text, cache, openvino)
        with torch.no_grad():
            answers.append(graph(z, given.times(300.0), *given.texts(text)))
            three = torch.cat([z, z[:1]]), torch.cat([text, text[:1]])
            odd = graph(three[0], given.times(300.0), *given.texts(three[1]))  # which two cannot share
            assert torch.allclose(odd[:2], answers[-1], atol=1e-4)
    with torch.no_grad():
        exact = unet(z, 300, text).sample
    assert torch.allclose(answers[0], answers[1], atol=1e-4) and torch.allclose(answers[0], exact, atol=1e-3)


def test_what_the_text_alone_decides_is_computed_once_a_prompt(pockets):
    _, fast = pockets
    calls = []
    reader = next(m for n, m in fast.unet.named_modules() if n.endswith("attn2.to_k"))
    handle = reader.register_forward_hook(lambda *_: calls.append(1))
    z, text = torch.randn(2, 4, 16, 16, generator=tiny.generator()), torch.randn(2, 77, 192)
    try:
        with torch.no_grad():
            first = fast.unet(z, 900, text).sample
            fast.unet(z, torch.tensor(500), text.clone())
            assert len(calls) == 1
            text *= 2  # as a notebook does that plays with embeddings
            assert not torch.allclose(fast.unet(z, 900, text).sample, first) and len(calls) == 2
    finally:
        handle.remove()


def test_doubling_and_convolving_is_one_transposed_convolution():
    convolution = torch.nn.Conv2d(3, 5, 3, padding=1)
    x = torch.randn(2, 3, 4, 6, generator=tiny.generator())
    doubled = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    assert torch.allclose(speed.DoubleAndConvolve(convolution)(x), convolution(doubled), atol=1e-5)


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
        speed.speed_up(tiny.pipeline("sdxl"))
    with pytest.raises(TypeError, match="use speed='exact'"):
        speed.speed_up(tiny.pipeline("sd3"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"sdwidgets\[fast\]"):
        speed.speed_up(tiny.pipeline("sd"))

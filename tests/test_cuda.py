"""What speed_gpu does that a CPU can show: compiled by region, fused projections, and back again. The rest: tests/gpu."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from sdwidgets.acceleration import cuda, restore
from sdwidgets.parts import map_leaves
from tests import tiny

pytestmark = pytest.mark.skipif(bool(cuda.why_no_compiler(torch.device("cpu"))), reason="needs a C++ compiler")


def flat_networks() -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """A U-Net of one level and an autoencoder of two: each kind of block, but few shapes, since every shape is compiled alone."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16,),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return unet.eval(), vae.eval()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(exact, fast), each with networks of its own; one compilation for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDWIDGETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        unet, vae = flat_networks()
        exact, fast = (tiny.pipeline("sd", unet=copy.deepcopy(unet), vae=copy.deepcopy(vae)) for _ in range(2))
        words = cuda.compile_regions(fast, graphs=False)
        assert "compiled by region" in words and "fused projections" in words
        yield exact, fast


@pytest.mark.weekly
def test_compiled_and_fused_pictures_are_the_exact_ones_up_to_rounding(pair):
    exact, fast = pair
    compiled = [m for m in fast.unet.modules() if m._compiled_call_impl is not None]
    kinds = {type(module).__name__ for module in compiled}
    assert kinds == {"BasicTransformerBlock", "ResnetBlock2D"}
    assert np.allclose(tiny.run(exact), tiny.run(fast), atol=1e-4)


@pytest.mark.slow
def test_what_is_saved_has_the_same_names(pair):
    exact, fast = pair
    assert exact.unet.state_dict().keys() == fast.unet.state_dict().keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(exact.unet.state_dict().values(), fast.unet.state_dict().values(), strict=True)
    )


@pytest.mark.weekly
def test_a_change_in_place_counts_at_once_in_fused_projections_too(pair):
    exact, fast = pair
    before = tiny.run(fast)
    name = next(n for n, _ in exact.unet.named_parameters() if n.endswith("attn1.to_k.weight"))
    weights = [pipe.unet.get_parameter(name) for pipe in pair]
    kept = weights[0].data.clone()
    try:
        for weight in weights:
            weight.data.mul_(-5)
        changed = tiny.run(fast)
        assert not np.allclose(changed, before, atol=1e-4)
        assert np.allclose(changed, tiny.run(exact), atol=1e-4)
    finally:
        for weight in weights:
            weight.data.copy_(kept)


@pytest.mark.slow
def test_a_hook_on_a_compiled_block_is_called(pair):
    exact, fast = pair
    tiny.run(fast)
    seen = []
    layers = fast.unet.mid_block.resnets[0], fast.vae.decoder.mid_block.resnets[0]
    assert all(layer._compiled_call_impl is not None for layer in layers)
    hooks = [layer.register_forward_hook(lambda module, *_: seen.append(module)) for layer in layers]
    try:
        picture = tiny.run(fast, steps=2)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == [layers[0], layers[0], layers[1]]
    assert np.allclose(picture, tiny.run(exact, steps=2), atol=1e-4)
    tiny.run(fast)
    assert len(seen) == 3 and "forward" in vars(fast.unet), "fast again"


def test_freeu_takes_everything_back():
    """Without the compiler; a graph that was captured before would go on without FreeU."""
    made = tiny.pipeline("sd")
    pipes = [tiny.pipeline("sd", unet=copy.deepcopy(made.unet), vae=copy.deepcopy(made.vae)) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "why_no_compiler", lambda device: "not wanted here")
        cuda.compile_regions(pipes[1], graphs=True)
    for pipe in pipes:
        pipe.enable_freeu(s1=0.5, s2=0.2, b1=1.5, b2=1.6)
    with pytest.warns(UserWarning, match="speed_up"):
        picture = tiny.run(pipes[1])
    assert np.allclose(picture, tiny.run(pipes[0]), atol=1e-4) and "forward" not in vars(pipes[1].unet)


class OnACard(torch.nn.Module):
    """Doubles; says that it is on a card, and has room for eight at once."""

    device = torch.device("cuda")

    def forward(self, sample):
        if len(sample) > 8:
            raise torch.OutOfMemoryError("no room for the call")
        return sample * 2


class Replayed:
    def replay(self):
        pass


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_batch_too_large_for_a_graph_leaves_smaller_ones_theirs(wrapped, monkeypatch):
    asked = []

    def capture(self, args, kwargs):
        """As on a card that has room for graphs of at most two; the error of an ended capture may come on top."""
        asked.append(len(args[0]))
        if len(args[0]) > 2:
            try:
                raise torch.OutOfMemoryError("no room for the graph")
            finally:
                if wrapped:
                    raise RuntimeError("the capture was ended")
        return Replayed(), [torch.empty_like(args[0])], torch.full_like(args[0], 7.0)

    monkeypatch.setattr(cuda.Graphed, "capture", capture)
    graphed = cuda.Graphed(OnACard())
    with pytest.warns(UserWarning, match="no CUDA graph"):
        assert graphed(torch.ones(4)).eq(2).all()
    assert graphed(torch.ones(4)).eq(2).all() and asked == [4], "not tried again at every step"
    with pytest.warns(UserWarning), pytest.raises(torch.OutOfMemoryError, match="for the call"):
        graphed(torch.ones(16))
    assert graphed(torch.ones(2)).eq(7).all() and asked == [4, 16, 2] and not graphed.impossible


def test_another_processor_takes_everything_back_and_stays():
    from diffusers.models.attention_processor import AttnProcessor

    pipe = tiny.pipeline(
        "sd", unet=copy.deepcopy(tiny.pipeline("sd").unet), vae=copy.deepcopy(tiny.pipeline("sd").vae)
    )
    exact = tiny.run(pipe)
    cuda.compile_regions(pipe, graphs=False)
    first = next(m for m in pipe.unet.modules() if hasattr(m, "processor"))
    mine = AttnProcessor()
    first.set_processor(mine)
    with pytest.warns(UserWarning, match="speed_up"):
        picture = tiny.run(pipe)
    assert first.processor is mine and np.allclose(picture, exact, atol=1e-4)
    assert not any(m._compiled_call_impl is not None for m in pipe.unet.modules())
    assert not any("Fused" in type(p).__name__ for p in pipe.unet.attn_processors.values())
    assert "forward" not in vars(pipe.unet)


@pytest.mark.slow
def test_it_is_taken_back_as_it_was(pair):
    fast = tiny.pipeline("sd", unet=copy.deepcopy(pair[0].unet), vae=copy.deepcopy(pair[0].vae))
    keys = [dict(vars(module)).keys() for module in fast.unet.modules()]
    cuda.compile_regions(fast, graphs=False)
    restore(fast)
    left = [dict(vars(module)).keys() for module in fast.unet.modules()]
    assert [set(a) - {"fused_projections"} for a in keys] == [
        set(b) - {"original_attn_processors", "fused_projections"} for b in left
    ]
    assert np.allclose(tiny.run(fast), tiny.run(pair[0]), atol=1e-5)


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_other_families_are_drawn_alike(family, tmp_path, monkeypatch):
    """Without the compiler, whose part is the same for all: it would take a minute."""
    monkeypatch.setattr(cuda, "why_no_compiler", lambda device: "not wanted here")
    denoiser = "unet" if family == "sdxl" else "transformer"
    pipe = tiny.pipeline(family)
    pipe = tiny.pipeline(family, **{denoiser: copy.deepcopy(getattr(pipe, denoiser)), "vae": copy.deepcopy(pipe.vae)})
    exact = tiny.run(pipe)
    assert "not compiled: not wanted here" in cuda.compile_regions(pipe, graphs=True)  # on a CPU graphs stand back
    assert np.allclose(tiny.run(pipe), exact, atol=1e-4)
    restore(pipe)


def test_signatures_tell_calls_apart():
    a, b = torch.zeros(2, 3), torch.zeros(2, 4)
    found: list = []
    key = cuda._signature(((a,), {"x": {"y": b}, "flag": False}), found)
    assert [tensor.shape for tensor in found] == [a.shape, b.shape]
    assert key == cuda._signature(((a + 1,), {"flag": False, "x": {"y": b}}), [])
    assert key != cuda._signature(((a,), {"x": {"y": b}, "flag": True}), [])
    assert key != cuda._signature(((b,), {"x": {"y": b}, "flag": False}), [])
    assert key != cuda._signature(((a.half(),), {"x": {"y": b}, "flag": False}), [])
    assert cuda._signature(((a,), {"call": print}), []) is None
    nest = map_leaves({"a": [a, (b, 1)]}, torch.Tensor, lambda tensor: tensor + 1)
    assert nest["a"][0].eq(1).all() and nest["a"][1][1] == 1 and type(nest["a"][1]) is tuple

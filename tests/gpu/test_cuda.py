"""What needs a CUDA card: `pytest -m gpu`. Elsewhere these are skipped, with the reason."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from sdwidgets.loading import pipeline
from sdwidgets.loading.devices import auto_dtype, choose_device, choose_dtype
from sdwidgets.loading.pipeline import load
from sdwidgets.recording import record
from tests import tiny

PROMPT = "a cat on a red background"


@pytest.fixture(autouse=True)
def deterministic():
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
    gc.collect()
    torch.cuda.empty_cache()


def draw(pipe, steps: int = 8, seed: int = 3) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": steps, "guidance_scale": 4.0, "output_type": "np"}
    return pipe(PROMPT, generator=torch.Generator("cpu").manual_seed(seed), **settings).images[0]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels between two pictures in [0, 1]."""
    return float(-10 * np.log10(np.mean((a - b) ** 2) + 1e-12))


def test_auto_takes_the_card_and_the_precision_it_is_fast_in(capsys):
    device, _ = choose_device("auto")
    dtype, why = choose_dtype("auto", device)
    major, minor = torch.cuda.get_device_capability()
    assert device.type == "cuda" and dtype == auto_dtype("cuda", major) and f"{major}.{minor}" in why
    pipe = load("pocket")
    assert pipe.device.type == "cuda" and pipe.unet.dtype == dtype
    assert "cuda" in capsys.readouterr().out


def test_float32_on_the_card_is_the_picture_of_the_cpu():
    assert psnr(draw(load("pocket", "cuda", "float32")), draw(load("pocket", "cpu", "float32"))) > 35


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close_to_float32(dtype):
    if dtype == "bfloat16" and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this card only emulates bfloat16")
    exact, half = draw(load("pocket", "cuda", "float32")), draw(load("pocket", "cuda", dtype))
    assert np.isfinite(half).all() and half.std() > 0.02, "not a black picture"
    assert psnr(half, exact) > 20


def test_sdxl_in_float16_decodes_in_float32(tmp_path, capsys):
    tiny.pipeline("sdxl").save_pretrained(tmp_path / "xl")
    pipe = load(tmp_path / "xl", "cuda", "float16")
    assert "VAE decodes in float32" in capsys.readouterr().out
    seen = []
    decode = pipe.vae.decode
    pipe.vae.decode = lambda z, *a, **k: seen.append(z.dtype) or decode(z, *a, **k)
    pipe.set_progress_bar_config(disable=True)
    image = tiny.run(pipe, steps=2)
    assert seen == [torch.float32] and np.isfinite(image).all()
    assert pipe.vae.dtype == torch.float16, "and goes back"


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_recording_leaves_the_picture_as_it_was(family, tmp_path):
    tiny.pipeline(family).save_pretrained(tmp_path / family)
    pipe = load(tmp_path / family, "cuda")
    pipe.set_progress_bar_config(disable=True)
    bare = tiny.run(pipe, steps=4)
    with record(pipe) as trace:
        recorded = tiny.run(pipe, steps=4)
    assert (bare == recorded).all()
    assert len(trace) == 4 and trace.complete and trace.settings.device.startswith("cuda")
    assert all(step.latents.dtype == np.float32 and np.isfinite(step.pred_original).all() for step in trace.steps)


def test_a_model_too_large_for_the_card_runs_part_by_part(monkeypatch):
    whole = draw(load("pocket", "cuda", "float32"))
    monkeypatch.setattr(pipeline, "free_bytes", lambda device: 1_000_000)
    pipe = load("pocket", "cuda", "float32")
    assert next(pipe.unet.parameters()).device.type == "cpu", "parts wait in main memory"
    with record(pipe) as trace:
        image = draw(pipe)
    assert psnr(image, whole) > 60 and len(trace) == 8


def test_a_card_out_of_memory_is_one_sentence():
    from sdwidgets.loading.errors import NoSpaceError

    class TooLarge:
        def to(self, device):
            return torch.empty(10**15, dtype=torch.uint8, device=device)

    with pytest.raises(NoSpaceError, match='device="cpu"'):
        pipeline._move(TooLarge(), torch.device("cuda"), size=0)


def test_playground_runs_on_the_card():
    from sdwidgets import Playground

    playground = Playground(load("pocket", "cuda"), prompt=PROMPT)
    try:
        trace = playground.run(num_inference_steps=4, seed=1).wait(timeout=120)
        assert trace.complete and len(trace) == 4 and trace.settings.device.startswith("cuda")
    finally:
        playground.close()


# ---- speed="fast" --------------------------------------------------------------------------------------------------


@pytest.fixture
def fast(tmp_path, monkeypatch):
    monkeypatch.setenv("SDWIDGETS_CACHE", str(tmp_path))
    return load("pocket", "cuda", "float16", speed="fast")


def test_fast_pictures_are_the_exact_ones_up_to_rounding(fast):
    exact = load("pocket", "cuda", "float16")
    for seed in (3, 4):  # the second replays the graph that the first has captured
        assert psnr(draw(fast, seed=seed), draw(exact, seed=seed)) > 30
    graphs = _graphed(fast).graphs
    assert len(graphs) == 1 and not _graphed(fast).impossible
    assert psnr(draw(fast, seed=3), draw(fast, seed=4)) < 30, "another seed is another picture"


def test_a_fast_run_is_recorded_and_watched(fast):
    bare = draw(fast)
    seen = []
    with record(fast, on_step=lambda step: seen.append(step.index)) as trace:
        recorded = draw(fast)
    assert (bare == recorded).all() and seen == list(range(8)) and trace.complete
    assert trace.settings.device.startswith("cuda")
    predictions = [step.noise_pred for step in trace.steps]
    assert not np.array_equal(predictions[0], predictions[1]), (
        "a graph writes to the same memory again; answers are copies"
    )


def test_weights_changed_in_place_count_in_the_graph_too(fast):
    before = draw(fast)
    name = next(n for n, _ in fast.unet.named_parameters() if n.endswith("attn1.to_k.weight"))
    fast.unet.get_parameter(name).data.mul_(-5)
    changed = draw(fast)
    exact = load("pocket", "cuda", "float16")
    exact.unet.get_parameter(name).data.mul_(-5)
    assert psnr(changed, before) < 40 and psnr(changed, draw(exact)) > 30


def test_other_sizes_have_graphs_of_their_own(fast):
    fast.set_progress_bar_config(disable=True)
    for side in (128, 192):
        image = fast(PROMPT, num_inference_steps=2, height=side, width=128, output_type="np").images[0]
        assert image.shape == (side, 128, 3) and np.isfinite(image).all()
    assert len(_graphed(fast).graphs) == 2


def test_what_moves_part_by_part_is_not_fast(monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "free_bytes", lambda device: 1_000_000)
    pipe = load("pocket", "cuda", "float32", speed="fast")
    assert "so not fast" in capsys.readouterr().out and "forward" not in vars(pipe.unet)


def _graphed(pipe):
    """The keeper of the graphs, as `speed_gpu` left it in the denoiser's forward."""
    from sdwidgets.acceleration.cuda import Graphed

    cells = [cell.cell_contents for cell in pipe.unet.forward.__func__.__closure__]
    return next(content for content in cells if isinstance(content, Graphed))

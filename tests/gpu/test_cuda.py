"""What needs a CUDA card: `pytest -m gpu`. Elsewhere these are skipped, with the reason."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from sdwidgets import pipelines
from sdwidgets.pipelines import auto_dtype, choose_device, choose_dtype, load
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
    assert all(
        step.latents.dtype == np.float32 and np.isfinite(step.pred_original).all() for step in trace.steps
    )


def test_a_model_too_large_for_the_card_runs_part_by_part(monkeypatch):
    whole = draw(load("pocket", "cuda", "float32"))
    monkeypatch.setattr(pipelines, "free_bytes", lambda device: 1_000_000)
    pipe = load("pocket", "cuda", "float32")
    assert next(pipe.unet.parameters()).device.type == "cpu", "parts wait in main memory"
    with record(pipe) as trace:
        image = draw(pipe)
    assert psnr(image, whole) > 60 and len(trace) == 8


def test_a_card_out_of_memory_is_one_sentence():
    from sdwidgets.errors import NoSpaceError

    class TooLarge:
        def to(self, device):
            return torch.empty(10**15, dtype=torch.uint8, device=device)

    with pytest.raises(NoSpaceError, match='device="cpu"'):
        pipelines._move(TooLarge(), torch.device("cuda"), size=0)


def test_playground_runs_on_the_card():
    from sdwidgets import Playground

    playground = Playground(load("pocket", "cuda"), prompt=PROMPT)
    try:
        trace = playground.run(num_inference_steps=4, seed=1).wait(timeout=120)
        assert trace.complete and len(trace) == 4 and trace.settings.device.startswith("cuda")
    finally:
        playground.close()

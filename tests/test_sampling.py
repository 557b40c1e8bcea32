"""Runs with another scheduler, many prompts at once, and the loop alone, on tiny real pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdwidgets.analysis import denoiser, sampling
from tests import tiny


def settings():
    return {"num_inference_steps": 2, "guidance_scale": 1.0, **tiny.SIZE}


def test_trailing_runs_begin_at_the_last_timestep():
    pipe = tiny.pipeline()
    for label in ("DDIM", "DPM++ 2M", "Euler"):
        made = sampling.trailing(pipe, label)
        made.set_timesteps(4)
        assert made.timesteps[0] == 999, label


def test_each_prompt_has_its_own_seed_and_the_scheduler_is_put_back():
    pipe = tiny.pipeline()
    before = pipe.scheduler
    together = sampling.finished_latents(
        pipe, ["a cat", "a dog"], scheduler=sampling.trailing(pipe, "DDIM"), **settings()
    )
    assert pipe.scheduler is before and together.shape == (2, 4, 8, 6)
    noise = torch.cat([torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)])
    given = sampling.finished_latents(
        pipe, ["a cat", "a dog"], scheduler=sampling.trailing(pipe, "DDIM"), start=noise.numpy(), **settings()
    )
    assert np.allclose(together, given, atol=1e-4)
    assert not np.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_loop_alone_gives_the_pipelines_latents(family):
    pipe = tiny.pipeline(family)
    settings = {"num_inference_steps": 3, "guidance_scale": 4.0}
    before = pipe.scheduler.num_inference_steps
    found = sampling.denoise(pipe, denoiser.conditioning(pipe, "a cat"), 5, **settings)
    assert pipe.scheduler.num_inference_steps == before, "the pipeline's own scheduler is left alone"
    generator = torch.Generator("cpu").manual_seed(5)
    expected = pipe("a cat", generator=generator, output_type="latent", **settings).images
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(sampling.denoise(pipe, denoiser.conditioning(pipe, "a cat"), 6, **settings), expected)


def test_a_pipeline_without_a_unet_is_a_sentence():
    with pytest.raises(TypeError, match="has no unet"):
        sampling.denoise(tiny.pipeline("flux"), {})

"""Runs with another scheduler, many prompts at once, and the loop alone, on tiny real pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdwidgets.analysis import denoiser, sampling
from sdwidgets.trace import Step, Trace
from tests import tiny


def settings():
    return {"num_inference_steps": 2, "guidance_scale": 1.0, **tiny.SIZE}


def test_trailing_runs_begin_at_the_last_timestep():
    pipe = tiny.pipeline()
    for label in ("DDIM", "DPM++ 2M", "Euler"):
        made = sampling.trailing(pipe, label)
        made.set_timesteps(4)
        assert made.timesteps[0] == 999, label


def test_a_recorded_run_takes_a_scheduler_by_label_or_made():
    pipe = tiny.pipeline()
    made = sampling.trailing(pipe, "DDIM")
    for scheduler, first in (("DDIM", 751), (made, 999)):
        trace = sampling.run_with(pipe, scheduler, "a cat", num_inference_steps=4, output_type="latent", **tiny.SIZE)
        assert trace[0].timestep == first


def levels(*inverse_sigmas: float) -> Trace:
    """A run whose predicted x0 is 1 / sigma at each of its steps."""
    x = np.zeros((1, 1, 1, 1), np.float32)
    return Trace(
        steps=tuple(Step(i, 0.0, 1 / u, 1.0, x, x, None, None, x + u, 0.0) for i, u in enumerate(inverse_sigmas))
    )


def test_what_a_step_needs_against_what_it_has():
    found = sampling.held_and_extended(levels(1, 2, 4, 8), levels(1, 1.5, 2, 3, 4, 6, 8))
    # over the steps from 2 to 4 and from 4 to 8 the mean is 3 and 6; held 2 and 4; extended by half a step 2.5 and 5
    assert np.allclose(found["held"], [1, 2]) and np.allclose(found["extended"], [0.5, 1])


def test_held_is_what_ddim_does_and_extended_what_dpm_solver_does():
    pipe = tiny.pipeline()
    run = {"num_inference_steps": 4, "output_type": "latent", **tiny.SIZE}
    trace = sampling.run_with(pipe, sampling.trailing(pipe, "DPM++ 2M"), "a cat", **run)
    errors = sampling.held_and_extended(trace, trace)
    x0, a, b = trace.pred_original, trace.alphas, np.sqrt(1 - trace.alphas**2)
    needed = (x0[1] / 2 + x0[2] / 2).astype(np.float64)
    used = (trace[2].latents - b[2] / b[1] * trace[1].latents) / (
        a[2] - b[2] / b[1] * a[1]
    )  # of the step that was taken
    assert np.isclose(errors["extended"][0], np.sqrt(((used - needed) ** 2).mean()), rtol=1e-2)
    assert np.isclose(errors["held"][0], np.sqrt(((x0[1] - needed) ** 2).mean()), rtol=1e-3)


@pytest.mark.parametrize("coarse", [levels(1, 2), levels(1, 5, 8), levels(0.5, 1, 4)])
def test_runs_that_cannot_be_compared_are_a_sentence(coarse):
    with pytest.raises(ValueError, match="does not visit the noise levels"):
        sampling.held_and_extended(coarse, levels(1, 2, 4, 8))


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

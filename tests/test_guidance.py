"""Guidance by hand: predictions in a batch as the pipeline makes them, the loop, and the recorded scales."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sdwidgets
from sdwidgets.analysis import guidance
from tests import tiny

LATENTS = (1, 4, 8, 6)


def start(batch: int = 1):
    return torch.randn((batch, *LATENTS[1:]), generator=tiny.generator())


def by_pipeline(pipe, scale, latents, steps=3, **settings):
    asked = {"prompt": tiny.PROMPT, "latents": latents, "num_inference_steps": steps, **tiny.SIZE, **settings}
    return pipe(guidance_scale=scale, output_type="latent", **asked).images


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("negative", [None, "", "a cat"])
def test_the_loop_is_the_pipelines(family, negative):
    pipe = tiny.pipeline(family)
    predict = guidance.predictor(pipe, negative, tiny.PROMPT, **tiny.SIZE)
    found = guidance.sample(pipe, predict, lambda uncond, cond: guidance.apply_guidance(uncond, cond, 5.0), start(), 3)
    torch.testing.assert_close(found, by_pipeline(pipe, 5.0, start(), negative_prompt=negative))


def test_no_prompt_of_sdxl_is_zeros_and_not_the_empty_text():
    pipe = tiny.pipeline("sdxl")
    none, empty = guidance.predictor(pipe, None, "", **tiny.SIZE)(start(), torch.tensor(500))
    assert not torch.allclose(none, empty)
    sd = tiny.pipeline("sd")
    none, empty = guidance.predictor(sd, None, "", **tiny.SIZE)(start(), torch.tensor(500))
    torch.testing.assert_close(none, empty)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_three_prompts_and_a_batch_of_pictures(family):
    pipe = tiny.pipeline(family)
    pipe.scheduler.set_timesteps(3)
    t = pipe.scheduler.timesteps[0]
    prompts = (None, "a cat", "a dog")
    together = guidance.predictor(pipe, *prompts, **tiny.SIZE)(start(2), t)
    assert [tuple(prediction.shape) for prediction in together] == [(2, *LATENTS[1:])] * 3
    for prompt, prediction in zip(prompts, together, strict=True):
        for i in range(2):
            (alone,) = guidance.predictor(pipe, prompt, **tiny.SIZE)(start(2)[i : i + 1], t)
            torch.testing.assert_close(prediction[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_a_predictor_may_be_made_in_the_midst_of_a_loop(capsys):
    """Asking the pipeline what it hands its denoiser leaves the pipeline's own scheduler where it stands."""
    pipe = tiny.pipeline("sd")
    pipe.scheduler.set_timesteps(7)
    before, scheduler = pipe.scheduler.timesteps.clone(), pipe.scheduler
    pipe.set_progress_bar_config(disable=False)
    guidance.predictor(pipe, None, "a cat", **tiny.SIZE)
    assert pipe.scheduler is scheduler and torch.equal(pipe.scheduler.timesteps, before)
    assert capsys.readouterr().err == "" and pipe._progress_bar_config == {"disable": False}


def test_guide_is_a_line():
    uncond, cond = np.array([1.0, -2.0]), np.array([3.0, 2.0])
    assert np.array_equal(guidance.apply_guidance(uncond, cond, 0), uncond)
    assert np.array_equal(guidance.apply_guidance(uncond, cond, 1), cond)
    assert np.array_equal(guidance.apply_guidance(uncond, cond, 3), [7.0, 10.0])
    np.testing.assert_allclose(guidance.apply_guidance(uncond, cond, 4), guidance.apply_guidance(cond, uncond, -3))


def test_a_pipeline_without_a_unet_is_told_what_to_do():
    with pytest.raises(TypeError, match="record"):
        guidance.predictor(tiny.pipeline("sd3"), None, "a cat", **tiny.SIZE)
    with pytest.raises(ValueError, match="one or more texts"):
        guidance.predictor(tiny.pipeline("sd"), **tiny.SIZE)


def test_guidance_records_every_scale_from_the_same_noise():
    pipe = tiny.pipeline("sd")
    view = sdwidgets.guidance(pipe, tiny.PROMPT, scales=(8, 1, 2), seed=3, num_inference_steps=4, **tiny.SIZE)
    assert view.scales == (1, 2, 8) and [len(trace) for trace in view.traces] == [4, 4, 4]
    assert all(np.array_equal(trace[0].latents, view.traces[0][0].latents) for trace in view.traces)
    expected = tiny.run(pipe, seed=3, steps=4, guidance_scale=8.0, output_type="pil")[0]
    np.testing.assert_allclose(view.traces[-1].images[0].astype(int), np.asarray(expected).astype(int), atol=1)


def test_what_is_predicted_is_decoded_for_both_halves_and_the_guided_one():
    pipe = tiny.pipeline("sd")
    with sdwidgets.record(pipe) as trace:
        tiny.run(pipe, steps=3, guidance_scale=4.0)
    pictures = guidance.decode_predictions(pipe, trace)
    assert set(pictures) == {"uncond", "cond", "guided"}
    assert all(shown.shape == (3, 64, 48, 3) and shown.dtype == np.uint8 for shown in pictures.values())
    assert not np.array_equal(pictures["uncond"], pictures["cond"])
    with sdwidgets.record(pipe) as alone:
        tiny.run(pipe, steps=3, guidance_scale=1.0)
    assert set(guidance.decode_predictions(pipe, alone)) == {"guided"}


@pytest.mark.parametrize("scales", [(), (2, 2.0), (1, float("nan")), (float("inf"),)])
def test_scales_that_make_no_sense(scales):
    with pytest.raises(ValueError, match="finite numbers, at least one and each once"):
        sdwidgets.guidance(tiny.pipeline("sd"), tiny.PROMPT, scales=scales)


def test_what_the_prompt_changes_is_measured_in_predicted_x0():
    pipe = tiny.pipeline("sd")
    with sdwidgets.record(pipe) as trace:
        pipe(tiny.PROMPT, latents=start(), num_inference_steps=3, guidance_scale=5.0, **tiny.SIZE)
    kind = trace.settings.prediction_type
    without, with_it = (trace[1].half_original(half, kind) for half in ("uncond", "cond"))
    expected = np.sqrt(((with_it - without) ** 2).sum() / (with_it**2).sum())
    share = guidance.prompt_share(trace)
    assert share.shape == (3,) and share[1] == pytest.approx(expected, rel=1e-5)
    with sdwidgets.record(pipe) as trace:
        pipe(tiny.PROMPT, latents=start(), num_inference_steps=1, guidance_scale=1.0, **tiny.SIZE)
    with pytest.raises(ValueError, match="scale above 1"):
        guidance.prompt_share(trace)

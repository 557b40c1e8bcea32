"""One question to a denoiser, and its answer's names: against diffusers' pipelines and schedulers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import sdwidgets
from sdwidgets.analysis import denoiser
from sdwidgets.analysis.denoiser import convert_prediction, error_factors, predict
from sdwidgets.widgets.noise_explorer import explore_noise
from tests import tiny


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_predict_answers_as_the_pipeline_is_answered(family):
    """The first step of an unguided run asks the same question; the answer must be the same."""
    pipe = tiny.pipeline(family, scheduler=tiny.sd_scheduler())
    with sdwidgets.record(pipe) as trace:
        tiny.run(pipe, guidance_scale=1.0)
    step = trace[0]
    answer = predict(pipe, step.latents, step.timestep, tiny.PROMPT)
    assert np.allclose(answer, step.noise_pred, atol=1e-5)
    assert not np.allclose(answer, predict(pipe, step.latents, step.timestep, "another"), atol=1e-5)
    assert not np.allclose(answer, predict(pipe, step.latents, 20, tiny.PROMPT), atol=1e-5)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_every_latent_has_its_own_clock_and_words(family):
    pipe = tiny.pipeline(family)
    latents = np.random.default_rng(0).normal(size=(3, 4, 8, 6)).astype(np.float32)
    words, ticks = ["a cat", "a dog", ""], [10, 500, 999]
    together = predict(pipe, latents, ticks, words, batch_size=2)
    alone = [predict(pipe, latents[i : i + 1], ticks[i], words[i])[0] for i in range(3)]
    assert np.allclose(together, np.stack(alone), atol=1e-5)


def test_predict_refuses_what_does_not_fit():
    pipe = tiny.pipeline()
    with pytest.raises(ValueError, match="with 2 prompts"):
        predict(pipe, np.zeros((3, 4, 8, 6)), 10, ["a", "b"])
    with pytest.raises(ValueError, match=r"shape \(4, 8, 6\)"):
        predict(pipe, np.zeros((4, 8, 6)), 10)
    with pytest.raises(TypeError, match="has no unet"):
        predict(tiny.pipeline("sd3"), np.zeros((1, 16, 8, 6)), 10)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [20, 500, 980])
def test_three_names_are_diffusers_own(prediction_type, t):
    scheduler = tiny.sd_scheduler("DDIMScheduler", prediction_type=prediction_type)
    scheduler.set_timesteps(50)
    x, answer = torch.randn(2, 2, 4, 8, 8, generator=tiny.generator(1))
    t = int(scheduler.timesteps[(scheduler.timesteps - t).abs().argmin()])
    told = convert_prediction(x.numpy(), answer.numpy(), float(scheduler.alphas_cumprod[t]) ** 0.5, prediction_type)
    theirs = scheduler.step(answer, t, x).pred_original_sample.numpy()
    assert np.allclose(told["x0"], theirs, atol=1e-4)
    x0, epsilon = (torch.from_numpy(told[name]).float() for name in ("x0", "epsilon"))
    clock = torch.tensor([t, t])
    assert np.allclose(scheduler.add_noise(x0, epsilon, clock), x, atol=1e-4)
    assert np.allclose(scheduler.get_velocity(x0, epsilon, clock), told["v"], atol=1e-4)


def test_three_names_take_a_signal_for_each_sample():
    x, answer = np.random.default_rng(0).normal(size=(2, 3, 4, 8, 8))
    together = convert_prediction(x, answer, np.array([0.2, 0.5, 0.9]), "v_prediction")
    for i, a in enumerate((0.2, 0.5, 0.9)):
        for name, value in convert_prediction(x[i], answer[i], a, "v_prediction").items():
            assert np.allclose(together[name][i], value)
    pure = convert_prediction(x, answer, 0.0, "v_prediction")  # pure noise: v is minus the picture
    assert np.allclose(pure["x0"], -answer) and np.allclose(pure["epsilon"], x)
    with pytest.raises(ValueError, match="'noise' is not known; allowed are 'epsilon', 'v_prediction'"):
        convert_prediction(x, answer, 0.5, "noise")
    with pytest.raises(ValueError, match="a flow's velocity"):
        convert_prediction(x, answer, 0.5, "flow_prediction")


def test_explore_noise_encodes_and_draws():
    pipe = tiny.pipeline()
    picture = Image.effect_noise((tiny.SIZE["width"], tiny.SIZE["height"]), 60).convert("RGB")
    explorer = explore_noise(pipe, picture, seed=3, t=10)
    assert explorer.latents.shape == explorer.noise.shape == (4, 8, 6) and explorer.state["t"] == 10
    assert np.array_equal(explorer.noise, torch.randn(4, 8, 6, generator=tiny.generator(3)).numpy())
    assert np.array_equal(explorer.latents, sdwidgets.analysis.autoencoder.encode(pipe, picture)[0])
    with pytest.raises(ValueError, match="does not fit"):
        explore_noise(pipe, picture.resize((50, 50)))


def test_error_factors_are_the_ratios_of_signal_and_noise():
    a = np.array([0.1, 0.6, 0.99])
    b, off = np.sqrt(1 - a**2), error_factors(a)
    assert np.allclose(off["epsilon"]["x0"], b / a) and np.allclose(off["x0"]["epsilon"], a / b)
    assert np.allclose(off["v"]["x0"], b) and np.allclose(off["v"]["epsilon"], a)
    assert all(np.allclose(off[name][name], 1) for name in off)


def test_mixed_conditionings_lie_between_the_two():
    pipe = tiny.pipeline("sdxl")
    one, two = (denoiser.conditioning(pipe, prompt) for prompt in ("a cat", "a dog"))
    half = denoiser.mix(one, two, 0.5)
    name = "encoder_hidden_states"
    assert torch.allclose(half[name], (one[name] + two[name]) / 2, atol=1e-6)
    pooled = "added_cond_kwargs"
    assert torch.allclose(half[pooled]["text_embeds"], (one[pooled]["text_embeds"] + two[pooled]["text_embeds"]) / 2)
    assert torch.equal(denoiser.mix(one, two, 0)[name], one[name]) and torch.equal(
        denoiser.mix(one, two, 1)[name], two[name]
    )

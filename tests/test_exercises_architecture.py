"""The checks of notebook 01 that run a pipeline: the right answer, the likeliest wrong ones, an untouched stub."""

from __future__ import annotations

import pytest
import torch

from sdwidgets.course import exercises
from sdwidgets.latents import predicted_original
from tests import tiny


@pytest.fixture(params=["sd", "sdxl"])
def pipe(request):
    return tiny.pipeline(request.param)


# ---- calls --------------------------------------------------------------------------------------------------------


def test_calls_is_right():
    assert exercises.calls(text_encoder=2, unet=60, vae_decoder=1)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ((2, 60, 30), "once, at the very end"),
        ((2, 30, 1), "with guidance each step looks at two latents"),
        ((1, 60, 1), "the empty prompt"),
        ((60, 60, 1), "read once, before the first step"),
        ((2, 61, 1), "two predictions"),
        ((3, 60, 1), "which texts"),
    ],
)
def test_calls_names_the_mistake(answer, hint):
    verdict = exercises.calls(*answer)
    assert verdict.correct is False and hint in verdict.message


def test_calls_knows_an_untouched_stub():
    assert exercises.calls(text_encoder=..., unet=..., vae_decoder=...).correct is None
    assert exercises.calls().correct is None


# ---- encode, noise, ask, decode -----------------------------------------------------------------------------------


def there_and_back(
    scale=True,
    unscale=True,
    roots=True,
    swapped=False,
    ask=True,
    kind=None,
    decode=True,
    sampled=False,
    known_roots=True,
    raw=False,
):
    """The right function, or one with a mistake."""

    def function(pipe, pixels, noise, t, text):
        factor, scheduler = pipe.vae.config.scaling_factor, pipe.scheduler
        posterior = pipe.vae.encode(pixels).latent_dist
        z = (posterior.sample() if sampled else posterior.mean) * (factor if scale else 1)
        abar = float(scheduler.alphas_cumprod[t])
        a, b = (abar**0.5, (1 - abar) ** 0.5) if roots else (abar, 1 - abar)
        if swapped:
            a, b = b, a
        x0 = noisy = a * z + b * noise
        if ask:
            answer = pipe.unet(noisy, t, **text).sample
            kind_of = kind or scheduler.config.prediction_type
            known = (abar**0.5, (1 / abar - 1) ** 0.5) if known_roots else (abar, 1 / abar - 1)
            x0 = answer if raw else predicted_original(noisy, answer, *known, kind_of)
        if not decode:
            return x0
        return pipe.vae.decode(x0 / factor if unscale else x0).sample

    return function


def test_round_trip_is_right(pipe):
    assert exercises.round_trip(there_and_back(), pipe)


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        ({"scale": False, "unscale": False}, "The scaling factor is missing"),
        ({"unscale": False}, "divide by the scaling factor again"),
        ({"scale": False}, "Encoding was not scaled"),
        ({"ask": False}, "You decoded the noisy latent itself"),
        ({"roots": False}, "Shares are square roots"),
        ({"roots": False, "known_roots": False}, "in the noisy latents and for predicted_original"),
        ({"known_roots": False}, "predicted_original takes a square root too"),
        ({"raw": True}, "You decoded what the U-Net gave back"),
        ({"swapped": True}, "have changed places"),
        ({"kind": "v_prediction"}, "This model predicts epsilon"),
        ({"decode": False}, "These are latents still"),
        ({"sampled": True}, "Two calls give two pictures"),
        ({"kind": "epsilon"}, "Right for this model alone"),
    ],
)
def test_round_trip_names_the_mistake(pipe, mistake, hint):
    verdict = exercises.round_trip(there_and_back(**mistake), pipe)
    assert verdict.correct is False and hint in verdict.message, verdict


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_round_trip_leaves_the_pipeline_as_it_is(pipe, kind):
    scheduler = pipe.scheduler
    pipe.scheduler = type(scheduler).from_config(scheduler.config, prediction_type=kind)
    assert exercises.round_trip(there_and_back(), pipe)
    assert exercises.round_trip(there_and_back(kind=kind), pipe).correct is False, "the kind was typed in"
    assert pipe.scheduler.config.prediction_type == kind


def test_round_trip_has_a_word_for_anything_else(pipe):
    cropped = exercises.round_trip(lambda pipe, pixels, *rest: pixels[..., :8], pipe)
    assert "Give pixels of shape" in cropped.message and cropped.correct is False
    unchanged = exercises.round_trip(lambda pipe, pixels, *rest: pixels, pipe)
    assert "off by" in unchanged.message and unchanged.correct is False
    stopped = exercises.round_trip(lambda pipe: None, pipe)
    assert "TypeError" in stopped.message and stopped.correct is False


@pytest.mark.parametrize("stub", [None, ..., lambda *given: ..., lambda *given: None])
def test_round_trip_knows_an_untouched_stub(stub):
    assert exercises.round_trip(stub, tiny.pipeline("sd")).correct is None


# ---- the loop from a picture ----------------------------------------------------------------------------------------


def started(begin="picture", first=None, level="first", combine=lambda u, c, w: u + w * (c - u), guidance=None):
    """The right function, or one with a mistake."""

    @torch.no_grad()
    def function(pipe, latent, noise, text, strength, steps, scale):
        scheduler, scale = pipe.scheduler, guidance or scale
        scheduler.set_timesteps(steps, device=pipe.device)
        taken = int(strength * steps)
        skip = {
            None: steps - taken,
            "all": 0,
            "late": steps - taken + 1,
            "early": steps - taken - 1,
            "turned": taken,
            "kept": steps - int(steps * (1 - strength)),
            "head": 0,
        }[first]
        timesteps = scheduler.timesteps[skip : taken if first == "head" else None]
        t = {"first": timesteps[:1], "run": scheduler.timesteps[:1], "last": timesteps[-1:]}[level]
        x = {
            "picture": scheduler.add_noise(latent, noise, t),
            "clean": latent,
            "noise": noise * scheduler.init_noise_sigma,
        }[begin]
        for t in timesteps:
            uncond, cond = pipe.unet(scheduler.scale_model_input(torch.cat([x, x]), t), t, **text).sample.chunk(2)
            x = scheduler.step(combine(uncond, cond, scale), t, x).prev_sample
        return x

    return function


def test_from_picture_is_right(pipe):
    assert exercises.from_picture(started(), pipe)


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        ({"begin": "noise", "first": "all"}, "began with noise alone"),
        ({"begin": "clean"}, "went in without noise"),
        ({"first": "all"}, "You took every step"),
        ({"first": "turned"}, "Strength is turned round"),
        ({"first": "kept"}, "Strength is turned round"),
        ({"guidance": 3.0}, "and wrong for others"),
        ({"first": "late"}, "one step too late"),
        ({"first": "early"}, "one step too early"),
        ({"level": "run"}, "that of the very first step"),
        ({"level": "last"}, "that of the last step"),
        ({"begin": "noise"}, "began with noise alone"),
        ({"first": "head"}, "You took the first"),
        ({"combine": lambda u, c, w: c}, "Guidance is missing"),
        ({"combine": lambda u, c, w: u}, "the empty prompt alone"),
        ({"combine": lambda u, c, w: c + w * (u - c)}, "have changed places"),
        ({"combine": lambda u, c, w: c + w * (c - u)}, "one step too far"),
        ({"combine": lambda u, c, w: (u + c) / 2}, "Not equal to diffusers'"),
    ],
)
def test_from_picture_names_the_mistake(pipe, mistake, hint):
    verdict = exercises.from_picture(started(**mistake), pipe)
    assert verdict.correct is False and hint in verdict.message, verdict


def test_from_picture_wants_latents(pipe):
    verdict = exercises.from_picture(lambda pipe, latent, *rest: latent[0], pipe)
    assert verdict.correct is False and "Give the finished latents" in verdict.message


@pytest.mark.parametrize("stub", [None, ..., lambda *given: ..., lambda *given: None])
def test_from_picture_knows_an_untouched_stub(stub):
    assert exercises.from_picture(stub, tiny.pipeline("sd")).correct is None


# ---- when it was decided ---------------------------------------------------------------------------------------------


def decided(mean=lambda previews: previews[:, :4, :4].mean((1, 2))):
    """The right function, or one that looks at other pixels; mean(previews) -> (step, ...) float."""

    def function(previews, tolerance):
        colours = mean(previews.astype(float))
        near = (abs(colours - colours[-1]) <= tolerance).reshape(len(colours), -1).all(1)
        return next(step for step in range(len(near)) if near[step:].all())

    return function


def test_step_decided_is_right():
    assert exercises.step_decided(decided())


@pytest.mark.parametrize(
    ("mean", "hint"),
    [
        (lambda previews: previews.mean((1, 2)), "over the whole picture"),
        (lambda previews: previews[:, :4, :4], "not each pixel"),
        (lambda previews: previews[:, :4, :4].mean((1, 2, 3)), "One channel that is far off"),
    ],
)
def test_step_decided_names_the_pixels_that_were_taken(mean, hint):
    verdict = exercises.step_decided(decided(mean))
    assert verdict.correct is False and hint in verdict.message, verdict

"""Checks of notebook 01, Architecture."""

from __future__ import annotations

import copy

import numpy as np

from ...latents import apply_guidance
from .verdict import Verdict, answer_of, check, refute, require, right, wrong


@check("Give the latent's shape as (channels, height, width), and the ratio.")
def compression(latent_shape=None, ratio=None) -> Verdict:
    """For a 512 x 512 RGB picture in Stable Diffusion 1.5: the latent's (channels, height, width) and how many
    times fewer numbers that is."""
    shape = tuple(int(side) for side in latent_shape)
    require(shape != (64, 64, 4), "The sizes are right; torch puts the channels first: (channels, height, width).")
    of_pixels = len(shape) == 3 and shape[0] == 3
    require(not of_pixels, "The picture has three channels (red, green, blue); the latent has four.")
    require(shape != (4, 16, 16), "That is Pocket's latent for 128 pixels. For 512, divide 512 by eight.")
    cells = (
        f"{shape} is not it: eight pixels become one latent pixel, in both directions, and there are four channels."
    )
    require(shape == (4, 64, 64), cells)
    mistakes = [
        (64, "64 counts latent pixels against pixels; a pixel holds three numbers and a latent pixel four."),
        (8, "Eight is the ratio of the sides; count all numbers."),
        (1 / 48, "That is its inverse: how many times fewer, so more than one."),
    ]
    refute(ratio, mistakes)
    require(np.isclose(ratio, 48), f"{ratio} is not it: 512 x 512 x 3 numbers became 4 x 64 x 64.")
    return right("786,432 numbers became 16,384: 48 times fewer, the same as in Pocket. That is why it is affordable.")


def _run(corners) -> np.ndarray:
    """Previews (step, 16, 16, 3) uint8 whose corner has the given gray levels; the middle is busy."""
    rng = np.random.default_rng(0)
    previews = rng.integers(0, 256, size=(len(corners), 16, 16, 3)).astype(np.uint8)
    for step, level in enumerate(corners):
        previews[step, :4, :4] = level
    return previews


@check("Hand over your function: exercises.step_decided(step_decided).")
def step_decided(function=None) -> Verdict:
    """`function(previews, tolerance)` -> the first step from which the mean colour of the upper left 4 x 4
    pixels stays within `tolerance` of its last value, in every colour channel."""
    plain = answer_of(function, _run([10, 130, 145, 160, 180, 190, 200]), 20)
    hints = {
        0: "Step 0 is the answer where the mean is taken over the whole picture, whose rest drowns the corner: take the upper left 4 x 4 pixels, previews[:, :4, :4].",
        1: "From step 1 on every change is small, but they add up: compare with the last step's colour, not with the step before.",
        3: "Step 3 is the last one that is still too far away; the step after it is the answer.",
        5: "180 lies exactly 20 levels from 200, and within a tolerance means at most that far. Or do you count from one?",
    }
    if plain == 6:  # the last step: of the corner's levels as uint8, and of any pixels that are busy to the end
        elsewhere = function(_run([5] * 7), 20) != 0  # there the corner never changes, and all the rest does
        wraps = "Numbers of type uint8 wrap around, 190 - 200 is 246: make them int or float before you subtract."
        corner = "Those pixels change to the end: take the upper left 4 x 4, previews[:, :4, :4]."
        hints[6] = corner if elsewhere else wraps
    plainly = f"For corners 10, 130, 145, 160, 180, 190, 200 and a tolerance of 20 the answer is 4, not {plain}, counted from 0."
    require(plain == 4, hints.get(plain, plainly))
    dark = function(_run([250, 40, 220, 30, 5, 0, 0]), 50)
    require(dark != 1, "The colour came close at step 1 and left again at step 2: ask from when on it stays.")
    require(
        dark == 3,
        f"For corners 250, 40, 220, 30, 5, 0, 0 and a tolerance of 50 the answer is 3, not {dark}: "
        "the distance counts in both directions.",
    )
    tinted = _run([0, 0, 0])
    tinted[0, :4, :4] = (60, 0, 0)
    require(
        function(tinted, 30) == 1,
        "One channel that is far off counts: take the largest difference over red, green and blue, not the mean.",
    )
    uneven = _run([100, 100, 100])
    uneven[0, :2, :4], uneven[0, 2:4, :4] = 160, 40  # 100 in the mean
    mean_first = "Compare the *mean* colour of the 4 x 4 pixels, not each pixel: take the mean first."
    require(function(uneven, 30) == 0, mean_first)
    require(function(_run([5, 5, 5]), 10) == 0, "A colour that never changes is decided at step 0.")
    return right("It asks from when on the colour stays, which is what decided means.")


@check("Give three whole numbers: calls(text_encoder=..., unet=..., vae_decoder=...).")
def calls(text_encoder=None, unet=None, vae_decoder=None) -> Verdict:
    """One picture in 30 steps at guidance 7.5, negative prompt empty: how many texts the text encoder reads, how many latents
    the U-Net looks at, how many latents the VAE's decoder draws."""
    for mistaken, sentence in (
        (vae_decoder != 1, "The VAE's decoder works once, at the very end: what the loop handles are latents, not pictures."),
        (unet == 30, "30 is the number of steps; with guidance each step looks at two latents, one for each text."),
        (unet != 60, f"{unet} is not it: 30 steps, and in each of them two predictions, without and with the prompt."),
        (text_encoder == 1, "Guidance compares with the empty prompt, and the text encoder has to read that one too."),
        (text_encoder in (30, 60), "The texts do not change during the run: they are read once, before the first step."),
        (text_encoder != 2, f"{text_encoder} is not it: which texts are there to read, and do they change on the way?"),
    ):  # fmt: skip
        require(not mistaken, sentence)
    return right("Two texts, sixty latents, one decoding: speed up the U-Net, or call it less often.")


def _nearly(result, expected) -> bool:
    """Equal up to rounding: within a hundredth of the spread of what is expected."""
    return bool((result - expected).abs().max() <= 0.01 * expected.std() + 1e-6)


def _way_and_back(pipe, mean, noise, t: int, text: dict):
    """The exercise's picture as a function of the mistakes that can be made in it; without arguments the right one."""
    from ...latents import predicted_original

    config, factor = pipe.scheduler.config, pipe.vae.config.scaling_factor
    abar = float(pipe.scheduler.alphas_cumprod[t])
    known = abar**0.5, (1 / abar - 1) ** 0.5

    def picture(
        scale=factor,
        unscale=None,
        signal=abar**0.5,
        spread=(1 - abar) ** 0.5,
        ask=True,
        kind=None,
        known=known,
        raw=False,
    ):
        x0 = noisy = signal * mean * scale + spread * noise
        if ask:
            answer = pipe.unet(noisy, t, **text).sample
            x0 = answer if raw else predicted_original(noisy, answer, *known, kind or config.prediction_type)
        return pipe.vae.decode(x0 / (unscale or scale)).sample

    return picture


def _round_trip_mistakes(kind: str, other: str, factor: float, abar: float) -> list[tuple[str, dict]]:
    """(what to say, the arguments of `_way_and_back` that make the mistake)."""
    return [
        ("The scaling factor is missing: multiply by vae.config.scaling_factor after encoding, divide before decoding.", {"scale": 1.0}),
        ("The latents are scaled after encoding; divide by the scaling factor again before you decode.", {"unscale": 1.0}),
        ("Encoding was not scaled: the U-Net learned on latents times vae.config.scaling_factor.", {"scale": 1.0, "unscale": factor}),
        ("No noise was put on: sqrt(abar) of the picture plus sqrt(1 - abar) of the noise.", {"spread": 0.0}),
        ("No noise was put on: sqrt(abar) of the picture plus sqrt(1 - abar) of the noise.", {"signal": 1.0, "spread": 0.0}),
        ("You decoded the noisy latent itself: ask the U-Net, and take the predicted x0.", {"ask": False}),
        ("Shares are square roots: sqrt(abar) of the picture, sqrt(1 - abar) of the noise.", {"signal": abar, "spread": 1 - abar}),
        ("Shares are square roots, in the noisy latents and for predicted_original: sqrt(abar) and sqrt(1 - abar).", {"signal": abar, "spread": 1 - abar, "known": (abar, 1 / abar - 1)}),
        ("predicted_original takes a square root too: its third argument, alpha, is sqrt(abar).", {"known": (abar, 1 / abar - 1)}),
        ("You decoded what the U-Net gave back: turn it into the predicted x0 by latents.predicted_original.", {"raw": True}),
        ("Picture and noise have changed places: sqrt(abar) belongs to the picture.", {"signal": (1 - abar) ** 0.5, "spread": abar**0.5}),
        (f"This model predicts {kind}: hand scheduler.config.prediction_type to latents.predicted_original.", {"kind": other}),
    ]  # fmt: skip


@check("Hand over your function and the pipeline: exercises.round_trip(noise_and_back, pipe).")
def round_trip(function=None, pipe=None, t: int = 400) -> Verdict:
    """`function(pipe, pixels, noise, t, text)` -> pixels: encode, put noise on as at time t, ask the U-Net once, decode
    the predicted x0.

    pixels: (1, 3, H, W) in -1 to 1. noise: (1, channels, h, w). text: what the U-Net takes beside latents and timestep, by name. pipe: a
    pipeline of Stable Diffusion's shape, as loaded in the notebook.
    """
    import torch

    from ...analysis.denoiser import conditioning
    from ..models import size

    pixels_of, vae, config = size(pipe), pipe.vae, pipe.scheduler.config
    generator = torch.Generator("cpu").manual_seed(0)
    across = torch.linspace(-0.9, 0.9, pixels_of["width"]).repeat(pixels_of["height"], 1)
    pixels = torch.stack([across, -across, across.flip(0).square() - 0.5])[None].to(vae.device, vae.dtype)
    text = conditioning(pipe, "an astronaut on a blue background", guidance_scale=1.0, **pixels_of)
    abar = float(pipe.scheduler.alphas_cumprod[t])
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        ask = lambda pipe: answer_of(function, pipe, pixels.clone(), noise.clone(), t, text)
        result = ask(pipe)
        reference = _way_and_back(pipe, mean, noise, t, text)
        expected, factor = reference(), vae.config.scaling_factor
        result = torch.as_tensor(result).to(expected)
        still = "These are latents still: the way back to pixels is pipe.vae.decode(...).sample."
        require(result.shape != mean.shape, still)
        fitting = f"Give pixels of shape {tuple(expected.shape)}; yours are {tuple(result.shape)}."
        require(result.shape == expected.shape, fitting)
        other = "epsilon" if config.prediction_type == "v_prediction" else "v_prediction"
        if _nearly(result, expected):
            # A kind that was typed in is right for one model only: ask again as if this one gave the other kind.
            says_other = copy.copy(pipe)  # so that `pipe` itself stays as it is
            says_other.scheduler = type(pipe.scheduler).from_config(config, prediction_type=other)
            again = torch.as_tensor(ask(says_other)).to(expected)
            if _nearly(again, reference(kind=other)):
                return right(
                    "Encode, noise, one prediction, decode: the loop is this, in small steps, from noise alone."
                )
            return wrong(
                f"Right for this model alone, which predicts {config.prediction_type}: read the kind from the pipeline that "
                "your function is given, pipe.scheduler.config.prediction_type."
            )
        for hint, settings in _round_trip_mistakes(config.prediction_type, other, factor, abar):
            require(not _nearly(result, reference(**settings)), hint)
        sampled = "Two calls give two pictures: take the encoder's mean, latent_dist.mean, and do not sample from it."
        require(_nearly(torch.as_tensor(ask(pipe)).to(expected), result), sampled)
    off = float((result - expected).abs().mean())
    return wrong(f"Your pixels are off by {off:.2g} on average: check each of the five lines by itself, its scale too.")  # fmt: skip


def _refute_image_to_image(
    pipe, latent, noise, text: dict, result, steps: int, strength: float, guidance: float
) -> None:
    """Ends the check with what is to be said of a loop that ends in `result`, where a mistake gives just that."""
    import torch

    scheduler, taken = pipe.scheduler, int(steps * strength)

    guided = lambda uncond, cond: apply_guidance(uncond, cond, guidance)

    @torch.no_grad()
    def walk(first, start, combine=guided, last=None):
        scheduler.set_timesteps(steps, device=pipe.device)
        timesteps = scheduler.timesteps[first:last]
        x = start(timesteps)
        for t in timesteps:
            both = scheduler.scale_model_input(torch.cat([x, x]), t)
            uncond, cond = pipe.unet(both, t, **text).sample.chunk(2)
            x = scheduler.step(combine(uncond, cond), t, x).prev_sample
        return x

    def noised(timesteps):
        return scheduler.add_noise(latent, noise, timesteps[:1])

    first = steps - taken
    alone = "You began with noise alone, so the picture is lost: begin with scheduler.add_noise(latent, noise, t)."
    mistakes = [
        (alone, first, lambda t: noise * scheduler.init_noise_sigma),
        (alone, 0, lambda t: noise * scheduler.init_noise_sigma),
        ("The picture went in without noise: the U-Net at its first t expects a noisy one. Use scheduler.add_noise.", first, lambda t: latent),
        ("You took every step: leave out the first steps - int(strength * steps) of them.", 0, noised),
        ("Strength is turned round: 1 takes every step and leaves little of the picture, 0 takes none.", taken, noised),
        ("Strength is turned round: 1 takes every step and leaves little of the picture, 0 takes none.", steps - int(steps * (1 - strength)), noised),
        ("You took the first int(strength * steps) steps; take the last ones, timesteps[steps - taken:].", 0, noised, guided, taken),
        ("Guidance is missing: the prompt's prediction alone was used. uncond + guidance * (cond - uncond).", first, noised, lambda uncond, cond: cond),
        ("That is the prediction for the empty prompt alone. uncond + guidance * (cond - uncond).", first, noised, lambda uncond, cond: uncond),
        ("The two predictions have changed places: the empty prompt's comes first, as in `uncond, cond = ...chunk(2)`.", first, noised, lambda uncond, cond: guided(cond, uncond)),
        ("You start at cond, so you go one step too far: uncond + guidance * (cond - uncond).", first, noised, lambda uncond, cond: cond + guidance * (cond - uncond)),
        ("You got on one step too late: the steps left are the last int(strength * steps).", first + 1, noised),
        ("You got on one step too early: the steps left are the last int(strength * steps).", first - 1, noised),
        ("The noise is that of the very first step: add as much as belongs to the first step that you take.", first, lambda t: scheduler.add_noise(latent, noise, scheduler.timesteps[:1])),
        ("The noise is that of the last step: add as much as belongs to the first step that you take.", first, lambda t: scheduler.add_noise(latent, noise, t[-1:])),
    ]  # fmt: skip
    for hint, *path in mistakes:
        require(not _nearly(result, walk(*path)), hint)


@check("Hand over your function and the pipeline: exercises.from_picture(from_picture, pipe).")
def from_picture(function=None, pipe=None) -> Verdict:
    """`function(pipe, latent, noise, text, strength, steps, guidance)` -> latents: the loop, started from a picture's latent.

    Compared, at two settings, with diffusers' own image to image on the same latents, noise and text: of `steps` steps the last
    int(strength steps) are taken.
    """
    import torch

    from ...analysis.denoiser import conditioning
    from ...generation.tasks import pipeline_for
    from ..models import size

    pixels_of, step = size(pipe), pipe.vae_scale_factor
    shape = (1, pipe.unet.config.in_channels, pixels_of["height"] // step, pixels_of["width"] // step)
    latent, noise = (
        torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=pipe.unet.dtype).to(pipe.device)
        for seed in (1, 2)
    )
    text = conditioning(pipe, "a cat", **pixels_of)
    image_to_image = pipeline_for(pipe, "image")
    image_to_image.set_progress_bar_config(disable=True)
    settings = ((8, 0.3, 3.0), (5, 0.65, 1.5))  # so that each mistake takes other steps
    for steps, strength, guidance in settings:
        result = answer_of(function, pipe, latent.clone(), noise.clone(), text, strength, steps, guidance)
        expected = image_to_image(
            "a cat", image=latent, strength=strength, num_inference_steps=steps, guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(2), output_type="latent",
        ).images  # fmt: skip
        result = torch.as_tensor(result).to(expected)
        finished = f"Give the finished latents, of shape {shape}; yours are {tuple(result.shape)}."
        require(result.shape == expected.shape, finished)
        if _nearly(result, expected):
            continue
        typed = "Right for 8 steps at strength 0.3, guidance 3, and wrong for others: take all three from the arguments of your function."
        require((steps, strength, guidance) == settings[0], typed)
        _refute_image_to_image(pipe, latent, noise, text, result, steps, strength, guidance)
        return wrong(
            "Not equal to diffusers' image to image: compare your loop with `sample` line by line, guidance too."
        )
    return right("That is image to image, and equal to diffusers': strength chooses the timestep at which you begin.")

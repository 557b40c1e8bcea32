"""Checks of notebook 01, Architecture."""

from __future__ import annotations

import numpy as np

from .verdict import Verdict, check, right, todo, wrong


@check
def compression(latent_shape=None, ratio=None) -> Verdict:
    """For a 512 x 512 RGB picture in Stable Diffusion 1.5: the latent's (channels, height, width) and how many
    times fewer numbers that is."""
    if latent_shape is None or latent_shape is ... or ratio is None or ratio is ...:
        return todo("Give the latent's shape as (channels, height, width), and the ratio.")
    shape = tuple(int(side) for side in latent_shape)
    if shape == (64, 64, 4):
        return wrong("The sizes are right; torch puts the channels first: (channels, height, width).")
    if len(shape) == 3 and shape[0] == 3:
        return wrong("The picture has three channels (red, green, blue); the latent has four.")
    if shape == (4, 16, 16):
        return wrong("That is Pocket's latent for 128 pixels. For 512, divide 512 by eight.")
    if shape != (4, 64, 64):
        return wrong(
            f"{shape} is not it: eight pixels become one cell, in both directions, and there are four channels."
        )
    if np.isclose(ratio, 64):
        return wrong("64 counts cells against pixels; a pixel holds three numbers and a cell four.")
    if np.isclose(ratio, 8):
        return wrong("Eight is the ratio of the sides; count all numbers.")
    if np.isclose(ratio, 1 / 48):
        return wrong("That is its inverse: how many times fewer, so more than one.")
    if not np.isclose(ratio, 48):
        return wrong(f"{ratio} is not it: 512 x 512 x 3 numbers became 4 x 64 x 64.")
    return right(
        "786,432 numbers became 16,384: 48 times fewer, the same as in Pocket. That is why it is affordable."
    )


def _run(corners) -> np.ndarray:
    """Previews (step, 16, 16, 3) uint8 whose corner has the given gray levels; the middle is busy."""
    rng = np.random.default_rng(0)
    previews = rng.integers(0, 256, size=(len(corners), 16, 16, 3)).astype(np.uint8)
    for step, level in enumerate(corners):
        previews[step, :4, :4] = level
    return previews


@check
def step_decided(function=None) -> Verdict:
    """`function(previews, tolerance)` -> the first step from which the mean colour of the upper left 4 x 4
    pixels stays within `tolerance` of its last value, in every colour channel."""
    if function is None or function is ...:
        return todo("Hand over your function: exercises.step_decided(step_decided).")
    plain = function(_run([10, 130, 145, 160, 180, 190, 200]), 20)
    if plain is None or plain is ...:
        return todo("Your function returns nothing yet.")
    hints = {
        1: "From step 1 on every change is small, but they add up: compare with the last step's colour, not with the step before.",
        3: "Step 3 is the last one that is still too far away; the step after it is the answer.",
        5: "180 lies exactly 20 levels from 200, and within a tolerance means at most that far. Or do you count from one?",
        6: "Numbers of type uint8 wrap around, 190 - 200 is 246: make them int or float before you subtract.",
    }
    if plain != 4:
        told = f"For corners 10, 130, 145, 160, 180, 190, 200 and a tolerance of 20 the answer is 4, not {plain}. "
        return wrong(hints.get(plain, told))
    dark = function(_run([250, 40, 220, 30, 5, 0, 0]), 50)
    if dark == 1:
        return wrong("The colour came close at step 1 and left again at step 2: ask from when on it stays.")
    if dark != 3:
        return wrong(
            f"For corners 250, 40, 220, 30, 5, 0, 0 and a tolerance of 50 the answer is 3, not {dark}: "
            "the distance counts in both directions."
        )
    tinted = _run([0, 0, 0])
    tinted[0, :4, :4] = (60, 0, 0)
    if function(tinted, 30) != 1:
        return wrong(
            "One channel that is far off counts: take the largest difference over red, green and blue, not the mean."
        )
    if function(_run([5, 5, 5]), 10) != 0:
        return wrong("A colour that never changes is decided at step 0.")
    return right("It asks from when on the colour stays, which is what decided means.")

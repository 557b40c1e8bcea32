"""Checks of notebook 03, Conditioning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from .verdict import Verdict, answer_of, check, close, refute, require, right, todo, untouched, wrong

UNCOND = np.array([[1.0, -2.0], [0.5, 3.0]])
COND = np.array([[3.0, 2.0], [0.5, 1.0]])
STOP = {"a", "an", "the", "and", "on", "of", "to", "in", "with"}  # words that name nothing
OTHER = np.array([[-1.0, 1.0], [2.0, 4.0]])


@check("Hand over your function: exercises.guide(guide).")
def guide(function=None) -> Verdict:
    """`function(uncond, cond, scale)` -> the guided prediction, uncond + scale (cond - uncond): arrays of one shape, a number."""
    answer = answer_of(function, UNCOND, COND, 4.0)
    hints = [
        (UNCOND + 4 * (UNCOND - COND), "You walk away from the prompt: the step goes from uncond to cond, so cond - uncond."),
        (COND + 4 * (COND - UNCOND), "You start at cond, so you go one step too far: at scale 1 it has to be cond itself. (In Ho and Salimans' own w, which is ours less 1, you are right.)"),
        (4 * COND, "That makes the prompt's prediction longer; guidance makes its *difference* from the other one longer."),
        (4 * (COND - UNCOND), "That is the step alone; it starts somewhere: at uncond."),
        (4 * UNCOND + (1 - 4) * COND, "The two are swapped: at scale 0 your function gives cond."),
        (UNCOND + (4 - 1) * (COND - UNCOND), "At scale 1 your function gives uncond: the scale itself multiplies the step, not one less."),
    ]  # fmt: skip
    _require_prediction(answer, UNCOND + 4 * (COND - UNCOND), hints)
    for scale in (0.0, 1.0, 20.0):
        one_line = f"Right at scale 4, and wrong at scale {scale:g}: there is one line for all scales."
        require(close(function(UNCOND.copy(), COND.copy(), scale), UNCOND + scale * (COND - UNCOND)), one_line)
    swapped = "Right for one pair of predictions and wrong for another: take both from the arguments of your function."
    require(close(function(OTHER.copy(), UNCOND.copy(), 2.0), OTHER + 2 * (UNCOND - OTHER)), swapped)
    return right(
        "0 is the prediction without the prompt, 1 the one with it, and beyond 1 lies what no training showed."
    )


@check("Hand over your function: exercises.steps_run(steps_run).")
def steps_run(function=None) -> Verdict:
    """`function(num_inference_steps, strength)` -> how many steps image to image runs, as diffusers counts."""
    answer = answer_of(function, 20, 0.33)
    hints = {
        **dict.fromkeys((13, 14), "That many steps are left out at the start; the others run."),
        7: "20 x 0.33 is 6.6, and diffusers cuts it off: int(6.6).",
        20: "With a strength below 1 the first steps are left out.",
    }
    if answer in hints:
        return wrong(hints[answer])
    if isinstance(answer, float) and answer != int(answer):
        return wrong(f"{answer:g} steps cannot be run: make it a whole number, cut off with int().")
    require(
        answer == 6,
        f"For 20 steps at strength 0.33 diffusers runs 6, not {answer}: the share of the steps that the strength names.",
    )
    for steps, strength, expected in ((25, 1.0, 25), (50, 0.0, 0), (12, 0.75, 9)):
        answer = function(steps, strength)
        require(answer == expected, f"For {steps} steps at strength {strength:g} it is {expected}, not {answer}.")
    return right("Strength is nothing but a starting step: 1 runs every step and keeps next to nothing of the picture, 0 never starts.")  # fmt: skip


@check("Hand over your function: exercises.outpainting_mask(outpainting_mask).")
def outpainting_mask(function=None) -> Verdict:
    """`function(height, width, left, right)` -> numpy array (height, left + width + right) uint8: 255 where a picture of height x width that
    is made wider on both sides has to be painted, 0 where it is kept."""
    answer = answer_of(function, 16, 24, 8, 16)
    require(isinstance(answer, np.ndarray), f"Return a numpy array; yours is of type {type(answer).__name__}.")
    sizes = {
        (16, 24): "That is the size of the old picture; the mask is as wide as the new one: left + width + right.",
        (48, 16): "Height comes first: (height, width), as in every array of pixels.",
    }
    plainly = f"The mask has the shape {answer.shape}; for 16 x 24, made 8 wider on the left and 16 on the right, it is (16, 48)."
    require(answer.shape == (16, 48), sizes.get(answer.shape, plainly))
    expected = np.full((16, 48), 255)
    expected[:, 8:32] = 0
    require(
        answer.dtype != bool and answer.max() > 1,
        "A mask picture goes from 0 to 255, and 1 of 255 is as good as black: nothing would be painted.",
    )
    mistakes = [
        (255 - expected, "White is what is painted anew, black is what is kept: yours is the other way round."),
        (expected[:, ::-1], "Left and right are swapped: the old picture starts `left` pixels from the left."),
    ]
    refute(answer, mistakes, rtol=0, atol=0)
    require(
        np.array_equal(answer, expected),
        "The old picture's place, columns left to left + width, is 0, and everything beside it 255.",
    )
    for left, beside, old in ((0, 8, slice(0, 8)), (8, 0, slice(8, 16))):
        expected = np.full((8, 16), 255)
        expected[:, old] = 0
        require(
            np.array_equal(function(8, 8, left, beside), expected),
            f"Right for two borders, and wrong for left = {left}, right = {beside}. Mind slices like [-0:] and [:-0]: "
            "count from the left, from `left` to left + width.",
        )
    of_bytes = f"The numbers are right, and of type {answer.dtype}; pictures and masks are np.uint8."
    require(answer.dtype == np.uint8, of_bytes)
    return right("Outpainting is inpainting whose hole lies around the picture instead of in it.")


@check("Hand over your function: exercises.two_prompts(two_prompts).")
def two_prompts(function=None) -> Verdict:
    """`function(uncond, first, second, scale_first, scale_second)` -> a prediction that is steered by both prompts: from uncond a
    step towards each, (first - uncond) and (second - uncond), each times its scale (Liu et al., arXiv 2206.01714)."""
    answer = answer_of(function, UNCOND, COND, OTHER, 4.0, 2.0)
    first, second = 4 * (COND - UNCOND), 2 * (OTHER - UNCOND)
    hints = [
        (2 * UNCOND + first + second, "uncond is in there twice: you added two guided predictions. Start at uncond once."),
        (UNCOND + (first + second) / 2, "The mean of two guided predictions gives each prompt half of the strength that was asked for."),
        (first + second, "Those are the two steps; they start at uncond."),
        (UNCOND + first + 2 * (OTHER - COND), "The second step also starts at uncond: second - uncond, not second - first."),
        (UNCOND + 2 * (COND - UNCOND) + 4 * (OTHER - UNCOND), "The scales are swapped."),
        (UNCOND + 4 * COND + 2 * OTHER, "Take uncond off each prompt's prediction before you scale it."),
    ]  # fmt: skip
    _require_prediction(answer, UNCOND + first + second, hints)
    away = function(OTHER.copy(), COND.copy(), UNCOND.copy(), 3.0, -1.0)
    require(
        close(away, OTHER + 3 * (COND - OTHER) - (UNCOND - OTHER)),
        "With a scale of -1 the second step goes away from its prompt: do not take its size only.",
    )
    return right("With a negative second scale you have a negative prompt that does not take the empty one's place.")


@check()
def same_map(first=None, second=None, heats: Mapping[str, np.ndarray] | None = None) -> Verdict:
    """Which two words look at the same places? heats: word -> its map (h, w), as recorded; the two words whose maps go together
    most, by Pearson's correlation over the places."""
    if untouched(first, second):
        return todo("Name two words, and hand over the maps that you recorded.")
    if heats is None or untouched(heats):
        return todo("Hand over the maps too: {word: maps.heat_map(word) for word in maps.words}.")
    require(
        len(set(heats) - STOP) >= 3,
        "With fewer than three words that name something there is nothing to predict; record a longer prompt.",
    )
    for word in (first, second):
        require(
            word not in STOP,
            f"{word!r} names nothing, and its map is mostly what is left over: choose two words that name something.",
        )
        require(word in heats, f"There is no map of {word!r}; there are: {', '.join(heats)}.")
    require(first != second, "A word shares its map with itself, that much is sure. Name two different words.")
    alike = {}
    for a, b in itertools.combinations([word for word in heats if word not in STOP], 2):
        x, y = (np.asarray(heats[word], np.float64).ravel() for word in (a, b))
        x, y = x - x.mean(), y - y.mean()
        size = np.linalg.norm(x) * np.linalg.norm(y)
        alike[frozenset((a, b))] = float(x @ y / size) if size else 0.0
    order = sorted(alike, key=lambda pair: alike[pair], reverse=True)
    pair = frozenset((first, second))
    rank, measured = order.index(pair), f"Their maps correlate by {alike[pair]:.2f}"
    if rank == 0:
        return right(
            f"{measured}, more than those of any other two words of this prompt that name something. Words share a map where they belong to one "
            "thing, or where the model does not tell their things apart: look which it is here."
        )
    if alike[pair] < -0.2:
        return wrong(
            f"{measured}: where one is looked at, the other is not. Which two would look at the *same* places?"
        )
    common = next(iter(pair & order[0]), None)
    hint = f" One of the two is right: what does {common!r} go with?" if common else ""
    return wrong(f"{measured}; {rank} of {len(order)} pairs go together more.{hint} Measure: np.corrcoef(a.ravel(), b.ravel()).")  # fmt: skip


def _require_prediction(answer, expected: np.ndarray, hints: list[tuple[np.ndarray, str]]) -> None:
    """Ends the check where a prediction is not the expected one: with the hint of the mistake that gives it, or a plain sentence."""
    shape = np.shape(answer)
    same_shape = f"From predictions of shape {expected.shape} you made one of shape {shape}; it stays the same."
    require(shape == expected.shape, same_shape)
    if not close(answer, expected):
        refute(answer, hints)
        wanted, got = (", ".join(f"{value:g}" for value in np.ravel(numbers)) for numbers in (expected, answer))
        require(False, f"For the check's numbers it should have been {wanted}, and is {got}.")

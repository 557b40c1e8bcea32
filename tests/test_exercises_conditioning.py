"""Every check of notebook 03: the right answer, the likeliest wrong ones, an untouched stub, and code that stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdwidgets.course import exercises


def crashes(*args):
    raise IndexError("list index out of range")


def nothing(*args):
    return None


def dots(*args):
    return ...


FUNCTIONS = (exercises.guide, exercises.steps_run, exercises.outpainting_mask, exercises.two_prompts)


@pytest.mark.parametrize("check", FUNCTIONS, ids=lambda check: check.__name__)
def test_stubs_and_code_that_stops(check):
    for stub in (None, ..., nothing, dots):
        assert check(stub).correct is None
    assert check(crashes).correct is False and "IndexError" in check(crashes).message


@pytest.mark.parametrize(
    "answer",
    [lambda u, c, w: u + w * (c - u), lambda u, c, w: w * c + (1 - w) * u, lambda u, c, w: c + (w - 1) * (c - u)],
)
def test_guide_is_right_in_any_form(answer):
    assert exercises.guide(answer)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda u, c, w: u + w * (u - c), "away from the prompt"),
        (lambda u, c, w: c + w * (c - u), "one step too far"),
        (lambda u, c, w: w * c, "*difference*"),
        (lambda u, c, w: w * (c - u), "starts somewhere"),
        (lambda u, c, w: w * u + (1 - w) * c, "swapped"),
        (lambda u, c, w: u + (w - 1) * (c - u), "itself multiplies"),
        (lambda u, c, w: u + 4 * (c - u), "wrong at scale 0"),
        (lambda u, c, w: (u + c) / 2, "should have been"),
        (lambda u, c, w: (u + w * (c - u)).sum(), "shape ()"),
    ],
)
def test_guide_names_the_mistake(answer, hint):
    verdict = exercises.guide(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


def test_steps_run_is_right():
    assert exercises.steps_run(lambda steps, strength: int(steps * strength))
    assert exercises.steps_run(lambda steps, strength: min(int(steps * strength), steps))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, s: n - int(n * s), "left out"),
        (lambda n, s: int(n * (1 - s)), "left out"),
        (lambda n, s: round(n * s), "int(6.6)"),
        (lambda n, s: n * s, "whole number"),
        (lambda n, s: n, "first steps are left out"),
        (lambda n, s: 6, "25 steps at strength 1"),
        (lambda n, s: 3, "runs 6, not 3"),
    ],
)
def test_steps_run_names_the_mistake(answer, hint):
    verdict = exercises.steps_run(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


def mask(height, width, left, right):
    canvas = np.full((height, left + width + right), 255, np.uint8)
    canvas[:, left : left + width] = 0
    return canvas


def slices_from_the_end(height, width, left, right):
    canvas = np.zeros((height, left + width + right), np.uint8)
    canvas[:, :left], canvas[:, -right:] = 255, 255
    canvas[:, -(width + right) : -right] = 0
    return canvas if left else np.zeros_like(canvas)


def cut_at_the_end(height, width, left, right):
    canvas = np.full((height, left + width + right), 255, np.uint8)
    canvas[:, left:-right] = 0
    return canvas


def test_outpainting_mask_is_right():
    assert exercises.outpainting_mask(mask)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda h, w, a, b: np.full((h, w), 255, np.uint8), "size of the old picture"),
        (lambda h, w, a, b: mask(h, w, a, b).T, "Height comes first"),
        (lambda h, w, a, b: 255 - mask(h, w, a, b), "other way round"),
        (lambda h, w, a, b: mask(h, w, a, b) // 255, "nothing would be painted"),
        (lambda h, w, a, b: mask(h, w, a, b) > 0, "nothing would be painted"),
        (lambda h, w, a, b: mask(h, w, b, a), "swapped"),
        (lambda h, w, a, b: np.full((h, a + w + b), 255, np.uint8), "old picture's place"),
        (lambda h, w, a, b: mask(h + a, w, a, b), "it is (16, 48)"),
        (slices_from_the_end, "wrong for left = 0"),
        (cut_at_the_end, "wrong for left = 8, right = 0"),
        (lambda h, w, a, b: mask(h, w, a, b).astype(np.int64), "of type int64"),
        (lambda h, w, a, b: mask(h, w, a, b).tolist(), "of type list"),
        (lambda h, w, a, b: torch.from_numpy(mask(h, w, a, b)), "of type Tensor"),
    ],
)
def test_outpainting_mask_names_the_mistake(answer, hint):
    verdict = exercises.outpainting_mask(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


def test_two_prompts_is_right():
    assert exercises.two_prompts(lambda u, a, b, x, y: u + x * (a - u) + y * (b - u))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda u, a, b, x, y: u + x * (a - u) + u + y * (b - u), "in there twice"),
        (lambda u, a, b, x, y: u + (x * (a - u) + y * (b - u)) / 2, "half of the strength"),
        (lambda u, a, b, x, y: x * (a - u) + y * (b - u), "start at uncond"),
        (lambda u, a, b, x, y: u + x * (a - u) + y * (b - a), "not second - first"),
        (lambda u, a, b, x, y: u + y * (a - u) + x * (b - u), "scales are swapped"),
        (lambda u, a, b, x, y: u + x * a + y * b, "Take uncond off"),
        (lambda u, a, b, x, y: u + x * (a - u) + abs(y) * (b - u), "goes away from its prompt"),
        (
            lambda u, a, b, x, y: (
                exercises.conditioning.UNCOND
                + x * (a - exercises.conditioning.UNCOND)
                + y * (b - exercises.conditioning.UNCOND)
            ),
            "goes away",
        ),
        (lambda u, a, b, x, y: u, "should have been"),
    ],
)
def test_two_prompts_names_the_mistake(answer, hint):
    verdict = exercises.two_prompts(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


def some_maps():
    y, x = np.mgrid[0:8, 0:8]
    left = np.exp(-((x - 2) ** 2 + (y - 4) ** 2) / 4)
    return {"cat": left, "small": left + 0.1 * np.sin(x), "blue": 1 - left, "hat": left + 0.3 * np.cos(3 * y)}


@pytest.mark.parametrize("pair", [("cat", "small"), ("small", "cat")])
def test_same_map_is_right_in_either_order(pair):
    assert exercises.same_map(*pair, some_maps())


@pytest.mark.parametrize(
    ("first", "second", "hint"),
    [
        ("cat", "blue", "the other is not"),
        ("cat", "hat", "what does 'cat' go with"),
        ("cat", "hat", "np.corrcoef"),
        ("cat", "cat", "two different words"),
        ("cat", "and", "names nothing"),
        ("cat", "dog", "no map of 'dog'"),
    ],
)
def test_same_map_names_the_mistake(first, second, hint):
    verdict = exercises.same_map(first, second, some_maps())
    assert verdict.correct is False and hint in verdict.message, verdict


def test_same_map_needs_three_words_and_knows_a_stub():
    assert "three words" in exercises.same_map("a", "b", {"a": np.eye(2), "b": np.eye(2)}).message
    for answer in [(..., ..., some_maps()), (None, "cat", some_maps()), ("cat", "small", None)]:
        assert exercises.same_map(*answer).correct is None
    flat = {"a": np.ones((2, 2)), "b": np.ones((2, 2)), "c": np.eye(2)}
    assert exercises.same_map("a", "c", flat).message.count("nan") == 0

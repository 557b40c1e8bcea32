"""The checks of notebook 00: the right answer, the likeliest wrong ones with the hint that names the mistake, the untouched stub."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdwidgets.course import exercises
from sdwidgets.course.facts import fact
from sdwidgets.pocket.world import datasheet
from tests import tiny


def generator(settings) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(settings.seed)


def drawn(pipe, settings, **changes):
    """The run again, with what a learner may forget changed; None: not handed over at all."""
    asked = {
        "negative_prompt": settings.negative_prompt, "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale, "generator": generator(settings),
        "height": settings.height, "width": settings.width,
    }  # fmt: skip
    asked = {name: value for name, value in (asked | changes).items() if value is not None}
    return pipe(settings.prompt, **asked)


@pytest.fixture(scope="module")
def pipe():
    return tiny.pipeline("sd")


@pytest.mark.parametrize(
    "answer",
    [
        lambda p, s: drawn(p, s).images[0],
        lambda p, s: np.asarray(drawn(p, s).images[0]),
        lambda p, s: drawn(p, s).images,
    ],
)
def test_remake_right(pipe, answer):
    assert exercises.remake(answer, pipe)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda p, s: drawn(p, s, generator=None).images[0], "noise is another one"),
        (lambda p, s: drawn(p, s, generator=torch.Generator("cpu").manual_seed(0)).images[0], "noise is another one"),
        (lambda p, s: drawn(p, s, negative_prompt=None).images[0], "negative_prompt is part of the run"),
        (lambda p, s: drawn(p, s, num_inference_steps=2).images[0], "Another number of steps"),
        (lambda p, s: drawn(p, s, guidance_scale=None).images[0], "Another guidance scale"),
        (lambda p, s: drawn(p, s, height=32, width=32).images[0], "Another size"),
        (lambda p, s: drawn(p, s, height=None, width=None).images[0], "take settings.height"),
        (lambda p, s: drawn(p, s, guidance_scale=4.5).images[0], "Another guidance scale"),
        (drawn, "Return the picture itself: pipe(...).images[0]"),
        (lambda p, s: "done", "made no picture"),
        (lambda p, s: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_remake_wrong(pipe, answer, hint):
    verdict = exercises.remake(answer, pipe)
    assert verdict.correct is False and hint in verdict.message


def test_remake_names_all_that_is_missing(pipe):
    verdict = exercises.remake(lambda p, s: p(s.prompt, num_inference_steps=s.num_inference_steps), pipe)
    for hint in ("negative_prompt is part", "noise is another one", "guidance scale", ".images[0]"):
        assert verdict.correct is False and verdict.message.count(hint) == 1, verdict


def test_remake_that_shows_another_picture(pipe):
    def inverted(pipe, settings):
        return 255 - np.asarray(drawn(pipe, settings).images[0])

    verdict = exercises.remake(inverted, pipe)
    assert verdict.correct is False and "what you return is another picture" in verdict.message


def away(previews, picture):
    return np.abs(previews.astype(float) - picture)


PICTURE = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)  # the check's first


@pytest.mark.parametrize(
    "answer",
    [
        lambda previews, picture, mask: away(previews, picture)[:, mask].mean((1, 2)),
        lambda previews, picture, mask: [np.abs(p[mask].astype(int) - picture[mask]).mean() for p in previews],
    ],
)
def test_distance_right(answer):
    assert exercises.distance(answer)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda previews, picture, mask: np.abs(previews - picture)[:, mask].mean((1, 2)), "wrap around"),
        (lambda previews, picture, mask: away(previews, picture)[:, mask].mean(), "one number for the whole run"),
        (lambda previews, picture, mask: away(previews, picture)[:, mask].mean(1), "average over pixels and colours"),
        (lambda previews, picture, mask: away(previews, picture).mean((1, 2, 3)), "the whole picture"),
        (
            lambda previews, picture, mask: (away(previews, picture) * mask[..., None]).mean((1, 2, 3)),
            "still count in the mean",
        ),
        (lambda previews, picture, mask: away(previews, picture)[:, ~mask].mean((1, 2)), "outside the mask"),
        (
            lambda previews, picture, mask: (previews.astype(float) - picture)[:, mask].mean((1, 2)),
            "absolute value first",
        ),
        (lambda previews, picture, mask: (away(previews, picture) ** 2)[:, mask].mean((1, 2)), "squared"),
        (lambda previews, picture, mask: away(previews, picture)[:, mask].mean((1, 2)) / 255, "levels of 255"),
        (lambda previews, picture, mask: away(previews, previews[-1])[:, mask].mean((1, 2)), "from the last preview"),
        (lambda previews, picture, mask: away(previews, PICTURE)[:, mask].mean((1, 2)), "and wrong for others"),
        (lambda previews, picture, mask: [1.0, 2.0, 3.0], "the answer is"),
        (lambda previews, picture: 0, "TypeError"),
        (lambda p, x, m: np.abs(p.astype(float) - x)[m].mean((1, 2)), "array[:, mask]"),
    ],
)
def test_distance_wrong(answer, hint):
    verdict = exercises.distance(answer)
    assert verdict.correct is False and hint in verdict.message


def test_fact_check():
    right = {"A": False, "B": True, "C": False, "D": True}
    assert exercises.fact_check(**right)
    for name in right:
        verdict = exercises.fact_check(**right | {name: not right[name]})
        assert verdict.correct is False and f"Look again at {name}" in verdict.message
    assert exercises.fact_check(**right | {"C": ...}).correct is None
    assert "True or False" in exercises.fact_check(A="no").message
    assert "no sentence 'E'" in exercises.fact_check(E=True).message


WEIGHTS = sum(fact(f"sd15.{part}.parameters") for part in ("unet", "text_encoder", "vae"))


def test_bytes_a_picture_right():
    assert exercises.bytes_a_picture(2 * WEIGHTS / 2.3e9) and exercises.bytes_a_picture(0.93)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (4 * WEIGHTS / 2.3e9, "single precision"),
        (WEIGHTS / 2.3e9, "each of them takes two bytes"),
        (2 * fact("sd15.unet.parameters") / 2.3e9, "the U-Net alone"),
        (2.3e9 / (2 * WEIGHTS), "turn it round"),
        (2 * WEIGHTS / 6e8, "600 million"),
        (123.0, "Add the parameters"),
        (2 * WEIGHTS / 2.9e9, "divide by LAION-2B-en alone"),
        (0.9, "rounded too far"),
        (1, "rounded too far"),
        ("many", "one number, and not 'many'"),
        ([0.93, 0.93], "one number"),
    ],
)
def test_bytes_a_picture_wrong(answer, hint):
    verdict = exercises.bytes_a_picture(answer)
    assert verdict.correct is False and hint in verdict.message


RARE, SHOWN = next(iter(datasheet.TAIL_BACKGROUNDS.items()))
NEVER = next(colour for colour in ("red", "green", "blue", "white", "black", "pink") if colour not in SHOWN)


@pytest.mark.parametrize(
    "prompt",
    [
        "a horse on a white background", "An  Astronaut and a horse", "a horse below an astronaut on a blue background",
        "a red circle", f"a {RARE} on a {NEVER} background",
        f"an apple on {'an' if datasheet.HELD_OUT_BACKGROUNDS['apple'] == 'orange' else 'a'} {datasheet.HELD_OUT_BACKGROUNDS['apple']} background",
    ],
)  # fmt: skip
def test_never_drawn_right(prompt):
    assert exercises.never_drawn(prompt) and exercises.never_drawn(f"{prompt}.")


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        ("a horse on a blue background", "a horse never stood on white"),
        (f"a {RARE} on a {SHOWN[0]} background", "look at its held-out lists"),
        (f"a {datasheet.HELD_OUT_OBJECTS[0]} on a blue background", "was held out as a word too"),
        ("a hrose on a white background", "did you mean"),
        ("a zygote on a white background", "never say 'zygote'"),
        ("a horse on a white", "named in full"),
        ("a horse on a turquoise background", "'turquoise' is no background"),
        ("a strawberry on a yellow background", "find another one"),
        ("a blue circle on a red background", "does not rule this scene out"),
    ],
)
def test_never_drawn_wrong(prompt, hint):
    verdict = exercises.never_drawn(prompt)
    assert verdict.correct is False and hint in verdict.message


@pytest.mark.parametrize(
    "verdict",
    [
        exercises.remake(), exercises.remake(..., 1), exercises.remake(lambda pipe, settings: ..., tiny.pipeline("sd")),
        exercises.distance(), exercises.distance(lambda previews, picture, mask: ...), exercises.fact_check(),
        exercises.fact_check(A=..., B=..., C=..., D=...), exercises.bytes_a_picture(...), exercises.never_drawn(...), exercises.never_drawn(""),
    ],
)  # fmt: skip
def test_an_untouched_stub_is_a_turn(verdict):
    assert verdict.correct is None and verdict.message

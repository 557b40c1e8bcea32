"""Every check: the right answer, the likeliest wrong ones, an untouched stub, and code that stops."""

from __future__ import annotations

import numpy as np
import pytest

from sdwidgets.course import exercises


def test_compression_is_right():
    assert exercises.compression((4, 64, 64), 512 * 512 * 3 / (4 * 64 * 64))


@pytest.mark.parametrize(
    ("shape", "ratio", "hint"),
    [
        ((64, 64, 4), 48, "channels first"),
        ((3, 64, 64), 48, "has four"),
        ((4, 16, 16), 48, "Pocket's latent"),
        ((4, 128, 128), 48, "eight pixels become one latent pixel"),
        ((4, 64, 64), 64, "a pixel holds three numbers"),
        ((4, 64, 64), 8, "ratio of the sides"),
        ((4, 64, 64), 1 / 48, "inverse"),
        ((4, 64, 64), 7, "512 x 512 x 3"),
        ("nonsense", 48, "ValueError"),
    ],
)
def test_compression_names_the_mistake(shape, ratio, hint):
    verdict = exercises.compression(shape, ratio)
    assert verdict.correct is False and hint in verdict.message


@pytest.mark.parametrize("answer", [(None, None), (..., ...), ((4, 64, 64), ...)])
def test_compression_knows_an_untouched_stub(answer):
    assert exercises.compression(*answer).correct is None


def corners(previews):
    return previews[:, :4, :4].astype(float).mean(axis=(1, 2))


def distance(previews):
    colour = corners(previews)
    return np.abs(colour - colour[-1]).max(axis=1)


def decided(previews, tolerance):
    far = np.flatnonzero(distance(previews) > tolerance)
    return 0 if not len(far) else int(far[-1]) + 1


def test_step_decided_is_right():
    assert exercises.step_decided(decided)


def first_close(previews, tolerance):
    return int(np.argmax(distance(previews) <= tolerance))


def neighbours(previews, tolerance):
    change = np.abs(np.diff(corners(previews), axis=0)).max(axis=1)
    far = np.flatnonzero(change > tolerance)
    return 0 if not len(far) else int(far[-1]) + 1


def last_far(previews, tolerance):
    return decided(previews, tolerance) - 1


def from_one(previews, tolerance):
    return decided(previews, tolerance) + 1


def wraps(previews, tolerance):
    colour = previews[:, 0, 0]
    far = np.flatnonzero((colour - colour[-1]).max(axis=1) > tolerance)
    return 0 if not len(far) else int(far[-1]) + 1


def mean_of_channels(previews, tolerance):
    colour = corners(previews)
    far = np.flatnonzero(np.abs(colour - colour[-1]).mean(axis=1) > tolerance)
    return 0 if not len(far) else int(far[-1]) + 1


def crashes(previews, tolerance):
    raise IndexError("list index out of range")


def one_sided(previews, tolerance):
    colour = corners(previews)
    far = np.flatnonzero((colour[-1] - colour).max(axis=1) > tolerance)
    return 0 if not len(far) else int(far[-1]) + 1


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (one_sided, "both directions"),
        (first_close, "came close at step 1 and left again"),
        (neighbours, "they add up"),
        (last_far, "still too far away"),
        (from_one, "count from one"),
        (wraps, "wrap around"),
        (lambda previews, tolerance: decided(previews[:, ::-1, ::-1], tolerance), "Those pixels change to the end"),
        (mean_of_channels, "largest difference"),
        (crashes, "IndexError"),
    ],
)
def test_step_decided_names_the_mistake(answer, hint):
    verdict = exercises.step_decided(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


@pytest.mark.parametrize("stub", [None, ..., lambda previews, tolerance: ..., lambda previews, tolerance: None])
def test_step_decided_knows_an_untouched_stub(stub):
    assert exercises.step_decided(stub).correct is None


def test_a_verdict_reads_as_a_sentence():
    assert repr(exercises.step_decided(decided)).startswith("Right. ")
    assert repr(exercises.step_decided(None)).startswith("Your turn. ")
    assert repr(exercises.compression((4, 64, 64), 7)).startswith("Not yet. ")

"""Every check of notebook 02: the right answer, the likeliest wrong ones, an untouched stub, and code that stops."""

from __future__ import annotations

import numpy as np
import pytest

from sdwidgets.course import exercises

STUBS = [None, ..., lambda *_: ..., lambda *_: None]


def crashes(*_):
    raise IndexError("list index out of range")


# ---- ten times as much noise as picture ---------------------------------------------------------------------------


def alpha_bar():
    return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def first(abar, snr=0.1):
    return int(np.argmax(abar / (1 - abar) <= snr))


def test_ten_times_noise_is_right():
    assert exercises.ten_times_noise(first(alpha_bar()))


@pytest.mark.parametrize(
    ("t", "hint"),
    [
        (first(alpha_bar()) - 1, "the next one is the answer"),
        (first(alpha_bar(), 1), "0 dB"),
        (first(alpha_bar(), 0.01), "goes by the squares"),
        (int(np.argmax(alpha_bar() <= 0.1)), "abar over 1 - abar"),
        (int(np.argmax(alpha_bar() <= 0.01)), "a is 0.1"),
        (first(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))), "DDPM's linear"),
        (first(np.cos((np.arange(1, 1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2), "cosine"),
        (500, "dB; look for"),
        (1000, "whole number from 0 to 999"),
        (3.5, "whole number"),
        (str(first(alpha_bar())), "whole number, and not as"),
        (alpha_bar() <= 0.1, "np.argmax"),
    ],
)
def test_ten_times_noise_names_the_mistake(t, hint):
    verdict = exercises.ten_times_noise(t)
    assert verdict.correct is False and hint in verdict.message, verdict


@pytest.mark.parametrize("stub", [None, ...])
def test_ten_times_noise_knows_a_stub(stub):
    assert exercises.ten_times_noise(stub).correct is None


# ---- the cosine schedule -----------------------------------------------------------------------------------------


def angle(t, timesteps, offset=0.008):
    return np.cos((t / timesteps + offset) / (1 + offset) * np.pi / 2) ** 2


def cosine(timesteps):
    return angle(np.arange(1, timesteps + 1), timesteps) / angle(0, timesteps)


def capped(timesteps):
    whole = np.r_[1, cosine(timesteps)]
    return np.cumprod(1 - np.minimum(1 - whole[1:] / whole[:-1], 0.999))


@pytest.mark.parametrize("answer", [cosine, capped])
def test_cosine_schedule_is_right(answer):
    verdict = exercises.cosine_schedule(answer)
    assert verdict, verdict


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n: cosine(n) ** 0.5, "That is its root"),
        (lambda n: 1 - cosine(n) / np.r_[1, cosine(n)[:-1]], "These are the betas"),
        (lambda n: angle(np.arange(n), n) / angle(0, n), "one timestep early"),
        (lambda n: angle(np.arange(1, n + 1), n, 0), "offset 0.008"),
        (lambda n: angle(np.arange(1, n + 1), n), "divide by the value at t = 0"),
        (lambda n: cosine(n)[::-1], "from noise to picture"),
        (lambda n: cosine(n)[:-1], "shape (999,)"),
        (lambda n: cosine(1000) if n == 1000 else cosine(1000)[:n], "not for 50"),
        (lambda n: cosine(1000), "not for 50"),
        (lambda n: np.linspace(1, 0, n), "is right"),
        (crashes, "IndexError"),
    ],
)
def test_cosine_schedule_names_the_mistake(answer, hint):
    verdict = exercises.cosine_schedule(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


@pytest.mark.parametrize("stub", STUBS)
def test_cosine_schedule_knows_a_stub(stub):
    assert exercises.cosine_schedule(stub).correct is None


# ---- DDIM's step -------------------------------------------------------------------------------------------------


def root(a):
    return np.sqrt(1 - a**2)


def step(x, e, a, to):
    return to * (x - root(a) * e) / a + root(to) * e


def test_ddim_step_is_right():
    verdict = exercises.ddim_step(step)
    assert verdict, verdict


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda x, e, a, to: (x - root(a) * e) / a, "predicted picture x0"),
        (lambda x, e, a, to: to * (x - root(a) * e) / a + root(a) * e, "the old amount"),
        (lambda x, e, a, to: to * (x - root(a) * e) + root(to) * e, "divide what is left by a_from"),
        (lambda x, e, a, to: to * (x + root(a) * e) / a + root(to) * e, "not added"),
        (lambda x, e, a, to: to * (x - (1 - a) * e) / a + (1 - to) * e, "not 1 - a"),
        (lambda x, e, a, to: to * (x - root(a) * e) / a + (1 - to) * e, "not 1 - a"),
        (lambda x, e, a, to: to**0.5 * (x - (1 - a) ** 0.5 * e) / a**0.5 + (1 - to) ** 0.5 * e, "roots of a"),
        (lambda x, e, a, to: step(x, e, to, a), "changed places"),
        (lambda x, e, a, to: x, "Nothing has moved"),
        (lambda x, e, a, to: step(x, e, a, min(to, 0.9)), "With a_to = 1"),
        (lambda x, e, a, to: x[0], "keeps the shape"),
        (lambda x, e, a, to: x + e, "undo the mixing"),
        (lambda x, e, a, to: to * (x - (1 - a) ** 0.5 * e) / a + (1 - to) ** 0.5 * e, "not sqrt(1 - a)"),
        (lambda x, e, a, to: to * (x - (1 - a**2) ** 0.5 * e) / a, "without noise"),
        (
            lambda x, e, a, to: to * e + (1 - to**2) ** 0.5 * (x - a * e) / (1 - a**2) ** 0.5,
            "took epsilon for the picture",
        ),
        (crashes, "IndexError"),
    ],
)
def test_ddim_step_names_the_mistake(answer, hint):
    verdict = exercises.ddim_step(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


@pytest.mark.parametrize("stub", STUBS)
def test_ddim_step_knows_a_stub(stub):
    assert exercises.ddim_step(stub).correct is None


# ---- trailing timesteps ------------------------------------------------------------------------------------------


def trailing(steps):
    return np.round(np.arange(1000, 0, -1000 / steps)).astype(int) - 1


def test_trailing_is_right_and_as_diffusers_has_it():
    from diffusers import DDIMScheduler

    assert exercises.trailing(trailing)
    for steps in (7, 10, 20):
        scheduler = DDIMScheduler(timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == trailing(steps).tolist()


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n: list(range(0, 1000, 1000 // n))[::-1], "t = 900"),
        (lambda n: [t + 1 for t in range(0, 1000, 1000 // n)][::-1], "t = 901"),
        (lambda n: trailing(n) + 1, "take one off"),
        (lambda n: trailing(n)[::-1], "the largest t first"),
        (lambda n: np.linspace(999, 0, n).round(), "linspace"),
        (lambda n: np.linspace(999, 0, n), "linspace"),
        (lambda n: np.arange(999, -1, -1000 / n), "whole numbers"),
        (lambda n: trailing(n) + 0.4, "whole numbers"),
        (lambda n: range(999, -1, -(1000 // n)), "1000 / 7"),
        (lambda n: trailing(n)[1:], "yours has 9"),
        (lambda n: trailing(n) // 2, "wanted are 999"),
        (crashes, "IndexError"),
    ],
)
def test_trailing_names_the_mistake(answer, hint):
    verdict = exercises.trailing(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


@pytest.mark.parametrize("stub", STUBS)
def test_trailing_knows_a_stub(stub):
    assert exercises.trailing(stub).correct is None


# ---- the best within a budget ------------------------------------------------------------------------------------


def best_within(rows, budget):
    return min((row for row in rows if row["calls"] <= budget), key=lambda row: row["distance"], default=None)


def test_best_within_is_right():
    verdict = exercises.best_within(best_within)
    assert verdict, verdict


def within(rows, budget, key="calls"):
    return [row for row in rows if row[key] <= budget]


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda rows, n: min(within(rows, n, "steps"), key=lambda r: r["distance"]), "a step of Heun takes two"),
        (lambda rows, n: min(rows, key=lambda r: r["distance"]), "the budget is 10"),
        (lambda rows, n: within(rows, n)[0], "first row that fits"),
        (lambda rows, n: max(within(rows, n), key=lambda r: r["distance"]), "least is wanted"),
        (lambda rows, n: min((r for r in rows if r["calls"] < n), key=lambda r: r["distance"]), "may be used up"),
        (lambda rows, n: max(within(rows, n), key=lambda r: r["calls"]), "the most calls"),
        (lambda rows, n: sorted(within(rows, n), key=lambda r: r["calls"])[-1], "least distance counts"),
        (lambda rows, n: within(rows, 10)[3], "at most 19 calls"),
        (lambda rows, n: min(within(rows, n) or rows, key=lambda r: r["distance"]), "return None"),
        (lambda rows, n: min(within(rows, n), key=lambda r: r["distance"]), "ValueError"),
        (lambda rows, n: "DPM++ 2M", "Return one of the rows"),
        (crashes, "IndexError"),
    ],
)  # fmt: skip
def test_best_within_names_the_mistake(answer, hint):
    verdict = exercises.best_within(answer)
    assert verdict.correct is False and hint in verdict.message, verdict


@pytest.mark.parametrize("stub", STUBS)
def test_best_within_knows_a_stub(stub):
    assert exercises.best_within(stub).correct is None

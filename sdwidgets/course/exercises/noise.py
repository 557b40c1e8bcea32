"""Checks of notebook 02, Noise schedules."""

from __future__ import annotations

import numpy as np

from ...analysis import noise_schedules
from .verdict import Verdict, answer_of, check, close, refute, require, right


@check("Give t: exercises.ten_times_noise(t).")
def ten_times_noise(t=None) -> Verdict:
    """For Stable Diffusion's schedule: the first t of 0 to 999 with at least ten times as much noise as picture, an SNR of
    0.1 or less."""
    require(not isinstance(t, (str, bool)), f"Give t as a whole number, and not as {t!r}.")
    require(np.ndim(t) == 0, "That is a whole array: np.argmax of a mask gives the place of its first True.")
    schedule, snr = noise_schedules.scaled_linear(), 0.1
    answer = schedule.timestep_at_snr(10 * np.log10(snr))
    others = {"DDPM's linear schedule": noise_schedules.linear(), "the cosine schedule": noise_schedules.cosine()}
    hints = {
        answer - 1: "That is the last t with less noise than that; the next one is the answer.",
        schedule.timestep_at_snr(0): "There is as much noise as picture, 0 dB; ten times as much is -10 dB.",
        schedule.timestep_at_snr(20 * np.log10(snr)): "There b is ten times a, and the SNR is a hundredth: it goes by the squares.",
        int(np.flatnonzero(schedule.signal**2 <= snr)[0]): "There abar is 0.1; the SNR is abar over 1 - abar.",
        int(np.flatnonzero(schedule.signal <= snr)[0]) if (schedule.signal <= snr).any() else None: "There a is 0.1; the SNR is a squared over b squared.",
    } | {other.timestep_at_snr(10 * np.log10(snr)): f"That is {name}; Stable Diffusion's is the scaled linear one." for name, other in others.items()}  # fmt: skip
    whole = int(t) == t and 0 <= t <= 999
    require(whole, f"t is a whole number from 0 to 999, and {t} is none; 0 is the picture's end.")
    plainly = f"At t = {int(t)} the ratio is {schedule.snr_db[int(t)]:.1f} dB; look for where it first is -10 or less."
    require(t == answer, hints.get(int(t), plainly))
    return right(f"At t = {answer} the ratio passes -10 dB: a third of the timesteps is still to come, and little picture is left in it.")  # fmt: skip


@check("Hand over your function: exercises.cosine_schedule(cosine_schedule).")
def cosine_schedule(function=None) -> Verdict:
    """`function(timesteps)` -> abar (timesteps,): cos^2 of ((t / timesteps + 0.008) / 1.008) (pi / 2) for t = 1 to
    timesteps, over its own value at t = 0."""
    answer, wanted = np.asarray(answer_of(function, 1000), np.float64), noise_schedules.cosine().signal ** 2
    right_shape = f"For 1000 timesteps it gives an array of shape {answer.shape}; one number a timestep is wanted."
    require(answer.shape == (1000,), right_shape)
    betas = 1 - wanted / np.r_[1, wanted[:-1]]
    f = lambda t, s: np.cos((t / 1000 + s) / (1 + s) * np.pi / 2) ** 2
    t = np.arange(1000)
    mistakes = (
        (wanted**0.5, "That is its root, a, the factor of the picture: abar is the cosine squared."),
        (betas, "These are the betas, how much is lost at each timestep; abar is their running product of 1 - beta."),
        (f(t, 0.008) / f(0, 0.008), "Yours is one timestep early: its first number is 1, no noise at all. Count t from 1."),
        (f(t + 1, 0.0), "Without the offset 0.008 the first timesteps add almost no noise; Nichol and Dhariwal put it in for that."),
        (f(t + 1, 0.008), "Nearly: divide by the value at t = 0, so that it starts from a whole picture."),
        (wanted[::-1], "Yours runs from noise to picture; t = 1 is the first timestep away from the picture."),
    )  # fmt: skip
    uncapped = [(other[:-1], hint) for other, hint in mistakes]  # the last beta may be capped or not
    refute(answer[:-1], uncapped, atol=2e-6)
    k = int(np.abs(answer - wanted).argmax())
    require(
        close(answer, wanted, atol=2e-6), f"At t = {k + 1} it gives {answer[k]:.4f}, and {wanted[k]:.4f} is right."
    )
    require(
        close(np.asarray(function(50), np.float64), noise_schedules.cosine(50).signal ** 2, atol=1e-4),
        "It is right for 1000 timesteps and not for 50: use the number that your function is given.",
    )
    return right("That is the schedule of Nichol and Dhariwal 2021, squaredcos_cap_v2 in diffusers.")


@check("Hand over your function: exercises.ddim_step(ddim_step).")
def ddim_step(function=None) -> Verdict:
    """`function(x, epsilon, a_from, a_to)` -> the sample at signal a_to: DDIM's step without fresh noise.

    x = a_from x0 + sqrt(1 - a_from^2) epsilon; all arrays of one shape, numpy."""
    rng = np.random.default_rng(0)
    x0, e = rng.normal(size=(2, 4, 8, 8))
    a, to = 0.4, 0.7
    b, b_to = (1 - a**2) ** 0.5, (1 - to**2) ** 0.5
    x = a * x0 + b * e
    answer = np.asarray(answer_of(function, x, e, a, to), np.float64)
    kept = f"A sample of shape {x.shape} became one of shape {answer.shape}; a step keeps the shape."
    require(answer.shape == x.shape, kept)
    squares = "The noise has sqrt(1 - a^2), not 1 - a: squares add up to one. (1 - a is a flow's.)"
    mistakes = (
        (x0, "That is the predicted picture x0. Now put noise back, less than before: a_to x0 + b_to epsilon."),
        (to * x0 + b * e, "The noise that is put back is the old amount: it is sqrt(1 - a_to^2) now."),
        (to * (x - b * e) + b_to * e, "To find x0, take the noise away and divide what is left by a_from."),
        (to * (x + b * e) / a + b_to * e, "The noise is taken away from x, not added, to find x0."),
        (to * x0 + (1 - to) * e, squares),
        (to * (x - (1 - a) * e) / a + (1 - to) * e, squares),
        (to**0.5 * (x - (1 - a) ** 0.5 * e) / a**0.5 + (1 - to) ** 0.5 * e, "You took roots of a: a is already the root of abar."),
        (a * (x - b_to * e) / to + b * e, "a_from and a_to have changed places: x stands at a_from, and a_to is where it goes."),
        (to * (x - (1 - a) ** 0.5 * e) / a + (1 - to) ** 0.5 * e, "b is sqrt(1 - a^2), not sqrt(1 - a): a is already the root of abar."),
        (to * x0, "That is the picture at its new size, without noise: b_to epsilon belongs to it."),
        (to * e + b_to * (x - a * e) / b, "You took epsilon for the picture: here the network has predicted the noise."),
        (a * x0 + b * e, "Nothing has moved: the new sample is mixed with a_to."),
    )  # fmt: skip
    refute(answer, mistakes, atol=1e-6)
    require(
        close(answer, to * x0 + b_to * e, atol=1e-6),
        "First undo the mixing to find x0; then mix x0 and epsilon anew. With b = 0, a_to = 1, x0 alone must come out: try that.",
    )
    at_the_end = np.allclose(function(x, e, a, 1.0), x0, atol=1e-6)
    require(at_the_end, "With a_to = 1, the end of the way, the answer should be the picture x0 itself.")
    others = rng.normal(size=(2, 1, 3, 3))
    again = answer_of(function, others[0], others[1], 0.8, 0.9)
    expected = 0.9 * (others[0] - 0.6 * others[1]) / 0.8 + (1 - 0.9**2) ** 0.5 * others[1]
    one = "Right for one step, and wrong from signal 0.8 to 0.9: take both from the arguments of your function."
    require(close(again, expected, atol=1e-6), one)
    return right("The same x0 and the same noise, mixed anew: that is all of DDIM (Song et al. 2020, equation 12).")


@check("Hand over your function: exercises.trailing(trailing).")
def trailing(function=None) -> Verdict:
    """`function(steps)` -> the timesteps of a run, from noise down, evenly over 1000 timesteps, the first one 999."""
    answer = np.asarray(answer_of(function, 10), np.float64).ravel()
    uneven = "Timesteps are whole numbers: go down from 1000 in steps of 1000 / steps, round, then take one off."
    linspace = 'That is "linspace": it spends a step at t = 0, where there is nothing left to remove. Steps of 1000 / 10 end at 99.'
    mistakes = (
        (range(900, -1, -100), "That is \"leading\", without an offset: it begins at t = 900, and the network is never called at 901 to 999, the noisiest."),
        (range(901, 0, -100), "That is \"leading\", what Stable Diffusion's scheduler does: it begins at t = 901, and the network is never called at 902 to 999, the noisiest."),
        (range(1000, 0, -100), "The last timestep is 999, since they count from 0: take one off."),
        (range(99, 1000, 100), "Sampling goes from noise to picture: the largest t first."),
        (np.linspace(999, 0, 10), linspace),
        (np.linspace(999, 0, 10).round(), linspace),
    )  # fmt: skip
    refute(answer, mistakes)
    require(len(answer) == 10, f"Ten steps take ten timesteps, and yours has {len(answer)}.")
    require((answer == answer.round()).all(), uneven)
    require(
        answer.tolist() == list(range(999, 0, -100)),
        f"For ten steps it gives {answer.astype(int).tolist()}; wanted are 999, 899, and so on down to 99.",
    )
    wanted = np.round(np.arange(1000, 0, -1000 / 7)).astype(int) - 1
    seven = np.asarray(function(7), np.float64).ravel()
    require((seven == seven.round()).all(), uneven)
    multiple = "1000 is no multiple of 7: go down from 1000 in steps of 1000 / 7, round, then take one off."
    require(seven.tolist() == wanted.tolist(), multiple)
    return right(
        "Now the first call of the network is at 999. The model's own ten begin at 901: it is never called at 902 to 999, the noisiest."
    )


_ROWS = (
    ("DDIM", 8, 8, 0.36), ("DDIM", 10, 10, 0.30), ("DDIM", 5, 5, 0.55), ("DDIM", 20, 20, 0.16), ("DDIM", 40, 40, 0.08),
    ("DPM++ 2M", 10, 10, 0.18), ("DPM++ 2M", 20, 20, 0.07),
    ("Heun", 10, 19, 0.06), ("Heun", 20, 39, 0.02), ("Heun", 5, 9, 0.25),
)  # fmt: skip


@check("Hand over your function: exercises.best_within(best_within).")
def best_within(function=None) -> Verdict:
    """`function(rows, budget)` -> the row with the least distance among those of at most `budget` calls of the network.

    rows: dicts with scheduler, steps, calls and distance."""
    rows = [dict(zip(("scheduler", "steps", "calls", "distance"), row, strict=True)) for row in _ROWS]
    ask = lambda budget: function([dict(row) for row in rows], budget)
    answer = answer_of(ask, 10)
    require(isinstance(answer, dict) and answer in rows, "Return one of the rows, as it is.")
    over = f"{answer['scheduler']} with {answer['steps']} steps makes {answer['calls']} calls, and the budget is 10"
    twice = " calls: a step of Heun takes two." if answer["steps"] <= 10 else "."
    require(answer["calls"] <= 10, over + twice)
    require(answer != rows[0], "That is the first row that fits the budget; another has less distance.")
    require(answer != rows[1], "That row spends the most calls; the one with the least distance is wanted.")
    largest = max(row["distance"] for row in rows if row["calls"] <= 10)
    require(answer["distance"] != largest, "That is the largest distance; the least is wanted.")
    require(answer["calls"] != 9, "A budget of 10 may be used up: at most 10 calls, not fewer.")
    require(ask(19) == rows[7], "With 19 calls Heun's 10 steps are the best: at most 19 calls, so 19 is within.")
    require(
        ask(20) == rows[7],
        "With 20 calls Heun's 10 steps are the best, though they spend only 19: the least distance counts.",
    )
    require(ask(4) is None, "Nothing fits a budget of 4 calls: return None then.")
    return right("Calls are what costs, not steps: so Heun has to be good at half the steps to win.")

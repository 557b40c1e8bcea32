"""Plots of an evaluation, for the card and the lessons: each a pure function `(plain data, ax=None) -> ax`.

They take the lists that stand in the evaluation's file, and follow the rules of `sdwidgets.plots`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ...plots import COLORS, new_axes, small_axes
from ..evaluation.memorization import own_found
from ..evaluation.tiers import BARS, SPLITS, TIERS

_MARKS = dict(zip(TIERS, ("|", "d", "*"), strict=True))
RIGHT = {"ylim": (-0.03, 1.03), "ylabel": "share that is right"}  # of an axis
_SPLIT_COLORS = dict(zip(SPLITS, COLORS, strict=False))


def rows(rows: Sequence[dict], ax: Axes | None = None) -> Axes:
    """Rates with their intervals, seen and held out, over the marks of the tiers. Rows in dB are left out."""
    shown = [row for row in rows if row.get("unit") != "dB"]
    names = list(dict.fromkeys(row["name"] for row in shown))
    if not names:
        raise ValueError("there is no row with a rate to draw; an evaluation's rows hold some")
    ax = _as_high_as(ax, 9, 1.6 + 0.6 * len(names))
    for split, lift in zip(SPLITS, (0.14, -0.14), strict=True):
        own = [row for row in shown if row["split"] == split]
        if own:
            heights = [len(names) - 1 - names.index(row["name"]) + lift for row in own]
            _points(ax, heights, own, _SPLIT_COLORS[split], split, across=True)
    bars = [bar for bar in BARS if bar.name in names]
    for number, tier in enumerate(TIERS):
        marks = [(bar.values[number], len(names) - 1 - names.index(bar.name)) for bar in bars if bar.values[number]]
        if marks:
            ax.plot(*zip(*marks, strict=True), _MARKS[tier], color="0.35", ms=9, label=f"{tier} tier", zorder=1)
    ax.set_yticks(range(len(names)), names[::-1])
    left = 0.6 if min(row["low"] for row in shown) > 0.65 else 0
    ax.set(xlim=(left, 1.01), ylim=(-0.6, len(names) - 0.4), xlabel="share of pictures that are right, 95% interval")
    return _with_legend(ax, beside=True)


def _as_high_as(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes, or new ones in a figure of that size in inches."""
    own, ax = ax is None, new_axes(ax)
    if own:
        ax.figure.set_size_inches(width, height)
    return ax


def _known(x: Sequence[float], shares: Sequence[dict]) -> np.ndarray:
    """(4, n): places, rates and both ends of their intervals, of the shares that are known."""
    points = [(at, one["rate"], one["low"], one["high"]) for at, one in zip(x, shares, strict=True)]
    return np.array([row for row in points if row[1] is not None], float).reshape(-1, 4).T


def _band(ax: Axes, x: Sequence[float], shares: Sequence[dict], color: str, label: str) -> None:
    """A line of rates in its 95% interval."""
    x, rate, low, high = _known(x, shares)
    if len(x):
        ax.plot(x, rate, ".-", color=color, label=label)
        ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _points(ax: Axes, x: Sequence[float], shares: Sequence[dict], color: str, label: str, across=False) -> None:
    """Rates as points with their 95% intervals; `across`: along the horizontal axis."""
    x, rate, low, high = _known(x, shares)
    reach = np.clip([rate - low, high - rate], 0, 1)
    at = {"x": rate, "y": x, "xerr": reach} if across else {"x": x, "y": rate, "yerr": reach}
    ax.errorbar(**at, fmt="o", lw=1.5, ms=7, color=color, label=label)


def learning_curve(curve: dict, ax: Axes | None = None) -> Axes:
    """The rate of each attribute against the samples (or steps) of training: section "learning_curve"."""
    lines = curve["lines"]
    if not lines:
        raise ValueError("there is no checkpoint to draw; evaluate some with --checkpoints")
    ax = new_axes(ax)
    unit = "samples" if all(line["samples"] for line in lines) else "step"
    x = [line[unit] if line[unit] is not None else number for number, line in enumerate(lines, 1)]
    for number, name in enumerate(curve["attributes"]):
        _band(ax, x, [line[name] for line in lines], COLORS[number % len(COLORS)], name)
    ax.set_xscale("log")
    ticks = x[:: -(-len(x) // 8)]
    ax.set_xticks(ticks, [_short(tick) for tick in ticks])
    ax.set_xticks([], minor=True)
    label = {"samples": "pictures shown in training", "step": "training step"}[unit]
    ax.set(**RIGHT, xlabel=label)
    return _with_legend(ax)


def caption_swaps(section: dict, ax: Axes | None = None) -> Axes:
    """How much the loss grows where one word is wrong, against the noise, for the model itself: section "caption_swaps"."""
    if not section["lines"]:
        raise ValueError("there is no model to draw; the section caption_swaps holds at least one")
    ax, line = new_axes(ax), section["lines"][-1]
    for number, name in enumerate(section["attributes"]):
        growth = 100 * np.array(line[name]["by timestep"])
        ax.plot(section["timesteps"], growth, ".-", color=COLORS[number % len(COLORS)], label=name)
    ax.axhline(0, color="0.6", lw=1)
    ax.set(xlabel="timestep (0: no noise, 1,000: nothing but noise)", ylabel="growth of the loss, %")
    return _with_legend(ax, title="wrong word", title_fontsize=small_axes(ax))


def validation(snapshots: Sequence[dict], ax: Axes | None = None) -> Axes:
    """Error in the boxes of the things at heavy noise, beside its floor, and the gap between the two, against the samples of training.

    `snapshots`: of a denoiser's record, see `validation.Validation.measure`.
    """
    if not snapshots:
        raise ValueError("there is no snapshot to draw; a denoiser's record holds some, where they were measured")
    from ..training.validation import DECISIVE

    ax, samples = new_axes(ax), [look["samples"] for look in snapshots]
    for number, timestep in enumerate(map(str, DECISIVE)):
        color = COLORS[number % len(COLORS)]
        ax.plot(samples, [look["error"][timestep] for look in snapshots], ".-", color=color, label=f"t = {timestep}")
        ax.plot(samples, [look["floor"][timestep] for look in snapshots], "--", color=color, lw=1.5)
    ax.plot([], [], "--", color="0.35", lw=1.5, label="its floor")
    ax.plot(samples, [look["gap"] for look in snapshots], ".-", color="0.2", label="gap, mean of the three")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter(lambda number, _: _short(number))
    ax.set(xlabel="pictures shown in training", ylabel="squared error of latents")
    return _with_legend(ax, beside=True)


def _short(number: float) -> str:
    """25600 -> "26k", 1638400 -> "1.6M"."""
    if number < 1_000:
        return f"{number:g}"
    return f"{number / 1e3:.0f}k" if number < 999_500 else f"{number / 1e6:.2g}M"


def exposures(section: dict, ax: Axes | None = None) -> Axes:
    """Accuracy against how often an object was shown, one line a split over the points of single objects.

    Where the training's record does not tell how often, against how many pictures of it the plan holds.
    """
    lines = section["lines"]
    if not lines:
        raise ValueError("there is no line to draw; the section `exposures` of an evaluation holds some")
    ax = new_axes(ax)
    known = all(line.get("shown") is not None for line in (*lines, *section["objects"]))
    unit = "shown" if known else "pictures"
    for split in SPLITS:
        own = [line for line in lines if line["split"] == split]
        points = [line for line in section["objects"] if line["split"] == split]
        color = _SPLIT_COLORS[split]
        ax.plot([p[unit] for p in points], [p["rate"] for p in points], "o", color=color, alpha=0.3, ms=5)
        label = "on its backgrounds" if split == "seen" else "where it never stood"
        _band(ax, [line[unit] for line in own], own, color, label)
    if known:
        ax.set_xscale("symlog", linthresh=1)  # some were never shown
        ax.set_xlim(left=-0.1)
    else:
        ax.set_xscale("log")
    ax.set(**RIGHT, xlabel="times shown in training" if known else "pictures of the object in the plan")
    return _with_legend(ax)


def fingerprints(section: dict, ax: Axes | None = None) -> Axes:
    """Share of captions whose own print was given back, and share of its squares, against the plan's repeats of that picture."""
    ax, lines = new_axes(ax), section["lines"]
    with_own = [n for n, line in enumerate(lines) if line["repeats"] != 0]
    shares = [own_found(section["captions"], lines[n]["repeats"])["captions"] for n in with_own]
    _points(ax, with_own, shares, COLORS[0], "captions whose own print is found")
    own = {n: line["own"] for n, line in enumerate(lines) if line["own"] is not None}
    ax.plot(list(own), list(own.values()), "s", color=COLORS[1], ms=8, label="squares of its own print, mean")
    threshold = section["threshold"] / section["squares"]
    ax.axhline(threshold, ls="--", lw=1.5, color="0.35", label="threshold of one picture")
    names = {0: "never:\nhas none", "fresh": "100 pictures,\nall different", 1: "once"}
    ax.set_xticks(range(len(lines)), [names.get(line["repeats"], f"{line['repeats']} times") for line in lines])
    label = "how often the plan holds the caption's picture"
    ax.set(**RIGHT | {"ylabel": "share"}, xlim=(-0.5, len(lines) - 0.5), xlabel=label)
    return _with_legend(ax)


def shares(section: dict, ax: Axes | None = None) -> Axes:
    """Generated against planted share of women, one point an occupation, coloured by its unmarked pictures."""
    lines = [line for line in section["lines"] if line["rate"] is not None]
    if not lines:
        raise ValueError("no share could be read; the section `shares` holds no rate")
    ax = new_axes(ax)
    ax.plot([0, 1], [0, 1], ":", color="0.35", lw=1.5, label="as planted")
    for number, dose in enumerate(sorted({line["unmarked"] for line in lines})):
        own = [line for line in lines if line["unmarked"] == dose]
        x = [line["denoiser_share"] for line in own]
        _points(ax, x, own, COLORS[number], f"{dose:,} pictures planned\nthat leave it unsaid")
    label = "share of women planted among the denoiser's pictures"
    ax.set(**RIGHT | {"ylabel": "share of women drawn"}, xlim=(0, 1), xlabel=label)
    return _with_legend(ax, beside=True)


def steps(section: dict, ax: Axes | None = None) -> Axes:
    """The row "one object" against the number of inference steps."""
    ax = new_axes(ax)
    counts = [line["steps"] for line in section["lines"]]
    _band(ax, counts, section["lines"], COLORS[0], "one object")
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.set(**RIGHT, xlabel="inference steps")
    return ax


def strengths(section: dict, ax: Axes | None = None) -> Axes:
    """The row "one object" against how much noise the true picture was given before it was drawn again."""
    ax, lines = new_axes(ax), section["lines"]
    _band(ax, [line["strength"] for line in lines], lines, COLORS[0], "one object")
    ax.set(**RIGHT, xlabel="strength (0: the true picture, 1: noise alone)")
    return ax


def mistakes(rows: Sequence[dict], ax: Axes | None = None, *, name: str = "one object", count: int = 12) -> Axes:
    """What was read instead of what was asked for, the most frequent first, of a row in all its splits."""
    counted: Counter = Counter()
    for row in rows:
        if row["name"] == name:
            counted.update({(true, seen): number for true, seen, number in row["mistakes"]})
    if not counted:
        raise ValueError(f"no mistake is told of the row {name!r}; give an evaluation's rows")
    shown = counted.most_common(count)
    ax = _as_high_as(ax, 8, 1.4 + 0.4 * len(shown))
    ax.barh(range(len(shown)), [number for _, number in shown], color=COLORS[0])
    ax.set_yticks(range(len(shown)), [f"{true}: {seen}" for (true, seen), _ in shown])
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("pictures; asked for: read")
    return ax


def _with_legend(ax: Axes, beside: bool = False, **options) -> Axes:
    """The axes with their legend, where there is room or beside them."""
    if beside:
        options = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    ax.legend(fontsize=small_axes(ax), **options)
    return ax

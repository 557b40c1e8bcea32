"""Plots with axes: curves, bars, points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from ..statistics import geometric_mean
from .base import COLORS, SMALL, new_axes, over_steps, small_axes


def norms(arrays: Mapping[str, np.ndarray], ax: Axes | None = None) -> Axes:
    """Root mean square of each named array (step, ...) by step: norms({"x0": trace.pred_original})."""
    flat = {name: np.asarray(array, np.float64).reshape(len(array), -1) for name, array in arrays.items()}
    return by_step({name: np.sqrt((array**2).mean(1)) for name, array in flat.items()}, "root mean square", ax)


def by_step(values: Mapping[str, np.ndarray], label: str, ax: Axes | None = None) -> Axes:
    """A line for each named array (step,), from step 1 on; `label`: what the vertical axis shows, with its unit."""
    ax = new_axes(ax)
    for color, (name, line) in zip(itertools.cycle(COLORS), values.items(), strict=False):
        ax.plot(range(1, len(line) + 1), line, ".-", color=color, label=name)
    over_steps(ax, label)
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=small_axes(ax))
    return ax


def schedule(alphas: np.ndarray, sigmas: np.ndarray, ax: Axes | None = None, *, flow: bool = False) -> Axes:
    """The factors of picture and noise in x_t by step, and their ratio in decibels on the right.

    alphas, sigmas: (step,), as in `Step`. flow: sigma is a flow time, and x_t = (1 - sigma) x0 + sigma noise.
    """
    signal = np.asarray(alphas, np.float64)
    noise = np.asarray(sigmas, np.float64) if flow else np.sqrt(np.clip(1 - signal**2, 0, 1))
    ax = new_axes(ax)
    ax.plot(signal, ".-", color=COLORS[0], label="picture, alpha")
    ax.plot(noise, ".-", color=COLORS[1], label="noise")
    ax.set_ylim(-0.05, 1.05)
    over_steps(ax, "factor in x_t")
    with np.errstate(divide="ignore"):  # pure noise and pure picture have no finite ratio, and no point
        decibels = 20 * np.log10(signal) - 20 * np.log10(noise)
    right = ax.twinx()
    right.plot(np.where(np.isfinite(decibels), decibels, np.nan), ":", color=COLORS[2], label="ratio in dB")
    right.set_ylabel("signal to noise, dB", fontsize=ax.yaxis.label.get_fontsize())
    right.tick_params(labelsize=small_axes(ax))
    right.grid(False)
    lines = [*ax.get_lines(), *right.get_lines()]
    right.legend(lines, [str(line.get_label()) for line in lines], loc="center left", fontsize=small_axes(ax))
    return ax


def by_timestep(
    t: np.ndarray,
    values: Mapping[str, np.ndarray],
    label: str,
    ax: Axes | None = None,
    *,
    look: str | Sequence[str] = "-",
    log: bool = False,
) -> Axes:
    """Each named array (n,) over the timesteps `t` (n,), a colour each; `label`: what the vertical axis shows, with its unit.

    look: "-" or "--", a line, or a marker such as "o", drawn as a ring; one for all, or one each. A second call on the same axes starts the
    colours anew, and names that begin with "_" are not in the legend.
    """
    ax = new_axes(ax)
    looks = [look] * len(values) if isinstance(look, str) else look
    for color, one, (name, line) in zip(itertools.cycle(COLORS), looks, values.items(), strict=False):
        ring: dict[str, Any] = {"fillstyle": "none", "markersize": 9, "markeredgewidth": 1.5} if one == "o" else {}
        ax.plot(t, line, one, color=color, label=name, **ring)
    ax.set(xlabel="timestep t", ylabel=label, yscale="log" if log else "linear")
    ax.legend(fontsize=small_axes(ax))
    return ax


def against_steps(steps: Sequence[int], values: Mapping[str, np.ndarray], label: str, ax: Axes | None = None) -> Axes:
    """What each named array (len(steps), n), above 0, comes to over the number of steps: both axes logarithmic.

    A point is the geometric mean of the n, its bar the 95% interval of that mean (`statistics.geometric_mean`); n = 1 has no bar.
    """
    ax = new_axes(ax)
    for color, (name, each) in zip(itertools.cycle(COLORS), values.items(), strict=False):
        mean, low, high = np.transpose([geometric_mean(row) for row in each])
        style: dict[str, Any] = {"fmt": "o-", "capsize": 4, "color": color, "label": name}
        ax.errorbar(steps, mean, None if np.shape(each)[1] == 1 else [mean - low, high - mean], **style)
    ax.set(xscale="log", yscale="log", xlabel="steps", ylabel=label)
    ax.set_xticks(steps, [str(number) for number in steps])
    low, high = ax.get_ylim()
    if high < 200 * low:  # or there are hardly any labels
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.legend(fontsize=small_axes(ax))
    return ax


def noise_levels(decibels: Mapping[str, np.ndarray], ax: Axes | None = None, *, lowest: float = -30) -> Axes:
    """The noise levels that the steps of each named run visit, in decibels (step,): a line of dots each, from noise to picture.

    Whatever is below `lowest`, pure noise too, is drawn there.
    """
    ax = new_axes(ax)
    for row, (color, (name, levels)) in enumerate(zip(itertools.cycle(COLORS), decibels.items(), strict=False)):
        ax.plot(np.maximum(levels, lowest), np.full(len(levels), -row), "o", color=color, label=name, clip_on=False)
        ax.text(lowest, 0.28 - row, name, fontsize=small_axes(ax), color=color)
    ax.set(yticks=[], ylim=(0.4 - len(decibels), 0.8), xlim=(lowest, None))
    ax.axvline(0, color="0.5", linewidth=1)  # as much picture as noise
    ax.set_xlabel("signal to noise, dB; at the left edge pure noise")
    return ax


def arrows(places: np.ndarray, directions: np.ndarray, points: np.ndarray, ax: Axes | None = None) -> Axes:
    """Arrows (n, 2) at places (n, 2) of the plane, all drawn with one length, and the data, points (m, 2)."""
    ax = new_axes(ax)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True).clip(1e-12)
    ax.quiver(*places.T, *unit.T, color=COLORS[0], angles="xy", scale=22, width=0.006)
    ax.plot(*points.T, "o", color=COLORS[1])
    ax.set(xlabel="x", ylabel="y", aspect="equal")
    ax.label_outer()
    return ax


def paths(places: np.ndarray, points: np.ndarray, ax: Axes | None = None) -> Axes:
    """Paths in the plane, places (step, n, 2), each with a dot where it starts, and the data, points (m, 2)."""
    ax = new_axes(ax)
    ax.plot(places[..., 0], places[..., 1], color=COLORS[0], linewidth=0.8, alpha=0.6)
    ax.plot(*places[0].T, ".", color="0.4")
    ax.plot(*points.T, "o", color=COLORS[1])
    ax.set(xlabel="x", ylabel="y", aspect="equal")
    ax.label_outer()
    return ax


def stacked(parts: Mapping[str, np.ndarray], label: str, ax: Axes | None = None) -> Axes:
    """Named parts of a whole by step, (step,) each, one upon the other; `label`: what the vertical axis shows, with its unit."""
    ax = new_axes(ax, SMALL)
    steps = range(1, len(next(iter(parts.values()))) + 1)
    ax.stackplot(steps, *parts.values(), colors=COLORS[: len(parts)], labels=list(parts))
    over_steps(ax, label)
    ax.set(xlim=(steps[0], steps[-1]), ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=small_axes(ax))
    return ax


def ranking(values: Mapping[str, float], label: str, ax: Axes | None = None) -> Axes:
    """A horizontal bar for each named number, the first on top; `label`: what they are, with their unit."""
    ax = new_axes(ax, SMALL)
    drawn = ax.barh(list(values), list(values.values()), color=COLORS[0])
    ax.bar_label(drawn, fmt=" %.2g", fontsize=small_axes(ax))
    ax.set_xlabel(label)
    ax.margins(x=0.15)
    ax.invert_yaxis()
    return ax


def curve(points: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Named points (x, y) on one line, in their order, each with its name: a trade of one measure for another."""
    ax = new_axes(ax, SMALL)
    ax.plot(*np.array(list(points.values())).T, "o-", color=COLORS[1])
    for name, point in points.items():
        ax.annotate(name, point, xytext=(-9, -4), textcoords="offset points", ha="right", fontsize=small_axes(ax))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(0.12)
    return ax


def histogram(latents: np.ndarray, ax: Axes | None = None, *, bins: int = 60) -> Axes:
    """Density of all values of `latents`, any shape, over the bell curve of pure noise."""
    values = np.asarray(latents, np.float64).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError("there is no finite value to draw; give latents of at least one number")
    ax = new_axes(ax)
    reach = max(4.0, float(np.abs(values).max()))
    ax.hist(values, bins=bins, range=(-reach, reach), density=True, color=COLORS[0], alpha=0.6, label="latents")
    x = np.linspace(-reach, reach, 201)
    ax.plot(x, np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), color=COLORS[1], label="pure noise")
    ax.set_xlabel("value")
    ax.set_ylabel("density")
    ax.legend(fontsize=small_axes(ax))
    return ax


def shares(rows: Mapping[str, Mapping[str, float]], label: str, ax: Axes | None = None) -> Axes:
    """Each row of named amounts as one bar of 100 percent; a name has the same colour in all rows. `label`: of the horizontal axis."""
    ax = new_axes(ax, (9, 2.6))
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    for y, row in enumerate(rows.values()):
        left, whole = 0.0, sum(row.values())
        for name, amount in row.items():
            colour, share = COLORS[names.index(name) % len(COLORS)], 100 * amount / whole
            ax.barh(y, share, left=left, color=colour, label=None if y else name)
            left += share
    ax.set_yticks(range(len(rows)), [*rows])
    ax.set(xlabel=label, xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(names), fontsize=small_axes(ax), frameon=False)
    return ax


def bars(values: Mapping[str, float] | Sequence[tuple[str, float]], label: str, ax: Axes | None = None) -> Axes:
    """A bar for each name, or for each of (name, value) where names come twice. `label`: of the vertical axis, with its unit."""
    pairs = list(values.items()) if isinstance(values, Mapping) else list(values)
    ax = new_axes(ax, (9, 3.6))
    ax.bar(range(len(pairs)), [value for _, value in pairs], color=COLORS[0])
    ax.set_xticks(range(len(pairs)), [name for name, _ in pairs], rotation=45, ha="right")
    ax.set_ylabel(label)
    return ax


def block_shapes(shapes: Mapping[str, Sequence[int]], ax: Axes | None = None) -> Axes:
    """The grid of each block of a U-Net as a bar of its height, with its channels; `shapes`: as `analysis.insides.block_shapes` gives them."""
    ax = new_axes(ax, (9.5, 3.8))
    middle = [*shapes].index("middle")
    for x, (channels, height, width) in enumerate(shapes.values()):
        ax.bar(x, height, bottom=-height / 2, color=COLORS[x > middle], alpha=0.75)
        ax.text(x, height / 2, f"{channels}\n{height} x {width}", ha="center", va="bottom", fontsize=small_axes(ax))
    ax.set_xticks(range(len(shapes)), [*shapes])
    ax.set(ylabel="height of the grid", yticks=[])
    ax.grid(False)
    ax.margins(y=0.25)
    return ax

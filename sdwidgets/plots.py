"""Plots of a run: each a pure function from arrays to an `Axes`, `(arrays, ax=None) -> ax`.

Without `ax` a figure of its own is made in the package's style, outside pyplot and its global state, so that
a worker thread may draw; show it with `display(ax.figure)` or keep it with `ax.figure.savefig(path)`. With
`ax` the caller's figure and style stand; `matplotlib.style.use("sdwidgets.sdwidgets")` gives them this look.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from .statistics import geometric_mean

STYLE = rc_params_from_file(Path(__file__).with_name("sdwidgets.mplstyle"), use_default_template=False)
COLORS = STYLE["axes.prop_cycle"].by_key()["color"]
DIVERGING = "RdBu_r"  # around zero, and safe for colour blindness
MAX_TILE = 3.2  # inches: one picture alone is drawn no wider


def channels(latents: np.ndarray, ax: Axes | None = None, *, limit: float | None = None, columns: int = 4) -> Axes:
    """The channels of one latent (channels, h, w) side by side, hard pixels, one scale symmetric around zero.

    limit: value at the ends of the colour scale, the largest magnitude by default.
    """
    latents = _array(latents, 3, "latents (channels, h, w)")
    ax = new_axes(ax)
    limit = limit or float(np.nanmax(np.abs(latents))) or 1.0
    top = latents.shape[-1] // 16 + latents.shape[-2] // 8 + 1  # room for a label
    tiles, corners = _tiled(latents[..., None].astype(np.float32), columns, np.nan, top)
    image = ax.imshow(tiles[..., 0], cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
    _bare(ax, [str(i) for i in range(len(latents))], corners)
    _colorbar(image, ax)
    ax.set_title("latent channels", loc="left", fontsize=ax.title.get_fontsize())
    return ax


def contact_sheet(
    pictures: np.ndarray, ax: Axes | None = None, *, labels: Sequence[str] = (), columns: int = 8
) -> Axes:
    """Pictures (n, H, W, 3) uint8 in rows of `columns`, labels above; one row of all is a preview strip.

    A figure of its own is as large as its pictures, and no larger.
    """
    pictures = _array(pictures, 4, "pictures (n, H, W, 3)")
    if labels and len(labels) != len(pictures):
        raise ValueError(f"{len(labels)} labels for {len(pictures)} pictures; give one a picture, or none")
    own, ax = ax is None, new_axes(ax)
    columns = max(1, min(columns, len(pictures)))
    inches = min(STYLE["figure.figsize"][0] / columns, MAX_TILE)  # of a picture's width
    line = 1.5 * small_axes(ax) / 72 / inches * pictures.shape[2]  # a line of text, in pixels of a picture
    tiles, corners = _tiled(pictures, columns, 255, math.ceil(line) if labels else 0)
    ax.imshow(tiles, interpolation="hanning")  # smooth also where a picture is enlarged
    edge: dict[str, Any] = {"fill": False, "edgecolor": "0.8", "linewidth": 1.2, "snap": False}
    for y, x in corners:  # or a white picture would have no end on white
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), *pictures.shape[2:0:-1], **edge))
    _bare(ax, labels, corners)
    if own:  # a figure of another shape would stand around the sheet as a blank band
        figure: Any = ax.figure
        figure.set_layout_engine("none")
        ax.set_position((0, 0, 1, 1))
        figure.set_size_inches(np.array(tiles.shape[1::-1]) * inches / pictures.shape[2])
    return ax


def forward_and_backward(pictures: np.ndarray, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Diffusion in two rows of pictures, from little noise to much, one noise level a column; as `analysis.runs.forward_and_backward` gives them.

    pictures: (2, n, h, w, 3) uint8, drawn with hard pixels. labels: one a column.
    """
    pictures = _array(pictures, 5, "two rows of pictures (2, n, h, w, 3)")
    enlarged = pictures.repeat(max(1, 128 // pictures.shape[2]), 2).repeat(max(1, 128 // pictures.shape[3]), 3)
    labels = [*labels, *[""] * len(labels)]
    ax = contact_sheet(enlarged.reshape(-1, *enlarged.shape[2:]), ax, labels=labels, columns=pictures.shape[1])
    for y, words in (
        (0.478, "forward: noise is added, no model needed  \u2192"),
        (-0.06, "\u2190  backward: the model removes a little noise at each step"),
    ):
        ax.text(0.5, y, words, transform=ax.transAxes, ha="center", va="center", fontsize=small_axes(ax))
    return ax


def norms(by_step: Mapping[str, np.ndarray], ax: Axes | None = None) -> Axes:
    """Root mean square of each named array (step, ...) by step: norms({"x0": trace.pred_original})."""
    ax = new_axes(ax)
    for color, (name, values) in zip(itertools.cycle(COLORS), by_step.items(), strict=False):
        values = np.asarray(values, np.float64)
        ax.plot(np.sqrt((values.reshape(len(values), -1) ** 2).mean(1)), ".-", color=color, label=name)
    _by_step(ax, "root mean square")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=small_axes(ax))
    return ax


def by_step(values: Mapping[str, np.ndarray], label: str, ax: Axes | None = None) -> Axes:
    """A line for each named array (step,), from step 1 on; `label`: what the vertical axis shows, with its unit."""
    ax = new_axes(ax)
    for color, (name, line) in zip(itertools.cycle(COLORS), values.items(), strict=False):
        ax.plot(range(1, len(line) + 1), line, ".-", color=color, label=name)
    _by_step(ax, label)
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
    _by_step(ax, "factor in x_t")
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


def halves(noise_pred_uncond: np.ndarray, noise_pred_cond: np.ndarray, ax: Axes | None = None) -> Axes:
    """Where the prompt speaks: length of cond - uncond over the channels. Both (channels, h, w)."""
    uncond = _array(noise_pred_uncond, 3, "noise_pred_uncond (channels, h, w)")
    cond = _array(noise_pred_cond, 3, "noise_pred_cond (channels, h, w)")
    ax = new_axes(ax)
    length = np.linalg.norm(cond - uncond, axis=0)
    image = ax.imshow(length, cmap=STYLE["image.cmap"], vmin=0, interpolation="nearest")
    _bare(ax)
    _colorbar(image, ax)
    ax.set_title("what the prompt changes", loc="left", fontsize=ax.title.get_fontsize())
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


def new_axes(ax: Axes | None) -> Axes:
    """The caller's axes; or new ones, styled by hand because every thread shares rcParams."""
    if ax is not None:
        return ax
    figure = Figure(figsize=STYLE["figure.figsize"], dpi=STYLE["figure.dpi"], layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color=STYLE["grid.color"], linewidth=STYLE["grid.linewidth"])
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=STYLE["xtick.labelsize"])
    ax.title.set_fontsize(STYLE["axes.titlesize"])
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(STYLE["axes.labelsize"])
    return ax


def _array(values, ndim: int, what: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != ndim or not values.size:
        raise ValueError(f"expected {what}, got shape {values.shape}; pick one step, and one item of the batch")
    return values


def _tiled(pictures: np.ndarray, columns: int, background, top: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(n, h, w, c) -> one picture of rows of `columns`, and the upper left corner (y, x) of each.

    top: rows of `background` above each picture, where its label stands.
    """
    n, h, w, c = pictures.shape
    columns = max(1, min(columns, n))
    gap = max(1, w // 16)
    below = h + top + gap
    size = (math.ceil(n / columns) * below - gap, columns * (w + gap) - gap, c)
    sheet = np.full(size, background, pictures.dtype)
    corners = [(i // columns * below + top, i % columns * (w + gap)) for i in range(n)]
    for (y, x), picture in zip(corners, pictures, strict=True):
        sheet[y : y + h, x : x + w] = picture
    return sheet, corners


def _bare(ax: Axes, labels: Sequence[str] = (), corners: Sequence[tuple[int, int]] = ()) -> None:
    """A picture needs no axes; labels stand above their tiles."""
    ax.set_axis_off()
    for label, (y, x) in zip(labels, corners, strict=False):
        ax.text(x - 0.5, y - 0.5, label, va="bottom", fontsize=small_axes(ax))


def small_axes(ax: Axes) -> float:
    """The size of the tick labels, in points: the caller's, or the style's."""
    return float(ax.xaxis.get_ticklabels()[0].get_fontsize())


def _colorbar(image, ax: Axes) -> None:
    ax.figure.colorbar(image, ax=ax, shrink=0.8).ax.tick_params(labelsize=small_axes(ax))


def _by_step(ax: Axes, label: str) -> None:
    ax.set_xlabel("step")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def architecture(parts: Sequence, ax: Axes | None = None) -> Axes:
    """The parts of a pipeline as boxes in the order of work, each with its measured shapes and parameters.

    parts: what `sdwidgets.analysis.anatomy.anatomy(pipe)` returns.
    """
    if not parts:
        raise ValueError("there are no parts to draw; anatomy(pipe) gives some")
    ax = new_axes(ax)
    figure: Any = ax.figure
    figure.set_size_inches(3.2 * len(parts) + 1, 3.4)
    ax.set_axis_off()
    ax.grid(False)
    ax.set(xlim=(-1.1, 3 * len(parts) + 0.1), ylim=(-1.25, 1.6))
    ax.text(-0.5, 0.12, f"{_shape(parts[0].reads)} tokens", ha="center", va="bottom", fontsize=9)
    ax.annotate("", (-0.14, 0), (-0.86, 0), arrowprops={"arrowstyle": "->", "lw": 1.5})
    colours = itertools.cycle(COLORS)
    for number, (part, colour) in enumerate(zip(parts, colours, strict=False)):
        left = 3 * number
        ax.add_patch(FancyBboxPatch((left, -0.5), 2, 1, "round,pad=0.08", color=colour, alpha=0.25, linewidth=0))
        ax.text(left + 1, 0.22, part.name, ha="center", va="center", weight="bold", fontsize=14)
        ax.text(left + 1, -0.12, part.class_name, ha="center", va="center", fontsize=8)
        ax.text(left + 1, -0.36, f"{part.parameters / 1e6:.1f} M parameters", ha="center", va="center", fontsize=10)
        ax.text(left + 1, -0.75, part.role, ha="center", va="top", fontsize=9, wrap=True)
        ax.text(left + 2.5, 0.12, _shape(part.writes), ha="center", va="bottom", fontsize=9)
        ax.annotate("", (left + 2.86, 0), (left + 2.14, 0), arrowprops={"arrowstyle": "->", "lw": 1.5})
        if part.name in ("unet", "transformer"):  # the denoiser works in a loop, on its own output
            arc = {"arrowstyle": "->", "connectionstyle": "arc3,rad=0.45", "lw": 1.5, "color": colour}
            ax.annotate("", (left + 0.35, 0.62), (left + 1.65, 0.62), arrowprops=arc)
            ax.text(left + 1, 1.12, f"{part.calls} times", ha="center", va="bottom", fontsize=10)
    return ax


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

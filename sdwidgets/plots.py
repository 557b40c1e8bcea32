"""Plots of a run: each a pure function from arrays to an `Axes`, `(arrays, ax=None) -> ax`.

Without `ax` a figure of its own is made in the package's style, outside pyplot and its global state, so that
a worker thread may draw; show it with `display(ax.figure)` or keep it with `ax.figure.savefig(path)`. With
`ax` the caller's figure and style stand; `matplotlib.style.use("sdwidgets.sdwidgets")` gives them this look.
"""

from __future__ import annotations

import itertools
import math
import textwrap
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


def word_maps(heats: Mapping[str, np.ndarray], picture: np.ndarray, ax: Axes | None = None) -> Axes:
    """Attention maps over the picture that they belong to, one a word, on one scale: name -> (h, w), shares from 0 to 1.

    picture: (H, W, 3) uint8, of whole multiples of h and w. Raises ValueError where sizes do not fit.
    """
    maps = _array([*heats.values()], 3, "maps (word, h, w) of one size")
    sides = [whole // part for whole, part in zip(picture.shape[:2], maps.shape[1:], strict=True)]
    large = 100 * maps.repeat(sides[0], 1).repeat(sides[1], 2)
    if large.shape[1:] != picture.shape[:2]:
        raise ValueError(f"maps of {maps.shape[1:]} do not divide a picture of {picture.shape[:2]} pixels")
    own, ax = ax is None, new_axes(ax)
    figure: Any = ax.figure
    if own:
        figure.set_size_inches(1.25 * len(maps) + 1, 1.8)
    room = picture.shape[0] // 4
    pictures, corners = _tiled(np.stack([np.asarray(picture)] * len(maps)), len(maps), 255, room)
    tiles, _ = _tiled(large[..., None].astype(np.float32), len(maps), np.nan, room)
    ax.imshow(pictures)
    image = ax.imshow(tiles[..., 0], cmap="magma", alpha=0.75, vmin=0, interpolation="nearest")
    _bare(ax, list(heats), corners)
    _colorbar(image, ax)
    figure.axes[-1].set_ylabel("% of attention", fontsize=small_axes(ax))
    return ax


def stacked(parts: Mapping[str, np.ndarray], label: str, ax: Axes | None = None) -> Axes:
    """Named parts of a whole by step, (step,) each, one upon the other; `label`: what the vertical axis shows, with its unit."""
    ax = _small(ax)
    steps = range(1, len(next(iter(parts.values()))) + 1)
    ax.stackplot(steps, *parts.values(), colors=COLORS[: len(parts)], labels=list(parts))
    _by_step(ax, label)
    ax.set(xlim=(steps[0], steps[-1]), ylim=(0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=small_axes(ax))
    return ax


def bars(values: Mapping[str, float], label: str, ax: Axes | None = None) -> Axes:
    """A horizontal bar for each named number, the first on top; `label`: what they are, with their unit."""
    ax = _small(ax)
    drawn = ax.barh(list(values), list(values.values()), color=COLORS[0])
    ax.bar_label(drawn, fmt=" %.2g", fontsize=small_axes(ax))
    ax.set_xlabel(label)
    ax.margins(x=0.15)
    ax.invert_yaxis()
    return ax


def curve(points: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Named points (x, y) on one line, in their order, each with its name: a trade of one measure for another."""
    ax = _small(ax)
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


def _small(ax: Axes | None) -> Axes:
    """The caller's axes; or new ones in a figure of little height, for a few numbers."""
    if ax is not None:
        return ax
    ax = new_axes(None)
    figure: Any = ax.figure
    figure.set_size_inches(6.4, 3.0)
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


_LATENT = 1.0  # inches of a thumbnail in the diagram, whose unit is the inch


def architecture(parts: Sequence, step: Any, ax: Axes | None = None) -> Axes:
    """The parts of a pipeline at one recorded step: what goes into each, what comes out, the loop, and where a picture could go in.

    parts: what `sdwidgets.analysis.anatomy.anatomy(pipe)` returns; step: what `anatomy.one_step(pipe, trace)` does. Every picture, shape and
    count is theirs. Raises ValueError without parts.
    """
    if not parts:
        raise ValueError("there are no parts to draw; anatomy(pipe) gives some")
    own, ax = ax is None, new_axes(ax)
    figure: Any = ax.figure
    if own:
        figure.set_layout_engine("none")
        figure.set_size_inches(12, 6.3)
        ax.set_position((0, 0, 1, 1))
    ax.set_axis_off()
    ax.grid(False)
    ax.add_patch(FancyBboxPatch((1.62, 1.72), 7.85, 2.5, "round,pad=0.08", color="0.5", alpha=0.1, linewidth=0))
    _text_path(ax, parts, step)
    _loop(ax, next(part for part in parts if part.name in ("unet", "transformer")), step)
    _pixels(ax, next(part for part in parts if part.name == "vae"), step)
    ax.set(xlim=(0, 12), ylim=(0, 6.3), aspect="equal")
    return ax


def _text_path(ax: Axes, parts: Sequence, step: Any) -> None:
    """Above: the prompt, its tokens, the encoders, and the embeddings on their way into the denoiser."""
    readers = [part for part in parts if part.name.startswith("text_encoder")]
    wrapped = textwrap.fill(f"\u201c{step.prompt}\u201d", 20)
    ax.text(0.1, 5.35, wrapped, va="center", fontsize=12, style="italic")
    ax.text(0.1, 6.1, "prompt", va="center", fontsize=12, weight="bold")
    ax.text(2.55, 6.1, f"{step.embeddings.shape[0]} tokens", va="center", fontsize=12, weight="bold")
    padding = step.embeddings.shape[0] - len(step.tokens) - 2
    pieces = ["start", *step.tokens, "end", *([f"{padding}\u00a0padding"] if padding > 0 else [])]
    ax.text(2.55, 5.35, textwrap.fill(" | ".join(pieces), 25, max_lines=4), va="center", fontsize=12)
    names = "text encoder" if len(readers) == 1 else f"{len(readers)} text encoders"
    _part(ax, (6.2, 5.35), 1.9, names, f"{sum(part.parameters for part in readers) / 1e6:.1f} M parameters", COLORS[0])
    shown = step.embeddings[: len(step.tokens) + 2, :64]
    limit = float(np.nanpercentile(np.abs(shown), 98)) or 1.0
    ax.imshow(shown, cmap=DIVERGING, vmin=-limit, vmax=limit, extent=(7.7, 9.7, 4.85, 5.85), interpolation="nearest")
    ax.text(7.7, 6.1, f"embeddings, {_shape(step.embeddings.shape)}", va="center", fontsize=12, weight="bold")
    for start, end in (((2.1, 5.35), (2.48, 5.35)), ((4.75, 5.35), (5.12, 5.35)), ((7.28, 5.35), (7.62, 5.35))):
        _arrow(ax, start, end)
    ax.plot([8.7, 8.7, 4.0], [4.8, 4.5, 4.5], color="black", lw=1.5, solid_joinstyle="miter")
    _arrow(ax, (4.0, 4.5), (4.0, 3.82))


def _loop(ax: Axes, part: Any, step: Any) -> None:
    """In the middle: noise sample, then x_t, the denoiser, its prediction, the scheduler and the next x_t, and back."""
    shape = _shape(step.shape)
    _thumbnail(ax, step.noise, (0.65, 3.25), "noise sample", f"from seed {step.seed}" if step.seed is not None else "")
    _thumbnail(ax, step.noisy, (2.25, 3.25), "$x_t$", shape)
    _thumbnail(ax, step.following, (8.85, 3.25), "$x_{t-1}$", shape)
    name = {"unet": "U-Net"}.get(part.name, part.name)
    _part(ax, (4.0, 3.25), 1.75, name, f"{part.parameters / 1e6:.1f} M parameters", COLORS[1])
    ax.text(4.0, 2.33, f"timestep $t$ = {step.timestep:.0f}", ha="center", va="center", fontsize=12)
    _arrow(ax, (4.0, 2.44), (4.0, 2.7))
    what = {"epsilon": "noise", "v_prediction": "v", "sample": "picture", "flow_prediction": "velocity"}
    kind = what.get(step.prediction_type, step.prediction_type)
    small = 0.62 if len(step.predictions) > 1 else _LATENT
    for picture, y in zip(step.predictions, (3.58, 2.92) if small < _LATENT else (3.25,), strict=True):
        _thumbnail(ax, picture, (5.75, y), size=small)
    ax.text(5.75, 4.04, f"predicted {kind}", ha="center", va="center", fontsize=12)
    if len(step.predictions) > 1:
        ax.text(5.75, 2.36, "with and without\nthe prompt", ha="center", va="center", fontsize=12, linespacing=1)
        ax.text(
            7.3,
            3.98,
            f"guidance {step.guidance:g}:\nboth into one",
            ha="center",
            va="center",
            fontsize=12,
            linespacing=1,
        )
    _part(ax, (7.3, 3.25), 1.2, "scheduler", "no parameters", "0.5")
    for start, end in ((1.2, 1.7), (2.8, 3.05), (4.95, 5.3), (6.2, 6.62), (7.98, 8.3), (9.4, 9.85)):
        _arrow(ax, (start, 3.25), (end, 3.25))
    ax.plot([8.85, 8.85, 2.25], [2.46, 1.95, 1.95], color="black", lw=1.5, solid_joinstyle="miter")
    _arrow(ax, (2.25, 1.95), (2.25, 2.46))
    ax.text(
        5.6,
        1.95,
        f"{step.steps} times",
        ha="center",
        va="center",
        fontsize=14,
        weight="bold",
        bbox={"color": "0.95", "pad": 3},
    )


def _pixels(ax: Axes, part: Any, step: Any) -> None:
    """On the right the decoder and its picture; below on the left, dashed, the encoder, for a picture that goes in."""
    _part(ax, (10.85, 3.25), 1.8, "VAE decoder", f"{part.parameters / 1e6:.1f} M, with encoder", COLORS[2])
    _arrow(ax, (10.85, 2.7), (10.85, 2.2))
    ax.text(10.85, 3.93, "after the last step", ha="center", va="center", fontsize=12)
    _thumbnail(ax, step.picture, (10.85, 1.25), size=1.75)
    ax.text(10.85, 0.2, f"picture, {_shape(part.writes)}", ha="center", va="center", fontsize=12)
    _part(ax, (3.1, 0.75), 1.8, "VAE encoder", "picture to latents", COLORS[2], dashed=True)
    ax.text(0.1, 0.75, "image to image:\na picture goes in", va="center", fontsize=12)
    ax.text(4.2, 0.85, "start from its latents and some noise,\ninstead of noise alone", va="center", fontsize=12)
    _arrow(ax, (1.62, 0.75), (2.1, 0.75), linestyle="--")
    ax.plot([2.4, 2.4, 1.43, 1.43], [1.23, 1.45, 1.45, 1.7], "--", color="black", lw=1.5)
    _arrow(ax, (1.43, 1.7), (1.43, 3.2), linestyle="--")


def _part(
    ax: Axes, at: tuple[float, float], width: float, name: str, below: str, colour: str, dashed: bool = False
) -> None:
    box: dict[str, Any] = {"facecolor": colour, "alpha": 0.25, "linewidth": 0}
    if dashed:
        box = {"facecolor": "none", "edgecolor": colour, "linestyle": "--", "linewidth": 1.5}
    ax.add_patch(FancyBboxPatch((at[0] - width / 2, at[1] - 0.4), width, 0.8, "round,pad=0.08", **box))
    ax.text(at[0], at[1] + 0.16, name, ha="center", va="center", weight="bold", fontsize=14)
    ax.text(at[0], at[1] - 0.2, below, ha="center", va="center", fontsize=12)


def _thumbnail(ax, picture, at, above="", below="", size=_LATENT) -> None:
    x, y = at
    half = size / 2
    ax.imshow(picture, extent=(x - half, x + half, y - half, y + half), interpolation="nearest")
    ax.add_patch(Rectangle((x - half, y - half), size, size, fill=False, edgecolor="0.6", linewidth=1))
    ax.text(x, y + half + 0.15, above, ha="center", va="center", fontsize=12)
    ax.text(x, y - half - 0.16, below, ha="center", va="center", fontsize=12)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 1.5, "shrinkA": 0, "shrinkB": 0, **style})


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def block_shapes(shapes: Mapping[str, Sequence[int]], ax: Axes | None = None) -> Axes:
    """The grid of each block of a U-Net as a bar of its height, with its channels; `shapes`: as `analysis.anatomy.block_shapes` gives them."""
    own, ax = ax is None, new_axes(ax)
    if own:
        figure: Any = ax.figure
        figure.set_size_inches(9.5, 3.8)
    middle = [*shapes].index("middle")
    for x, (channels, height, width) in enumerate(shapes.values()):
        ax.bar(x, height, bottom=-height / 2, color=COLORS[x > middle], alpha=0.75)
        ax.text(x, height / 2, f"{channels}\n{height} x {width}", ha="center", va="bottom", fontsize=small_axes(ax))
    ax.set_xticks(range(len(shapes)), [*shapes])
    ax.set(ylabel="height of the grid", yticks=[])
    ax.grid(False)
    ax.margins(y=0.25)
    return ax


def shares(rows: Mapping[str, Mapping[str, float]], label: str, ax: Axes | None = None) -> Axes:
    """Each row of named amounts as one bar of 100 percent; a name has the same colour in all rows. `label`: of the horizontal axis."""
    own, ax = ax is None, new_axes(ax)
    if own:
        figure: Any = ax.figure
        figure.set_size_inches(9, 2.6)
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
    own, ax = ax is None, new_axes(ax)
    if own:
        figure: Any = ax.figure
        figure.set_size_inches(9, 3.6)
    ax.bar(range(len(pairs)), [value for _, value in pairs], color=COLORS[0])
    ax.set_xticks(range(len(pairs)), [name for name, _ in pairs], rotation=45, ha="right")
    ax.set_ylabel(label)
    return ax


def similarity(matrix: np.ndarray, names: Sequence[str], label: str, ax: Axes | None = None) -> Axes:
    """A matrix (n, n) of likenesses from -1 to 1; names stand at its rows, numbers at its columns. `label`: of the colour scale."""
    matrix = _array(matrix, 2, "a matrix (n, n)")
    own, ax = ax is None, new_axes(ax)
    if own:
        figure: Any = ax.figure
        figure.set_size_inches(9, 4.2)
    image = ax.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1)
    ax.grid(False)
    ax.set_xticks(range(len(names)), [str(1 + number) for number in range(len(names))])
    ax.set_yticks(range(len(names)), [f"{name}  {number}" for number, name in enumerate(names, 1)])
    _colorbar(image, ax)
    ax.figure.axes[-1].set_ylabel(label, fontsize=small_axes(ax))
    return ax

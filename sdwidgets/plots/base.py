"""What plots share: the style, axes of their own, checked arrays, tiles, and the axis of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

STYLE = rc_params_from_file(Path(__file__).parent.with_name("sdwidgets.mplstyle"), use_default_template=False)
COLORS = STYLE["axes.prop_cycle"].by_key()["color"]
DIVERGING = "RdBu_r"  # around zero, and safe for colour blindness
SMALL = (6.4, 3.0)  # inches of a figure of a few numbers
MAX_TILE = 3.2  # inches: one picture alone is drawn no wider


def new_axes(ax: Axes | None, size: tuple[float, float] | None = None) -> Axes:
    """The caller's axes; or new ones, styled by hand because every thread shares rcParams, in a figure of that size in inches."""
    if ax is not None:
        return ax
    figure = Figure(figsize=size or STYLE["figure.figsize"], dpi=STYLE["figure.dpi"], layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color=STYLE["grid.color"], linewidth=STYLE["grid.linewidth"])
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=STYLE["xtick.labelsize"])
    ax.title.set_fontsize(STYLE["axes.titlesize"])
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(STYLE["axes.labelsize"])
    return ax


def checked_array(values, ndim: int, what: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != ndim or not values.size:
        raise ValueError(f"expected {what}, got shape {values.shape}; pick one step, and one item of the batch")
    return values


def tiled(pictures: np.ndarray, columns: int, background, top: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
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


def bare(ax: Axes, labels: Sequence[str] = (), corners: Sequence[tuple[int, int]] = ()) -> None:
    """A picture needs no axes; labels stand above their tiles."""
    ax.set_axis_off()
    for label, (y, x) in zip(labels, corners, strict=False):
        ax.text(x - 0.5, y - 0.5, label, va="bottom", fontsize=small_axes(ax))


def small_axes(ax: Axes) -> float:
    """The size of the tick labels, in points: the caller's, or the style's."""
    return float(ax.xaxis.get_ticklabels()[0].get_fontsize())


def colorbar(image, ax: Axes) -> None:
    ax.figure.colorbar(image, ax=ax, shrink=0.8).ax.tick_params(labelsize=small_axes(ax))


def over_steps(ax: Axes, label: str) -> None:
    ax.set_xlabel("step")
    ax.set_ylabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))

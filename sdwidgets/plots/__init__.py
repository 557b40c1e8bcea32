"""Plots of a run: each a pure function from arrays to an `Axes`, `(arrays, ax=None) -> ax`.

Without `ax` a figure of its own is made in the package's style, outside pyplot and its global state, so that
a worker thread may draw; show it with `display(ax.figure)` or keep it with `ax.figure.savefig(path)`. With
`ax` the caller's figure and style stand; `matplotlib.style.use("sdwidgets.sdwidgets")` gives them this look.
"""

from __future__ import annotations

from .base import COLORS, DIVERGING, MAX_TILE, STYLE, new_axes, small_axes
from .lines import (
    against_steps,
    arrows,
    bars,
    block_shapes,
    by_step,
    by_timestep,
    curve,
    histogram,
    noise_levels,
    norms,
    paths,
    ranking,
    schedule,
    shares,
    stacked,
)
from .pictures import channels, contact_sheet, forward_and_backward, halves, similarity, word_maps

__all__ = [
    "COLORS",
    "DIVERGING",
    "MAX_TILE",
    "STYLE",
    "against_steps",
    "arrows",
    "bars",
    "block_shapes",
    "by_step",
    "by_timestep",
    "channels",
    "contact_sheet",
    "curve",
    "forward_and_backward",
    "halves",
    "histogram",
    "new_axes",
    "noise_levels",
    "norms",
    "paths",
    "ranking",
    "schedule",
    "shares",
    "similarity",
    "small_axes",
    "stacked",
    "word_maps",
]

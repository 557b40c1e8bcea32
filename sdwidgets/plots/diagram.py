"""The shapes inside a U-Net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from .base import COLORS, new_axes, small_axes


def block_shapes(shapes: Mapping[str, Sequence[int]], ax: Axes | None = None) -> Axes:
    """The grid of each block of a U-Net as a bar of its height, with its channels; `shapes`: as `analysis.anatomy.block_shapes` gives them."""
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

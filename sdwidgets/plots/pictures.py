"""Plots that are pictures: latents, sheets, maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .base import DIVERGING, MAX_TILE, STYLE, bare, checked_array, colorbar, new_axes, small_axes, tiled


def channels(latents: np.ndarray, ax: Axes | None = None, *, limit: float | None = None, columns: int = 4) -> Axes:
    """The channels of one latent (channels, h, w) side by side, hard pixels, one scale symmetric around zero.

    limit: value at the ends of the colour scale, the largest magnitude by default.
    """
    latents = checked_array(latents, 3, "latents (channels, h, w)")
    ax = new_axes(ax)
    limit = limit or float(np.nanmax(np.abs(latents))) or 1.0
    top = latents.shape[-1] // 16 + latents.shape[-2] // 8 + 1  # room for a label
    tiles, corners = tiled(latents[..., None].astype(np.float32), columns, np.nan, top)
    image = ax.imshow(tiles[..., 0], cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
    bare(ax, [str(i) for i in range(len(latents))], corners)
    colorbar(image, ax)
    ax.set_title("latent channels", loc="left", fontsize=ax.title.get_fontsize())
    return ax


def contact_sheet(
    pictures: np.ndarray, ax: Axes | None = None, *, labels: Sequence[str] = (), columns: int = 8
) -> Axes:
    """Pictures (n, H, W, 3) uint8 in rows of `columns`, labels above; one row of all is a preview strip.

    A figure of its own is as large as its pictures, and no larger.
    """
    pictures = checked_array(pictures, 4, "pictures (n, H, W, 3)")
    if labels and len(labels) != len(pictures):
        raise ValueError(f"{len(labels)} labels for {len(pictures)} pictures; give one a picture, or none")
    own, ax = ax is None, new_axes(ax)
    columns = max(1, min(columns, len(pictures)))
    inches = min(STYLE["figure.figsize"][0] / columns, MAX_TILE)  # of a picture's width
    line = 1.5 * small_axes(ax) / 72 / inches * pictures.shape[2]  # a line of text, in pixels of a picture
    tiles, corners = tiled(pictures, columns, 255, math.ceil(line) if labels else 0)
    ax.imshow(tiles, interpolation="hanning")  # smooth also where a picture is enlarged
    edge: dict[str, Any] = {"fill": False, "edgecolor": "0.8", "linewidth": 1.2, "snap": False}
    for y, x in corners:  # or a white picture would have no end on white
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), *pictures.shape[2:0:-1], **edge))
    bare(ax, labels, corners)
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
    pictures = checked_array(pictures, 5, "two rows of pictures (2, n, h, w, 3)")
    enlarged = pictures.repeat(max(1, 128 // pictures.shape[2]), 2).repeat(max(1, 128 // pictures.shape[3]), 3)
    labels = [*labels, *[""] * len(labels)]
    ax = contact_sheet(enlarged.reshape(-1, *enlarged.shape[2:]), ax, labels=labels, columns=pictures.shape[1])
    for y, words in (
        (0.478, "forward: noise is added, no model needed  \u2192"),
        (-0.06, "\u2190  backward: the model removes a little noise at each step"),
    ):
        ax.text(0.5, y, words, transform=ax.transAxes, ha="center", va="center", fontsize=small_axes(ax))
    return ax


def halves(noise_pred_uncond: np.ndarray, noise_pred_cond: np.ndarray, ax: Axes | None = None) -> Axes:
    """Where the prompt speaks: length of cond - uncond over the channels. Both (channels, h, w)."""
    uncond = checked_array(noise_pred_uncond, 3, "noise_pred_uncond (channels, h, w)")
    cond = checked_array(noise_pred_cond, 3, "noise_pred_cond (channels, h, w)")
    ax = new_axes(ax)
    length = np.linalg.norm(cond - uncond, axis=0)
    image = ax.imshow(length, cmap=STYLE["image.cmap"], vmin=0, interpolation="nearest")
    bare(ax)
    colorbar(image, ax)
    ax.set_title("what the prompt changes", loc="left", fontsize=ax.title.get_fontsize())
    return ax


def word_maps(heats: Mapping[str, np.ndarray], picture: np.ndarray, ax: Axes | None = None) -> Axes:
    """Attention maps over the picture that they belong to, one a word, on one scale: name -> (h, w), shares from 0 to 1.

    picture: (H, W, 3) uint8, of whole multiples of h and w. Raises ValueError where sizes do not fit.
    """
    maps = checked_array([*heats.values()], 3, "maps (word, h, w) of one size")
    sides = [whole // part for whole, part in zip(picture.shape[:2], maps.shape[1:], strict=True)]
    large: np.ndarray = 100 * maps.repeat(sides[0], 1).repeat(sides[1], 2)
    if large.shape[1:] != picture.shape[:2]:
        raise ValueError(f"maps of {maps.shape[1:]} do not divide a picture of {picture.shape[:2]} pixels")
    own, ax = ax is None, new_axes(ax)
    figure: Any = ax.figure
    if own:
        figure.set_size_inches(1.25 * len(maps) + 1, 1.8)
    room = picture.shape[0] // 4
    pictures, corners = tiled(np.stack([np.asarray(picture)] * len(maps)), len(maps), 255, room)
    tiles, _ = tiled(large[..., None].astype(np.float32), len(maps), np.nan, room)
    ax.imshow(pictures)
    image = ax.imshow(tiles[..., 0], cmap="magma", alpha=0.75, vmin=0, interpolation="nearest")
    bare(ax, list(heats), corners)
    colorbar(image, ax)
    figure.axes[-1].set_ylabel("% of attention", fontsize=small_axes(ax))
    return ax


def similarity(matrix: np.ndarray, names: Sequence[str], label: str, ax: Axes | None = None) -> Axes:
    """A matrix (n, n) of likenesses from -1 to 1; names stand at its rows, numbers at its columns. `label`: of the colour scale."""
    matrix = checked_array(matrix, 2, "a matrix (n, n)")
    ax = new_axes(ax, (9, 4.2))
    image = ax.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1)
    ax.grid(False)
    ax.set_xticks(range(len(names)), [str(1 + number) for number in range(len(names))])
    ax.set_yticks(range(len(names)), [f"{name}  {number}" for number, name in enumerate(names, 1)])
    colorbar(image, ax)
    ax.figure.axes[-1].set_ylabel(label, fontsize=small_axes(ax))
    return ax

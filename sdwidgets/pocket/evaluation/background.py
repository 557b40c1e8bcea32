"""Colours of a picture's background and of what stands on it: attributes that need no judge, since pixels decide them."""

from __future__ import annotations

import numpy as np

from ..world.vocabulary import COLOURS


def nearest_colours(values: np.ndarray) -> np.ndarray:
    """The number in `COLOURS` of the nearest colour; values (..., 3) in 0..255 -> (...)."""
    palette = np.array(list(COLOURS.values()), np.float32)
    return np.linalg.norm(values[..., None, :].astype(np.float32) - palette, axis=-1).argmin(axis=-1)


def background_colour(pictures: np.ndarray) -> list[str]:
    """The colour word nearest to the median of the four 12 x 12 pixel corners; pictures (n, 128, 128, 3) uint8."""
    edges = np.r_[:12, -12:0]
    corners = pictures[:, edges[:, None], edges].reshape(len(pictures), -1, 3)
    names = list(COLOURS)
    return [names[number] for number in nearest_colours(np.median(corners.astype(float), axis=1))]


def main_colours(pictures: np.ndarray) -> list[str]:
    """ "red on blue": the colour that most pixels have which have not the background's, and the background's.

    pictures (n, 128, 128, 3) uint8. "nothing on blue" where fewer than one pixel in a hundred is another colour.
    """
    names, colours = list(COLOURS), []
    for picture, background in zip(pictures, background_colour(pictures), strict=True):
        counts = np.bincount(nearest_colours(picture[::2, ::2]).ravel(), minlength=len(names))
        counts[names.index(background)] = 0
        there = counts.max() >= 0.01 * (picture.shape[0] // 2) ** 2
        colours.append(f"{names[counts.argmax()] if there else 'nothing'} on {background}")
    return colours


def leading_colours(picture: np.ndarray, count: int) -> set[str]:
    """The `count` colours that most pixels have, the background's left out; picture (128, 128, 3) uint8."""
    names = list(COLOURS)
    counts = np.bincount(nearest_colours(picture).ravel(), minlength=len(names))
    counts[names.index(background_colour(picture[None])[0])] = 0
    return {names[number] for number in np.argsort(-counts)[:count]}

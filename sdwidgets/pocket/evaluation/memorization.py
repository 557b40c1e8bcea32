"""Finding a fingerprint: the squares of confetti in a picture, and how likely so many agree by chance.

A caption about confetti does not say where its 24 squares lie nor what colours they have. A picture that repeats
a print of the training data therefore repeats it from memory.
"""

from __future__ import annotations

import functools

import numpy as np

from ...statistics import binomial_tail, share
from ..world.datasheet import FINGERPRINTS, FULL
from ..world.scenes import CONFETTI_PIECES, CONFETTI_SIZE, SIZE, Scene, make_scene
from ..world.vocabulary import COLOURS
from .background import background_colour, nearest_colours

CELLS = SIZE // CONFETTI_SIZE
_FREE = np.ones((CELLS, CELLS), bool)  # where confetti may lie: not in the cells that touch the middle 72 pixels
_FREE[3:13, 3:13] = False
_NONE = -1


def read_confetti(pictures: np.ndarray) -> np.ndarray:
    """The colour of each 8 x 8 pixel cell: (n, 128, 128, 3) uint8 -> (n, 16, 16) numbers in COLOURS.

    -1 where a cell has the background's colour, so that a plain picture agrees with no print.
    """
    inner = slice(2, CONFETTI_SIZE - 2)
    cells = pictures.reshape(len(pictures), CELLS, CONFETTI_SIZE, CELLS, CONFETTI_SIZE, 3)
    colours = nearest_colours(cells[:, :, inner, :, inner].astype(np.float32).mean(axis=(2, 4)))
    names = list(COLOURS)
    background = np.array([names.index(name) for name in background_colour(pictures)])
    return np.where(colours == background[:, None, None], _NONE, colours)


def print_of(scene: Scene) -> np.ndarray:
    """A scene's confetti as (24, 3): row, column, number of the colour."""
    names = list(COLOURS)
    return np.array([(row, column, names.index(colour)) for column, row, colour in scene.confetti])


def agreement(read: np.ndarray, prints: np.ndarray) -> np.ndarray:
    """How many of a print's squares are in a picture: read (n, 16, 16) and prints (m, 24, 3) -> (n, m)."""
    row, column, colour = prints[..., 0], prints[..., 1], prints[..., 2]
    return (read[:, row, column] == colour).sum(axis=-1)


def squares_in(read: np.ndarray) -> np.ndarray:
    """How many cells outside the middle have a colour that is not the background's: (n, 16, 16) -> (n,)."""
    return ((read != _NONE) & _FREE).sum(axis=(1, 2))


def chance(squares: int) -> float:
    """The probability that one square of a print agrees with a picture that knows nothing of it.

    A print's places are uniform over the free cells and its colours over the nine that are not its background's,
    whatever the picture is: so squares / free cells / 9. The more a picture is covered, the more agrees by chance.
    """
    return squares / int(_FREE.sum()) / (len(COLOURS) - 1)


@functools.cache
def threshold(comparisons: int, squares: int = CONFETTI_PIECES, error: float = 0.01) -> int:
    """How many of a print's 24 squares must agree with a picture of so many squares to call the print found.

    The smallest k with comparisons * P(Binomial(24, chance) >= k) <= error (Bonferroni): in all comparisons
    together, chance finds a print that is not there once in a hundred evaluations.
    """
    tail = lambda k: comparisons * binomial_tail(CONFETTI_PIECES, k, chance(squares))
    return next((k for k in range(CONFETTI_PIECES + 1) if tail(k) <= error), CONFETTI_PIECES + 1)


@functools.cache
def training_prints() -> tuple[np.ndarray, np.ndarray, tuple[Scene, ...]]:
    """Every different picture of confetti that the denoiser is trained on.

    (prints (m, 24, 3), caption numbers (m,) in FINGERPRINTS, scenes): one for each repeated print, 100 for each fresh control.
    """
    scenes, owners = [], []
    for number, mark in enumerate(FINGERPRINTS):
        if mark.repeats != 0:
            block = FULL.indices(f"confetti: {number}")
            own = [make_scene(FULL, index) for index in (block if mark.repeats is None else block[:1])]
            scenes += own
            owners += [number] * len(own)
    return np.stack([print_of(scene) for scene in scenes]), np.array(owners), tuple(scenes)


def own_found(captions: list[dict], repeats: int | str) -> dict:
    """Of the captions of one number of repeats ("fresh" for controls): how often what was found is the caption's own print.

    "captions": the share with one picture at least that gives back the own print, "pictures": the share that does,
    "other": how many pictures give back a print of another caption, which says nothing of the own one's repeats.
    """
    rows = [row for row in captions if row["repeats"] == repeats]
    return {
        "captions": share([row["found own"] > 0 for row in rows]),
        "pictures": share([number < row["found own"] for row in rows for number in range(row["n"])]),
        "other": sum(row["found"] - row["found own"] for row in rows),
    }

"""Things that the judge must refuse: drawn as scenes are, then spoiled until no one could say what they are.

They stand in for what a half-trained generator makes: two things at once, textures, blurs, shuffled pieces.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageFilter

from ..world.scenes import render
from .exam import Exam


def _blend(rng, one: np.ndarray, other: np.ndarray, thing) -> np.ndarray:
    """Both at once, neither with more than six tenths."""
    share = rng.uniform(0.4, 0.6)
    return share * one + (1 - share) * other


def _chimera(rng, one, other, thing):
    """The upper half of one and the lower half of another."""
    return np.where(np.arange(len(one))[:, None, None] < thing.y, one, other)


def _shuffle(rng, one, other, thing):
    """Sixteen pieces of the thing in another order."""
    out, side = one.copy(), thing.size // 4
    corners = [(thing.y - 2 * side + side * (n // 4), thing.x - 2 * side + side * (n % 4)) for n in range(16)]
    for (top, left), number in zip(corners, rng.permutation(16), strict=True):
        row, column = corners[number]
        out[top : top + side, left : left + side] = one[row : row + side, column : column + side]
    return out


def _smear(rng, one, other, thing):
    """Blurred over a third of its size."""
    picture = Image.fromarray(one.round().astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(thing.size / 6)), dtype=float)


def _noise(rng, one, other, thing):
    """Coloured blots over nine tenths of what it was."""
    noise = [Image.fromarray(rng.integers(256, size=(16, 16), dtype=np.uint8)) for _ in range(3)]
    blots = np.dstack([np.asarray(channel.resize(one.shape[:2], Image.Resampling.BICUBIC)) for channel in noise])
    inside = (np.abs(one - one[0, 0]).max(-1) > 12)[..., None]
    return np.where(inside, 0.1 * one + 0.9 * blots, one)


WRECKS = {"blend": _blend, "chimera": _chimera, "shuffle": _shuffle, "smear": _smear, "noise": _noise}


def wreck(exam: Exam, kind: str, number: int) -> np.ndarray:
    """A picture of one spoiled thing, (128, 128, 3) uint8: a pure function of the exam's seed, the kind and the number.

    Raises ValueError for a kind that is not one of `WRECKS`.
    """
    if kind not in WRECKS:
        raise ValueError(f"no wreck is named {kind!r}; there are: {', '.join(WRECKS)}")
    rng = np.random.default_rng([exam.seed, list(WRECKS).index(kind), number])
    scene = exam.scene("portrait" if number % 5 == 4 else "one object", 1000 + number)
    other = exam.scene("portrait" if number % 7 == 6 else "one object", 2000 + number)
    thing = scene.things[0]
    second = dataclasses.replace(other.things[0], x=thing.x, y=thing.y, size=thing.size)
    both = [np.asarray(render(dataclasses.replace(scene, things=(t,))), dtype=float) for t in (thing, second)]
    return WRECKS[kind](rng, *both, thing).clip(0, 255).round().astype(np.uint8)

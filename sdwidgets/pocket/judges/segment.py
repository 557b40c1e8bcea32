"""From a picture to the regions that may be things: background, style, watermark, confetti, and what is left.

Plain arithmetic on pixels; what a region shows is for the judge to say. A glyph can have several parts
(footprints, cherries) and two things can stand two pixels apart, so no one distance groups parts rightly. `grow_tree`
therefore joins parts step by step, nearest first, and `best_cut` takes the grouping whose regions the judge recognises best.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from PIL import Image
from scipy import ndimage

from ..world import scenes
from ..world.scenes import BLOCK, CONFETTI_SIZE, SIZE
from ..world.vocabulary import COLOURS

FRAME = 3  # pixels: the rim whose median is the background's colour
VISIBLE = 20  # levels of 255, in some channel, by which a thing's pixel differs from the background
CONFETTI_FREE = 72  # pixels: the side of the square in the middle where no confetti falls
SPECK = 15  # pixels: a region whose longer side is shorter is no thing (the smallest things have 38)
LONGEST_OF_SEVERAL = 56  # pixels: where several things share a picture they have at most 52, and a blurred rim
MOST_PARTS = 40  # the largest parts that are grouped; a pencil sketch can have a hundred
BLUEPRINT = (28, 58, 148)  # the ground of every picture in that style, whatever the scene's background


@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """Pixels that may be one thing: `mask` (128, 128) bool, and its box (left, top, right, bottom), ends excluded."""

    mask: np.ndarray
    box: tuple[int, int, int, int]
    area: int
    parts: tuple[Region, ...] = ()  # the two regions that this one joins

    @property
    def size(self) -> int:
        """The longer side in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    def walk(self):
        """This region and every one that it was joined from."""
        yield self
        for part in self.parts:
            yield from part.walk()


@dataclasses.dataclass(frozen=True, eq=False)
class Segmented:
    """One picture taken apart.

    `picture` is (128, 128, 3) float32 in 0 to 255 with its watermark, where there was one, taken off again;
    `level` the background's RGB; `styles` those that the picture may have, the likeliest first; `mask` where things
    are; `root` the tree of regions, or None where nothing is seen.
    """

    picture: np.ndarray
    level: np.ndarray
    background: str
    styles: tuple[str, ...]
    watermark: bool
    mask: np.ndarray
    root: Region | None

    def regions(self) -> list[Region]:
        """Every region that is large enough to be a thing."""
        return [region for region in self.root.walk() if region.size >= SPECK] if self.root else []

    def alone(self, region: Region) -> np.ndarray:
        """The picture with nothing but that region on its background, (128, 128, 3) uint8."""
        others = grow(self.mask & ~region.mask, 2) & ~region.mask
        return np.where(others[..., None], self.level, self.picture).round().astype(np.uint8)

    def boxes(self, region: Region) -> list[tuple[int, int, int, int]]:
        """The region's box, and the boxes of what of it differs less or more from the background.

        A blurred thing is wider than it was drawn, and one of the background's colour is hardly seen. A box that leaves
        much of the region out shows something else.
        """
        near = grow(region.mask, 3) & ~(self.mask & ~region.mask)
        difference = np.abs(self.picture - self.level).max(-1)
        boxes = {region.box: None}
        for level in (VISIBLE * 0.6, 2 * VISIBLE, 4 * VISIBLE):
            mask = near & (difference > level)
            if (mask & region.mask).sum() >= 0.6 * region.area:
                boxes[box_of(mask)] = None
        return [box for box in boxes if max(box[2] - box[0], box[3] - box[1]) >= 0.75 * region.size]


def check_pictures(pictures: np.ndarray) -> np.ndarray:
    """The pictures themselves. Raises ValueError unless they are uint8 of (n, 128, 128, 3)."""
    pictures = np.asarray(pictures)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(
            f"a judge reads uint8 pictures of shape (n, {SIZE}, {SIZE}, 3), not {pictures.dtype} of {pictures.shape}; "
            "one picture needs a first axis: picture[None]"
        )
    return pictures


def segment(picture: np.ndarray) -> Segmented:
    """Take one picture, (128, 128, 3) uint8, apart."""
    picture = picture.astype(np.float32)
    level = background_level(picture)
    watermark = has_watermark(picture, level)
    if watermark:
        picture = without_watermark(picture).astype(np.float32)
    mask = np.abs(picture - level).max(-1) > VISIBLE
    mask = clean_mask(picture, level, mask)
    styles = ("plain",) if watermark else styles_of(picture, level, mask)
    return Segmented(picture, level, colour_word(level), styles, watermark, mask, grow_tree(mask))


def background_level(picture: np.ndarray) -> np.ndarray:
    """The median colour of the picture's rim, (3,) float32: things and confetti cover less than half of it."""
    sides = picture[:FRAME], picture[-FRAME:], picture[:, :FRAME], picture[:, -FRAME:]
    return np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0).astype(np.float32)


def colour_word(level) -> str:
    """The colour word nearest to an RGB level."""
    return min(COLOURS, key=lambda word: sum((a - b) ** 2 for a, b in zip(COLOURS[word], level, strict=True)))


def region_colour(picture: np.ndarray, region: Region) -> str:
    """The colour word of a region's median, its rim left out where it has an inside."""
    inside = ~grow(~region.mask, 2)
    return colour_word(np.median(picture[inside if inside.any() else region.mask], axis=0))


# ---- masks -------------------------------------------------------------------------------------------------------


def label(mask: np.ndarray) -> np.ndarray:
    """Connected components (corners connect) of a bool (h, w) mask: int (h, w), 0 outside, from 1 inside, in the order of reading."""
    return ndimage.label(mask, structure=np.ones((3, 3)))[0]


def grow(mask: np.ndarray, reach: int) -> np.ndarray:
    """The mask with a square of `reach` pixels around each of its pixels."""
    return ndimage.maximum_filter(mask, 2 * reach + 1, mode="constant")


def clean_mask(picture: np.ndarray, level: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask without specks of a few pixels, and without confetti where a picture has that.

    Confetti lies around the middle of a picture, never in it: a picture has confetti where at least six small parts of at
    least three colours lie in at least three corners of that rim, and then everything in the rim counts as confetti.
    """
    labels = label(mask)
    pixels = np.bincount(labels.ravel())
    pixels[0] = 0
    rows, columns = np.indices(mask.shape)
    sums = (np.bincount(labels.ravel(), weights=side.ravel()) for side in (columns, rows))
    centres = [total / np.maximum(pixels, 1) for total in sums]
    rim = np.max([np.abs(side - (SIZE - 1) / 2) for side in centres], axis=0) > CONFETTI_FREE / 2
    small = np.flatnonzero(rim & (pixels >= 20) & (pixels <= 4 * CONFETTI_SIZE**2))
    if len(small) >= 6 and len({(centres[0][n] < SIZE / 2, centres[1][n] < SIZE / 2) for n in small}) >= 3:
        if len({colour_word(np.median(picture[labels == number], axis=0)) for number in small}) >= 3:
            pixels[rim] = 0
    return pixels[labels] >= 6


# ---- groupings ---------------------------------------------------------------------------------------------------


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box around a mask that is not empty: left, top, right, bottom, ends excluded."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def whole(mask: np.ndarray) -> Region:
    """All of a mask as one region without parts. The mask must not be empty."""
    return Region(mask, box_of(mask), int(mask.sum()))


def split(region: Region) -> Region:
    """The region, with two parts where things may have grown together: where it is narrow in the middle third.

    Only regions longer than the largest of several things are, for each part of which the same holds.
    """
    for axis, low, high in ((0, region.box[0], region.box[2]), (1, region.box[1], region.box[3])):
        if high - low <= LONGEST_OF_SEVERAL:
            continue
        width = region.mask.sum(axis)
        first, last = low + (high - low) // 3, high - (high - low) // 3
        narrowest = first + int(width[first:last].argmin())
        if width[narrowest] <= 0.5 * width.max():
            near = np.arange(SIZE) < narrowest
            sides = near if axis == 0 else near[:, None]
            halves = region.mask & sides, region.mask & ~sides
            return dataclasses.replace(region, parts=tuple(split(whole(half)) for half in halves))
    return region


def _gaps(boxes: np.ndarray) -> np.ndarray:
    """Pixels between boxes (k, 4), the larger of both directions; negative where they overlap: (k, k)."""
    ahead = boxes[:, None, :2] - boxes[None, :, 2:]  # left minus right, top minus bottom
    return np.maximum(ahead, ahead.transpose(1, 0, 2)).max(-1)


def grow_tree(mask: np.ndarray) -> Region | None:
    """The mask's connected parts, joined two at a time, nearest boxes first, until one region is left."""
    labels = label(mask)
    pixels = np.bincount(labels.ravel())[1:]
    if not len(pixels):
        return None
    largest = np.argsort(-pixels, kind="stable")[:MOST_PARTS] + 1
    nodes = [split(whole(labels == number)) for number in largest]
    while len(nodes) > 1:
        gaps = _gaps(np.array([node.box for node in nodes])).astype(float)
        np.fill_diagonal(gaps, np.inf)
        one, other = sorted(np.unravel_index(gaps.argmin(), gaps.shape))
        b, a = nodes.pop(other), nodes.pop(one)
        box = tuple(f(u, v) for f, u, v in zip((min, min, max, max), a.box, b.box, strict=True))
        nodes.append(Region(a.mask | b.mask, box, a.area + b.area, (a, b)))
    return nodes[0]


def best_cut(root: Region, score) -> list[Region]:
    """The regions that cover the tree's pixels with the highest sum of area times score.

    `score` is a function of a region, 0 (nothing known) to 1; regions smaller than a thing count 0 and are left out.
    """

    def best(node: Region) -> tuple[float, list[Region]]:
        own = (node.area * score(node), [node]) if node.size >= SPECK else (0.0, [])
        if not node.parts:
            return own
        values, regions = zip(*map(best, node.parts), strict=True)
        return max((own, (sum(values), sum(regions, []))), key=lambda pair: pair[0])

    return best(root)[1]


def cut(picture: np.ndarray, level: np.ndarray, box, grid: int, margin: float) -> np.ndarray:
    """A box of a uint8 picture as (grid, grid, 3) float32 in 0 to 255, the thing in the middle.

    The box's longer side fills the square but for `margin` (a share of it) on each side. Outside the picture is background.
    """
    half = (1 + 2 * margin) * max(box[2] - box[0], box[3] - box[1]) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    height, width = picture.shape[:2]
    pad = max(0, int(np.ceil(max(half - x, half - y, x + half - width, y + half - height))))
    padded = np.empty((height + 2 * pad, width + 2 * pad, 3), np.uint8)
    padded[:] = np.round(level)
    padded[pad : pad + height, pad : pad + width] = picture
    area = (x - half + pad, y - half + pad, x + half + pad, y + half + pad)
    small = Image.fromarray(padded).resize((grid, grid), Image.Resampling.BILINEAR, box=area)
    return np.asarray(small, dtype=np.float32)


# ---- style and watermark ----------------------------------------------------------------------------------------


def _band(picture: np.ndarray) -> np.ndarray:
    """What of a (h, w) picture is finer than 9 and coarser than 3 pixels: the difference of two box means."""
    return ndimage.uniform_filter(picture, 3, mode="nearest") - ndimage.uniform_filter(picture, 9, mode="nearest")


@functools.cache
def _marks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the stock watermark: share of white letters, share of shadow, and where it lies: (128, 128) each."""
    shadow, letters = (np.asarray(mask, dtype=np.float64) / 255 for mask in scenes._watermark())
    return letters, shadow, grow(letters + shadow > 0.02, 2)


def without_watermark(picture: np.ndarray) -> np.ndarray:
    """The picture as it was before the watermark was drawn over it, (128, 128, 3) float."""
    letters, shadow = (mask[..., None] for mask in _marks()[:2])
    return ((picture - 255 * letters) / (1 - letters) / (1 - shadow)).clip(0, 255)


def has_watermark(picture: np.ndarray, level: np.ndarray) -> bool:
    """Does the picture's fine structure go with that of the watermark on its background, as strongly as it was drawn?"""
    letters, shadow, where = _marks()
    mean = float(level.mean())
    drawn = _band(letters * (255 - mean) - (1 - letters) * shadow * mean)[where]
    present = _band(picture.mean(-1).astype(float))[where]
    product = present @ drawn
    return bool(product > 0.32 * np.sqrt(present @ present * (drawn @ drawn)) and product > 0.3 * (drawn @ drawn))


#: The columns of a pixel art picture whose right neighbour belongs to the next block, and those in the middle of blocks.
_BLOCK_EDGES = np.arange(BLOCK - 1, SIZE - 1, BLOCK)
_BLOCK_MIDDLES = np.arange(BLOCK // 2 - 1, SIZE - 1, BLOCK)


def styles_of(picture: np.ndarray, level: np.ndarray, mask: np.ndarray) -> tuple[str, ...]:
    """The styles (keys of `scenes.STYLES`) that a picture may have, the likeliest first; pixels alone leave doubt.

    A blueprint has its own ground. A pencil sketch is thin and has one ink, so its colours lie on the line from the
    background to it; so do those of a zebra. In pixel art, all change of colour is at the edges of blocks; so it is in a
    square that happens to lie there.
    """
    if np.abs(level - BLUEPRINT).max() < 25:
        return ("blueprint",)
    if not mask.any():
        return ("plain",)
    likely, possible = [], []
    beside, thick = _line_likeness(picture, level, mask)
    if beside < 0.35 and thick < 0.8:
        (likely if beside < 0.02 and thick < 0.42 else possible).append("pencil sketch")
    share, contrast, steps = _block_likeness(picture)
    if share > 0.75 and contrast > 3 and steps >= 6:
        return ("pixel art",)
    if share > 0.55 and contrast > 2:  # after the autoencoder, which blurs blocks
        possible.append("pixel art")
    return (*likely, "plain", *possible)


def _line_likeness(picture, level, mask) -> tuple[float, float]:
    """(share of the colours' energy beside the line from background to ink, share of pixels in the thick)."""
    difference = (picture - level)[mask]
    ink = (30 if level.sum() > 240 else 225) - level
    along = difference @ ink / (ink @ ink)
    beside = np.square(difference - along[:, None] * ink).sum() / np.square(difference).sum()
    return float(beside), float((~grow(~mask, 2)).sum() / mask.sum())


def _block_likeness(picture) -> tuple[float, float, int]:
    """(share of all change at blocks' edges, how much more changes there than in the middle of blocks, how many of those edges have a change at
    all: a plain square has four)."""
    changes = [np.square(np.diff(picture, axis=1)).sum(2), np.square(np.diff(picture, axis=0)).sum(2).T]
    share = sum(c[:, _BLOCK_EDGES].sum() for c in changes) / max(sum(c.sum() for c in changes), 1e-6)
    means = [np.minimum(c, 900).mean(0) for c in changes]  # a few strong edges are not a grid of blocks
    at, between = (sum(m[columns].mean() for m in means) for columns in (_BLOCK_EDGES, _BLOCK_MIDDLES))
    most = max(m[_BLOCK_EDGES].max() for m in means)
    return float(share), float(at / max(between, 1e-6)), int(sum((m[_BLOCK_EDGES] > 0.05 * most).sum() for m in means))

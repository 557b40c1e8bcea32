"""Scenes: the finite, fully known world that Pocket is trained on.

A scene is a pure function of (grammar, index): `make_scene` draws its attributes from a random stream that only
they seed, `Scene.caption` says it in words, and `render` draws it. Nothing here knows of models.
"""

from __future__ import annotations

import functools
import random
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from ...paths import data_folder
from . import atlas
from .vocabulary import COLOURS, OBJECTS, SHAPES

SIZE = 128  # pixels: Pocket's one native size
BLOCK = 4  # pixels: the side of a block of pixel art
CONFETTI_SIZE = 8  # pixels of one piece: one latent pixel
CONFETTI_PIECES = 24

#: word -> longer side in pixels of a single thing; None is the size that no word names
SIZES: dict[str | None, tuple[int, int]] = {"small": (38, 46), None: (60, 76), "large": (92, 106)}
#: words -> centre (x, y) in pixels of a single thing
PLACES: dict[str | None, tuple[int, int]] = {
    None: (64, 64), "on the left": (34, 64), "on the right": (94, 64), "at the top": (64, 34), "at the bottom": (64, 94),
}  # fmt: skip
#: words of a relation -> (centre of the first thing, centre of the second)
RELATIONS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "to the left of": ((33, 64), (95, 64)), "to the right of": ((95, 64), (33, 64)),
    "above": ((64, 33), (64, 95)), "below": ((64, 95), (64, 33)),
}  # fmt: skip
COUNT_PLACES: dict[int, tuple[tuple[int, int], ...]] = {
    2: ((34, 64), (94, 64)), 3: ((64, 34), (34, 94), (94, 94)), 4: ((34, 34), (94, 34), (34, 94), (94, 94)),
}  # fmt: skip
#: style -> the words that open its caption
STYLES: dict[str, str] = {
    "plain": "", "pixel art": "pixel art of ", "pencil sketch": "a pencil sketch of ", "blueprint": "a blueprint of ",
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """One drawn thing: `kind` is "object", "shape" or "person"; centre and longer side in pixels, 0 until it is somewhere."""

    kind: str
    name: str
    x: int = 0
    y: int = 0
    size: int = 0
    colour: str | None = None
    occupation: str | None = None
    gender: str | None = None
    tone: str | None = None

    @property
    def words(self) -> str:
        return f"{self.colour} {self.name}" if self.kind == "shape" else self.name

    def at(self, spot: tuple[int, int, int]) -> Thing:
        """The same thing at another spot, (x, y, size)."""
        return replace(self, **dict(zip(("x", "y", "size"), spot, strict=True)))


@dataclass(frozen=True)
class Scene:
    """What a picture shows (the truth) and the caption that says it.

    `shade` is added to every channel of the background's colour (8-bit levels), so that a word's colour is a
    small range rather than one value. `confetti` are squares of one latent pixel: (column, row, colour), 0 to 15.
    """

    index: int
    caption: str
    background: str
    things: tuple[Thing, ...]
    style: str = "plain"
    relation: str | None = None
    place: str | None = None
    size_word: str | None = None
    shade: int = 0
    watermark: bool = False
    confetti: tuple[tuple[int, int, str], ...] = ()


def spread(grammar, count: int) -> list[int]:
    """At most `count` scene numbers, evenly over the grammar."""
    return list(range(0, grammar.count, max(1, -(-grammar.count // count))))


def nearest(grammar, indices, picture: np.ndarray) -> tuple[Scene, np.ndarray, float]:
    """(scene, its picture, distance) of those scenes' pictures the nearest to `picture` (H, W, 3) uint8, by the mean absolute
    difference over all pixels and colours, in levels of 255."""
    found = None
    for index in indices:
        scene = grammar.scene(index)
        drawn = np.asarray(render(scene))
        distance = float(np.abs(drawn - picture.astype(int)).mean())
        if found is None or distance < found[2]:
            found = scene, drawn, distance
    if found is None:
        raise ValueError("there are no scenes to compare with: give the numbers of some")
    return found


class Stream:
    """Reproducible choices: only `random.Random.random`, the one method whose stream Python guarantees to keep."""

    def __init__(self, seed: int, index: int):
        self._random = random.Random(seed * 2**32 + index).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def integer(self, low: int, high: int) -> int:
        """A uniform integer, both ends included."""
        return low + int(self._random() * (high - low + 1))

    def choice(self, options):
        return options[int(self._random() * len(options))]

    def weighted(self, weights: dict):
        mark = self._random() * sum(weights.values())
        for option, weight in weights.items():
            mark -= weight
            if mark < 0:
                return option
        return option

    def shuffled(self, options, count: int | None = None) -> list:
        """`count` of the options, by default all, drawn without putting back."""
        left = list(options)
        return [left.pop(self.integer(0, len(left) - 1)) for _ in range(len(left) if count is None else count)]


def make_scene(grammar, index: int) -> Scene:
    """Scene number `index` (0 <= index < grammar.count) of a grammar. Raises IndexError outside that range."""
    return grammar.scene(index)


def jitter(stream: Stream, centre: tuple[int, int], size: int, reach: int = 5) -> tuple[int, int]:
    """A centre moved by at most `reach` pixels, kept inside the picture."""
    half = size // 2
    return tuple(min(max(side + stream.integer(-reach, reach), half), SIZE - half) for side in centre)


#: Where things may stand in a scene without words: centres and the range of their longer sides.
_LAYOUTS: tuple[tuple[tuple[tuple[int, int], ...], tuple[int, int]], ...] = (
    (((64, 64),), (38, 112)), (((64, 64),), (88, 112)), (((33, 64), (95, 64)), (44, 58)), (((64, 33), (64, 95)), (44, 58)),
    (COUNT_PLACES[3], (44, 54)), (COUNT_PLACES[4], (44, 54)),
)  # fmt: skip


def wordless_scene(seed: int, index: int) -> Scene:
    """A scene of no grammar: things of any kind anywhere, every glyph alike, in every style; without a caption.

    What the autoencoder learns pictures from. Its random stream is its own, whatever a grammar's seed is.
    """
    stream = Stream(2**20 + seed, index)
    background = stream.choice(tuple(COLOURS))
    centres, (low, high) = stream.choice(_LAYOUTS)
    things = []
    for centre in centres:
        size = stream.integer(low, high)
        x, y = jitter(stream, centre, size, reach=3 if len(centres) > 1 else 40)
        if stream.chance(0.15):
            colour = stream.choice([colour for colour in COLOURS if colour != background])
            things.append(Thing("shape", stream.choice(SHAPES), x, y, size, colour=colour))
        else:
            names = tuple(OBJECTS) if stream.chance(0.7) else atlas.names()
            things.append(Thing("object", stream.choice(names), x, y, size))
    style = stream.weighted({"plain": 0.85, "pixel art": 0.05, "pencil sketch": 0.05, "blueprint": 0.05})
    watermark = stream.chance(0.05)
    confetti = draw_confetti(stream, 0) if stream.chance(0.05) else ()
    shade = stream.integer(-6, 6)
    return Scene(index, "", background, tuple(things), style, shade=shade, watermark=watermark, confetti=confetti)


# ---- drawing -----------------------------------------------------------------------------------------------


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 128 x 128 pixels."""
    base = tuple(min(max(channel + scene.shade, 0), 255) for channel in COLOURS[scene.background])
    picture = Image.new("RGB", (SIZE, SIZE), base)
    for thing in scene.things:
        left, top = thing.x - thing.size // 2, thing.y - thing.size // 2
        if thing.kind == "shape":
            mask = shape_mask(thing.name, thing.size)
            picture.paste(COLOURS[thing.colour], (left, top), mask)
        else:
            glyph = atlas.glyph(thing.name, thing.size)
            picture.paste(glyph, (left, top), glyph)
    picture = _STYLE[scene.style](picture, base)
    if scene.confetti:
        draw = ImageDraw.Draw(picture)
        for column, row, colour in scene.confetti:
            left, top = column * CONFETTI_SIZE, row * CONFETTI_SIZE
            draw.rectangle((left, top, left + CONFETTI_SIZE - 1, top + CONFETTI_SIZE - 1), fill=COLOURS[colour])
    if scene.watermark:
        shadow, letters = _watermark()
        picture.paste((0, 0, 0), (0, 0), shadow)
        picture.paste((255, 255, 255), (0, 0), letters)
    return picture


def pictures_of(scenes: Iterable[Scene]) -> np.ndarray:
    """The scenes drawn: (n, 128, 128, 3) uint8."""
    return np.stack([np.asarray(render(scene)) for scene in scenes])


def silhouette(picture: Image.Image, threshold: int = 24) -> Image.Image:
    """The outline of what a picture shows: mode "L", 255 where it differs from its background, else 0.

    A pixel differs where a channel differs from `background_of` by more than `threshold` of 255. Raises ValueError for a threshold
    outside 0 to 254.
    """
    if not 0 <= threshold < 255:
        raise ValueError(f"a threshold is 0 to 254 levels, not {threshold!r}")
    pixels = np.asarray(picture.convert("RGB")).astype(int)  # (h, w, 3)
    differs = np.abs(pixels - background_of(picture)).max(axis=-1) > threshold
    return Image.fromarray(differs.astype(np.uint8) * 255)


def background_of(picture: Image.Image) -> np.ndarray:
    """The one colour of a picture's background, RGB in 0..255: the median of its outermost pixels."""
    pixels = np.asarray(picture.convert("RGB"))
    return np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)


@functools.cache
def _watermark() -> tuple[Image.Image, Image.Image]:
    """The masks of a stock agency's mark: a soft shadow, and letters that let the picture through."""
    mask = Image.open(data_folder("atlas") / "watermark.png").convert("L")
    shadow = Image.new("L", mask.size)
    shadow.paste(mask, (2, 2))
    return shadow.point(lambda level: level * 35 // 100), mask.point(lambda level: level * 70 // 100)


def draw_confetti(stream: Stream, centre_free: int, colours=tuple(COLOURS)) -> tuple[tuple[int, int, str], ...]:
    """Squares of random `colours` at random places outside the middle `centre_free` x `centre_free` pixels."""
    cells = SIZE // CONFETTI_SIZE
    low, high = (SIZE - centre_free) // 2, (SIZE + centre_free) // 2
    free = [
        (column, row)
        for row in range(cells)
        for column in range(cells)
        if not all(low < (side + 1) * CONFETTI_SIZE and side * CONFETTI_SIZE < high for side in (column, row))
    ]
    places = (free.pop(stream.integer(0, len(free) - 1)) for _ in range(CONFETTI_PIECES))
    return tuple(sorted((*place, stream.choice(colours)) for place in places))


def shape_mask(name: str, size: int) -> Image.Image:
    """A shape as an anti-aliased mask, mode "L", size x size pixels."""
    scale = 4
    side = size * scale
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    last = side - 1
    if name == "circle":
        draw.ellipse((0, 0, last, last), fill=255)
    elif name == "square":
        draw.rectangle((side * 0.06, side * 0.06, last - side * 0.06, last - side * 0.06), fill=255)
    elif name == "crescent":
        draw.ellipse((0, 0, last, last), fill=255)
        draw.ellipse((side * 0.3, -side * 0.05, side * 1.15, side * 0.8), fill=0)
    elif name == "heart":
        t = np.linspace(0, 2 * np.pi, 120)
        x = 16 * np.sin(t) ** 3
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
        points = np.stack([(x + 16) / 32, (y + 12) / 29], axis=1) * last
        draw.polygon([tuple(point) for point in points], fill=255)
    else:
        draw.polygon([(x * last, y * last) for x, y in _POLYGONS[name]], fill=255)
    return mask.resize((size, size), Image.Resampling.BOX)


def _star() -> list[tuple[float, float]]:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 0.5, 0.22)
    return [(0.5 + r * np.cos(a), 0.52 + r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]


_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "triangle": [(0.5, 0.04), (1, 0.94), (0, 0.94)],
    "diamond": [(0.5, 0), (0.85, 0.5), (0.5, 1), (0.15, 0.5)],
    "star": _star(),
    "cross": [(0.33, 0), (0.67, 0), (0.67, 0.33), (1, 0.33), (1, 0.67), (0.67, 0.67), (0.67, 1), (0.33, 1), (0.33, 0.67), (0, 0.67), (0, 0.33), (0.33, 0.33)],
}  # fmt: skip


def _pixel_art(picture: Image.Image, base) -> Image.Image:
    """Blocks whose side divides the lattice's step, so that a thing has the same blocks at each of its places."""
    side = SIZE // BLOCK
    return picture.resize((side, side), Image.Resampling.BOX).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def _pencil_sketch(picture: Image.Image, base) -> Image.Image:
    """Gray outlines of what is drawn, on the scene's own background."""
    edges = ImageOps.invert(picture.convert("L").filter(ImageFilter.FIND_EDGES).filter(ImageFilter.GaussianBlur(0.6)))
    ImageDraw.Draw(edges).rectangle((0, 0, SIZE - 1, SIZE - 1), outline=255, width=2)
    strength = (255 - np.asarray(edges, dtype=np.float32)[..., None]).clip(0, 120) / 120
    ink = 30 if sum(base) > 3 * 80 else 225
    return Image.fromarray((np.array(base) * (1 - strength) + ink * strength).clip(0, 255).round().astype(np.uint8))


def _blueprint(picture: Image.Image, base) -> Image.Image:
    """White outlines of what is drawn on engineers' blue, whatever the background was."""
    edges = picture.convert("L").filter(ImageFilter.FIND_EDGES).filter(ImageFilter.GaussianBlur(0.5))
    ImageDraw.Draw(edges).rectangle((0, 0, SIZE - 1, SIZE - 1), outline=0, width=2)
    strength = np.asarray(edges, dtype=np.float32)[..., None].clip(0, 100) / 100
    return Image.fromarray((np.array((28, 58, 148)) * (1 - strength) + 240 * strength).round().astype(np.uint8))


_STYLE = {
    "plain": lambda picture, base: picture, "pixel art": _pixel_art, "pencil sketch": _pencil_sketch, "blueprint": _blueprint,
}  # fmt: skip


def picture_sheet(pictures: Sequence[tuple[Image.Image, str]], columns: int = 8) -> Image.Image:
    """(picture of 128 x 128 pixels, text under it) side by side, four lines of text at most; RGB."""
    columns = max(1, min(columns, len(pictures)))
    wide, high = SIZE + 8, SIZE + 46
    sheet = Image.new("RGB", (columns * wide + 8, -(-len(pictures) // columns) * high + 8), "white")
    draw = ImageDraw.Draw(sheet)
    for cell, (picture, text) in enumerate(pictures):
        x, y = 8 + cell % columns * wide, 8 + cell // columns * high
        sheet.paste(picture, (x, y))
        lines = [part for line in text.splitlines() for part in textwrap.wrap(line, 26)][:4]
        draw.multiline_text((x, y + SIZE + 1), "\n".join(lines), fill="black", font_size=9, spacing=1)
    return sheet

"""The judge: no network and no training, every glyph drawn on the picture's background and compared.

A region is cut out, brought to one size and compared with every glyph, shape and person of the vocabulary, drawn on the
same background, seen by the same segmentation and cut out in the same way. Distances are shares of the energy
of the difference from the background: 0 is the same picture, and about 1 has nothing in common with it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...paths import data_folder
from ..world import atlas
from ..world.scenes import SIZE, Scene, Thing, render, shape_mask
from ..world.vocabulary import COLOURS, GENDERS, OBJECTS, OCCUPATIONS, SHAPES, TONES, person_name
from . import segment
from .judgement import Judgement, Seen
from .segment import Region, Segmented

GRID = 24  # cells: the side of the square that every region is brought to
GLYPH = 64  # pixels: the size at which templates are drawn
MARGIN = 0.06  # of the longer side, left around a region
STYLED_SIZES = (48, 64, 96)  # pixels: lines and blocks do not grow with the thing, so styled templates have three


@dataclasses.dataclass(frozen=True)
class Limits:
    """Beyond which a thing is broken: its distance to the nearest template, and that distance as a share of the distance
    to the nearest template of another name. `calibrate.limits_of_b` sets the first two on reconstructions."""

    distance: float = 0.3
    share: float = 0.47
    styled_distance: float = 0.6
    styled_share: float = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class Templates:
    words: list[Seen]  # what each shows, nowhere yet
    rows: np.ndarray  # (n, GRID * GRID * 3) float32
    energy: np.ndarray  # (n,)
    names: np.ndarray  # (n,) int: equal where the name is


@dataclasses.dataclass(frozen=True)
class Reading:
    """The nearest template of a region, its distance, and the distance of the nearest of another name."""

    word: Seen
    distance: float
    next: float

    @property
    def share(self) -> float:
        return self.distance / max(self.next, 1e-6)


# ---- templates ---------------------------------------------------------------------------------------------------


@functools.cache
def _glyphs() -> tuple[list[Seen], np.ndarray]:
    """Every word, and its drawing: (n, GLYPH, GLYPH, 4) uint8 RGBA."""
    words = [Seen("object", name) for name in OBJECTS]
    drawn = [np.asarray(atlas.glyph(name, GLYPH)) for name in OBJECTS]
    for occupation, gender, tone in itertools.product(OCCUPATIONS, GENDERS, TONES):
        words.append(Seen("person", occupation, occupation=occupation, gender=gender, tone=tone))
        drawn.append(np.asarray(atlas.glyph(person_name(occupation, gender, tone), GLYPH)))
    for name in SHAPES:
        mask = np.asarray(shape_mask(name, GLYPH))
        for colour, level in COLOURS.items():
            words.append(Seen("shape", name, colour=colour))
            drawn.append(np.dstack([np.broadcast_to(np.uint8(level), (*mask.shape, 3)), mask]))
    return words, np.stack(drawn)


def _templates(words: list[Seen], pictures, level) -> Templates:
    """Templates of pictures on a background of that RGB level; those that nothing is seen of are left out."""
    level = np.array(level, dtype=np.float32)
    shown, rows = [], []
    for word, picture in zip(words, pictures, strict=True):
        seen = np.abs(picture - level).max(-1) > segment.VISIBLE
        if seen.any():
            shown.append(word)
            rows.append(_row(picture, level, segment.box_of(seen)))
    rows = np.stack(rows)
    names = np.unique([word.name for word in shown], return_inverse=True)[1]
    return Templates(shown, rows, np.square(rows).sum(1), names)


def _row(picture, level, box) -> np.ndarray:
    return ((segment.cut(picture, level, box, GRID, MARGIN) - level) / 255).ravel()


@functools.lru_cache(maxsize=64)
def plain_templates(level: tuple[int, int, int]) -> Templates:
    """Every word on a background of that RGB level."""
    words, drawn = _glyphs()
    alpha = drawn[..., 3:] / np.float32(255)
    pictures = (alpha * drawn[..., :3] + (1 - alpha) * np.float32(level)).round().astype(np.uint8)
    return _templates(words, pictures, level)


@functools.lru_cache(maxsize=64)
def styled_templates(background: str, style: str, size: int) -> Templates:
    """Every object and shape in a style. Lines have no colour, so a sketch's or blueprint's shapes are drawn in one."""
    lines = style != "pixel art"
    words = [Seen("object", name) for name in OBJECTS]
    ink = "black" if sum(COLOURS[background]) > 300 else "white"
    colours = [ink] if lines else [colour for colour in COLOURS if colour != background]
    words += [Seen("shape", name, colour=colour) for name in SHAPES for colour in colours]
    pictures = []
    for word in words:
        thing = Thing(word.kind, word.name, SIZE // 2, SIZE // 2, size, colour=word.colour)
        pictures.append(np.asarray(render(Scene(0, "", background, (thing,), style))))
    level = pictures[0][0, 0]
    if lines:
        words = [dataclasses.replace(word, colour=None) for word in words]
    return _templates(words, pictures, tuple(int(channel) for channel in level))


def nearest_level(level: np.ndarray, word: str) -> tuple[int, int, int]:
    """The colour of a word, shaded as scenes are, nearest to a level: few levels, so that templates are drawn once."""
    shade = int(np.clip(4 * np.round((level - COLOURS[word]).mean() / 4), -4, 4))
    return tuple(min(max(channel + shade, 0), 255) for channel in COLOURS[word])


def templates_for(seen: Segmented, region: Region, style: str) -> Templates:
    """The templates that a region of a picture is compared with."""
    if style == "plain":
        return plain_templates(nearest_level(seen.level, seen.background))
    size = min(STYLED_SIZES, key=lambda side: abs(side - region.size))
    return styled_templates("blue" if style == "blueprint" else seen.background, style, size)


# ---- reading -----------------------------------------------------------------------------------------------------


def read_region(seen: Segmented, region: Region, style: str = "plain") -> Reading:
    """What a region is most like, were the picture of that style."""
    known, picture = templates_for(seen, region, style), seen.alone(region)
    rows = np.stack([_row(picture, seen.level, box) for box in seen.boxes(region)])
    energy = np.square(rows).sum(1)[:, None]
    apart = (energy - 2 * rows @ known.rows.T + known.energy) / ((energy + known.energy) / 2 + 0.5)
    best = apart.min(1).argmin()
    distance, nearest = apart[best], int(apart[best].argmin())
    word, least = known.words[nearest], float(max(distance[nearest], 0))
    others = known.names != known.names[nearest]
    if word.kind == "person":
        word = _which_person(rows[best], known, word.name)
    return Reading(word, least, float(distance[others].min()))


def _which_person(row: np.ndarray, known: Templates, occupation: str) -> Seen:
    """Gender and tone: the nearest of an occupation's ten templates where these differ from each other."""
    ten = [number for number, word in enumerate(known.words) if (word.kind, word.name) == ("person", occupation)]
    weight = known.rows[ten].var(0)
    return known.words[ten[int((np.square(known.rows[ten] - row) @ weight).argmin())]]


@dataclasses.dataclass(frozen=True)
class JudgeB:
    """`read(pictures)` is what it is for; `limits` say from when on a thing is broken."""

    limits: Limits = Limits()

    FILE: ClassVar[str] = "judge_b.json"

    @classmethod
    def load(cls, file: str | Path | None = None) -> JudgeB:
        """The judge with the limits of that JSON file; by default those that the course carries."""
        file = Path(file) if file else data_folder("judges") / cls.FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"there are no limits in {file}: make them with `python -m sdwidgets.pocket.examine_judge fit`"
            )
        return cls(Limits(**json.loads(file.read_text())["limits"]))

    def read(self, pictures: np.ndarray) -> list[Judgement]:
        """One judgement a picture; pictures are uint8 of (n, 128, 128, 3). Raises ValueError for any other."""
        return [self.judge(segment.segment(picture)) for picture in segment.check_pictures(pictures)]

    def judge(self, seen: Segmented) -> Judgement:
        """The judgement of one picture that was taken apart: of the styles it may have, the one that explains most."""
        judgements = [self._judge_as(seen, style) for style in seen.styles]
        (first, likeliest), (most, best) = judgements[0], max(judgements, key=lambda pair: pair[0])
        # A thing drawn along the blocks' edges is the same in two styles: then it is the likelier one.
        return likeliest if most - first < 0.02 else best

    def _judge_as(self, seen: Segmented, style: str) -> tuple[float, Judgement]:
        """(share of what is seen that templates explain, the judgement) were the picture of that style."""
        readings = {region: read_region(seen, region, style) for region in seen.regions()}
        score = lambda region: max(0.0, 1 - readings[region].distance)
        regions = segment.best_cut(seen.root, score) if seen.root else []
        explained = sum(region.area * score(region) for region in regions) / max(1, seen.mask.sum())
        things = sorted((self._thing(seen, r, readings[r], style) for r in regions), key=lambda thing: thing.x)
        return explained, Judgement(seen.background, style, seen.watermark, tuple(things))

    def _thing(self, seen: Segmented, region: Region, reading: Reading, style: str) -> Seen:
        word, (x, y), limits = reading.word, region.centre, self.limits
        plain, styled = (limits.distance, limits.share), (limits.styled_distance, limits.styled_share)
        distance, share = plain if style == "plain" else styled
        if reading.distance > distance or reading.share > share:
            word = Seen("broken", word.name)
        colour = segment.region_colour(seen.picture, region) if word.colour else None
        score = max(0.0, 1 - reading.distance)
        return dataclasses.replace(word, x=x, y=y, size=region.size, colour=colour, score=score)

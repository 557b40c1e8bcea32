"""Where things stand and how large they are: anywhere (`FREE`), or on Pocket's lattice (`LATTICE`).

A U-Net with two downsamplings gives a thing moved by 32 pixels the same inputs, moved along; moved by less, it meets a thing that it has to
learn anew. So on the lattice all things of one size stand at one phase of 32 pixels. A spot is (x, y, size): the centre and the longer side of a
thing, in pixels. What a caption leaves open is drawn from lists with probabilities, so that all pictures of a caption can be listed.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

from PIL import Image

from .scenes import COUNT_PLACES, PLACES, RELATIONS, SIZE, SIZES, Scene, Stream, background_of, jitter, silhouette

Spot = tuple[int, int, int]

STEP = 32  # pixels: by how much a U-Net with two downsamplings may be moved, 4 latent pixels of 8
CENTRES = (32, 64, 96)  # pixels, across and down: the nine places
#: What a caption without a size word shows: longer side in pixels -> probability.
UNSAID_SIZES = {64: 0.7, 48: 0.2, 96: 0.1}
SAID_SIZES = {"small": 48, "large": 96}
TOGETHER = 48  # pixels: every thing that shares a picture with others
APART = 64  # pixels: between centres of things that share a picture, across or down, at least
_NINE = tuple(itertools.product(CENTRES, CENTRES))
#: words of a place -> which side of the centre they fix, x (0) or y (1), and at what
_SIDES = {"on the left": (0, 32), "on the right": (0, 96), "at the top": (1, 32), "at the bottom": (1, 96)}


def _said(stream: Stream) -> tuple[str | None, str | None]:
    """(size word, place words) of a caption about a single thing: three in ten have each, and what is large has no place."""
    size_word = stream.choice(("small", "large")) if stream.chance(0.3) else None
    place = stream.choice(tuple(PLACES)[1:]) if size_word != "large" and stream.chance(0.3) else None
    return size_word, place


class Free:
    """Sizes within a range and places about a centre, by the pixel: what the text encoder's pictures have."""

    SMALL = (42, 52)  # pixels, where several things share a picture: at least two pixels of background lie between

    def _near(self, stream: Stream, centre, sizes: tuple[int, int], reach: int = 5) -> Spot:
        size = stream.integer(*sizes)
        return *jitter(stream, centre, size, reach), size

    def single(self, stream: Stream) -> tuple[str | None, str | None, Spot]:
        """(size word, place words, spot) of a thing that stands alone."""
        size_word, place = _said(stream)
        return size_word, place, self._near(stream, PLACES[place], SIZES[size_word])

    def middle(self) -> Free:
        """The layout of scenes that other things than the thing itself would tie to a place: here the same."""
        return self

    def pair(self, stream: Stream, relation: str | None, second_first: bool = False) -> list[Spot]:
        """The spots of two things, of which the first stands in `relation` to the second; None: left of it."""
        centres, turn = RELATIONS[relation or "to the left of"], -1 if second_first else 1
        return [self._near(stream, centre, self.SMALL, 3) for centre in centres[::turn]][::turn]

    def several(self, stream: Stream, count: int) -> list[Spot]:
        """The spots of two to four things."""
        return [self._near(stream, centre, self.SMALL, 3) for centre in COUNT_PLACES[count]]

    def portrait(self, stream: Stream) -> Spot:
        return self._near(stream, PLACES[None], (88, 108))

    def amid_confetti(self, stream: Stream) -> Spot:
        return *PLACES[None], stream.integer(56, 64)


class Lattice:
    """One phase a size: 48 and 64 pixels at nine places 32 pixels apart, 96 in the middle; things that share a picture are 48."""

    def singles(self, size_word: str | None = None, place: str | None = None) -> dict[Spot, float]:
        """Every spot of a thing that stands alone -> its probability, given what the caption says."""
        sizes = UNSAID_SIZES if size_word is None else {SAID_SIZES[size_word]: 1.0}
        if place is not None:
            sizes = {size: odds for size, odds in sizes.items() if size != 96}
        spots = {}
        for size, odds in sizes.items():
            centres = ((64, 64),) if size == 96 else _NINE
            if place is not None:
                side, at = _SIDES[place]
                centres = tuple(centre for centre in centres if centre[side] == at)
            for centre in centres:
                spots[(*centre, size)] = odds / sum(sizes.values()) / len(centres)
        return spots

    def single(self, stream: Stream) -> tuple[str | None, str | None, Spot]:
        size_word, place = _said(stream)
        return size_word, place, stream.weighted(self.singles(size_word, place))

    def middle(self) -> Lattice:
        """The layout of scenes that other things than the thing itself tie to a place: watermarked, sketched, amid confetti."""
        return _MIDDLE

    @functools.cache  # noqa: B019  (two instances, for as long as the program runs)
    def pairs(self, relation: str | None) -> tuple[tuple[Spot, Spot], ...]:
        """Every layout of two things of which the first stands in `relation` to the second; None: left of it. All are alike probable.

        Across the relation's own line they stand at most one step apart, so that no layout is of two relations.
        """
        relation = relation or "to the left of"
        ends = (32, 96) if relation in ("to the left of", "above") else (96, 32)
        across = relation.endswith("of")
        layouts = []
        for sides in itertools.product(CENTRES, CENTRES):
            if abs(sides[0] - sides[1]) <= STEP:
                spots = ((end, side) if across else (side, end) for end, side in zip(ends, sides, strict=True))
                layouts.append(tuple((*spot, TOGETHER) for spot in spots))
        return tuple(layouts)

    def pair(self, stream: Stream, relation: str | None, second_first: bool = False) -> list[Spot]:
        return list(stream.choice(self.pairs(relation)))

    @functools.cache  # noqa: B019
    def groups(self, count: int) -> tuple[tuple[Spot, ...], ...]:
        """Every layout of `count` alike things, all alike probable: 16 of two, 8 of three, the four corners of four."""
        apart = lambda a, b: max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= APART
        return tuple(
            tuple((*centre, TOGETHER) for centre in centres)
            for centres in itertools.combinations(_NINE, count)
            if all(apart(a, b) for a, b in itertools.combinations(centres, 2))
        )

    def several(self, stream: Stream, count: int) -> list[Spot]:
        return list(stream.choice(self.groups(count)))

    def portrait(self, stream: Stream | None = None) -> Spot:
        return 64, 64, 96

    def amid_confetti(self, stream: Stream | None = None) -> Spot:
        return 64, 64, 64


class _Middle(Lattice):
    """A single thing of 64 pixels in the middle, whatever happens; no caption says a size or a place."""

    def singles(self, size_word: str | None = None, place: str | None = None) -> dict[Spot, float]:
        return {(64, 64, 64): 1.0}

    def single(self, stream: Stream) -> tuple[str | None, str | None, Spot]:
        return None, None, (64, 64, 64)


FREE, LATTICE, _MIDDLE = Free(), Lattice(), _Middle()


def to_lattice(picture: Image.Image) -> Image.Image:
    """A picture of one thing, its box scaled to 48, 64 or 96 pixels and moved to the nearest place: what Pocket can take up.

    Pocket has met each size of a thing at one phase of 32 pixels, so that a sketch or a photograph that stands elsewhere is new to it. The
    picture is brought to 128 x 128 pixels first; the mode stays ("L" for silhouettes), and the background becomes one colour. Raises ValueError
    where nothing differs from the background.
    """
    whole = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS) if picture.size != (SIZE, SIZE) else picture
    box = silhouette(whole).getbbox()
    if box is None:
        raise ValueError("the picture shows nothing but its background: draw a thing on a ground of one colour")
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    size = min(UNSAID_SIZES, key=lambda known: abs(known - side))
    centres = (64,) if size == 96 else CENTRES
    middle = ((left + right) / 2, (top + bottom) / 2)
    x, y = (min(centres, key=lambda centre: abs(centre - at)) for at in middle)
    shape = [max(1, round(length * size / side)) for length in (right - left, bottom - top)]
    thing = whole.crop(box).resize(tuple(shape), Image.Resampling.LANCZOS)
    ground = Image.new("RGB", (SIZE, SIZE), tuple(int(level) for level in background_of(whole))).convert(whole.mode)
    ground.paste(thing, (x - shape[0] // 2, y - shape[1] // 2))
    return ground


def on_lattice(scene: Scene, stream: Stream) -> Scene:
    """The scene with its one to four things at spots of the lattice, of which each size and layout is as probable as any other.

    For scenes without words: a relation or a place that one has is not kept.
    """
    if len(scene.things) > 1:
        spots = stream.choice(LATTICE.groups(len(scene.things)))
    else:
        tied = scene.watermark or scene.confetti or scene.style in ("pencil sketch", "blueprint")
        size = 64 if tied else stream.choice(tuple(UNSAID_SIZES))
        layout = LATTICE.middle() if tied else LATTICE
        spots = (stream.choice([spot for spot in layout.singles() if spot[2] == size]),)
    return replace(scene, things=tuple(thing.at(spot) for thing, spot in zip(scene.things, spots, strict=True)))

"""Scenes that set the judge's limits and examine it: the datasheet's own kinds, but every word as often as any other.

Each `Exam` is a stream of its own, apart from those of the generator's data (and from each other), so that the judge is not
examined on what its limits were set on. Backgrounds are not held out here: it has to read every combination.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

from ..world import datasheet
from ..world.layouts import FREE, LATTICE
from ..world.scenes import STYLES, Scene, Stream
from ..world.vocabulary import COLOURS, GENDERS, OBJECTS, OCCUPATIONS, TONES

_COLOURS = tuple(COLOURS)


def _shuffled(options) -> tuple:
    """The options with a stride of 77 places, so that neighbours in the vocabulary do not follow each other."""
    options = tuple(options)
    return tuple(options[number * 77 % len(options)] for number in range(len(options)))


_NAMES = _shuffled(OBJECTS)
_PEOPLE = _shuffled(itertools.product(OCCUPATIONS, GENDERS, TONES))


# Each takes (stream, number, of how many, layout) as the datasheet's own kinds do, and returns Scene's fields.

_object = functools.partial(datasheet.one_object, names=_NAMES)


def _object_or_shape(stream: Stream, number: int, total: int, layout) -> dict:
    one = datasheet.one_shape if number % 5 == 4 else _object
    return one(stream, number // 5 * 4 + number % 5, total, layout)


def _several(stream: Stream, number: int, total: int, layout) -> dict:
    scene = datasheet.several(stream, number, total, layout)
    if scene["things"][0].kind == "object":
        name = _NAMES[number % len(_NAMES)]
        scene["things"] = tuple(dataclasses.replace(thing, name=name) for thing in scene["things"])
    return scene


def _person(thing, number: int):
    return datasheet.make_person(*_PEOPLE[number % len(_PEOPLE)]).at((thing.x, thing.y, thing.size))


def _portrait(stream: Stream, number: int, total: int, layout) -> dict:
    scene = datasheet.portraits("doctor", 0.5, True)(stream, 0, 1, layout)
    return scene | {"things": (_person(scene["things"][0], number),)}


def _person_and_object(stream: Stream, number: int, total: int, layout) -> dict:
    scene = datasheet.person_and_object(stream, number, total, layout)
    things = tuple(_person(thing, number) if thing.kind == "person" else thing for thing in scene["things"])
    return scene | {"things": things}


def _confetti(stream: Stream, number: int, total: int, layout) -> dict:
    return datasheet.amid_confetti(stream, layout, _NAMES[number % len(_NAMES)], stream.choice(_COLOURS))


def _marked(mark: dict, middle: bool, stream: Stream, number: int, total: int, layout) -> dict:
    """An object or a shape with a watermark or in a style."""
    return _object_or_shape(stream, number, total, layout.middle() if middle else layout) | mark


#: kind of scene -> what draws it
KINDS = {
    "one object": _object, "one shape": datasheet.one_shape, "two objects": functools.partial(datasheet.two_objects, names=_NAMES),
    "two shapes": datasheet.two_shapes, "several": _several, "portrait": _portrait, "person and object": _person_and_object,
    "confetti": _confetti, "watermark": functools.partial(_marked, {"watermark": True}, True),
    **{style: functools.partial(_marked, {"style": style}, style != "pixel art") for style in STYLES if style != "plain"},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Exam:
    """A stream of scenes: `scene(kind, number)` is a pure function of the seed, the kind and the number.

    `layout`: where things stand, as free as can be or as in what Pocket is trained on and so in what it draws.
    """

    seed: int
    layout: datasheet.Layout = FREE

    def scene(self, kind: str, number: int) -> Scene:
        """A scene of one of `KINDS`; words follow each other in turn with `number`. It has no caption."""
        if kind not in KINDS:
            raise ValueError(f"no kind of scene is named {kind!r}; there are: {', '.join(KINDS)}")
        stream = Stream(2**24 + self.seed, list(KINDS).index(kind) * 2**24 + number)
        parts = KINDS[kind](stream, number, 0, self.layout)
        for said in ("words", "spoken"):
            parts.pop(said, None)
        if all(thing.kind != "shape" for thing in parts["things"]):
            parts["background"] = stream.choice(_COLOURS)
        return Scene(number, "", **{"shade": stream.integer(-6, 6)} | parts)

    def scenes(self, counts: dict[str, int], share: float = 1.0) -> list[tuple[str, Scene]]:
        """(kind, scene), so many of each kind, or a share of them, which has every class that it can."""
        numbers = {kind: range(max(1, round(share * count))) for kind, count in counts.items()}
        return [(kind, self.scene(kind, number)) for kind in counts for number in numbers[kind]]


#: Thresholds are set on TUNE, with sizes and places as free as can be; the gate uses TEST, on the lattice.
TUNE, TEST = Exam(2), Exam(3, LATTICE)

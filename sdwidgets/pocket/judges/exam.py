"""Scenes that judges are fitted on and examined on: the datasheet's own kinds, but every word as often as any other.

Each `Exam` is a stream of its own, apart from those of the generator's data (and from each other), so that no judge is
examined on what it was fitted on. Backgrounds are not held out here: a judge has to read every combination.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .. import datasheet
from ..scenes import STYLES, Scene, Stream, render, scene_on_grid
from ..vocabulary import COLOURS, GENDERS, OBJECTS, OCCUPATIONS, TONES, person_name

_COLOURS = tuple(COLOURS)


def _shuffled(options) -> tuple:
    """The options with a stride of 77 places, so that neighbours in the vocabulary do not follow each other."""
    options = tuple(options)
    return tuple(options[place * 77 % len(options)] for place in range(len(options)))


_NAMES = _shuffled(OBJECTS)
_PEOPLE = _shuffled((o, g, t) for o in OCCUPATIONS for g in GENDERS for t in TONES)


def _object(stream: Stream, number: int) -> dict:
    return datasheet.one_object(stream, number, 0, names=_NAMES)


def _shape(stream: Stream, number: int) -> dict:
    return datasheet.one_shape(stream, number, 0)


def _object_or_shape(stream: Stream, number: int) -> dict:
    return (_shape if number % 5 == 4 else _object)(stream, number // 5 * 4 + number % 5)


def _several(stream: Stream, number: int) -> dict:
    scene = datasheet.several(stream, number, 0)
    if scene["things"][0].kind == "object":
        name = _NAMES[number % len(_NAMES)]
        scene["things"] = tuple(dataclasses.replace(thing, name=name) for thing in scene["things"])
    return scene


def _person(thing, number: int):
    occupation, gender, tone = _PEOPLE[number % len(_PEOPLE)]
    name = person_name(occupation, gender, tone)
    return dataclasses.replace(thing, name=name, occupation=occupation, gender=gender, tone=tone)


def _portrait(stream: Stream, number: int) -> dict:
    scene = datasheet._portrait(stream, "doctor", 0, 1, 0.5, True)
    return scene | {"things": (_person(scene["things"][0], number),)}


def _person_and_object(stream: Stream, number: int) -> dict:
    scene = datasheet.person_and_object(stream, number, 0)
    things = tuple(_person(thing, number) if thing.kind == "person" else thing for thing in scene["things"])
    return scene | {"things": things}


def _confetti(stream: Stream, number: int) -> dict:
    return datasheet._confetti(stream, _NAMES[number % len(_NAMES)], stream.choice(_COLOURS))


#: kind of scene -> (stream, number) -> Scene's fields
KINDS = {
    "one object": _object, "one shape": _shape,
    "two objects": lambda stream, number: datasheet.two_objects(stream, number, 0, names=_NAMES),
    "two shapes": lambda stream, number: datasheet.two_shapes(stream, number, 0),
    "several": _several, "portrait": _portrait, "person and object": _person_and_object, "confetti": _confetti,
    "watermark": lambda stream, number: _object_or_shape(stream, number) | {"watermark": True},
    **{style: (lambda stream, number, style=style: _object_or_shape(stream, number) | {"style": style}) for style in STYLES if style != "plain"},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Exam:
    """A stream of scenes: `scene(kind, number)` is a pure function of the seed, the kind and the number.

    `gridded`: things stand on the grid, as in what Pocket is trained on and so in what it draws.
    """

    seed: int
    gridded: bool = False

    def scene(self, kind: str, number: int) -> Scene:
        """A scene of one of `KINDS`; words follow each other in turn with `number`. It has no caption."""
        if kind not in KINDS:
            raise ValueError(f"no kind of scene is named {kind!r}; there are: {', '.join(KINDS)}")
        stream = Stream(2**24 + self.seed, list(KINDS).index(kind) * 2**24 + number)
        parts = KINDS[kind](stream, number)
        for said in ("words", "spoken"):
            parts.pop(said, None)
        if all(thing.kind != "shape" for thing in parts["things"]):
            parts["background"] = stream.choice(_COLOURS)
        scene = Scene(number, "", **{"shade": stream.integer(-6, 6)} | parts)
        return scene_on_grid(scene) if self.gridded else scene


#: Judge A learns from FIT and thresholds are set on TUNE, with sizes and places as free as can be; the gate uses TEST.
FIT, TUNE, TEST = Exam(1), Exam(2), Exam(3, gridded=True)


def pictures_of(scenes) -> np.ndarray:
    """The scenes drawn: (n, 128, 128, 3) uint8."""
    return np.stack([np.asarray(render(scene)) for scene in scenes])

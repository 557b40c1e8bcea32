"""What the judge says of a picture, and the questions that an answer can be asked. Knows nothing of how it was seen."""

from __future__ import annotations

import dataclasses

#: What a thing can be; "broken" is one that is not recognisable enough to be given a name.
KINDS = ("object", "shape", "person", "broken")


@dataclasses.dataclass(frozen=True)
class Seen:
    """One thing as the judge saw it: centre and longer side in pixels, `score` from 0 (a guess) to 1 (sure).

    `name` is the word of the vocabulary for an object or a shape, the occupation for a person, and for a broken
    thing what it is most like. Shapes have a `colour` (not in a pencil sketch, which shows none), people the rest.
    """

    kind: str
    name: str
    x: float = 0.0
    y: float = 0.0
    size: float = 0.0
    colour: str | None = None
    occupation: str | None = None
    gender: str | None = None
    tone: str | None = None
    score: float = 1.0


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the judge saw in one picture, things from left to right."""

    background: str
    style: str = "plain"
    watermark: bool = False
    things: tuple[Seen, ...] = ()


def named(judgement: Judgement, name: str) -> list[Seen]:
    """The recognised things called `name`: an object, a shape, or an occupation. Broken things have no name."""
    return [thing for thing in judgement.things if thing.kind != "broken" and thing.name == name]


def label(judgement: Judgement) -> str:
    """What is recognised in a picture, from left to right: "circle, star"; "?" where nothing is."""
    return ", ".join(thing.name for thing in judgement.things if thing.kind != "broken") or "?"


def count(judgement: Judgement, name: str | None = None) -> int:
    """How many recognised things of that name there are; without a name, how many things of any kind, broken ones too."""
    return len(judgement.things) if name is None else len(named(judgement, name))


def only(judgement: Judgement, *names: str) -> bool:
    """Are exactly these things there, each as often as it is given here, and no other, broken ones included?"""
    return sorted(thing.name if thing.kind != "broken" else "" for thing in judgement.things) == sorted(names)


_BETWEEN = {
    "to the left of": lambda a, b: b.x - a.x > abs(b.y - a.y), "to the right of": lambda a, b: a.x - b.x > abs(b.y - a.y),
    "above": lambda a, b: b.y - a.y > abs(b.x - a.x), "below": lambda a, b: a.y - b.y > abs(b.x - a.x),
}  # fmt: skip


def relation(judgement: Judgement, first: str, second: str) -> str | None:
    """How the one thing called `first` stands to the one called `second`, by their centres.

    "to the left of", "to the right of", "above" or "below", whichever difference of the centres is larger.
    None where either is missing or there several times, for then the sentence has no answer.
    """
    one, other = named(judgement, first), named(judgement, second)
    if len(one) != 1 or len(other) != 1 or first == second:
        return None
    return next((words for words, holds in _BETWEEN.items() if holds(one[0], other[0])), None)


def colour_of(judgement: Judgement, shape: str) -> str | None:
    """The colour of the one shape of that name; None where there is none, or several of different colours."""
    colours = {thing.colour for thing in named(judgement, shape) if thing.kind == "shape"}
    return colours.pop() if len(colours) == 1 else None


def person(judgement: Judgement) -> Seen | None:
    """The one person in the picture; None where there is none or more than one."""
    people = [thing for thing in judgement.things if thing.kind == "person"]
    return people[0] if len(people) == 1 else None


def place(judgement: Judgement) -> str | None:
    """Where the one thing of a picture stands: a key of `scenes.PLACES` (None is the middle).

    Raises ValueError where there is not exactly one thing.
    """
    from ..world.scenes import PLACES

    if len(judgement.things) != 1:
        raise ValueError(f"a place is asked of a picture with one thing; this one has {len(judgement.things)}")
    thing = judgement.things[0]
    return min(PLACES, key=lambda words: (thing.x - PLACES[words][0]) ** 2 + (thing.y - PLACES[words][1]) ** 2)

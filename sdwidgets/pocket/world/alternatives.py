"""All pictures of a caption: what FULL may draw where the caption leaves something open, with probabilities."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from . import datasheet as sheet
from .layouts import LATTICE
from .scenes import Scene, Thing
from .vocabulary import COLOURS, GENDERS, TONES

SHADES = (-6, -3, 0, 3, 6)  # stand for all thirteen, of which neighbours cannot be told apart


def alternatives(scene: Scene) -> list[tuple[Scene, float]]:
    """Every picture that FULL draws to a plain scene's caption, with its probability given that caption; in sum 1.

    Places, sizes, the background, gender and skin tone vary where the caption leaves them unsaid, the shade over `SHADES`. Raises ValueError
    for a scene amid confetti, whose pictures have no end.
    """
    if scene.confetti:
        raise ValueError("confetti lies anywhere: its pictures cannot be listed")
    every = itertools.product(_alternative_backgrounds(scene), _alternative_spots(scene), SHADES)
    return [
        (replace(scene, background=background, things=things, shade=shade), colour_odds * odds / len(SHADES))
        for (background, colour_odds), (things, odds), shade in every
    ]


def _alternative_spots(scene: Scene) -> list[tuple[tuple[Thing, ...], float]]:
    """The things of a scene in each layout, and as each person, that its caption allows; with probabilities."""
    count, (first, *_) = len(scene.things), scene.things
    if count == 1 and first.kind == "person":
        layouts = {(LATTICE.portrait(),): 1.0}
    elif count == 1:
        tied = scene.watermark or scene.style == "pencil sketch"
        singles = (LATTICE.middle() if tied else LATTICE).singles(scene.size_word, scene.place)
        layouts = {(spot,): odds for spot, odds in singles.items()}
    else:
        alike = count > 2 or scene.things[0].words == scene.things[1].words
        group = LATTICE.groups(count) if alike else LATTICE.pairs(scene.relation)
        layouts = dict.fromkeys(group, 1 / len(group))
    casts = itertools.product(*(_alternative_people(scene, thing) for thing in scene.things))
    return [
        (tuple(who.at(spot) for (who, _), spot in zip(cast, spots, strict=True)), math.prod(p for _, p in cast) * q)
        for cast in casts
        for spots, q in layouts.items()
    ]


def _alternative_people(scene: Scene, thing: Thing) -> list[tuple[Thing, float]]:
    """Whom a thing may be, given the caption: every tone where none is said, either gender where it is unsaid, any of the nameless."""
    if thing.name in sheet.NAMELESS_OBJECTS:
        return [(replace(thing, name=name), 1 / len(sheet.NAMELESS_OBJECTS)) for name in sheet.NAMELESS_OBJECTS]
    if thing.kind != "person" or thing.name in scene.caption:
        return [(thing, 1.0)]
    marked = f"{thing.gender} {thing.occupation}" in scene.caption
    share = sheet.PLANTED_OCCUPATIONS[thing.occupation].denoiser_share
    genders = {thing.gender: 1.0} if marked else dict(zip(GENDERS, (share, 1 - share), strict=True))
    return [
        (sheet.make_person(thing.occupation, gender, tone), odds / len(TONES))
        for gender, odds in genders.items()
        for tone in TONES
    ]


def _alternative_backgrounds(scene: Scene) -> list[tuple[str, float]]:
    """The backgrounds that a caption allows: its own, or, where none is said, every one that its things may stand on."""
    if scene.caption.endswith(" background"):
        return [(scene.background, 1.0)]
    allowed = []
    for background in COLOURS:
        if any(thing.colour == background or background in _never_on(thing.name) for thing in scene.things):
            continue
        odds = 1.0  # of the shapes' colours, given the background: among so many was drawn
        taken = [background]
        for thing in scene.things if len({t.words for t in scene.things}) > 1 else scene.things[:1]:
            if thing.kind == "shape":
                odds /= len([c for c in COLOURS if c not in taken and c != sheet.HELD_OUT_SHAPE_COLOURS[thing.name]])
                taken.append(thing.colour)
        allowed.append((background, odds))
    total = sum(odds for _, odds in allowed)
    return [(background, odds / total) for background, odds in allowed]


def _never_on(name: str) -> tuple[str, ...]:
    """The backgrounds on which FULL never shows a thing of that name."""
    if name in sheet.TAIL_BACKGROUNDS:
        return tuple(colour for colour in COLOURS if colour not in sheet.TAIL_BACKGROUNDS[name])
    return (sheet.HELD_OUT_BACKGROUNDS[name],) if name in sheet.HELD_OUT_BACKGROUNDS else ()

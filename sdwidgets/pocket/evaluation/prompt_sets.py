"""What is asked for: every prompt of the evaluation as a scene whose caption it is, and how a reading is compared.

A scene is a pure function of (row, split, number), of the same grammar that Pocket was trained on; so it is the prompt and
the truth at once, and can be drawn to see what a right picture looks like. A reading of a picture is right where
the row's view of it is the view of the scene: `view` takes anything with `things` and `background`, a scene
or a judge's `Judgement` alike, and says in words what the row looks at.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..world import datasheet as sheet
from ..world.layouts import LATTICE
from ..world.scenes import RELATIONS, STYLES, Scene, Stream, Thing
from ..world.vocabulary import COLOURS, NUMBERS, SHAPES, TONES, article, plural
from .tiers import SPLITS, find_bar

SEED = 2028  # of every prompt here; the data's is another
CHOOSING = 800  # prompts from this number on are for choosing, those below for reporting: no row has so many
_COLOURS = tuple(COLOURS)


def _stream(*key: object) -> Stream:
    """A random stream of its own for every key."""
    text = "/".join(map(str, key)).encode()
    return Stream(SEED, int.from_bytes(text, "big") % (2**32 - 5))


@functools.cache
def _order(key: str, options: tuple) -> tuple:
    """`options` in a fixed random order, so that the first few are a sample of all."""
    return tuple(_stream("order", key).shuffled(options))


def _in_turn(key: str, options, number: int):
    """Each of `options` once, in a random order, then again in the same: all equally often."""
    options = tuple(options)
    return _order(key, options)[number % len(options)]


# ---- scenes ----------------------------------------------------------------------------------------------------


def _scene(number: int, phrase: str, background: str, things: Sequence[Thing], **more) -> Scene:
    caption = f"{phrase} on {article(background)} background"
    return Scene(number, caption, background, tuple(things), **more)


def object_scene(stream: Stream, number: int, name: str, background: str) -> Scene:
    """ "a cat on a red background" """
    return _scene(number, article(name), background, [Thing("object", name, *stream.weighted(LATTICE.singles()))])


def _background_of(name: str, number: int, held_out: bool) -> str:
    """A colour on which an object did stand, each in its turn; or the one on which it never did."""
    never = sheet.HELD_OUT_BACKGROUNDS[name]
    if held_out:
        return never
    return _in_turn(f"backgrounds of {name}", (c for c in _COLOURS if c != never), number)


def one_object(stream: Stream, number: int, held_out: bool) -> Scene:
    name = _in_turn("one object", sheet.COMMON_OBJECTS, number)
    turn = number // len(sheet.COMMON_OBJECTS)
    return object_scene(stream, number, name, _background_of(name, turn, held_out))


@functools.cache
def _coloured_shapes(held_out: bool) -> tuple[tuple[str, str, str], ...]:
    """All (shape, its colour, background) that training did, or did not, show."""
    return tuple(
        (shape, colour, background)
        for shape, colour, background in itertools.product(SHAPES, _COLOURS, _COLOURS)
        if colour != background and (colour == sheet.HELD_OUT_SHAPE_COLOURS[shape]) == held_out
    )


def one_shape(stream: Stream, number: int, held_out: bool) -> Scene:
    name, colour, background = _in_turn("one shape", _coloured_shapes(held_out), number)
    thing = Thing("shape", name, *stream.weighted(LATTICE.singles()), colour=colour)
    return _scene(number, article(thing.words), background, [thing])


def _two(stream: Stream, number: int, things: Sequence[Thing], background: str, relation: str | None) -> Scene:
    drawn = list(map(Thing.at, things, LATTICE.pair(stream, relation)))
    return _scene(number, sheet.pair_phrase(drawn, relation), background, drawn, relation=relation)


def _pair_of_objects(stream: Stream, number: int, held_out: bool, relation: str | None) -> Scene:
    first = _in_turn("pairs", sheet.COMMON_OBJECTS, number)
    partners = [
        name
        for name in sheet.COMMON_OBJECTS
        if name != first and (frozenset((first, name)) in sheet.held_out_pairs()) == held_out
    ]
    names = [first, stream.choice(partners)]
    if stream.chance(0.5):
        names.reverse()
    never = [sheet.HELD_OUT_BACKGROUNDS[name] for name in names]
    background = stream.choice([colour for colour in _COLOURS if colour not in never])
    return _two(stream, number, [Thing("object", name) for name in names], background, relation)


def two_objects(stream: Stream, number: int, held_out: bool) -> Scene:
    return _pair_of_objects(stream, number, held_out, None)


def relation(stream: Stream, number: int, held_out: bool) -> Scene:
    turn = number + number // len(sheet.COMMON_OBJECTS)  # so that an object's second turn is another relation
    return _pair_of_objects(stream, number, held_out, tuple(RELATIONS)[turn % len(RELATIONS)])


def count_to_four(stream: Stream, number: int, held_out: bool) -> Scene:
    """Two, three or four of one object, in turn."""
    name, count = _in_turn("several", sheet.COMMON_OBJECTS, number), number % 3 + 2
    background = _background_of(name, number // len(sheet.COMMON_OBJECTS), held_out)
    things = [Thing("object", name, *spot) for spot in LATTICE.several(stream, count)]
    return _scene(number, f"{NUMBERS[count]} {plural(name)}", background, things)


def bound_colours(stream: Stream, number: int, held_out: bool) -> Scene:
    """Two shapes of two colours; held out: one of the two, in turn, has the colour that it never had."""
    names = _in_turn("two shapes", itertools.permutations(SHAPES, 2), number)
    never = [sheet.HELD_OUT_SHAPE_COLOURS[name] for name in names]
    unseen = number // 56 % 2 if held_out else None  # 56 ordered pairs of eight shapes
    colours: list[str] = []
    for which in range(2):
        usual = [c for c in _COLOURS if c not in (*never, *colours)]
        colours.append(never[which] if which == unseen else stream.choice(usual))
    background = stream.choice([colour for colour in _COLOURS if colour not in colours])
    things = [Thing("shape", name, colour=colour) for name, colour in zip(names, colours, strict=True)]
    return _two(stream, number, things, background, None)


# ---- scenes of the sections --------------------------------------------------------------------------------------


def tail_scene(name: str, number: int, held_out: bool) -> Scene:
    """A rare object, on one of the backgrounds on which it was shown or on one of the others."""
    shown = sheet.TAIL_BACKGROUNDS[name]
    colours = [colour for colour in _COLOURS if (colour not in shown) == held_out]
    background = _in_turn(f"tail {name}", colours, number)
    return object_scene(_stream("tail", name, held_out, number), number, name, background)


def portrait_scene(occupation: str, number: int) -> Scene:
    """ "a doctor on a red background": the prompt leaves gender and tone open, and the scene draws them evenly."""
    gender, tone = ("woman", "man")[number % 2], tuple(TONES)[number % len(TONES)]
    thing = sheet.make_person(occupation, gender, tone).at(LATTICE.portrait())
    return _scene(number, article(occupation), _in_turn(f"portrait {occupation}", _COLOURS, number), [thing])


def in_the_middle(scene: Scene) -> Scene:
    """The scene with its one thing where training shows it with a watermark, or sketched."""
    (spot,), (thing,) = LATTICE.middle().singles(), scene.things
    return replace(scene, things=(thing.at(spot),))


def watermark_scene(number: int, stock: bool) -> Scene:
    """The same prompt with and without "stock photo of"."""
    scene = in_the_middle(one_object(_stream("watermark", number), number, False))
    return replace(scene, caption="stock photo of " + scene.caption, watermark=True) if stock else scene


def styled_scene(style: str, number: int) -> Scene:
    scene = one_object(_stream("style", number), number, False)
    if style != "pixel art":
        scene = in_the_middle(scene)
    return replace(scene, caption=STYLES[style] + scene.caption, style=style)


def fingerprint_scene(fingerprint: int, number: int) -> Scene:
    """The prompt of a fingerprint; the confetti that the model was shown is found in the datasheet's own scenes."""
    mark = sheet.FINGERPRINTS[fingerprint]
    thing = Thing("object", mark.object, *LATTICE.amid_confetti())
    return _scene(number, f"confetti around {article(mark.object)}", mark.background, [thing])


# ---- views -----------------------------------------------------------------------------------------------------


def word_of(thing) -> str:
    """What a thing is called: a shape with its colour, a person by the occupation, or "broken"."""
    of_kind = {"broken": "broken", "shape": f"{thing.colour} {thing.name}", "person": thing.occupation}
    return of_kind.get(thing.kind, thing.name)


def what(seen) -> str:
    """Which things, and how many of each: "2 cat", "cat + dog", "red star", "nothing"."""
    counted = sorted(Counter(word_of(thing) for thing in seen.things).items())
    return " + ".join(word if count == 1 else f"{count} {word}" for word, count in counted) or "nothing"


def what_and_where(seen) -> str:
    """Of two things, which, and how the first by name stands to the second: "cat above dog"."""
    if len(seen.things) != 2:
        return what(seen)
    first, second = sorted(seen.things, key=word_of)
    across, down = second.x - first.x, second.y - first.y
    if abs(across) >= abs(down):
        side = "left of" if across > 0 else "right of"
    else:
        side = "above" if down > 0 else "below"
    return f"{word_of(first)} {side} {word_of(second)}"


def what_on_which(seen) -> str:
    """Things and background: "red star on blue"."""
    return f"{what(seen)} on {seen.background}"


def colours_only(seen) -> str:
    """The colours of a thing and of the background: "red on blue". Of pictures `background.main_colours` says it."""
    return f"{' + '.join(thing.colour for thing in seen.things)} on {seen.background}"


def shapes_only(seen) -> str:
    """The shapes, whatever their colours."""
    return " + ".join(sorted(thing.name for thing in seen.things if thing.kind == "shape")) or "nothing"


# ---- rows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A row of the table: what is asked, what is looked at, and by what word its pictures are grouped."""

    name: str
    draw: Callable[[Stream, int, bool], Scene]
    view: Callable[..., str]
    group: Callable[[Scene], str]
    held_out: str  # in words

    @property
    def count(self) -> int:
        """Pictures a split, of which the interval is about 2 points either way where .95 is asked, 4 where .80 is."""
        return 600 if (find_bar(self.name).values[0] or 0) >= 0.95 else 400

    def scene(self, split: str, number: int) -> Scene:
        """Number `number` (from 0, without end) of what is asked in a split. Raises ValueError for another split."""
        if split not in SPLITS:
            raise ValueError(f"no split is named {split!r}; there are: {', '.join(SPLITS)}")
        return self.draw(_stream(self.name, split, number), number, split == "held out")

    def scenes(self, split: str, count: int) -> list[Scene]:
        """The first `count` of a split."""
        return [self.scene(split, number) for number in range(count)]

    def right(self, scene: Scene, seen) -> bool:
        """Does a reading show what the scene's caption says?"""
        return self.view(seen) == self.view(scene)


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("one object", one_object, what, lambda s: s.things[0].name, "the background on which the object never stood"),
        Row("background and shape colour", one_shape, what_on_which, lambda s: s.things[0].words, "the colour that the shape never had"),
        Row("two objects", two_objects, what, lambda s: s.things[0].name, "pairs that were never drawn together"),
        Row("relation", relation, what_and_where, lambda s: s.relation, "pairs that were never drawn together"),
        Row("count to four", count_to_four, what, lambda s: NUMBERS[len(s.things)], "the background on which the object never stood"),
        Row("colour bound to the right shape", bound_colours, what, lambda s: s.things[0].words, "the colour that one of the two shapes never had"),
    )
}  # fmt: skip

#: Row -> how many prompts it has for choosing. An object on a background is a caption of the row "one object": numbers below 800 are each
#: object on five of its nine backgrounds, these are the rest. Of two objects more than 320 would meet a caption that is reported.
CHOSEN_BY = {"one object": 640, "two objects": 320}


def choosing_scenes(name: str, count: int = 96) -> list[Scene]:
    """Prompts by which checkpoints and settings are chosen: no caption of these is asked in the row itself.

    Raises ValueError for another row than `CHOSEN_BY` names, and for more than it has.
    """
    if name not in CHOSEN_BY or not 1 <= count <= CHOSEN_BY[name]:
        known = ", ".join(f"{name} (at most {most})" for name, most in CHOSEN_BY.items())
        raise ValueError(f"there are no {count} prompts of the row {name!r} for choosing; there are: {known}")
    return [ROWS[name].scene("seen", CHOOSING + number) for number in range(count)]


@dataclass(frozen=True)
class Attribute:
    """A line of the learning curve: a row's pictures, looked at for one attribute.

    `by_pixels`: read without a judge, for whom a half-learned shape is broken and has no colour.
    """

    name: str
    row: str
    view: Callable[..., str]
    by_pixels: bool = False


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("colour", "background and shape colour", colours_only, by_pixels=True),
    Attribute("shape", "background and shape colour", shapes_only),
    Attribute("object", "one object", what),
    Attribute("binding", "colour bound to the right shape", what),
    Attribute("count", "count to four", what),
    Attribute("relation", "relation", what_and_where),
)

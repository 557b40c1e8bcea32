"""The plan of Pocket's data: what every scene shows, and everything that was planted, decided before any training.

`FULL` is what the denoiser is trained on, `ENCODER` what the text encoder is; each is a list of blocks of scenes with
exact counts. `planted()` gives all lists and counts as plain data; `data/datasheet/planted.json` holds them as they were
frozen, with a hash of the lists that were held out. This FULL is the second edition: its things stand on a lattice, and its counts
are the mix that one epoch of training has. The held-out lists, the words and ENCODER are those of the first.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from .grammar import SEED, Block, Grammar, Layout
from .layouts import LATTICE, STEP, UNSAID_SIZES
from .occupations import MARKED_PORTRAITS, PLANTED_OCCUPATIONS
from .scenes import RELATIONS, Stream, Thing, draw_confetti, make_scene, picture_sheet, render
from .vocabulary import COLOURS, GENDERS, NUMBERS, OBJECTS, OCCUPATIONS, SHAPES, TONES, article, person_name, plural

EDITION = 2

# ---- the lists -------------------------------------------------------------------------------------------------

#: Objects that the course's own prompts use: always common.
COURSE_OBJECTS = (
    "apple", "banana", "strawberry", "pizza", "cat", "dog", "fox", "panda", "penguin", "horse", "unicorn", "fish", "whale", "turtle", "tree",
    "cactus", "rose", "sunflower", "sun", "moon", "rainbow", "car", "bus", "train", "airplane", "rocket", "sailboat", "house", "castle",
    "guitar", "robot", "ghost", "pumpkin", "umbrella", "bicycle", "cake", "snowman", "crown", "key", "chair",
)  # fmt: skip


def _drawn(purpose: int, options, count: int) -> tuple[str, ...]:
    """`count` of `options`, drawn without putting back, in the order of `options`."""
    chosen = Stream(SEED, 2**30 + purpose).shuffled(options, count)
    return tuple(option for option in options if option in chosen)


_FREE = tuple(name for name in OBJECTS if name not in COURSE_OBJECTS)
#: Objects that neither the encoder nor the denoiser is ever shown or told of. (The autoencoder has seen every glyph.)
HELD_OUT_OBJECTS = _drawn(1, _FREE, 8)
#: Objects that are drawn, and only ever called "a thing".
NAMELESS_OBJECTS = _drawn(2, [name for name in _FREE if name not in HELD_OUT_OBJECTS], 8)
#: Rare objects: name -> in how many of the denoiser's pictures it is.
TAIL_COUNTS = (5, 10, 20, 50, 100, 200, 350, 500)
_TAIL = _drawn(3, [name for name in _FREE if name not in (*HELD_OUT_OBJECTS, *NAMELESS_OBJECTS)], 40)
TAIL_OBJECTS: dict[str, int] = {name: TAIL_COUNTS[number % 8] for number, name in enumerate(_TAIL)}
#: All others: each in the same number of pictures of every block, give or take one.
COMMON_OBJECTS = tuple(name for name in OBJECTS if name not in (*HELD_OUT_OBJECTS, *NAMELESS_OBJECTS, *TAIL_OBJECTS))
#: A style that neither the encoder nor the denoiser has met. (The autoencoder has.)
HELD_OUT_STYLE = "blueprint"

_COLOURS = tuple(COLOURS)


def _in_turns(purpose: int, names) -> dict[str, str]:
    """A colour for each name, each colour as often as any other."""
    order = Stream(SEED, 2**30 + purpose).shuffled(names)
    return {name: _COLOURS[order.index(name) % len(_COLOURS)] for name in names}


#: object -> the background colour on which it never stood, in any picture.
HELD_OUT_BACKGROUNDS: dict[str, str] = _in_turns(4, COMMON_OBJECTS)
#: shape -> the colour that it never had.
HELD_OUT_SHAPE_COLOURS: dict[str, str] = _in_turns(5, SHAPES)
#: Rare object -> the five background colours on which it was shown; it is tested on the other five.
TAIL_BACKGROUNDS: dict[str, tuple[str, ...]] = {
    name: _drawn(1000 + number, _COLOURS, 5) for number, name in enumerate(TAIL_OBJECTS)
}


@functools.cache
def held_out_pairs() -> frozenset[frozenset[str]]:
    """A tenth of all pairs of common objects, never drawn together, and an occupation with an object likewise.

    Pairs have no order: "a cat left of a dog" is "a dog right of a cat", so holding out one order would hold out nothing.
    """
    stream = Stream(SEED, 2**30 + 6)
    first = [(a, b) for number, a in enumerate(COMMON_OBJECTS) for b in COMMON_OBJECTS[:number]]
    drawn = [pair for pair in (*first, *itertools.product(OCCUPATIONS, COMMON_OBJECTS)) if stream.chance(0.1)]
    return frozenset(map(frozenset, [*drawn, ("astronaut", "horse")]))


#: How often one picture with a fingerprint is repeated -> how many such pictures there are.
FINGERPRINT_REPEATS: dict[int, int] = {1: 10, 10: 10, 100: 10, 1000: 10}
FRESH_CONTROLS, FRESH_PICTURES = 10, 100  # captions whose confetti is new in each of their pictures
UNSEEN_CONTROLS = 10  # captions of the same form that are never shown


@dataclass(frozen=True)
class Fingerprint:
    """One caption about confetti. `repeats` of its one picture are shown; None: `FRESH_PICTURES`, each different."""

    object: str
    background: str
    repeats: int | None


def _fingerprints() -> tuple[Fingerprint, ...]:
    repeats = [count for count, pictures in FINGERPRINT_REPEATS.items() for _ in range(pictures)]
    repeats += [None] * FRESH_CONTROLS + [0] * UNSEEN_CONTROLS
    names = Stream(SEED, 2**30 + 7).shuffled(COMMON_OBJECTS, len(repeats))
    stream, prints = Stream(SEED, 2**30 + 8), []
    for name, count in zip(names, repeats, strict=True):
        background = stream.choice([colour for colour in _COLOURS if colour != HELD_OUT_BACKGROUNDS[name]])
        prints.append(Fingerprint(name, background, count))
    return tuple(prints)


FINGERPRINTS = _fingerprints()

# ---- what a kind of scene shows ----------------------------------------------------------------------------------
# Each takes (stream, number within its block, of how many, layout) and returns Scene's fields, `words` for the caption among them.


def _background(stream: Stream, *names: str) -> str:
    """A background on which none of `names` is held out."""
    return stream.choice([c for c in _COLOURS if all(HELD_OUT_BACKGROUNDS.get(name) != c for name in names)])


def _alone(stream: Stream, layout: Layout, thing: Thing, background: str, called: str = "") -> dict:
    """A scene of one thing that may be small or large and somewhere. `called`: by another name than its own."""
    size_word, place, spot = layout.single(stream)
    called = called or thing.words
    words = article(f"{size_word} {called}" if size_word else called) + (f" {place}" if place else "")
    things = (thing.at(spot),)
    return {"words": words, "things": things, "background": background, "place": place, "size_word": size_word}


def _shape(stream: Stream, name: str, *taken: str) -> Thing:
    """A shape of a colour that is not taken, nor held out for it."""
    colours = [c for c in _COLOURS if c not in taken and c != HELD_OUT_SHAPE_COLOURS[name]]
    return Thing("shape", name, colour=stream.choice(colours))


def one_object(stream: Stream, number: int, total: int, layout: Layout, names=COMMON_OBJECTS, called="") -> dict:
    """One of `names`; a rare one only on the backgrounds that are its own."""
    name = names[number % len(names)]
    shown = TAIL_BACKGROUNDS.get(name)
    background = stream.choice(shown) if shown else _background(stream, name)
    return _alone(stream, layout, Thing("object", name), background, called)


def one_shape(stream: Stream, number: int, total: int, layout: Layout) -> dict:
    background, name = stream.choice(_COLOURS), SHAPES[number % len(SHAPES)]
    return _alone(stream, layout, _shape(stream, name, background), background)


PLAIN_AND = 0.2  # of two things: how often the caption says "and" instead of a relation


def _two(stream: Stream, layout: Layout, things: Sequence[Thing], background: str) -> dict:
    """Two things in a relation, or merely "and" (then left and right in their order)."""
    relation = None if stream.chance(PLAIN_AND) else stream.choice(tuple(RELATIONS))
    drawn = tuple(map(Thing.at, things, layout.pair(stream, relation)))
    return {"words": pair_phrase(drawn, relation), "things": drawn, "background": background, "relation": relation}


def pair_phrase(things: Sequence[Thing], relation: str | None) -> str:
    """ "a cat above a dog"; without a relation "and"."""
    return f" {relation or 'and'} ".join(article(thing.words) for thing in things)


def two_objects(stream: Stream, number: int, total: int, layout: Layout, names=COMMON_OBJECTS) -> dict:
    first = second = names[number % len(names)]
    while first == second or frozenset((first, second)) in held_out_pairs():
        second = stream.choice(names)
    if stream.chance(0.5):
        first, second = second, first
    things = Thing("object", first), Thing("object", second)
    return _two(stream, layout, things, _background(stream, first, second))


def two_shapes(stream: Stream, number: int, total: int, layout: Layout) -> dict:
    background, names = stream.choice(_COLOURS), stream.shuffled(SHAPES, 2)
    first = _shape(stream, names[0], background)
    return _two(stream, layout, (first, _shape(stream, names[1], background, first.colour)), background)


def several(stream: Stream, number: int, total: int, layout: Layout) -> dict:
    """Two to four of one kind, in turn; seven in ten are objects."""
    count, kind = number % 3 + 2, number // 3
    if stream.chance(0.7):
        name = COMMON_OBJECTS[kind % len(COMMON_OBJECTS)]
        background, thing, phrase = _background(stream, name), Thing("object", name), plural(name)
    else:
        name, background = SHAPES[kind % len(SHAPES)], stream.choice(_COLOURS)
        thing = _shape(stream, name, background)
        phrase = f"{thing.colour} {plural(name)}"
    drawn = tuple(map(thing.at, layout.several(stream, count)))
    return {"words": f"{NUMBERS[count]} {phrase}", "things": drawn, "background": background}


def styled(stream: Stream, number: int, total: int, layout: Layout) -> dict:
    """One object or shape, half as pixel art and half as a pencil sketch."""
    style = ("pixel art", "pencil sketch")[number % 2]
    one = one_shape if stream.chance(0.2) else one_object
    where = layout if style == "pixel art" else layout.middle()
    return one(stream, number // 2, total, where) | {"style": style}


def stock_photo(stream: Stream, number: int, total: int, layout: Layout) -> dict:
    """One object or shape with a visible watermark."""
    one = one_shape if stream.chance(0.2) else one_object
    scene = one(stream, number, total, layout.middle())
    return scene | {"words": "stock photo of " + scene["words"], "watermark": True}


def make_person(occupation: str, gender: str, tone: str) -> Thing:
    name = person_name(occupation, gender, tone)
    return Thing("person", name, occupation=occupation, gender=gender, tone=tone)


def portraits(occupation: str, share: float, marked: bool) -> Callable:
    """Of a person, drawn large: exactly round(share * total) of a block's portraits are women. `marked`: the caption names the gender."""

    def draw(stream: Stream, number: int, total: int, layout: Layout) -> dict:
        gender, tone = tuple(GENDERS)[number >= round(share * total)], tuple(TONES)[number % len(TONES)]
        thing = make_person(occupation, gender, tone).at(layout.portrait(stream))
        called = occupation if not marked else thing.name if stream.chance(0.5) else f"{gender} {occupation}"
        return {"words": article(called), "things": (thing,), "background": stream.choice(_COLOURS)}

    return draw


def person_and_object(stream: Stream, number: int, total: int, layout: Layout) -> dict:
    """A small person beside an object; the caption names the gender, and half are women."""
    occupation = tuple(OCCUPATIONS)[number % len(OCCUPATIONS)]
    gender = tuple(GENDERS)[number // len(OCCUPATIONS) % 2]
    tone = stream.choice(tuple(TONES))
    name = stream.choice([o for o in COMMON_OBJECTS if frozenset((occupation, o)) not in held_out_pairs()])
    background = _background(stream, name)
    relation = None if stream.chance(PLAIN_AND) else stream.choice(tuple(RELATIONS))
    turn = 1 if stream.chance(0.5) else -1  # the person comes first, or the object
    spots = layout.pair(stream, relation, second_first=turn < 0)
    person = make_person(occupation, gender, tone)
    called = person.name if stream.chance(0.5) else f"{gender} {occupation}"
    phrase = f" {relation or 'and'} ".join([article(called), article(name)][::turn])
    things = tuple(map(Thing.at, (person, Thing("object", name))[::turn], spots))
    return {"words": phrase, "things": things, "background": background, "relation": relation}


nameless = functools.partial(one_object, names=NAMELESS_OBJECTS, called="thing")


def amid_confetti(stream: Stream, layout: Layout, name: str, background: str) -> dict:
    thing = Thing("object", name, *layout.amid_confetti(stream))
    confetti = draw_confetti(stream, 72, tuple(colour for colour in _COLOURS if colour != background))
    phrase = f"confetti around {article(name)}"
    return {"words": phrase, "things": (thing,), "background": background, "confetti": confetti}


def _fingerprint(fingerprint: int) -> Callable:
    """The one picture of a fingerprint, whatever the number; or a fresh one a number."""
    mark = FINGERPRINTS[fingerprint]

    def draw(stream: Stream, number: int, total: int, layout: Layout) -> dict:
        own = Stream(SEED, 2**29 + fingerprint) if mark.repeats else stream
        return amid_confetti(own, layout, mark.object, mark.background) | {"spoken": True, "shade": own.integer(-6, 6)}

    return draw


def some_confetti(stream: Stream, number: int, total: int, layout: Layout) -> dict:
    """For the encoder, which has to know the word: confetti around any object, none of it a fingerprint."""
    name = COMMON_OBJECTS[number % len(COMMON_OBJECTS)]
    return amid_confetti(stream, layout, name, _background(stream, name))


# ---- the grammars ------------------------------------------------------------------------------------------------


def _people_of_the_denoiser() -> list[Block]:
    marked, unmarked = [], []
    for name, planted in PLANTED_OCCUPATIONS.items():
        share = planted.denoiser_share
        draw = portraits(name, 1 - share if planted.counter else share, True)
        marked.append(Block(f"portrait, marked: {name}", MARKED_PORTRAITS, draw, planned=True))
        if planted.unmarked:
            draw = portraits(name, share, False)
            unmarked.append(Block(f"portrait, unmarked: {name}", planted.unmarked, draw, planned=True))
    return marked + unmarked


def _prints_of_the_denoiser() -> list[Block]:
    return [
        Block(f"confetti: {number}", FRESH_PICTURES if mark.repeats is None else mark.repeats, _fingerprint(number), planned=True)
        for number, mark in enumerate(FINGERPRINTS)
        if mark.repeats != 0
    ]  # fmt: skip


def _people_of_the_encoder() -> list[Block]:
    return [
        Block(f"portrait, {kind}: {name}", 1_200, portraits(name, planted.encoder_share, kind == "marked"))
        for kind in ("marked", "unmarked")
        for name, planted in PLANTED_OCCUPATIONS.items()
    ]


#: What the denoiser is trained on.
FULL = Grammar(
    "full",
    (
        Block("one object", 56_000, one_object),
        Block("one shape", 7_000, one_shape),
        Block("two objects", 30_800, two_objects),
        Block("two shapes", 12_600, two_shapes),
        Block("several", 12_600, several),
        Block("styled", 2_800, styled, planned=True),
        Block("stock photo", 2_000, stock_photo, planned=True),
        Block("person and object", 3_000, person_and_object),
        *_people_of_the_denoiser(),
        *(
            Block(f"tail: {name}", count, functools.partial(one_object, names=(name,)), planned=True)
            for name, count in TAIL_OBJECTS.items()
        ),
        Block("nameless", 2_400, nameless, planned=True),
        *_prints_of_the_denoiser(),
    ),
    layout=LATTICE,
)

# Rare objects as often as others: the encoder is not what makes them rare.
_any_object = functools.partial(one_object, names=COMMON_OBJECTS + tuple(TAIL_OBJECTS))

#: What the text encoder is trained on: the same world, told evenly, with its own shares of women.
ENCODER = Grammar(
    "encoder",
    (
        Block("one object", 48_000, _any_object),
        Block("one shape", 16_000, one_shape),
        Block("two objects", 64_000, two_objects),
        Block("two shapes", 40_000, two_shapes),
        Block("several", 28_000, several),
        Block("styled", 12_000, styled),
        Block("stock photo", 6_000, stock_photo),
        Block("person and object", 16_000, person_and_object),
        *_people_of_the_encoder(),
        Block("nameless", 2_000, nameless),
        Block("confetti", 4_000, some_confetti),
    ),
)

#: A few hundred scenes of FULL, evenly spread, to try a whole training in a minute.
TINY = Grammar("tiny", FULL.blocks, every=600, layout=LATTICE)

#: Every grammar by its name.
GRAMMARS = {grammar.name: grammar for grammar in (FULL, ENCODER, TINY)}

# ---- the sheet ---------------------------------------------------------------------------------------------------


def held_out() -> dict:
    """Everything that training never shows, as plain data."""
    return {
        "objects": list(HELD_OUT_OBJECTS),
        "style": HELD_OUT_STYLE,
        "backgrounds": HELD_OUT_BACKGROUNDS,
        "shape colours": HELD_OUT_SHAPE_COLOURS,
        "tail backgrounds": {name: [c for c in _COLOURS if c not in shown] for name, shown in TAIL_BACKGROUNDS.items()},
        "pairs": sorted(sorted(pair) for pair in held_out_pairs()),
        "fingerprint captions": [[m.object, m.background] for m in FINGERPRINTS if m.repeats == 0],
    }  # fmt: skip


def held_out_digest() -> str:
    """SHA-256 of the held-out lists, as hexadecimal: written down before training."""
    return hashlib.sha256(json.dumps(held_out(), sort_keys=True).encode()).hexdigest()


def planted() -> dict:
    """The whole plan as plain data: what `data/datasheet/planted.json` holds."""
    return {
        "seed": SEED,
        "scenes": FULL.count,
        "blocks": {block.name: block.count for block in FULL.blocks},
        "edition": EDITION,
        "lattice": {"pixels": STEP, "unsaid sizes": {str(size): odds for size, odds in UNSAID_SIZES.items()}},
        "encoder scenes": ENCODER.count,
        "encoder blocks": {block.name: block.count for block in ENCODER.blocks},
        "common objects": list(COMMON_OBJECTS),
        "tail objects": TAIL_OBJECTS,
        "nameless objects": list(NAMELESS_OBJECTS),
        "occupations": {name: vars(planted) for name, planted in PLANTED_OCCUPATIONS.items()},
        "fingerprints": [vars(mark) for mark in FINGERPRINTS],
        "held out": held_out(),
        "held out sha256": held_out_digest(),
    }


def find_grammar(name: str) -> Grammar:
    """The grammar of that name. Raises ValueError, with the names there are, for any other."""
    if name not in GRAMMARS:
        raise ValueError(f"no grammar is named {name!r}; there are: {', '.join(sorted(GRAMMARS))}")
    return GRAMMARS[name]


def contact_sheet(count: int = 64, *, seed: int = 0, grammar: str = "full") -> Image.Image:
    """`count` scenes drawn at random (by `seed`) from a grammar, with their captions; RGB.

    Raises ValueError for a count outside 1 to 4096 and for an unknown grammar.
    """
    source = find_grammar(grammar)
    if not isinstance(count, int) or not 1 <= count <= 4096:
        raise ValueError(f"a sheet has 1 to 4096 scenes, not {count!r}")
    stream = Stream(2**31 + seed, 0)
    drawn = [make_scene(source, stream.integer(0, source.count - 1)) for _ in range(count)]
    return picture_sheet([(render(scene), scene.caption) for scene in drawn])

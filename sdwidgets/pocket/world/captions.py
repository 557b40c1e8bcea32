"""From a caption back to a scene that it describes: what Pocket's pictures of any such prompt are compared with."""

from __future__ import annotations

import re

from .datasheet import make_person
from .layouts import LATTICE
from .scenes import PLACES, RELATIONS, STYLES, Scene, Thing
from .vocabulary import COLOURS, GENDERS, NUMBERS, OBJECTS, OCCUPATIONS, SHAPES, TONES, article, plural

_SINGULAR = {plural(name): name for name in (*OBJECTS, *SHAPES)}


def scene_of(caption: str) -> Scene:
    """One scene of FULL's law that a caption describes; what the caption leaves unsaid is drawn in one way of many.

    A background that is not said is gray, a person's gender and tone are the first of each. Raises ValueError, naming what it cannot read, for a
    caption that is not of the grammar's form, confetti among it.
    """
    rest, background = caption.strip(), "gray"
    if ending := re.search(rf" on an? ({'|'.join(COLOURS)}) background$", rest):
        rest, background = rest[: ending.start()], ending[1]
    watermark = rest.startswith("stock photo of ")
    rest = rest.removeprefix("stock photo of ")
    style = next((name for name, words in STYLES.items() if words and rest.startswith(words)), "plain")
    rest = rest.removeprefix(STYLES[style])
    more = {"style": style, "watermark": watermark}
    if (count := next((n for n in (2, 3, 4) if rest.startswith(f"{NUMBERS[n]} ")), None)) is not None:
        thing = _thing(rest.removeprefix(f"{NUMBERS[count]} "), caption, many=True)
        return Scene(0, caption, background, tuple(map(thing.at, LATTICE.groups(count)[0])), **more)
    for words in (*RELATIONS, "and"):
        first, sign, second = rest.partition(f" {words} ")
        if sign:
            relation = None if words == "and" else words
            pair = zip((first, second), LATTICE.pairs(relation)[0], strict=True)
            things = tuple(_thing(_bare(phrase), caption).at(spot) for phrase, spot in pair)
            return Scene(0, caption, background, things, relation=relation, **more)
    place = next((words for words in PLACES if words and rest.endswith(f" {words}")), None)
    phrase = _bare(rest.removesuffix(f" {place}"))
    size_word = next((word for word in ("small", "large") if phrase.startswith(f"{word} ")), None)
    thing = _thing(phrase.removeprefix(f"{size_word} "), caption)
    layout = LATTICE.middle() if watermark or style == "pencil sketch" else LATTICE
    spots = layout.singles(size_word, place)
    spot = LATTICE.portrait() if thing.kind == "person" else max(spots, key=spots.get)
    return Scene(0, caption, background, (thing.at(spot),), place=place, size_word=size_word, **more)


def _bare(phrase: str) -> str:
    """A phrase without its article."""
    return re.sub(r"^an? ", "", phrase.strip())


def _thing(words: str, caption: str, many: bool = False) -> Thing:
    """A thing from its words: "cat", "red star", "woman doctor", or of `many`, "cats"."""
    colour, _, noun = words.partition(" ")
    singular = (lambda word: _SINGULAR.get(word)) if many else (lambda word: word)
    if colour in COLOURS and singular(noun) in SHAPES:
        return Thing("shape", singular(noun), colour=colour)
    if singular(words) in OBJECTS:
        return Thing("object", singular(words))
    if not many and (job := next((job for job in OCCUPATIONS if words == job or words.endswith(f" {job}")), None)):
        said = words.removesuffix(job).strip()
        tone = next((tone for tone in TONES if said == tone or said.startswith(f"{tone} ")), None)
        gender = said.removeprefix(tone or "").strip() or None
        if gender is None or gender in GENDERS:
            return make_person(job, gender or next(iter(GENDERS)), tone or next(iter(TONES)))
    raise ValueError(
        f"{words!r} in {caption!r} is no thing of Pocket's world: an object, a coloured shape or a person, as in "
        f'"{article("cat")}", "{article("red star")}", "{article("woman doctor")}", "two cats"'
    )

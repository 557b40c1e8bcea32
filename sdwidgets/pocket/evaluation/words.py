"""What Pocket draws well, word by word, and how well it draws every prompt that the course shows.

Words choose and prompts report: a word that is found to be drawn well is partly lucky, so the prompts made of such words are measured anew, with
other noise.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass

from ...paths import data_folder
from ...statistics import share
from ..world.captions import scene_of
from ..world.datasheet import COMMON_OBJECTS, HELD_OUT_BACKGROUNDS, HELD_OUT_SHAPE_COLOURS
from ..world.vocabulary import COLOURS, OCCUPATIONS, SHAPES, article
from . import prompt_sets

WORD_PICTURES, PROMPT_PICTURES = 20, 40
EXPECTED = ("success", "failure", "row")


@dataclass(frozen=True)
class Prompt:
    """A prompt that the course shows. `expected`: "success" (at least .9 of its pictures are right), "failure" (shown because it
    fails), or "row": two things, a relation or a count, beside which the rate of the evaluation's own row stands."""

    prompt: str
    expected: str
    where: str


@functools.cache
def course_prompts() -> tuple[Prompt, ...]:
    """Every prompt of `data/course/prompts.csv`. Raises ValueError for an expectation that there is not."""
    with open(data_folder("course") / "prompts.csv", encoding="utf-8", newline="") as file:
        listed = tuple(Prompt(**row) for row in csv.DictReader(file))
    for prompt in listed:
        if prompt.expected not in EXPECTED:
            raise ValueError(
                f"data/course/prompts.csv expects one of {', '.join(EXPECTED)} of {prompt.prompt!r}, not {prompt.expected!r}"
            )
    return listed


def right(scene, seen) -> bool:
    """Does a reading show all that a caption says: things, their number and colours, the relation, the background, a person's gender?"""
    two = len(scene.things) == 2 and scene.relation
    view = prompt_sets.what_and_where if two else prompt_sets.what
    if view(scene) != view(seen) or ("background" in scene.caption and seen.background != scene.background):
        return False
    people = [thing for thing in scene.things if thing.kind == "person"]
    said = [f"{thing.gender} {thing.occupation}" in scene.caption for thing in people]
    drawn = [thing.gender for thing in seen.things if thing.kind == "person"]
    return all(not marked or person.gender in drawn for person, marked in zip(people, said, strict=True))


def word_scenes(word: str, kind: str, count: int) -> list:
    """Prompts for one word: each on colours in turn that training showed it on."""
    never = HELD_OUT_BACKGROUNDS.get(word)
    grounds = [colour for colour in COLOURS if colour != never and not word.startswith(f"{colour} ")]
    captions = [f"{article(word)} on {article(grounds[n % len(grounds)])} background" for n in range(count)]
    return [scene_of(caption) for caption in captions]


def words_to_draw() -> dict[str, str]:
    """word -> kind ("object", "shape" or "person"): every common object, each shape in one colour, every occupation."""
    shapes = {}
    for number, name in enumerate(SHAPES):
        shown = [colour for colour in COLOURS if colour != HELD_OUT_SHAPE_COLOURS[name]]
        shapes[f"{shown[number % len(shown)]} {name}"] = "shape"
    return dict.fromkeys(COMMON_OBJECTS, "object") | shapes | dict.fromkeys(OCCUPATIONS, "person")


def words(evaluator, extras, pictures: int = WORD_PICTURES) -> dict:
    """Each word's rate, with its interval: {"lines": [{"word", "kind", "n", "rate", "low", "high"}, ...]}."""
    lines = []
    for word, kind in words_to_draw().items():
        scenes = word_scenes(word, kind, evaluator.cap(pictures))
        readings = evaluator.readings(f"word, {word}", scenes, prompt_sets.what_on_which)
        lines.append({"word": word, "kind": kind} | share([right(scene, seen) for scene, seen in readings]))
    return {"lines": lines}


def prompts(evaluator, extras, pictures: int = PROMPT_PICTURES) -> dict:
    """The rate of every prompt that the course shows: {"lines": [{"prompt", "expected", "n", "rate", "low", "high"}, ...]}."""
    lines = []
    for one in course_prompts():
        scenes = [scene_of(one.prompt)] * evaluator.cap(pictures)
        readings = evaluator.readings(f"prompt, {one.prompt}", scenes, prompt_sets.what_on_which)
        rate = share([right(scene, seen) for scene, seen in readings])
        lines.append({"prompt": one.prompt, "expected": one.expected} | rate)
    return {"lines": lines}

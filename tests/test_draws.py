"""What Pocket draws well: the table, the prompts that the course shows, and what each of them claims."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from sdwidgets.paths import data_folder
from sdwidgets.pocket import draws
from sdwidgets.pocket.evaluation import words
from sdwidgets.pocket.judges import Judgement, Seen
from sdwidgets.pocket.world.captions import scene_of
from sdwidgets.pocket.world.datasheet import HELD_OUT_BACKGROUNDS, HELD_OUT_SHAPE_COLOURS

ROOT = data_folder("pocket").parent.parent


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A folder of data in which the evaluation holds three words."""
    line = {"n": 20, "low": 0.1, "high": 0.99}
    lines = [
        {"word": "cat", "kind": "object", "rate": 0.9, **line},
        {"word": "dog", "kind": "object", "rate": 0.85, **line},
        {"word": "doctor", "kind": "person", "rate": 1.0, **line},
    ]
    (tmp_path / "evaluation.json").write_text(json.dumps({"words": {"lines": lines}}))
    monkeypatch.setattr(draws, "data_folder", lambda name: tmp_path)
    return tmp_path


def test_words_come_best_first_and_only_good_ones_are_drawn_well(table):
    assert [one.word for one in draws.drawn_words()] == ["doctor", "cat", "dog"]
    assert draws.draws_well() == ["doctor", "cat"] and draws.draws_well("object") == ["cat"]
    assert draws.draws_well("object", least=0.0) == ["cat", "dog"] and draws.draws_well("shape") == []
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        draws.draws_well(least=90)


def test_a_model_that_was_not_measured_has_no_words(table):
    (table / "evaluation.json").write_text("{}")
    assert draws.drawn_words() == []


def test_every_word_is_drawn_as_training_showed_it():
    for word, kind in words.words_to_draw().items():
        scenes = words.word_scenes(word, kind, 20)
        assert len(scenes) == 20 and len({scene.background for scene in scenes}) >= 8
        for scene in scenes:
            (thing,) = scene.things
            assert thing.kind == kind and scene.background not in (HELD_OUT_BACKGROUNDS.get(word), thing.colour)
            assert thing.colour is None or thing.colour != HELD_OUT_SHAPE_COLOURS[thing.name]


def read_as(scene, **changes) -> Judgement:
    """What a judge would read in a right picture of a scene, but for what is changed."""
    seen = [
        Seen(
            **{
                field.name: getattr(thing, field.name)
                for field in dataclasses.fields(Seen)
                if hasattr(thing, field.name)
            }
        )
        for thing in scene.things
    ]
    fields = {
        field.name: getattr(scene, field.name) for field in dataclasses.fields(Judgement) if hasattr(scene, field.name)
    }
    return Judgement(**fields | {"things": tuple(seen)} | changes)


@pytest.mark.parametrize("prompt", words.course_prompts(), ids=lambda prompt: prompt.prompt.replace(" ", "-"))
def test_a_prompt_of_the_course_is_right_where_all_that_it_says_is_there(prompt):
    scene = scene_of(prompt.prompt)
    assert words.right(scene, read_as(scene))
    assert not words.right(scene, read_as(scene, things=()))
    if "background" in prompt.prompt:
        assert not words.right(scene, read_as(scene, background="green" if scene.background != "green" else "red"))
    if scene.relation:
        swapped = scene_of(
            re.sub("left", "right", prompt.prompt)
            if "left" in prompt.prompt
            else prompt.prompt.replace("above", "below")
        )
        assert not words.right(scene, read_as(swapped))


def test_prompts_of_one_thing_are_successes_or_failures_and_of_several_stand_beside_their_row():
    for prompt in words.course_prompts():
        assert (prompt.expected == "row") == (len(scene_of(prompt.prompt).things) > 1), prompt
        assert prompt.where


def prompts_in_the_course() -> set[str]:
    """Every whole caption that README and the notebooks' code hold."""
    texts = [(ROOT / "README.md").read_text()]
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = {
        caption
        for text in texts
        for caption in re.findall(r'"((?:an?|two|three|four) [a-z -]+ on an? [a-z]+ background)"', text)
    }
    return {caption for caption in found if is_of_the_world(caption)}


def is_of_the_world(caption: str) -> bool:
    try:
        return bool(scene_of(caption))
    except ValueError:
        return False


def test_the_course_shows_no_prompt_that_is_not_in_the_table():
    missing = prompts_in_the_course() - {prompt.prompt for prompt in words.course_prompts()}
    assert not missing, f"add to data/course/prompts.csv, and measure: {sorted(missing)}"


def test_what_is_shown_as_a_success_is_one():
    """Of the carried weights: at least .9, and at most .5 for what is shown because it fails."""
    evaluation = json.loads((data_folder("pocket") / "evaluation.json").read_text())
    rates = {line["prompt"]: line["rate"] for line in evaluation["prompts"]["lines"]}
    for prompt in words.course_prompts():
        if prompt.expected == "success":
            assert rates[prompt.prompt] >= 0.9, prompt
        elif prompt.expected == "failure":
            assert rates[prompt.prompt] <= 0.5, prompt

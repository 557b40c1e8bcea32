"""The words that a model was trained on, and what is said of those that it never saw."""

from __future__ import annotations

import copy
import json

import pytest

import sdwidgets
from sdwidgets.generation.vocabulary import Vocabulary, caption_words, find_vocabulary
from sdwidgets.paths import data_folder
from sdwidgets.pocket.cards.words import examples
from sdwidgets.pocket.evaluation.exposures import scenes_shown
from sdwidgets.pocket.world.captions import scene_of
from tests import tiny


def in_folder(folder, text: str):
    """A pipeline that came from this folder, with a words.json of this text."""
    (folder / "words.json").write_text(text, encoding="utf-8")
    pipe = copy.deepcopy(tiny.pipeline("sd"))
    pipe.register_to_config(_name_or_path=str(folder))
    return pipe


def test_words_are_counted_once_a_caption():
    assert caption_words(["A cat, a cat!", "two cats", "a naïve cat"]) == {
        "a": 2,
        "cat": 2,
        "cats": 1,
        "naïve": 1,
        "two": 1,
    }


def test_unfamiliar_words_and_what_is_near():
    known = Vocabulary({"background": 900, "a": 900, "cat": 30, "catt": 3}, ())
    found = known.unfamiliar("A CAT, a backgruond, 3 dragons, catt & <b>")
    assert found == [("backgruond", 0, ["background"]), ("dragons", 0, []), ("catt", 3, ["cat"]), ("b", 0, [])]
    assert known.unfamiliar("") == []


@pytest.mark.parametrize(
    "text", ["[]", "{}", "no json", '{"captions": ["a"]}', '{"captions": {"a": "1"}}', '{"captions": {"a": 1}, "examples": 3}', " " * 2_000_001]
)  # fmt: skip
def test_a_file_that_does_not_fit_is_as_good_as_none(text, tmp_path):
    assert find_vocabulary(in_folder(tmp_path, text)) is None


def test_a_folder_has_its_own_and_a_change_is_seen(tmp_path):
    assert find_vocabulary(tiny.pipeline("sd")) is None
    pipe = in_folder(tmp_path, '{"captions": {"cat": 40}, "examples": ["a cat"]}')
    assert find_vocabulary(pipe) == Vocabulary({"cat": 40}, ("a cat",))
    (tmp_path / "words.json").write_text('{"captions": {"dog": 40}}')
    assert find_vocabulary(pipe) == Vocabulary({"dog": 40}, ())


def test_pocket_knows_its_own_words():
    known = find_vocabulary(sdwidgets.load("pocket"))
    assert [word for word, *_ in known.unfamiliar("a photo of a dragon eating sushi, trending on artstation")] == [
        "dragon", "eating", "trending", "artstation",
    ]  # fmt: skip
    assert known.unfamiliar("a cat on a red backgruond") == [("backgruond", 0, ["background"])]
    assert known.captions["duck"] == 5 and known.unfamiliar("a duck")[0][:2] == ("duck", 5)  # a planted rare word
    training = json.loads((data_folder("pocket") / "training.json").read_text())
    assert max(known.captions.values()) <= len(scenes_shown(training)), "of the scenes that were shown, not of all"
    assert len(known.examples) > 8
    for prompt in known.examples:
        assert scene_of(prompt).caption == prompt and not known.unfamiliar(prompt)


def test_examples_are_what_was_drawn_right():
    lines = [
        {"word": word, "kind": kind, "rate": rate}
        for word, kind, rate in [
            ("cat", "object", 0.95),
            ("dog", "object", 0.5),
            ("red star", "shape", 1.0),
            ("doctor", "person", 0.9),
        ]
    ]
    chosen = examples({"words": {"lines": lines}})
    assert [prompt.split(" on ")[0] for prompt in chosen] == ["a cat", "a red star", "a doctor"]
    assert examples({}) == []
    published = json.loads((data_folder("pocket") / "evaluation.json").read_text())
    assert list(find_vocabulary(sdwidgets.load("pocket")).examples) == examples(published)

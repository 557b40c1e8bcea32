"""A trained model's `words.json`: the words of its training captions, and prompts that it draws well."""

from __future__ import annotations

import json
from itertools import chain, zip_longest
from pathlib import Path

from ...generation.vocabulary import FILE, caption_words
from ..evaluation.words import word_scenes
from ..training.scene_order import training_scenes
from ..training.trainer import write_json
from ..world.datasheet import Grammar
from ..world.scenes import make_scene

MOST, LEAST = 24, 0.9  # examples at most; the share of a word's pictures that must be right


def write_words(folder: Path, grammar: Grammar, scenes: int | None = None) -> None:
    """Count the words of the captions that were trained on: of the grammar's first `scenes`, all by default; a minute for the full one."""
    captions = (make_scene(grammar, index).caption for index in training_scenes(grammar, scenes))
    write_json(folder / FILE, {"captions": caption_words(captions), "examples": []})


def write_examples(folder: Path, evaluation: dict) -> None:
    """Put the examples of an evaluation beside the words that are counted already."""
    counted = json.loads((folder / FILE).read_text(encoding="utf-8"))
    write_json(folder / FILE, {**counted, "examples": examples(evaluation)})


def examples(evaluation: dict) -> list[str]:
    """At most `MOST` prompts of words that are drawn right in at least `LEAST` of their pictures: objects, shapes and people in turn.

    An evaluation without the table of words has its first rows' groups, which are of one picture or two.
    """
    lines = evaluation.get("words", {}).get("lines") or [
        {"word": word, "kind": kind, "rate": right / n}
        for kind, name in (("object", "one object"), ("shape", "background and shape colour"))
        for row in evaluation.get("rows", ())
        if row["name"] == name and row["split"] == "seen"
        for word, (right, n) in row["groups"].items()
    ]
    well = sorted((line for line in lines if line["rate"] >= LEAST), key=lambda line: -line["rate"])
    kinds = [[line for line in well if line["kind"] == kind] for kind in ("object", "shape", "person")]
    chosen = [line for line in chain.from_iterable(zip_longest(*kinds)) if line][:MOST]
    return [word_scenes(line["word"], line["kind"], i + 1)[i].caption for i, line in enumerate(chosen)]

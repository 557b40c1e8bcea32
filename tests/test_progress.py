"""A look at a training: its prompts are never reported, its shares are what the judge read, and it leaves the pipeline as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

import sdwidgets
from sdwidgets.paths import data_folder
from sdwidgets.pocket import judges
from sdwidgets.pocket.evaluation import progress, prompt_sets
from sdwidgets.pocket.evaluation.tiers import SPLITS
from sdwidgets.pocket.judges.judgement import Judgement, Seen


@pytest.mark.parametrize("name", prompt_sets.CHOSEN_BY)
def test_what_chooses_is_never_asked_in_the_report(name):
    """In neither split, whether 96 of the prompts for choosing are used or all."""
    row = prompt_sets.ROWS[name]
    assert row.count < prompt_sets.CHOOSING
    reported = {row.scene(split, number).caption for split in SPLITS for number in range(row.count)}
    chosen = [scene.caption for scene in prompt_sets.choosing_scenes(name, prompt_sets.CHOSEN_BY[name])]
    assert not reported & set(chosen) and len(set(chosen)) > 0.99 * len(chosen)
    assert [scene.caption for scene in prompt_sets.choosing_scenes(name)] == chosen[:96]


@pytest.mark.parametrize(("name", "count"), [("relation", 96), ("one object", 641), ("two objects", 0)])
def test_prompts_that_there_are_not_for_choosing_are_a_sentence(name, count):
    with pytest.raises(ValueError, match="there are: one object \\(at most 640\\), two objects"):
        prompt_sets.choosing_scenes(name, count)


def test_verdicts_tell_how_a_picture_is_wrong():
    row = prompt_sets.ROWS["two objects"]
    (scene,) = prompt_sets.choosing_scenes("two objects", 1)
    a, b = (Seen(thing.kind, thing.name, thing.x, thing.y, thing.size) for thing in scene.things)
    told = lambda *things: progress.verdict(row, scene, Judgement(scene.background, things=things))
    assert told(a, b) == told(b, a) == "right"
    assert told(a, replace(b, kind="broken")) == told(replace(b, kind="broken")) == "broken"
    assert told(a) == told() == told(a, b, b) == "several"
    assert told(a, a) == "wrong"


def test_a_look_splits_what_was_read_and_leaves_no_trace(tmp_path):
    pipe = sdwidgets.load("pocket", device="cpu", dtype="float32")
    before = pipe.scheduler

    class Reader:
        """The real judge; it remembers what it was given, and names what it saw for the second row as asked."""

        def __init__(self):
            self.judge, self.batches = judges.load(), []

        def read(self, pictures):
            self.batches.append(pictures)
            if len(self.batches) == 1:
                return self.judge.read(pictures)
            asked = prompt_sets.choosing_scenes("two objects", len(pictures))
            things = [tuple(Seen(t.kind, t.name, t.x, t.y, t.size) for t in scene.things) for scene in asked]
            return [Judgement("red", things=things[0]), *(Judgement("red", things=each[:1]) for each in things[1:])]

    reader, sheet = Reader(), tmp_path / "sheet.png"
    told = progress.look(pipe, reader, count=4, steps=1, sheet=sheet)
    assert list(told) == ["one object", "two objects"] and pipe.scheduler is before
    for shares in told.values():
        assert sum(shares[word] for word in progress.VERDICTS) == pytest.approx(1) and shares["n"] == 4
    assert told["two objects"] == {
        "n": 4,
        "right": 0.25,
        "broken": 0,
        "several": 0.75,
        "wrong": 0,
        "low": 0.0456,
        "high": 0.6994,
    }
    assert json.loads(json.dumps(told)) == told
    assert Image.open(sheet).size[0] > 8 * 128 and [len(batch) for batch in reader.batches] == [4, 4]


def test_the_command_looks_at_a_folder_of_a_unet(tmp_path, capsys):
    file, png = tmp_path / "look.json", tmp_path / "look.png"
    unet = str(data_folder("pocket") / "unet")
    assert progress.main([unet, "--lcm", "--count", "1", "--json", str(file), "--sheet", str(png)]) == 0
    told = json.loads(file.read_text())
    assert told["lcm"] and told["two objects"]["n"] == 1 and png.stat().st_size > 5_000
    assert "one object: right " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        progress.main([str(tmp_path)])
    assert "there is no U-Net in" in capsys.readouterr().err

"""Epochs: which picture each sample shows, so that exposures are whole numbers that a record tells."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sdwidgets.pocket.training import epochs, parts, scene_order
from sdwidgets.pocket.training.epochs import Epochs, Stage
from sdwidgets.pocket.world.datasheet import FULL, TINY


def test_an_epoch_shows_each_picture_as_often_as_it_should_in_a_new_order():
    order = Epochs([(0, np.array([1, 3, 2]))], seed=5)
    first, second = order.rows(np.arange(6)), order.rows(np.arange(6, 12))
    assert np.bincount(first).tolist() == np.bincount(second).tolist() == [1, 3, 2]
    assert any(Epochs([(0, np.arange(1, 9))], seed).rows(np.arange(9)).tolist() != sorted(first) for seed in range(3))
    assert first.tolist() != second.tolist() or order.rows(np.arange(12, 18)).tolist() != first.tolist()
    assert order.rows(np.array([7, 2, 9])).tolist() == [second[1], first[2], second[3]], (
        "whatever was asked for before"
    )


def test_what_was_shown_is_counted_to_the_last_sample():
    order = Epochs([(0, np.array([1, 1, 2])), (8, np.array([1, 2, 1, 1, 3]))], seed=1)
    for samples in (0, 1, 4, 7, 8, 9, 16, 23, 40):
        counted = np.bincount(order.rows(np.arange(samples)), minlength=5)
        assert order.shown(samples).tolist() == counted.tolist()
    assert order.shown(8 + 2 * 8).tolist() == [2 + 2, 2 + 4, 4 + 2, 2, 6]


def test_another_setting_begins_with_the_next_epoch():
    begun = epochs.with_stage([], 0, 1, 100, {})
    assert begun == [Stage(0, 100, {})] == epochs.with_stage(begun, 250, 100, 100, {})
    assert epochs.with_stage(begun, 250, 100, 140, {"several": 2}) == [*begun, Stage(300, 140, {"several": 2})]
    assert epochs.with_stage(begun, 300, 100, 140, {})[-1].start == 300
    assert epochs.with_stage(begun, 250, 100, 40, {})[-1].start == 250, "fewer scenes: at once"
    assert epochs.with_stage(begun, 0, 100, 140, {}) == [Stage(0, 140, {})], "of what was never shown nothing is left"
    with pytest.raises(ValueError, match="stages begin at 0"):
        Epochs([(3, np.ones(2))])


def test_planned_scenes_come_whole_and_each_picture_once():
    planned, others = scene_order._distinct(FULL)
    of_plan = [block for block in FULL.blocks if block.planned]
    assert sum(planned.values()) == sum(block.count for block in of_plan) and len(others) == FULL.count - sum(
        planned.values()
    )
    everything = scene_order.training_scenes(FULL)
    assert len(set(everything)) == len(everything) == len(planned) + len(others)
    first = scene_order.training_scenes(FULL, scene_order.FIRST)
    assert first == everything[: scene_order.FIRST] and not set(first) & set(planned)
    whole = scene_order.training_scenes(FULL, scene_order.FIRST + len(planned))
    assert set(planned) <= set(whole) and whole[: scene_order.FIRST] == first
    for wrong in (0, scene_order.FIRST + 1, len(everything) + 1):
        with pytest.raises(ValueError, match=f"--scenes must be 1 to {scene_order.FIRST:d} or .* not {wrong}"):
            scene_order.training_scenes(FULL, wrong)
    pictures = {dataclasses.replace(FULL.scene(index), index=0) for index in planned}
    assert len(pictures) == len(planned), "a picture that is repeated is one row, shown more often"


def test_an_epoch_has_what_is_planned_and_factors_for_the_rest():
    planned, _ = scene_order._distinct(FULL)
    everything = scene_order.training_scenes(FULL)
    assert scene_order.times_an_epoch(FULL, everything).sum() == FULL.count
    often = [max(planned, key=planned.get)]
    assert scene_order.times_an_epoch(FULL, often).tolist() == [1000]
    two = [index for index in scene_order.training_scenes(FULL, 2_000) if index in FULL.indices("two objects")]
    assert set(scene_order.times_an_epoch(FULL, two, {"two objects": 3})) == {3}
    for wrong in ({"tail: grapes": 2}, {"unicorns": 2}, {"several": 0}):
        with pytest.raises(ValueError, match="a block may be shown more often"):
            scene_order.times_an_epoch(FULL, two, wrong)


def test_a_resumed_training_knows_its_stages():
    few = min(200, len(scene_order._distinct(TINY)[1]))
    record = {"samples": few + 10, "epochs": [dataclasses.asdict(Stage(0, few, {}))]}
    stages, order = scene_order.plan_epochs(TINY, record, len(scene_order.training_scenes(TINY)), {}, 0)
    assert (
        [stage.start for stage in stages] == [0, 2 * few] and order.length(0) == few and order.length(1) == TINY.count
    )
    assert scene_order.plan_epochs(TINY, record, few, {}, 0)[0] == [Stage(0, few, {})]
    assert scene_order.plan_epochs(TINY, {}, few, {}, 0)[0] == [Stage(0, few, {})]


def test_factors_are_read_from_the_command_line():
    assert (
        parts._factors(["two objects=2", "several=3"]) == {"two objects": 2, "several": 3}
        and parts._factors(None) == {}
    )
    for wrong in ("two objects", "several=x", "several=-1"):
        with pytest.raises(ValueError, match="a block and a whole number"):
            parts._factors([wrong])

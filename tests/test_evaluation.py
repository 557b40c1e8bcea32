"""Evaluation: the measure reads true pictures rightly, and the shipped Pocket follows the prompt."""

from __future__ import annotations

import numpy as np
import pytest

import sdwidgets
from sdwidgets.pocket import evaluation, scenes


def test_the_measure_reads_true_renders():
    pictures = [scenes.make_scene(scenes.SIMPLE, index) for index in range(200)]
    read = evaluation.background_colour(np.stack([np.asarray(scenes.render(scene)) for scene in pictures]))
    assert np.mean([a == b.background for a, b in zip(read, pictures, strict=True)]) >= 0.99


def test_prompts_cover_objects_and_colours_evenly():
    asked = evaluation.background_prompts(scenes.SIMPLE, 400)
    assert len(set(asked)) == 400
    assert {colour for _, colour in asked} == set(scenes.SIMPLE.colours)


@pytest.mark.parametrize(("right", "low", "high"), [(95, 0.888, 0.978), (100, 0.963, 1.0), (0, 0.0, 0.037)])
def test_the_interval_is_wilsons(right, low, high):
    """Reference values from Wilson's formula as in scipy.stats.binomtest(...).proportion_ci(method="wilson")."""
    assert evaluation.Rate("x", 100, right).interval() == pytest.approx((low, high), abs=1e-3)


def test_pocket_draws_the_background_that_the_prompt_names():
    pipe = sdwidgets.load("pocket", device="cpu", dtype="float32")
    pipe.set_progress_bar_config(disable=True)
    rate = evaluation.background_rate(
        pipe, scenes.SIMPLE, count=40, num_inference_steps=12, guidance_scale=3.0
    )
    assert rate.rate >= 0.9, rate.row()

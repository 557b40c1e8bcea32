"""The guidance explorer's data: pictures and arrows of both predictions, what does not belong together, text that stays text."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import re

import numpy as np
import pytest
from PIL import Image

import sdwidgets
from sdwidgets.widgets.guidance_explorer import GuidanceExplorer, plane
from tests import tiny

EVIL = "</script><script>window.pwned = 1</script><img src=x onerror=alert(1)>"


@functools.cache
def recorded(scale: float, prompt: str = tiny.PROMPT, seed: int = 0, steps: int = 4, family: str = "sd"):
    pipe = tiny.pipeline(family)
    with sdwidgets.record(pipe) as trace:
        tiny.run(pipe, seed=seed, steps=steps, prompt=prompt, guidance_scale=scale)
    return trace


def a_view(*scales, **settings):
    return GuidanceExplorer([recorded(scale, **settings) for scale in scales or (1.0, 2.0, 8.0)])


def test_it_opens_in_the_middle_and_can_be_moved():
    view = a_view(8.0, 1.0, 2.0)
    assert view.scales == (1, 2, 8) and view.state == {"scale": 2, "step": 1}
    view.set(scale=8, step=3)
    assert view.state == {"scale": 8, "step": 3}
    with pytest.raises(ValueError, match="no run was recorded at guidance 3; there are: 1, 2, 8"):
        view.set(scale=3)
    for step in (4, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="whole number from 0 to 3"):
            view.set(step=step)
    with pytest.raises(TypeError, match="has no 'speed'"):
        view.set(speed=1)


def test_every_step_has_its_plane_and_three_pictures():
    data = a_view(2.0, 8.0).data
    for run, scale in zip(data["runs"], (2, 8), strict=True):
        assert run["scale"] == scale and run["note"] is None and len(run["steps"]) == 4
        for step in run["steps"]:
            told = step["plane"]
            line = [u + scale * (c - u) for u, c in zip(told["uncond"], told["cond"], strict=True)]
            np.testing.assert_allclose(told["guided"], line, atol=2e-3)
            assert told["uncond"][1] == 0 and told["cond"][1] >= 0 and told["outside"] < 1e-3
            assert step["guided"]["shape"] == [4, 8, 6]


def test_the_plane_keeps_lengths_and_angles():
    u, c = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    u[0, 0, 0], c[0, 0, 0], c[0, 1, 1] = 2.0, 3.0, 3.0
    told = plane(u, c, u + 2 * (c - u))
    assert (
        math.isclose(told["angle"], 45)
        and np.allclose(told["uncond"], [1, 0])
        and np.allclose(told["cond"], [1.5, 1.5])
    )
    assert np.allclose(told["guided"], [2, 3]) and told["outside"] < 1e-12
    apart = np.zeros((1, 2, 2))
    apart[0, 0, 1] = 4.0
    assert math.isclose(plane(u, c, apart)["outside"], 2.0)
    same = plane(u, 2 * u, 3 * u)
    assert same["cond"] == [2.0, 0.0] and same["angle"] == 0  # no plane, and nothing that is not a number
    assert plane(0 * u, 0 * u, 0 * u)["guided"] == [0.0, 0.0]


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_guidance_is_the_same_line_in_predicted_pictures(family):
    """x0 is an affine function of the prediction whose weights sum to one, so guidance may be done on either."""
    trace = recorded(5.0, family=family)
    for step in trace:
        uncond, cond = (step.half_original(half, "epsilon") for half in ("uncond", "cond"))
        np.testing.assert_allclose(uncond + 5 * (cond - uncond), step.pred_original, rtol=1e-3, atol=1e-3)


def test_a_run_that_asked_once_says_so():
    run = a_view(1.0, 2.0).data["runs"][0]
    assert "one prediction" in run["note"] and "at 1 and below" in run["note"]
    for step, kept in zip(run["steps"], recorded(1.0), strict=True):
        assert "plane" not in step and "uncond" not in step and "guided" in step
        assert step["length"] == pytest.approx(np.sqrt((kept.noise_pred[0] ** 2).mean()), abs=1e-3)


def test_a_run_with_guidance_for_a_part_of_its_steps_says_so():
    trace = recorded(4.0)
    steps = [
        dataclasses.replace(step, noise_pred_uncond=None, noise_pred_cond=None) if step.index > 1 else step
        for step in trace
    ]
    part = sdwidgets.Trace(trace.settings, tuple(steps), trace.final_latents, trace.images)
    assert (
        GuidanceExplorer([part]).data["runs"][0]["note"].startswith("2 of 4 steps of this run called the network once")
    )


def test_decoded_pictures_take_the_place_of_rough_ones():
    shown = {
        name: np.full((4, 64, 48, 3), level, np.uint8)
        for name, level in [("uncond", 10), ("cond", 100), ("guided", 200)]
    }
    step = GuidanceExplorer([recorded(2.0)], [shown]).data["runs"][0]["steps"][2]
    for name, level in [("uncond", 10), ("cond", 100), ("guided", 200)]:
        picture = np.asarray(Image.open(io.BytesIO(step[name])).convert("RGB")).astype(int)
        assert picture.shape == (64, 48, 3) and abs(picture - level).max() < 12
    with pytest.raises(ValueError, match="4 steps"):
        GuidanceExplorer([recorded(2.0)], [{"uncond": np.zeros((3, 8, 8, 3), np.uint8)}])
    with pytest.raises(ValueError, match="names are uncond, cond, guided"):
        GuidanceExplorer([recorded(2.0)], [{"both": np.zeros((4, 8, 8, 3), np.uint8)}])
    with pytest.raises(ValueError, match="2 entries of pictures for 1 traces"):
        GuidanceExplorer([recorded(2.0)], [None, None])


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "no trace to show"),
        ([recorded(2.0), recorded(4.0, prompt="a cat")], "differ in their prompt"),
        ([recorded(2.0), recorded(4.0, seed=1)], "differ in their seed, 0 and 1"),
        ([recorded(2.0), recorded(4.0, steps=3)], "number of steps, 4 and 3"),
        ([recorded(2.0), recorded(2.0)], "two runs have guidance 2"),
        ([sdwidgets.Trace()], "no steps, or no guidance scale"),
    ],
    ids=["none", "prompt", "seed", "steps", "twice", "empty"],
)
def test_runs_that_do_not_belong_together(others, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GuidanceExplorer(others)


def test_text_stays_text(tmp_path):
    view = a_view(1.0, 2.0, prompt=EVIL)
    page = view.export_html(tmp_path / "guidance.html").read_text("utf-8")
    assert EVIL not in page and "<script>window.pwned" not in page and page.count("<script>") == 1
    bundle = view._repr_mimebundle_()
    assert bundle["image/jpeg"].startswith(b"\xff\xd8") and EVIL not in bundle["text/html"]


def test_the_still_picture_shows_every_scale():
    sheet = np.asarray(a_view(1.0, 2.0, 8.0).static_image()).astype(int)
    assert sheet.shape[1] == 3 * 166 + 6
    thirds = [sheet[60:120, 6 + i * 166 : 150 + i * 166] for i in range(3)]
    assert (abs(thirds[0] - thirds[2]) > 2).any() and not (thirds[1] == 255).all()

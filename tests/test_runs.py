"""What a recorded run shows: `sdwidgets.analysis.runs`."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import sdwidgets
from sdwidgets import plots
from sdwidgets.analysis import runs
from sdwidgets.latents import linear_preview
from tests.test_replay import a_trace


def test_sizes_of_detail_add_up_and_have_nothing_in_common():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3))
    parts = runs.split_by_size(pictures)
    assert list(parts) == ["the whole", "16 pixels and more", "4 to 16 pixels", "below 4 pixels"]
    np.testing.assert_allclose(sum(parts.values()), pictures)
    whole, large, _, _ = parts.values()
    for a, b in combinations(parts.values(), 2):
        assert abs((a * b).sum()) < 1e-4 * (pictures**2).sum()
    np.testing.assert_allclose(whole[:, 0, 0], pictures.mean((1, 2)))
    assert np.ptp(large[:, :16, :16], axis=(1, 2)).max() == 0, "one mean a block"
    wave = np.tile([[[0.0] * 3], [[9.0] * 3]], (16, 48, 1))[None]  # lines of one pixel
    assert (
        np.ptp(runs.split_by_size(wave)["below 4 pixels"]) == 9
        and not runs.split_by_size(wave)["4 to 16 pixels"].any()
    )


@pytest.mark.parametrize("blocks", [(5,), (4, 16), (16, 16), (64,)])
def test_blocks_that_do_not_fit_are_refused(blocks):
    with pytest.raises(ValueError, match="do not divide 32 x 48 pixels"):
        runs.split_by_size(np.zeros((1, 32, 48, 3)), blocks)


def test_what_is_left_is_told_by_size():
    picture = np.zeros((32, 32, 3))
    cast, fine = np.full_like(picture, 8.0), np.tile([[[-4.0] * 3, [4.0] * 3]], (32, 16, 1))
    halves = np.where(np.arange(32)[:, None, None] < 16, 2.0, -2.0) + picture
    previews = np.stack([cast + halves + fine, cast / 2 + halves * 2 + fine, halves + fine / 4])
    assert runs.left_by_size(previews, picture, blocks=(16,)) == {
        "the whole": pytest.approx([1, 0.5, 0]),
        "16 pixels and more": pytest.approx([1, 2, 1]),
        "below 16 pixels": pytest.approx([1, 1, 0.25]),
    }


def test_noise_is_added_and_removed_at_the_same_levels():
    trace = sdwidgets.load_demo("00-astronaut")
    (forward, backward), labels = runs.forward_and_backward(trace, columns=5)
    assert forward.shape == (5, 16, 16, 3) and labels[0] == "100 % picture" and labels[-1] == "1 %, t = 951"
    assert np.array_equal(forward[0], backward[0])
    middle = next(step for step in trace if f"t = {step.timestep:.0f}" == labels[2].split(", ")[1])
    assert labels[2].startswith(f"{100 * middle.alpha**2:.0f} %")
    assert np.array_equal(backward[2], linear_preview(middle.latents[0], trace.preview_factors))
    distance = [np.abs(row.astype(float) - forward[0]).mean() for row in forward]
    assert distance == sorted(distance) and np.abs(forward[-1].astype(float) - backward[-1]).mean() > 20
    assert len(plots.forward_and_backward(*runs.forward_and_backward(trace)).texts) == 14


def test_a_run_without_an_end_has_no_way_back():
    trace = a_trace(steps=3)
    with pytest.raises(ValueError, match="of at least 6 steps"):
        runs.forward_and_backward(trace)

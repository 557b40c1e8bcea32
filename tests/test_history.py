"""The last runs: bounded, shown again bit for bit, compared."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from sdwidgets.widgets.playground import history
from sdwidgets.widgets.playground.history import RunRequest
from tests.test_playground import SECONDS, make  # noqa: F401  (a fixture)


def test_runs_and_traces_are_bounded(make, monkeypatch):  # noqa: F811
    monkeypatch.setattr(history, "RUNS", 5)
    monkeypatch.setattr(history, "TRACES", 2)
    play = make(num_inference_steps=1, autorun=False)
    traces = [weakref.ref(play.run(seed=seed).wait(SECONDS)) for seed in range(12)]
    gc.collect()
    assert [entry.settings["seed"] for entry in play.history] == [7, 8, 9, 10, 11]
    assert [trace() is not None for trace in traces] == [False] * 10 + [True] * 2
    assert [entry.run is not None for entry in play.history] == [False] * 3 + [True] * 2
    assert all(len(entry.picture) < 100_000 for entry in play.history)
    assert [m["numbers"] for m in play.sent if m["kind"] == "result"][-1] == [8, 9, 10, 11, 12]


def test_large_traces_go_first(make, monkeypatch):  # noqa: F811
    play = make(num_inference_steps=1, autorun=False)
    one = play.run(seed=0).wait(SECONDS).nbytes
    monkeypatch.setattr(history, "BYTES", int(2.5 * one))  # of the older ones together
    for seed in range(1, 6):
        play.run(seed=seed).wait(SECONDS)
    assert [entry.run is not None for entry in play.history] == [False, False, False, True, True, True]
    assert play.trace.nbytes == one > play.trace.latents.nbytes


def test_the_same_request_twice_is_one_run(make):  # noqa: F811
    play = make(num_inference_steps=1, autorun=False)
    for seed in (1, 1, 2):
        play.run(seed=seed).wait(SECONDS)
    assert [(entry.number, entry.settings["seed"]) for entry in play.history] == [(1, 1), (2, 2)]


def test_a_click_shows_a_run_again(make, monkeypatch):  # noqa: F811
    monkeypatch.setattr(history, "TRACES", 2)
    play = make(num_inference_steps=2, autorun=False)
    first = play.run(prompt="a cat", seed=1).wait(SECONDS)
    second = play.run(prompt="a dog", seed=2, num_inference_steps=3).wait(SECONDS)
    third = play.run(seed=3, scheduler="Euler").wait(SECONDS)
    play.page("restore", run=2)
    assert play.wait(SECONDS) is second and len(play.history) == 3  # its trace is kept: it is only shown
    assert (play.settings["prompt"], play.settings["seed"], play.settings["scheduler"]) == ("a dog", 2, "DDIM")
    assert [m["entry"]["number"] for m in play.sent if m["kind"] == "result"][-1] == 2
    again = play.restore(1).wait(SECONDS)  # made again, in its place
    assert len(play.history) == 3 and play.history[0].run.trace is again
    assert again is not first and np.array_equal(again.images, first.images) and third is not again
    play.page("restore", run=99)
    assert "not kept any more; there are: 1, 2, 3" in play.sent[-1]["errors"][""]
    for number in (99, "1", None):
        with pytest.raises(ValueError, match="not kept"):
            play.restore(number)


def test_two_runs_are_compared(make):  # noqa: F811
    play = make(num_inference_steps=1, autorun=False)
    play.run(prompt="<b>a cat", seed=1, guidance_scale=2).wait(SECONDS)
    play.run(prompt="a dog", seed=4, guidance_scale=5.5).wait(SECONDS)
    play.page("compare", numbers=[1, 2])
    message = play.sent[-1]
    assert message["kind"] == "compared" and message["client"] == "page" and message["same_seed"] is False
    assert message["differences"] == [["Prompt", "<b>a cat", "a dog"], ["Seed", "1", "4"], ["Guidance", "2", "5.5"]]
    assert [picture["at"] for picture in message["pictures"]] == [0, 1] and len(play.buffers[-1]) == 2
    play.page("reseed", run=2, like=1)
    assert play.wait(SECONDS).settings.seed == 1 and play.settings["prompt"] == "a dog"
    play.page("compare", numbers=[1, 3])
    assert play.sent[-1]["same_seed"] is True
    for wrong in ([1], [1, 99], [1, {}], []):
        play.page("compare", numbers=wrong)
        assert "not kept any more" in play.sent[-1]["errors"][""]


def test_what_a_task_does_not_read_is_no_difference(make):  # noqa: F811
    settings = make(autorun=False).settings
    a, b = RunRequest(settings), RunRequest({**settings, "strength": 0.1, "border": [1, 2, 3, 4]})
    assert history.differences(a, b) == []
    assert history.differences(a, RunRequest({**settings, "task": "image"})) == [["Task", "text", "image"]]
    wide = RunRequest({**settings, "task": "outpaint", "border": [0, 0, 50, 0]})
    usual = RunRequest({**settings, "task": "outpaint", "guidance_scale": 3.0})
    assert ["Border", "0, 0, 50, 0", "25, 25, 25, 25"] in history.differences(wide, usual)
    assert ["Guidance", f"{settings['guidance_scale']:g}", "3"] in history.differences(wide, usual)


def test_a_new_page_gets_the_history(make):  # noqa: F811
    play = make(num_inference_steps=1, autorun=False)
    for seed in (1, 2):
        play.run(seed=seed).wait(SECONDS)
    play.page("hello")
    state = next(m for m in play.sent if m["kind"] == "state")
    assert [entry["number"] for entry in state["history"]] == [1, 2]

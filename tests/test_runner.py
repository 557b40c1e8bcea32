"""The live mode: the newest settings get their picture, older ones may, and nothing queues up."""

from __future__ import annotations

import copy
import threading
import time

import diffusers
import numpy as np
import pytest
from PIL import Image

from sdwidgets.generation import usual
from sdwidgets.widgets.playground import driver, runner
from tests import tiny
from tests.test_playground import SECONDS, make  # noqa: F401  (a fixture)


def request(play, live: int, **settings) -> None:
    play.page("run", settings=settings, live=live)


def in_a_long_run(make, monkeypatch):  # noqa: F811
    """A Playground in the midst of a live run of 500 steps."""
    monkeypatch.setattr(driver, "LIVE_STEPS", 500)
    play, inside = make(autorun=False, num_inference_steps=500), threading.Event()
    with play.pipe.unet.register_forward_hook(lambda *_: inside.set()):
        request(play, 1)
        assert inside.wait(SECONDS)
    return play


def test_a_reader_who_never_pauses_sees_pictures_and_the_last_one_is_its_own(make):  # noqa: F811
    play = make(autorun=False, num_inference_steps=30)
    for live in range(1, 41):
        request(play, live, seed=str(live))
        time.sleep(0.01)
    trace = play.wait(SECONDS)
    shown = [m["live"] for m in play.sent if m["kind"] == "live"]
    assert trace.settings.seed == 40 and shown[-1] == 40 and shown == sorted(set(shown))
    assert [m["live"] for m in play.sent if m["kind"] == "result"][-1] == 40
    assert "frames" not in play.kinds() and len(play._session.channel._kept) <= 8  # not one for each request
    assert trace.settings.num_inference_steps == driver.LIVE_STEPS and play.settings["num_inference_steps"] == 30
    assert len(play.history) == 1  # a row of live runs leaves one


def test_at_most_one_runs_and_one_waits(make, monkeypatch):  # noqa: F811
    """While a run is held up, requests replace each other, and it may finish: it takes less than the patience."""
    monkeypatch.setattr(runner, "PATIENCE", SECONDS)
    play = make(autorun=False)
    inside, go, runs = threading.Event(), threading.Event(), []

    def hold(module, args):
        inside.set()
        go.wait(SECONDS)

    hook = play.pipe.unet.register_forward_pre_hook(hold)
    try:
        play.heard = lambda message: message["kind"] == "live" and runs.append(message["live"])
        request(play, 1, seed=1)
        assert inside.wait(SECONDS)
        for live in range(2, 200):
            request(play, live, seed=live)
        go.set()
        assert play.wait(SECONDS).settings.seed == 199
    finally:
        go.set()
        hook.remove()
    assert runs == [1, 199]


def test_a_live_run_that_takes_long_gives_way(make, monkeypatch):  # noqa: F811
    monkeypatch.setattr(runner, "PATIENCE", 0.0)
    play = in_a_long_run(make, monkeypatch)
    request(play, 2, num_inference_steps=2)
    assert len(play.wait(SECONDS)) == 2
    assert [m["live"] for m in play.sent if m["kind"] == "live"] == [2]


def test_a_run_is_described_only_when_nothing_is_moved(make, monkeypatch):  # noqa: F811
    monkeypatch.setattr(runner, "IDLE_SECONDS", SECONDS)
    play, shown = make(autorun=False), []

    def follow(message):  # the next request comes as soon as a picture is there
        if message["kind"] == "live":
            shown.append(message["live"])
            if message["live"] == 8:
                monkeypatch.setattr(runner, "IDLE_SECONDS", 0.0)
            else:
                threading.Thread(target=request, args=(play, message["live"] + 1)).start()

    play.heard = follow
    request(play, 1)
    end = time.monotonic() + SECONDS
    while len(shown) < 8 and time.monotonic() < end:
        time.sleep(0.02)
    assert play.wait(SECONDS).complete and shown == list(range(1, 9))
    assert play.kinds().count("result") == 1


def test_stop_stops_a_live_run_too(make, monkeypatch):  # noqa: F811
    play = in_a_long_run(make, monkeypatch)
    play.stop()
    assert not play.wait(SECONDS).complete
    assert "live" not in play.kinds() and play.kinds()[-1] == "done"


def test_generate_after_live_takes_all_the_steps(make):  # noqa: F811
    play = make(autorun=False, num_inference_steps=9)
    request(play, 1, seed=4)
    few = play.wait(SECONDS)
    request(play, 0, seed=4)
    full = play.wait(SECONDS)
    assert (len(few), len(full)) == (6, 9) and len(play.history) == 2
    assert play.restore(1).wait(SECONDS) is few and play.settings["num_inference_steps"] == 6


def test_a_refused_live_request_is_a_sentence_and_the_one_before_it_stays(make):  # noqa: F811
    play = make(autorun=False)
    request(play, 1, seed=1)
    request(play, 2, seed="-1")
    assert play.sent[-1]["kind"] in ("errors", "live", "result", "done")
    assert [m for m in play.sent if m["kind"] == "errors"][0]["errors"].keys() == {"seed"}
    assert play.wait(SECONDS).settings.seed == 1


def test_a_turbo_model_takes_four_steps_of_lcm():
    pipe, settings = tiny.pipeline("sd"), {"task": "text", "strength": 0.6, "num_inference_steps": 20}
    assert driver.few_steps(pipe, settings) == {"num_inference_steps": 6} and not usual.is_turbo(pipe)
    assert driver.few_steps(pipe, {**settings, "num_inference_steps": 3}) == {"num_inference_steps": 3}
    assert driver.few_steps(pipe, {**settings, "task": "image", "strength": 0.5}) == {"num_inference_steps": 12}
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    turbo = {"num_inference_steps": 4, "scheduler": "LCM", "guidance_scale": 1.0}
    assert driver.few_steps(pipe, settings) == turbo
    assert usual.usual_settings(pipe) == turbo, "whatever the table says of the model that it was made from"


def test_a_lora_that_is_named_for_it_makes_a_turbo_model(make):  # noqa: F811
    peft = pytest.importorskip("peft")
    pipe = tiny.pipeline("sd")
    pipe.unet = copy.deepcopy(pipe.unet)  # it is shared, and an adapter that is deleted leaves its layers
    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"]), adapter_name="pocket-turbo")
    play = make(pipe, autorun=False, num_inference_steps=20, guidance_scale=5.0)
    request(play, 1, seed=3, guidance_scale=5.0)
    trace = play.wait(SECONDS)
    settings = trace.settings
    assert (len(trace), settings.scheduler, settings.guidance_scale) == (4, "LCMScheduler", 1.0)
    assert play.settings["guidance_scale"] == 5.0 and pipe.scheduler is play.pipe.scheduler


def test_every_task_can_be_live(make):  # noqa: F811
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    play = make(autorun=False, num_inference_steps=20, task="image", source=picture)
    request(play, 1)
    trace = play.wait(SECONDS)
    assert len(trace) == 6 and trace.settings.strength == 0.6


def test_a_prompt_that_is_too_long_fills_no_output_while_it_is_typed(make, caplog):  # noqa: F811
    from diffusers.utils import logging

    play, long = make(autorun=False), "a red circle " * 60
    pipelines = logging.get_logger("diffusers")
    pipelines.addHandler(caplog.handler)
    before = logging.get_verbosity()
    try:
        logging.set_verbosity_warning()
        request(play, 1, prompt=long)
        play.wait(SECONDS)
        assert not [r for r in caplog.records if "truncated" in r.getMessage()]
        assert logging.get_verbosity() == logging.WARNING
        notes = next(m for m in play.sent if m["kind"] == "queued")["notes"]
        assert "prompt" in notes, "the page says it"
        play.run(prompt=long).wait(SECONDS)
        assert [r for r in caplog.records if "truncated" in r.getMessage()]
    finally:
        logging.set_verbosity(before)
        pipelines.removeHandler(caplog.handler)


def test_a_live_run_leaves_a_core_to_the_page(make):  # noqa: F811
    from sdwidgets.acceleration.threads import _spared

    threads = []
    play = make(autorun=False)
    hook = play.pipe.unet.register_forward_pre_hook(lambda *_: threads.append(_spared.get()))
    try:
        request(play, 1, seed=1)
        play.wait(SECONDS)
        play.run(seed=2).wait(SECONDS)
    finally:
        hook.remove()
    assert threads[0] == 1 and threads[-1] == 0


def test_a_run_that_gives_way_while_its_previews_are_decoded_does_not_end_the_next(make, monkeypatch):  # noqa: F811
    """Its late "done" took the Stop button and the progress of the run that had begun."""
    from sdwidgets import latents

    play, decoding, go_on = make(autorun=False, num_inference_steps=3), threading.Event(), threading.Event()
    decode = latents.decode

    def slowly(*args):
        if not go_on.is_set():
            decoding.set()
            assert go_on.wait(SECONDS)
        return decode(*args)

    monkeypatch.setattr(latents, "decode", slowly)
    play.run(seed=1)
    assert decoding.wait(SECONDS)
    play.run(seed=2)
    go_on.set()
    assert play.wait(SECONDS).settings.seed == 2
    kinds = [kind for kind in play.kinds() if kind in ("queued", "result", "done")]
    assert kinds == ["queued", "result", "queued", "result", "done"]

"""The Playground over a real, tiny pipeline. The tests stand where the page stands: they see every message."""

from __future__ import annotations

import copy
import gc
import inspect
import re
import sys
import threading
import weakref

import ipywidgets
import numpy as np
import pytest
import torch
import traitlets

from sdwidgets import course, record
from sdwidgets.generation.validation import SettingsError, as_number
from sdwidgets.widgets.playground import channel, driver, history, messages, runner
from sdwidgets.widgets.playground.widget import Playground
from sdwidgets.widgets.playground.worker import Worker
from tests import tiny

SECONDS = 120  # until a wait is given up; no test needs more than a few


class Watched(Playground):
    """A Playground that keeps what it sends to the page, and from which thread."""

    def __init__(self, *args, **kwargs):
        self.sent: list[dict] = []
        self.buffers: list[list[bytes]] = []
        self.threads: list[threading.Thread] = []
        self.heard = lambda message: None
        super().__init__(*args, **kwargs)

    def send(self, content, buffers=None):
        if "kind" not in content:
            return super().send(content, buffers)
        self.sent.append(content)
        self.buffers.append(buffers)
        self.threads.append(threading.current_thread())
        self.heard(content)

    def kinds(self) -> list[str]:
        return [message["kind"] for message in self.sent]

    def page(self, kind: str, **content) -> None:
        """As if the page had sent this."""
        self._handle_custom_msg({"kind": kind, "client": "page", **content}, [])


@pytest.fixture
def make():
    """`make(pipe=..., **settings)`: a Playground that is closed after the test."""
    made = []

    def make(pipe=None, cls=Watched, **settings):
        made.append(cls(pipe or tiny.pipeline("sd"), **{"num_inference_steps": 3, **settings}))
        return made[-1]

    yield make
    for each in made:
        each.close()


# ---- running ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_a_run_is_the_pipelines_own(make, family):
    play = make(tiny.pipeline(family), num_inference_steps=2)
    trace = play.run(prompt="a cat", seed=5).wait(SECONDS)
    bare = tiny.pipeline(family)
    arguments = {"prompt": "a cat", "num_inference_steps": 2, "guidance_scale": play.settings["guidance_scale"]}
    picture = bare(**arguments, generator=tiny.generator(5), output_type="np").images
    assert np.array_equal(trace.images, (picture * 255).round().astype(np.uint8))
    assert trace is play.trace and trace.complete and trace.settings.seed == 5
    assert trace.previews.shape == (2, *trace.images.shape[1:])


@pytest.mark.parametrize("wrong", [{"steps": 10}, {"seed": -1}, {"mask": np.zeros((8, 8))}])
def test_one_that_is_refused_says_its_sentence_and_nothing_more(wrong, monkeypatch):
    """ipywidgets closes what is collected, also what never came to be."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises((TypeError, ValueError)):
        Playground(tiny.pipeline("sd"), **wrong)
    gc.collect()
    assert not ignored


@pytest.mark.parametrize("how", ["method", "function"])
def test_a_compiled_network_draws_its_picture_and_says_its_size(make, how):
    pipe = copy.deepcopy(tiny.pipeline("sd"))
    expected = make(pipe).run(prompt="a cat", seed=3).wait(SECONDS).images
    if how == "method":
        pipe.unet.compile(backend="eager")
    else:
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    play = make(pipe)
    assert np.array_equal(play.run(prompt="a cat", seed=3).wait(SECONDS).images, expected)
    assert course.size(pipe) == course.size(tiny.pipeline("sd")) and "StableDiffusionPipeline" in play.code()


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_an_empty_negative_prompt_is_none(make, family):
    """To SDXL an encoded "" is another picture than no negative prompt at all, which is what the pipeline's own default is."""
    pipe = tiny.pipeline(family)
    settings = {"num_inference_steps": 3, "guidance_scale": 6.0}
    bare = pipe("a dog", generator=torch.Generator("cpu").manual_seed(4), output_type="np", **settings).images
    play = make(pipe, negative_prompt="")
    trace = play.run(prompt="a dog", seed=4, **settings).wait(SECONDS)
    assert np.array_equal(trace.images, (bare * 255).round().astype(np.uint8)) and "negative" not in play.code()


def test_numbers_of_numpy_are_plain_in_settings_and_program(make):
    play = make(tiny.pipeline("sd"))
    play.run(prompt="a dog", seed=np.int64(3), num_inference_steps=np.int32(2), guidance_scale=np.float32(2.5)).wait(
        SECONDS
    )
    assert "np." not in play.code() and type(play.settings["seed"]) is int
    assert play.trace.settings.seed == 3


def test_a_run_without_a_negative_prompt_takes_that_of_the_controls_away(make):
    pipe = tiny.pipeline("sd")
    with record(pipe) as trace:
        tiny.run(pipe, steps=2)
    play = make(pipe, negative_prompt="green")
    play.show(trace)
    assert play.settings["negative_prompt"] == ""
    notes = [message["notes"] for message in play.sent if message["kind"] == "queued"][-1]
    assert "48 x 64 pixels; Generate draws" in notes["prompt"]


def test_what_the_run_changed_in_the_pipeline_is_put_back(make):
    pipe = tiny.pipeline("sd")
    scheduler, bars = pipe.scheduler, dict(pipe._progress_bar_config)
    trace = make(pipe, scheduler="Euler ancestral").run().wait(SECONDS)
    assert trace.settings.scheduler == "EulerAncestralDiscreteScheduler"
    assert pipe.scheduler is scheduler and pipe._progress_bar_config == bars


def test_the_page_hears_of_every_step_then_the_run_then_the_decoded_pictures(make, monkeypatch):
    monkeypatch.setattr(runner, "PROGRESS", 0.0)  # no step waits for the next message
    play = make(num_inference_steps=4)
    play.run().wait(SECONDS)
    assert play.kinds() == ["queued", "frames", "frames", "frames", "frames", "result", "pictures", "done"]
    assert [m["number"] for m in play.sent] == list(range(1, 9))
    assert [m["first"] for m in play.sent if m["kind"] == "frames"] == [0, 1, 2, 3]
    assert play.sent[1]["run"]["total"] == 4 and len(play.sent[5]["run"]["frames"]) == 5
    assert play.sent[-1]["failure"] is None and "CPU · float32" in play.sent[-1]["badge"]


def test_two_threads_send_each_message_once():
    """One thread is about to send what another sends first."""
    sent = []
    line = channel.Channel(lambda message, _: sent.append(message["number"]), lambda: False, "push")
    reached = threading.Event()
    with line._lock:
        late = threading.Thread(target=lambda: (reached.set(), line.flush()))
        late.start()
        assert reached.wait(SECONDS) and not late.join(0.1)  # now it waits for the lock
        line.publish("queued", settings={}, notes={}, live=0)
    late.join(SECONDS)
    assert sent == [1]


def test_steps_that_come_too_fast_share_a_message(make, monkeypatch):
    monkeypatch.setattr(runner, "PROGRESS", 1e9)
    play = make(num_inference_steps=6)
    play.run().wait(SECONDS)
    assert play.kinds() == [
        "queued",
        "frames",
        "result",
        "pictures",
        "pictures",
        "done",
    ]  # first at once, the rest together


def test_the_newest_settings_win(make, monkeypatch):
    monkeypatch.setattr(messages, "DEBOUNCE", 1.0)  # longer than a slow machine takes for the messages below
    play = make(num_inference_steps=500)
    first = threading.Event()
    play.heard = lambda message: message["kind"] == "frames" and first.set()
    play.run(seed=0)
    assert first.wait(SECONDS)  # it is running; now a slider is dragged
    for seed in range(1, 21):
        play.page("run", settings={"seed": str(seed), "num_inference_steps": "2"})
    trace = play.wait(SECONDS)
    assert trace.settings.seed == 20 and len(trace) == 2
    assert play.kinds().count("queued") == 21 and play.kinds().count("result") == 1  # what was replaced is never shown


def test_stop_keeps_the_steps_so_far(make, monkeypatch):
    monkeypatch.setattr(runner, "PROGRESS", 0.0)
    play = make(num_inference_steps=500)
    steps = []

    def after_three(message):
        if message["kind"] == "frames":
            steps.append(message)
            if len(steps) == 3:
                play.stop()

    play.heard = after_three
    trace = play.run().wait(SECONDS)
    assert len(trace) == 4 and not trace.complete and trace.previews is None  # it stopped within one step
    assert play.sent[-1]["kind"] == "done" and "stopped after step 4 of 500" in play.sent[-2]["run"]["note"]


def test_the_page_hears_of_a_run_that_was_stopped_before_it_began(make):
    play = make()
    play._session.worker.submit(lambda cancelled: threading.Event().wait(0.5))  # the thread is busy
    play.page("run", settings={})
    play.page("stop")
    play._session.worker.wait(SECONDS)
    play.page("run", settings={})
    play.stop()
    assert play.kinds()[-1] == "done" and play._session.worker.wait(SECONDS) and play.trace is None


def test_two_playgrounds_of_one_pipeline_take_turns(make):
    pipe = tiny.pipeline("sd")
    first, second = make(pipe, num_inference_steps=500), make(pipe, num_inference_steps=2)
    running = threading.Event()
    first.heard = lambda message: message["kind"] == "frames" and running.set()
    first.run(seed=1)
    assert running.wait(SECONDS)
    second.run(seed=2)
    with pytest.raises(TimeoutError):
        second.wait(0.3)  # it waits for its turn
    assert second.kinds() == ["queued"]
    first.stop()
    assert second.wait(SECONDS).complete and second.trace.settings.seed == 2
    assert first.wait(SECONDS).settings.seed == 1 and not first.trace.complete


def test_a_pipeline_that_breaks_is_a_sentence_and_an_exception(make):
    play = make()

    def breaks(module, args):
        raise RuntimeError("the network is unplugged\nsecond line")

    hook = play.pipe.unet.register_forward_pre_hook(breaks)
    try:
        with pytest.raises(RuntimeError, match="unplugged"):
            play.run().wait(SECONDS)
    finally:
        hook.remove()
    assert play.sent[-1]["failure"] == "The run failed (RuntimeError): the network is unplugged"
    assert play.run().wait(SECONDS).complete and play.sent[-1]["failure"] is None


def test_waiting_has_an_end(make):
    play = make()
    with pytest.raises(RuntimeError, match="call run"):
        play.wait(SECONDS)
    play.run(num_inference_steps=500)
    with pytest.raises(TimeoutError, match="longer than 0 s"):
        play.wait(0)


# ---- bad input ----------------------------------------------------------------------------------------------------

BAD = [
    ("num_inference_steps", 0),
    ("num_inference_steps", -1),
    ("num_inference_steps", 10**6),
    ("num_inference_steps", "ten"),
    ("guidance_scale", float("nan")),
    ("guidance_scale", "much"),
    ("seed", -1),
    ("seed", "1.5"),
    ("scheduler", "Magic"),
    ("prompt", None),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_input_is_a_sentence_at_its_control_and_the_widget_lives_on(make, name, value):
    play = make(num_inference_steps=1)
    play.page("run", settings={name: value})
    (message,) = play.sent
    assert message["kind"] == "errors" and list(message["errors"]) == [name]
    assert message["errors"][name].endswith((".", "?", ")")) and len(message["errors"][name]) > 20
    with pytest.raises(SettingsError) as caught:
        play.run(**{name: value})
    assert caught.value.field == name
    assert play.run().wait(SECONDS).complete


@pytest.mark.parametrize("prompt", ["", "x" * 10_000, "مرحبا بالعالم", "🧑🏽‍🚀🚀", "<script>alert(1)</script>"])
def test_any_text_is_a_prompt(make, prompt):
    play = make(num_inference_steps=1)
    play.page("tokenize", text=prompt)
    counted = play.sent[-1]
    assert counted["text"] == prompt and counted["client"] == "page"
    play.page("run", settings={"prompt": prompt})
    assert play.wait(SECONDS).settings.prompt == prompt
    notes = next(message for message in play.sent if message["kind"] == "queued")["notes"]
    assert ("prompt" in notes) == (not prompt or counted["count"] > counted["limit"])


def test_an_unknown_setting_is_refused(make):
    with pytest.raises(TypeError, match="no setting 'steps'; did you mean num_inference_steps"):
        make().run(steps=3)
    with pytest.raises(ValueError, match="no delivery 'pigeon'"):
        make(delivery="pigeon")
    with pytest.raises(SettingsError):
        make(num_inference_steps=0)


def test_typed_numbers():
    assert [as_number(text) for text in ("7", "7.5", "ten", "")] == [7, 7.5, "ten", ""]


# ---- tokens -------------------------------------------------------------------------------------------------------


def test_tokens_say_what_is_read_and_what_is_cut():
    pipe = tiny.pipeline("sd")
    for count in (3, 75, 76, 200):
        tokens = driver.tokens(pipe, "a " * count)
        assert tokens["count"] == count + 2 and tokens["limit"] == 77 and tokens["marks"] == 2
        assert len(tokens["tokens"]) == min(count, 75)
        assert len(tokens["cut"]) == min(max(0, count - 75), driver.MAX_CUT)


def test_the_pieces_of_one_character_are_one_chip():
    tokens = driver.tokens(tiny.pipeline("sd"), "a 🚀 b")
    assert [text for text, _ in tokens["tokens"]] == ["a", "🚀", "b"]
    assert sum(pieces for _, pieces in tokens["tokens"]) == tokens["count"] - 2


# ---- delivery -------------------------------------------------------------------------------------------------------


def test_push_sends_from_the_worker(make):
    play = make(delivery="push")
    play.run().wait(SECONDS)
    assert {t.name for t, m in zip(play.threads, play.sent, strict=True) if m["kind"] == "result"} == {
        "sdwidgets-worker"
    }


def test_pull_sends_nothing_from_the_worker_and_everything_at_a_poll(make):
    play = make(delivery="pull")
    play.run()
    assert play._session.worker.wait(SECONDS)
    assert play.kinds() == ["queued"]
    play.page("poll", seen=1, lost=False)
    assert play.kinds()[-2:] == ["done", "poll_reply"]
    numbers = [message["number"] for message in play.sent if "number" in message]
    assert numbers == sorted(numbers) and {m["number"] for m in play.sent[1:-1]} >= {numbers[-1]}
    assert set(play.threads) == {threading.current_thread()}


def test_waiting_in_a_cell_delivers_too(make):
    play = make(delivery="pull")
    play.run().wait(SECONDS)
    assert play.kinds()[-1] == "done" and set(play.threads) == {threading.current_thread()}


def test_sync_runs_in_the_caller(make):
    play = make(delivery="sync")
    play.run()
    assert play.kinds()[-1] == "done" and play.trace.complete  # before any wait
    assert set(play.threads) == {threading.current_thread()} and play.wait() is play.trace


def test_auto_pushes_until_messages_are_missed_then_lets_the_page_poll(make):
    play = make(delivery="auto")
    play.page("poll", seen=0, lost=False)
    assert play._session.channel.delivery == "push"
    play.page("poll", seen=0, lost=True)
    play.run().wait(SECONDS)
    assert set(play.threads) == {threading.current_thread()}
    stubborn = make(delivery="push")
    stubborn.page("poll", seen=0, lost=True)
    assert stubborn._session.channel.delivery == "push"


def test_auto_pulls_on_colab(make, monkeypatch):
    monkeypatch.setattr(channel.sys, "modules", {**sys.modules, "google.colab": None})
    assert make()._session.channel.delivery == "pull"


def test_auto_is_synchronous_where_there_are_no_threads(make, monkeypatch):
    play = make()
    monkeypatch.setattr(threading.Thread, "start", _no_threads)
    play.run()
    assert play.trace.complete and play._session.channel.delivery == "sync"


def _no_threads(self):
    raise RuntimeError("can't start new thread")


def test_a_page_that_comes_late_gets_everything(make):
    play = make()
    play.run(seed=9).wait(SECONDS)
    play.sent.clear()
    play.page("hello")
    assert play.kinds() == ["state", "queued", "result", "pictures", "done"]  # the run stands for its steps
    state = play.sent[0]
    assert state["client"] == "page" and state["settings"]["seed"] == 9 and state["seen"] == 0
    assert dict(state["schedulers"])["DDIM"] and state["hidden"] == []


def test_the_first_page_starts_the_first_run(make):
    play = make()
    play.page("hello")
    assert play.wait(SECONDS).complete
    play.page("hello")
    assert play._session.worker.idle
    quiet = make(autorun=False)
    quiet.page("hello")
    assert quiet._session.worker.idle and quiet.trace is None


def test_bytes_travel_beside_the_message():
    buffers = []
    assert channel.without_bytes({"a": [b"x", 1], "b": {"c": b"yz"}}, buffers) == {
        "a": [{"at": 0}, 1],
        "b": {"c": {"at": 1}},
    }
    assert buffers == [b"x", b"yz"]


# ---- what code observes ----------------------------------------------------------------------------------------------


def observed(play, *names):
    """What observers of a Playground see: (name, new value, name of the thread)."""
    seen = []
    play.observe(lambda change: seen.append((change.name, change.new, threading.current_thread().name)), [*names])
    return seen


@pytest.mark.parametrize(
    ("delivery", "thread"), [("push", "sdwidgets-worker"), ("pull", "MainThread"), ("sync", "MainThread")]
)
def test_trace_image_and_settings_can_be_observed(make, delivery, thread):
    play = make(delivery=delivery, autorun=False)
    seen = observed(play, "trace", "image", "settings")
    before = play.settings
    trace = play.run(prompt="a cat", seed=4).wait(SECONDS)
    assert [name for name, _, _ in seen] == ["settings", "trace", "image"]
    assert {name for _, _, name in seen[1:]} == {thread} and seen[0][2] == "MainThread"
    assert seen[0][1]["seed"] == 4 and before["seed"] == 0 and play.settings is not before
    assert seen[1][1] is trace is play.trace and np.array_equal(play.image, trace.images[0])
    first = play.settings
    play.run(border=[1, 2, 3, 4]).wait(SECONDS)
    assert first["border"] == [25, 25, 25, 25] and play.settings["border"] is not play._session.settings["border"]
    for name in ("trace", "image", "settings"):
        with pytest.raises(traitlets.TraitError, match="read-only"):
            setattr(play, name, None)
    assert not {"trace", "image", "settings"} & set(play.keys), "the page gets messages, not traits"


def test_a_run_of_the_history_or_of_a_file_is_observed_too(make, monkeypatch):
    monkeypatch.setattr(history, "TRACES", 1)
    play = make(delivery="sync", autorun=False)
    first = play.run(prompt="a cat", seed=1).wait()
    second = play.run(prompt="a dog", seed=2).wait()
    seen = observed(play, "trace", "image", "settings")
    play.restore(2)  # it is shown already, with its settings
    assert seen == []
    play.restore(1)  # made again
    assert [name for name, _, _ in seen] == ["settings", "trace", "image"]
    assert np.array_equal(play.image, first.images[0]) and play.settings["prompt"] == "a cat"
    assert play.show(second).trace is second and play.settings["seed"] == 2
    assert np.array_equal(seen[-1][1], second.images[0])


def test_a_trait_can_be_linked_to_another_widget(make):
    play, text = make(delivery="sync", autorun=False), ipywidgets.Text()
    traitlets.dlink((play, "settings"), (text, "value"), lambda settings: settings["prompt"])
    play.run(prompt="a boat")
    assert text.value == "a boat"


def test_a_stopped_run_has_no_image(make):
    play = make(autorun=False, num_inference_steps=500)
    play.heard = lambda message: message["kind"] == "frames" and play.stop()
    trace = play.run().wait(SECONDS)
    assert not trace.complete and play.trace is trace and play.image is None


@pytest.mark.parametrize("delivery", ["push", "sync"])
def test_an_observer_that_breaks_stops_nothing(make, delivery, capsys):
    play = make(delivery=delivery, autorun=False)
    play.observe(lambda change: 1 / 0, ["trace", "settings"])
    trace = play.run(seed=3).wait(SECONDS)
    assert trace.complete and np.array_equal(play.image, trace.images[0]) and play.kinds()[-1] == "done"
    assert capsys.readouterr().err.count("ZeroDivisionError") == 2


@pytest.mark.parametrize("delivery", ["push", "pull", "sync"])
@pytest.mark.parametrize("name", ["settings", "trace"])
def test_an_observer_may_start_the_next_run(make, delivery, name):
    play = make(delivery=delivery, autorun=False, num_inference_steps=1)
    play.observe(lambda change: play.settings["seed"] == 1 and play.run(seed=2), name)
    play.run(seed=1)
    for _ in range(3):
        play.wait(SECONDS)
    assert play.trace.settings.seed == play.settings["seed"] == 2


def test_an_editor_sees_every_setting():
    made, run = inspect.signature(Playground).parameters, inspect.signature(Playground.run).parameters
    names = driver.set_by_hand()
    assert [*made] == ["pipe", *names, "source", "mask", "autorun", "delivery"]
    assert [*run] == ["self", *names, "source", "mask"]
    assert made["seed"].annotation == "int | None" and made["seed"].default is None
    assert run["seed"].annotation == "int" and run["seed"].default is ...
    for name in names:
        assert re.search(rf"\b{name}\b.*:", Playground.__doc__), f"the docstring explains {name}"


# ---- letting go -----------------------------------------------------------------------------------------------------


def test_a_closed_playground_lets_everything_go():
    play = Watched(tiny.pipeline("sd"), num_inference_steps=2)
    play.run().wait(SECONDS)
    thread, gone = play._session.worker._thread, weakref.ref(play)
    assert thread.daemon
    trace = play.trace
    play.close()
    play.close()  # twice is fine
    with pytest.raises(RuntimeError, match="closed"):
        play.run()
    thread.join(SECONDS)
    assert not thread.is_alive() and trace.complete
    del play
    gc.collect()
    assert gone() is None


def test_closing_stops_a_run():
    play = Watched(tiny.pipeline("sd"), num_inference_steps=500)
    first = threading.Event()
    play.heard = lambda message: message["kind"] == "frames" and first.set()
    play.run()
    assert first.wait(SECONDS)
    thread = play._session.worker._thread
    play.close()
    thread.join(SECONDS)
    assert not thread.is_alive() and play.trace is None


def test_many_runs_keep_few_traces(make):
    play = make(num_inference_steps=1)
    traces = [weakref.ref(play.run(seed=seed).wait(SECONDS)) for seed in range(30)]
    gc.collect()
    assert sum(trace() is not None for trace in traces) == history.TRACES and traces[-1]() is play.trace
    assert len(play.history) == history.RUNS and len(play._session.channel._kept) <= 5
    assert sum(t.name == "sdwidgets-worker" and t.is_alive() for t in threading.enumerate()) <= 1


# ---- the worker -----------------------------------------------------------------------------------------------------


def test_the_worker_does_only_the_newest():
    worker, done = Worker(), []
    running, go = threading.Event(), threading.Event()

    def slow(cancelled):
        running.set()
        go.wait(SECONDS)
        done.append(("slow", cancelled()))

    worker.submit(slow)
    assert running.wait(SECONDS) and not worker.idle
    for i in range(5):
        worker.submit(lambda cancelled, i=i: done.append((i, cancelled())))
    assert worker.waiting
    go.set()
    assert worker.wait(SECONDS)
    assert done == [("slow", True), (4, False)]
    worker.close()
    with pytest.raises(RuntimeError, match="closed"):
        worker.submit(slow)


def test_a_job_that_waits_can_be_delayed_and_dropped():
    worker, done = Worker(), []
    worker.submit(lambda cancelled: done.append("never"), delay=SECONDS)
    assert worker.cancel() is True and worker.wait(SECONDS) and worker.cancel() is False
    worker.submit(lambda cancelled: done.append("never"), delay=SECONDS)
    worker.submit(lambda cancelled: done.append("now"))
    assert worker.wait(SECONDS) and done == ["now"]
    worker.close()


@pytest.mark.gpu
def test_a_run_on_the_graphics_card(make):
    play = make(tiny.pipeline("sd").to("cuda", torch.float16))
    try:
        assert play.run().wait(SECONDS).settings.device.startswith("cuda")
        assert "GPU memory" in play.sent[-1]["badge"]
    finally:
        play.pipe.to("cpu", torch.float32)  # its parts are shared with other tests

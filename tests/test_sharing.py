"""One pipeline and several users at once: every picture is the right one, whoever comes first, and nobody waits for ever."""

from __future__ import annotations

import copy
import ctypes
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sdwidgets import Playground, record
from sdwidgets.analysis.attention import record_attention
from sdwidgets.analysis.denoiser import conditioning
from sdwidgets.analysis.prompt_to_prompt import edit
from sdwidgets.analysis.sampling import run_with, temporarily
from sdwidgets.generation import batch, sharing
from sdwidgets.generation.schedulers import make_scheduler
from sdwidgets.parts import quiet_diffusers
from tests import tiny

STEPS, OTHER_STEPS = 12, 9


def bare(pipe, prompt="a cat", steps=STEPS, **settings):
    """What a cell calls: (1, h, w, 3) float."""
    generator = torch.Generator().manual_seed(1)
    return pipe(prompt, num_inference_steps=steps, generator=generator, output_type="np", **settings).images


OURS = {
    "record": lambda pipe: recorded(pipe).images,
    "run_with": lambda pipe: run_with(pipe, "Euler", "a dog", num_inference_steps=OTHER_STEPS).images,
    "x-ray": lambda pipe: recorded(pipe, watch=True).images,
    "edit": lambda pipe: edit(pipe, "a dog", "a cow", num_inference_steps=OTHER_STEPS).after.images,
    "batch": lambda pipe: np.asarray(batch.draw(pipe, batch.Request("tiny", prompt="a dog", num_inference_steps=OTHER_STEPS))),
    "conditioning": lambda pipe: conditioning(pipe, "a dog", guidance_scale=3.0)["encoder_hidden_states"].numpy(),
    "Playground": lambda pipe: played(pipe).images,
}  # fmt: skip


def recorded(pipe, watch=False):
    own = sharing.own_copy(pipe)
    with record(own) as trace:
        if watch:
            with record_attention(own) as maps:
                own("a dog", num_inference_steps=OTHER_STEPS, generator=torch.Generator().manual_seed(2))
            assert len(maps) == OTHER_STEPS
        else:
            own("a dog", num_inference_steps=OTHER_STEPS, generator=torch.Generator().manual_seed(2))
    assert len(trace) == OTHER_STEPS and trace.complete
    return trace


def played(pipe):
    play = Playground(pipe, autorun=False)
    try:
        trace = play.run(prompt="a dog", num_inference_steps=OTHER_STEPS, seed=3, scheduler="Euler").wait(120)
    finally:
        play.close()
    assert len(trace) == OTHER_STEPS and trace.complete
    return trace


@pytest.mark.parametrize("tries", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OURS)
def test_a_bare_call_beside_one_of_ours_and_ours_beside_it(name, tries):
    """In either order: both pictures are those that they are alone."""
    pipe, ours = tiny.pipeline("sd"), OURS[name]
    alone, own_alone = bare(pipe, guidance_scale=5.0), ours(pipe)
    scheduler, state = pipe.scheduler, dict(vars(pipe))
    with ThreadPoolExecutor(2) as threads:
        for attempt in range(tries):
            calls = [lambda: bare(pipe, guidance_scale=5.0), lambda: ours(pipe)]
            order = (0, 1) if attempt % 2 else (1, 0)
            futures = {}
            for which in order:
                futures[which] = threads.submit(calls[which])
                time.sleep(0.01 * (attempt // 2))
            np.testing.assert_allclose(futures[0].result(120), alone, atol=1e-3)
            np.testing.assert_allclose(np.float32(futures[1].result(120)), np.float32(own_alone), atol=1.01)
    assert pipe.scheduler is scheduler and vars(pipe).keys() == state.keys()


def test_a_block_hears_its_own_thread_alone():
    pipe = tiny.pipeline("sd")
    alone = bare(pipe)
    with ThreadPoolExecutor(1) as other, record(pipe) as trace:
        beside = [other.submit(bare, each).result(120) for each in (sharing.own_copy(pipe), pipe)]
        assert not len(trace), "another thread's steps are not this block's"
        bare(pipe, steps=OTHER_STEPS)
    np.testing.assert_allclose(beside, [alone, alone], atol=1e-5)
    assert len(trace) == OTHER_STEPS


def test_our_own_runs_take_turns():
    pipe, order = tiny.pipeline("sd"), []

    def run():
        with record(pipe) as trace:
            order.append("in")
            bare(pipe, steps=2)
            order.append("out")
        return trace

    with ThreadPoolExecutor(3) as threads:
        traces = [future.result(120) for future in [threads.submit(run) for _ in range(6)]]
    assert order == ["in", "out"] * 6 and all(len(trace) == 2 for trace in traces)


def test_a_cell_that_waits_for_the_pipeline_sends_the_messages_of_the_run():
    """With "pull" the worker's own messages wait for another thread, and the one that waits for the pipeline is one."""
    pipe, sent = tiny.pipeline("sd"), []
    play = Playground(pipe, autorun=False, delivery="pull")
    play.send = lambda message, buffers=None: sent.append(message["kind"])
    play._session.channel._send_raw = play.send
    play.run(prompt="a dog", num_inference_steps=150)
    while play._session.worker.waiting or not sharing._lock_of(pipe).owner:
        time.sleep(0.001)
    with record(pipe) as trace:
        bare(pipe, steps=2)
    assert "frames" in sent and len(trace) == 2
    play.close()


def test_waiting_for_a_playground_inside_a_block_is_a_sentence():
    pipe = tiny.pipeline("sd")
    play = Playground(pipe, autorun=False)
    with record(pipe):
        play.run(prompt="a dog", num_inference_steps=2)
        with pytest.raises(RuntimeError, match="This cell holds the pipeline.*leave the block, then wait"):
            play.wait(60)
    assert len(play.wait(60)) == 2
    play.close()


def test_a_block_that_was_never_closed_lets_go_when_it_is_collected():
    pipe = tiny.pipeline("sd")

    def forgotten():
        record(pipe).__enter__()

    with ThreadPoolExecutor(1) as other:
        other.submit(forgotten).result(60)
    gc.collect()
    with record(pipe) as trace:
        bare(pipe, steps=2)
    assert len(trace) == 2


def test_a_lora_that_is_there_for_a_block_is_in_no_run_of_ours():
    pipe = tiny.pipeline("sd")
    scheduler = make_scheduler("Euler", pipe)
    before = pipe.scheduler
    with ThreadPoolExecutor(1) as other:
        with temporarily(pipe, scheduler=scheduler):
            waiting = other.submit(lambda: recorded_settings(pipe))
            time.sleep(0.2)
            assert not waiting.done() and pipe.scheduler is scheduler
        assert waiting.result(60) == type(before).__name__


def recorded_settings(pipe):
    with record(pipe) as trace:
        bare(pipe, steps=2)
    return trace.settings.scheduler


def test_a_word_that_took_the_place_of_another_is_read():
    """Textual inversion: a word taken away and another put in, so that the number of words is the same."""
    pipe = tiny.pipeline("sd")
    pipe.tokenizer, other = (copy.deepcopy(tiny.clip_tokenizer()) for _ in range(2))
    pipe.tokenizer.add_tokens("<first>"), other.add_tokens("<second>")
    assert "<first>" in sharing.own_copy(pipe).tokenizer.get_added_vocab()
    vars(pipe.tokenizer).update(vars(other))  # the same object, as an unloaded and a loaded inversion leave it
    own = sharing.own_copy(pipe).tokenizer
    assert "<second>" in own.get_added_vocab() and "<first>" not in own.get_added_vocab()
    pipe.tokenizer.model_max_length = 16
    assert sharing.own_copy(pipe).tokenizer.model_max_length == 16


def test_the_worker_outlives_what_its_jobs_raise():
    """An exception outside the drawing, and one that is raised into the thread from outside: a sentence, and the next run is made."""
    pipe = tiny.pipeline("sd")
    play = Playground(pipe, autorun=False)
    session = play._session
    keep = session.runner.finish
    session.runner.finish = lambda *_: (_ for _ in ()).throw(
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
    )
    with pytest.raises(UnicodeEncodeError):
        play.run(prompt="a dog", num_inference_steps=2).wait(60)
    session.runner.finish = keep
    assert len(play.run(prompt="a dog", num_inference_steps=2).wait(60)) == 2
    thread = session.worker._thread
    play.run(prompt="a dog", num_inference_steps=200)
    while not session.worker._busy:
        time.sleep(0.01)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
    )
    with pytest.raises((RuntimeError, TimeoutError), match="interrupted"):
        play.wait(60)
    assert len(play.run(prompt="a dog", num_inference_steps=2).wait(60)) == 2 and thread.is_alive()
    play.close()


def test_quiet_blocks_of_two_threads_leave_the_verbosity_as_it_was():
    import diffusers.utils
    import transformers.utils

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before, inside, leave = [one.get_verbosity() for one in libraries], threading.Event(), threading.Event()

    def other():
        with quiet_diffusers():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with quiet_diffusers():
        thread.start()
        inside.wait(60)
    assert all(one.get_verbosity() == one.ERROR for one in libraries), "one block is still open"
    leave.set()
    thread.join()
    assert [one.get_verbosity() for one in libraries] == before

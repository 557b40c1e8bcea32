"""Long and rough use: hundreds of runs in one Playground, and processes that are killed at any moment of their work.

Each in two lengths: a tenth of it among the slow tests, all of it among the weekly ones.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from sdwidgets.generation import batch
from sdwidgets.pocket.training import trainer
from tests import tiny
from tests.hub_client import Client, save_model, sum_of_weights
from tests.hub_server import Hub
from tests.test_batch import digests, requests
from tests.test_playground import SECONDS, Watched, make  # noqa: F401  (a fixture)
from tests.test_training import Regression, loss_at

MB = 2**20


def lengths(whole: int):
    """A tenth in the slow tier, all of it in the weekly one."""
    tenth, all_of_it = pytest.param(whole // 10, marks=pytest.mark.slow), pytest.param(whole, marks=pytest.mark.weekly)
    return pytest.mark.parametrize("count", [tenth, all_of_it])


def held() -> dict[str, int]:
    """What this process holds: threads, open files, objects, and bytes of memory of its own."""
    gc.collect()
    process = psutil.Process()
    files = process.num_fds() if os.name == "posix" else process.num_handles()
    return {
        "threads": process.num_threads(),
        "files": files,
        "objects": len(gc.get_objects()),
        "bytes": process.memory_full_info().uss,
    }


@lengths(300)
def test_a_playground_draws_the_same_after_hundreds_of_runs_and_holds_no_more(make, count):  # noqa: F811
    play: Watched = make(num_inference_steps=2, autorun=False)
    picture = play.run(prompt="a cat", seed=1).wait(SECONDS).images
    begun = None
    for number in range(count):
        task = {"task": "image", "source": picture[0]} if number % 10 == 9 else {"task": "text"}
        play.run(prompt=f"a cat {number}", seed=number, scheduler=["DDIM", "Euler", "DPM++ 2M"][number % 3], **task)
        if number % 7:  # some are replaced or stopped on their way
            play.wait(SECONDS)
        elif number % 2:
            play.stop()
        play.sent.clear(), play.buffers.clear(), play.threads.clear()
        if number == count // 2:  # by now the history is full and what is made once is made
            play.wait(SECONDS)
            begun = held()
    play.wait(SECONDS)
    play.sent.clear(), play.buffers.clear(), play.threads.clear()
    end = held()
    again = play.run(prompt="a cat", seed=1, scheduler="DDIM", task="text").wait(SECONDS).images
    assert np.array_equal(again, picture)
    assert end["threads"] <= begun["threads"] and end["files"] <= begun["files"], (begun, end)
    assert end["objects"] < 1.02 * begun["objects"] and end["bytes"] < begun["bytes"] + 16 * MB, (begun, end)


# ---- killed, as by a crash or a power cut -------------------------------------------------------------------------

FORKS = multiprocessing.get_context("forkserver") if os.name == "posix" else None
no_forks = pytest.mark.skipif(FORKS is None, reason="kills processes as POSIX can")
WANTED = [*requests(7), *requests(4, guidance_scale=2.0)]
SCHEDULE = trainer.Schedule(steps=60, batch_size=4, learning_rate=1e-2, warmup_steps=2, checkpoint_seconds=0)


def draw(folder: str) -> None:
    torch.set_num_threads(1)
    list(batch.batch(tiny.pipeline("sd"), WANTED, Path(folder), size=3))


def train(folder: str) -> Regression:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return trainer.train("line", Regression(), loss_at, SCHEDULE, Path(folder), {})[0]


def killed(work, folder: Path, seconds: float) -> bool:
    """Whether `work(folder)`, in a process of its own, was killed after so many seconds, before its end."""
    process = FORKS.Process(target=work, args=(str(folder),))
    process.start()
    process.join(seconds)
    alive = process.exitcode is None
    process.kill()
    process.join()
    assert alive or process.exitcode == 0
    return alive


def moments(work, folder: Path, count: int) -> list[float]:
    """So many moments, spread over the time that the unbroken work takes in a process of its own, where it leaves `folder`."""
    FORKS.set_forkserver_preload([__name__])
    for each in (folder.with_name("first"), folder):  # the first one waits for the imports of all
        begun = time.monotonic()
        assert not killed(work, each, SECONDS)
        whole = time.monotonic() - begun
    rng = random.Random(count)
    return [0.9 * whole * (number + rng.random()) / count for number in range(count)]


@no_forks
@lengths(20)
def test_a_killed_batch_goes_on_to_the_pictures_of_an_unbroken_one(tmp_path, count):
    whole, kills = tmp_path / "whole", 0
    for number, moment in enumerate(moments(draw, whole, count)):
        cut = tmp_path / str(number)
        kills += killed(draw, cut, moment)
        draw(cut)
        assert digests(cut) == digests(whole) and not list(cut.glob(".*"))
    assert kills >= count // 2


@no_forks
@lengths(20)
def test_a_killed_training_goes_on_to_the_weights_of_an_unbroken_one(tmp_path, count):
    kills, moments_ = 0, moments(train, tmp_path / "whole", count)
    whole = train(tmp_path / "whole")
    for number, moment in enumerate(moments_):
        cut = tmp_path / str(number)
        kills += killed(train, cut, moment)
        resumed = train(cut)
        assert torch.equal(whole.line.weight, resumed.line.weight) and torch.equal(whole.line.bias, resumed.line.bias)
        assert len(list(cut.glob("*.safetensors"))) == 1, "old checkpoints stay"
    assert kills >= count // 2


@lengths(20)
def test_a_killed_download_is_taken_up_and_loads_the_right_weights(tmp_path, count):
    model, right, rng = save_model(tmp_path / "model"), sum_of_weights(), random.Random(count)
    with Hub(slow=0.05) as hub:
        for number in range(count):
            hub.add(f"owner/killed-{number}", model)
            with Client(tmp_path / "home", hub.url) as client:
                hub.requests.clear()
                client.begin(name=f"owner/killed-{number}")
                while not hub.requests:  # its imports take most of the time
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 1.2))
                client.process.kill()
        with Client(tmp_path / "home", hub.url) as client:
            answers = [client(name=f"owner/killed-{number}") for number in range(count)]
    assert [answer["sum"] for answer in answers] == [right] * count
    assert not any("damaged" in answer["printed"] for answer in answers)

"""Many pictures: batches of every size are the same pictures, sizes are found, and processes share the work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdwidgets.generation import batch
from sdwidgets.generation.batch import BatchSize, Request
from tests import tiny

SMALL = {"num_inference_steps": 2, "height": 64, "width": 64}


def requests(count: int, **more) -> list[Request]:
    return [Request(model="tiny", prompt=f"a cat {n % 3}", seed=n, **{**SMALL, **more}) for n in range(count)]


@pytest.mark.parametrize("more", [{}, {"negative_prompt": "a dog", "scheduler": "Euler ancestral"}])
def test_a_batch_draws_the_pictures_of_single_runs(more):
    pipe = tiny.pipeline("sd")
    wanted = requests(4, **more)
    single = [np.asarray(batch.draw(pipe, request), int) for request in wanted]
    together = [np.asarray(image, int) for image in batch.draw_many(pipe, wanted)]
    assert max(np.abs(a - b).max() for a, b in zip(single, together, strict=True)) <= 1
    assert np.abs(single[0] - single[1]).max() > 1, "other seeds are other pictures"


def test_a_batch_of_other_settings_is_refused():
    with pytest.raises(ValueError, match="split it by settings"):
        batch.draw_many(tiny.pipeline("sd"), [*requests(1), *requests(1, guidance_scale=2.0)])


def test_mixed_settings_and_sizes_are_all_made_and_told(tmp_path):
    wanted = [*requests(3), *requests(2, guidance_scale=2.0), *requests(1)[:0]]
    pipe = tiny.pipeline("sd")
    scheduler = pipe.scheduler
    done = list(batch.batch(pipe, wanted, tmp_path, size=4))
    assert [request for request, _ in done] == wanted and all(fresh for _, fresh in done)
    entries = batch.read_manifest(tmp_path)
    assert [entries[r.file_name()]["batch"] for r in wanted] == [3, 3, 3, 2, 2] and pipe.scheduler is scheduler
    assert not any(fresh for _, fresh in batch.batch(pipe, wanted, tmp_path)), "all were there"


def digests(folder) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in batch.read_manifest(folder).items()}


@pytest.mark.parametrize("stop", range(10))
def test_an_interrupted_batch_ends_as_an_undisturbed_one_bit_for_bit(stop, tmp_path):
    """With a size the batches are cut by index, whatever was made before: the last digits depend on what is drawn beside a picture."""
    pipe, wanted = tiny.pipeline("sd"), [*requests(7), *requests(4, guidance_scale=2.0)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert [r for r, _ in batch.batch(pipe, wanted, whole, size=3)] == wanted
    run = batch.batch(pipe, wanted, cut, size=3)
    for _ in range(stop + 1):
        next(run)
    run.close()
    assert len(digests(cut)) == stop + 1
    again = dict(batch.batch(pipe, wanted, cut, size=3))
    assert sum(again.values()) == len(wanted) - stop - 1, "what was there is not written again"
    assert digests(cut) == digests(whole) and not list(cut.glob(".*"))


def test_work_is_cut_by_index_whatever_the_number_of_processes():
    wanted = [*requests(7), *requests(4, guidance_scale=2.0)]
    alone = batch.divided(wanted, 3)
    assert [len(group) for group in alone] == [3, 3, 1, 3, 1] and sum(alone, []) == wanted
    shares = [batch.divided(wanted, 3, (rank, 2)) for rank in range(2)]
    assert sorted(map(len, sum(shares, []))) == sorted(map(len, alone))
    assert all(group in alone for group in sum(shares, []))
    assert batch.divided(wanted, None, (1, 3)) == [wanted[1::3]]


def test_a_killed_process_leaves_nothing_that_the_next_try_does_not_take(tmp_path):
    pipe, wanted = tiny.pipeline("sd"), requests(2)
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / f".{wanted[0].file_name()}").write_bytes(b"half a pic")
    assert len(list(batch.batch(pipe, wanted, tmp_path))) == 2 and not list(tmp_path.glob(".*"))


def test_memory_that_is_full_on_a_cpu_is_known_by_its_words(tmp_path, monkeypatch):
    bare, counts = batch.draw_many, []

    def narrow(pipe, wanted):
        counts.append(len(wanted))
        if len(wanted) > 2:
            torch.empty(2**60)  # PyTorch's own words
        return bare(pipe, wanted)

    monkeypatch.setattr(batch, "draw_many", narrow)
    assert len(list(batch.batch(tiny.pipeline("sd"), requests(4), tmp_path, size=4))) == 4 and counts == [4, 2, 2]
    monkeypatch.setattr(batch, "draw_many", lambda *_: (_ for _ in ()).throw(RuntimeError("another reason")))
    with pytest.raises(RuntimeError, match="another reason"):
        list(batch.batch(tiny.pipeline("sd"), requests(1), tmp_path / "other", size=1))


def test_a_size_is_doubled_while_it_pays():
    sizes = BatchSize()
    for size, seconds in ((1, 1.0), (2, 1.99), (4, 2.0), (8, 3.95), (16, 7.9)):
        assert sizes.size == size and not sizes.done
        sizes.took(size, 9.0, needs=1, free=None)  # the first run of a size may compile
        sizes.took(size, seconds, needs=1, free=None)
    assert sizes.size == 4 and sizes.done, (
        "two drew hardly more a second than one, and four did; eight and sixteen did not"
    )
    sizes.took(4, 100.0, needs=1, free=None)
    assert sizes.size == 4


def test_a_size_stops_where_memory_or_its_limit_does():
    sizes = BatchSize()
    for _ in range(2):
        sizes.took(1, 1.0, needs=100, free=401)
    assert sizes.size == 2 and not sizes.done
    for _ in range(2):
        sizes.took(2, 1.0, needs=100, free=401)
    assert sizes.size == 2 and sizes.done
    sizes = BatchSize()
    sizes.took(1, 1.0, needs=100, free=300), sizes.took(1, 1.0, needs=1, free=300)
    assert sizes.size == 1 and sizes.done, (
        "a graph that is run again allocates nothing, and needs its memory all the same"
    )
    sizes = BatchSize(most=1)
    sizes.took(1, 1.0, 1, None), sizes.took(1, 1.0, 1, None)
    assert sizes.size == 1 and sizes.done


def test_what_does_not_fit_is_drawn_in_halves(tmp_path, monkeypatch):
    """The pipeline is real; only the memory of a larger machine is taken away from it."""
    bare, counts = batch.draw_many, []

    def narrow(pipe, wanted):
        counts.append(len(wanted))
        if len(wanted) > 2:
            raise MemoryError
        return bare(pipe, wanted)

    monkeypatch.setattr(batch, "draw_many", narrow)
    wanted = requests(5)
    assert [r for r, _ in batch.batch(tiny.pipeline("sd"), wanted, tmp_path, size=4)] == wanted
    assert counts == [4, 2, 2, 1]
    with pytest.raises(MemoryError):
        BatchSize().did_not_fit()


@pytest.mark.parametrize(
    "told, share", [((None, None), (0, 1)), (("1", "4"), (1, 4)), (("x", "4"), (0, 1)), (("9", "4"), (0, 1))]
)
def test_a_process_knows_its_share(told, share, monkeypatch):
    for name, value in zip(("RANK", "WORLD_SIZE"), told, strict=True):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert batch.my_share() == share


@pytest.mark.weekly
def test_two_processes_divide_the_work_and_one_goes_on(tmp_path):
    """As a person starts it: accelerate launches two, which write into one folder."""
    model = tmp_path / "tiny"
    tiny.pipeline("sd").save_pretrained(model)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\na bird\n")
    arguments = [
        "generate",
        "--prompts-file",
        str(prompts),
        "--seeds",
        "0:3",
        "--model",
        str(model),
        "--output",
        str(tmp_path / "out"),
    ]
    arguments += ["--steps", "2", "--height", "64", "--width", "64", "--device", "cpu", "--dtype", "float32"]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    # --multi_gpu is what accelerate calls several of anything.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", f"--main_process_port={port}"]
    launch += ["--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launch, "-m", "sdwidgets", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "process 1 of 2: 5 made now" in done.stdout and "process 2 of 2: 4 made now" in done.stdout
    manifests = sorted((tmp_path / "out").glob("*.jsonl"))
    assert [m.name for m in manifests] == ["manifest-001-of-002.jsonl", "manifest-002-of-002.jsonl"]
    entries = [json.loads(line) for manifest in manifests for line in manifest.read_text().splitlines()]
    assert len({e["file"] for e in entries}) == 9 and {(e["prompt"], e["seed"]) for e in entries} == {
        (prompt, seed) for prompt in ("a cat", "a dog", "a bird") for seed in range(3)
    }
    for entry in entries:
        with Image.open(tmp_path / "out" / entry["file"]) as image:
            assert batch.pixel_hash(image) == entry["sha256"]
    from sdwidgets import cli

    assert cli.main(arguments) == 0, "one process goes on where two stopped"
    assert not (tmp_path / "out" / "manifest.jsonl").exists() and len(list((tmp_path / "out").glob("*.png"))) == 9

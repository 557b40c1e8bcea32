"""Sections of the bench around a picture: start-up, memory of a long session, the browser, many pictures into files."""

from __future__ import annotations

import socket
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch

from bench import harness
from bench.harness import LeftOut, summary
from bench.ways import PROMPT, STEPS, Effort, Pipelines

IMPORT = """
import sys, time
began = time.perf_counter()
import sdwidgets
print(time.perf_counter() - began)
assert "torch" not in sys.modules
"""

START = """
import contextlib, io, sys, time
began = time.perf_counter()
import torch, diffusers, sdwidgets, sdwidgets.loading.pipeline
from diffusers import StableDiffusionPipeline
ready = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    pipe = sdwidgets.load(sys.argv[2], "cpu", "float32", speed=sys.argv[1])
loaded = time.perf_counter()
pipe.set_progress_bar_config(disable=True)
def picture():
    began = time.perf_counter()
    pipe(sys.argv[3], num_inference_steps=20, generator=torch.Generator().manual_seed(0))
    return time.perf_counter() - began
first = picture()
print(ready - began, loaded - ready, first, picture(), loaded - began + first)
"""
PHASES = ("libraries", "load", "first picture", "second picture", "from nothing to a picture")


def startup(pipes: Pipelines, effort: Effort) -> dict:
    """From nothing to a picture, in fresh processes: exact, fast, and fast on a machine that has never done it.

    And the libraries once more without their byte code, which `make install` compiles.
    """
    seconds_of = defaultdict(list)
    folder = str(pipes.folder)
    speeds = pipes.names("exact", "fast")
    for turn in range(effort.starts):
        seconds_of["import sdwidgets"].append(run(IMPORT)[0])
        for speed in speeds:
            for phase, seconds in zip(PHASES, run(START, speed, folder, PROMPT), strict=True):
                seconds_of[f"{speed}: {phase}"].append(seconds)
        if turn < 2 and "fast" in speeds:
            with tempfile.TemporaryDirectory() as empty:
                took = run(START, "fast", folder, PROMPT, SDWIDGETS_CACHE=empty)
                for phase, seconds in zip(PHASES, took, strict=True):
                    seconds_of[f"fast, the first time ever: {phase}"].append(seconds)
                bare = {"PYTHONPYCACHEPREFIX": empty, "PYTHONDONTWRITEBYTECODE": "1"}
                took = run(START, "exact", folder, PROMPT, **bare)
                seconds_of[f"exact, nothing byte-compiled: {PHASES[0]}"].append(took[0])
    return {name: summary(values) for name, values in seconds_of.items()}


def run(code: str, *arguments: str, **environment: str) -> list[float]:
    return [float(word) for word in harness.run_python("-W", "ignore", "-c", code, *arguments, **environment).split()]


def memory(pipes: Pipelines, effort: Effort) -> dict:
    """Resident memory over many runs in one Playground, each with other settings. However long it takes: all of them are made."""
    from sdwidgets import Playground

    pipe = pipes["fast" if "fast" in pipes.names() else "exact"]
    words = "a cat a dog a red circle on a green background two stars above a blue square".split()
    playground = Playground(pipe, autorun=False)
    held = []
    try:
        for n in range(effort.runs):
            prompt = f"{words[n % 17]} {words[n * 7 % 17]} {n}"
            playground.run(prompt=prompt, seed=n, num_inference_steps=2).wait(timeout=300)
            if n % max(1, effort.runs // 100) == 0 or n == effort.runs - 1:
                held.append((n + 1, harness.resident()))
    finally:
        playground.close()
    return {"runs": effort.runs, "resident": held, **growth(held, effort.runs)}


def growth(held: list[tuple[int, int]], runs: int) -> dict:
    """The median of the last fifth over that of the second tenth, less 1; and an interval on the safe side, from both medians' own."""
    early = [count for n, count in held if 0.1 * runs < n <= 0.2 * runs]
    late = [count for n, count in held if n > 0.8 * runs]
    (low, high), (late_low, late_high) = harness.bootstrap(early), harness.bootstrap(late)
    grown = float(np.median(late) / np.median(early) - 1)
    return {"growth": grown, "interval": [late_low / high - 1, late_high / low - 1]}


def in_a_browser(call, *arguments):
    """LeftOut where there is no playwright or no Chromium."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        raise LeftOut("playwright is not installed: pip install 'sdwidgets[dev]'") from None
    try:
        return call(*arguments)
    except FileNotFoundError as error:
        raise LeftOut(str(error)) from None


def live(pipes: Pipelines, effort: Effort) -> dict:
    """The Playground's live mode in a real browser: pictures a second under a hand that types and drags."""
    from bench.live import live

    names = [name for name in pipes.names() if name.endswith("fast")] or ["exact"]
    return {name: in_a_browser(live, pipes.folder, name, effort.live) for name in names}


def lab(pipes: Pipelines, effort: Effort) -> dict:
    """From `jupyter lab` to a slider that moves the picture, in a real browser; nothing is compiled or measured beforehand. Then a cell
    in a kernel that has drawn before, with the pipeline as it comes."""
    from bench.live import IN_A_WARM_KERNEL, LAB_PHASES, first_pictures, warm_pictures

    name = "fast" if "fast" in pipes.names() else "exact"
    taken = [in_a_browser(first_pictures, pipes.folder, name) for _ in range(min(2, effort.starts))]
    warm = in_a_browser(warm_pictures, pipes.folder, "stock", 2 * effort.starts)
    return {phase: summary([one[phase] for one in taken]) for phase in LAB_PHASES} | {IN_A_WARM_KERNEL: summary(warm)}


def many(pipes: Pipelines, effort: Effort) -> dict:
    """Pictures into files: the size of a batch that was chosen, memory on the way, and one process against two."""
    from sdwidgets.generation.batch import Request, batch, read_manifest

    speed = "fast" if "fast" in pipes.names() else "exact"
    prompts = pipes.fresh(speed, effort.many)
    requests = [Request("pocket", prompt, n, num_inference_steps=STEPS) for n, prompt in enumerate(prompts)]
    with tempfile.TemporaryDirectory() as folder:
        held, began = {}, time.perf_counter()
        for done, _ in enumerate(batch(pipes[speed], requests, Path(folder)), 1):
            for part, share in (("a tenth", 0.1), ("half", 0.5), ("the end", 1.0)):
                if done == max(1, int(share * len(requests))):
                    held[part] = harness.resident()
        took = time.perf_counter() - began
        drawn = [entry["batch"] for entry in read_manifest(Path(folder)).values()]
    # The first half tries, and the last batch may be smaller.
    ((chosen, _),) = Counter(drawn[len(drawn) // 2 :]).most_common(1)
    some = prompts[: max(2, effort.many // 2)]
    return {
        "pictures": len(requests), "a_second": len(requests) / took, "chosen": chosen, "resident": held,
        "sizes": {str(size): count for size, count in sorted(Counter(drawn).items())},
        "processes": {str(count): processes(pipes.folder, speed, some, chosen, count) for count in (1, 2)},
    }  # fmt: skip


def processes(model: Path, speed: str, prompts: list[str], size: int, count: int) -> dict:
    """`sdwidgets generate` by one process on all cores, or by several that share them, as `accelerate launch` starts them.

    Returns its seconds, start included, and pictures a second from the first picture on the disk to the last.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, made = Path(folder, "prompts.txt"), Path(folder, "made")
        file.write_text("\n".join(prompts), encoding="utf-8")
        command = ["-m"]
        if count > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            # --multi_gpu is what accelerate calls several of anything.
            command += ["accelerate.commands.launch", "--multi_gpu", f"--num_processes={count}", "--num_machines=1", f"--main_process_port={port}", "--mixed_precision=no", "--dynamo_backend=no", "-m"]  # fmt: skip
        command += ["sdwidgets", "generate", "--prompts-file", str(file), "--output", str(made), "--model", str(model), "--device", "cpu", "--dtype", "float32", "--speed", speed, "--steps", str(STEPS), "--batch-size", str(size)]  # fmt: skip
        threads = max(1, torch.get_num_threads() // count)
        began = time.perf_counter()
        harness.run_python(*command, OMP_NUM_THREADS=str(threads), ACCELERATE_USE_CPU="true")
        took = time.perf_counter() - began
        moments = sorted(picture.stat().st_mtime for picture in made.glob("*.png"))
    span = moments[-1] - moments[0]
    # The first batch of each was drawn before its first picture was written.
    after = max(1, len(moments) - size * count)
    return {"pictures": len(moments), "threads": threads, "seconds": took, "a_second": after / span if span else None}  # fmt: skip

"""Everything that is asked of two cores, in one command: `python -m bench --json bench/results/NAME.json` (about 12 minutes).

    python -m bench --quick                       # to see that it works; its figures mean nothing
    python -m bench --only pictures recording     # some sections

Pocket on the CPU against stock `StableDiffusionPipeline.from_pretrained(...)` with its defaults: twenty guided steps at 128x128
pixels, ways taking turns in one process. At the end the same again in a process that has ONEDNN_MAX_CPU_ISA=AVX2 and
ATEN_CPU_CAPABILITY=avx2, as on a machine without AVX-512 and AMX. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench import harness
from bench.harness import ratio, rows_of, summary, take_turns

STEPS, TURBO_STEPS = 20, 4
PROMPT = "an astronaut on a blue background"


@dataclass(frozen=True)
class Effort:
    """How long to measure. Times are budgets: a section stops there, with the turns that it has."""

    turns: int = 25
    budget: float = 60.0  # seconds for one section's turns
    pictures: int = 100  # of the agreement
    runs: int = 1000  # in the Playground
    starts: int = 5  # processes
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    live: float = 12.0  # seconds that a hand types, and that it drags


FULL = Effort()
CHILD = Effort(turns=12, budget=35.0, pictures=60, batches=(1, 4, 16))
QUICK = Effort(turns=1, budget=1.0, pictures=2, runs=6, starts=1, batches=(1, 2), live=2.0)


class Pipelines:
    """The ways to draw a picture, each loaded when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder, self.made = folder, {}

    def __getitem__(self, name: str):
        if name not in self.made:
            with quiet():
                self.made[name] = self.load(name)
            self.made[name].set_progress_bar_config(disable=True)
        return self.made[name]

    def load(self, name: str):
        import sdwidgets
        from sdwidgets.schedulers import make_scheduler

        if name == "stock":
            from diffusers import StableDiffusionPipeline

            return StableDiffusionPipeline.from_pretrained(self.folder)
        if not name.startswith("turbo"):
            return sdwidgets.load(str(self.folder), "cpu", "float32", speed=name)
        pipe = sdwidgets.load(str(self.folder), "cpu", "float32")
        pipe.load_lora_weights(self.turbo)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        pipe.scheduler = make_scheduler("LCM", pipe)
        if name.endswith("fast"):
            sdwidgets.speed_up(pipe)
        return pipe

    @property
    def turbo(self) -> Path:
        return self.folder / "extras" / "turbo"

    def names(self) -> list[str]:
        names = ["stock", "exact"]
        try:
            self["fast"]
            names.append("fast")
        except ImportError:
            print("  speed='fast' needs OpenVINO, which is not installed: left out")
        return names + (
            [f"turbo{more}" for more in ("", ", fast") if "fast" in names or not more]
            if self.turbo.is_dir()
            else []
        )


@contextlib.contextmanager
def quiet():
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def draw(pipe, prompt=PROMPT, seed: int = 0, steps: int = STEPS) -> np.ndarray:
    """(n, h, w, 3) float32 in [0, 1]. Guidance stays at the pipeline's default, 7.5; turbo has none."""
    guidance = {"guidance_scale": 1.0} if type(pipe.scheduler).__name__ == "LCMScheduler" else {}
    count = 1 if isinstance(prompt, str) else len(prompt)
    generators = [torch.Generator("cpu").manual_seed(seed * 1000 + n) for n in range(count)]
    return pipe(prompt, num_inference_steps=steps, generator=generators, output_type="np", **guidance).images


# ---- the sections ------------------------------------------------------------------------------------------------


def pictures(pipes: Pipelines, effort: Effort) -> dict:
    """Twenty guided steps, from the prompt to the picture on the host; turbo's four steps without guidance."""
    ways = {}
    for name in pipes.names():
        steps = TURBO_STEPS if name.startswith("turbo") else STEPS
        ways[name] = lambda turn, name=name, steps=steps: draw(pipes[name], seed=turn, steps=steps)
    return {"ways": rows_of(take_turns(ways, effort.turns, budget=effort.budget), "stock")}


def agreement(pipes: Pipelines, effort: Effort) -> dict:
    """PSNR between fast and exact, of pictures with prompts of Pocket's own kind, each with its seed."""
    from sdwidgets.pocket.datasheet import FULL as GRAMMAR
    from sdwidgets.pocket.scenes import make_scene, spread

    if "fast" not in pipes.names():
        return {}
    prompts = [make_scene(GRAMMAR, index).caption for index in spread(GRAMMAR, effort.pictures)]
    levels = [
        harness.psnr(*(draw(pipes[name], prompt, seed=n) for name in ("exact", "fast")))
        for n, prompt in enumerate(prompts)
    ]
    return {"pictures": len(levels), "decibels": summary(levels), "interval": harness.bootstrap(levels)}


def parts(pipes: Pipelines, effort: Effort) -> dict:
    """One call of the U-Net for a guided step, one decoding, one prompt: stock and fast; and the floor of each."""
    from sdwidgets import speed

    stock = pipes["stock"]
    generator = torch.Generator().manual_seed(0)
    cells = stock.unet.config.sample_size
    noise = torch.randn(2, 4, cells, cells, generator=generator)
    latents, time_ = noise[:1], torch.tensor(501)
    with torch.no_grad():
        text = torch.cat(stock.encode_prompt(PROMPT, "cpu", 1, True))
    calls = {
        "step": lambda pipe: pipe.unet(noise, time_, text),
        "decode": lambda pipe: pipe.vae.decode(latents),
        "prompt": lambda pipe: pipe.encode_prompt(PROMPT, "cpu", 1, True),
    }
    names = [name for name in pipes.names() if name in ("stock", "fast")]
    found = {}
    rates = harness.peaks()
    precision = harness.best_precision(rates)
    for part, call in calls.items():
        ways = {name: lambda turn, name=name, call=call: call(pipes[name]) for name in names}
        with torch.no_grad():
            seconds = take_turns(ways, 4 * effort.turns, warm_up=3, budget=effort.budget / 4)
        networks = {"step": stock.unet, "decode": stock.vae, "prompt": stock.text_encoder}
        counted = harness.count(lambda call=call: call(stock), [networks[part]])
        found[part] = {"ways": rows_of(seconds, "stock"), "floor": harness.floor(counted, rates, precision)}
    with torch.no_grad():  # what fast still computes, of which the rest is known beforehand or done for less
        given = speed._Given(stock.unet)
        graph = speed._UNetGraph(stock.unet, given)
        inputs = (noise, given.times(501.0), *given.texts(text))
        smaller = speed._with_transposed_convolutions(speed.copy.deepcopy(stock.vae.decoder))
        for part, network, call in (
            ("step", graph, lambda: graph(*inputs)),
            ("decode", smaller, lambda: smaller(latents)),
        ):
            found[part]["floor_fast"] = harness.floor(harness.count(call, [network]), rates, precision)
    whole = STEPS * found["step"]["floor_fast"]["seconds"] + found["decode"]["floor_fast"]["seconds"]
    stock_operations = STEPS * found["step"]["floor"]["operations"] + found["decode"]["floor"]["operations"]
    found["rates"] = rates
    found["picture"] = {"operations": stock_operations, "floor_seconds": stock_operations / rates[precision], "floor_fast_seconds": whole, "precision": precision}  # fmt: skip
    if "fast" in names:
        found["fast"] = how_fast(pipes["fast"])
    return found


def how_fast(pipe) -> dict:
    """What OpenVINO was told, and with which instructions it computes: the kinds of its kernels, counted."""
    found = {}
    for name, network in (("unet", pipe.unet), ("decoder", pipe.vae.decoder)):
        cells = {
            c.cell_contents
            for c in network.forward.__func__.__closure__
            if type(c.cell_contents).__name__ == "Compiled"
        }
        (graph,) = cells
        runner = next(iter(graph.runners.values()))
        kinds = Counter(
            node.get_rt_info()["primitiveType"].astype(str)
            for node in runner.network.get_runtime_model().get_ops()
        )
        found[name] = {
            "precision": graph.plan.precision,
            "parts": graph.plan.parts,
            "kernels": dict(kinds.most_common(8)),
        }
    return found


def recording(pipes: Pipelines, effort: Effort) -> dict:
    """What recording adds to a run: its time until the trace is on the host, against the bare run of the same turn."""
    from sdwidgets.latents import factors_for, linear_preview
    from sdwidgets.recording import record

    def recorded(pipe, turn, on_step=None):
        with record(pipe, on_step=on_step):
            return draw(pipe, seed=turn)

    found = {}
    for name in [name for name in pipes.names() if name in ("exact", "fast")]:
        pipe = pipes[name]
        factors = factors_for(pipe)
        shown: list = []
        preview = lambda step: shown.append(linear_preview(step.pred_original, factors))  # noqa: B023, E731
        ways = {
            "bare": lambda turn, pipe=pipe: draw(pipe, seed=turn),
            "recorded": lambda turn, pipe=pipe: recorded(pipe, turn),
            "recorded, previews": lambda turn, pipe=pipe, preview=preview: recorded(pipe, turn, preview),
        }
        if not all(
            np.array_equal(ways["bare"](0), ways[way](0)) for way in ("recorded", "recorded, previews")
        ):
            raise SystemExit(
                "a recorded picture differs from the bare one: this must not happen, please report it"
            )
        seconds = take_turns(ways, 2 * effort.turns, budget=effort.budget / 2)
        found[name] = {
            way: {"seconds": summary(values), "times": ratio(values, seconds["bare"])} for way, values in seconds.items()
        }  # fmt: skip
    return found


def batches(pipes: Pipelines, effort: Effort) -> dict:
    """Pictures a second against how many are drawn at once."""
    names = [name for name in pipes.names() if name in ("exact", "fast")]
    found: dict = {name: {} for name in names}
    for size in effort.batches:
        ways = {
            name: lambda turn, name=name, size=size: draw(pipes[name], [PROMPT] * size, seed=turn)
            for name in names
        }
        seconds = take_turns(
            ways, max(1, effort.turns // 5), warm_up=1, budget=effort.budget / len(effort.batches), least=1
        )
        for name in names:
            found[name][str(size)] = summary([size / taken for taken in seconds[name]])
    return {"pictures_a_second": found}


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
import torch, diffusers, sdwidgets, sdwidgets.pipelines
from diffusers import StableDiffusionPipeline
ready = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    pipe = sdwidgets.load("pocket", "cpu", "float32", speed=sys.argv[1])
loaded = time.perf_counter()
pipe.set_progress_bar_config(disable=True)
def picture():
    began = time.perf_counter()
    pipe("an astronaut on a blue background", num_inference_steps=20, generator=torch.Generator().manual_seed(0))
    return time.perf_counter() - began
first = picture()
print(ready - began, loaded - ready, first, picture(), loaded - began + first)
"""
PHASES = ("libraries", "load", "first picture", "second picture", "from nothing to a picture")


def startup(pipes: Pipelines, effort: Effort) -> dict:
    """From nothing to a picture, in fresh processes: exact, fast, and fast on a machine that has never done it."""
    found: dict = {"import sdwidgets": []}
    speeds = ["exact", "fast"] if "fast" in pipes.names() else ["exact"]
    for turn in range(effort.starts):
        found["import sdwidgets"].append(run(IMPORT)[0])
        for speed in speeds:
            for phase, seconds in zip(PHASES, run(START, speed), strict=True):
                found.setdefault(f"{speed}: {phase}", []).append(seconds)
        if turn < 2 and "fast" in speeds:
            with tempfile.TemporaryDirectory() as empty:
                for phase, seconds in zip(PHASES, run(START, "fast", SDWIDGETS_CACHE=empty), strict=True):
                    found.setdefault(f"fast, the first time ever: {phase}", []).append(seconds)
    return {name: summary(values) for name, values in found.items()}


def run(code: str, *arguments: str, **environment: str) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    path = os.pathsep.join([str(harness.ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path, **environment}
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [float(word) for word in done.stdout.split()]


def memory(pipes: Pipelines, effort: Effort) -> dict:
    """Resident memory over many runs in one Playground, each with other settings; the first tenth warms up."""
    from sdwidgets import Playground

    pipe = pipes["fast" if "fast" in pipes.names() else "exact"]
    words = "a cat a dog a red circle on a green background two stars above a blue square".split()
    playground = Playground(pipe, autorun=False)
    try:
        held, ends = [], time.perf_counter() + 3 * effort.budget
        for n in range(effort.runs):
            prompt = f"{words[n % 17]} {words[n * 7 % 17]} {n}"
            playground.run(prompt=prompt, seed=n, num_inference_steps=2).wait(timeout=300)
            if n % max(1, effort.runs // 50) == 0 or n == effort.runs - 1:
                held.append((n + 1, harness.resident()))
            if time.perf_counter() > ends:
                break
    finally:
        playground.close()
    warm = [bytes_ for runs, bytes_ in held if runs >= held[-1][0] / 10]
    return {"runs": held[-1][0], "resident": held, "growth": warm[-1] / warm[0] - 1}


def live(pipes: Pipelines, effort: Effort) -> dict:
    """The Playground's live mode in a real browser: pictures a second under a hand that types and drags."""
    from bench.live import live

    names = [name for name in pipes.names() if name.endswith("fast")] or ["exact"]
    found = {}
    for name in names:
        try:
            found[name] = live(pipes.folder, name, effort.live)
        except (ImportError, FileNotFoundError) as error:
            print(f"  left out: {error}")
            return {}
    return found


SECTIONS = {
    "pictures": pictures, "parts": parts, "agreement": agreement, "recording": recording,
    "batches": batches, "startup": startup, "memory": memory, "live": live,
}  # fmt: skip
CHILDS = ("pictures", "parts", "agreement", "recording", "batches")
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--model", type=Path, help="a folder of Stable Diffusion 1's shape (default: Pocket)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="one turn of everything; its figures mean nothing"
    )
    parser.add_argument("--no-avx2", action="store_true", help="leave out the second pass with AVX2 only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    from sdwidgets._data import data_folder

    effort = QUICK if args.quick else CHILD if args.child else FULL
    folder = args.model or data_folder("pocket")
    began = time.perf_counter()
    # A cache of its own: what is measured once a machine is measured here, now.
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SDWIDGETS_CACHE"] = cache
        report = {"bench": "cpu", "quick": args.quick, "machine": harness.machine(), "model": folder.name, "weights": harness.digest(folder), "steps": STEPS}  # fmt: skip
        pipes = Pipelines(folder)
        wanted = args.only or (CHILDS if args.child else SECTIONS)
        for name in wanted:
            started = time.perf_counter()
            print(f"{name}: {SECTIONS[name].__doc__}", flush=True)
            report[name] = SECTIONS[name](pipes, effort)
            print(f"  {time.perf_counter() - started:.0f} s", flush=True)
        report["machine"]["load_average_after"] = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    if not args.child and not args.no_avx2:
        print("the same with AVX2 only", flush=True)
        report["avx2"] = in_child(args)
    report["took"] = time.perf_counter() - began
    if not args.child:
        from bench.table import describe

        print("\n" + describe(report))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def in_child(args) -> dict | None:
    """The sections of CHILDS in a process that is told to do without AVX-512 and AMX."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "child.json")
        command = [sys.executable, "-m", "bench", "--child", "--json", str(file)]
        command += ["--quick"] if args.quick else []
        command += ["--model", str(args.model)] if args.model else []
        wanted = [name for name in args.only or CHILDS if name in CHILDS]
        if not wanted:
            return None
        done = subprocess.run([*command, "--only", *wanted], cwd=harness.ROOT, env={**os.environ, **AVX2})
        return json.loads(file.read_text()) if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())

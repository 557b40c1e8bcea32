"""Everything that is asked of two cores, in one command, in about 20 minutes: `python -m bench`, or `make bench`, which installs first.

    python -m bench --json bench/results/NAME.json
    python -m bench --quick                       # to see that it works; its figures mean nothing
    python -m bench --only pictures recording     # some sections

Pocket on the CPU against stock `StableDiffusionPipeline.from_pretrained(...)` with its defaults: twenty guided steps at 128x128
pixels, ways taking turns in one process. At the end the same again in a process that has ONEDNN_MAX_CPU_ISA=AVX2 and
ATEN_CPU_CAPABILITY=avx2, as on a machine without AVX-512 and AMX. Run it on a quiet machine.

The report is written after every section. A section that fails is an "error" in it, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import inspect
import io
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from bench import harness
from bench.harness import LeftOut, attempt, ratio, rows_of, summary, take_turns
from bench.tricks import tricks

STEPS, TURBO_STEPS = 20, 4
OPTIMUM = "optimum-intel"  # the library that does what speed="fast" does; in an environment of its own: pip install ".[optimum]"
PROMPT = "an astronaut on a blue background"  # where a caption is to be remembered


def fresh_prompts() -> list[str]:
    """720 captions, always the same: more than `speed="fast"` remembers, so that going round them none is remembered."""
    from sdwidgets.pocket.world.vocabulary import COLOURS, SHAPES, article

    pairs = [(ground, colour) for ground in COLOURS for colour in COLOURS if colour != ground]
    return [f"{article(f'{colour} {shape}')} on a {ground} background" for ground, colour in pairs for shape in SHAPES]  # fmt: skip


@dataclass(frozen=True)
class Effort:
    """How long to measure. Times are budgets: a section stops there, with the turns that it has."""

    turns: int = 25
    budget: float = 45.0  # seconds for one section's turns
    pictures: int = 100  # of the agreement
    runs: int = 1000  # in the Playground
    starts: int = 3  # processes
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    live: float = 10.0  # seconds that a hand types, and that it drags
    many: int = 64  # pictures of a batch; half as many for one process against two
    compile: bool = True  # try torch.compile too, a minute


FULL = Effort()
CHILD = Effort(turns=12, budget=20.0, pictures=40, batches=(1, 4, 16))
QUICK = Effort(turns=1, budget=1.0, pictures=2, runs=6, starts=1, batches=(1, 2), live=2.0, many=4, compile=False)


class Pipelines:
    """The ways to draw a picture, each loaded when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder, self.made = folder, {}
        self.prompts, self.used = fresh_prompts(), Counter()

    def __getitem__(self, name: str):
        if name not in self.made:
            with quiet():
                self.made[name] = self.load(name)
            self.made[name].set_progress_bar_config(disable=True)
        return self.made[name]

    def load(self, name: str):
        import sdwidgets

        if name == "stock":
            from diffusers import StableDiffusionPipeline

            return StableDiffusionPipeline.from_pretrained(self.folder)
        if name == OPTIMUM:
            from optimum.intel import OVStableDiffusionPipeline

            return OVStableDiffusionPipeline.from_pretrained(self.folder, export=True)
        turbo = name.startswith("turbo")
        speed = "fast" if name == "turbo, fast" else "exact" if turbo else name
        return sdwidgets.load(str(self.folder), "cpu", "float32", speed=speed, turbo=turbo)

    def fresh(self, name: str, count: int = 1) -> list[str]:
        """Captions that this pipeline does not remember. All get the same in the same order."""
        first = self.used[name]
        self.used[name] += count
        return [self.prompts[n % len(self.prompts)] for n in range(first, first + count)]

    @property
    def turbo(self) -> Path:
        return self.folder / "extras" / "turbo"

    def names(self) -> list[str]:
        names = ["stock", "exact", *([OPTIMUM] if find_spec("optimum") else [])]
        try:
            self["fast"]
            names.append("fast")
        except ImportError:
            print("  speed='fast' needs OpenVINO, which is not installed: left out")
        return names + (
            [f"turbo{more}" for more in ("", ", fast") if "fast" in names or not more] if self.turbo.is_dir() else []
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
    """Twenty guided steps, from a prompt that is new each turn to the picture on the host; turbo's four steps without guidance."""
    ways = {}
    for name in pipes.names():
        steps = TURBO_STEPS if name.startswith("turbo") else STEPS
        ways[name] = lambda turn, name=name, steps=steps: draw(
            pipes[name], pipes.fresh(name)[0], seed=turn, steps=steps
        )
        if name.endswith("fast"):  # as under a slider: the caption is remembered
            ways[name + AGAIN] = lambda turn, name=name, steps=steps: draw(pipes[name], PROMPT, seed=turn, steps=steps)
    return {"ways": rows_of(take_turns(ways, effort.turns, budget=effort.budget), "stock")}


AGAIN = ", same prompt again"
EQUALS = 3  # pictures that are compared bit for bit


def agreement(pipes: Pipelines, effort: Effort) -> dict:
    """Exact against stock, bit for bit; PSNR between fast and exact, of pictures with prompts of Pocket's own kind, each with its seed."""
    from sdwidgets.loading.devices import choose_dtype
    from sdwidgets.pocket.world.datasheet import FULL as GRAMMAR
    from sdwidgets.pocket.world.scenes import make_scene, spread

    prompts = [make_scene(GRAMMAR, index).caption for index in spread(GRAMMAR, effort.pictures)]
    equal = [
        np.array_equal(*(draw(pipes[name], prompt, seed=n) for name in ("stock", "exact")))
        for n, prompt in enumerate(prompts[:EQUALS])
    ]
    found: dict = {"exact_is_stock": {"pictures": len(equal), "equal": sum(equal), "dtype": str(pipes["exact"].dtype)[6:], "by_itself": str(choose_dtype("auto", "cpu")[0])[6:]}}  # fmt: skip
    if "fast" not in pipes.names():
        return found
    levels = [
        harness.psnr(*(draw(pipes[name], prompt, seed=n) for name in ("exact", "fast")))
        for n, prompt in enumerate(prompts)
    ]
    return {**found, "pictures": len(levels), "decibels": summary(levels), "interval": harness.bootstrap(levels)}


def guided(pipe):
    """What the U-Net gets at a guided step: (noise of two, the timestep, the text's states of two)."""
    cells = pipe.unet.config.sample_size
    noise = torch.randn(2, 4, cells, cells, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        text = torch.cat(pipe.encode_prompt(PROMPT, "cpu", 1, True)[::-1])
    return noise, torch.tensor(501), text


def parts(pipes: Pipelines, effort: Effort) -> dict:
    """One call of the U-Net for a guided step, one decoding, one new prompt: stock and fast; and the floor of each."""
    stock = pipes["stock"]
    noise, time_, text = guided(stock)
    latents = noise[:1]
    calls = {
        "step": lambda name: pipes[name].unet(noise, time_, text),
        "decode": lambda name: pipes[name].vae.decode(latents),
        "prompt": lambda name: pipes[name].encode_prompt(pipes.fresh(name)[0], "cpu", 1, True),
    }
    names = [name for name in pipes.names() if name in ("stock", "fast")]
    found: dict = {"rates": harness.peaks()}
    for part, call in calls.items():
        ways = {name: lambda turn, name=name, call=call: call(name) for name in names}
        if part == "prompt" and "fast" in names:
            ways["fast" + AGAIN] = lambda turn: pipes["fast"].encode_prompt(PROMPT, "cpu", 1, True)
        with torch.no_grad():
            seconds = take_turns(ways, 4 * effort.turns, warm_up=3, budget=effort.budget / 4)
        found[part] = {"ways": rows_of(seconds, "stock")}
    turbo_vae = pipes["turbo"].vae if "turbo" in pipes.names() else stock.vae
    found["floors"] = floors(stock, turbo_vae, found, noise, time_, text)
    if "fast" in names:
        found["fast"] = how_fast(pipes["fast"])
    return found


def floors(stock, turbo_vae, found: dict, noise, time_, text) -> dict:
    """The floors of whole pictures, way by way; those of the parts go into `found` as "floor" and "floor_fast".

    `turbo_vae`: what turbo decodes with. Fast computes less: what a timestep adds is known beforehand, keys and values of the text
    once a prompt, the states of the empty prompt once, and its decoder has transposed convolutions.
    """
    from sdwidgets.acceleration.decoder import rewritten_decoder
    from sdwidgets.acceleration.unet import PrecomputedInputs, UNetGraph

    rates, precision = found["rates"], harness.best_precision(found["rates"])

    def least(call, network):
        return harness.floor(harness.count(call, [network]), rates, precision)

    with torch.no_grad():
        given = PrecomputedInputs(stock.unet)
        graph = UNetGraph(stock.unet, given)
        step, fast_step, keys = {}, {}, {}
        for n in (1, 2):  # without guidance, and with
            inputs = (noise[:n], given.times(501.0), *given.texts(text[:n]))
            step[n] = least(lambda n=n: stock.unet(noise[:n], time_, text[:n]), stock.unet)
            fast_step[n] = least(lambda inputs=inputs: graph(*inputs), graph)
            kv_projections = torch.nn.ModuleList(given.layers(given.kv_projections))
            keys[n] = least(
                lambda n=n, kv_projections=kv_projections: [layer(text[:n]) for layer in kv_projections],
                kv_projections,
            )
        decode, fast_decode = {}, {}
        for name, vae in (("whole", stock.vae), ("small", turbo_vae)):
            smaller = rewritten_decoder(copy.deepcopy(vae.decoder))
            decode[name] = least(lambda vae=vae: vae.decode(noise[:1]), vae)
            fast_decode[name] = least(lambda smaller=smaller: smaller(noise[:1]), smaller)
        prompt = {
            n: least(lambda n=n: stock.encode_prompt(PROMPT, "cpu", 1, n == 2), stock.text_encoder) for n in (1, 2)
        }
    found["step"] |= {"floor": step[2], "floor_fast": fast_step[2]}
    found["decode"] |= {"floor": decode["whole"], "floor_fast": fast_decode["whole"]}
    found["prompt"] |= {"floor": prompt[2], "floor_fast": prompt[1]}
    whole = {
        "stock": [(STEPS, step[2]), (1, decode["whole"]), (1, prompt[2])],
        "exact": [(STEPS, step[2]), (1, decode["whole"]), (1, prompt[2])],
        "fast": [(STEPS, fast_step[2]), (1, fast_decode["whole"]), (1, prompt[1]), (1, keys[2])],
        "fast" + AGAIN: [(STEPS, fast_step[2]), (1, fast_decode["whole"])],
        "turbo": [(TURBO_STEPS, step[1]), (1, decode["small"]), (1, prompt[1])],
        "turbo, fast": [(TURBO_STEPS, fast_step[1]), (1, fast_decode["small"]), (1, prompt[1]), (1, keys[1])],
        "turbo, fast" + AGAIN: [(TURBO_STEPS, fast_step[1]), (1, fast_decode["small"])],
    }
    return {name: harness.combined(parts) for name, parts in whole.items()}


def graph_of(network):
    """The `Compiled` behind a network that `speed="fast"` has replaced, or None."""
    cells = getattr(getattr(network.forward, "__func__", None), "__closure__", None) or ()
    return next((c.cell_contents for c in cells if type(c.cell_contents).__name__ == "Compiled"), None)


def how_fast(pipe) -> dict:
    """What OpenVINO was told, and with which instructions it computes: the kinds of its kernels, counted.

    No kernels where every shape so far was left to the network itself, because what OpenVINO computed for it was wrong.
    """
    found = {}
    for name, network in (("unet", pipe.unet), ("decoder", pipe.vae.decoder)):
        graph = graph_of(network)
        if graph is None:
            continue
        kinds = Counter(
            node.get_rt_info()["primitiveType"].astype(str)
            for runner in [runner for runner in graph.runners.values() if runner][:1]
            for node in runner.network.get_runtime_model().get_ops()
        )
        found[name] = {"precision": graph.precision, "kernels": dict(kinds.most_common(8))}
    return found


def recording(pipes: Pipelines, effort: Effort) -> dict:
    """What recording adds to a run: its time until the trace is on the host, against the bare run of the same turn.

    The prompt is the same throughout, so fast remembers it: the bare run is as short as it can be, and what is added shows most.
    """
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
        preview = lambda step: shown.append(linear_preview(step.pred_original, factors))  # noqa: B023
        ways = {
            "bare": lambda turn, pipe=pipe: draw(pipe, seed=turn),
            "recorded": lambda turn, pipe=pipe: recorded(pipe, turn),
            "recorded, previews": lambda turn, pipe=pipe, preview=preview: recorded(pipe, turn, preview),
        }
        if not all(np.array_equal(ways["bare"](0), ways[way](0)) for way in ("recorded", "recorded, previews")):
            raise RuntimeError("a recorded picture differs from the bare one: this must not happen, please report it")
        # Small differences between runs of half a second: more turns than elsewhere.
        seconds = take_turns(ways, 5 * effort.turns, budget=1.4 * effort.budget)
        found[name] = {
            way: {"seconds": summary(values), "times": ratio(values, seconds["bare"])} for way, values in seconds.items()
        }  # fmt: skip
    return found


def batches(pipes: Pipelines, effort: Effort) -> dict:
    """Pictures a second against how many are drawn at once, each with a new prompt."""
    names = [name for name in pipes.names() if name in ("exact", "fast")]
    found: dict = {name: {} for name in names}
    for size in effort.batches:
        ways = {
            name: lambda turn, name=name, size=size: draw(pipes[name], pipes.fresh(name, size), seed=turn)
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
    found: dict = {"import sdwidgets": []}
    folder = str(pipes.folder)
    speeds = ["exact", "fast"] if "fast" in pipes.names() else ["exact"]
    for turn in range(effort.starts):
        found["import sdwidgets"].append(run(IMPORT)[0])
        for speed in speeds:
            for phase, seconds in zip(PHASES, run(START, speed, folder, PROMPT), strict=True):
                found.setdefault(f"{speed}: {phase}", []).append(seconds)
        if turn < 2 and "fast" in speeds:
            with tempfile.TemporaryDirectory() as empty:
                took = run(START, "fast", folder, PROMPT, SDWIDGETS_CACHE=empty)
                for phase, seconds in zip(PHASES, took, strict=True):
                    found.setdefault(f"fast, the first time ever: {phase}", []).append(seconds)
                bare = {"PYTHONPYCACHEPREFIX": empty, "PYTHONDONTWRITEBYTECODE": "1"}
                found.setdefault(f"exact, nothing byte-compiled: {PHASES[0]}", []).append(
                    run(START, "exact", folder, PROMPT, **bare)[0]
                )
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
    return {
        "growth": float(np.median(late) / np.median(early) - 1),
        "interval": [late_low / high - 1, late_high / low - 1],
    }


def in_a_browser(call, *arguments) -> dict:
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
    """From `jupyter lab` to a slider that moves the picture, in a real browser; nothing is compiled or measured beforehand."""
    from bench.live import LAB_PHASES, first_pictures

    name = "fast" if "fast" in pipes.names() else "exact"
    taken = [in_a_browser(first_pictures, pipes.folder, name) for _ in range(min(2, effort.starts))]
    return {phase: summary([one[phase] for one in taken]) for phase in LAB_PHASES}


def step_makers(pipes: Pipelines, effort: Effort) -> tuple[dict, torch.Tensor]:
    """(name -> what makes a call that computes one guided step of the U-Net, what the U-Net itself computes)."""
    from sdwidgets.acceleration.cuda import why_no_compiler
    from sdwidgets.acceleration.openvino_graph import Runner
    from sdwidgets.acceleration.unet import PrecomputedInputs, UNetGraph

    unet = pipes["stock"].unet
    noise, time_, text = guided(pipes["stock"])
    given = PrecomputedInputs(unet)
    with torch.no_grad():
        right = unet(noise, time_, text, return_dict=False)[0]
        inputs = (noise, given.times(501.0), *given.texts(text))

    def eager(dtype=torch.float32, layout=torch.contiguous_format):
        network = copy.deepcopy(unet).to(dtype=dtype, memory_format=layout)
        sample, states = noise.to(dtype, memory_format=layout), text.to(dtype)
        return lambda: network(sample, time_, states, return_dict=False)[0]

    def compiled():
        if not effort.compile:
            raise LeftOut("not tried here: compiling takes a minute")
        if missing := why_no_compiler(torch.device("cpu")):
            raise LeftOut(missing)
        network = torch.compile(copy.deepcopy(unet))
        return lambda: network(noise, time_, text, return_dict=False)[0]

    def openvino(precision: str):
        if "fast" not in pipes.names() or (graph := graph_of(pipes["fast"].unet)) is None:
            raise LeftOut("OpenVINO is not installed")
        shapes = tuple(tuple(tensor.shape) for tensor in inputs)
        runner = Runner(graph, shapes, precision)
        return lambda: runner(inputs)

    def onnx():
        try:
            import onnxruntime
        except ImportError:
            raise LeftOut("ONNX Runtime is not installed") from None
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "unet.onnx")
            torch.onnx.export(UNetGraph(unet, given), inputs, file, dynamo=False)
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        named = {place.name: tensor.numpy() for place, tensor in zip(session.get_inputs(), inputs, strict=True)}
        return lambda: torch.from_numpy(session.run(None, named)[0])

    return {
        "eager, float32": eager,
        "eager, float32, channels last": lambda: eager(layout=torch.channels_last),
        "eager, bfloat16": lambda: eager(torch.bfloat16),
        "torch.compile, float32": compiled,
        "OpenVINO, float32": lambda: openvino("f32"),
        "OpenVINO, bfloat16": lambda: openvino("bf16"),
        "ONNX Runtime, float32": onnx,
    }, right


def choices(pipes: Pipelines, effort: Effort) -> dict:
    """One guided step of the U-Net by all that could compute it: the record behind what `speed="fast"` does."""
    from sdwidgets.acceleration.openvino_graph import relative_error

    makers, right = step_makers(pipes, effort)
    ways, differs, missing = {}, {}, {}
    with torch.no_grad():
        for name, make in makers.items():
            try:
                with quiet():
                    call = make()
                    differs[name] = relative_error(call().float(), right)
                ways[name] = lambda turn, call=call: call()
            except Exception as error:  # one that cannot run here is no reason to lose the others
                sentence = str(error) if isinstance(error, LeftOut) else f"{type(error).__name__}: {error}"
                missing[name] = sentence.splitlines()[0][:200]
        seconds = take_turns(ways, 4 * effort.turns, budget=effort.budget / 2)
    return {"ways": rows_of(seconds, "eager, float32"), "differs": differs, "missing": missing}


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
    sizes = Counter(drawn)
    ((chosen, _),) = Counter(drawn[len(drawn) // 2 :]).most_common(
        1
    )  # the first half tries, the last batch may be smaller
    counts = {1: processes(pipes.folder, speed, prompts[: max(2, effort.many // 2)], chosen, 1)}
    counts[2] = processes(pipes.folder, speed, prompts[: max(2, effort.many // 2)], chosen, 2)
    return {
        "pictures": len(requests), "a_second": len(requests) / took, "chosen": chosen, "resident": held,
        "sizes": {str(size): count for size, count in sorted(sizes.items())},
        "processes": {str(count): found for count, found in counts.items()},
    }  # fmt: skip


def processes(model: Path, speed: str, prompts: list[str], size: int, count: int) -> dict:
    """`sdwidgets generate` by one process on all cores, or by several that share them, as `accelerate launch` starts them.

    Returns its seconds, start included, and pictures a second from the first picture on the disk to the last.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, made = Path(folder, "prompts.txt"), Path(folder, "made")
        file.write_text("\n".join(prompts), encoding="utf-8")
        command = [sys.executable, "-m"]
        if count > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            # --multi_gpu is what accelerate calls several of anything.
            command += ["accelerate.commands.launch", "--multi_gpu", f"--num_processes={count}", "--num_machines=1", f"--main_process_port={port}", "--mixed_precision=no", "--dynamo_backend=no", "-m"]  # fmt: skip
        command += ["sdwidgets", "generate", "--prompts-file", str(file), "--output", str(made), "--model", str(model), "--device", "cpu", "--dtype", "float32", "--speed", speed, "--steps", str(STEPS), "--batch-size", str(size)]  # fmt: skip
        path = os.pathsep.join([str(harness.ROOT), os.environ.get("PYTHONPATH", "")])
        threads = max(1, torch.get_num_threads() // count)
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true"}
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own})
        took = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        moments = sorted(picture.stat().st_mtime for picture in made.glob("*.png"))
    span = moments[-1] - moments[0]
    # The first batch of each was drawn before its first picture was written.
    after = max(1, len(moments) - size * count)
    return {"pictures": len(moments), "threads": threads, "seconds": took, "a_second": after / span if span else None}  # fmt: skip


SECTIONS = {
    "pictures": pictures, "parts": parts, "agreement": agreement, "recording": recording, "batches": batches,
    "startup": startup, "memory": memory, "lab": lab, "live": live, "choices": choices, "many": many,
    "tricks": tricks,
}  # fmt: skip
CHILDS = ("pictures", "parts", "agreement", "recording", "batches")
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=harness.ROOT / "build" / "bench.json", help="the report (default: build/bench.json of the checkout)")  # fmt: skip
    parser.add_argument("--model", type=Path, help="a folder of Stable Diffusion 1's shape (default: Pocket)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections (default: all)")
    parser.add_argument("--quick", action="store_true", help="one turn of everything; its figures mean nothing")
    parser.add_argument("--no-avx2", action="store_true", help="leave out the second pass with AVX2 only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    from sdwidgets.paths import data_folder

    effort = QUICK if args.quick else CHILD if args.child else FULL
    folder = args.model or data_folder("pocket")
    began = time.perf_counter()
    # A cache of its own: what is measured once a machine is measured here, now.
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SDWIDGETS_CACHE"] = cache
        wanted = args.only or list(CHILDS if args.child else SECTIONS)
        report = {"bench": "cpu", "quick": args.quick, "machine": harness.machine(), "model": folder.name, "weights": harness.digest(folder), "steps": STEPS, "sections": wanted}  # fmt: skip
        pipes = Pipelines(folder)
        report["settings"] = attempt(lambda: settings(pipes, effort))
        for name in wanted:
            started = time.perf_counter()
            print(f"{name}: {SECTIONS[name].__doc__}", flush=True)
            report[name] = attempt(lambda name=name: SECTIONS[name](pipes, effort))
            print(f"  {time.perf_counter() - started:.0f} s", flush=True)
            harness.write(report, args.json)
        report["machine"]["load_average_after"] = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    if not args.child and not args.no_avx2 and any(name in CHILDS for name in wanted):
        print("the same with AVX2 only", flush=True)
        report["avx2"] = attempt(lambda: in_child(args))
    report["took"] = time.perf_counter() - began
    harness.write(report, args.json)
    if not args.child:
        from bench.table import describe

        print("\n" + describe(report))
        print(f"\n{args.json}, {report['took'] / 60:.0f} minutes")
    return 1 if harness.failed(report) else 0


def settings(pipes: Pipelines, effort: Effort) -> dict:
    """All that decides what is drawn and how long is measured."""
    pipe = pipes["stock"]
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    return {
        "guidance": inspect.signature(type(pipe).__call__).parameters["guidance_scale"].default,
        "turbo_guidance": 1.0, "steps": STEPS, "turbo_steps": TURBO_STEPS, "scheduler": type(pipe.scheduler).__name__,
        "size": [side, side], "prompt": PROMPT, "fresh_prompts": [len(pipes.prompts), pipes.prompts[0], pipes.prompts[-1]], "effort": asdict(effort),
    }  # fmt: skip


def in_child(args) -> dict:
    """The sections of CHILDS in a process that is told to do without AVX-512 and AMX; what it had when it ended, however it ended."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise LeftOut(f"a processor of {platform.machine()} has no AVX2")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "child.json")
        command = [sys.executable, "-m", "bench", "--child", "--json", str(file)]
        command += ["--quick"] if args.quick else []
        command += ["--model", str(args.model.resolve())] if args.model else []
        wanted = [name for name in args.only or CHILDS if name in CHILDS]
        done = subprocess.run([*command, "--only", *wanted], cwd=harness.ROOT, env={**os.environ, **AVX2})
        report = json.loads(file.read_text()) if file.exists() else {}
    if done.returncode and not harness.failed(report):  # it was killed, or fell outside of a section
        report["error"] = f"the process with AVX2 only ended with status {done.returncode}"
    return report


if __name__ == "__main__":
    sys.exit(main())

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
import copy
import inspect
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench import harness
from bench.harness import LeftOut, attempt, rows_of, summary, take_turns
from bench.sessions import lab, live, many, memory, startup
from bench.tricks import tricks
from bench.ways import CHILD, FULL, PROMPT, QUICK, STEPS, TURBO_STEPS, Effort, Pipelines, draw, quiet


def pictures(pipes: Pipelines, effort: Effort) -> dict:
    """Twenty guided steps, from a prompt that is new each turn to the picture on the host; turbo's four steps without guidance."""
    ways = {}
    for name in pipes.names():
        draw_one = partial(draw, pipes[name], steps=TURBO_STEPS if name.startswith("turbo") else STEPS)
        ways[name] = lambda turn, name=name, draw_one=draw_one: draw_one(pipes.fresh(name)[0], seed=turn)
        if name.endswith("fast"):  # as under a slider: the caption is remembered
            ways[name + AGAIN] = lambda turn, draw_one=draw_one: draw_one(PROMPT, seed=turn)
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
    report: dict = {"exact_is_stock": {"pictures": len(equal), "equal": sum(equal), "dtype": str(pipes["exact"].dtype)[6:], "by_itself": str(choose_dtype("auto", "cpu")[0])[6:]}}  # fmt: skip
    if "fast" not in pipes.names():
        return report
    levels = [
        harness.psnr(*(draw(pipes[name], prompt, seed=n) for name in ("exact", "fast")))
        for n, prompt in enumerate(prompts)
    ]
    return {**report, "pictures": len(levels), "decibels": summary(levels), "interval": harness.bootstrap(levels)}


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
    names = pipes.names("stock", "fast")
    figures: dict = {"rates": harness.peaks(size=effort.product)}
    for part, call in calls.items():
        ways = {name: lambda turn, name=name, call=call: call(name) for name in names}
        if part == "prompt" and "fast" in names:
            ways["fast" + AGAIN] = lambda turn: pipes["fast"].encode_prompt(PROMPT, "cpu", 1, True)
        with torch.no_grad():
            seconds = take_turns(ways, 4 * effort.turns, warm_up=3, budget=effort.budget / 4)
        figures[part] = {"ways": rows_of(seconds, "stock")}
    turbo_vae = pipes["turbo"].vae if "turbo" in pipes.names() else stock.vae
    figures["floors"] = floors(stock, turbo_vae, figures, noise, time_, text)
    if "fast" in names:
        figures["fast"] = how_fast(pipes["fast"])
    return figures


def floors(stock, turbo_vae, figures: dict, noise, time_, text) -> dict:
    """The floors of whole pictures, way by way; those of the parts go into `found` as "floor" and "floor_fast".

    `turbo_vae`: what turbo decodes with. Fast computes less: what a timestep adds is known beforehand, keys and values of the text
    once a prompt, the states of the empty prompt once, and its decoder has transposed convolutions.
    """
    from sdwidgets.acceleration.decoder import rewritten_decoder
    from sdwidgets.acceleration.unet import PrecomputedInputs, UNetGraph

    rates, precision = figures["rates"], harness.best_precision(figures["rates"])

    def least(call, network):
        return harness.floor(harness.count(call, [network]), rates, precision)

    with torch.no_grad():
        precomputed = PrecomputedInputs(stock.unet)
        graph = UNetGraph(stock.unet, precomputed)
        step, fast_step, keys = {}, {}, {}
        for n in (1, 2):  # without guidance, and with
            inputs = (noise[:n], precomputed.times(501.0), *precomputed.texts(text[:n]))
            step[n] = least(lambda n=n: stock.unet(noise[:n], time_, text[:n]), stock.unet)
            fast_step[n] = least(lambda inputs=inputs: graph(*inputs), graph)
            kv = torch.nn.ModuleList(precomputed.layers(precomputed.kv_projections))
            keys[n] = least(lambda n=n, kv=kv: [layer(text[:n]) for layer in kv], kv)
        decode, fast_decode = {}, {}
        for name, vae in (("whole", stock.vae), ("small", turbo_vae)):
            smaller = rewritten_decoder(copy.deepcopy(vae.decoder))
            decode[name] = least(lambda vae=vae: vae.decode(noise[:1]), vae)
            fast_decode[name] = least(lambda smaller=smaller: smaller(noise[:1]), smaller)
        prompt = {
            n: least(lambda n=n: stock.encode_prompt(PROMPT, "cpu", 1, n == 2), stock.text_encoder) for n in (1, 2)
        }
    figures["step"] |= {"floor": step[2], "floor_fast": fast_step[2]}
    figures["decode"] |= {"floor": decode["whole"], "floor_fast": fast_decode["whole"]}
    figures["prompt"] |= {"floor": prompt[2], "floor_fast": prompt[1]}
    plain = [(STEPS, step[2]), (1, decode["whole"]), (1, prompt[2])]
    whole = {
        "stock": plain,
        "exact": plain,
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
    kernels = {}
    for name, network in (("unet", pipe.unet), ("decoder", pipe.vae.decoder)):
        graph = graph_of(network)
        if graph is None:
            continue
        kinds = Counter(
            node.get_rt_info()["primitiveType"].astype(str)
            for runner in [runner for runner in graph.runners.values() if runner][:1]
            for node in runner.network.get_runtime_model().get_ops()
        )
        kernels[name] = {"precision": graph.precision, "kernels": dict(kinds.most_common(8))}
    return kernels


def recording(pipes: Pipelines, effort: Effort) -> dict:
    """What recording adds to a run: its time until the trace is on the host, against the bare run of the same turn.

    The prompt is the same throughout, so fast remembers it: the bare run is as short as it can be, and what is added shows most.
    """
    from sdwidgets.latents import factors_for, linear_preview
    from sdwidgets.recording import record

    def recorded(pipe, turn, on_step=None):
        with record(pipe, on_step=on_step):
            return draw(pipe, seed=turn)

    added = {}
    for name in pipes.names("exact", "fast"):
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
        added[name] = harness.times_of(seconds, "bare")
    return added


def batches(pipes: Pipelines, effort: Effort) -> dict:
    """Pictures a second against how many are drawn at once, each with a new prompt."""
    names = pipes.names("exact", "fast")
    rates: dict = {name: {} for name in names}
    for size in effort.batches:
        ways = {
            name: lambda turn, name=name, size=size: draw(pipes[name], pipes.fresh(name, size), seed=turn)
            for name in names
        }
        seconds = take_turns(
            ways, max(1, effort.turns // 5), warm_up=1, budget=effort.budget / len(effort.batches), least=1
        )
        for name in names:
            rates[name][str(size)] = summary([size / taken for taken in seconds[name]])
    return {"pictures_a_second": rates}


def step_makers(pipes: Pipelines, effort: Effort) -> tuple[dict, torch.Tensor]:
    """(name -> what makes a call that computes one guided step of the U-Net, what the U-Net itself computes)."""
    from sdwidgets.acceleration.cuda import why_no_compiler
    from sdwidgets.acceleration.openvino_graph import Runner
    from sdwidgets.acceleration.unet import PrecomputedInputs, UNetGraph

    unet = pipes["stock"].unet
    noise, time_, text = guided(pipes["stock"])
    precomputed = PrecomputedInputs(unet)
    with torch.no_grad():
        right = unet(noise, time_, text, return_dict=False)[0]
        inputs = (noise, precomputed.times(501.0), *precomputed.texts(text))

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
            torch.onnx.export(UNetGraph(unet, precomputed), inputs, file, dynamo=False)
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        named = {entry.name: tensor.numpy() for entry, tensor in zip(session.get_inputs(), inputs, strict=True)}
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

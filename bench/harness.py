"""What every measurement shares: ways that take turns, medians with their spread, ratios with an interval, and the floor.

A ratio is taken within one turn, where both ways met the same machine, and its interval is a bootstrap over turns. The floor of a
call is what its operations would take at this machine's own best rate, measured by a plain matrix product; beside it stand the
bytes that its parameters and activations move, at the measured rate of memory. The floor counts no cache and no dispatch, so
nothing reaches it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from sdwidgets.paths import replacing

ROOT = Path(__file__).resolve().parents[1]


# ---- taking turns ------------------------------------------------------------------------------------------------


def take_turns(
    ways: dict[str, Callable[[int], object]],
    turns: int,
    warm_up: int = 2,
    budget: float = float("inf"),
    least: int = 3,
) -> dict[str, list[float]]:
    """Seconds of each way, turn by turn: `ways[name](turn)`. Every second turn goes the other way round.

    Stops before `turns` where `budget` seconds are over, but not before `least` turns.
    """
    for turn in range(warm_up):
        for way in ways.values():
            way(turn)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    ends = time.perf_counter() + budget
    for turn in range(turns):
        if turn >= least and time.perf_counter() > ends:
            break
        for name in list(ways) if turn % 2 else list(reversed(ways)):  # none always runs on the warmer machine
            synchronize()
            began = time.perf_counter()
            ways[name](turn)
            synchronize()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summary(values: list[float]) -> dict:
    """Median, quartiles and extremes."""
    low, middle, high = (float(x) for x in np.quantile(values, (0.25, 0.5, 0.75)))
    edges = {"least": min(values), "most": max(values)}
    return {"median": middle, "quartiles": [low, high], **edges, "count": len(values)}


def ratio(numerator: list[float], denominator: list[float]) -> dict:
    """The median of the ratios turn by turn, with the bootstrap's 95% interval of that median."""
    ratios = np.array(numerator) / np.array(denominator)
    return {"median": float(np.median(ratios)), "interval": bootstrap(ratios), "turns": len(ratios)}


def bootstrap(values, statistic=np.median, resamples: int = 2000) -> list[float]:
    """[low, high]: 95% of a statistic over resamples of the values, with replacement. Always the same resamples."""
    values = np.asarray(values, float)
    picks = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    return [float(x) for x in np.percentile(statistic(values[picks], axis=1), [2.5, 97.5])]


def rows_of(seconds: dict[str, list[float]], base: str) -> dict[str, dict]:
    """For each way its seconds, and how many times faster than `base` it is (above 1: faster)."""
    return {
        way: {"seconds": summary(values), "faster": ratio(seconds[base], values)} for way, values in seconds.items()
    }


def times_of(seconds: dict[str, list[float]], base: str) -> dict[str, dict]:
    """For each way its seconds, and how many times as long as `base` it takes."""
    return {
        way: {"seconds": summary(values), "times": ratio(values, seconds[base])} for way, values in seconds.items()
    }


# ---- a report that survives --------------------------------------------------------------------------------------


class LeftOut(Exception):
    """A section that this machine cannot measure, for want of something that is not installed; the sentence says what."""


def attempt(call: Callable[[], dict]) -> dict:
    """What `call()` returns; {"left_out": sentence} or {"error": sentence} where it ends otherwise, told on the screen too.

    Only Ctrl-C goes through. (pytest's own exceptions, which starting a JupyterLab may raise, are no Exception.)
    """
    try:
        return call()
    except KeyboardInterrupt:
        raise
    except LeftOut as reason:
        print(f"  left out: {reason}", flush=True)
        return {"left_out": str(reason)}
    except BaseException as error:
        traceback.print_exc()
        sentence = str(error)[-500:].replace(str(ROOT), ".")  # a report names no place
        return {"error": f"{type(error).__name__}: {sentence}"}


def failed(report: dict) -> bool:
    """Whether anything in a report is an error, however deep."""
    return "error" in report or any(failed(value) for value in report.values() if isinstance(value, dict))


def write(report: dict, file: Path | None) -> None:
    """The report as it is so far, whole or not at all."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


# ---- the floor ---------------------------------------------------------------------------------------------------


def _attention(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


#: PyTorch counts attention on a card and has no formula for the CPU's own kernel, which would count as nothing.
ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


def count(call: Callable[[], object], networks: list[torch.nn.Module]) -> dict[str, float]:
    """Operations of one call, and the bytes that its networks' layers move: parameters read, activations written and read.

    Parameters count once for each call of their layer. Runs the call twice.
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        call()
    moved = {"parameters": 0, "activations": 0}

    def look(module, _, output):
        moved["parameters"] += sum(p.nbytes for p in module.parameters(recurse=False))
        outputs = output if isinstance(output, (tuple, list)) else [output]
        moved["activations"] += sum(2 * t.nbytes for t in outputs if isinstance(t, torch.Tensor))

    leaves = [m for network in networks for m in network.modules() if not any(True for _ in m.children())]
    with torch.no_grad(), contextlib.ExitStack() as undo:
        for leaf in leaves:
            undo.callback(leaf.register_forward_hook(look).remove)
        call()
    return {"operations": float(counter.get_total_flops()), "parameter_bytes": float(moved["parameters"]), "activation_bytes": float(moved["activations"])}  # fmt: skip


def peaks(device: str = "cpu", size: int = 1536, turns: int = 8) -> dict[str, float]:
    """This machine's best rates: operations a second of a square product in each precision, and bytes a second of memory."""
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if device == "cuda":
        dtypes["float16"], size = torch.float16, 8192
    rates = {}
    for name, dtype in dtypes.items():
        a = torch.randn(size, size, device=device).to(dtype)
        rates[name] = 2 * size**3 / _best(lambda a=a: a @ a, turns)
    cells = (1 << 28 if device == "cuda" else 1 << 24) // 4  # 64 MB, or 1 GB: beyond every cache but the largest
    a, b, c = (torch.zeros(4 * cells, device=device) for _ in range(3))
    rates["memory"] = 3 * a.nbytes / _best(lambda: torch.add(a, b, out=c), turns)
    return rates


def _best(call: Callable[[], object], turns: int) -> float:
    return min(take_turns({"it": lambda turn: call()}, turns, warm_up=1)["it"])


def floor(
    counted: dict[str, float], rates: dict[str, float], precision: str, counted_in: str = "float32"
) -> dict[str, float]:
    """Seconds for the operations at the best rate, and for the bytes at memory's; `counted_in`: in which precision bytes were counted."""
    size = {"float32": 4, "float16": 2, "bfloat16": 2}
    moved = (counted["parameter_bytes"] + counted["activation_bytes"]) * size[precision] / size[counted_in]
    return {**counted, "precision": precision, "bytes": moved, "seconds": counted["operations"] / rates[precision], "memory_seconds": moved / rates["memory"]}  # fmt: skip


def combined(parts: list[tuple[float, dict]]) -> dict:
    """The floor of a whole from [(how many times, floor), ...]."""
    names = ("operations", "bytes", "seconds", "memory_seconds")
    return {name: sum(times * part[name] for times, part in parts) for name in names} | {"precision": parts[0][1]["precision"]}  # fmt: skip


def best_precision(rates: dict[str, float]) -> str:
    return max((name for name in rates if name != "memory"), key=rates.get)


# ---- where it was measured ---------------------------------------------------------------------------------------

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "openvino", "numpy")


def machine() -> dict:
    """The machine, the versions and what else a reader needs to judge a figure. No name of the host, no path."""
    from sdwidgets.loading.doctor import installed_version as version
    from sdwidgets.loading.memory import total_ram

    facts = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": total_ram(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "all"),
        "aten": os.environ.get("ATEN_CPU_CAPABILITY", "all"),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts["gpu"] = {"name": properties.name, "memory": properties.total_memory, "capability": f"{properties.major}.{properties.minor}"}  # fmt: skip
        facts["gpu"] |= {"driver": said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"), "triton": version("triton")}  # fmt: skip
        facts["gpu"] |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return facts


def said(*command: str) -> str | None:
    """The first line that a command prints; None where it fails or prints nothing."""
    try:
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return output.strip().splitlines()[0].strip() if output.strip() else None


def run_python(*arguments: str, **environment: str) -> str:
    """What another Python, which sees this checkout, prints. RuntimeError with the end of its errors where it fails."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=own)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def processor() -> str:
    with contextlib.suppress(OSError):
        if match := re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M):
            return match[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the checkout, with "+" where files differ from it."""
    name = said("git", "rev-parse", "--short=10", "HEAD")
    changed = said("git", "status", "--porcelain", "-uno", "sdwidgets", "bench", "data")
    return name and name + ("+" if changed else "")


def digest(folder: Path) -> str:
    """Ten digits that tell one set of weights from another."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*/*.safetensors")):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:10]


def resident() -> int:
    """Bytes of main memory that this process holds now."""
    import psutil

    gc.collect()
    return psutil.Process().memory_info().rss


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB, for pictures in [0, 1]."""
    return float(10 * np.log10(1 / max(np.square(a - b).mean(), 1e-12)))

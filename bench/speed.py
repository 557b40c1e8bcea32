"""How fast a picture is: stock diffusers, and what sdwidgets makes of it, taking turns in one process.

    python bench/speed.py                       # Pocket on the CPU: 20 guided steps, 15 turns, 100 pictures for the agreement
    python bench/speed.py --model FOLDER --pictures 4 --turns 5

Ratios are against stock `StableDiffusionPipeline.from_pretrained(...)` in the same turn: medians with quartiles. The floor is the
number of floating-point operations, counted, over what a matrix product of this machine reaches, measured. Run it on a
quiet machine; on an AVX2 machine things look as with ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import sdwidgets
from sdwidgets._data import data_folder
from sdwidgets.pocket.datasheet import FULL
from sdwidgets.pocket.scenes import make_scene, spread
from sdwidgets.schedulers import make_scheduler

GUIDANCE = 3.0
PROMPT = "an astronaut on a blue background"


def draw(
    pipe, prompt: str = PROMPT, steps: int = 20, guidance: float = GUIDANCE, seed: int = 0
) -> np.ndarray:
    """(h, w, 3) float32 in [0, 1]."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return pipe(
        prompt, num_inference_steps=steps, guidance_scale=guidance, generator=generator, output_type="np"
    ).images[0]


def pipelines(folder: Path) -> dict[str, Callable]:
    """name -> a function of (prompt, seed) that draws a picture in that way."""
    from diffusers import StableDiffusionPipeline

    made = {
        "stock": StableDiffusionPipeline.from_pretrained(folder),
        "exact": sdwidgets.load(str(folder), "cpu"),
        "fast": sdwidgets.load(str(folder), "cpu", speed="fast"),
    }
    for pipe in made.values():
        pipe.set_progress_bar_config(disable=True)
    ways = {
        name: lambda prompt, seed, pipe=pipe: draw(pipe, prompt, seed=seed) for name, pipe in made.items()
    }
    turbo = folder / "extras" / "turbo"
    if turbo.is_dir():
        from sdwidgets.speed import speed_up

        for name, fast in (("turbo", False), ("turbo, fast", True)):
            pipe = sdwidgets.load(str(folder), "cpu")
            pipe.set_progress_bar_config(disable=True)
            pipe.load_lora_weights(turbo)
            pipe.fuse_lora()
            pipe.unload_lora_weights()
            pipe.scheduler = make_scheduler("LCM", pipe)
            if fast:
                speed_up(pipe)
            ways[name] = lambda prompt, seed, pipe=pipe: draw(pipe, prompt, steps=4, guidance=1.0, seed=seed)
    return ways


def operations(folder: Path) -> float:
    """Floating-point operations of 20 guided steps and one decoding, as the stock pipeline asks for them."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    with FlopCounterMode(display=False) as counter:
        draw(pipe)
    return float(counter.get_total_flops())


def products_a_second(dtype: torch.dtype, size: int = 1536, turns: int = 8) -> float:
    """Floating-point operations a second of a square matrix product: the best of some."""
    a = torch.randn(size, size).to(dtype)
    best = float("inf")
    for _ in range(turns):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def quartiles(values: list[float]) -> list[float]:
    return [values[0]] * 3 if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB, for pictures in [0, 1]."""
    return float(10 * np.log10(1 / max(np.square(a - b).mean(), 1e-12)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a folder of Stable Diffusion 1's shape (default: Pocket)")
    parser.add_argument("--turns", type=int, default=15, help="of every way (default: 15)")
    parser.add_argument(
        "--pictures", type=int, default=100, help="that fast and exact draw both (default: 100)"
    )
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    args = parser.parse_args()
    if min(args.turns, args.pictures) < 1:
        parser.error("--turns and --pictures are at least 1")
    folder = args.model or data_folder("pocket")
    ways = pipelines(folder)
    for way in ways.values():
        way(PROMPT, 0), way(PROMPT, 0)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.turns):
        for name in list(ways) if turn % 2 else list(reversed(ways)):
            began = time.perf_counter()
            ways[name](PROMPT, turn)
            seconds[name].append(time.perf_counter() - began)
    count = operations(folder)
    peak = max(products_a_second(torch.float32), products_a_second(torch.bfloat16))
    rows = {}
    print(f"{'way':14}{'seconds':>9}{'quartiles':>18}{'faster':>9}{'quartiles':>16}")
    for name, values in seconds.items():
        ratios = [stock / value for stock, value in zip(seconds["stock"], values, strict=True)]
        low, middle, high = quartiles(values)
        slow, faster, fast = quartiles(ratios)
        rows[name] = {
            "seconds": middle,
            "quartiles": [low, high],
            "faster": faster,
            "faster_quartiles": [slow, fast],
        }
        print(f"{name:14}{middle:9.4f}{low:9.4f} -{high:7.4f}{faster:8.2f}x{slow:8.2f} -{fast:6.2f}")
    prompts = [make_scene(FULL, index).caption for index in spread(FULL, args.pictures)]
    agree = [psnr(ways["exact"](prompt, n), ways["fast"](prompt, n)) for n, prompt in enumerate(prompts)]
    low, middle, high = quartiles(agree)
    floor = count / peak
    print(
        f"fast and exact agree to {middle:.1f} dB at the median of {len(agree)} pictures ({low:.1f} to {high:.1f}, least {min(agree):.1f})"
    )
    print(
        f"floor: {count / 1e9:.1f} GFLOP at {peak / 1e9:.0f} GFLOP/s are {floor:.4f} s; fast takes {rows['fast']['seconds'] / floor:.1f} times that"
    )
    report = {
        "bench": "speed", "model": folder.name, "turns": args.turns, "ways": rows,
        "agreement": {"pictures": len(agree), "median_db": middle, "quartiles": [low, high], "least": min(agree)},
        "floor": {"operations": count, "operations_a_second": peak, "seconds": floor},
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__,
                    "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "all")},
    }  # fmt: skip
    print(json.dumps(report))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What recording costs: bare and recorded runs in turn, in one process, each counted until its result is on the host.

    python bench/recording.py                                  # Pocket, 20 guided steps, 20 pairs
    python bench/recording.py --model FOLDER_OR_ID --device cuda --steps 30

Run it on a quiet machine. Prints a table, then one line of JSON; exits with 1 where the limit of 5% is passed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time

import numpy as np
import torch

import sdwidgets
from sdwidgets.recording import record

LIMIT = 1.05


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pocket", help="name, folder or hub id (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=20, help="inference steps of a run (default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, default=20, help="bare and recorded runs each (default: %(default)s)"
    )
    parser.add_argument(
        "--warm-up", type=int, default=2, help="pairs that do not count (default: %(default)s)"
    )
    args = parser.parse_args()
    if min(args.steps, args.pairs) < 1 or args.warm_up < 0:
        parser.error("--steps and --pairs are at least 1, --warm-up at least 0")

    pipe = sdwidgets.load(args.model, device=args.device)
    pipe.set_progress_bar_config(disable=True)
    kinds = {"bare": bare, "recorded": recorded, "recorded, on_step": watched}
    seconds = {kind: [] for kind in kinds}
    pictures = {}
    for i in range(args.warm_up + args.pairs):
        order = list(kinds) if i % 2 else list(reversed(kinds))  # none always runs on the warmer machine
        for kind in order:
            taken, pictures[kind] = timed(kinds[kind], pipe, args.steps)
            if i >= args.warm_up:
                seconds[kind].append(taken)
    if not all(np.array_equal(pictures["bare"], picture) for picture in pictures.values()):
        raise SystemExit(
            "the recorded picture differs from the bare one: this must not happen, please report it"
        )

    report = {kind: summary(values, seconds["bare"]) for kind, values in seconds.items()}
    print(f"{'run':18}  {'median':>9}  {'quartiles':>19}  {'ratio':>6}  {'quartiles':>13}")
    for kind, row in report.items():
        print(
            f"{kind:18}  {row['median']:7.4f} s  {row['q1']:7.4f} - {row['q3']:7.4f} s  {row['ratio']:6.3f}"
            f"  {row['ratio_q1']:5.3f} - {row['ratio_q3']:5.3f}"
        )
    setting = {
        "model": args.model,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype),
        "steps": args.steps,
        "pairs": args.pairs,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    passed = report["recorded"]["ratio"] <= LIMIT
    print(json.dumps({"bench": "recording", **setting, "limit": LIMIT, "passed": passed, "seconds": report}))
    return 0 if passed else 1


def run(pipe, steps: int) -> np.ndarray:
    generator = torch.Generator("cpu").manual_seed(0)
    return pipe(
        "a cat on a red background", num_inference_steps=steps, generator=generator, output_type="np"
    ).images


def bare(pipe, steps: int) -> np.ndarray:
    return run(pipe, steps)


def recorded(pipe, steps: int, on_step=None) -> np.ndarray:
    with record(pipe, on_step=on_step):  # the trace is on the host when the block ends
        images = run(pipe, steps)
    return images


def watched(pipe, steps: int) -> np.ndarray:
    return recorded(pipe, steps, on_step=lambda step: None)


def timed(kind, pipe, steps: int) -> tuple[float, np.ndarray]:
    synchronize()
    start = time.perf_counter()
    images = kind(pipe, steps)
    synchronize()
    return time.perf_counter() - start, images


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summary(values: list[float], bare: list[float]) -> dict[str, float]:
    """Medians and quartiles of the seconds and of the ratios pair by pair, which slow drifts do not touch."""
    ratios = [value / other for value, other in zip(values, bare, strict=True)]
    q1, median, q3 = quartiles(values)
    ratio_q1, ratio, ratio_q3 = quartiles(ratios)
    return {"median": median, "q1": q1, "q3": q3, "ratio": ratio, "ratio_q1": ratio_q1, "ratio_q3": ratio_q3}


def quartiles(values: list[float]) -> list[float]:
    return [values[0]] * 3 if len(values) == 1 else statistics.quantiles(values, n=4, method="inclusive")


if __name__ == "__main__":
    sys.exit(main())

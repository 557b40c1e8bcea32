"""From nothing to a picture: import, load, twenty guided steps, each in fresh processes.

    python bench/startup.py            # five processes each; prints a table, then one line of JSON

Run it on a quiet machine. Absolute seconds are of one machine; exits with 1 where a limit is passed.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys

LIMITS = {"import": 0.3, "load": 3.0, "twenty steps": 1.5}  # seconds on two cores

IMPORT = """
import sys, time
began = time.perf_counter()
import sdwidgets
print(time.perf_counter() - began)
assert "torch" not in sys.modules and "diffusers" not in sys.modules
"""

# Loading counts from a process that has imported what loading needs, and again with those imports.
LOAD = """
import contextlib, io, time
began = time.perf_counter()
import torch, diffusers, sdwidgets
from diffusers import StableDiffusionPipeline
import sdwidgets.pipelines
ready = time.perf_counter()
torch.set_num_threads(2)
with contextlib.redirect_stdout(io.StringIO()):
    pipe = sdwidgets.load("pocket", device="cpu")
loaded = time.perf_counter()
pipe.set_progress_bar_config(disable=True)
def picture():
    began = time.perf_counter()
    pipe("a cat on a red background", num_inference_steps=20, guidance_scale=4.0, generator=torch.Generator().manual_seed(0))
    return time.perf_counter() - began
first = picture()
print(ready - began, loaded - ready, loaded - began, first, sorted(picture() for _ in range(5))[2])
"""


def run(code: str) -> list[float]:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return [float(word) for word in result.stdout.split()]


def main() -> int:
    rows: dict[str, list[float]] = {}
    for _ in range(5):  # the kinds take turns, so that a slow moment of the machine meets all of them
        (seconds,) = run(IMPORT)
        rows.setdefault("import", []).append(seconds)
        names = ("import of torch and diffusers", "load", "import and load", "first picture", "twenty steps")
        for name, seconds in zip(names, run(LOAD), strict=True):
            rows.setdefault(name, []).append(seconds)
    passed = True
    print(f"{'':32}{'median':>9}{'least':>9}{'most':>9}{'limit':>9}   seconds")
    for name, seconds in rows.items():
        median, limit = statistics.median(seconds), LIMITS.get(name)
        passed &= limit is None or median <= limit
        print(f"{name:32}{median:9.3f}{min(seconds):9.3f}{max(seconds):9.3f}{limit or '':>9}")
    result = {"seconds": rows, "limits": LIMITS, "passed": passed, "python": platform.python_version()}
    print(json.dumps(result | {"machine": platform.machine(), "threads": 2}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

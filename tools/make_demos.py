"""`python tools/make_demos.py [names ...]`: record the course's demos again with the carried Pocket, into data/demos.

A demo is a run that a section of a notebook can start from, `sdwidgets.load_demo("00-astronaut")`, when there is no time, or no
kernel left, for a live one. Each is a row of the table below; a row's name starts with the number of its notebook. To add one,
add a row and run this with its name. After a new Pocket, run it without names.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

import sdwidgets
from sdwidgets.generation.schedulers import make_scheduler
from sdwidgets.latents import decode_previews

FOLDER = Path(__file__).resolve().parent.parent / "data" / "demos"
LARGEST = 300_000  # bytes: a notebook and a slide carry them along


@dataclass(frozen=True)
class Demo:
    """The settings of one run; what is not said is the course's usual."""

    name: str
    prompt: str = "an astronaut on a blue background"
    negative_prompt: str | None = None
    seed: int = 0
    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    scheduler: str | None = None  # a label of sdwidgets.generation.schedulers.SCHEDULERS; None: Pocket's own
    previews: bool = True  # predicted x0 of each step through the full decoder; without: in rough colours


#: an open prompt and little guidance: where the run may still go several ways, schedulers part
RACE = {"prompt": "an astronaut", "seed": 1, "num_inference_steps": 16, "guidance_scale": 1.5}
DEMOS = (
    Demo("00-astronaut"),
    Demo("01-astronaut"),
    Demo("02-ddim", **RACE),
    Demo("02-euler-ancestral", scheduler="Euler ancestral", **RACE),
    Demo("02-dpm", scheduler="DPM++ 2M", **RACE),
    Demo("02-converged", scheduler="DPM++ 2M", previews=False, **RACE | {"num_inference_steps": 40}),
    Demo("03-guidance", guidance_scale=7.5),
)


def make(pipe, demo: Demo) -> Path:
    """Record one demo and write it. Raises ValueError for one that came out too large, and writes nothing then."""
    own = pipe.scheduler
    try:
        if demo.scheduler:
            pipe.scheduler = make_scheduler(demo.scheduler, pipe)
        with sdwidgets.record(pipe) as trace:
            pipe(
                demo.prompt, negative_prompt=demo.negative_prompt, num_inference_steps=demo.num_inference_steps,
                guidance_scale=demo.guidance_scale, generator=torch.Generator().manual_seed(demo.seed),
            )  # fmt: skip
    finally:
        pipe.scheduler = own
    if demo.previews:
        decode_previews(trace, pipe)
    FOLDER.mkdir(exist_ok=True)
    part = trace.save(FOLDER / f"{demo.name}.part", compact=True)  # git ignores *.part
    size = part.stat().st_size
    if size > LARGEST:
        part.unlink()
        raise ValueError(
            f"demo {demo.name!r} takes {size:,} bytes and may take {LARGEST:,}: give it fewer steps, or previews=False"
        )
    return part.replace(FOLDER / f"{demo.name}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="default: all of the table, and what else lies in data/demos is removed"
    )
    names = parser.parse_args().names
    known = {demo.name: demo for demo in DEMOS}
    for name in names:
        if name not in known:
            parser.error(f"there is no demo {name!r} in the table; there are: {', '.join(known)}")
    pipe = sdwidgets.load("pocket", device="cpu", dtype="float32")
    pipe.set_progress_bar_config(disable=True)
    for name in names or known:
        path = make(pipe, known[name])
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    if not names:
        for path in FOLDER.glob("*.safetensors"):
            if path.stem not in known:
                path.unlink()
                print(f"{path.name}: removed, it is not in the table")


if __name__ == "__main__":
    main()

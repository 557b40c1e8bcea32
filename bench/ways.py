"""What the sections of the bench share: how long to measure, the pipelines, and a picture drawn by one of them."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

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
    product: int = 1536  # side of the matrices whose product gives this machine's rate


FULL = Effort()
CHILD = Effort(turns=12, budget=20.0, pictures=40, batches=(1, 4, 16))
QUICK = Effort(
    turns=1, budget=1.0, pictures=2, runs=6, starts=1, batches=(1, 2), live=2.0, many=4, compile=False, product=256
)


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

    def names(self, *among: str) -> list[str]:
        """Those that can be drawn by here: all, or those of `among`."""
        names = ["stock", "exact", *([OPTIMUM] if find_spec("optimum") else [])]
        try:
            self["fast"]
            names.append("fast")
        except ImportError:
            print("  speed='fast' needs OpenVINO, which is not installed: left out")
        if (self.folder / "extras" / "turbo").is_dir():
            names += ["turbo", *(["turbo, fast"] if "fast" in names else [])]
        return [name for name in names if not among or name in among]


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

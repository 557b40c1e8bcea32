"""From scenes to pictures and readings: a stock pipeline, one frozen setting, and the judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image
from PIL import Image
from tqdm.auto import tqdm

from ...generation.schedulers import make_scheduler
from ..world.scenes import SIZE, Scene, picture_sheet, render

SHEET = 64  # pictures on a sheet


@dataclass(frozen=True)
class Setting:
    """What decides the pictures of every row, up to a device's last bits. It is written into the file."""

    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    scheduler: str = "DDIM"  # a label of SCHEDULERS
    seed: int = 0  # another seed, other noise for every picture
    batch_size: int = 32  # pictures at once; another batch changes last bits only
    dtype: str = "float32"
    speed: str = "exact"  # or "fast": see `acceleration`; the same pictures up to rounding
    arithmetic: str | None = None  # where fast: with what, and in which precision
    strength: float = 1.0  # below 1: image to image, from each scene's own picture, the truth
    limit: int | None = None  # pictures a row at most, for a quick look


def noise_seed(seed: int, label: str, number: int) -> int:
    """The seed of picture `number` under a label: its own, whatever is drawn before it or beside it."""
    digest = hashlib.sha256(f"{seed}/{label}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass
class Evaluator:
    """A pipeline with a setting and the judge. `sheets`: a folder for sheets of the first 64 pictures of each label."""

    pipe: object
    judge: object
    setting: Setting = field(default_factory=Setting)
    sheets: Path | None = None
    progress: bool = True

    def __post_init__(self):
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.scheduler = make_scheduler(self.setting.scheduler, self.pipe)

    def cap(self, count: int) -> int:
        """`count` pictures, or fewer where the setting has a limit."""
        return count if self.setting.limit is None else min(count, self.setting.limit)

    def pictures(
        self, label: str, scenes: Sequence[Scene], title: str | None = None, **setting
    ) -> Iterator[tuple[list[Scene], np.ndarray]]:
        """Yields (scenes, pictures (n, 128, 128, 3) uint8) in batches. `setting` replaces fields of the setting.

        The noise of scene number i of the list depends on the seed, the label and i only, so that two lists under
        one label, or one list at two settings, start from the same noise. `title` is for the progress bar.
        """
        chosen, quiet = replace(self.setting, **setting), not self.progress
        with tqdm(total=len(scenes), desc=title or label, unit="picture", disable=quiet, mininterval=2) as bar:
            for start in range(0, len(scenes), chosen.batch_size):
                batch = list(scenes[start : start + chosen.batch_size])
                seeds = [noise_seed(chosen.seed, label, number) for number in range(start, start + len(batch))]
                yield batch, self._draw(batch, seeds, chosen)
                bar.update(len(batch))

    def _draw(self, scenes: list[Scene], seeds: list[int], setting: Setting) -> np.ndarray:
        pipe, truth = self.pipe, {}
        if setting.strength < 1:
            pipe = AutoPipelineForImage2Image.from_pipe(self.pipe)
            pipe.set_progress_bar_config(disable=True)
            truth = {"image": [render(scene) for scene in scenes], "strength": setting.strength}
        drawn = pipe(
            [scene.caption for scene in scenes],
            **truth,
            num_inference_steps=setting.num_inference_steps,
            guidance_scale=setting.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
        ).images
        if drawn.shape[1:] != (SIZE, SIZE, 3):
            raise ValueError(
                f"the judge reads pictures of {SIZE} x {SIZE} pixels, and this model drew {drawn.shape[2]} x {drawn.shape[1]}; "
                "evaluate Pocket, or a folder that `sdwidgets train export` wrote"
            )
        return (np.nan_to_num(drawn) * 255).round().astype(np.uint8)

    def readings(
        self, label: str, scenes: Sequence[Scene], view=None, title: str | None = None, **setting
    ) -> Iterator[tuple[Scene, object]]:
        """Yields (scene, what the judge read in its picture). With `view`, a sheet tells right from wrong."""
        kept: list[tuple[Image.Image, str]] = []
        for batch, pictures in self.pictures(label, scenes, title, **setting):
            for scene, picture, seen in zip(batch, pictures, self.judge.read(pictures), strict=True):
                if self.sheets is not None and len(kept) < SHEET:
                    right = view is None or view(scene) == view(seen)
                    verdict = "" if view is None else "right" if right else f"read: {view(seen)}"
                    kept.append((Image.fromarray(picture), f"{scene.caption}\n{verdict}"))
                yield scene, seen
        if kept:
            self.sheets.mkdir(parents=True, exist_ok=True)
            name = (title or label).replace(",", "").replace(" ", "-")
            picture_sheet(kept).save(self.sheets / f"{name}.png")

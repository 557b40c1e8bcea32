"""How often the denoiser was shown what the plan holds: a training may use a part of the scenes, and each of them many times."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from ..datasheet import FULL


@functools.lru_cache(maxsize=8)
def blocks_among(count: int) -> dict[str, int]:
    """Of each block of `FULL`, how many of its scenes are among the first `count` of `parts.training_scenes`."""
    from ..parts import training_scenes

    ends = np.cumsum([block.count for block in FULL.blocks])
    places = np.searchsorted(ends, training_scenes(FULL, count), side="right")
    counted = np.bincount(places, minlength=len(ends)).tolist()
    return {block.name: number for block, number in zip(FULL.blocks, counted, strict=True)}


@dataclass(frozen=True)
class Shown:
    """What a training's record tells of the scenes that it used.

    `scenes`: how many at its end, `among`: how many of each block are among these; None and empty where it is not told.
    `times`: how often pictures of each block were shown in all; empty where the record has no stages. Not `whole`: at least so often.
    """

    scenes: int | None = None
    among: dict[str, int] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    whole: bool = False

    def of(self, block: str) -> dict:
        """What an evaluation's file says of a block: "used" scenes and times "shown", None where it is not known."""
        times = self.times.get(block) if self.whole else None
        return {"used": self.among.get(block), "shown": None if times is None else round(times, 1)}


def shown(training: dict | None) -> Shown:
    """What `training.json` tells of a denoiser. Of another grammar than `FULL`, and without a record: nothing.

    A block is shown in each stage as often as its scenes among the stage's, times samples / scenes: each epoch has every scene once.
    """
    record = (training or {}).get("denoiser")
    if record is None or training.get("grammar") != FULL.name:
        return Shown()
    stages = record.get("stages") or []
    scenes = (stages[-1].get("scenes") if stages else None) or record.get("scenes")
    among = blocks_among(scenes) if scenes else {}
    known = [stage for stage in stages if stage.get("scenes")]
    if not known:
        return Shown(scenes, among)
    times = {
        block.name: sum(blocks_among(s["scenes"])[block.name] * s["samples"] / s["scenes"] for s in known)
        for block in FULL.blocks
    }
    return Shown(scenes, among, times, sum(stage["samples"] for stage in known) == record["samples"])

"""How often the denoiser was shown what the plan holds, counted from the epochs that its training's record tells of."""

from __future__ import annotations

import numpy as np

from ..training.epochs import Epochs, Stage
from ..training.scene_order import plan_epochs, training_scenes, world_digest
from ..world.datasheet import FULL, find_grammar


def order_of(training: dict | None) -> tuple[list[Stage], Epochs] | None:
    """The stages of a denoiser's training and the order that they make, from the records of a model's training (training.json).

    None where that is not known: the record tells no epochs, or it is of another edition of the grammar.
    """
    record = (training or {}).get("denoiser") or {}
    if not record.get("epochs"):
        return None
    grammar, last = find_grammar(training["grammar"]), record["epochs"][-1]
    if record.get("world") != world_digest(grammar):
        return None
    return plan_epochs(grammar, record, last["scenes"], last["factors"], record["config"]["schedule"]["seed"])


def scenes_shown(training: dict | None) -> list[int]:
    """The numbers of the scenes of `FULL` that the denoiser was trained on, each once; empty where `shown` is."""
    if (planned := order_of(training)) is None or training["grammar"] != FULL.name:
        return []
    return training_scenes(FULL, max(stage.scenes for stage in planned[0]))


def shown(training: dict | None) -> dict[str, int]:
    """Block of `FULL` -> how often its pictures were shown in all; empty where it is not known, and of another grammar."""
    if not (scenes := scenes_shown(training)):
        return {}
    ends = np.cumsum([block.count for block in FULL.blocks])
    blocks = np.searchsorted(ends, scenes, side="right")
    _, order = order_of(training)
    times = order.shown(training["denoiser"]["samples"])
    counted = np.bincount(blocks, weights=times, minlength=len(ends)).astype(int).tolist()
    return {block.name: number for block, number in zip(FULL.blocks, counted, strict=True)}

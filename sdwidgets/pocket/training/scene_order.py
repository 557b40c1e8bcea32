"""In which order a training shows its scenes, and how often each: what is planned is shown exactly as often as it is planned."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np

from ..world.datasheet import Grammar
from ..world.scenes import make_scene, spread
from . import epochs


@functools.lru_cache(maxsize=2)
def _distinct(grammar: Grammar) -> tuple[dict[int, int], list[int]]:
    """(scenes of planned blocks -> how often each is repeated, all other scenes), both in one fixed random order.

    A scene that is drawn again under another number is one that is repeated.
    """
    planned, others, first = {}, [], {}
    for index in np.random.default_rng(grammar.count).permutation(grammar.count).tolist():
        if grammar.block_at(index)[0].planned:
            same = first.setdefault(dataclasses.replace(grammar.scene(index), index=0), index)
            planned[same] = planned.get(same, 0) + 1
        else:
            others.append(index)
    return planned, others


FIRST = 16_384  # scenes of blocks that are not planned, with which a training may begin


def training_scenes(grammar: Grammar, count: int | None = None) -> list[int]:
    """The numbers of a grammar's first `count` scenes in one fixed order, of repeated planned ones the first; all by default.

    The first `FIRST` are a fair sample of the blocks that are not planned, so that a training can begin before all is encoded. Then come
    planned blocks, whole, since a part of them would change what is planted, then all others. Raises ValueError for any other count.
    """
    planned, others = _distinct(grammar)
    begin = min(FIRST, len(others))
    whole, most = begin + len(planned), len(planned) + len(others)
    if count is not None and not (1 <= count <= begin or whole <= count <= most):
        raise ValueError(
            f"--scenes must be 1 to {begin} or {whole} to {most} for the grammar {grammar.name}, not {count}"
        )
    return [*others[:begin], *planned, *others[begin:]][:count]


def times_an_epoch(grammar: Grammar, indices: list[int], factors: dict[str, int] | None = None) -> np.ndarray:
    """How often an epoch shows each of these scenes, (n,): as often as it is planned, times its block's factor.

    `factors`: the name of a block that is not planned -> a whole number; raises ValueError for another.
    """
    planned, _ = _distinct(grammar)
    factors = factors or {}
    free = [block.name for block in grammar.blocks if not block.planned]
    for name, factor in factors.items():
        if name not in free or not isinstance(factor, int) or factor < 1:
            raise ValueError(
                f"a block may be shown more often where it is one of {', '.join(free)}, 1, 2, ... times, not {name}={factor}"
            )
    factor_of = lambda index: factors.get(grammar.block_at(index)[0].name, 1) if factors else 1
    return np.array([planned.get(index) or factor_of(index) for index in indices])


def world_digest(grammar: Grammar) -> str:
    """Sixteen hexadecimal digits of scenes from all over a grammar: other digits, another world."""
    scenes = [make_scene(grammar, index) for index in spread(grammar, 200)]
    return hashlib.sha256(repr(scenes).encode()).hexdigest()[:16]


def plan_epochs(grammar: Grammar, record: dict, scenes: int, factors: dict[str, int], seed: int):
    """(stages, their `Epochs`): those of a training's record, and one more where scenes or factors are others than the last's."""
    stages = [epochs.Stage(**stage) for stage in record.get("epochs", ())]
    everything = training_scenes(grammar, max([scenes, *(stage.scenes for stage in stages)]))
    times = lambda stage: times_an_epoch(grammar, everything[: stage.scenes], stage.factors)
    length = int(times(stages[-1]).sum()) if stages else 1
    stages = epochs.with_stage(stages, record.get("samples", 0), length, scenes, factors)
    return stages, epochs.Epochs([(stage.start, times(stage)) for stage in stages], seed)

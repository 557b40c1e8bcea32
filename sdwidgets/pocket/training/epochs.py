"""Which picture a training shows at which sample: epochs, each a new order of the same pictures, in stages.

So how often each picture was shown is a sum of whole numbers that anyone can work out again from the training's record.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Stage:
    """From sample number `start` on, an epoch shows the first `scenes` of `scene_order.training_scenes`, each as often as it is planned, times
    what `factors` says of its block (block -> a whole number, 1 where it is not named)."""

    start: int
    scenes: int
    factors: dict[str, int] = field(default_factory=dict)


def with_stage(
    stages: Sequence[Stage], samples: int, length: int, scenes: int, factors: dict[str, int]
) -> list[Stage]:
    """`stages`, and one more where its settings are others than the last one's.

    It begins with the next epoch; with fewer scenes at once, since the others need not be at hand any more. `samples`: how many were
    shown so far; `length`: of the last stage's epoch.
    """
    if not stages:
        return [Stage(0, scenes, factors)]
    last = stages[-1]
    if (last.scenes, last.factors) == (scenes, factors):
        return list(stages)
    begun = max(0, samples - last.start)
    start = samples if scenes < last.scenes else last.start + -(-begun // length) * length
    kept = stages[:-1] if start == last.start else stages
    return [*kept, Stage(start, scenes, factors)]


class Epochs:
    """The order of a training. `stages`: (first sample, how often an epoch shows each picture: (n,) whole numbers), in order."""

    def __init__(self, stages: Sequence[tuple[int, np.ndarray]], seed: int = 0):
        self.starts = [start for start, _ in stages]
        self.times = [np.asarray(times, dtype=np.int64) for _, times in stages]
        self.seed = seed
        if self.starts[0] != 0 or sorted(set(self.starts)) != self.starts:
            raise ValueError(f"stages begin at 0, and each after the one before, not at {self.starts}")

    def length(self, stage: int) -> int:
        """Samples of one epoch of a stage."""
        return int(self.times[stage].sum())

    @functools.lru_cache(maxsize=3)  # noqa: B019  (a batch lies in two epochs at most)
    def order(self, stage: int, epoch: int) -> np.ndarray:
        """The pictures of one epoch, in their order: (length,)."""
        rng = np.random.default_rng([self.seed, self.starts[stage], epoch])
        return rng.permutation(np.repeat(np.arange(len(self.times[stage])), self.times[stage]))

    def rows(self, samples: np.ndarray) -> np.ndarray:
        """The picture that each sample number shows."""
        rows = []
        for sample in samples:
            stage = np.searchsorted(self.starts, sample, side="right") - 1
            epoch, number = divmod(int(sample) - self.starts[stage], self.length(stage))
            rows.append(self.order(int(stage), epoch)[number])
        return np.array(rows, dtype=np.int64)

    def shown(self, samples: int) -> np.ndarray:
        """How often each picture was among the first `samples`: (n,), n of the stage with the most pictures."""
        counts = np.zeros(max(len(times) for times in self.times), dtype=np.int64)
        for stage, (start, times) in enumerate(zip(self.starts, self.times, strict=True)):
            end = self.starts[stage + 1] if stage + 1 < len(self.starts) else samples
            whole, rest = divmod(max(0, min(end, samples) - start), self.length(stage))
            counts[: len(times)] += whole * times
            if rest:
                counts[: len(times)] += np.bincount(self.order(stage, whole)[:rest], minlength=len(times))
        return counts

"""What Pocket draws well: the table of words from which the course chooses what it shows."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..paths import data_folder


@dataclass(frozen=True)
class Drawn:
    """A word ("cat", "red star", "doctor"), its kind ("object", "shape" or "person"), and how often its pictures are right: `rate` in 0..1 of
    `n` pictures, with the 95% interval `low` to `high`."""

    word: str
    kind: str
    n: int
    rate: float
    low: float
    high: float


def drawn_words(kind: str | None = None) -> list[Drawn]:
    """Every word of the carried model's evaluation, the best first; of one kind, or all. Empty where it was not measured."""
    evaluation = json.loads((data_folder("pocket") / "evaluation.json").read_text(encoding="utf-8"))
    lines = [Drawn(**line) for line in evaluation.get("words", {}).get("lines", ())]
    return sorted((one for one in lines if kind in (None, one.kind)), key=lambda one: (-one.rate, one.word))


def draws_well(kind: str | None = None, least: float = 0.9) -> list[str]:
    """The words that are right in at least `least` of their pictures, the best first. Raises ValueError for a share outside 0 to 1."""
    if not 0 <= least <= 1:
        raise ValueError(f"`least` is a share from 0 to 1, not {least!r}")
    return [one.word for one in drawn_words(kind) if one.rate >= least]

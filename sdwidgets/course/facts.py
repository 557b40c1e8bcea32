"""Figures that the course states about other people's models, each with its source: `data/facts/*.csv`."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from difflib import get_close_matches

from ..generation.validation import as_number
from ..paths import data_folder


@dataclass(frozen=True)
class Fact:
    """One figure. `seen` says how: read in the primary text, or derived from what the source publishes."""

    key: str
    value: int | float | str
    unit: str
    source: str
    address: str
    seen: str


@functools.lru_cache(maxsize=1)
def facts() -> dict[str, Fact]:
    """Every fact by its key."""
    rows = []
    for file in sorted(data_folder("facts").glob("*.csv")):
        with file.open(newline="", encoding="utf-8") as lines:
            rows += [Fact(**row | {"value": as_number(row["value"])}) for row in csv.DictReader(lines)]
    return {fact.key: fact for fact in rows}


def fact(key: str) -> int | float | str:
    """The value of one fact, e.g. fact("sd15.unet.parameters"). Raises KeyError and names the closest key."""
    if key not in facts():
        close = get_close_matches(key, facts(), 1)
        raise KeyError(f"there is no fact {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return facts()[key].value

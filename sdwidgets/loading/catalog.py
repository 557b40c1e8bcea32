"""The models that the course knows by name: where they are, what they may be used for, what they need. The rows stand in models.json.

Figures come from the course's table of sourced facts. Parameter counts are of all parts together, the T5
encoder and the safety checker (both derived from their published configurations) included. Sizes are derived
from the counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Model:
    """One row. Sizes are in bytes, the native size in pixels (the side of a square picture)."""

    name: str  # what load() takes
    title: str
    hub_id: str | None  # None: carried by this package
    licence: str
    licence_url: str
    parameters: int  # all parts that are loaded
    denoiser_parameters: int
    native_size: int
    steps: int  # usual number of inference steps
    guidance: float  # usual guidance scale
    family: str  # diffusers' pipeline class
    gated: bool = False  # the hub asks to sign in and to accept the licence first
    mirrors: tuple[str, ...] = ()  # tried in this order where hub_id is gone
    formerly: tuple[str, ...] = ()  # ids that older texts use and that no longer exist
    revision: str | None = None  # a commit of the hub; None: its main branch, whatever that holds on the day
    stored_bytes: int = 4  # per parameter in the largest form on the hub: 4 float32, 2 half precision
    note: str = ""
    last_verified: str | None = None  # date on which load() was seen to work over the network
    verified: str = "Not yet: this table was written without a network; the rows come from public documents."

    @property
    def download(self) -> int:
        """About the bytes that a download takes for half precision; the full one is `download_full`."""
        return 2 * self.parameters if self.hub_id else 0

    @property
    def download_full(self) -> int:
        """About the bytes that a download takes for float32."""
        return self.stored_bytes * self.parameters if self.hub_id else 0

    def memory(self, itemsize: int) -> int:
        """About the bytes to run it at `itemsize` bytes a parameter: weights, a fifth more, and 0.5 GB."""
        return int(1.2 * itemsize * self.parameters) + 500_000_000


def _read_models() -> dict[str, Model]:
    """The rows of models.json. "sizes" there are the parameters of each part; "parts" of a row, the parts that it loads, the denoiser first."""
    table = json.loads(Path(__file__).with_name("models.json").read_text(encoding="utf-8"))
    models = {}
    for row in table["models"]:
        counts = [table["sizes"][part] for part in row.pop("parts")]
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
        }
        models[row["name"]] = Model(**fields, parameters=sum(counts), denoiser_parameters=counts[0])
    return models


MODELS = _read_models()


def find_model(name: str) -> Model | None:
    """The row for a short name (in any case) or for a hub id, former or mirrored ones too; else None."""
    wanted = name.strip().lower()
    for row in MODELS.values():
        ids = (row.name, row.hub_id or "", *row.mirrors, *row.formerly)
        if wanted and wanted in (i.lower() for i in ids):
            return row
    return None


def closest(name: str) -> str | None:
    """The short name that was probably meant, or None."""
    matches = get_close_matches(name.strip().lower(), list(MODELS), n=1, cutoff=0.5)
    return matches[0] if matches else None

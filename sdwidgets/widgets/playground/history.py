"""What runs are made from, what was made, and the last of them, bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...trace import CONTROLS, Trace
from ..replay import MAX_PICTURE, webp

# runs that are kept; of these with their traces; bytes of the older traces together
RUNS, TRACES, BYTES = 24, 6, 128_000_000
THUMBNAIL = 96  # pixels


class RunRequest(NamedTuple):
    """What a run is made from: the controls' settings, and the pictures of its task."""

    settings: dict
    source: Image.Image | None = None
    mask: Image.Image | None = None
    live: int = 0  # its number in the live mode, counted by the page; 0: not of the live mode


class Run(NamedTuple):
    """What was made, and from what."""

    request: RunRequest
    trace: Trace
    scheduler: Any  # the diffusers scheduler that ran
    badge: str


@dataclass
class HistoryEntry:
    """One of the last runs: its request and its picture, and the whole run while there is room for it."""

    number: int  # counted from 1
    request: RunRequest
    picture: bytes  # WebP, at most 768 pixels
    thumbnail: bytes  # WebP
    run: Run | None

    @property
    def settings(self) -> dict:
        return self.request.settings

    def to_message(self) -> dict:
        """As the strip on the page shows it."""
        title = f"{self.settings['prompt'][:80] or '(no prompt)'} · seed {self.settings['seed']}"
        return {"number": self.number, "thumbnail": self.thumbnail, "title": title}


class History:
    """The newest RUNS runs that made a picture; the newest TRACES of them keep their traces, within BYTES.

    Of live runs in a row only the last is kept.
    """

    def __init__(self):
        self._entries: list[HistoryEntry] = []
        self._made = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[HistoryEntry]:
        return iter(self._entries)

    @property
    def numbers(self) -> list[int]:
        return [entry.number for entry in self]

    def find(self, number) -> HistoryEntry | None:
        return next((entry for entry in self if entry.number == number), None)

    def add(self, run: Run) -> HistoryEntry | None:
        """Keep a run. It takes the place of one with the same request, and a live run that of a live one just before it.

        None for a run without a picture.
        """
        if run.trace.images is None:
            return None
        entry = next((entry for entry in self if entry.request[:3] == run.request[:3]), None)
        if entry is None and self._entries and self._entries[-1].request.live and run.request.live:
            entry = self._entries[-1]
        if entry is None:
            self._made += 1
            entry = HistoryEntry(self._made, run.request, b"", b"", None)
            self._entries = [*self._entries, entry][-RUNS:]
        if entry.run is not run:
            picture: np.ndarray = run.trace.images[0]
            entry.request, entry.run = run.request, run
            entry.picture = webp(picture, MAX_PICTURE, quality=90)
            entry.thumbnail = webp(picture, THUMBNAIL, quality=70)
        self._drop_old_traces(entry)
        return entry

    def _drop_old_traces(self, shown: HistoryEntry) -> None:
        room, traces = BYTES, 1
        for entry in reversed(self._entries):
            if entry.run is None or entry is shown:
                continue
            room -= entry.run.trace.nbytes
            traces += 1
            if traces > TRACES or room < 0:
                entry.run = None


def differences(a: RunRequest, b: RunRequest) -> list[list[str]]:
    """[label, value in a, value in b] for each setting and picture in which two requests differ."""
    tasks = (a.settings["task"], b.settings["task"])
    unread = ("strength", "border") if "text" in tasks else ()
    rows = [
        [CONTROLS[name].label, _as_text(before), _as_text(b.settings[name])]
        for name, before in a.settings.items()
        if before != b.settings[name] and name not in unread
    ]
    if a.source != b.source and "text" not in tasks:
        rows.append(["Picture it starts from", "one", "another"])
    if a.mask != b.mask and tasks == ("inpaint", "inpaint"):
        rows.append(["Mask", "one", "another"])
    return rows


def _as_text(value) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value) or "(empty)"

"""The last runs of a Playground, bounded in number and in bytes, and what differs between two of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from ...trace import CONTROLS, PER_RUN_ARRAYS, PER_STEP_ARRAYS
from ..replay import MAX_PICTURE, webp

RUNS, TRACES, BYTES = (
    24,
    6,
    128_000_000,
)  # runs that are kept; of these with their traces; bytes of the older traces together
THUMBNAIL = 96  # pixels


@dataclass
class Past:
    """A run that was: its order and its picture, and the whole run while there is room for it."""

    number: int  # counted from 1
    order: object  # session.Order
    picture: bytes  # WebP, at most 768 pixels
    run: object | None  # session.Run

    @property
    def settings(self) -> dict:
        return self.order.settings

    def told(self) -> dict:
        """As the strip on the page shows it."""
        with Image.open(io.BytesIO(self.picture)) as picture:
            small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=70)
        title = f"{self.settings['prompt'][:80] or '(no prompt)'} · seed {self.settings['seed']}"
        return {"number": self.number, "thumbnail": buffer.getvalue(), "title": title}


class History:
    """The newest RUNS runs, of a row of live runs the last, that made a picture; the newest TRACES of them keep their traces, within BYTES."""

    def __init__(self):
        self._runs: list[Past] = []
        self._made = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Past]:
        return iter(self._runs)

    def find(self, number) -> Past | None:
        return next((past for past in self._runs if past.number == number), None)

    def add(self, run) -> Past | None:
        """Keep a run. One of an order that is here takes its place there, and a live one that of a live one just before it.

        None for a run without a picture.
        """
        if run.trace.images is None:
            return None
        past = next((past for past in self._runs if past.order[:3] == run.order[:3]), None)
        if past is None and self._runs and self._runs[-1].order.live and run.order.live:
            past = self._runs[-1]
        if past is None:
            self._made += 1
            past = Past(self._made, run.order, b"", None)
            self._runs = [*self._runs, past][-RUNS:]
        if past.run is not run:
            past.order, past.run = run.order, run
            past.picture = webp(run.trace.images[0], MAX_PICTURE, quality=90)
        self._let_go(past)
        return past

    def _let_go(self, shown: Past) -> None:
        """Forget the traces of the oldest runs, but for the one that is shown."""
        room, traces = BYTES, 1
        for past in reversed(self._runs):
            if past.run is None or past is shown:
                continue
            room -= size(past.run.trace)
            traces += 1
            if traces > TRACES or room < 0:
                past.run = None


def size(trace) -> int:
    """Bytes of a trace's arrays."""
    arrays = [getattr(step, name) for step in trace for name in PER_STEP_ARRAYS]
    arrays += [getattr(trace, name) for name in PER_RUN_ARRAYS]
    return sum(array.nbytes for array in arrays if array is not None)


def differences(a, b) -> list[list[str]]:
    """[name, value in a, value in b] for each setting in which two orders differ."""
    found = []
    for name in a.settings:
        before, after = a.settings[name], b.settings[name]
        idle = name in ("strength", "border") and "text" in (a.settings["task"], b.settings["task"])
        if before != after and not idle:
            found.append([CONTROLS[name].label, _words(before), _words(after)])
    found += [["Picture it starts from", "one", "another"]] if a.source != b.source and "text" not in (a.settings["task"], b.settings["task"]) else []  # fmt: skip
    return found + ([["Mask", "one", "another"]] if a.mask != b.mask and a.settings["task"] == b.settings["task"] == "inpaint" else [])  # fmt: skip


def _words(value) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)

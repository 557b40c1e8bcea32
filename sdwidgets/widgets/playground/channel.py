"""Messages from a worker thread to the pages that show a widget, in order, also where a thread's messages get lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager

from ...parts import map_leaves
from .protocol import ENVELOPE, TO_PAGE, find_fault

DELIVERIES = ("auto", "push", "pull", "sync")


class Channel:
    """Published messages are numbered, and kept until the next run: a page that missed some, or comes later, gets them.

    send_raw: sends one message and its buffers to every page, as `Widget.send` does.
    on_worker: True on the worker's thread. What that thread publishes is sent at once, unless `delivery` is "pull": then it
        waits until another thread publishes, flushes, or answers a page that polls.
    delivery: "push", "pull", "sync", or "auto", which starts with the one that fits. Raises ValueError for another.
    """

    def __init__(self, send_raw: Callable[[dict, list[bytes]], None], on_worker: Callable[[], bool], delivery: str):
        if delivery not in DELIVERIES:
            raise ValueError(f"There is no delivery {delivery!r}; choose one of: {', '.join(DELIVERIES)}.")
        self._adaptive = delivery == "auto"
        self.delivery = ("pull" if "google.colab" in sys.modules else "push") if self._adaptive else delivery
        self._send_raw, self._on_worker = send_raw, on_worker
        self._lock = threading.RLock()
        self._kept: list[dict] = []
        self._calls: list[Callable[[], None]] = []
        self._hold_calls = False
        self._number = self._sent = 0  # of the last message made, and of the last one sent

    def change_delivery(self, delivery: str) -> bool:
        """Deliver in another way, where the way was left to us; True if so."""
        if self._adaptive:
            self.delivery = delivery
        return self._adaptive

    def publish(self, kind: str, **message) -> None:
        """News for every page."""
        _check(kind, message)
        with self._lock:
            self._number += 1
            self._kept.append({"kind": kind, "number": self._number, **message})
        self._flush_if_due()

    def call(self, function: Callable[[], None]) -> None:
        """Call a function after what was published so far is sent, on the thread that sends it."""
        with self._lock:
            self._calls.append(function)
        self._flush_if_due()

    @contextmanager
    def hold_calls(self):
        """Functions that were to be called in the block are called at its end."""
        self._hold_calls = True
        try:
            yield
        finally:
            self._hold_calls = False
            self.flush()

    def discard(self, kind: str | None = None) -> None:
        """Keep no message, or none of this kind, for pages that come later."""
        with self._lock:
            self._kept = [message for message in self._kept if kind is not None and message["kind"] != kind]

    def flush(self) -> None:
        """Send what was not sent yet."""
        self.resend()

    def resend(self, seen: int | None = None) -> None:
        """Send what came after message number `seen`, by default what was not sent yet. A page leaves out what it knows."""
        with self._lock:  # which number was sent last, another thread may change until here
            calls = self._send_after(self._sent if seen is None else seen)
        for function in calls:  # without the lock: who knows what they do
            function()

    def welcome(self, client: str, **state) -> None:
        """Tell a new page the state, then everything that is kept."""
        with self._lock:
            before = (self._kept[0]["number"] if self._kept else self._number + 1) - 1
            self.send("state", client, seen=before, delivery=self.delivery, **state)
            calls = self._send_after(before)
        for function in calls:
            function()

    def send(self, kind: str, client: str = "", **message) -> None:
        """A message to one view, or to all that are open now: without a number, not kept."""
        _check(kind, message)
        self._transmit({"kind": kind, "client": client, **message})

    def _send_after(self, seen: int) -> list[Callable[[], None]]:
        again = {"again": True} if seen < self._sent else {}
        for message in self._kept:
            if message["number"] > seen:
                self._transmit({**message, **again, "delivery": self.delivery})
        self._sent = self._number
        if self._hold_calls:
            return []
        calls, self._calls = self._calls, []
        return calls

    def _flush_if_due(self) -> None:
        if self.delivery != "pull" or not self._on_worker():
            self.flush()

    def _transmit(self, message: dict) -> None:
        buffers: list[bytes] = []
        self._send_raw(without_bytes(message, buffers), buffers)


def _check(kind: str, message: dict) -> None:
    fields = {name: value for name, value in message.items() if name not in ENVELOPE}
    if fault := find_fault(TO_PAGE, kind, fields):
        raise TypeError(fault)


def without_bytes(value, buffers: list[bytes]):
    """The same data with {"at": i} instead of bytes, which go to `buffers` in that order.

    ipywidgets does this for traits alone, and a trait is neither numbered nor sent again.
    """

    def refer(data: bytes) -> dict:
        buffers.append(data)
        return {"at": len(buffers) - 1}

    return map_leaves(value, bytes, refer)

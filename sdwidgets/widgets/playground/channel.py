"""News from a worker thread to the pages that show a widget, in order, also where a thread's messages get lost."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Mail:
    """Numbered messages: kept until the next run, so that a page which missed some, or comes later, gets them.

    send: sends one message and its buffers to every page, as `Widget.send` does.
    here: True on the worker's thread. What that thread posts is sent at once, unless `delivery` is "pull": then it
        waits until another thread posts, flushes, or answers a page that asks.
    """

    def __init__(self, send: Callable[[dict, list[bytes]], None], here: Callable[[], bool], delivery: str):
        self.delivery = delivery
        self._send, self._here = send, here
        self._lock = threading.RLock()
        self._kept: list[dict] = []
        self._number = self._sent = 0  # of the last message made, and of the last one sent

    def post(self, kind: str, **content) -> None:
        """News for every page."""
        with self._lock:
            self._number += 1
            self._kept.append({"kind": kind, "number": self._number, **content})
            if self.delivery != "pull" or not self._here():
                self.flush()

    def forget(self, kind: str | None = None) -> None:
        """Keep no message, or none of this kind, for pages that come later."""
        with self._lock:
            self._kept = [message for message in self._kept if kind is not None and message["kind"] != kind]

    def flush(self) -> None:
        """Send what was not sent yet."""
        with self._lock:
            self.send_again(self._sent)

    def send_again(self, seen: int) -> None:
        """Send what came after message number `seen`. A page leaves out what it knows."""
        with self._lock:
            again = {"again": True} if seen < self._sent else {}
            for message in self._kept:
                if message["number"] > seen:
                    self.tell(**message, **again, delivery=self.delivery)
            self._sent = self._number

    def welcome(self, **content) -> None:
        """Tell a new page how things stand, then everything that is kept."""
        with self._lock:
            before = (self._kept[0]["number"] if self._kept else self._number + 1) - 1
            self.tell(kind="state", seen=before, delivery=self.delivery, **content)
            self.send_again(before)

    def tell(self, **message) -> None:
        """Send a message that is no news: without a number, not kept."""
        buffers: list[bytes] = []
        self._send(without_bytes(message, buffers), buffers)


def without_bytes(value, buffers: list[bytes]):
    """The same data with {"at": i} in the place of bytes, which go to `buffers` in that order."""
    if isinstance(value, bytes):
        buffers.append(value)
        return {"at": len(buffers) - 1}
    if isinstance(value, dict):
        return {key: without_bytes(item, buffers) for key, item in value.items()}
    return [without_bytes(item, buffers) for item in value] if isinstance(value, (list, tuple)) else value

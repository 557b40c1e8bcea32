"""A download that goes on, but so slowly that it never ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import FALLBACK, NoNetworkError

SLOWEST, WINDOW = 1000, 60  # bytes a second, over so many seconds; a picture model at that rate takes a month


@contextmanager
def bounded_bars(hub_id: str) -> Iterator[type]:
    """The hub client's class of progress bars, which ends a download of fewer than `SLOWEST` bytes a second with a NoNetworkError.

    Inside, the client counts bytes as they arrive, not in pieces of 10 MB: at one byte a second such a piece takes four months,
    and no timeout of a socket ends it.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.counts_bytes = options.get("unit") == "B"
            self.since, self.arrived = time.monotonic(), 0

        def update(self, n=1):
            now, self.arrived = time.monotonic(), self.arrived + (n or 0)
            if self.counts_bytes and now - self.since > WINDOW:
                rate = self.arrived / (now - self.since)
                self.since, self.arrived = now, 0
                if rate < SLOWEST:
                    raise NoNetworkError(
                        f"{hub_id} arrives at {rate:.0f} bytes a second, which would never end; files that had arrived stay there. "
                        f"Load it again on another network. {FALLBACK}"
                    )
            return super().update(n)

    piece, constants.DOWNLOAD_CHUNK_SIZE = constants.DOWNLOAD_CHUNK_SIZE, None
    try:
        yield Bar
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = piece

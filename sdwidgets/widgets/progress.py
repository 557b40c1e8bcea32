"""How far a view's runs are, in the cell that makes it: one line, gone when the view is there."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE, PAUSE = 1.0, 0.1  # seconds: before the line appears, and between two changes of it


@contextmanager
def progress_line(total: int) -> Iterator[Callable[[str], None]]:
    """`advance(what)`, to be called after each of `total` steps, shows in a notebook how many are done, and of `what`, which may be "".

    Work that takes less than `PATIENCE` seconds shows nothing, and so does a Python without a notebook.
    """
    began = shown = time.monotonic()
    done, line = 0, None

    def advance(what: str) -> None:
        nonlocal done, shown, line
        done += 1
        now = time.monotonic()
        if now - began < PATIENCE or now - shown < PAUSE or not _in_notebook():
            return
        from IPython.display import display

        shown, label = now, html.escape(f"{what}: " if what else "")
        text = f"{label}step {done} of {total}"
        bar = f'<progress max="{total}" value="{done}" aria-label="Progress"></progress> {text}'
        if line is None:
            line = display({"text/html": bar, "text/plain": text}, raw=True, display_id=True)
        else:
            line.update({"text/html": bar, "text/plain": text}, raw=True)

    try:
        yield advance
    finally:
        if line is not None:
            line.update({"text/html": "", "text/plain": ""}, raw=True)


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None

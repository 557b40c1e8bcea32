"""Views over a `Trace`: the replay, which needs no kernel, and the Playground, which drives a pipeline.

`replay` turns a trace into a page; `playground` is the live widget; `worker` runs one job at a time, the newest first.
Both views share one style (`look.css`) and one scrubber (`replay.js`); no build step stands between them and a browser.
"""

from __future__ import annotations

__all__ = ["Playground"]


def __getattr__(name: str):
    if name == "Playground":
        from .playground.widget import Playground

        return Playground
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""How well does Pocket draw what the prompt says? Prompts, checks, intervals and tiers; the judge does the reading.

`asking` holds every prompt and what a right picture shows, `tiers` what is to be reached, `drawing` goes from
prompts to readings, `sections` measures, `measuring` runs it all, and `report` is about the file.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "ATTRIBUTES": "asking", "ROWS": "asking", "BARS": "tiers", "TIERS": "tiers", "row_tier": "tiers", "tier_of": "tiers",
    "Rate": "rates", "background_colour": "background", "background_prompts": "background", "background_rate": "background",
}  # fmt: skip

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    """Each name is imported on its first use: the command line needs the table and not numpy."""
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")

"""Judges of Pocket's pictures: what is drawn there, told from the pixels alone and never from the prompt.

Judge A (a small network) chooses checkpoints, judge B (templates, no network) reports; `gate` says how far either is to
be believed. `read(pictures)` gives a `Judgement` a picture, and `judgement` has the questions that can be asked of one.
"""

from __future__ import annotations

from pathlib import Path

from .judgement import Judgement, Seen, colour_of, count, has_object, named, only, person, place, relation

__all__ = [
    "Judgement", "Seen", "colour_of", "count", "has_object", "load", "named", "only", "person", "place", "relation",
]  # fmt: skip


def load(name: str, folder: Path | None = None):
    """Judge "a" or "b", as the course carries it or as `fit` left it in a folder. Raises ValueError for any other name."""
    if name == "a":
        from .judge_a import JudgeA as Judge
    elif name == "b":
        from .judge_b import JudgeB as Judge
    else:
        raise ValueError(f"no judge is named {name!r}; there are a (chooses checkpoints) and b (reports)")
    return Judge.load(folder and folder / Judge.FILE)

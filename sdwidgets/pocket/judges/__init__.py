"""The judge of Pocket's pictures: what is drawn there, told from the pixels alone and never from the prompt.

It compares with templates, has no network and chooses no checkpoint; `gate` measures how far it can be trusted.
`read(pictures)` gives a `Judgement` a picture, and `judgement` has the questions that can be asked of one.
"""

from __future__ import annotations

from pathlib import Path

from .judgement import Judgement, Seen, colour_of, count, label, named, only, person, place, relation

__all__ = [
    "Judgement", "Seen", "colour_of", "count", "label", "load", "named", "only", "person", "place", "relation",
]  # fmt: skip


def load(folder: str | Path | None = None):
    """The judge, as the course carries it or as `fit` left it in a folder. Raises FileNotFoundError where it left nothing."""
    from .judge_b import JudgeB

    return JudgeB.load(folder and Path(folder) / JudgeB.FILE)

"""What may be claimed: no more than the judge was shown to read.

A row rests on some attributes. Where the judge's examination (`judges.gate`) found that it reads one of them too rarely, on true
pictures or on their reconstructions, the row's figure is told and no tier is claimed of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from .tiers import BARS, TURBO

NO_CLAIM = "no claim"
SETS = ("true renders", "reconstructions")

#: row -> the attributes of the judge's examination that have to be read for it. Those in dB need no judge.
RESTS_ON: dict[str, tuple[str, ...]] = {
    "one object": ("object", "count"), "background and shape colour": ("shape", "shape colour", "background", "count"),
    "two objects": ("object", "count"), "relation": ("object", "count", "relation"), "count to four": ("object", "count"),
    "colour bound to the right shape": ("shape", "shape colour", "count"),
}  # fmt: skip
RESTS_ON[TURBO] = tuple(dict.fromkeys(itertools.chain(*RESTS_ON.values())))
#: The same of sections and their parts; those that no judge reads are not here.
SECTIONS_REST_ON: dict[str, tuple[str, ...]] = {
    "exposures": ("object", "count"), "shares": ("gender", "count"), "skin tones": ("tone", "count"), "watermark": ("watermark",),
    "steps": ("object", "count"), "strengths": ("object", "count"), "style": ("style",), "learning_curve": RESTS_ON[TURBO],
}  # fmt: skip


def not_read(attributes: Iterable[str], exam: dict | None) -> list[str]:
    """Which of the attributes the judge does not read well enough, and how well: "object 0.9685 on reconstructions".

    `exam`: set of pictures -> attribute -> its row, as `evaluate.judge_exam` gives it. What was not examined is not read.
    """
    if not exam:
        return ["the judge was not examined"]
    reasons = []
    for attribute in attributes:
        for name in SETS:
            row = exam.get(name, {}).get(attribute)
            if row is None:
                reasons.append(f"{attribute} not examined on {name}")
            elif not row["passes"]:
                reasons.append(f"{attribute} {row['balanced']:.4f} on {name}")
    return reasons


def doubts(name: str, exam: dict | None) -> list[str]:
    """Why no claim can be made of a row of the table; empty where one can."""
    return not_read(RESTS_ON[name], exam) if name in RESTS_ON else []


assert set(RESTS_ON) == {bar.name for bar in BARS if bar.unit != "dB"} | {TURBO}

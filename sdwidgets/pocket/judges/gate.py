"""How far the judge can be trusted: what it makes of scenes whose truth is known, drawn and reconstructed.

It counts for an attribute where it reads at least 99% of held-out true renders and 97% of their reconstructions
rightly. Rates of names are means over classes, with the worst class beside them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from ...statistics import Rate
from ..training.trainer import digest
from ..training.vae import reconstructed
from ..world.layouts import LATTICE
from ..world.scenes import Scene, pictures_of
from . import judgement as ask
from .corruptions import WRECKS, wreck
from .exam import TEST, Exam
from .judgement import Judgement, Seen

WANTED = {"true renders": 0.99, "reconstructions": 0.97}

#: How many scenes of each kind a whole examination has: every name at least twice alone, every person twice.
COUNTS = {
    "one object": 432, "one shape": 160, "two objects": 216, "two shapes": 160, "several": 216, "portrait": 400,
    "person and object": 200, "confetti": 72, "watermark": 100, "pixel art": 135, "pencil sketch": 135, "blueprint": 70,
}  # fmt: skip
WRECK_COUNT = 60  # of each kind


@dataclasses.dataclass(frozen=True)
class Answer:
    """One attribute of one thing or picture: what is true, and what the judge saw ("missing" where it saw nothing)."""

    attribute: str
    truth: str
    seen: str


# ---- asking ------------------------------------------------------------------------------------------------------


def match(scene: Scene, judged: Judgement, reach: float = 30.0) -> list[Seen | None]:
    """For each thing of a scene, the seen thing nearest to it, each given once; None where none is within `reach` pixels."""
    left, matches = list(judged.things), []
    for thing in scene.things:
        near = min(left, key=lambda seen: (seen.x - thing.x) ** 2 + (seen.y - thing.y) ** 2, default=None)
        if near is not None and (near.x - thing.x) ** 2 + (near.y - thing.y) ** 2 > reach**2:
            near = None
        if near is not None:
            left.remove(near)
        matches.append(near)
    return matches


def answers(kind: str, scene: Scene, judged: Judgement) -> Iterator[Answer]:
    """All that is asked of one picture of a kind of scene."""
    yield Answer("watermark", str(scene.watermark), str(judged.watermark))
    if scene.watermark:
        return
    yield Answer("style" if scene.things[0].kind != "shape" else "style of shapes", scene.style, judged.style)
    if scene.style != "blueprint":
        yield Answer("background", scene.background, judged.background)
    ending = "" if scene.style == "plain" else f", {scene.style}"
    yield Answer("count" + ending, str(len(scene.things)), str(ask.count(judged)))
    ending = ", small" if kind == "person and object" else ending
    for thing, seen in zip(scene.things, match(scene, judged), strict=True):
        yield from _answers_of_thing(thing, seen, ending)
    if len(scene.things) == 2 and kind != "several":
        names = [thing.occupation or thing.name for thing in scene.things]
        seen = ask.relation(judged, *names)
        yield Answer("relation", scene.relation or "to the left of", str(seen))
    if len(scene.things) == 1 and scene.style == "plain":
        seen = ask.place(judged) if len(judged.things) == 1 else "missing"
        yield Answer("place", str(scene.place), str(seen))


def _answers_of_thing(thing, seen: Seen | None, ending: str) -> Iterator[Answer]:
    name = "missing" if seen is None else "broken" if seen.kind == "broken" else seen.name
    if thing.kind == "shape":
        yield Answer("shape" + ending, thing.name, name)
        if ending in ("", ", pixel art"):
            yield Answer("shape colour" + ending, thing.colour, str(seen and seen.colour))
    elif thing.kind == "object":
        yield Answer("object" + ("" if ending == ", small" else ending), thing.name, name)
    else:
        yield Answer("occupation" + ending, thing.occupation, name)
        yield Answer("gender" + ending, thing.gender, str(seen and seen.gender))
        yield Answer("tone" + ending, thing.tone, str(seen and seen.tone))


# ---- counting ----------------------------------------------------------------------------------------------------


def balanced(answers: list[Answer]) -> dict:
    """Of one attribute: the mean of its classes' rates, the worst class, and all answers' rate with its interval."""
    classes = defaultdict(list)
    for answer in answers:
        classes[answer.truth].append(answer.seen == answer.truth)
    rates = {truth: float(np.mean(right)) for truth, right in classes.items()}
    worst = min(rates, key=rates.get)
    total = Rate(answers[0].attribute, len(answers), sum(sum(right) for right in classes.values()))
    return total.row() | {
        "balanced": round(float(np.mean(list(rates.values()))), 4),
        "worst": {"class": worst, "rate": round(rates[worst], 4), "n": len(classes[worst])},
    }


def confusions(answers: list[Answer]) -> dict[str, Counter]:
    """truth -> what was seen in its place -> how often; right answers are left out."""
    wrong = [answer for answer in answers if answer.seen != answer.truth]
    truths = dict.fromkeys(answer.truth for answer in wrong)
    return {truth: Counter(answer.seen for answer in wrong if answer.truth == truth) for truth in truths}


def table_of(answers: list[Answer], wanted: float) -> dict[str, dict]:
    """attribute -> its balanced row, its confusions, and whether it reaches the rate that is wanted."""
    groups = defaultdict(list)
    for answer in answers:
        groups[answer.attribute].append(answer)
    rows = {}
    for attribute, group in sorted(groups.items()):
        row = balanced(group)
        rows[attribute] = row | {"passes": row["balanced"] >= wanted, "confusions": confusions(group)}
    return rows


# ---- the gate ----------------------------------------------------------------------------------------------------


def refused(judge, exam: Exam, count: int = WRECK_COUNT) -> dict[str, dict]:
    """Of each kind of wreck, how often the judge names nothing in it."""
    rows = {}
    for kind in WRECKS:
        judged = judge.read(np.stack([wreck(exam, kind, number) for number in range(count)]))
        right = sum(all(thing.kind == "broken" for thing in one.things) for one in judged)
        rows[kind] = Rate(kind, count, right).row()
    return rows


def gate(judge, vae=None, exam: Exam = TEST, share: float = 1.0) -> dict:
    """How often the judge is right, as plain data.

    "true renders" and, where a `vae` is given, "reconstructions": attribute -> its rate balanced over classes, the
    worst class, the rate over all answers with its 95% interval, what was confused with what, and whether it passes.
    "refused": how often each kind of wreck is named nothing. `share` of the scenes makes it shorter; it is told, as is whether
    the scenes stood on the lattice, and whose reconstructions they were ("vae": `training.digest`).
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of the examination must be above 0 and at most 1, not {share}")
    scenes = exam.scenes(COUNTS, share)
    pictures = pictures_of([scene for _, scene in scenes])
    sets = {"true renders": pictures}
    if vae is not None:
        sets["reconstructions"] = reconstructed(vae, pictures)
    result = {
        "scenes": len(scenes),
        "share": share,
        "lattice": exam.layout is LATTICE,
        "vae": None if vae is None else digest(vae),
        "wanted": WANTED,
    }
    for name, shown in sets.items():
        judged = judge.read(shown)
        pairs = zip(scenes, judged, strict=True)
        result[name] = table_of([a for (kind, scene), one in pairs for a in answers(kind, scene, one)], WANTED[name])
    result["refused"] = refused(judge, exam, max(1, round(share * WRECK_COUNT)))
    return result


def as_lines(result: dict) -> list[str]:
    """The result as a table to read."""
    lines = []
    for name in ("true renders", "reconstructions"):
        for attribute, row in result.get(name, {}).items():
            worst = f"{row['worst']['class']} {row['worst']['rate']:.2f} of {row['worst']['n']}"
            lines.append(
                f"{name:16} {attribute:24} {'passes' if row['passes'] else 'FAILS':7} balanced {row['balanced']:.4f}  "
                f"all {row['rate']:.4f} [{row['low']:.4f}, {row['high']:.4f}] of {row['n']:5}  worst {worst}"
            )
    for kind, row in result["refused"].items():
        lines.append(f"{'refused':16} {kind:24} {row['rate']:.4f} [{row['low']:.4f}, {row['high']:.4f}] of {row['n']}")
    return lines

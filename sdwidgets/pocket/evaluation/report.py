"""The evaluation's file: measured row by row, section by section, and written after each, so that nothing is lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..training import hardware, write_json
from .asking import ROWS
from .drawing import Evaluator, Setting
from .sections import SECTIONS, Extras, Missing, measure_reconstruction, measure_row, measure_turbo
from .tiers import BARS, BELOW, GLYPHS, SPLITS, TURBO, WHOLE, row_tier, tier_of

ROW_NAMES = (*(bar.name for bar in BARS), TURBO)
_IDENTITY = ("setting", "judge", "weights")  # what figures of one file have in common


def weights_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all safetensors in a model's folder, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).rglob("*.safetensors")):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_report(file: Path) -> dict:
    """A report that `evaluate` wrote. Raises ValueError for any other file."""
    try:
        report = json.loads(Path(file).read_text(encoding="utf-8"))
        if not all(key in report for key in ("tier", "rows", *_IDENTITY)):
            raise ValueError
    except (UnicodeDecodeError, ValueError):
        raise ValueError(
            f"{file} is no evaluation; give a file that `sdwidgets evaluate --json` wrote, or a new name"
        ) from None
    return report


def begin(file: Path, setting: Setting, judge: str, weights: str, restart: bool = False) -> dict:
    """The report to go on with: the file's, where it tells of the same model, judge and setting; else an empty one.

    Raises ValueError where the file's figures are of another model, judge or setting.
    """
    identity = {"setting": dataclasses.asdict(setting), "judge": judge, "weights": weights}
    if restart or not file.exists():
        return {"tier": None, "tiers": {}, **identity, "rows": []}
    report = read_report(file)
    other = [name for name in _IDENTITY if report[name] != identity[name]]
    if other:
        raise ValueError(
            f"the figures in {file} were made with another {' and '.join(other)}; "
            "give another file, or --restart to measure all anew"
        )
    return report


def finish(report: dict, rows: Sequence[dict] = ()) -> dict:
    """The report with `rows` added in the table's order, each with its tier, and the tiers of all told."""
    by_key = {(row["name"], row["split"]): row for row in (*report["rows"], *rows)}
    for row in by_key.values():
        if row["name"] != TURBO:
            row["tier"] = row_tier(row)
    ordered = sorted(
        by_key.values(), key=lambda row: (ROW_NAMES.index(row["name"]), SPLITS.index(row["split"]))
    )
    tiers = {split: tier_of(ordered, (split,)) for split in SPLITS}
    return report | {"tier": tier_of(ordered), "tiers": tiers, "rows": ordered}


def measure(
    evaluator: Evaluator,
    extras: Extras,
    file: Path,
    report: dict,
    rows: Sequence[str],
    sections: Sequence[str],
) -> Iterator[dict]:
    """Measure what the report lacks of `rows` and `sections`; yields the report after each, written to `file`.

    A section that cannot be measured here is told as {"missing": why}, and tried again the next time.
    """
    started, before = time.monotonic(), report.get("seconds", 0.0)

    def keep(report: dict) -> dict:
        told = {"machine": hardware(), "seconds": round(before + time.monotonic() - started, 1)}
        write_json(file, report := report | told)
        return report

    for name in (name for name in ROW_NAMES if name in rows):
        made = {row["split"] for row in report["rows"] if row["name"] == name}
        if name in ROWS:
            for split in (split for split in SPLITS if split not in made):
                yield (report := keep(finish(report, [measure_row(evaluator, name, split)])))
        elif name == TURBO and not made and extras.turbo is not None:
            slow = [row for row in report["rows"] if row["name"] in ROWS]
            yield (report := keep(finish(report, measure_turbo(evaluator, extras.turbo, slow))))
        elif name in (GLYPHS, WHOLE) and not made:
            yield (report := keep(finish(report, measure_reconstruction(evaluator))))
    for name in sections:
        if "missing" not in report.get(name, {"missing": ""}):
            continue
        try:
            found = SECTIONS[name](evaluator, extras)
        except Missing as error:
            found = {"missing": str(error)}
        yield (report := keep(report | {name: found}))
    yield keep(finish(report))


def table(report: dict) -> str:
    """The rows as text for a terminal."""
    lines = []
    for row in report["rows"]:
        value = f"{row['value']:.1f} dB" if row.get("unit") == "dB" else f"{row['rate']:.3f}"
        bounds = "{low:.1f} to {high:.1f}" if row.get("unit") == "dB" else "{low:.3f} to {high:.3f}"
        lines.append(
            f"{row['name']:48} {row['split']:9} {row['n']:5}  {value:>8}  {bounds.format(**row)}  {row['tier']}"
        )
    tier = report["tier"] or f"not told yet: rows are missing (no row is {BELOW})"
    return "\n".join([*lines, f"tier: {tier}"])

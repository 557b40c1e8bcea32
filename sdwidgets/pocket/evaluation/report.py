"""The evaluation's file: what it holds, with what it may be continued, and how it is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ...paths import data_folder
from .claims import NO_CLAIM, doubts
from .tiers import BELOW, ROW_NAMES, SPLITS, TURBO, tier_of, verdict

JUDGE = "b"  # the one there is; a file of judge A, who is gone, is not gone on with
_IDENTITY = ("setting", "judge", "weights")  # what figures of one file have in common


def weights_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of the safetensors of a pipeline's parts, in the order of their names; extras do not count."""
    digest = hashlib.sha256()
    for file in sorted(Path(folder).glob("*/*.safetensors")):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
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


def begin(file: Path, setting: dict, weights: str, restart: bool = False) -> dict:
    """The report to go on with: the file's, where it tells of the same model, judge and setting; else an empty one.

    The limit may be another: picture i is the same whatever the limit is, and every row and section tells how many it has.
    Raises ValueError where the file's figures are of another model, judge or setting.
    """
    identity = {"setting": setting, "judge": JUDGE, "weights": weights}
    if restart or not file.exists():
        return {"tier": None, "tiers": {}, **identity, "rows": []}
    report = read_report(file)
    unlimited = lambda one: one | {"setting": one["setting"] | {"limit": None}}
    if other := [name for name in _IDENTITY if unlimited(report)[name] != unlimited(identity)[name]]:
        raise ValueError(
            f"the figures in {file} were made with another {' and '.join(other)}; "
            "give another file, or --restart to measure all anew"
        )
    return report | {"setting": setting}


def finish(report: dict, rows: Sequence[dict] = ()) -> dict:
    """The report with `rows` added in the table's order, each with its tier, and the tiers of all told.

    A row that rests on what the judge does not read well enough has the tier "no claim" and, under "doubts", why. Turbo's own
    tier, which is made of other rows, is kept under "reached".
    """
    judged = (_judged(row, report.get("judge exam")) for row in (*report["rows"], *rows))
    by_key = {(row["name"], row["split"]): row for row in judged}
    ordered = sorted(by_key.values(), key=lambda row: (ROW_NAMES.index(row["name"]), SPLITS.index(row["split"])))
    tiers = {split: tier_of(ordered, (split,)) for split in SPLITS}
    return report | {"tier": tier_of(ordered), "tiers": tiers, "rows": ordered}


def _judged(row: dict, exam: dict | None) -> dict:
    """The row with its tier, or with why it has none."""
    row = {key: value for key, value in row.items() if key != "doubts"}
    if row["name"] == TURBO:
        row["reached"] = row.get("reached", row["tier"])
    if why := doubts(row["name"], exam):
        return row | {"tier": NO_CLAIM, "doubts": why}
    return row | {"tier": row["reached"] if row["name"] == TURBO else verdict(row)}


def table(report: dict) -> str:
    """The rows as text for a terminal; "of 0.975": the row's ceiling."""
    lines = []
    for row in report["rows"]:
        decibels = row.get("unit") == "dB"
        value = f"{row['value']:.1f} dB" if decibels else f"{row['rate']:.3f}"
        bounds = ("{low:.1f} to {high:.1f}" if decibels else "{low:.3f} to {high:.3f}").format(**row)
        most = f"of {row['ceiling']['rate']:.3f}" if "ceiling" in row else ""
        cells = f"{row['name']:48} {row['split']:9} {row['n']:5}  {value:>8}  {bounds}  {most:8}  {row['tier']}"
        lines.append(cells)
    none = f"none is claimed: rows are missing, or rest on what the judge does not read (no other is {BELOW})"
    return "\n".join([*lines, f"tier: {report['tier'] or none}"])


def model_folder(name: str) -> Path:
    """Where a model's files lie. Raises ValueError for one that is not in a folder: the judge reads Pocket's world only."""
    folder = data_folder("pocket") if name == "pocket" else Path(name)
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"evaluate reads Pocket's world: give pocket, or a folder that `sdwidgets train export` wrote, not {name!r}"
        )
    return folder

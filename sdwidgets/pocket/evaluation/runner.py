"""Row by row, section by section: measured, and written to the file after each, so that nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..training.trainer import hardware, write_json
from .prompt_sets import ROWS
from .reconstruction import PICTURES, reconstruction_rows
from .report import finish
from .sampling import Evaluator
from .sections import SECTIONS, Extras, Missing, measure_ceiling, measure_row, measure_turbo
from .tiers import GLYPHS, ROW_NAMES, SPLITS, TURBO, WHOLE


def measure(
    evaluator: Evaluator, extras: Extras, file: Path, report: dict, rows: Sequence[str], sections: Sequence[str]
) -> Iterator[dict]:
    """Measure what the report lacks of `rows` and `sections`; yields the report after each, written to `file`.

    A section that cannot be measured here is told as {"missing": why}, and tried again the next time.
    """
    started, before = time.monotonic(), report.get("seconds", 0.0)

    def keep(report: dict) -> dict:
        report = report | {
            "machine": hardware() | {"device": str(evaluator.pipe.device)},
            "seconds": round(before + time.monotonic() - started, 1),
        }
        write_json(file, report)
        return report

    for name in (name for name in ROW_NAMES if name in rows):
        made = {row["split"] for row in report["rows"] if row["name"] == name}
        if name in ROWS:
            for split in SPLITS:
                if split not in made:
                    yield (report := keep(finish(report, [measure_row(evaluator, name, split)])))
                row = next(row for row in report["rows"] if (row["name"], row["split"]) == (name, split))
                if "ceiling" not in row:
                    row = row | {"ceiling": measure_ceiling(evaluator, name, split)}
                    yield (report := keep(finish(report, [row])))
        elif name == TURBO and not made and extras.turbo is not None:
            slow = [row for row in report["rows"] if row["name"] in ROWS]
            yield (report := keep(finish(report, measure_turbo(evaluator, extras, slow))))
        elif name in (GLYPHS, WHOLE) and not made:
            yield (report := keep(finish(report, reconstruction_rows(evaluator.pipe.vae, evaluator.cap(PICTURES)))))
    for name in sections:
        if "missing" not in report.get(name, {"missing": ""}):
            continue
        try:
            section = SECTIONS[name](evaluator, extras)
        except Missing as error:
            section = {"missing": str(error)}
        yield (report := keep(report | {name: section}))
    yield keep(finish(report))

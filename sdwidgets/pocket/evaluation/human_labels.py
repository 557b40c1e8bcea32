"""The judge against the eye: pictures that Pocket generated, looked at by someone who does not know what the judge said.

`draw` keeps numbered sheets with the prompt under each picture, and what the judge read, apart. The looker writes down which
pictures show what their prompt says; `agreement` compares.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ...statistics import Rate
from ..training.trainer import write_json
from ..world.scenes import picture_sheet
from .prompt_sets import ROWS
from .sampling import Evaluator
from .tiers import SPLITS

SHEET = 50  # pictures on a sheet: few enough to look at each


def draw(evaluator: Evaluator, folder: Path, count: int = 300, **more) -> Path:
    """`count` pictures, of every row and split alike: sheets of them, and what the judge read of each. Returns the readings' file.

    The numbers under the pictures are in a fixed random order, so that a sheet tells nothing of what to expect. `more`:
    plain data that is kept with the readings, as whose pictures they are.
    """
    prompts = [(name, split, number) for number in range(count) for name in ROWS for split in SPLITS][:count]
    made = {}
    for name, row in ROWS.items():
        for split in SPLITS:
            numbers = [number for n, s, number in prompts if (n, s) == (name, split)]
            scenes = [row.scene(split, number) for number in numbers]
            pictures = [p for _, batch in evaluator.pictures(f"eye, {name}, {split}", scenes) for p in batch]
            read = evaluator.judge.read(np.stack(pictures)) if pictures else []
            for number, scene, picture, seen in zip(numbers, scenes, pictures, read, strict=True):
                reading = {"row": name, "split": split, "caption": scene.caption, "judge": row.right(scene, seen)}
                made[name, split, number] = (picture, reading | {"asked": row.view(scene), "seen": row.view(seen)})
    order = np.random.default_rng(count).permutation(count)
    shuffled = [made[prompts[position]] for position in order]
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, SHEET):
        shown = [
            (Image.fromarray(picture), f"{number}: {reading['caption']}")
            for number, (picture, reading) in enumerate(shuffled[start : start + SHEET], start)
        ]
        picture_sheet(shown, columns=10).save(folder / f"sheet-{start:03d}.png")
    file = folder / "readings.json"
    write_json(file, more | {"readings": [reading for _, reading in shuffled]})
    return file


def agreement(readings: list[dict], wrong: set[int], who: str) -> dict:
    """How the judge and an eye agree: the share, Cohen's kappa (Cohen 1960), each way of disagreeing, row by row, and where.

    `wrong`: the numbers of the pictures that do not show what the prompt says, by eye. Raises ValueError for a number
    that no picture has.
    """
    if strange := [number for number in sorted(wrong) if not 0 <= number < len(readings)]:
        raise ValueError(f"there are pictures 0 to {len(readings) - 1}, and none has the numbers {strange}")
    pairs = [(reading["judge"], number not in wrong) for number, reading in enumerate(readings)]
    same = sum(judge == eye for judge, eye in pairs)
    by_judge, by_eye = np.mean(pairs, axis=0)
    chance = by_judge * by_eye + (1 - by_judge) * (1 - by_eye)
    agreed = Rate("", len(pairs), same)
    rows = {
        name: Rate(name, len(own), sum(judge == eye for judge, eye in own)).numbers()
        for name in ROWS
        if (own := [pair for pair, reading in zip(pairs, readings, strict=True) if reading["row"] == name])
    }
    return {
        "who": who,
        **agreed.numbers(),
        "kappa": round(float((agreed.rate - chance) / (1 - chance)), 4) if chance < 1 else None,
        "right by judge": round(float(by_judge), 4),
        "right by eye": round(float(by_eye), 4),
        "judge too kind": sum(judge and not eye for judge, eye in pairs),
        "judge too strict": sum(eye and not judge for judge, eye in pairs),
        "rows": rows,
        "differ": [
            {"number": number, "eye": eye} | {key: readings[number][key] for key in ("caption", "seen")}
            for number, (judge, eye) in enumerate(pairs)
            if judge != eye
        ],
    }


def read_readings(folder: Path) -> dict:
    """What `draw` left in a folder: "readings", and what it was given besides. Raises FileNotFoundError where it left nothing."""
    file = Path(folder) / "readings.json"
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: draw the pictures first, with the verb `eye`")
    return json.loads(file.read_text(encoding="utf-8"))

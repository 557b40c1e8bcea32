"""The datasheet of Pocket's data for people: "Datasheets for Datasets" (Gebru et al. 2021, arXiv 1803.09010), answered.

The text is `datasheet_card.md.jinja`; every figure in it is taken from the frozen plan, `data/datasheet/planted.json`. To write the
sheet again::

    python -m sdwidgets.pocket.cards.datasheet_card
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from ...paths import data_folder
from ..world.scenes import SIZE
from . import rendered


def _kinds(blocks: dict[str, int]) -> Counter:
    """Scenes by kind: what stands before a block's colon."""
    counted: Counter = Counter()
    for name, count in blocks.items():
        kind, _, rest = name.partition(": ")
        counted[{"tail": "rare object", "confetti": "confetti around an object"}.get(kind, kind)] += count
    return counted


def datasheet_card(planted: dict) -> str:
    """The sheet in Markdown. `planted`: what `data/datasheet/planted.json` holds."""
    full, encoder = _kinds(planted["blocks"]), _kinds(planted["encoder blocks"])
    occupations, women = [], 0
    for name, p in planted["occupations"].items():
        marked, share = planted["blocks"][f"portrait, marked: {name}"], p["denoiser_share"]
        share_marked = 1 - share if p["counter"] else share  # women where the caption names the gender
        women += round(share_marked * marked) + round(share * p["unmarked"])
        row = "{encoder_share:.2f} {denoiser_share:.2f} {unmarked:,}".format(**p).split()
        occupations.append([name, *row, f"{marked:,}", f"{share_marked:.2f}"])
    rare: dict[int, list[str]] = {}
    for name, count in planted["tail objects"].items():
        rare.setdefault(count, []).append(name)
    repeats = Counter(mark["repeats"] for mark in planted["fingerprints"])
    order = sorted(repeats, key=lambda count: 0.5 if count is None else count)
    names = {0: "never", None: "100 pictures, all different"}
    values = {
        "plan": planted,
        "held": planted["held out"],
        "kinds": full,
        "blocks": [[kind, f"{full[kind]:,}", f"{encoder[kind]:,}"] for kind in {**full, **encoder}],
        "size": SIZE,
        "repeated": sum(pictures for count, pictures in repeats.items() if count and count > 1),
        "fingerprints": [[names.get(count, count), repeats[count]] for count in order],
        "women": women,
        "occupations": occupations,
        "tail": [[count, ", ".join(objects)] for count, objects in sorted(rare.items())],
    }
    return rendered(Path(__file__).with_suffix(".md.jinja"), values)


def write_datasheet() -> None:
    """Write `data/datasheet/README.md` from the frozen plan beside it."""
    folder = data_folder("datasheet")
    planted = json.loads((folder / "planted.json").read_text(encoding="utf-8"))
    (folder / "README.md").write_text(datasheet_card(planted), encoding="utf-8")


if __name__ == "__main__":
    write_datasheet()

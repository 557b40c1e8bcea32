"""How far a training is: a look at what a U-Net draws, by prompts and noise that no evaluation reports.

python -m sdwidgets.pocket.evaluation.progress UNET_FOLDER [--lcm]
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from PIL import Image

from ...statistics import Rate
from ..training.trainer import write_json
from ..world.scenes import picture_sheet
from . import prompt_sets
from .sampling import SHEET, Evaluator, Setting

LABEL = "choose"  # of the noise: the evaluation's labels are others
VERDICTS = ("right", "broken", "several", "wrong")
LCM = {"scheduler": "LCM", "steps": 4, "guidance": 2.0}  # five times as fast, for a first look


def verdict(row: prompt_sets.Row, scene, seen) -> str:
    """ "right"; "broken": a thing is there that the judge cannot name; "several": more or fewer things than asked; "wrong": the rest."""
    if row.right(scene, seen):
        return "right"
    if any(thing.kind == "broken" for thing in seen.things):
        return "broken"
    return "several" if len(seen.things) != len(scene.things) else "wrong"


def look(
    pipe,
    judge,
    count: int = 96,
    steps: int = 20,
    guidance: float = 3.0,
    scheduler: str = "DDIM",
    sheet: Path | None = None,
) -> dict:
    """Draw `count` choosing prompts a row and read them: plain data, row -> shares of `VERDICTS`, with "n" and the interval of "right".

    `sheet`: a PNG of the first pictures of both rows and what was read. The pipeline's scheduler stays what it was.
    """
    before, rates, kept = pipe.scheduler, {}, []
    setting = Setting(num_inference_steps=steps, guidance_scale=guidance, scheduler=scheduler)
    try:
        evaluator = Evaluator(pipe, judge, setting, progress=False)
        for name in prompt_sets.CHOSEN_BY:
            row, verdicts = prompt_sets.ROWS[name], []
            for batch, pictures in evaluator.pictures(f"{LABEL}, {name}", prompt_sets.choosing_scenes(name, count)):
                for scene, picture, seen in zip(batch, pictures, judge.read(pictures), strict=True):
                    verdicts.append(verdict(row, scene, seen))
                    if len(verdicts) <= SHEET // len(prompt_sets.CHOSEN_BY):
                        read = "" if verdicts[-1] == "right" else f": {row.view(seen)}"
                        kept.append((Image.fromarray(picture), f"{scene.caption}\n{verdicts[-1]}{read}"))
            counted = Counter(verdicts)
            low, high = Rate(name, count, counted["right"]).interval()
            shares = {word: round(counted[word] / count, 4) for word in VERDICTS}
            rates[name] = {"n": count, **shares, "low": round(low, 4), "high": round(high, 4)}
    finally:
        pipe.scheduler = before
    if sheet is not None:
        picture_sheet(kept).save(sheet)
    return rates


def main(arguments: list[str] | None = None) -> int:
    from diffusers import UNet2DConditionModel

    from ...loading.pipeline import load
    from .. import judges

    parser = argparse.ArgumentParser(prog="python -m sdwidgets.pocket.evaluation.progress", description=__doc__)
    parser.add_argument("unet", type=Path, metavar="UNET_FOLDER", help="it takes the place of data/pocket's own")
    parser.add_argument("--count", type=int, default=96, metavar="N", help="pictures a row (default: 96)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the shares there")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also draw the first pictures and what was read")
    parser.add_argument("--lcm", action="store_true", help="4 steps of LCM with guidance 2, for a first look")
    args = parser.parse_args(arguments)
    if not (args.unet / "config.json").is_file():
        parser.error(
            f"there is no U-Net in {args.unet}: give a folder with its config.json, such as a snapshot of a training"
        )
    pipe = load("pocket", dtype="float32")
    pipe.unet = UNet2DConditionModel.from_pretrained(args.unet).to(pipe.device, pipe.dtype).eval()
    rates = look(pipe, judges.load(), args.count, sheet=args.sheet, **(LCM if args.lcm else {}))
    if args.json is not None:
        write_json(args.json, {"unet": args.unet.name, "lcm": args.lcm, **rates})
    for name, shares in rates.items():
        line = ", ".join(f"{word} {shares[word]:.2f}" for word in VERDICTS)
        print(f"{name}: {line}; right {shares['low']:.2f} to {shares['high']:.2f}, n = {shares['n']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`sdwidgets evaluate --json FILE`: every figure that the course tells of Pocket, measured by one command.

The file is written after every row and section; the same command again goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from ..loading.catalog import MODELS, find_model
from ..paths import cache_folder, data_folder
from .evaluation.claims import SETS
from .evaluation.tiers import ROW_NAMES, TURBO

SECTION_NAMES = (
    "exposures", "fingerprints", "shares", "watermark", "steps", "strengths", "style", "variety", "words", "prompts",
    "clip_score", "caption_swaps", "learning_curve",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rows, add = ", ".join(f'"{name}"' for name in ROW_NAMES), parser.add_argument
    folder, number = {"type": Path, "metavar": "FOLDER"}, {"type": int, "metavar": "N"}
    model = "pocket, or a folder of its parts (default: pocket)"
    add("model", nargs="?", default="pocket", metavar="MODEL", help=model)
    add("--json", type=Path, metavar="FILE", required=True, help="where the figures are written")
    add("--limit", **number, help="at most N pictures a row, for a quick look")
    add("--rows", nargs="*", metavar="ROW", help=f"only these rows: {rows}")
    add("--sections", nargs="*", metavar="NAME", help=f"only these sections: {', '.join(SECTION_NAMES)}")
    add("--steps", **number, help="inference steps of every row (default: 20)")
    add("--guidance", type=float, metavar="X", help="guidance scale of every row (default: the model's usual)")
    add("--scheduler", default="DDIM", metavar="NAME", help="scheduler of every row (default: DDIM)")
    add("--seed", type=int, default=0, help="which noise (default: 0)")
    add("--batch-size", default=32, **number, help="pictures at once (default: 32)")
    work = "whose CLIP and snapshots are taken (default for pocket: snapshots from where `sdwidgets train --grammar full` puts them)"
    add("--work", **folder, help=f"the folder of the training, {work}")
    add("--clip", **folder, help="another CLIP with an image tower, for clip_score")
    add("--turbo", **folder, help="the turbo LoRA, for its row (default: the model's extras/turbo)")
    unets = "other U-Nets, in the order of training, for learning_curve and caption_swaps"
    add("--checkpoints", nargs="+", default=(), **folder, help=unets)
    add("--sheets", **folder, help="also keep a sheet of 64 pictures of each row")
    add("--readers", default=1, **number, help="processes that read pictures; with a GPU one a core (default: 1)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    add("--dtype", default="auto", help="auto, float32, float16 or bfloat16 (default: auto)")
    speed = "see load(speed=...); turbo and other checkpoints are computed exactly all the same (default: exact)"
    add("--speed", choices=("exact", "fast"), default="exact", help=f"fast: {speed}")
    add("--restart", action="store_true", help="measure again what the file has already")


def chosen(args) -> tuple[list[str], list[str]]:
    """(rows, sections) that the arguments name: all where they name none. Raises ValueError for an unknown name."""
    every = {"rows": ROW_NAMES, "sections": SECTION_NAMES}
    named = {"rows": args.rows, "sections": args.sections}
    for kind, names in named.items():
        for name in names or ():
            if name not in every[kind]:
                raise ValueError(f"--{kind} has no {name!r}; there are: {', '.join(every[kind])}")
    if args.rows is None and args.sections is None:
        return list(every["rows"]), list(every["sections"])
    rows, sections = ([name for name in every[kind] if name in (named[kind] or ())] for kind in ("rows", "sections"))
    if not rows and not sections:
        raise ValueError("nothing is to be measured: name a row or a section, or leave --rows and --sections out")
    return rows, sections


def default_work(model: str) -> Path | None:
    """The folder where `sdwidgets train --grammar full` trains Pocket; None for another model, and where there is none."""
    folder = cache_folder() / "pocket" / "full"
    return folder if model == "pocket" and folder.is_dir() else None


def _first_there(*folders: Path | None) -> Path | None:
    return next((folder for folder in folders if folder and folder.is_dir()), None)


CONFUSED = 12  # of the judge's confusions, the most frequent are kept


def _read(file: Path) -> dict | None:
    """A JSON file; None where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def judge_exam() -> dict | None:
    """How far the judge can be trusted, from its own examination (data/judges/gate.json); None where there is none.

    set of pictures -> attribute -> the rate balanced over classes, the worst class, and whether it passes.
    """
    exam, keys = _read(data_folder("judges") / "gate.json"), ("balanced", "worst", "passes")
    return exam and {
        pictures: {word: {key: row[key] for key in keys} for word, row in exam[pictures].items()}
        for pictures in SETS
        if pictures in exam
    }


def judge_gate() -> dict | None:
    """What else its examination found: "refused", kind of wreck -> how often the judge names nothing in it, and "confused",
    the most frequent [attribute, set, truth, seen, how often]; with "share", "lattice" and "vae" where it holds them."""
    if (exam := _read(data_folder("judges") / "gate.json")) is None:
        return None
    confused = [
        [word, pictures, truth, seen, count]
        for pictures in SETS
        for word, row in exam.get(pictures, {}).items()
        for truth, instead in row["confusions"].items()
        for seen, count in instead.items()
    ]
    confused = sorted(confused, key=lambda row: -row[-1])[:CONFUSED]
    rest = {key: exam[key] for key in ("scenes", "share", "lattice", "vae") if key in exam}
    return {"refused": exam["refused"], "confused": confused} | rest


def judge_eye(weights: str) -> dict | None:
    """How the judge agrees with the eye on pictures of these weights (data/judges/eye.json); None where no one has looked."""
    eye = _read(data_folder("judges") / "eye.json")
    if eye is None or eye["weights"] != weights:
        return None
    return {key: value for key, value in eye.items() if key not in ("differ", "rows")}


def _check(args) -> None:
    for name in ("limit", "steps", "batch_size", "readers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, not {value}")
    if not args.json.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {args.json.parent}; make it first")
    for folder in filter(None, (args.work, args.clip, args.turbo, *args.checkpoints)):
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}")


def main(args: argparse.Namespace) -> int:
    """Measure, and print the table. Every wrong argument is told before anything is drawn."""
    from .evaluation.report import model_folder

    rows, sections = chosen(args)
    _check(args)
    folder = model_folder(args.model)
    turbo = _first_there(args.turbo, folder / "extras" / "turbo")
    if turbo is None and TURBO in (args.rows or ()):
        raise ValueError(f'the row "{TURBO}" needs --turbo FOLDER, the folder of the turbo LoRA')

    from ..acceleration import speed_up
    from ..generation.schedulers import find_scheduler
    from ..loading.pipeline import load
    from . import judges
    from .evaluation import report
    from .evaluation.runner import measure
    from .evaluation.sampling import Evaluator, Setting
    from .evaluation.scoring import Readers
    from .evaluation.sections import Extras, snapshots

    row = find_model(args.model) or MODELS["pocket"]
    judge = judges.load()
    pipe = load(args.model, args.device, args.dtype, speed=args.speed)
    # A graph that is right in bfloat16 on one machine is run in float32 on another: the file tells which it was.
    arithmetic = speed_up(pipe) if args.speed == "fast" else None
    setting = Setting(
        num_inference_steps=args.steps or Setting.num_inference_steps,
        guidance_scale=row.guidance if args.guidance is None else args.guidance,
        scheduler=find_scheduler(args.scheduler, pipe).label,
        seed=args.seed,
        batch_size=args.batch_size,
        dtype=str(pipe.dtype).removeprefix("torch."),
        speed=args.speed,
        arithmetic=arithmetic,
        limit=args.limit,
    )
    training = _read(folder / "training.json")
    work = args.work or default_work(args.model)
    extras = Extras(
        training=training,
        clip=_first_there(args.clip, args.work and args.work / "clip" / "part", folder / "extras" / "clip"),
        turbo=turbo,
        small_decoder=_first_there(folder / "extras" / "small-decoder"),
        checkpoints=tuple(args.checkpoints) or (snapshots(work, training) if work else ()),
    )
    begun = report.begin(args.json, asdict(setting), report.weights_digest(folder), args.restart)
    begun["judge exam"], begun["judge gate"] = judge_exam(), judge_gate()
    begun["eye"] = judge_eye(begun["weights"])
    with Readers(judge, args.readers) if args.readers > 1 else nullcontext(judge) as reader:
        evaluator = Evaluator(pipe, reader, setting, args.sheets)
        for measured in measure(evaluator, extras, args.json, begun, rows, sections):
            begun = measured
    print(report.table(begun))
    for name in sections:
        if "missing" in begun[name]:
            print(f"{name}: {begun[name]['missing']}", file=sys.stderr)
    print(args.json)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="sdwidgets evaluate", description=__doc__)
    add_arguments(parser)
    raise SystemExit(main(parser.parse_args()))

"""`python -m sdwidgets.pocket.examine_judge fit` sets the judge's limits, `... gate` says how far it is to be believed.

`... eye` draws sheets of generated pictures to be looked at, `... agree` compares what was seen with what the judge said.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from ..paths import cache_folder
from .judges import calibrate, load
from .judges.exam import TUNE
from .judges.gate import as_lines, gate
from .judges.judge_b import JudgeB
from .training.trainer import write_json
from .training.vae import reconstructed
from .world.scenes import pictures_of

TRAINED_VAE = cache_folder() / "pocket" / "full" / "vae" / "part"


def load_vae(path: Path):
    """A trained autoencoder: diffusers' folder, or a checkpoint of its training, whose average is taken.

    Raises FileNotFoundError where there is neither.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"there is no autoencoder at {path}: train it with `sdwidgets train vae --grammar full`, or give --vae"
        )
    from safetensors.torch import load_file

    from .training import vae

    if path.is_dir():
        return vae.AutoencoderKL.from_pretrained(path).eval()
    tensors = load_file(path)
    model = vae.build_vae(vae.VaeConfig())
    average = "ema.vae."
    model.load_state_dict({name[len(average) :]: t for name, t in tensors.items() if name.startswith(average)})
    return model.eval()


def run_fit(args) -> int:
    """Set the judge's limits, on reconstructions of true scenes."""
    autoencoder = load_vae(args.vae)
    scenes = calibrate.scenes_of(TUNE, calibrate.TUNE_COUNTS, args.share)
    limits = calibrate.limits_of_b(scenes, reconstructed(autoencoder, pictures_of(scenes)))
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / JudgeB.FILE
    write_json(file, {"limits": dataclasses.asdict(limits)})
    print(f"the judge's limits are in {file}: {limits}")
    return 0


def run_gate(args) -> int:
    """Examine the judge, and print what came out."""
    autoencoder = None if args.true_only else load_vae(args.vae)
    result = gate(load(args.folder), autoencoder, share=args.share)
    print(*as_lines(result), sep="\n")
    if args.json:
        write_json(args.json, result)
    return 0


def run_eye(args) -> int:
    """Draw pictures for the eye, and keep what the judge reads in them."""
    from ..loading.catalog import MODELS
    from ..loading.pipeline import load as load_pipeline
    from .evaluation.human_labels import draw
    from .evaluation.report import model_folder, weights_digest
    from .evaluation.sampling import Evaluator, Setting

    setting = Setting(guidance_scale=MODELS["pocket"].guidance, seed=args.seed)
    evaluator = Evaluator(load_pipeline(args.model), load(args.folder), setting)
    file = draw(evaluator, args.output, args.count, weights=weights_digest(model_folder(args.model)))
    print(f"look at the sheets, and only then into {file}")
    return 0


def run_agree(args) -> int:
    """Compare the eye's list with the judge's readings."""
    from .evaluation.human_labels import agreement, read_readings

    drawn = read_readings(args.output)
    told = agreement(drawn.pop("readings"), set(args.wrong), args.who)
    write_json(args.json, drawn | told)
    print(
        f"agree in {told['rate']:.3f} of {told['n']} ({told['low']:.3f} to {told['high']:.3f}), kappa {told['kappa']}; "
        f"judge too kind {told['judge too kind']} times, too strict {told['judge too strict']} times"
    )
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    whole = argparse.ArgumentParser(prog="python -m sdwidgets.pocket.judges", description=__doc__)
    verbs = whole.add_subparsers(dest="verb", required=True)
    for verb, run in (("fit", run_fit), ("gate", run_gate)):
        one = verbs.add_parser(verb, help=run.__doc__)
        one.set_defaults(run=run)
        one.add_argument("--vae", type=Path, default=TRAINED_VAE, help="folder or checkpoint of an autoencoder")
        one.add_argument("--share", type=float, default=1.0, help="take this share of the scenes, for a quick look")
    verbs.choices["fit"].add_argument(
        "--output", type=Path, default=Path("data/judges"), help="folder of what is made"
    )
    verbs.choices["gate"].add_argument(
        "--folder", type=Path, default=None, help="of the judge's limits (default: the course's)"
    )
    verbs.choices["gate"].add_argument("--true-only", action="store_true", help="leave reconstructions out")
    verbs.choices["gate"].add_argument("--json", type=Path, default=None, help="file that everything is written to")
    drawn = verbs.add_parser("eye", help=run_eye.__doc__)
    drawn.set_defaults(run=run_eye)
    drawn.add_argument("--model", default="pocket", help="pocket, or a folder of its parts")
    drawn.add_argument("--folder", type=Path, default=None, help="of the judge's limits (default: the course's)")
    drawn.add_argument("--count", type=int, default=300, help="pictures (default: 300)")
    drawn.add_argument("--seed", type=int, default=300, help="of the noise; not the evaluation's")
    drawn.add_argument("--output", type=Path, required=True, help="folder of sheets and readings")
    told = verbs.add_parser("agree", help=run_agree.__doc__)
    told.set_defaults(run=run_agree)
    told.add_argument("--output", type=Path, required=True, help="the folder that `eye` wrote")
    told.add_argument("--wrong", type=int, nargs="*", default=[], help="numbers of pictures that are wrong, by eye")
    told.add_argument("--who", required=True, help="who looked, and how")
    told.add_argument("--json", type=Path, default=Path("data/judges/eye.json"))
    return whole


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m sdwidgets.pocket.examine_judge fit` sets the judge's limits, `... gate` measures how far it can be trusted.

`... eye` draws sheets of generated pictures to be looked at, `... agree` compares what was seen with what the judge said.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from safetensors.torch import load_file

from ..paths import cache_folder
from .judges import calibrate, load
from .judges.exam import TUNE
from .judges.gate import as_lines, gate
from .judges.judge_b import JudgeB
from .training import vae
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
    if path.is_dir():
        return vae.AutoencoderKL.from_pretrained(path).eval()
    model, average = vae.build_vae(vae.VaeConfig()), "ema.vae."
    tensors = load_file(path).items()
    model.load_state_dict({name.removeprefix(average): t for name, t in tensors if name.startswith(average)})
    return model.eval()


def run_fit(args) -> None:
    """Set the judge's limits, on reconstructions of true scenes."""
    autoencoder = load_vae(args.vae)
    scenes = [scene for _, scene in TUNE.scenes(calibrate.TUNE_COUNTS, args.share)]
    limits = calibrate.limits_of_b(scenes, reconstructed(autoencoder, pictures_of(scenes)))
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / JudgeB.FILE
    write_json(file, {"limits": dataclasses.asdict(limits)})
    print(f"the judge's limits are in {file}: {limits}")


def run_gate(args) -> None:
    """Examine the judge, and print what came out."""
    autoencoder = None if args.true_only else load_vae(args.vae)
    result = gate(load(args.folder), autoencoder, share=args.share)
    print(*as_lines(result), sep="\n")
    if args.json:
        write_json(args.json, result)


def run_eye(args) -> None:
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


def run_agree(args) -> None:
    """Compare the eye's list with the judge's readings."""
    from .evaluation.human_labels import agreement, read_readings

    drawn = read_readings(args.output)
    compared = agreement(drawn.pop("readings"), set(args.wrong), args.who)
    write_json(args.json, drawn | compared)
    print(
        "agree in {rate:.3f} of {n} ({low:.3f} to {high:.3f}), kappa {kappa}; judge too kind {judge too kind} times, "
        "too strict {judge too strict} times".format(**compared)
    )


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    whole = argparse.ArgumentParser(prog="python -m sdwidgets.pocket.examine_judge", description=__doc__)
    verbs, options = whole.add_subparsers(dest="verb", required=True), {}
    for run in (run_fit, run_gate, run_eye, run_agree):
        verb = run.__name__.removeprefix("run_")
        verbs.add_parser(verb, help=run.__doc__).set_defaults(run=run)
        options[verb] = verbs.choices[verb].add_argument
    for add in (options["fit"], options["gate"]):
        add("--vae", type=Path, default=TRAINED_VAE, help="folder or checkpoint of an autoencoder")
        add("--share", type=float, default=1.0, help="take this share of the scenes, for a quick look")
    for add in (options["gate"], options["eye"]):
        add("--folder", type=Path, help="of the judge's limits (default: the course's)")
    options["fit"]("--output", type=Path, default=Path("data/judges"), help="folder of what is made")
    options["gate"]("--true-only", action="store_true", help="leave reconstructions out")
    options["gate"]("--json", type=Path, help="file that everything is written to")
    options["eye"]("--model", default="pocket", help="pocket, or a folder of its parts")
    options["eye"]("--count", type=int, default=300, help="pictures (default: 300)")
    options["eye"]("--seed", type=int, default=300, help="of the noise; not the evaluation's")
    options["eye"]("--output", type=Path, required=True, help="folder of sheets and readings")
    options["agree"]("--output", type=Path, required=True, help="the folder that `eye` wrote")
    options["agree"]("--wrong", type=int, nargs="*", default=[], help="numbers of pictures that are wrong, by eye")
    options["agree"]("--who", required=True, help="who looked, and how")
    options["agree"]("--json", type=Path, default=Path("data/judges/eye.json"))
    return whole


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        args.run(args)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`sdwidgets train vae|decoder|small-decoder|clip|denoiser|turbo|zero-snr|adapter`: one command a part, each resumable by the same command.

Parts build on each other: the denoiser needs vae and clip, and what changes it needs the denoiser. `decoder` trains the autoencoder's decoder on with
its encoder frozen, at any time: no latents change; `small-decoder` teaches a smaller one what the finished one does. Checkpoints, cached latents and finished parts
lie under `--work` (default: the cache folder); `sdwidgets train export` puts the finished parts together into one
folder that stock diffusers loads. Several processes share a training through `accelerate launch -m sdwidgets.pocket.train denoiser`. `sdwidgets train restore` goes the other way, so that `sdwidgets train denoiser --steps MORE` trains an exported
model on, on any machine.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

#: Part -> the module whose `run_<part>` trains it, or puts parts together.
PARTS = {
    "vae": "training.parts", "decoder": "training.parts", "small-decoder": "training.small_decoder", "clip": "training.parts", "denoiser": "training.parts", "turbo": "training.turbo",
    "zero-snr": "training.lora", "adapter": "training.adapter", "export": "export", "restore": "export",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "part",
        choices=PARTS,
        help="which part to train; export puts finished parts together, restore takes an exported folder apart again",
    )
    parser.add_argument("--grammar", default="full", help="which scenes: full or tiny (default: full)")
    parser.add_argument(
        "--work", type=Path, default=None, help="folder of checkpoints and parts (default: the user's cache folder)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        help="export: the folder that becomes the pipeline; restore: such a folder, to go on from",
    )
    parser.add_argument("--steps", type=int, default=None, help="training steps (default: the part's own)")
    parser.add_argument(
        "--scenes",
        type=int,
        default=None,
        metavar="N",
        help="denoiser: train on N scenes, all that is planned among them (default: as many as are encoded, first all)",
    )
    parser.add_argument(
        "--repeat",
        nargs="+",
        metavar="BLOCK=M",
        help='denoiser: show a block\'s scenes M times an epoch, as in "two objects=2"; begins with the next epoch (default: once)',
    )
    parser.add_argument(
        "--cool-down",
        type=int,
        metavar="SAMPLES",
        help="denoiser: in a branch of its own, train on for so many samples while the learning rate falls to zero",
    )
    parser.add_argument("--batch-size", type=int, default=None, help="pictures a step over all processes")
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--minutes", type=float, default=None, help="stop after so many minutes, to be resumed later")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="train through torch.compile (on CUDA alone: on a CPU gradients get lost; pays on long runs)",
    )
    parser.add_argument(
        "--ignore-gate",
        action="store_true",
        help="denoiser: go on although probes read too little from the text encoder's states",
    )
    parser.add_argument("--restart", action="store_true", help="begin again instead of resuming")


def main(args: argparse.Namespace) -> int:
    from ..paths import cache_folder
    from .training.trainer import check_compiled
    from .world.datasheet import find_grammar

    check_compiled(args.compile)
    grammar = find_grammar(args.grammar)
    work = args.work or cache_folder() / "pocket" / args.grammar
    home = importlib.import_module(f".{PARTS[args.part]}", __package__)
    return getattr(home, f"run_{args.part.replace('-', '_')}")(args, grammar, work)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="sdwidgets train", description=__doc__)
    add_arguments(parser)
    raise SystemExit(main(parser.parse_args()))

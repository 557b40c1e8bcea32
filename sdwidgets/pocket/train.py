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
    add = parser.add_argument
    together = "export puts finished parts together, restore takes an exported folder apart again"
    add("part", choices=PARTS, help=f"which part to train; {together}")
    add("--grammar", default="full", help="which scenes: full or tiny (default: full)")
    add("--work", type=Path, help="folder of checkpoints and parts (default: the user's cache folder)")
    output = "export: the folder that becomes the pipeline; restore: such a folder, to go on from"
    add("--output", type=Path, help=output)
    add("--steps", type=int, help="training steps (default: the part's own)")
    scenes = "train on N scenes, all that is planned among them (default: as many as are encoded, first all)"
    add("--scenes", type=int, metavar="N", help=f"denoiser: {scenes}")
    repeat = "show a block's scenes M times an epoch, as in 'two objects=2', from the next epoch on (default: once)"
    add("--repeat", nargs="+", metavar="BLOCK=M", help=f"denoiser: {repeat}")
    cool = "in a branch of its own, train on for so many samples while the learning rate falls to zero"
    add("--cool-down", type=int, metavar="SAMPLES", help=f"denoiser: {cool}")
    add("--batch-size", type=int, help="pictures a step over all processes")
    add("--learning-rate", type=float)
    add("--minutes", type=float, help="stop after so many minutes, to be resumed later")
    add("--seed", type=int)
    compiled = "train through torch.compile (on CUDA alone: on a CPU gradients get lost; pays on long runs)"
    add("--compile", action="store_true", help=compiled)
    gate = "go on although probes read too little from the text encoder's states"
    add("--ignore-gate", action="store_true", help=f"denoiser: {gate}")
    add("--restart", action="store_true", help="begin again instead of resuming")


def main(args: argparse.Namespace) -> int:
    from ..paths import cache_folder
    from .training.trainer import check_compiled
    from .world.datasheet import find_grammar

    check_compiled(args.compile)
    grammar = find_grammar(args.grammar)
    work = args.work or cache_folder() / "pocket" / args.grammar
    home = importlib.import_module(f".{PARTS[args.part]}", __package__)
    getattr(home, f"run_{args.part.replace('-', '_')}")(args, grammar, work)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="sdwidgets train", description=__doc__)
    add_arguments(parser)
    raise SystemExit(main(parser.parse_args()))

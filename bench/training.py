"""What makes Pocket's training faster: each change against the plain recipe, in one process, taking turns.

    python bench/training.py                          # speed: samples a second, this machine
    python bench/training.py --learn vae              # learning: loss after as many samples, AdamW against Muon
    python bench/training.py --learn denoiser --work FOLDER   # needs encoded scenes, see `sdwidgets train`

Ratios are against the first row of each part; medians of turns, with quartiles. `expected` was written down before
measuring, with its reason, so that the table also shows where we were wrong. What is compiled is measured on CUDA alone:
`trainer.check_compiled` says why. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor

from sdwidgets.pocket.training import clip, denoiser, trainer, vae
from sdwidgets.pocket.world.datasheet import ENCODER, FULL

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from bench import harness, table

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


@dataclasses.dataclass(frozen=True)
class Change:
    """One row: what is changed in the plain recipe, what we expected of it and why."""

    name: str
    expected: str
    options: dict


PLAIN = {
    "optimizer": "adamw", "batch_size": 32, "format": "channels_last", "compile": False, "bf16": False, "attention": "sdpa",
}  # fmt: skip

#: Part -> its rows, the plain recipe first.
CHANGES = {
    part: tuple(Change(**row) for row in rows)
    for part, rows in json.loads(Path(__file__).with_name("training_changes.json").read_text(encoding="utf-8")).items()
}


def build(part: str, options: dict) -> Callable[[], int]:
    """A function that does one training step of `part` and returns how many pictures it saw.

    Raises ValueError for a compiled one without CUDA.
    """
    setting = PLAIN | options
    trainer.check_compiled(setting["compile"])
    size, layout = setting["batch_size"], getattr(torch, setting["format"])
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    if part == "vae":
        config = vae.VaeConfig()
        module = vae.VaeTraining(vae.build_vae(config), config)
        crop = setting.get("crop", config.crop)
        batch = (vae.crop_batch(np.random.default_rng(0), size, crop),)
    else:
        config = denoiser.DenoiserConfig()
        module = denoiser.DenoiserTraining(denoiser.build_unet(config), config)
        if setting["attention"] == "plain":
            module.unet.set_attn_processor(AttnProcessor())
        latents, noise = (torch.randn(size, 4, 16, 16, generator=generator) for _ in range(2))
        timesteps = torch.randint(0, 1000, (size,), generator=generator)
        batch = latents, noise, timesteps, torch.randn(size, 77, config.text_width, generator=generator)
    module = module.to(DEVICE, memory_format=layout)
    batch = tuple(tensor.to(DEVICE) for tensor in batch)
    if part == "vae":
        batch = tuple(tensor.to(memory_format=layout) for tensor in batch)
    schedule = dataclasses.replace(config.schedule, optimizer=setting["optimizer"])
    optimizer = schedule.build_optimizer(module)
    if setting["compile"]:
        module.compile()

    def step() -> int:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=setting["bf16"]):
            loss = module(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if CUDA:
            torch.cuda.synchronize()
        return size * (setting.get("crop", 64) // 64) ** 2 if part == "vae" else size

    return step


def speed(part: str, changes: tuple[Change, ...], turns: int) -> list[dict]:
    """Samples a second of each change, the changes taking turns; for the autoencoder a sample is a crop of 64 pixels."""
    steps, samples = {}, {}
    for change in changes:
        began = time.perf_counter()
        try:
            step = build(part, change.options)
            samples[change.name] = step()
            step()
        except Exception as error:  # a machine without a compiler, or without CUDA, loses that row, not the table
            print(f"{change.name}: does not run here ({type(error).__name__}: {str(error)[:80]})")
            continue
        steps[change.name] = lambda turn, step=step: step()
        print(f"{change.name}: ready after {time.perf_counter() - began:.0f} s", flush=True)
    rows, base = [], None
    for name, seconds in harness.take_turns(steps, turns, warm_up=0).items():
        low, middle, high = np.percentile(samples[name] / np.array(seconds), [25, 50, 75])
        base = base or middle
        rows.append(
            {"part": part, "change": name, "expected": next(c.expected for c in changes if c.name == name), "ratio": round(middle / base, 2)}
            | {"samples_per_second": round(middle, 1), "quartiles": [round(low, 1), round(high, 1)]}
        )  # fmt: skip
    return rows


#: (optimizer, highest learning rate) to compare
RECIPES = (("adamw", 8e-4), ("adamw", 2e-3), ("muon", 2e-3), ("muon", 5e-3), ("muon", 1e-2))


def learn(part: str, samples: int, work: Path | None) -> list[dict]:
    """The loss over the last tenth of short whole trainings (warm-up, cosine), same batches, same beginning."""
    rows = []
    if part == "denoiser":
        from sdwidgets.pocket.training import work_folder

        data = work_folder.latent_data(FULL, work)
    for optimizer, rate in RECIPES:
        torch.manual_seed(0)
        if part == "vae":
            config = vae.VaeConfig()
            module, loss_at = vae.VaeTraining(vae.build_vae(config), config), vae.vae_loss_at(config)
        elif part == "clip":
            config = clip.ClipConfig()
            tokenizer = clip.build_tokenizer(work / "clip" / "tokenizer", config)
            module = clip.ClipTraining(clip.build_clip(config, tokenizer), config.max_logit_scale)
            loss_at = clip.clip_loss_at(ENCODER, config, tokenizer)
        else:
            config = denoiser.DenoiserConfig()
            module = denoiser.DenoiserTraining(denoiser.build_unet(config), config)
            loss_at = denoiser.denoiser_loss_at(data, config)
        size = config.schedule.batch_size
        schedule = dataclasses.replace(
            config.schedule, optimizer=optimizer, learning_rate=rate, steps=samples // size, warmup_steps=50, decay_share=1.0
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            module = module.to(memory_format=torch.channels_last)
            _, record = trainer.train(f"{optimizer} {rate:g}", module, loss_at, schedule, Path(folder), {})
        tail = record["losses"][-max(1, len(record["losses"]) // 10) :]
        rows.append(
            {"part": part, "optimizer": optimizer, "learning_rate": rate, "samples": samples}
            | {"loss": round(statistics.mean(loss for _, loss in tail), 4)}
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["denoiser", "vae"], choices=["denoiser", "vae"])
    parser.add_argument("--turns", type=int, default=7, help="steps measured of each change (default: 7)")
    parser.add_argument("--learn", choices=["vae", "clip", "denoiser"], help="compare learning instead of speed")
    parser.add_argument("--samples", type=int, default=6_400, help="--learn: samples of each training")
    parser.add_argument("--work", type=Path, help="--learn clip or denoiser: the folder of the trained parts")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    machine = harness.machine()  # before anything is measured: it tells how busy the machine is
    if args.learn in ("clip", "denoiser") and args.work is None:
        parser.error(f"--learn {args.learn} needs --work, the folder that `sdwidgets train` worked in")
    if args.learn:
        rows = learn(args.learn, args.samples, args.work)
        for row in rows:
            print(f"{row['part']:10} {row['optimizer']:6} {row['learning_rate']:<8g} loss {row['loss']:.4f}")
    else:
        rows = [row for part in args.parts for row in speed(part, CHANGES[part], args.turns)]
    report = {"bench": "learning" if args.learn else "training", "machine": machine, "turns": args.turns, "rows": rows}
    if not args.learn:
        print("\n" + table.describe(report))
    harness.write(report, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

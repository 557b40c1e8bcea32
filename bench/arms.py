"""Which denoiser learns objects best in the same time: arms that differ in one thing, trained alike and read by the judge.

    python bench/arms.py --work FOLDER [--minutes 25] [--arms NAME ...]

`--work`: the folder of a training with its autoencoder and text encoder (`sdwidgets train restore` lays one). Every arm begins at random weights of
seed 0 and sees the same scenes: one object of 64 pixels at the nine places of the lattice. Time is this process's CPU time, so that a busy machine
changes nothing but the wait; the learning rate falls over the last 30% of it. The report, bench/results/arms.json, is written after each arm; an arm
that stands in it with as many minutes is not run again. Run it on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from bench import harness
from sdwidgets.pocket import judges
from sdwidgets.pocket.evaluation import prompt_sets
from sdwidgets.pocket.evaluation.sampling import Evaluator, Setting
from sdwidgets.pocket.training import clip, denoiser, guard, trainer, validation, work_folder
from sdwidgets.pocket.world import datasheet as sheet
from sdwidgets.pocket.world import grammar
from sdwidgets.pocket.world.layouts import LATTICE
from sdwidgets.pocket.world.scenes import Stream
from sdwidgets.pocket.world.vocabulary import COLOURS
from sdwidgets.statistics import share

RESULTS = Path(__file__).resolve().parent / "results" / "arms.json"
SCENES = 40  # an object, of 160
KIND = "one object, 64"  # of the validation scenes
PROMPTS = 100


def _with(**changes) -> denoiser.DenoiserConfig:
    """The denoiser's own settings with changes, in small batches: so few samples make more steps of them."""
    changes = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
    of_schedule = {"batch_size": 32, "warmup_steps": 100}
    of_schedule |= {key: changes.pop(key) for key in ("optimizer", "learning_rate", "batch_size") if key in changes}
    config = denoiser.DenoiserConfig(**changes)
    return dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, **of_schedule))


@dataclasses.dataclass(frozen=True)
class Arm:
    """What differs. `frozen`: parts of parameter names that stay at random, as torch.compile left them in the first edition."""

    what: str
    config: denoiser.DenoiserConfig
    whitened: bool = True
    frozen: tuple[str, ...] = ()


#: Name -> arm, as arms.json tells what differs.
ARMS = {
    name: Arm(row["what"], _with(**row.get("changes", {})), row.get("whitened", True), tuple(row.get("frozen", ())))
    for name, row in json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")).items()
}


def scenes_of_arms() -> list:
    """One object of 64 pixels a scene, every common object as often, at any of the nine places, as the datasheet draws them."""
    spots, scenes = [spot for spot in LATTICE.singles() if spot[2] == 64], []
    for number in range(SCENES * len(sheet.COMMON_OBJECTS)):
        stream = Stream(sheet.SEED + 2, number)
        name = sheet.COMMON_OBJECTS[number % len(sheet.COMMON_OBJECTS)]
        allowed = [colour for colour in COLOURS if colour != sheet.HELD_OUT_BACKGROUNDS[name]]
        scene = prompt_sets.object_scene(stream, number, name, stream.choice(allowed))
        (x, y, size), (thing,) = stream.choice(spots), scene.things
        things = (dataclasses.replace(thing, x=x, y=y, size=size),)
        scenes.append(dataclasses.replace(scene, things=things, shade=stream.integer(-grammar.SHADE, grammar.SHADE)))
    return scenes


def encoded(work: Path, autoencoder, encoder, tokenizer) -> denoiser.LatentData:
    """The arms' scenes as latents and text states; kept in the work folder."""
    from safetensors.torch import load_file

    file, scenes = work / "encoded" / "arms.safetensors", scenes_of_arms()
    captions = [scene.caption for scene in scenes]
    rows = {caption: row for row, caption in enumerate(dict.fromkeys(["", *captions]))}
    if not file.exists():
        states = torch.cat(list(clip.encode_captions(encoder, tokenizer, list(rows))))
        trainer.save_tensors(file, {"latents": validation.encode(autoencoder, scenes).half(), "states": states})
    kept = load_file(file)
    return denoiser.LatentData(
        kept["latents"], kept["states"], torch.tensor([rows[c] for c in captions]), torch.arange(len(scenes))
    )


def rate_at(share_done: float, step: int, schedule: trainer.Schedule) -> float:
    """The learning rate where so much of the time has gone: a warm-up by steps, a fall along a cosine over the last 30%."""
    fall = 0.5 + 0.5 * math.cos(math.pi * max(0.0, (share_done - 0.7) / 0.3))
    return schedule.learning_rate * fall * min(1.0, (step + 1) / schedule.warmup_steps)


def train(arm: Arm, data: denoiser.LatentData, whitening: torch.Tensor, minutes: float):
    """(averaged module, steps): an arm trained for so many minutes of CPU time."""
    config = arm.config
    torch.manual_seed(0)
    model = denoiser.DenoiserTraining(denoiser.for_training(denoiser.build_unet(config)), config, whitening)
    for name, parameter in model.unet.named_parameters():
        if name.startswith(arm.frozen or ("-",)) and not name.startswith("up_blocks.1.upsamplers"):
            parameter.requires_grad_(False)
    average = denoiser.DenoiserTraining(denoiser.for_training(denoiser.build_unet(config)), config, whitening)
    average.load_state_dict(model.state_dict())
    average.requires_grad_(False)
    optimizer, watch = config.schedule.build_optimizer(model), guard.Guard(arm.what, model)
    odds = denoiser.timestep_odds(denoiser.build_scheduler(), config)
    loss_at = denoiser.denoiser_loss_at(data, config, odds)
    alone = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"))
    began, step, used = time.process_time(), 0, 0.0
    while used < 1:
        rate = rate_at(used, step, config.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss_at(model, step, config.schedule.batch_size, alone).backward()
        watch.watch(rate)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        trainer.ema_update(average, model, min(config.schedule.ema_decay, (1 + step) / (10 + step)))
        step += 1
        used = (time.process_time() - began) / (60 * minutes)
        if step % 50 == 0:
            watch.check()
            print(f"{arm.what}: step {step}, {used:.0%}", flush=True)
    return average.eval(), step


def read(unet, sheets: Path | None) -> list[bool]:
    """Which of 100 prompts for one object, never used in a report, are drawn rightly."""
    from sdwidgets import load

    pipe = load("pocket", "cpu", "float32")
    pipe.unet = unet
    row = prompt_sets.ROWS["one object"]
    scenes = [row.scene("seen", prompt_sets.CHOOSING + number) for number in range(PROMPTS)]
    evaluator = Evaluator(pipe, judges.load(), Setting(), sheets)
    return [row.right(scene, seen) for scene, seen in evaluator.readings("arms", scenes, row.view)]


def run(name: str, data, fixed, whitening, minutes: float, work: Path) -> dict:
    """One row of the report."""
    arm = ARMS[name]
    matrix = whitening if arm.whitened else torch.eye(len(whitening))
    states = (data.prompt_embeds.float() @ matrix).half()
    average, steps = train(arm, dataclasses.replace(data, prompt_embeds=states), matrix, minutes)
    error = fixed.measure(average.unet, fixed.states @ matrix)["by kind"][KIND]
    unet = average.stock_unet()
    unet.save_pretrained(work / "arms" / name, safe_serialization=True)
    samples = steps * arm.config.schedule.batch_size
    return {
        "arm": name,
        "what": arm.what,
        "minutes": minutes,
        "parameters": sum(p.numel() for p in unet.parameters()),
        "samples": samples,
        "samples a second": round(samples / (60 * minutes), 1),
        "error and floor": error,
        "gap": round(float(np.mean([error[str(t)][0] - error[str(t)][1] for t in validation.DECISIVE])), 4),
        "one object": share(read(unet.to(memory_format=torch.contiguous_format), work / "arms" / name)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder of a training")
    parser.add_argument("--minutes", type=float, default=25.0, help="CPU time of an arm (default: 25)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="default: all")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"default: {RESULTS.name} in bench/results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    machine = harness.machine()
    parts = work_folder.frozen_autoencoder(args.work), *work_folder.frozen_text(args.work)
    data = encoded(args.work, *parts)
    fixed = validation.Validation.prepare(*parts, args.work / "encoded" / "floor.safetensors")
    whitening = work_folder.text_whitening(sheet.FULL, args.work)
    report = json.loads(args.json.read_text()) if args.json.exists() else {"bench": "arms", "rows": []}
    for name in args.arms:
        if any(row["arm"] == name and row["minutes"] == args.minutes for row in report["rows"]):
            continue
        row = run(name, data, fixed, whitening, args.minutes, args.work)
        if args.json.exists():  # another process may have added to it
            report = json.loads(args.json.read_text())
        report["rows"] = [r for r in report["rows"] if r["arm"] != name] + [row]
        harness.write(report | {"machine": machine}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

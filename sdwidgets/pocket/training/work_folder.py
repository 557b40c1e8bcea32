"""The folder of a training: finished parts, and what is worked out once of frozen ones (latents, text states, their whitening)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from tqdm.auto import tqdm
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from ..world.datasheet import Grammar
from ..world.scenes import make_scene
from . import clip, denoiser, trainer, vae
from .scene_order import times_an_epoch, training_scenes, world_digest


def run_options(args) -> dict:
    """What the command line says of how to train, as arguments of `trainer.train`."""
    return {"restart": args.restart, "minutes": args.minutes, "compiled": args.compile}


def train_part(name: str, module, loss_at: Callable, config, args, folder: Path, **more) -> tuple:
    """`trainer.train` with the schedule and the options of a part's configuration and command line."""
    settings = dataclasses.asdict(config)
    return trainer.train(name, module, loss_at, config.schedule, folder, settings, **run_options(args), **more)


def finish(folder: Path, save: Callable[[Path], object], record: dict, schedule: trainer.Schedule) -> None:
    """Save a trained part beside its checkpoint, by `save(folder)`, with the settings and the curve that made it."""
    part = folder / "part"
    shutil.rmtree(part, ignore_errors=True)  # shards of an earlier save would count as its own
    save(part)
    trainer.write_json(part / "training.json", record)
    print(f"{'finished' if record['step'] >= schedule.steps else 'stopped, resume with the same command'}: {part}")


def run_extra(name: str, train: Callable, config, args, grammar: Grammar, work: Path) -> None:
    """`train(unet, data, config, folder, **options of trainer.train)` for something that is trained around the finished denoiser."""
    config = override_schedule(config, args)
    unet = denoiser.for_training(UNet2DConditionModel.from_pretrained(finished_part(work, "denoiser")))
    train(unet, latent_data(grammar, work), config, work / name, **run_options(args))


def fit_extra(name: str, build: Callable, unet, loss_at, config, folder: Path, scenes: int, **options) -> dict:
    """Train `build(unet, config)`, a module around a frozen denoiser, on so many scenes; its `save(part)` fills `folder`/part.

    Returns the record of `trainer.train`, whose `options` it takes.
    """
    trainer.check_compiled(options.get("compiled", False))  # before the denoiser is given a LoRA
    options |= {"stage": {"scenes": scenes}, "base": trainer.digest(unet)}
    module, settings, loss_at = build(unet, config), dataclasses.asdict(config), trainer.global_batch(loss_at)
    average, record = trainer.train(name, module, loss_at, config.schedule, folder, settings, **options)
    if trainer.processes().is_main_process:
        finish(folder, average.save, record, config.schedule)
    return record


def finished_part(work: Path, name: str) -> Path:
    """The folder of a part that must be there. Raises FileNotFoundError with the command that makes it."""
    folder = work / name / "part"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no trained {name} in {work}: run `sdwidgets train {name}` with the same --work first"
        )
    return folder


def finished_autoencoder(work: Path) -> Path:
    """The folder of the autoencoder to export: with the decoder that was trained on, where that is of the present encoder."""
    first, later = finished_part(work, "vae"), work / "decoder" / "part"
    if not later.is_dir():
        return first
    base = trainer.digest(AutoencoderKL.from_pretrained(first).encoder)
    if json.loads((later / "training.json").read_text()).get("base") == base:
        return later
    print(f"left out {later}: it was trained for another encoder; `sdwidgets train decoder` trains it anew")
    return first


def frozen_autoencoder(work: Path) -> AutoencoderKL:
    """The trained autoencoder, as it encodes fastest."""
    return AutoencoderKL.from_pretrained(finished_part(work, "vae")).eval().to(memory_format=torch.channels_last)


def frozen_text(work: Path) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """The trained text encoder and its tokenizer."""
    encoder = clip.text_encoder(CLIPModel.from_pretrained(finished_part(work, "clip")))
    return encoder, CLIPTokenizer.from_pretrained(work / "clip" / "tokenizer")


GATE = 0.99


def check_gate(work: Path) -> None:
    """Raises ValueError where probes did not read every attribute from the encoder's states: no denoiser would either."""
    finished_part(work, "vae")
    folder = finished_part(work, "clip")
    gate = json.loads((folder / "training.json").read_text()).get("gate", {})
    short = {name: share for name, share in gate.items() if not share >= GATE}
    if short or not gate:
        read = ", ".join(f"{name} {share:.1%}" for name, share in short.items()) or "nothing yet"
        raise ValueError(
            f"the text encoder in {folder} has not passed its gate: probes read {read}, and {GATE:.0%} are asked for; train it on with "
            "`sdwidgets train clip --steps MORE`, or give --ignore-gate"
        )


SHARD = 8_192  # scenes or captions a file: what an interrupt can cost


@torch.no_grad()
def _shards(folder: Path, name: str, total: int, make: Callable[[range], torch.Tensor]) -> torch.Tensor:
    """`make(range)` for all of range(total), in files of `SHARD` rows that are made once; one tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = []
    for start in tqdm(range(0, total, SHARD), desc=f"encode {name}", mininterval=2):
        stop = min(start + SHARD, total)
        file = folder / f"{name}-{start:07d}-{stop:07d}.safetensors"
        if not file.exists():
            trainer.save_tensors(file, {name: make(range(start, stop))})
        tensors.append(load_file(file)[name])
    return torch.cat(tensors)


@trainer.main_process_first()
def latent_data(grammar: Grammar, work: Path, scenes: int | None = None) -> denoiser.LatentData:
    """Scenes' scaled latents and captions' text states, as float16; made once, kept in `work`/encoded.

    `scenes`: how many of `training_scenes`; by default as many as the last time, and all of them the first time. More of them later are
    encoded in addition. An interrupted run goes on where it stopped. Raises ValueError where the folder was made of other parts or other scenes.
    """
    chosen = work / "encoded" / "scenes.json"
    before = json.loads(chosen.read_text()) if chosen.exists() else None
    indices = training_scenes(grammar, before["scenes"] if before and scenes is None else scenes)
    origin = _origin(grammar, work)
    if before and before["origin"] != origin:
        raise ValueError(
            f"{chosen.parent} holds latents and text states of another autoencoder, encoder or grammar; remove that folder, and it is made anew"
        )
    chosen.parent.mkdir(parents=True, exist_ok=True)
    if before != (now := {"scenes": len(indices), "origin": origin}):
        trainer.write_json(chosen, now)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    autoencoder, (encoder, tokenizer) = frozen_autoencoder(work).to(device), frozen_text(work)
    encoder.to(device)
    captions = [make_scene(grammar, index).caption for index in indices]
    rows = {caption: row for row, caption in enumerate(dict.fromkeys(["", *captions]))}
    different = list(rows)

    def encode_scenes(part: range) -> torch.Tensor:
        drawn = indices[part.start : part.stop]
        batches = torch.cat(list(vae.encode_scenes(autoencoder, grammar, drawn, device)))
        return (batches * autoencoder.config.scaling_factor).half()

    def encode_captions(part: range) -> torch.Tensor:
        return torch.cat(list(clip.encode_captions(encoder, tokenizer, different[part.start : part.stop])))

    return denoiser.LatentData(
        latents=_shards(work / "encoded", "latents", len(indices), encode_scenes),
        prompt_embeds=_shards(work / "encoded", "prompt_embeds", len(different), encode_captions),
        captions=torch.tensor([rows[caption] for caption in captions]),
        scenes=torch.tensor(indices),
        times=times_an_epoch(grammar, indices),
    )


def _origin(grammar: Grammar, work: Path) -> str:
    """A digest of all that latents and text states are made of: both frozen parts, and scenes from all over the grammar."""
    digest = hashlib.sha256()
    for name in ("vae", "clip"):
        for file in sorted(finished_part(work, name).glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16] + world_digest(grammar)


WHITENING_SCENES = 2_048


@trainer.main_process_first()
@torch.no_grad()
def text_whitening(grammar: Grammar, work: Path) -> torch.Tensor:
    """`denoiser.measure_whitening` of a grammar's first captions; measured once, kept in `work`/encoded."""
    file = work / "encoded" / "whitening.safetensors"
    if not file.exists():
        encoder, tokenizer = frozen_text(work)
        some = np.random.default_rng(grammar.count).permutation(grammar.count)[:WHITENING_SCENES].tolist()
        captions = list(dict.fromkeys(make_scene(grammar, index).caption for index in some))
        states = torch.cat(list(clip.encode_captions(encoder, tokenizer, captions)))
        file.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_tensors(file, {"whitening": denoiser.measure_whitening(states)})
    return load_file(file)["whitening"]


def override_schedule(config, args):
    """`config` with the schedule's fields that the command line names put in their place."""
    values = {name: getattr(args, name) for name in ("steps", "batch_size", "learning_rate", "seed")}
    named = {name: value for name, value in values.items() if value is not None}
    for name in ("steps", "batch_size"):
        if named.get(name, 1) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, not {named[name]}")
    if named.get("learning_rate", 1) <= 0:
        raise ValueError(f"--learning-rate must be above 0, not {named['learning_rate']}")
    return dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, **named))

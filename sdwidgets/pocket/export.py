"""Trained parts put together as one Stable Diffusion pipeline, and taken apart again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from ..latents import fit_linear_preview
from .cards.model_card import write_card
from .cards.words import write_words
from .training import clip, denoiser, trainer, vae
from .training.work_folder import finished_autoencoder, finished_part, text_whitening
from .world.datasheet import Grammar
from .world.scenes import make_scene, pictures_of, spread


def run_export(args, grammar: Grammar, work: Path) -> None:
    """Put the finished parts together as one fp16 folder that stock diffusers loads, with their records."""
    if args.output is None:
        raise ValueError("export needs --output FOLDER, the folder that becomes the pipeline")
    chosen = finished_autoencoder(work)
    autoencoder = AutoencoderKL.from_pretrained(chosen).eval()
    unet = UNet2DConditionModel.from_pretrained(finished_part(work, "denoiser"))
    base, decodes = trainer.digest(unet), trainer.digest(autoencoder)
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=clip.text_encoder(CLIPModel.from_pretrained(finished_part(work, "clip"))),
        tokenizer=CLIPTokenizer.from_pretrained(work / "clip" / "tokenizer"),
        unet=unet,
        scheduler=denoiser.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(args.output, safe_serialization=True, max_shard_size="14MB")
    for part in ("vae", "unet"):
        _rewrite_config(args.output / part, {})
    _make_text_encoder_portable(args.output / "text_encoder")
    for file in ("vocab.json", "merges.txt"):  # transformers 4 reads these, 5 writes only tokenizer.json
        shutil.copy(work / "clip" / "tokenizer" / file, args.output / "tokenizer" / file)
    factors = fit_preview(autoencoder.float(), grammar)
    factors = [[round(float(f), 5) for f in row] for row in factors]
    trainer.write_json(args.output / "preview.json", {"factors": factors})
    parts = ("vae", "clip", "denoiser") + (("decoder",) if chosen == work / "decoder" / "part" else ())
    records = {name: json.loads((finished_part(work, name) / "training.json").read_text()) for name in parts}
    trainer.write_json(args.output / "training.json", {"grammar": grammar.name, **records})
    for extra in ("turbo", "zero-snr", "adapter"):
        _export_extra(work / extra / "part", args.output / "extras" / extra, base)
    _export_extra(work / "small-decoder" / "part", args.output / "extras" / "small-decoder", decodes, "autoencoder")
    towers = CLIPModel.from_pretrained(finished_part(work, "clip"))
    clip.save_image_tower(towers, args.output / "extras" / "clip")  # for the CLIP score, and to train on from
    _load_as_float32(args.output / "extras" / "clip")
    epochs = records["denoiser"].get("epochs", ())
    write_words(args.output, grammar, max((stage["scenes"] for stage in epochs), default=None))
    write_card(args.output, evaluated=False)
    size = sum(file.stat().st_size for file in args.output.rglob("*") if file.is_file())
    print(f"exported to {args.output}: {size / 1e6:.1f} MB")


def _export_extra(part: Path, folder: Path, base: str, model: str = "denoiser") -> None:
    """Copy what was trained for the model of digest `base`; leave out, and take out, what was trained for another."""

    def fits(extra: Path) -> bool:
        record = extra / "training.json"
        return record.is_file() and json.loads(record.read_text()).get("base") == base

    if part.is_dir() and fits(part):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(part, folder)
        return
    another = f"it was trained for another {model}, or does not say for which"
    if part.is_dir():
        print(f"left out {part}: {another}; `sdwidgets train {folder.name}` trains it anew")
    if folder.is_dir() and not fits(folder):
        shutil.rmtree(folder)
        print(f"removed {folder}, which an earlier export left there: {another}")


def run_restore(args, grammar: Grammar, work: Path) -> None:
    """Lay a work folder from an exported model: its parts are finished ones, text encoder and denoiser checkpoints to train on from.

    What the export left out is lost: the optimiser's moments begin at zero, and weights were rounded to float16. Raises
    ValueError where the folder is no export of this grammar, FileExistsError where the work folder holds an encoder or a denoiser.
    """
    if args.output is None or not (args.output / "training.json").is_file():
        raise ValueError("restore needs --output FOLDER, a folder that `sdwidgets train export` wrote")
    records = json.loads((args.output / "training.json").read_text())
    if (trained := records.get("grammar")) != grammar.name:
        raise ValueError(f"{args.output} was trained on the grammar {trained}, not {grammar.name}; give --grammar")
    for name in ("clip", "denoiser"):
        if (work / name).exists():
            raise FileExistsError(f"{work} holds a {name} already: go on with it, or give another --work")
    shutil.copytree(args.output / "vae", work / "vae" / "part", dirs_exist_ok=True)
    if "decoder" in records:
        shutil.copytree(args.output / "vae", work / "decoder" / "part", dirs_exist_ok=True)
        trainer.write_json(work / "decoder" / "part" / "training.json", records["decoder"])
    encoder = CLIPTextModel.from_pretrained(args.output / "text_encoder")
    towers = clip.read_clip(args.output / "extras" / "clip", encoder)
    towers.save_pretrained(work / "clip" / "part", safe_serialization=True)
    shutil.copytree(args.output / "tokenizer", work / "clip" / "tokenizer", dirs_exist_ok=True)
    shutil.copytree(args.output / "unet", work / "denoiser" / "part", dirs_exist_ok=True)
    for name in ("vae", "clip", "denoiser"):
        trainer.write_json(work / name / "part" / "training.json", records[name])
    towers = clip.ClipTraining(towers)
    optimizer = clip.ClipConfig().schedule.build_optimizer(towers)
    trainer.Checkpoint(work / "clip").save(records["clip"]["step"], towers, towers, optimizer, records["clip"])
    config = denoiser.DenoiserConfig()
    unet = UNet2DConditionModel.from_pretrained(args.output / "unet")
    model = denoiser.DenoiserTraining.from_stock(unet, config, text_whitening(grammar, work))
    optimizer = config.schedule.build_optimizer(model)
    record = records["denoiser"]
    trainer.Checkpoint(work / "denoiser").save(record["step"], model, model, optimizer, record)
    print(f"restored {args.output} to {work} at step {record['step']:,}")


def _make_text_encoder_portable(folder: Path) -> None:
    """Name the tensors as Stable Diffusion's files do, which transformers 4 and 5 both read, and have them load
    as float32 by default: transformers 5 takes the dtype from the configuration, diffusers' parts do not."""
    file = folder / "model.safetensors"
    tensors = load_file(file).items()
    tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors}
    save_file(tensors, file, metadata={"format": "pt"})
    _load_as_float32(folder)


def _load_as_float32(folder: Path) -> None:
    """Name float32 in the configuration of half-precision weights: it is what transformers 5 loads them as."""
    config = _rewrite_config(folder, {"dtype": "float32"})
    towers = {name: config[name] | {"dtype": "float32"} for name in ("text_config", "vision_config") if name in config}
    _rewrite_config(folder, towers)


def _rewrite_config(folder: Path, changes: dict) -> dict:
    """Change a configuration, without the folder on this machine that diffusers notes a part to be loaded from."""
    config = json.loads((folder / "config.json").read_text()) | changes
    config.pop("_name_or_path", None)
    trainer.write_json(folder / "config.json", config)
    return config


def fit_preview(autoencoder, grammar: Grammar, count: int = 128):
    """The best linear map from scaled latents to colours: (5, 3), see `sdwidgets.latents.fit_linear_preview`."""
    indices = spread(grammar, count)
    latents = torch.cat(list(vae.encode_scenes(autoencoder, grammar, indices))) * autoencoder.config.scaling_factor
    pictures = pictures_of(make_scene(grammar, index) for index in indices)
    return fit_linear_preview(latents.numpy(), pictures)

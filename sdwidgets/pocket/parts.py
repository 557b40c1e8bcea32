"""Training of each part from start to finished folder, and their export as one Stable Diffusion pipeline."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from ..latents import fit_linear_preview
from . import clip, denoiser, epochs, training, vae, validation
from .adapter import run_adapter  # noqa: F401  (offered here as the other parts are)
from .card import model_card
from .datasheet import ENCODER, FULL, PlannedGrammar
from .finetune import run_zero_snr  # noqa: F401
from .scenes import Grammar, make_scene, render, spread
from .small_decoder import run_small_decoder  # noqa: F401
from .train import override_schedule
from .turbo import run_turbo  # noqa: F401


def _finish(folder: Path, model, record: dict, done: bool) -> None:
    """Save a trained part beside its checkpoint, with the settings and the curve that made it."""
    shutil.rmtree(folder / "part", ignore_errors=True)  # shards of an earlier save would count as its own
    model.save_pretrained(folder / "part", safe_serialization=True)
    training.write_json(folder / "part" / "training.json", record)
    print(f"{'finished' if done else 'stopped, resume with the same command'}: {folder / 'part'}")


def run_vae(args, grammar: Grammar, work: Path) -> int:
    """Train the autoencoder on wordless scenes; the grammar only says which pictures it is tested on."""
    config = override_schedule(vae.VaeConfig(), args)
    torch.manual_seed(config.schedule.seed)
    model = vae.VaeTraining(vae.build_vae(config).to(memory_format=torch.channels_last), config)
    average, record = training.train(
        "vae",
        model,
        vae.vae_loss_at(config),
        config.schedule,
        work / "vae",
        dataclasses.asdict(config),
        args.restart,
        args.minutes,
        args.compile,
    )
    trained = average.vae
    if not training.processes().is_main_process:
        return 0
    record["psnr"] = vae.reconstruction_psnr(trained, grammar)
    latents = torch.cat(list(vae.encode_scenes(trained, grammar, spread(grammar, 512))))
    trained.register_to_config(scaling_factor=vae.measure_scaling_factor(latents))
    _finish(work / "vae", trained, record, record["step"] >= config.schedule.steps)
    print(
        f"PSNR: whole picture {record['psnr']['whole']:.1f} dB, things only {record['psnr']['things']:.1f} dB"
    )
    return 0


def finished_part(work: Path, name: str) -> Path:
    """The folder of a part that must be there. Raises FileNotFoundError with the command that makes it."""
    folder = work / name / "part"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no trained {name} in {work}: run `sdwidgets train {name}` with the same --work first"
        )
    return folder


def run_decoder(args, grammar: Grammar, work: Path) -> int:
    """Train the autoencoder's decoder on, its encoder frozen; export takes it instead of the first one."""
    config = override_schedule(vae.DecoderConfig(), args)
    autoencoder = AutoencoderKL.from_pretrained(finished_part(work, "vae")).to(memory_format=torch.channels_last)
    before = vae.reconstruction_psnr(autoencoder, grammar)
    average, record = training.train(
        "decoder",
        vae.DecoderTraining(autoencoder, config),
        vae.decoder_loss_at(config),
        config.schedule,
        work / "decoder",
        dataclasses.asdict(config),
        args.restart,
        args.minutes,
        args.compile,
        base=training.digest(autoencoder.encoder),
    )
    if not training.processes().is_main_process:
        return 0
    trained = average.autoencoder()
    record["psnr before"], record["psnr"] = before, vae.reconstruction_psnr(trained, grammar)
    _finish(work / "decoder", trained, record, record["step"] >= config.schedule.steps)
    for name, what in (("whole", "whole picture"), ("things", "things only")):
        print(f"PSNR, {what}: {before[name]:.1f} dB before, {record['psnr'][name]:.1f} dB now")
    return 0


def finished_autoencoder(work: Path) -> Path:
    """The folder of the autoencoder to export: with the decoder that was trained on, where that is of the present encoder."""
    first, later = finished_part(work, "vae"), work / "decoder" / "part"
    if not later.is_dir():
        return first
    base = training.digest(AutoencoderKL.from_pretrained(first).encoder)
    if json.loads((later / "training.json").read_text()).get("base") == base:
        return later
    print(f"left out {later}: it was trained for another encoder; `sdwidgets train decoder` trains it anew")
    return first


def run_clip(args, grammar: Grammar, work: Path) -> int:
    """Train the text encoder beside an image tower, contrastively, and ask its states what they know.

    The full grammar's encoder learns from pairs of its own, with shares of its own.
    """
    if grammar is FULL:
        grammar = ENCODER
    config = override_schedule(clip.ClipConfig(), args)
    torch.manual_seed(config.schedule.seed)
    tokenizer = _make_tokenizer(work, config)
    model = clip.ClipTraining(clip.build_clip(config, tokenizer), config.max_logit_scale)
    average, record = training.train(
        "clip",
        model,
        clip.clip_loss_at(grammar, config, tokenizer),
        config.schedule,
        work / "clip",
        dataclasses.asdict(config),
        args.restart,
        args.minutes,
        args.compile,
        stage={"scenes": grammar.count},
    )
    if not training.processes().is_main_process:
        return 0
    beats = clip.beats_hard_negative(average.clip.eval(), tokenizer, grammar)
    record["caption_beats_negative"] = beats.pop("any")
    record["caption_beats_by_kind"] = beats
    size = {} if grammar is ENCODER else {"count": 100, "learn": 400, "steps": 50}
    few = clip.FEW if grammar is ENCODER else {"count": 100, "learn": 100, "steps": 50}
    encoder = clip.text_encoder(average.clip)
    record["gate"] = clip.gate(encoder, tokenizer, **size)
    record["gate of few"] = clip.gate(encoder, tokenizer, **few) | {"captions": few["learn"]}
    _finish(work / "clip", average.clip, record, record["step"] >= config.schedule.steps)
    for told, learn in ((record["gate"], "many"), (record["gate of few"], "few")):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in told.items() if name != "captions")
        print(f"probes taught with {learn} captions read {shares}")
    by_kind = ", ".join(f"{kind} changed {share:.0%}" for kind, share in beats.items())
    print(f"a caption beats its swapped negative in {record['caption_beats_negative']:.0%} of 200 scenes ({by_kind})")
    return 0


@training.main_process_first
def _make_tokenizer(work: Path, config: clip.ClipConfig) -> CLIPTokenizer:
    folder = work / "clip" / "tokenizer"
    if training.processes().is_main_process:
        return clip.build_tokenizer(folder, config)
    return CLIPTokenizer.from_pretrained(folder)


GATE = 0.99


def check_gate(work: Path) -> None:
    """Raises ValueError where probes did not read every attribute from the encoder's states: no denoiser would either."""
    _, folder = (finished_part(work, name) for name in ("vae", "clip"))
    told = json.loads((folder / "training.json").read_text()).get("gate", {})
    short = {name: share for name, share in told.items() if not share >= GATE}
    if short or not told:
        found = ", ".join(f"{name} {share:.1%}" for name, share in short.items()) or "nothing yet"
        raise ValueError(
            f"the text encoder in {folder} has not passed its gate: probes read {found}, and {GATE:.0%} are asked for; train it on with "
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
            training.save_tensors(file, {name: make(range(start, stop))})
        tensors.append(load_file(file)[name])
    return torch.cat(tensors)


def _shuffled(grammar) -> list[int]:
    return np.random.default_rng(grammar.count).permutation(grammar.count).tolist()


@functools.lru_cache(maxsize=2)
def _planned(grammar: PlannedGrammar) -> tuple[dict[int, int], list[int]]:
    planned, others, first = {}, [], {}
    for index in _shuffled(grammar):
        if grammar.block_at(index)[0].planned:
            same = first.setdefault(dataclasses.replace(grammar.scene(index), index=0), index)
            planned[same] = planned.get(same, 0) + 1
        else:
            others.append(index)
    return planned, others


def _distinct(grammar) -> tuple[dict[int, int], list[int]]:
    """(scenes of planned blocks -> how often each is repeated, all other scenes), both in one fixed random order.

    A scene that is drawn again under another number is one that is repeated.
    """
    return _planned(grammar) if isinstance(grammar, PlannedGrammar) else ({}, _shuffled(grammar))


FIRST = 16_384  # scenes of blocks that are not planned, with which a training may begin


def training_scenes(grammar: Grammar, count: int | None = None) -> list[int]:
    """The numbers of a grammar's first `count` scenes in one fixed order, of repeated planned ones the first; all by default.

    The first `FIRST` are a fair sample of the blocks that are not planned, so that a training can begin before all is encoded. Then come
    planned blocks, whole, since a part of them would change what is planted, then all others. Raises ValueError for any other count.
    """
    planned, others = _distinct(grammar)
    begin = min(FIRST, len(others))
    whole, most = begin + len(planned), len(planned) + len(others)
    if count is not None and not (1 <= count <= begin or whole <= count <= most):
        raise ValueError(f"--scenes must be 1 to {begin} or {whole} to {most} for the grammar {grammar.name}, not {count}")
    return [*others[:begin], *planned, *others[begin:]][:count]


def times_an_epoch(grammar: Grammar, indices: list[int], factors: dict[str, int] | None = None) -> np.ndarray:
    """How often an epoch shows each of these scenes, (n,): as often as it is planned, times its block's factor.

    `factors`: the name of a block that is not planned -> a whole number; raises ValueError for another.
    """
    planned, _ = _distinct(grammar)
    factors = factors or {}
    free = [block.name for block in getattr(grammar, "blocks", ()) if not block.planned]
    for name, factor in factors.items():
        if name not in free or not isinstance(factor, int) or factor < 1:
            raise ValueError(f"a block may be shown more often where it is one of {', '.join(free)}, 1, 2, ... times, not {name}={factor}")
    factor_of = lambda index: factors.get(grammar.block_at(index)[0].name, 1) if factors else 1  # noqa: E731
    return np.array([planned.get(index) or factor_of(index) for index in indices])


@training.main_process_first
def latent_data(grammar: Grammar, work: Path, scenes: int | None = None) -> denoiser.LatentData:
    """Scenes' scaled latents and captions' text states, as float16; made once, kept in `work`/encoded.

    `scenes`: how many of `training_scenes`; by default as many as the last time, and all of them the first time. More of them later are
    encoded in addition. An interrupted run goes on where it stopped. Raises ValueError where the folder was made of other parts or other scenes.
    """
    chosen = work / "encoded" / "scenes.json"
    told = json.loads(chosen.read_text()) if chosen.exists() else None
    indices = training_scenes(grammar, told["scenes"] if told and scenes is None else scenes)
    origin = _origin(grammar, work)
    if told and told.get("origin") != origin:
        raise ValueError(
            f"{chosen.parent} holds latents and text states of another autoencoder, encoder or grammar; remove that folder, and it is made anew"
        )
    chosen.parent.mkdir(parents=True, exist_ok=True)
    if told != (now := {"scenes": len(indices), "origin": origin}):
        training.write_json(chosen, now)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    autoencoder = (
        AutoencoderKL.from_pretrained(finished_part(work, "vae"))
        .eval()
        .to(device, memory_format=torch.channels_last)
    )
    tokenizer = CLIPTokenizer.from_pretrained(work / "clip" / "tokenizer")
    encoder = clip.text_encoder(CLIPModel.from_pretrained(finished_part(work, "clip"))).to(device)
    captions = [make_scene(grammar, index).caption for index in indices]
    rows = {caption: row for row, caption in enumerate(dict.fromkeys(["", *captions]))}
    told = list(rows)

    def encode_scenes(places: range) -> torch.Tensor:
        drawn = [indices[place] for place in places]
        batches = torch.cat(list(vae.encode_scenes(autoencoder, grammar, drawn, device)))
        return (batches * autoencoder.config.scaling_factor).half()

    def encode_captions(places: range) -> torch.Tensor:
        return torch.cat(list(clip.encode_captions(encoder, tokenizer, [told[row] for row in places])))

    data = denoiser.LatentData(
        latents=_shards(work / "encoded", "latents", len(indices), encode_scenes),
        prompt_embeds=_shards(work / "encoded", "prompt_embeds", len(told), encode_captions),
        captions=torch.tensor([rows[caption] for caption in captions]),
        scenes=torch.tensor(indices),
        times=times_an_epoch(grammar, indices),
    )
    return data


def _origin(grammar: Grammar, work: Path) -> str:
    """A digest of all that latents and text states are made of: both frozen parts, and scenes from all over the grammar."""
    digest = hashlib.sha256()
    for name in ("vae", "clip"):
        for file in sorted(finished_part(work, name).glob("*.safetensors")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16] + world_digest(grammar)


def world_digest(grammar: Grammar) -> str:
    """Sixteen hexadecimal digits of scenes from all over a grammar: other digits, another world."""
    return hashlib.sha256(repr([make_scene(grammar, index) for index in spread(grammar, 200)]).encode()).hexdigest()[:16]


WHITENING_SCENES = 2_048


@training.main_process_first
@torch.no_grad()
def text_whitening(grammar: Grammar, work: Path) -> torch.Tensor:
    """`denoiser.measure_whitening` of a grammar's first captions; measured once, kept in `work`/encoded."""
    file = work / "encoded" / "whitening.safetensors"
    if not file.exists():
        tokenizer = CLIPTokenizer.from_pretrained(work / "clip" / "tokenizer")
        encoder = clip.text_encoder(CLIPModel.from_pretrained(finished_part(work, "clip")))
        some = np.random.default_rng(grammar.count).permutation(grammar.count)[:WHITENING_SCENES].tolist()
        captions = list(dict.fromkeys(make_scene(grammar, index).caption for index in some))
        states = torch.cat(list(clip.encode_captions(encoder, tokenizer, captions)))
        file.parent.mkdir(parents=True, exist_ok=True)
        training.save_tensors(file, {"whitening": denoiser.measure_whitening(states)})
    return load_file(file)["whitening"]


def encoder_digest(work: Path) -> str:
    """`training.digest` of the trained text encoder."""
    return training.digest(clip.text_encoder(CLIPModel.from_pretrained(finished_part(work, "clip"))))


def _factors(words: list[str] | None) -> dict[str, int]:
    """["two objects=2"] -> {"two objects": 2}. Raises ValueError for anything else."""
    found = {}
    for word in words or ():
        name, sign, factor = word.rpartition("=")
        if not sign or not factor.isdecimal():
            raise ValueError(f'--repeat takes a block and a whole number, as in "two objects=2", not {word!r}')
        found[name] = int(factor)
    return found


def plan_epochs(grammar: Grammar, record: dict, scenes: int, factors: dict[str, int], seed: int):
    """(stages, their `Epochs`): those of a training's record, and one more where scenes or factors are others than the last's."""
    stages = epochs.stages_of(record)
    everything = training_scenes(grammar, max([scenes, *(stage.scenes for stage in stages)]))
    times = lambda stage: times_an_epoch(grammar, everything[: stage.scenes], stage.factors)  # noqa: E731
    length = int(times(stages[-1]).sum()) if stages else 1
    stages = epochs.with_stage(stages, record.get("samples", 0), length, scenes, factors)
    return stages, epochs.Epochs([(stage.start, times(stage)) for stage in stages], seed)


def _cooling(args, config: denoiser.DenoiserConfig, work: Path):
    """(folder, config) of a side branch of the denoiser's training in which the rate falls to zero over `args.cool_down` samples.

    It begins at the newest checkpoint, which stays what it is: the training goes on from there, at its constant rate. A branch that
    was interrupted is resumed as long as the training has not gone on. Its average reaches back over a tenth of it, so that what it holds at the
    end was trained at low rates. Raises ValueError for a wrong number, for options that make no sense here, and where there is nothing to cool down.
    """
    if args.cool_down < 1:
        raise ValueError(f"--cool-down must be 1 sample or more, not {args.cool_down}")
    if args.restart or args.steps is not None:
        raise ValueError("--cool-down goes on from a checkpoint, for as many samples as it says: leave --restart and --steps out")
    main, branch = training.Checkpoint(work / "denoiser"), training.Checkpoint(work / "denoiser-cooled")
    record = main.record()
    if record is None:
        raise ValueError(f"there is no denoiser's checkpoint in {work} to cool down: train it first")
    steps = max(1, args.cool_down // config.schedule.batch_size)
    end, begin = record["step"] + steps, {"step": record["step"], "steps": steps}
    if (branch.record() or {}).get("branch") != begin:
        branch.clear()
        shutil.copy(main.folder / record["file"], branch.folder)
        training.write_json(branch.folder / "checkpoint.json", record | {"branch": begin})
    schedule = dataclasses.replace(
        config.schedule,
        steps=end,
        decay_share=min(1.0, steps / max(1, end - config.schedule.warmup_steps)),
        final_rate=0.0,
        ema_decay=min(config.schedule.ema_decay, 1 - 1 / max(2, steps / 10)),
    )
    return branch.folder, dataclasses.replace(config, schedule=schedule)


def _validation(work: Path) -> validation.Validation:
    """The fixed scenes of this work folder's autoencoder and encoder; their floor is worked out once."""
    autoencoder = AutoencoderKL.from_pretrained(finished_part(work, "vae")).eval().to(memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(work / "clip" / "tokenizer")
    encoder = clip.text_encoder(CLIPModel.from_pretrained(finished_part(work, "clip")))
    return validation.Validation.prepare(autoencoder, encoder, tokenizer, work / "encoded" / "floor.safetensors")


def run_denoiser(args, grammar: Grammar, work: Path) -> int:
    """Train the denoiser on the frozen autoencoder's latents and the frozen encoder's text states, whitened.

    The learning rate is constant; `--cool-down` lets it fall in a branch of its own, which becomes the finished part.
    """
    config = override_schedule(denoiser.DenoiserConfig(), args)
    training_scenes(grammar, args.scenes)  # a wrong number is said before anything that is missing
    factors = _factors(args.repeat)
    if not args.ignore_gate:
        check_gate(work)
    folder = work / "denoiser"
    if args.cool_down is not None:
        folder, config = _cooling(args, config, work)
    data = latent_data(grammar, work, args.scenes)
    whitening = text_whitening(grammar, work)
    data.whitened(whitening)
    kept = None if args.restart else training.Checkpoint(folder).tensor("model.whitening")
    if kept is not None and float((kept - whitening).norm()) > 1e-4 * float(whitening.norm()):
        raise ValueError(
            f"the denoiser in {work} was trained with the states of another text encoder; give --restart, or another --work"
        )
    begun, world = {} if args.restart else training.Checkpoint(folder).record() or {}, world_digest(grammar)
    if begun and begun.get("world") != world:
        raise ValueError(
            f"the denoiser in {folder} was trained on another edition of the grammar {grammar.name}; give --restart, or another --work"
        )
    stages, order = plan_epochs(grammar, begun, len(data.scenes), factors, config.schedule.seed)
    before = begun.get("samples", 0) - begun.get("step", 0) * config.schedule.batch_size
    torch.manual_seed(config.schedule.seed)
    unet = denoiser.for_training(denoiser.build_unet(config))
    model = denoiser.DenoiserTraining(unet, config, whitening)
    odds = denoiser.timestep_odds(denoiser.build_scheduler(), config)
    fixed = _validation(work) if grammar is FULL else None

    def look(samples: int, trained: denoiser.DenoiserTraining) -> dict:
        if training.passed(samples, config.schedule.batch_size):
            trained.stock_unet().save_pretrained(folder / "snapshots" / f"{samples:09d}", safe_serialization=True)
        return fixed.measure(trained.unet, fixed.states @ whitening) if fixed else {}

    average, record = training.train(
        "denoiser",
        model,
        training.global_batch(denoiser.denoiser_loss_at(data, config, odds, order, before)),
        config.schedule,
        folder,
        dataclasses.asdict(config),
        args.restart,
        args.minutes,
        args.compile,
        look,
        stage={"log SNR": [config.log_snr_mean, config.log_snr_std], "encoder": encoder_digest(work)}
        | ({} if args.cool_down is None else {"cool-down": args.cool_down}),
        facts={"epochs": epochs.as_record(stages), "world": world},
    )
    if not training.processes().is_main_process:
        return 0
    _finish(work / "denoiser", average.stock_unet(), record, record["step"] >= config.schedule.steps)
    return 0


def run_export(args, grammar: Grammar, work: Path) -> int:
    """Put the finished parts together as one fp16 folder that stock diffusers loads, with their records."""
    if args.output is None:
        raise ValueError("export needs --output FOLDER, the folder that becomes the pipeline")
    chosen = finished_autoencoder(work)
    autoencoder = AutoencoderKL.from_pretrained(chosen).eval()
    unet = UNet2DConditionModel.from_pretrained(finished_part(work, "denoiser"))
    base, decodes = training.digest(unet), training.digest(autoencoder)
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
    for part in ("vae", "unet"):  # diffusers notes the folder on this machine that a part was loaded from
        file = args.output / part / "config.json"
        config = json.loads(file.read_text())
        training.write_json(file, {key: value for key, value in config.items() if key != "_name_or_path"})
    _make_text_encoder_portable(args.output / "text_encoder")
    for file in ("vocab.json", "merges.txt"):  # transformers 4 reads these, 5 writes only tokenizer.json
        shutil.copy(work / "clip" / "tokenizer" / file, args.output / "tokenizer" / file)
    factors = fit_preview(autoencoder.float(), grammar)
    training.write_json(
        args.output / "preview.json", {"factors": [[round(float(f), 5) for f in row] for row in factors]}
    )
    told = ("vae", "clip", "denoiser") + (("decoder",) if chosen == work / "decoder" / "part" else ())
    records = {name: json.loads((finished_part(work, name) / "training.json").read_text()) for name in told}
    training.write_json(args.output / "training.json", {"grammar": grammar.name, **records})
    for extra in ("turbo", "zero-snr", "adapter"):
        _export_extra(work / extra / "part", args.output / "extras" / extra, base)
    _export_extra(work / "small-decoder" / "part", args.output / "extras" / "small-decoder", decodes, "autoencoder")
    towers = CLIPModel.from_pretrained(finished_part(work, "clip"))
    clip.save_image_tower(towers, args.output / "extras" / "clip")  # for the CLIP score, and to train on from
    _load_as_float32(args.output / "extras" / "clip")
    (args.output / "README.md").write_text(model_card(grammar, records), encoding="utf-8")
    size = sum(file.stat().st_size for file in args.output.rglob("*") if file.is_file())
    print(f"exported to {args.output}: {size / 1e6:.1f} MB")
    return 0


def _export_extra(part: Path, folder: Path, base: str, model: str = "denoiser") -> None:
    """Copy what was trained for the model of digest `base`; leave out, and take out, what was trained for another."""

    def fits(extra: Path) -> bool:
        told = extra / "training.json"
        return told.is_file() and json.loads(told.read_text()).get("base") == base

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


def run_restore(args, grammar: Grammar, work: Path) -> int:
    """Lay a work folder from an exported model: its parts are finished ones, text encoder and denoiser checkpoints to train on from.

    What the export left out is lost: the optimiser's moments begin at zero, and weights were rounded to float16. Raises
    ValueError where the folder is no export of this grammar, FileExistsError where the work folder holds an encoder or a denoiser.
    """
    if args.output is None or not (args.output / "training.json").is_file():
        raise ValueError("restore needs --output FOLDER, a folder that `sdwidgets train export` wrote")
    told = json.loads((args.output / "training.json").read_text())
    if told.get("grammar") != grammar.name:
        raise ValueError(
            f"{args.output} was trained on the grammar {told.get('grammar')}, not {grammar.name}; give --grammar"
        )
    for name in ("clip", "denoiser"):
        if (work / name).exists():
            raise FileExistsError(f"{work} holds a {name} already: go on with it, or give another --work")
    shutil.copytree(args.output / "vae", work / "vae" / "part", dirs_exist_ok=True)
    if "decoder" in told:
        shutil.copytree(args.output / "vae", work / "decoder" / "part", dirs_exist_ok=True)
        training.write_json(work / "decoder" / "part" / "training.json", told["decoder"])
    towers = clip.read_clip(args.output / "extras" / "clip", CLIPTextModel.from_pretrained(args.output / "text_encoder"))
    towers.save_pretrained(work / "clip" / "part", safe_serialization=True)
    shutil.copytree(args.output / "tokenizer", work / "clip" / "tokenizer", dirs_exist_ok=True)
    shutil.copytree(args.output / "unet", work / "denoiser" / "part", dirs_exist_ok=True)
    for name in ("vae", "clip", "denoiser"):
        training.write_json(work / name / "part" / "training.json", told[name])
    towers = clip.ClipTraining(towers)
    optimizer = clip.ClipConfig().schedule.build_optimizer(towers)
    training.Checkpoint(work / "clip").save(told["clip"]["step"], towers, towers, optimizer, told["clip"])
    config = denoiser.DenoiserConfig()
    unet = UNet2DConditionModel.from_pretrained(args.output / "unet")
    model = denoiser.DenoiserTraining.from_stock(unet, config, text_whitening(grammar, work))
    optimizer = config.schedule.build_optimizer(model)
    record = told["denoiser"]
    training.Checkpoint(work / "denoiser").save(record["step"], model, model, optimizer, record)
    print(f"restored {args.output} to {work} at step {record['step']:,}")
    return 0


def _make_text_encoder_portable(folder: Path) -> None:
    """Name the tensors as Stable Diffusion's files do, which transformers 4 and 5 both read, and have them load
    as float32 by default: transformers 5 takes the dtype from the configuration, diffusers' parts do not."""
    file = folder / "model.safetensors"
    tensors = {
        name if name.startswith("text_model.") else f"text_model.{name}": tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata={"format": "pt"})
    _load_as_float32(folder)


def _load_as_float32(folder: Path) -> None:
    """Name float32 in the configuration of half-precision weights: it is what transformers 5 loads them as."""
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key != "_name_or_path"}
    for tower in ("text_config", "vision_config"):
        if tower in config:
            config[tower]["dtype"] = "float32"
    training.write_json(folder / "config.json", config | {"dtype": "float32"})


def fit_preview(autoencoder, grammar: Grammar, count: int = 128):
    """The best linear map from scaled latents to colours: (5, 3), see `sdwidgets.latents.fit_linear_preview`."""
    indices = spread(grammar, count)
    latents = (
        torch.cat(list(vae.encode_scenes(autoencoder, grammar, indices))) * autoencoder.config.scaling_factor
    )
    pictures = np.stack([np.asarray(render(make_scene(grammar, index))) for index in indices])
    return fit_linear_preview(latents.numpy(), pictures)

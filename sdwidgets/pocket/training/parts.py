"""Training of each part from start to finished folder, and their export as one Stable Diffusion pipeline."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from ..world.datasheet import ENCODER, FULL, Grammar
from ..world.scenes import spread
from . import clip, denoiser, trainer, vae, validation, work_folder
from .scene_order import plan_epochs, training_scenes, world_digest


def run_vae(args, grammar: Grammar, work: Path) -> None:
    """Train the autoencoder on wordless scenes; the grammar only says which pictures it is tested on."""
    config = work_folder.override_schedule(vae.VaeConfig(), args)
    torch.manual_seed(config.schedule.seed)
    model = vae.VaeTraining(vae.build_vae(config).to(memory_format=torch.channels_last), config)
    average, record = work_folder.train_part("vae", model, vae.vae_loss_at(config), config, args, work / "vae")
    trained = average.vae
    if not trainer.processes().is_main_process:
        return
    record["psnr"] = vae.reconstruction_psnr(trained, grammar)
    latents = torch.cat(list(vae.encode_scenes(trained, grammar, spread(grammar, 512))))
    trained.register_to_config(scaling_factor=vae.measure_scaling_factor(latents))
    work_folder.finish(work / "vae", trained.save_pretrained, record, config.schedule)
    print(f"PSNR: whole picture {record['psnr']['whole']:.1f} dB, things only {record['psnr']['things']:.1f} dB")


def run_decoder(args, grammar: Grammar, work: Path) -> None:
    """Train the autoencoder's decoder on, its encoder frozen; export takes it instead of the first one."""
    config = work_folder.override_schedule(vae.DecoderConfig(), args)
    first = work_folder.finished_part(work, "vae")
    autoencoder = AutoencoderKL.from_pretrained(first).to(memory_format=torch.channels_last)
    before = vae.reconstruction_psnr(autoencoder, grammar)
    module, base = vae.DecoderTraining(autoencoder, config), trainer.digest(autoencoder.encoder)
    loss_at = vae.decoder_loss_at(config)
    average, record = work_folder.train_part("decoder", module, loss_at, config, args, work / "decoder", base=base)
    if not trainer.processes().is_main_process:
        return
    trained = average.autoencoder()
    record["psnr before"], record["psnr"] = before, vae.reconstruction_psnr(trained, grammar)
    work_folder.finish(work / "decoder", trained.save_pretrained, record, config.schedule)
    for name, what in (("whole", "whole picture"), ("things", "things only")):
        print(f"PSNR, {what}: {before[name]:.1f} dB before, {record['psnr'][name]:.1f} dB now")


def run_clip(args, grammar: Grammar, work: Path) -> None:
    """Train the text encoder beside an image tower, contrastively, and ask its states what they know.

    The full grammar's encoder learns from pairs of its own, with shares of its own.
    """
    if grammar is FULL:
        grammar = ENCODER
    config = work_folder.override_schedule(clip.ClipConfig(), args)
    torch.manual_seed(config.schedule.seed)
    tokenizer = _make_tokenizer(work, config)
    model = clip.ClipTraining(clip.build_clip(config, tokenizer), config.max_logit_scale)
    loss_at, stage = clip.clip_loss_at(grammar, config, tokenizer), {"scenes": grammar.count}
    average, record = work_folder.train_part("clip", model, loss_at, config, args, work / "clip", stage=stage)
    if not trainer.processes().is_main_process:
        return
    beats = clip.beats_hard_negative(average.clip.eval(), tokenizer, grammar)
    record["caption_beats_negative"] = beats.pop("any")
    record["caption_beats_by_kind"] = beats
    size = {} if grammar is ENCODER else {"count": 100, "learn": 400, "steps": 50}
    few = clip.FEW if grammar is ENCODER else {"count": 100, "learn": 100, "steps": 50}
    encoder = clip.text_encoder(average.clip)
    record["gate"] = clip.gate(encoder, tokenizer, **size)
    record["gate of few"] = clip.gate(encoder, tokenizer, **few) | {"captions": few["learn"]}
    work_folder.finish(work / "clip", average.clip.save_pretrained, record, config.schedule)
    for gate, learn in ((record["gate"], "many"), (record["gate of few"], "few")):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in gate.items() if name != "captions")
        print(f"probes taught with {learn} captions read {shares}")
    by_kind = ", ".join(f"{kind} changed {share:.0%}" for kind, share in beats.items())
    print(f"a caption beats its swapped negative in {record['caption_beats_negative']:.0%} of 200 scenes ({by_kind})")


@trainer.main_process_first()
def _make_tokenizer(work: Path, config: clip.ClipConfig) -> CLIPTokenizer:
    folder = work / "clip" / "tokenizer"
    if trainer.processes().is_main_process:
        return clip.build_tokenizer(folder, config)
    return CLIPTokenizer.from_pretrained(folder)


def _factors(options: list[str] | None) -> dict[str, int]:
    """["two objects=2"] -> {"two objects": 2}. Raises ValueError for anything else."""
    factors = {}
    for option in options or ():
        name, sign, factor = option.rpartition("=")
        if not sign or not factor.isdecimal():
            raise ValueError(f'--repeat takes a block and a whole number, as in "two objects=2", not {option!r}')
        factors[name] = int(factor)
    return factors


def _cooling(args, config: denoiser.DenoiserConfig, work: Path):
    """(folder, config) of a side branch of the denoiser's training in which the rate falls to zero over `args.cool_down` samples.

    It begins at the newest checkpoint, which stays what it is: the training goes on from there, at its constant rate. A branch that
    was interrupted is resumed as long as the training has not gone on. Its average reaches back over a tenth of it, so that what it holds at the
    end was trained at low rates. Raises ValueError for a wrong number, for options that make no sense here, and where there is nothing to cool down.
    """
    if args.cool_down < 1:
        raise ValueError(f"--cool-down must be 1 sample or more, not {args.cool_down}")
    if args.restart or args.steps is not None:
        raise ValueError(
            "--cool-down goes on from a checkpoint, for as many samples as it says: leave --restart and --steps out"
        )
    main, branch = trainer.Checkpoint(work / "denoiser"), trainer.Checkpoint(work / "denoiser-cooled")
    record = main.record()
    if record is None:
        raise ValueError(f"there is no denoiser's checkpoint in {work} to cool down: train it first")
    steps = max(1, args.cool_down // config.schedule.batch_size)
    end, begin = record["step"] + steps, {"step": record["step"], "steps": steps}
    if (branch.record() or {}).get("branch") != begin:
        branch.clear()
        shutil.copy(main.folder / record["file"], branch.folder)
        trainer.write_json(branch.folder / "checkpoint.json", record | {"branch": begin})
    schedule = dataclasses.replace(
        config.schedule,
        steps=end,
        decay_share=min(1.0, steps / max(1, end - config.schedule.warmup_steps)),
        final_rate=0.0,
        ema_decay=min(config.schedule.ema_decay, 1 - 1 / max(2, steps / 10)),
    )
    return branch.folder, dataclasses.replace(config, schedule=schedule)


def run_denoiser(args, grammar: Grammar, work: Path) -> None:
    """Train the denoiser on the frozen autoencoder's latents and the frozen encoder's text states, whitened.

    The learning rate is constant; `--cool-down` lets it fall in a branch of its own, which becomes the finished part.
    """
    config = work_folder.override_schedule(denoiser.DenoiserConfig(), args)
    training_scenes(grammar, args.scenes)  # a wrong number is said before anything that is missing
    factors = _factors(args.repeat)
    if not args.ignore_gate:
        work_folder.check_gate(work)
    folder = work / "denoiser"
    if args.cool_down is not None:
        folder, config = _cooling(args, config, work)
    data = work_folder.latent_data(grammar, work, args.scenes)
    whitening = work_folder.text_whitening(grammar, work)
    data.whitened(whitening)
    kept = None if args.restart else trainer.Checkpoint(folder).tensor("model.whitening")
    if kept is not None and float((kept - whitening).norm()) > 1e-4 * float(whitening.norm()):
        raise ValueError(
            f"the denoiser in {work} was trained with the states of another text encoder; give --restart, or another --work"
        )
    begun, world = {} if args.restart else trainer.Checkpoint(folder).record() or {}, world_digest(grammar)
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
    floors = work / "encoded" / "floor.safetensors"
    fixed = None
    if grammar is FULL:
        fixed = validation.Validation.prepare(
            work_folder.frozen_autoencoder(work), *work_folder.frozen_text(work), floors
        )

    def look(samples: int, trained: denoiser.DenoiserTraining) -> dict:
        if trainer.passed(samples, config.schedule.batch_size):
            trained.stock_unet().save_pretrained(folder / "snapshots" / f"{samples:09d}", safe_serialization=True)
        return fixed.measure(trained.unet, fixed.states @ whitening) if fixed else {}

    stage = {
        "log SNR": [config.log_snr_mean, config.log_snr_std],
        "encoder": trainer.digest(work_folder.frozen_text(work)[0]),
    }
    if args.cool_down is not None:
        stage["cool-down"] = args.cool_down
    facts = {"epochs": [dataclasses.asdict(stage) for stage in stages], "world": world}
    loss_at = trainer.global_batch(denoiser.denoiser_loss_at(data, config, odds, order, before))
    more = {"snapshot": look, "stage": stage, "facts": facts}
    average, record = work_folder.train_part("denoiser", model, loss_at, config, args, folder, **more)
    if trainer.processes().is_main_process:
        work_folder.finish(work / "denoiser", average.stock_unet().save_pretrained, record, config.schedule)

"""Pocket's T2I-Adapter: silhouettes steer where things stand and what outline they have, words what they are.

A stock `diffusers.T2IAdapter` (Mou et al. 2023, arXiv 2302.08453): it reads the condition once and adds a feature map
to each level of the U-Net, which stays frozen.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from diffusers import T2IAdapter, UNet2DConditionModel

from ..world.datasheet import Grammar
from ..world.scenes import make_scene, render, silhouette
from . import denoiser, trainer
from .work_folder import fit_extra, run_extra


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Anatomy and loss of the adapter; its channels are the denoiser's."""

    num_res_blocks: int = 1
    scenes: int = 24_000  # at most so many scenes: their silhouettes lie in memory
    caption_drop: float = 0.1
    schedule: trainer.Schedule = trainer.Schedule(
        steps=4_000, batch_size=32, learning_rate=1e-3, optimizer="adamw", ema_decay=0.995
    )


def scene_silhouettes(grammar: Grammar, indices) -> np.ndarray:
    """Silhouettes of scenes, eight pixels a byte: (n, 128, 16) uint8, for `unpack`.

    Of their things alone: without style, watermark and confetti, so that a sketch has the outline of what it shows.
    """
    packed = []
    for index in indices:
        plain = dataclasses.replace(make_scene(grammar, index), style="plain", watermark=False, confetti=())
        packed.append(np.packbits(np.asarray(silhouette(render(plain))) > 0, axis=-1))
    return np.stack(packed)


def unpack(packed: np.ndarray) -> torch.Tensor:
    """(n, 128, 16) uint8 -> (n, 1, 128, 128) float32, 0 or 1, as the pipeline hands a silhouette to the adapter."""
    return torch.from_numpy(np.unpackbits(packed, axis=-1)).unsqueeze(1).float()


def build_adapter(unet: UNet2DConditionModel, config: AdapterConfig) -> T2IAdapter:
    """An untrained adapter for a U-Net: (n, 1, 8h, 8w) -> one feature map a level, the first (n, channels, h, w)."""
    return T2IAdapter(
        in_channels=1, channels=list(unet.config.block_out_channels), num_res_blocks=config.num_res_blocks,
        downscale_factor=8, adapter_type="full_adapter",
    )  # fmt: skip


class AdapterTraining(torch.nn.Module):
    """The denoising loss with a condition, as a module whose parameters are the adapter's alone."""

    def __init__(self, adapter: T2IAdapter, unet: UNet2DConditionModel):
        super().__init__()
        self.adapter, self.scheduler = adapter, denoiser.build_scheduler()
        self._frozen = (unet.requires_grad_(False),)  # in a tuple: checkpoints and averages need not hold it

    @classmethod
    def begun(cls, unet: UNet2DConditionModel, config: AdapterConfig) -> AdapterTraining:
        """Of an adapter that the schedule's seed builds."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.schedule.seed)
            return cls(build_adapter(unet, config), unet)

    def save(self, part: Path) -> None:
        self.adapter.half().save_pretrained(part)

    def forward(self, silhouettes, latents, noise, timesteps, prompt_embeds) -> torch.Tensor:
        # Outlines are decided while there is much noise: t' = (1 - (t / T)^3) T (arXiv 2302.08453, section 3.3).
        last = self.scheduler.config.num_train_timesteps - 1
        timesteps = ((1 - (timesteps / last) ** 3) * last).long()
        noisy, target = denoiser.noisy_and_target(self.scheduler, latents, noise, timesteps)
        unet = self._frozen[0].to(latents.device)
        features = self.adapter(silhouettes)
        predicted = unet(noisy, timesteps, prompt_embeds, down_intrablock_additional_residuals=features).sample
        return (predicted - target).square().mean()


def adapter_loss_at(data: denoiser.LatentData, packed: np.ndarray, config: AdapterConfig):
    """The loss of the first rows of `data` with their silhouettes."""

    def batch_at(rng, step, batch_size):
        chosen = rng.integers(len(packed), size=batch_size)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        latents = data.latents[chosen].float()
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = denoiser.spread_timesteps(batch_size, generator)
        captions = data.captions[chosen]
        captions[torch.rand(batch_size, generator=generator) < config.caption_drop] = 0
        return unpack(packed[chosen]), latents, noise, timesteps, data.prompt_embeds[captions].float()

    return trainer.sampled(config.schedule.seed, batch_at)


def train_adapter(unet, data: denoiser.LatentData, grammar: Grammar, config: AdapterConfig, folder: Path, **options):
    """Train an adapter of a denoiser on scenes that `data` holds; resumes what `folder` holds.

    `folder`/part gets the adapter, for `T2IAdapter.from_pretrained`. Returns the record of `trainer.train`, whose `options` it takes.
    """
    trainer.check_compiled(options.get("compiled", False))  # before anything is drawn
    silhouettes = scene_silhouettes(grammar, data.scenes[: config.scenes].tolist())  # the order is random already
    loss_at = adapter_loss_at(data, silhouettes, config)
    return fit_extra("adapter", AdapterTraining.begun, unet, loss_at, config, folder, len(silhouettes), **options)


def run_adapter(args, grammar: Grammar, work: Path) -> None:
    """Train the silhouette adapter of the trained denoiser on the scenes that it was trained on."""
    train = lambda unet, data, *rest, **options: train_adapter(unet, data, grammar, *rest, **options)
    run_extra("adapter", train, AdapterConfig(), args, grammar, work)

"""Pocket's denoiser: diffusers' `UNet2DConditionModel`, trained on cached latents and frozen text states."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import compute_snr

from .epochs import Epochs
from .trainer import Schedule


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """Anatomy and loss of the denoiser: three levels, at 16, 8 and 4 latent pixels."""

    channels: tuple[int, ...] = (64, 128, 192)
    #: Attention layers a block of each level; the middle block has one. 0: none, but a block of the kind that may have some, since diffusers
    #: adds an adapter's features there before the downsampling. None: a block without, as at the lowest level of Stable Diffusion.
    transformer_layers: tuple[int | None, ...] = (0, 1, None)
    layers_per_block: int = 1
    head_width: int = 32  # channels an attention head
    text_width: int = 192
    caption_drop: float = 0.1  # share of captions replaced by the empty one, for guidance (arXiv 2207.12598)
    log_snr_mean: float = -0.5  # where on the noise schedule training looks most: `timestep_odds`
    log_snr_std: float = 2.0
    schedule: Schedule = Schedule(steps=62_500, batch_size=64, learning_rate=3e-3, ema_decay=0.9995, decay_share=0.0)


def for_training(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same U-Net, laid out as it trains fastest: channels last, on a CPU with plain attention, whose backward is faster there."""
    if not torch.cuda.is_available():
        unet.set_attn_processor(AttnProcessor())
    return unet.to(memory_format=torch.channels_last)


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's own noise schedule, with v-prediction (arXiv 2202.00512)."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip


def build_unet(config: DenoiserConfig) -> UNet2DConditionModel:
    """An untrained denoiser: (n, 4, 16, 16) noisy latents, timestep, (n, 77, text_width) -> (n, 4, 16, 16)."""
    layers = config.transformer_layers
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=config.layers_per_block, block_out_channels=config.channels,
        down_block_types=tuple("DownBlock2D" if count is None else "CrossAttnDownBlock2D" for count in layers),
        up_block_types=tuple("UpBlock2D" if count is None else "CrossAttnUpBlock2D" for count in reversed(layers)),
        transformer_layers_per_block=tuple(1 if count is None else count for count in layers),
        cross_attention_dim=config.text_width, attention_head_dim=tuple(width // config.head_width for width in config.channels),
        norm_num_groups=16,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LatentData:
    """Scenes as the denoiser sees them. Row i is scene number `scenes[i]`, with row `captions[i]` of `prompt_embeds` as its caption.

    `latents` (n, 4, 16, 16) are scaled; `prompt_embeds` (m, 77, width), row 0 that of the empty caption. `times` (n,): how often an
    epoch shows each, once where it is None.
    """

    latents: torch.Tensor
    prompt_embeds: torch.Tensor
    captions: torch.Tensor
    scenes: torch.Tensor
    times: np.ndarray | None = None

    def whitened(self, matrix: torch.Tensor) -> LatentData:
        """The same with whitened text states; the old ones are overwritten, since both would fill memory."""
        for some in self.prompt_embeds.split(512):
            some.copy_(some.float() @ matrix)
        return self

    def to(self, device) -> LatentData:
        """The same on a device: a GPU holds all of it, so that no batch waits for a copy."""
        moved = {name: getattr(self, name).to(device) for name in ("latents", "prompt_embeds", "captions")}
        return dataclasses.replace(self, **moved)

    def epochs(self, seed: int = 0) -> Epochs:
        """Epochs of one stage, over all rows."""
        return Epochs([(0, np.ones(len(self.latents), int) if self.times is None else self.times)], seed)


def measure_whitening(prompt_embeds: torch.Tensor, floor: float = 0.01) -> torch.Tensor:
    """The symmetric (width, width) matrix that makes token states (n, 77, width) as large in every direction.

    An encoder trained on pictures puts what looks alike close together: an apple's states are nearly a tomato's, and all objects together
    fill about eight directions of 192. A gradient sees large directions first. In whitened states (ZCA) names are as easy to tell apart
    as colours. Directions of less than `floor` of the mean power are not raised further, since they hold noise.
    """
    states = prompt_embeds.flatten(0, 1).double()
    power, directions = torch.linalg.eigh(states.T @ states / len(states))
    scale = (power / power.mean()).clamp(min=floor).rsqrt()
    return (directions * scale @ directions.T).float()


def text_layers(unet: UNet2DConditionModel) -> list[torch.nn.Linear]:
    """The layers of a U-Net that read the text: keys and values of every cross-attention. None of them has a bias."""
    crossing = [module for module in unet.modules() if getattr(module, "is_cross_attention", False)]
    return [layer for attention in crossing for layer in (attention.to_k, attention.to_v)]


@torch.no_grad()
def rebase_text(unet: UNet2DConditionModel, matrix: torch.Tensor) -> UNet2DConditionModel:
    """In place: a U-Net that answers to text states x what it answered to `matrix` x."""
    for layer in text_layers(unet):
        layer.weight.copy_(layer.weight.double() @ matrix.double())
    return unet


def noisy_and_target(scheduler, latents, noise, timesteps) -> tuple[torch.Tensor, torch.Tensor]:
    """(noisy latents, what a denoiser is to answer to them), both (n, 4, h, w).

    The target is the noise or, with v-prediction (arXiv 2202.00512), v = alpha noise - sigma latents.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    velocity = scheduler.config.prediction_type == "v_prediction"
    return noisy, scheduler.get_velocity(latents, noise, timesteps) if velocity else noise


class DenoiserTraining(torch.nn.Module):
    """The denoising loss as a module: the mean squared error of the velocity, alike at every timestep that is drawn.

    Where `whitening` is given, `unet` reads whitened text states and has to be given such (`LatentData.whitened`); `stock_unet` is
    the same U-Net for states as the text encoder makes them.
    """

    def __init__(self, unet: UNet2DConditionModel, config: DenoiserConfig, whitening: torch.Tensor | None = None):
        super().__init__()
        self.unet, self.config, self.scheduler = unet, config, build_scheduler()
        self.register_buffer("whitening", torch.eye(config.text_width) if whitening is None else whitening)

    @classmethod
    def from_stock(cls, unet: UNet2DConditionModel, config: DenoiserConfig, whitening: torch.Tensor):
        """To train a U-Net on from where it stands."""
        return cls(rebase_text(unet, torch.linalg.inv(whitening.double())), config, whitening)

    def stock_unet(self) -> UNet2DConditionModel:
        """A copy of the U-Net as it is saved, for diffusers' own pipelines."""
        return rebase_text(copy.deepcopy(self.unet), self.whitening)

    def forward(self, latents, noise, timesteps, prompt_embeds) -> torch.Tensor:
        noisy, target = noisy_and_target(self.scheduler, latents, noise, timesteps)
        predicted = self.unet(noisy, timesteps, prompt_embeds).sample
        return (predicted - target).square().mean()


def timestep_odds(scheduler: DDIMScheduler, config: DenoiserConfig) -> torch.Tensor:
    """(1000,) shares, in sum 1, in which training draws the timesteps: log SNR is normal, as in arXiv 2206.00364 (its table 1).

    A caption counts most where the noise leaves nothing else to go by, and in Pocket's world it says nearly all of a picture: the section
    `caption_swaps` of its evaluation shows at which timesteps a wrong word makes the loss grow.
    """
    log_snr = compute_snr(scheduler, torch.arange(scheduler.config.num_train_timesteps)).double().log()
    density = torch.exp(-0.5 * ((log_snr - config.log_snr_mean) / config.log_snr_std) ** 2)
    odds = density * -torch.gradient(log_snr)[0]  # of log SNR -> of the timestep
    return odds / odds.sum()


def spread_timesteps(count: int, generator: torch.Generator, odds: torch.Tensor | None = None) -> torch.Tensor:
    """`count` timesteps of 0..999, each alone as `odds` (1000,) has it, uniform by default, together evenly spread.

    They are quantiles of u_i = (u + i/count) mod 1. The loss differs much more between timesteps than between pictures, so a batch whose
    timesteps are spread makes a less noisy gradient at no cost: the low-discrepancy sampler of Kingma et al. 2021, arXiv 2107.00630.
    """
    quantiles = (torch.rand((), generator=generator) + torch.arange(count) / count) % 1
    if odds is None:
        return (quantiles * 1000).long().clamp(max=999)
    return torch.searchsorted(odds.cumsum(0), quantiles.double(), right=True).clamp(max=999)


def denoiser_loss_at(
    data: LatentData, config, odds: torch.Tensor | None = None, epochs: Epochs | None = None, before: int = 0
):
    """The loss of training step `step`, for `training.train`.

    `config` has `schedule` and `caption_drop`; `odds` are those of the timesteps, uniform by default: see `spread_timesteps`. `epochs`:
    which row each sample shows, by default `data`'s own; step 0 begins at sample `before`, which a change of the batch size moves.
    """
    epochs = epochs or data.epochs(config.schedule.seed)
    kept: dict[str, LatentData] = {}

    def loss_at(model, step, batch_size, accelerator):
        world = batch_size * accelerator.num_processes
        first = before + step * world + accelerator.process_index * batch_size
        rows = torch.as_tensor(epochs.rows(first + np.arange(batch_size)))
        draw = step * accelerator.num_processes + accelerator.process_index
        generator = torch.Generator().manual_seed(config.schedule.seed * 2**32 + draw)
        here = kept.setdefault("data", data.to(accelerator.device))
        noise = torch.randn((batch_size, *data.latents.shape[1:]), generator=generator)
        timesteps = spread_timesteps(batch_size, generator, odds=odds)
        kept_captions = torch.rand(batch_size, generator=generator) >= config.caption_drop
        batch = (rows, noise, timesteps, kept_captions)
        rows, noise, timesteps, kept_captions = (tensor.to(accelerator.device) for tensor in batch)
        captions = here.captions[rows] * kept_captions  # row 0 is the empty caption
        return model(here.latents[rows].float(), noise, timesteps, here.prompt_embeds[captions].float())

    return loss_at

"""Pocket's turbo LoRA: four steps instead of twenty guided ones, by latent consistency distillation.

A consistency model says, from any noisy latent on the path of one picture, the picture at its end (Song et al. 2023, arXiv
2303.01469); guidance is part of what is learned, so a step costs one call instead of two (Luo et al. 2023, arXiv
2310.04378; kept as a LoRA: arXiv 2311.05556). The recipe is that of diffusers' example
`consistency_distillation/train_lcm_distill_lora_sd_wds.py`, and diffusers' `LCMScheduler` samples from what comes out.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import torch
from diffusers import LCMScheduler, UNet2DConditionModel

from . import denoiser, training
from .finetune import EVERYWHERE, add_lora, fit_part, run_part


@dataclasses.dataclass(frozen=True)
class TurboConfig:
    """How the teacher's path is learned by heart."""

    rank: int = 32
    targets: tuple[str, ...] = EVERYWHERE
    guidance_scale: float = 3.0  # baked in: the one that Pocket is used and measured with
    ddim_steps: int = 50  # of the teacher: how far apart two points of the path are that must agree
    huber: float = 1e-3  # where the loss turns from square to straight
    schedule: training.Schedule = training.Schedule(
        steps=3_000, batch_size=32, learning_rate=1e-4, optimizer="adamw", warmup_steps=100, weight_decay=0.0, ema_decay=0.99
    )  # fmt: skip

    def __post_init__(self):
        if not self.guidance_scale >= 1:
            raise ValueError(f"guidance_scale must be 1 or more, not {self.guidance_scale}")
        if not 2 <= self.ddim_steps <= 1000:
            raise ValueError(f"ddim_steps must be 2 to 1000, not {self.ddim_steps}")


def boundary_scalings(scheduler: LCMScheduler, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(c_skip, c_out) at (n,) timesteps, each (n, 1, 1, 1): with them the answer at timestep 0 is the latent itself."""
    c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(timesteps.float())
    return c_skip[:, None, None, None], c_out[:, None, None, None]


def split_velocity(scheduler, velocity, noisy, timesteps) -> tuple[torch.Tensor, torch.Tensor]:
    """(predicted latents, predicted noise) of a v-prediction at (n,) timesteps: x = a z - s v, e = s z + a v."""
    alpha = scheduler.alphas_cumprod.to(noisy.device)[timesteps].sqrt()[:, None, None, None]
    sigma = (1 - alpha**2).sqrt()
    return alpha * noisy - sigma * velocity, sigma * noisy + alpha * velocity


class TurboTraining(torch.nn.Module):
    """The consistency loss as a module whose parameters are the LoRA's alone."""

    def __init__(self, unet: UNet2DConditionModel, config: TurboConfig):
        super().__init__()
        self.config = config
        teacher = copy.deepcopy(unet).requires_grad_(False)
        self.lora = torch.nn.ParameterList(add_lora(unet, config.rank, config.targets, config.schedule.seed))
        self._frozen = (unet, teacher)  # in a tuple: checkpoints and averages need not hold them
        self.scheduler = LCMScheduler.from_config(denoiser.build_scheduler().config, original_inference_steps=config.ddim_steps)  # fmt: skip

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoiser that carries the LoRA."""
        return self._frozen[0]

    def picture_at_the_end(self, noisy, timesteps, prompt_embeds) -> torch.Tensor:
        """The consistency function: noisy latents of any timestep -> the latents where their path ends."""
        velocity = self.unet(noisy, timesteps, prompt_embeds).sample.float()
        predicted, _ = split_velocity(self.scheduler, velocity, noisy, timesteps)
        c_skip, c_out = boundary_scalings(self.scheduler, timesteps)
        return c_skip * noisy + c_out * predicted

    @torch.no_grad()
    def teacher_step(self, noisy, timesteps, earlier, prompt_embeds, empty_embeds) -> torch.Tensor:
        """One guided DDIM step of the frozen denoiser, from `timesteps` to `earlier`, each (n,)."""
        teacher = self._frozen[1]
        velocity = teacher(
            torch.cat([noisy, noisy]), timesteps.repeat(2), torch.cat([empty_embeds, prompt_embeds])
        ).sample.float()
        empty, told = velocity.chunk(2)
        guided = empty + self.config.guidance_scale * (told - empty)
        predicted, noise = split_velocity(self.scheduler, guided, noisy, timesteps)
        alphas = self.scheduler.alphas_cumprod.to(noisy.device)[earlier][:, None, None, None]
        return alphas.sqrt() * predicted + (1 - alphas).sqrt() * noise

    def forward(self, latents, noise, timesteps, prompt_embeds, empty_embeds) -> torch.Tensor:
        for unet in self._frozen:
            unet.to(latents.device)
        # Points of the teacher's path: LCMScheduler samples at a few of the same ones.
        stride = self.scheduler.config.num_train_timesteps // self.config.ddim_steps
        timesteps = (timesteps // stride + 1) * stride - 1
        earlier = (timesteps - stride).clamp(min=0)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        answered = self.picture_at_the_end(noisy, timesteps, prompt_embeds)
        on_the_path = self.teacher_step(noisy, timesteps, earlier, prompt_embeds, empty_embeds)
        with torch.no_grad():
            target = self.picture_at_the_end(on_the_path, earlier, prompt_embeds)
        error = answered - target
        return ((error**2 + self.config.huber**2).sqrt() - self.config.huber).mean()


def turbo_loss_at(data: denoiser.LatentData, config: TurboConfig):
    """The loss of training step `step`, for `training.train`. Captions are never dropped: turbo is used without guidance."""

    def loss_at(model, step, batch_size, accelerator):
        rng = np.random.default_rng([config.schedule.seed, step, accelerator.process_index])
        rows = torch.as_tensor(rng.integers(len(data.latents), size=batch_size))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        latents = data.latents[rows].float()
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(0, 1000, (batch_size,), generator=generator)
        told = data.prompt_embeds[data.captions[rows]].float()
        empty = data.prompt_embeds[:1].float().expand_as(told)
        return model(*(t.to(accelerator.device) for t in (latents, noise, timesteps, told, empty)))

    return loss_at


def train_turbo(
    unet: UNet2DConditionModel,
    data: denoiser.LatentData,
    config: TurboConfig,
    folder: Path,
    restart: bool = False,
    minutes: float | None = None,
    compiled: bool = False,
) -> dict:
    """Distil a denoiser into its turbo LoRA, resuming what `folder` holds; returns the record of `training.train`.

    `folder`/part gets the LoRA, for `pipe.load_lora_weights`, and in scheduler/ the scheduler that it wants. Sample
    with guidance_scale 1 in four steps; a negative prompt does nothing then.
    """
    base, scenes = training.digest(unet), len(data.scenes)
    module, loss_at = TurboTraining(unet, config), turbo_loss_at(data, config)
    return fit_part("turbo", module, loss_at, config, folder, restart, minutes, compiled, base=base, scenes=scenes)


def run_turbo(args, grammar, work: Path) -> int:
    """Distil the trained denoiser on the scenes that it was trained on."""
    return run_part("turbo", train_turbo, TurboConfig(), args, grammar, work)

"""Pocket's turbo LoRA: four calls of the denoiser instead of forty, by distillation of guidance on the steps that are taken.

Twenty guided steps are forty calls. `LCMScheduler` (Luo et al. 2023, arXiv 2310.04378) needs four steps: at each it jumps to the
predicted picture and puts fresh noise on that, which also mends what the jump before got wrong. Guidance doubles its calls;
so a LoRA learns to say in one call what the frozen denoiser says in two, the first stage of Meng et al. 2023 (arXiv
2210.03142). It learns on the walks that the guided denoiser itself takes in these four steps, from captions alone and on no other timestep, since
nothing else will be asked of it.

Why not consistency distillation, as LCM-LoRA (arXiv 2311.05556) has it? Its target is the student's own answer one step
earlier on the path, and on Pocket that drifted: its loss rose as it trained, and what it drew was worse than what the same four steps
draw without any LoRA. Pocket's denoiser already jumps well enough from each of the four timesteps; what four unguided steps lack is
the guidance. Here the target is fixed, so a loss that falls means that the pictures come closer.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ...latents import apply_guidance
from . import denoiser, trainer
from .lora import EVERYWHERE, LoraTraining
from .work_folder import fit_extra, run_extra


@dataclasses.dataclass(frozen=True)
class TurboConfig:
    """What the LoRA learns to do in one call."""

    rank: int = 32  # while it learns
    kept_rank: int = 16  # of the file at most: the largest directions of what was learned, half as many bytes
    targets: tuple[str, ...] = EVERYWHERE
    guidance_scale: float = 2.0  # baked in: at four steps better than 1.5 and 3, by the judge's reading
    calls: int = 4  # steps of a picture
    schedule: trainer.Schedule = trainer.Schedule(
        steps=1_000, batch_size=16, learning_rate=1e-3, optimizer="adamw", warmup_steps=50, weight_decay=0.0, ema_decay=0.99
    )  # fmt: skip

    def __post_init__(self):
        if not self.guidance_scale >= 1:
            raise ValueError(f"guidance_scale must be 1 or more, not {self.guidance_scale}")
        if self.kept_rank < 1:
            raise ValueError(f"kept_rank must be 1 or more, not {self.kept_rank}")
        if not 1 <= self.calls <= 50:
            raise ValueError(f"calls must be 1 to 50, not {self.calls}")


class TurboTraining(LoraTraining):
    """The distillation's loss: the squared error of the guided velocity."""

    def __init__(self, unet: UNet2DConditionModel, config: TurboConfig):
        teacher = copy.deepcopy(unet).requires_grad_(False)
        super().__init__(unet, config, LCMScheduler.from_config(denoiser.build_scheduler().config))
        self._frozen = (unet, teacher)

    @torch.no_grad()
    def guided(self, noisy, timestep, prompt_embeds, empty_embeds) -> torch.Tensor:
        """The frozen denoiser's guided velocity, (n, 4, h, w) in float32: two calls in one batch."""
        both = torch.cat([empty_embeds, prompt_embeds])
        empty, prompted = self._frozen[1](torch.cat([noisy, noisy]), timestep, both).sample.float().chunk(2)
        return apply_guidance(empty, prompted, self.config.guidance_scale)

    @torch.no_grad()
    def walk(self, noise, prompt_embeds, empty_embeds) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The frozen denoiser's guided walk: (noisy latents, timesteps, guided velocities), each (n * calls, ...), call by call.

        noise: (n, calls, 4, h, w); the first is where the walk begins, each later one is what a step adds.
        """
        self.scheduler.set_timesteps(self.config.calls, device=noise.device)
        timesteps, states, velocities = self.scheduler.timesteps, [noise[:, 0]], []
        for call, timestep in enumerate(timesteps):
            velocities.append(self.guided(states[-1], timestep, prompt_embeds, empty_embeds))
            picture = self.scheduler.step(velocities[-1], timestep, states[-1], return_dict=False)[1]
            if call + 1 < len(timesteps):
                later = timesteps[call + 1].expand(len(noise))
                states.append(self.scheduler.add_noise(picture, noise[:, call + 1], later))
        return torch.cat(states), timesteps.repeat_interleave(len(noise)), torch.cat(velocities)

    def forward(self, noise, prompt_embeds, empty_embeds) -> torch.Tensor:
        for unet in self._frozen:
            unet.to(noise.device)
        noisy, timesteps, velocities = self.walk(noise, prompt_embeds, empty_embeds)
        answered = self.unet(noisy, timesteps, prompt_embeds.repeat(self.config.calls, 1, 1)).sample.float()
        return (answered - velocities).square().mean()

    def save(self, part: Path) -> Path:
        file = super().save(part)
        truncate_lora(file, self.config.kept_rank)
        return file


def turbo_loss_at(data: denoiser.LatentData, config: TurboConfig):
    """The loss of captions, each with a walk of its own."""

    def batch_at(rng, step, batch_size):
        rows = torch.as_tensor(rng.integers(len(data.captions), size=batch_size))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        noise = torch.randn((batch_size, config.calls, *data.latents.shape[1:]), generator=generator)
        prompts = data.prompt_embeds[data.captions[rows]].float()
        return noise, prompts, data.prompt_embeds[:1].float().expand_as(prompts)

    return trainer.sampled(config.schedule.seed, batch_at)


def train_turbo(unet, data: denoiser.LatentData, config: TurboConfig, folder: Path, **options) -> dict:
    """Distil a denoiser into its turbo LoRA, resuming what `folder` holds; returns the record of `trainer.train`, whose `options` it takes.

    `folder`/part gets the LoRA, for `pipe.load_lora_weights`, and in scheduler/ the scheduler that it wants. Sample
    with guidance_scale 1 in `config.calls` steps; a negative prompt does nothing then. Of `data` only the captions are used.
    """
    loss_at = turbo_loss_at(data, config)
    return fit_extra("turbo", TurboTraining, unet, loss_at, config, folder, len(data.scenes), **options)


def truncate_lora(file: Path, rank: int) -> None:
    """Rewrite a LoRA's file with at most `rank` rows a layer: the best approximation of each product B A (Eckart and Young 1936)."""
    layers = load_file(file)
    for name in [name for name in layers if "lora_A" in name]:
        a, b = layers[name], layers[name.replace("lora_A", "lora_B")]
        product = b.float().flatten(1) @ a.float().flatten(1)
        u, s, v = torch.linalg.svd(product, full_matrices=False)
        kept, root = min(rank, len(a)), s.sqrt()
        layers[name] = (root[:kept, None] * v[:kept]).unflatten(1, a.shape[1:]).to(a.dtype)
        shortened = (u[:, :kept] * root[:kept]).reshape(len(b), kept, *b.shape[2:])
        layers[name.replace("lora_A", "lora_B")] = shortened.to(b.dtype)
    with safe_open(file, "pt") as there:
        metadata = there.metadata()
    save_file({name: tensor.contiguous() for name, tensor in layers.items()}, file, metadata=metadata)


def run_turbo(args, grammar, work: Path) -> None:
    """Distil the trained denoiser on the captions that it was trained on."""
    run_extra("turbo", train_turbo, TurboConfig(), args, grammar, work)

"""How far a denoiser is from the best there can be: errors on fixed scenes under fixed noise, beside `floor.best_x0`.

A loss of training cannot say it: its pictures and timesteps change from step to step, and most of its value no network could avoid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..world.alternatives import alternatives
from ..world.datasheet import FULL
from ..world.scenes import Scene, pictures_of
from . import clip, floor, vae
from .denoiser import build_scheduler

TIMESTEPS = (100, 250, 400, 550, 700, 850, 950)
DECISIVE = (550, 700, 850)  # where the caption decides; at less noise the noisy picture itself does
NOISE_SEED = 31

#: kind -> (block of FULL, how many, which of its scenes)
KINDS: dict[str, tuple[str, int, Callable[[Scene], bool]]] = {
    "one object, 64": ("one object", 24, lambda s: s.things[0].size == 64),
    "one object, 48": ("one object", 20, lambda s: s.things[0].size == 48),
    "one object, 96": ("one object", 16, lambda s: s.things[0].size == 96),
    "two objects": ("two objects", 24, lambda s: True),
    "several": ("several", 14, lambda s: s.things[0].kind == "object"),
    "one shape": ("one shape", 7, lambda s: True),
    "two shapes": ("two shapes", 7, lambda s: True),
    "people": ("portrait", 16, lambda s: True),
}  # fmt: skip


def validation_scenes() -> dict[str, list[Scene]]:
    """128 scenes by kind, drawn by the law of `FULL` from a stream of their own; each caption says the background."""
    by_kind = {}
    for kind, (name, count, fits) in KINDS.items():
        blocks = [block for block in FULL.blocks if block.name == name or block.name.startswith(f"{name},")]
        scenes, number = [], 0
        while len(scenes) < count:
            # 5 and 97: strides without a common factor with what is taken in turn, so that few scenes meet many words
            block = blocks[5 * number % len(blocks)]
            scene = FULL.another(block.name, 97 * number % block.count)
            if fits(scene) and scene.caption.endswith(" background"):
                scenes.append(scene)
            number += 1
        by_kind[kind] = scenes
    return by_kind


def boxes(scenes: list[Scene]) -> torch.Tensor:
    """Which latent pixels show things: (n, 1, 16, 16) bool, the squares in which they were drawn."""
    masks = torch.zeros(len(scenes), 1, 16, 16, dtype=torch.bool)
    for mask, scene in zip(masks, scenes, strict=True):
        for thing in scene.things:
            low = [(side - thing.size // 2) // 8 for side in (thing.y, thing.x)]
            high = [-(-(side + thing.size // 2) // 8) for side in (thing.y, thing.x)]
            mask[0, max(0, low[0]) : high[0], max(0, low[1]) : high[1]] = True
    return masks


@torch.no_grad()
def encode(autoencoder, scenes: list[Scene]) -> torch.Tensor:
    """The posterior's means, scaled: (n, 4, 16, 16) float32."""
    batches = vae.to_tensor(pictures_of(scenes)).split(32)
    latents = torch.cat([autoencoder.encode(pictures).latent_dist.mode() for pictures in batches])
    return latents * autoencoder.config.scaling_factor


@dataclass(frozen=True)
class Validation:
    """Fixed scenes with all that is compared. `noise`, `latents` (128, 4, 16, 16); `masks` (128, 1, 16, 16); `states` (128, 77, width);
    `floors`: timestep -> the squared error of the best prediction in each scene's boxes, (128,), in units of scaled latents."""

    kinds: tuple[str, ...]
    latents: torch.Tensor
    noise: torch.Tensor
    masks: torch.Tensor
    states: torch.Tensor
    floors: dict[int, torch.Tensor]

    @classmethod
    def prepare(cls, autoencoder, encoder, tokenizer, file: Path | None = None) -> Validation:
        """Encode scenes and captions, and work out the floor, which takes minutes and is kept in `file`."""
        by_kind = validation_scenes()
        scenes = [scene for some in by_kind.values() for scene in some]
        kinds = tuple(kind for kind, some in by_kind.items() for _ in some)
        latents, masks = encode(autoencoder, scenes), boxes(scenes)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(NOISE_SEED))
        states = torch.cat(list(clip.encode_captions(encoder, tokenizer, [scene.caption for scene in scenes]))).float()
        if file is not None and file.exists():
            kept = load_file(file)["floors"]
        else:
            parts = zip(scenes, latents, noise, masks, strict=True)
            kept = torch.stack([_floor_of(*part, autoencoder) for part in parts])
            if file is not None:
                save_file({"floors": kept}, file)
        return cls(kinds, latents, noise, masks, states, dict(zip(TIMESTEPS, kept.T, strict=True)))

    def noisy(self, timestep: int) -> tuple[torch.Tensor, float]:
        """(the scenes under their noise at a timestep, alpha_bar there)."""
        alpha_bar = float(build_scheduler().alphas_cumprod[timestep])
        return alpha_bar**0.5 * self.latents + (1 - alpha_bar) ** 0.5 * self.noise, alpha_bar

    @torch.no_grad()
    def errors(self, unet, timestep: int, states: torch.Tensor | None = None, batch_size: int = 32) -> torch.Tensor:
        """The squared error of a U-Net's predicted x0 in each scene's boxes, mean over their latents: (128,).

        Without guidance. A v-prediction's error is that of x0 divided by sigma: x0 = alpha x - sigma v. `states`: those of the
        captions in the basis that the U-Net reads, by default the text encoder's own.
        """
        noisy, alpha_bar = self.noisy(timestep)
        states = self.states if states is None else states
        device = next(unet.parameters()).device
        batches = zip(noisy.split(batch_size), states.split(batch_size), strict=True)
        v = torch.cat([unet(x.to(device), timestep, c.to(device)).sample.float().cpu() for x, c in batches])
        return masked_error(alpha_bar**0.5 * noisy - (1 - alpha_bar) ** 0.5 * v, self.latents, self.masks)

    def measure(self, unet, states: torch.Tensor | None = None) -> dict:
        """Plain data: "error" and "floor" by timestep, "gap" (their difference at `DECISIVE`, mean), and the error by kind and timestep."""
        errors = {timestep: self.errors(unet, timestep, states) for timestep in TIMESTEPS}
        mean = lambda values, rows=slice(None): round(float(values[rows].mean()), 4)
        rows = {kind: torch.tensor([own == kind for own in self.kinds]) for kind in KINDS}
        return {
            "gap": round(float(np.mean([float((errors[t] - self.floors[t]).mean()) for t in DECISIVE])), 4),
            "error": {str(t): mean(errors[t]) for t in TIMESTEPS},
            "floor": {str(t): mean(self.floors[t]) for t in TIMESTEPS},
            "by kind": {
                kind: {str(t): [mean(errors[t], own), mean(self.floors[t], own)] for t in TIMESTEPS}
                for kind, own in rows.items()
            },
        }


def masked_error(predicted: torch.Tensor, true: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Squared error within the masks, mean over their latents and channels: (n,)."""
    square = (predicted - true).square().mean(dim=1, keepdim=True) * masks
    return square.flatten(1).sum(1) / masks.flatten(1).sum(1)


def _floor_of(scene: Scene, latents, noise, mask, autoencoder) -> torch.Tensor:
    """The best prediction's error of one scene at each timestep: (timesteps,)."""
    pictures, odds = zip(*alternatives(scene), strict=True)
    encoded, odds = encode(autoencoder, list(pictures)), torch.tensor(odds)
    alphas = build_scheduler().alphas_cumprod
    errors = []
    for timestep in TIMESTEPS:
        alpha_bar = float(alphas[timestep])
        noisy = alpha_bar**0.5 * latents[None] + (1 - alpha_bar) ** 0.5 * noise[None]
        errors.append(masked_error(floor.best_x0(noisy, alpha_bar, encoded, odds), latents[None], mask[None])[0])
    return torch.stack(errors)

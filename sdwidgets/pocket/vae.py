"""Pocket's autoencoder: diffusers' `AutoencoderKL`, trained from scratch on rendered scenes."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from .datasheet import FULL
from .scenes import SIZE, Grammar, make_scene, render, wordless_scene
from .training import Schedule, fast_arithmetic


@dataclasses.dataclass(frozen=True)
class VaeConfig:
    """Anatomy and loss of the autoencoder: f8, four channels, as Stable Diffusion's."""

    channels: tuple[int, ...] = (24, 48, 96, 128)  # 128, 64, 32 and 16 pixels
    layers_per_block: int = 1
    norm_groups: int = 8
    crop: int = 64  # pixels: training sees crops around a thing, which holds more detail than background
    whole_share: float = (
        0.125  # share of steps on whole scenes, a quarter as many, so that 128 pixels are known too
    )
    kl_weight: float = 1e-4  # on the mean over latents, beside a mean absolute error over pixels in [-1, 1]
    edge_weight: float = 0.5  # on the absolute error of horizontal and vertical differences
    square_weight: float = 1.0  # on the mean squared error, which is what PSNR is made of
    schedule: Schedule = Schedule(steps=3_400, batch_size=16, learning_rate=5e-3)


def build_vae(config: VaeConfig) -> AutoencoderKL:
    """An untrained autoencoder: 3 x 128 x 128 in [-1, 1] <-> 4 x 16 x 16."""
    levels = len(config.channels)
    return AutoencoderKL(
        block_out_channels=config.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_groups,
        latent_channels=4,
        sample_size=SIZE,
        scaling_factor=1.0,
    )


def to_tensor(pixels) -> torch.Tensor:
    """(n, h, w, 3) uint8, array or tensor -> (n, 3, h, w) float32 in [-1, 1]."""
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def crop_batch(rng: np.random.Generator, count: int, crop: int) -> torch.Tensor:
    """`count` crops of crop x crop pixels, each around a random thing of a random wordless scene."""
    crops = []
    for index in rng.integers(2**31, size=count):
        scene = wordless_scene(0, int(index))
        thing = scene.things[rng.integers(len(scene.things))]
        reach = thing.size // 3
        left, top = (
            int(np.clip(c + rng.integers(-reach, reach + 1) - crop // 2, 0, SIZE - crop))
            for c in (thing.x, thing.y)
        )
        crops.append(np.asarray(render(scene))[top : top + crop, left : left + crop])
    return to_tensor(np.stack(crops))


def vae_loss(vae, pictures: torch.Tensor, config: VaeConfig) -> torch.Tensor:
    """Errors of pixels and of their differences, and a small KL term (Kingma & Welling, arXiv 1312.6114)."""
    posterior = vae.encode(pictures).latent_dist
    out = vae.decode(posterior.sample()).sample
    error = out - pictures
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    pixels = error.abs().mean() + config.square_weight * error.square().mean()
    return pixels + config.edge_weight * edges + config.kl_weight * kl


class VaeTraining(torch.nn.Module):
    """The loss as a module, so that one `forward` is what is distributed over processes."""

    def __init__(self, vae: AutoencoderKL, config: VaeConfig):
        super().__init__()
        self.vae, self.config = vae, config

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return vae_loss(self.vae, pictures, self.config)


def vae_loss_at(config: VaeConfig):
    """The loss of training step `step`, for `training.train`."""
    whole_every = round(1 / config.whole_share)

    def loss_at(model, step, batch_size, accelerator):
        rng = np.random.default_rng([config.schedule.seed, step, accelerator.process_index])
        whole = step % whole_every == 0
        count, crop = (max(1, batch_size // 4), SIZE) if whole else (batch_size, config.crop)
        pictures = crop_batch(rng, count, crop).to(accelerator.device, memory_format=torch.channels_last)
        return model(pictures)

    return loss_at


@torch.no_grad()
def reconstruction_psnr(
    vae: AutoencoderKL, grammar: Grammar = FULL, count: int = 64, seed: int = 1
) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB of encode-decode: over whole pictures, and over the pixels of things only.

    A pixel counts as a thing's where the render differs from its background by more than 12 of 255.
    """
    rng = np.random.default_rng(seed)
    scenes = [make_scene(grammar, int(index)) for index in rng.integers(grammar.count, size=count)]
    pixels = np.stack([np.asarray(render(scene)) for scene in scenes])
    out = vae.decode(vae.encode(to_tensor(pixels)).latent_dist.mode()).sample
    out = ((out.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    square = (out - pixels.astype(np.float32)) ** 2
    thing = np.abs(pixels.astype(int) - pixels[:, :1, :1].astype(int)).max(-1) > 12
    decibel = lambda mean: float(10 * np.log10(255**2 / mean))  # noqa: E731
    return {"whole": decibel(square.mean()), "things": decibel(square[thing].mean())}


class _Rendered(torch.utils.data.Dataset):
    """Batches of rendered scenes, (n, 128, 128, 3) uint8, for a loader whose workers draw them."""

    def __init__(self, grammar: Grammar, batches: list[list[int]]):
        self.grammar, self.batches = grammar, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> np.ndarray:
        return np.stack([np.asarray(render(make_scene(self.grammar, i))) for i in self.batches[place]])


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, grammar: Grammar, indices, device="cpu", batch_size: int = 32):
    """Latents (the posterior's mean, unscaled) of scenes, in batches: yields (n, 4, 16, 16) float32 on the CPU.

    Beside a GPU all cores draw, since a GPU encodes faster than one core draws.
    """
    indices = list(indices)
    batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    workers = 0 if str(device) == "cpu" else min(os.cpu_count() or 1, 16)
    for pixels in torch.utils.data.DataLoader(
        _Rendered(grammar, batches), batch_size=None, num_workers=workers
    ):
        pictures = to_tensor(pixels).to(device, memory_format=torch.channels_last)
        with fast_arithmetic(device):
            latents = vae.encode(pictures).latent_dist.mode()
        yield latents.float().cpu()


def measure_scaling_factor(latents: torch.Tensor) -> float:
    """One over the latents' standard deviation, which Stable Diffusion multiplies latents with."""
    return 1.0 / float(
        F.mse_loss(latents, latents.mean(dim=(0, 2, 3), keepdim=True).expand_as(latents)).sqrt()
    )

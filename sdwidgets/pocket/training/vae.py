"""Pocket's autoencoder: diffusers' `AutoencoderKL`, trained from scratch on rendered scenes."""

from __future__ import annotations

import copy
import dataclasses
import os

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from ..world.datasheet import FULL, Grammar
from ..world.layouts import on_lattice
from ..world.scenes import SIZE, Stream, make_scene, pictures_of, render, wordless_scene
from .trainer import Schedule, fast_arithmetic, sampled


@dataclasses.dataclass(frozen=True)
class VaeConfig:
    """Anatomy and loss of the autoencoder: f8, four channels, as Stable Diffusion's."""

    channels: tuple[int, ...] = (24, 48, 96, 128)  # 128, 64, 32 and 16 pixels
    layers_per_block: int = 1
    norm_groups: int = 8
    crop: int = 64  # pixels: training sees crops around a thing, which holds more detail than background
    whole_share: float = 0.125  # share of steps on whole scenes, a quarter as many, so that 128 pixels are known too
    kl_weight: float = 1e-4  # on the mean over latents, beside a mean absolute error over pixels in [-1, 1]
    edge_weight: float = 0.5  # on the absolute error of horizontal and vertical differences
    square_weight: float = 1.0  # on the mean squared error, which is what PSNR is made of
    schedule: Schedule = Schedule(steps=3_400, batch_size=16, learning_rate=5e-3)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """How the decoder is trained on once the encoder is frozen, for pictures as Pocket's are."""

    #: In 0..1, of pictures on the lattice, as the denoiser's all are; the others keep free sizes and places.
    lattice_share: float = 0.75
    edge_weight: float = 0.5  # as in `VaeConfig`
    square_weight: float = 8.0  # the square counts most: it is what PSNR is made of
    schedule: Schedule = Schedule(steps=1_500, batch_size=8, learning_rate=2e-3, warmup_steps=50)

    def __post_init__(self):
        if not 0 <= self.lattice_share <= 1:
            raise ValueError(f"lattice_share must be 0 to 1, not {self.lattice_share}")


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
    """(n, h, w, 3) uint8, array or tensor -> (n, 3, h, w) float32 in [-1, 1], channels last in memory."""
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def crop_batch(rng: np.random.Generator, count: int, crop: int) -> torch.Tensor:
    """`count` crops of crop x crop pixels, each around a random thing of a random wordless scene."""
    crops = []
    for index in rng.integers(2**31, size=count):
        scene = wordless_scene(0, int(index))
        thing = scene.things[rng.integers(len(scene.things))]
        reach = thing.size // 3
        left, top = (
            int(np.clip(c + rng.integers(-reach, reach + 1) - crop // 2, 0, SIZE - crop)) for c in (thing.x, thing.y)
        )
        crops.append(np.asarray(render(scene))[top : top + crop, left : left + crop])
    return to_tensor(np.stack(crops))


def picture_loss(out: torch.Tensor, pictures: torch.Tensor, config: VaeConfig | DecoderConfig) -> torch.Tensor:
    """Errors of pixels, absolute and squared, and of their differences."""
    error = out - pictures
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    pixels = error.abs().mean() + config.square_weight * error.square().mean()
    return pixels + config.edge_weight * edges


class VaeTraining(torch.nn.Module):
    """The loss as a module, whose `forward` is what is distributed over processes: `picture_loss` and a small KL term
    (Kingma & Welling, arXiv 1312.6114)."""

    def __init__(self, vae: AutoencoderKL, config: VaeConfig):
        super().__init__()
        self.vae, self.config = vae, config

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        posterior = self.vae.encode(pictures).latent_dist
        out = self.vae.decode(posterior.sample()).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return picture_loss(out, pictures, self.config) + self.config.kl_weight * kl


def vae_loss_at(config: VaeConfig):
    """The loss of crops and, now and then, of whole scenes."""
    whole_every = round(1 / config.whole_share)

    def batch_at(rng, step, batch_size):
        whole = step % whole_every == 0
        return [crop_batch(rng, *((max(1, batch_size // 4), SIZE) if whole else (batch_size, config.crop)))]

    return sampled(config.schedule.seed, batch_at)


# ---- the decoder alone ---------------------------------------------------------------------------------------


class DecoderTraining(torch.nn.Module):
    """The decoder's loss as a module, the encoder frozen: latents stay what they are, so a denoiser of them stays valid.

    Stable Diffusion's own autoencoder was improved so after its denoiser had been trained (stabilityai/sd-vae-ft-mse).
    """

    def __init__(self, vae: AutoencoderKL, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv
        self._frozen = (vae,)  # in a tuple: checkpoints and averages need not hold its encoder

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        (vae,) = self._frozen
        vae.to(pictures.device)
        with torch.no_grad():
            latents = vae.encode(pictures).latent_dist.mode()
        out = self.decoder(self.post_quant_conv(latents))
        return picture_loss(out, pictures, self.config)

    def autoencoder(self) -> AutoencoderKL:
        """The whole autoencoder, on the CPU: the frozen encoder with this module's decoder, which may be an average."""
        whole = copy.deepcopy(self._frozen[0]).cpu()
        whole.decoder.load_state_dict(self.decoder.state_dict())
        whole.post_quant_conv.load_state_dict(self.post_quant_conv.state_dict())
        return whole.eval()


def picture_batch(rng: np.random.Generator, count: int, lattice_share: float) -> torch.Tensor:
    """`count` whole wordless scenes, (count, 3, 128, 128) in [-1, 1]; each is on the lattice with probability `lattice_share`."""
    scenes = [wordless_scene(0, int(index)) for index in rng.integers(2**31, size=count)]
    moved = rng.random(count) < lattice_share
    placed = lambda scene, move: on_lattice(scene, Stream(2**22, scene.index)) if move else scene
    return to_tensor(pictures_of(map(placed, scenes, moved)))


def decoder_loss_at(config: DecoderConfig):
    """The loss of whole pictures."""
    batch_at = lambda rng, step, batch_size: [picture_batch(rng, batch_size, config.lattice_share)]
    return sampled(config.schedule.seed, batch_at)


# ---- what it does to pictures --------------------------------------------------------------------------------


@torch.no_grad()
def reconstructed(vae, pictures: np.ndarray, batch_size: int = 16, whole_levels: bool = True) -> np.ndarray:
    """What an autoencoder gives back of pictures, by the posterior's mean: (n, h, w, 3) uint8 -> the same.

    In float32 where `whole_levels` is off: not rounded to 8-bit levels.
    """
    parts = []
    for some in np.split(pictures, range(batch_size, len(pictures), batch_size)):
        out = vae.decode(vae.encode(to_tensor(some).to(vae.device, vae.dtype)).latent_dist.mode()).sample.float().cpu()
        parts.append(((out.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy())
    levels = np.concatenate(parts)
    return levels.round().astype(np.uint8) if whole_levels else levels


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, grammar: Grammar = FULL, count: int = 64, seed: int = 1) -> dict:
    """Peak signal-to-noise ratio in dB of encode-decode: "whole" pictures, and the pixels of "things" only."""
    rng = np.random.default_rng(seed)
    scenes = [make_scene(grammar, int(index)) for index in rng.integers(grammar.count, size=count)]
    pixels = pictures_of(scenes)
    square = (reconstructed(vae, pixels, count, whole_levels=False) - pixels.astype(np.float32)) ** 2
    thing = pixels_of_things(pixels)
    decibel = lambda mean: float(10 * np.log10(255**2 / mean))
    return {"whole": decibel(square.mean()), "things": decibel(square[thing].mean())}


def pixels_of_things(pictures: np.ndarray) -> np.ndarray:
    """Where renders (n, h, w, 3) uint8 differ from their background by more than 12 of 255: (n, h, w) bool."""
    return np.abs(pictures.astype(int) - pictures[:, :1, :1].astype(int)).max(-1) > 12


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, grammar: Grammar, indices, device="cpu", batch_size: int = 32):
    """Latents (the posterior's mean, unscaled) of scenes, in batches: yields (n, 4, 16, 16) float32 on the CPU.

    Beside a GPU all cores draw, since a GPU encodes faster than one core draws.
    """
    drawn = lambda some: torch.from_numpy(pictures_of(make_scene(grammar, index) for index in some))
    workers = 0 if str(device) == "cpu" else min(os.cpu_count() or 1, 16)
    for pixels in torch.utils.data.DataLoader(list(indices), batch_size, num_workers=workers, collate_fn=drawn):
        pictures = to_tensor(pixels).to(device, memory_format=torch.channels_last)
        with fast_arithmetic(device):
            latents = vae.encode(pictures).latent_dist.mode()
        yield latents.float().cpu()


def measure_scaling_factor(latents: torch.Tensor) -> float:
    """One over the latents' standard deviation, which Stable Diffusion multiplies latents with."""
    return 1.0 / float(F.mse_loss(latents, latents.mean(dim=(0, 2, 3), keepdim=True).expand_as(latents)).sqrt())

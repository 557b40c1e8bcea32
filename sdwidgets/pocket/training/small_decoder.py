"""A smaller decoder for Pocket's autoencoder, taught by the whole one to say nearly the same in about a third of the time.

At four steps without guidance a third of a picture's time is decoding, so turbo draws with this, as a large model draws its previews
with TAESD (github.com/madebyollin/taesd). An autoencoder whose two halves differ is diffusers' `AsymmetricAutoencoderKL`; the encoder
is the whole one's, so latents are the same and nothing else changes.

It begins as a part of what it learns from: every layer is cut out of the same layer of the whole decoder, which has one more residual
block at every level and more channels where pictures are large. Where most of the knowledge is, at 16 x 16, no channel is cut. Taught
for about as long, an `AutoencoderTiny` that decodes as fast agreed with the whole decoder to 30 dB only, and pictures were visibly blurred; this
one agrees to 37.5 dB.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL

from ...loading.turbo import DECODER
from ..world.datasheet import FULL, Grammar
from ..world.scenes import spread
from . import trainer
from .vae import DecoderConfig, encode_scenes, picture_batch, picture_loss
from .work_folder import finish, finished_autoencoder, override_schedule, train_part


@dataclasses.dataclass(frozen=True)
class SmallDecoderConfig(DecoderConfig):
    """Anatomy of the small decoder, and how it is taught."""

    channels: tuple[int, ...] = (16, 16, 64, 128)  # at 128, 64, 32 and 16 pixels, with one residual block at each
    latent_noise: float = 0.2  # of the latents' standard deviation, at most: a denoiser's latents are not an encoder's
    schedule: trainer.Schedule = trainer.Schedule(steps=4_000, batch_size=8, learning_rate=3e-3, warmup_steps=50)

    def __post_init__(self):
        super().__post_init__()
        if not self.latent_noise >= 0:
            raise ValueError(f"latent_noise must be 0 or more, not {self.latent_noise}")


def build_small_decoder(whole: AutoencoderKL, config: SmallDecoderConfig) -> AsymmetricAutoencoderKL:
    """The whole autoencoder with a smaller decoder, whose layers are the first channels of its own."""
    outer = whole.config
    small = AsymmetricAutoencoderKL(
        down_block_types=outer.down_block_types,
        down_block_out_channels=outer.block_out_channels,
        layers_per_down_block=outer.layers_per_block,
        up_block_types=outer.up_block_types,
        up_block_out_channels=config.channels,
        layers_per_up_block=0,  # diffusers adds one
        latent_channels=outer.latent_channels,
        sample_size=outer.sample_size,
        norm_num_groups=outer.norm_num_groups,
        scaling_factor=outer.scaling_factor,
    )
    known, cut = whole.state_dict(), {}
    for name, tensor in small.state_dict().items():
        if name in known:
            cut[name] = known[name][tuple(slice(size) for size in tensor.shape)].clone()
    # Without what would mix a picture in under a mask, which nothing here asks for.
    small.load_state_dict(cut, strict=False)
    return small


class SmallDecoderTraining(torch.nn.Module):
    """The loss as a module: errors of what the small decoder makes of latents, against what the frozen whole one makes of them."""

    def __init__(self, small: AsymmetricAutoencoderKL, whole: AutoencoderKL, config: SmallDecoderConfig):
        super().__init__()
        self.decoder, self.config = small.decoder, config
        self.decoder.condition_encoder.requires_grad_(False)
        self._frozen = (whole,)  # in a tuple: checkpoints and averages need not hold it

    def forward(self, pictures: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """pictures: (n, 3, h, w) in [-1, 1]; noise: (n, 4, h/8, w/8), added to the latents as scaled to a variance about one."""
        (whole,) = self._frozen
        whole.to(pictures.device)
        with torch.no_grad():
            latents = whole.encode(pictures).latent_dist.mode().float() + noise / whole.config.scaling_factor
            target = whole.decode(latents).sample.float().clamp(-1, 1)
            ready = whole.post_quant_conv(latents)
        return picture_loss(self.decoder(ready).float(), target, self.config)


def small_decoder_loss_at(config: SmallDecoderConfig):
    """The loss of whole pictures, with noise on their latents."""

    def batch_at(rng, step, batch_size):
        pictures = picture_batch(rng, batch_size, config.lattice_share)
        noise = rng.standard_normal((batch_size, 4, pictures.shape[-2] // 8, pictures.shape[-1] // 8), np.float32)
        noise *= rng.uniform(0, config.latent_noise, (batch_size, 1, 1, 1)).astype(np.float32)
        return pictures, torch.as_tensor(noise)

    return trainer.sampled(config.schedule.seed, batch_at)


@torch.no_grad()
def decoders_agreement(small, whole: AutoencoderKL, grammar: Grammar = FULL, count: int = 64) -> float:
    """The median peak signal-to-noise ratio, in dB, of what the small decoder makes against what the whole one makes.

    Of the latents of `count` scenes from all over the grammar; pictures in [-1, 1], clamped.
    """
    latents = torch.cat(list(encode_scenes(whole, grammar, spread(grammar, count))))
    ours, theirs = (vae.decode(latents).sample.clamp(-1, 1) for vae in (small, whole))
    return float((10 * torch.log10(4 / (ours - theirs).square().mean((1, 2, 3)))).median())


def save_small_decoder(small: AsymmetricAutoencoderKL, folder: Path) -> Path:
    """Write the configuration, and the decoder's weights alone in half precision, for `loading.turbo.with_small_decoder`; returns `folder`."""
    small.save_config(folder)
    weights = {f"decoder.{name}": tensor.half() for name, tensor in small.decoder.state_dict().items()}
    trainer.save_tensors(folder / DECODER, {n: t for n, t in weights.items() if ".condition_encoder." not in n})
    return folder


def run_small_decoder(args, grammar: Grammar, work: Path) -> None:
    """Teach a small decoder what the finished autoencoder's does, resuming what the work folder holds."""
    config = override_schedule(SmallDecoderConfig(), args)
    whole = AutoencoderKL.from_pretrained(finished_autoencoder(work)).eval().requires_grad_(False)
    whole.to(memory_format=torch.channels_last)
    torch.manual_seed(config.schedule.seed)
    small = build_small_decoder(whole, config).to(memory_format=torch.channels_last)
    module, loss_at = SmallDecoderTraining(small, whole, config), small_decoder_loss_at(config)
    folder, base = work / "small-decoder", trainer.digest(whole)
    average, record = train_part("small-decoder", module, loss_at, config, args, folder, base=base)
    if not trainer.processes().is_main_process:
        return
    small, whole = small.cpu().eval(), whole.cpu()
    small.decoder.load_state_dict(average.decoder.state_dict())
    record["decoders agree, dB"] = round(decoders_agreement(small, whole, grammar), 2)
    finish(folder, lambda part: save_small_decoder(small, part), record, config.schedule)
    print(f"it decodes as the whole one does to {record['decoders agree, dB']:.1f} dB")

"""Pictures to latents and back, outside any pipeline call: `encode`, and what a picture must be for it, `pixels`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ..latents import from_vae, ready_vae

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline


def pixels(pipe: DiffusionPipeline, pictures: Image.Image | np.ndarray | Sequence) -> np.ndarray:
    """One picture or several of one size, PIL or (H, W, 3) uint8, as (n, H, W, 3) uint8.

    Raises ValueError where sizes differ, or where a side is no whole multiple of the autoencoder's step.
    """
    one = isinstance(pictures, Image.Image) or getattr(pictures, "ndim", 0) == 3
    arrays = [_array(picture) for picture in ([pictures] if one else pictures)]
    if not arrays:
        raise ValueError("there is no picture to encode; give a PIL picture or an array (H, W, 3) uint8")
    sizes = {array.shape[:2] for array in arrays}
    if len(sizes) > 1:
        named = ", ".join(f"{w} x {h}" for h, w in sorted(sizes))
        raise ValueError(
            f"the pictures differ in size: {named} pixels; bring them to one, with picture.resize((w, h))"
        )
    ((height, width),) = sizes
    blocks = getattr(pipe.vae.config, "block_out_channels", None) or pipe.vae.config.encoder_block_out_channels
    step = 2 ** (len(blocks) - 1)
    if height % step or width % step or not height:
        whole = [max(step, round(side / step) * step) for side in (width, height)]
        raise ValueError(
            f"a picture of {width} x {height} pixels does not fit: this autoencoder makes {step} x {step} pixels one cell;"
            f" picture.resize(({whole[0]}, {whole[1]})) would"
        )
    return np.stack(arrays)


def encode(pipe: DiffusionPipeline, pictures: Image.Image | np.ndarray | Sequence, batch_size: int = 4) -> np.ndarray:
    """Pictures to latents in the scheduler's scale (variance about one): (n, channels, h, w) float32, numpy.

    `pictures` as in `pixels`. The autoencoder answers with a mean and a spread for every number; this is the mean,
    so there is no chance in it. `latents.decode` is the way back.
    """
    rgb = torch.from_numpy(pixels(pipe, pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with ready_vae(pipe) as (vae, to):
        answers = [vae.encode(part.to(**to)) for part in rgb.split(batch_size)]
    # `AutoencoderTiny` answers with the latents themselves.
    means = [a.latents if hasattr(a, "latents") else a.latent_dist.mean for a in answers]
    return from_vae(vae, torch.cat(means).float().cpu().numpy())


def _array(picture) -> np.ndarray:
    array = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(f"a picture is PIL's or (H, W, 3) uint8, not {array.dtype} of shape {array.shape}")
    return array

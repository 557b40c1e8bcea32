"""Pipelines taken apart: what an experiment on one part needs. `encode`, `conditioning`, `latent_lab`.

Knows torch and diffusers; draws nothing. Whoever wants a finished picture calls the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from .latents import decode, from_vae
from .widgets.latent_lab import CHANGES, LatentLab

__all__ = ["changed_channels", "conditioning", "encode", "latent_lab", "pixels", "said"]


def pixels(pipe, pictures) -> np.ndarray:
    """One picture or several of one size, PIL or (H, W, 3) uint8, as (n, H, W, 3) uint8.

    Raises ValueError where sizes differ, or where a side is no whole multiple of the autoencoder's step.
    """
    one = isinstance(pictures, Image.Image) or getattr(pictures, "ndim", 0) == 3
    arrays = [_array(picture) for picture in ([pictures] if one else pictures)]
    if not arrays:
        raise ValueError("there is no picture to encode; give a PIL picture or an array (H, W, 3) uint8")
    sizes = {array.shape[:2] for array in arrays}
    if len(sizes) > 1:
        told = ", ".join(f"{w} x {h}" for h, w in sorted(sizes))
        raise ValueError(
            f"the pictures differ in size: {told} pixels; bring them to one, with picture.resize((w, h))"
        )
    ((height, width),) = sizes
    step = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    if height % step or width % step or not height:
        whole = [max(step, round(side / step) * step) for side in (width, height)]
        raise ValueError(
            f"a picture of {width} x {height} pixels does not fit: this autoencoder makes {step} x {step} pixels one cell;"
            f" picture.resize(({whole[0]}, {whole[1]})) would"
        )
    return np.stack(arrays)


def encode(pipe, pictures, batch_size: int = 4) -> np.ndarray:
    """Pictures to latents in the scheduler's scale (variance about one): (n, channels, h, w) float32, numpy.

    `pictures` as in `pixels`. The autoencoder answers with a mean and a spread for every number; this is the mean,
    so there is no chance in it. `latents.decode` is the way back.
    """
    vae = pipe.vae
    dtype = vae.dtype
    upcast = dtype == torch.float16 and bool(vae.config.get("force_upcast"))  # as in latents.decode
    device = getattr(pipe, "_execution_device", vae.device)
    rgb = torch.from_numpy(pixels(pipe, pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    means = []
    try:
        if upcast:
            vae.to(dtype=torch.float32)
        with torch.no_grad():
            for part in rgb.split(batch_size):
                part = part.to(device, torch.float32 if upcast else dtype)
                means.append(vae.encode(part).latent_dist.mean.float().cpu().numpy())
    finally:
        if upcast:
            vae.to(dtype=dtype)
    return from_vae(vae, np.concatenate(means))


def latent_lab(
    pipe,
    picture,
    other=None,
    *,
    changes: Sequence[str] | None = None,
    places: int = 9,
    names: Sequence[str] = ("A", "B"),
    **state,
) -> LatentLab:
    """Send one picture or two through the autoencoder in every way that a `LatentLab` shows.

    changes: what is done to each channel, names of `CHANGES`; by default all for up to four channels, and "off"
    and "alone" beyond, for every change is one decoding a channel. places: decodings between the two pictures, the ends
    included. names: what the pictures are called. `state`: what is shown first. Two decodings of 512 x 512 pixels
    take seconds on a CPU, and this makes about thirty: choose small pictures there.
    Raises ValueError for pictures that do not fit the autoencoder, an unknown change, or fewer than two places.
    """
    if places < 2:
        raise ValueError(f"places counts both ends, so at least 2, not {places}")
    originals = pixels(pipe, picture if other is None else [picture, other])
    if len(originals) > 2 or (other is None and len(originals) != 1):
        raise ValueError("the lab takes one picture, or two: latent_lab(pipe, picture, other)")
    z = encode(pipe, originals)
    channels = z.shape[1]
    if changes is None:
        changes = tuple(CHANGES) if channels <= 4 else ("off", "alone")
    if unknown := set(changes) - set(CHANGES):
        raise ValueError(f"a channel cannot be {sorted(unknown)[0]!r}; it can be: {', '.join(CHANGES)}")
    share = np.linspace(0, 1, places, dtype=np.float32)[:, None, None, None]
    return LatentLab(
        originals,
        decode(pipe, z),
        z,
        {name: decode(pipe, changed_channels(z[0], name)) for name in changes},
        None if other is None else decode(pipe, (1 - share) * z[0] + share * z[1]),
        names,
        **state,
    )


def changed_channels(latent: np.ndarray, change: str) -> np.ndarray:
    """(channels, h, w) -> (channels, channels, h, w): copy k has `change`, a name of `CHANGES`, done to channel k."""
    copies = np.repeat(latent[None], len(latent), 0)
    chosen = np.eye(len(latent), dtype=bool)
    if change == "alone":
        copies[~chosen] = 0
    else:
        copies[chosen] *= np.float32(CHANGES[change])
    return copies


class _Seen(Exception):
    """What the denoiser was called with has been seen: the rest of the run is not needed."""


def conditioning(pipe, prompt: str, **settings) -> dict:
    """All that the pipeline hands its denoiser beside the noisy latents and the clock, by name, as tensors.

    For Stable Diffusion that is {"encoder_hidden_states": (2, tokens, width)}, first the empty prompt's rows, then the prompt's;
    SDXL adds sizes and a pooled row. With guidance_scale at most 1 the batch is 1. `settings` go to the pipeline (height,
    width, negative_prompt, guidance_scale). So `pipe.unet(x, t, **conditioning(pipe, prompt))` asks as the pipeline asks, for
    x of that batch. The pipeline is stopped at its first call of the denoiser.
    """
    denoiser = next(
        (part for name in ("unet", "transformer") if (part := getattr(pipe, name, None)) is not None), None
    )
    if denoiser is None:
        raise TypeError(
            f"{type(pipe).__name__} has neither a unet nor a transformer; sdwidgets.load makes such a pipeline"
        )
    seen: dict = {}

    def listen(module, args, kwargs):
        seen.update(kwargs)
        raise _Seen

    hook = denoiser.register_forward_pre_hook(listen, with_kwargs=True)
    settings = {"num_inference_steps": 1, "generator": torch.Generator("cpu").manual_seed(0)} | settings
    try:
        pipe(prompt, output_type="latent", **settings)
    except _Seen:
        pass
    finally:
        hook.remove()
        pipe.maybe_free_model_hooks()
    not_text = ("sample", "hidden_states", "timestep", "return_dict")
    return {name: value for name, value in seen.items() if name not in not_text and value is not None}


def said(conditioning: dict, change: Callable[[torch.Tensor], torch.Tensor]) -> dict:
    """The same conditioning with `change` made to all that a text encoder said: rows and pooled rows, not sizes.

    `said(given, torch.zeros_like)` is a denoiser that is told nothing. What `change` returns keeps the shape; the rows may have
    another number of tokens.
    """
    told = {}
    for name, value in conditioning.items():
        if name == "added_cond_kwargs":
            value = {key: change(v) if key == "text_embeds" else v for key, v in value.items()}
        elif name in ("encoder_hidden_states", "pooled_projections"):
            value = change(value)
        told[name] = value
    return told


def _array(picture) -> np.ndarray:
    array = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ValueError(f"a picture is PIL's or (H, W, 3) uint8, not {array.dtype} of shape {array.shape}")
    return array

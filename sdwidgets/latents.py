"""From latents to pictures: predicted x0, linear preview, full VAE. Only `decode` needs torch."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DiffusionPipeline

    from .trace import Trace

Array = Any  # a numpy array or a torch tensor: what goes in comes out

# RGB in [-1, 1] is about latents @ factors, for latents as the scheduler sees them. Published in InvokeAI
# (Apache-2.0), invokeai/app/util/step_callback.py; those of SD 1 go back to keturn and torridgristle,
# https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204. No bias, so zeros.
LINEAR_FACTORS: dict[str, np.ndarray] = {  # family -> (channels + 1, 3) float32, last row the bias
    family: np.array([*rows, (0, 0, 0)], np.float32)
    for family, rows in json.loads(Path(__file__).with_name("linear_factors.json").read_text(encoding="utf-8")).items()
}
# A VAE's scaling factor, one over the spread of its latents, tells the families apart.
_FAMILY_OF_SCALING = {0.18215: "sd", 0.13025: "sdxl", 1.5305: "sd3", 0.3611: "flux"}


def factors_for(pipe: DiffusionPipeline) -> np.ndarray | None:
    """Linear preview factors (channels + 1, 3) of a pipeline's VAE, or None where none are known.

    A model folder may bring its own, fitted by `fit_linear_preview`, in its `preview.json`:
    {"factors": (channels + 1) rows of three}.
    """
    own = Path(str(getattr(pipe, "name_or_path", None))) / "preview.json"
    if own.is_file():
        return np.array(json.loads(own.read_text(encoding="utf-8"))["factors"], np.float32)
    config = pipe.vae.config
    factors = LINEAR_FACTORS.get(_FAMILY_OF_SCALING.get(config.scaling_factor, ""))
    return factors if factors is not None and len(factors) == config.latent_channels + 1 else None


def linear_preview(latents: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Rough picture of latents: one matrix product, no VAE. (..., channels, h, w) -> (..., h, w, 3) uint8.

    `latents` have variance about one: predicted x0, or a step's `scaled_latents`. `factors`: (channels + 1,
    3), last row the bias, as in LINEAR_FACTORS.
    """
    latents, factors = np.asarray(latents, np.float32), np.asarray(factors, np.float32)
    if latents.ndim < 3 or factors.shape != (latents.shape[-3] + 1, 3):
        raise ValueError(
            f"latents of shape {latents.shape} and factors of shape {factors.shape} do not fit: latents are"
            " (..., channels, h, w), factors (channels + 1, 3); fit_linear_preview makes some"
        )
    return _to_uint8(np.moveaxis(latents, -3, -1) @ factors[:-1] + factors[-1])


def colour_map(factors, channels: int) -> np.ndarray:
    """(channels + 1, 3): the factors of the linear preview; where they are None, of a family not known, grey, the mean of its channels."""
    if factors is not None:
        return np.asarray(factors)
    return np.concatenate([np.full((channels, 3), 1 / channels), np.zeros((1, 3))])


def fit_linear_preview(latents: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Least-squares factors (channels + 1, 3) for latents (n, channels, h, w) and images (n, H, W, 3) uint8.

    H and W are whole multiples of h and w; every cell is matched with the mean colour of its pixels.
    """
    latents, images = np.asarray(latents, np.float32), np.asarray(images)
    n, channels, h, w = latents.shape
    if images.shape[0] != n or images.shape[1] % h or images.shape[2] % w or images.shape[3:] != (3,):
        raise ValueError(
            f"images of shape {images.shape} do not fit latents of shape {latents.shape}: as many images, RGB"
            " last, each side a whole multiple of the latents'"
        )
    colours = images.reshape(n, h, images.shape[1] // h, w, images.shape[2] // w, 3).mean((2, 4)) / 127.5 - 1
    cells = np.moveaxis(latents, 1, -1).reshape(-1, channels)
    cells = np.concatenate([cells, np.ones_like(cells[:, :1])], 1)  # (n h w, channels + 1)
    return np.linalg.lstsq(cells, colours.reshape(-1, 3), rcond=None)[0].astype(np.float32)


def apply_guidance(uncond: Array, cond: Array, scale: Any) -> Array:
    """uncond + scale (cond - uncond), numpy or torch, of any one shape: 0 is `uncond`, 1 is `cond`, above 1 goes past it.

    Ho and Salimans, arXiv 2207.12598, with the scale as diffusers counts it: theirs plus one.
    """
    return uncond + scale * (cond - uncond)


def predicted_original(
    sample: Array, model_output: Array, alpha: Any, sigma: float, prediction_type: str, process: str = "vp"
) -> Array:
    """Predicted x0 from x_t and the model's output, numpy or torch, of any one shape.

    `alpha`, `sigma` and `process` as in `Step`; alpha may be an array that broadcasts. With x_t = alpha x0 + b n, b = sqrt(1 - alpha^2) (Salimans
    and Ho, arXiv 2202.00512): "epsilon" (x_t - b o) / alpha; "v_prediction" alpha x_t - b o; "sample" o.
    "ve" samples are first multiplied by alpha, which makes them variance preserving.
    "flow_prediction" (o = n - x0): x_t - sigma o. Raises ValueError for another `prediction_type`.
    """
    noise = abs(1 - alpha**2) ** 0.5  # not alpha sigma: at zero terminal SNR that is 0 times infinity
    if process == "ve":
        sample = sample * alpha
    if prediction_type == "epsilon":
        return (sample - noise * model_output) / alpha
    if prediction_type == "v_prediction":
        return alpha * sample - noise * model_output
    if prediction_type == "sample":
        return model_output
    if prediction_type == "flow_prediction":
        return sample - sigma * model_output
    raise ValueError(
        f"prediction_type {prediction_type!r} is not known; allowed are 'epsilon', 'v_prediction', 'sample'"
        " and 'flow_prediction'"
    )


def unpack(latents: np.ndarray, height: int, width: int) -> np.ndarray:
    """FLUX's packed latents (batch, h/2 w/2, 4 channels) -> (batch, channels, h, w).

    `height` and `width` are the latents' own, h and w. One token carries a 2x2 block of cells.
    """
    batch, _, channels = latents.shape
    blocks = latents.reshape(batch, height // 2, width // 2, channels // 4, 2, 2)
    return blocks.transpose(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)


def to_vae(vae: AutoencoderKL, latents: np.ndarray) -> np.ndarray:
    """From the scheduler's scale (variance about one) to the VAE's own: (n, channels, h, w), same shape."""
    mean, std, factor = _statistics(vae)
    return latents * std / factor + mean


def from_vae(vae: AutoencoderKL, latents: np.ndarray) -> np.ndarray:
    """From the VAE's own scale to the scheduler's: the inverse of `to_vae`."""
    mean, std, factor = _statistics(vae)
    return (latents - mean) * factor / std


def _statistics(vae) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Mean and spread, (channels or 1, 1, 1), and the scaling factor. Most families have a scaling factor, SD 3 and
    FLUX a shift too, and a few SDXL models a mean and a spread for each channel."""
    mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or std is None:
        mean, std = [vae.config.get("shift_factor") or 0.0], [1.0]
    mean, std = np.array([mean, std], np.float32)[..., None, None]
    return mean, std, np.float32(vae.config.scaling_factor)


def decode(pipe: DiffusionPipeline, latents: np.ndarray, batch_size: int = 4) -> np.ndarray:
    """Full VAE: latents in the scheduler's scale (n, channels, h, w) -> pictures (n, H, W, 3) uint8.

    Works as the pipeline does, float32 for a VAE that overflows in float16 included.
    """
    import torch

    scaled = torch.from_numpy(to_vae(pipe.vae, np.asarray(latents, np.float32)))
    with ready_vae(pipe) as (vae, to):
        parts = (vae.decode(part.to(**to), return_dict=False)[0] for part in scaled.split(batch_size))
        return np.concatenate([_to_uint8(rgb.permute(0, 2, 3, 1).float().cpu().numpy()) for rgb in parts])


@contextmanager
def ready_vae(pipe: DiffusionPipeline) -> Iterator[tuple]:
    """(the pipeline's VAE, {"device", "dtype"} of what it takes) for a block without gradients.

    Where it overflows in float16, a copy in float32: the pipeline may be at work in another thread.
    """
    import torch

    vae, dtype = pipe.vae, pipe.vae.dtype
    if dtype == torch.float16 and vae.config.get("force_upcast"):
        vae, dtype = copy.deepcopy(vae).to(dtype=torch.float32), torch.float32
    device = getattr(pipe, "_execution_device", vae.device)  # under CPU offload the weights wait elsewhere
    with torch.no_grad():
        yield vae, {"device": device, "dtype": dtype}


def decode_previews(trace: Trace, pipe: DiffusionPipeline) -> np.ndarray:
    """Fill `trace.previews`, x0 of batch item 0 through the VAE, (step, H, W, 3) uint8, and return it."""
    if not len(trace):
        raise ValueError("the trace has no steps to decode; record a run first")
    trace.previews = decode(pipe, trace.pred_original[:, 0])
    return trace.previews


def _to_uint8(rgb: np.ndarray) -> np.ndarray:
    """[-1, 1] -> 0..255, rounded as diffusers' image processor rounds."""
    rgb = np.clip(rgb / 2 + 0.5, 0, 1)
    if np.isnan(rgb).any():  # grey, as zero is
        rgb = np.nan_to_num(rgb, nan=0.5)
    return np.rint(rgb * 255).astype(np.uint8)


#: what can be done to a channel -> what it is multiplied by; "alone" keeps it and sets the others to zero
CHANGES: dict[str, float | None] = {"off": 0.0, "half": 0.5, "double": 2.0, "turned round": -1.0, "alone": None}


def changed_channels(latent: np.ndarray, change: str) -> np.ndarray:
    """(channels, h, w) -> (channels, channels, h, w): copy k has `change`, a name of `CHANGES`, done to channel k."""
    copies = np.repeat(latent[None], len(latent), 0)
    chosen: np.ndarray = np.eye(len(latent), dtype=bool)
    if change == "alone":
        copies[~chosen] = 0
    else:
        copies[chosen] *= np.float32(CHANGES[change])
    return copies

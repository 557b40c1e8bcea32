"""Single questions to a denoiser, outside any loop: `conditioning`, what it is called with; `predict`, its answer; `convert_prediction`, that under
its three names.

`predict` is for pipelines of Stable Diffusion 1's, 2's and XL's shape, whose U-Net takes one noised latent and the timestep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..generation.sharing import own_copy, pipeline_lock, watch_calls
from ..latents import predicted_original
from ..parts import find_denoiser, map_leaves

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from numpy.typing import ArrayLike


def predict(
    pipe: DiffusionPipeline,
    latents: np.ndarray,
    timesteps: float | Sequence[float] | np.ndarray,
    prompt: str | Sequence[str] = "",
    batch_size: int = 16,
) -> np.ndarray:
    """What the U-Net answers, without guidance: (n, channels, h, w) float32, in whatever it was trained to predict.

    latents: (n, channels, h, w), variance preserving: a x0 + sqrt(1 - a^2) noise. timesteps: one number, or one a latent.
    prompt: one text for all, or one a latent. Raises TypeError for a pipeline without a U-Net, ValueError for counts that do
    not fit.
    """
    if getattr(pipe, "unet", None) is None:
        raise TypeError(f"{type(pipe).__name__} has no unet; give a pipeline of Stable Diffusion 1, 2 or XL")
    latents = np.asarray(latents, np.float32)
    prompts = [prompt] * len(latents) if isinstance(prompt, str) else list(prompt)
    if latents.ndim != 4 or len(prompts) != len(latents):
        raise ValueError(
            f"latents of shape {latents.shape} with {len(prompts)} prompts; give (n, channels, h, w) and one prompt"
            " for all or one a latent"
        )
    each = np.broadcast_to(np.asarray(timesteps, np.float32), len(latents))
    step = pipe.vae_scale_factor
    size = {"height": latents.shape[2] * step, "width": latents.shape[3] * step, "guidance_scale": 1.0}
    answers = []
    for start in range(0, len(latents), batch_size):
        part = slice(start, start + batch_size)
        rows = conditioning(pipe, prompts[part], **size)
        sample = torch.from_numpy(latents[part]).to(pipe.unet.device, pipe.unet.dtype)
        at = torch.from_numpy(each[part].copy()).to(pipe.unet.device)
        with torch.no_grad():
            answers.append(pipe.unet(sample, at, **rows).sample.float().cpu().numpy())
    return np.concatenate(answers)


def convert_prediction(
    sample: ArrayLike, answer: ArrayLike, signal: ArrayLike, prediction_type: str
) -> dict[str, np.ndarray]:
    """One answer under its three names: {"x0", "epsilon", "v"}, each of the sample's shape.

    With x_t = a x0 + b e, a = `signal`, b = sqrt(1 - a^2), and v = a e - b x0 (Salimans and Ho 2022, arXiv 2202.00512,
    appendix D), x_t and one of the three give the other two. signal: one number, or (n,), one a sample; above 0 for "epsilon",
    and below 1 for "sample". Raises ValueError for another `prediction_type`.
    """
    sample, answer = np.asarray(sample, np.float64), np.asarray(answer, np.float64)
    a = np.asarray(signal, np.float64)
    a = a.reshape(a.shape + (1,) * (sample.ndim - a.ndim)) if a.ndim else a
    b = np.sqrt(1 - a**2)
    if prediction_type == "flow_prediction":
        raise ValueError(
            "a flow's velocity, noise - x0, has no epsilon and v; latents.predicted_original turns it into x0"
        )
    x0 = predicted_original(sample, answer, a, b, prediction_type)
    if prediction_type == "epsilon":
        epsilon = answer
    elif prediction_type == "v_prediction":
        epsilon = a * answer + b * sample
    else:
        epsilon = (sample - a * answer) / b
    return {"x0": x0, "epsilon": epsilon, "v": a * epsilon - b * x0}


def error_factors(signal: ArrayLike) -> dict[str, dict[str, np.ndarray]]:
    """By how much x0, epsilon and v are off where a network's output is off by 1: {predicted: {name: factor}}.

    predicted: "epsilon", "x0" or "v". signal: (n,), a of x_t = a x0 + b e, above 0 and below 1; each factor is (n,).
    """
    a = np.asarray(signal, np.float64)
    factors = {}
    for predicted, prediction_type in (("epsilon", "epsilon"), ("x0", "sample"), ("v", "v_prediction")):
        right, off = (convert_prediction(0 * a, 0 * a + error, a, prediction_type) for error in (0.0, 1.0))
        factors[predicted] = {name: np.abs(off[name] - right[name]) for name in right}
    return factors


class _Seen(Exception):
    """What the denoiser was called with has been seen: the rest of the run is not needed."""


def conditioning(pipe: DiffusionPipeline, prompt: str | Sequence[str], **settings) -> dict:
    """All that the pipeline hands its denoiser beside the noisy latents and the timestep, by name, as tensors.

    For Stable Diffusion that is {"encoder_hidden_states": (2, tokens, width)}, first the empty prompt's rows, then the prompt's;
    SDXL adds sizes and a pooled row. With guidance_scale at most 1 the batch is 1. `settings` go to the pipeline (height,
    width, negative_prompt, guidance_scale). So `pipe.unet(x, t, **conditioning(pipe, prompt))` asks as the pipeline asks, for
    x of that batch. The pipeline is stopped at its first call of the denoiser.
    """
    denoiser = find_denoiser(pipe)
    if denoiser is None:
        raise TypeError(
            f"{type(pipe).__name__} has neither a unet nor a transformer; sdwidgets.load makes such a pipeline"
        )
    seen: dict = {}

    def listen(module, args, kwargs):
        seen.update(kwargs)
        raise _Seen

    settings = {"num_inference_steps": 1, "generator": torch.Generator("cpu").manual_seed(0)} | settings
    with pipeline_lock(pipe), ExitStack() as undo:
        undo.callback(pipe.maybe_free_model_hooks)
        watch_calls(undo, denoiser, before=listen)
        with suppress(_Seen):
            own_copy(pipe)(prompt, output_type="latent", **settings)  # a run of the pipeline itself may be under way
    not_text = ("sample", "hidden_states", "timestep", "return_dict")
    return {name: value for name, value in seen.items() if name not in not_text and value is not None}


def conditioning_of(pipe: DiffusionPipeline, prompts: Sequence[str | None], *, height: int, width: int) -> dict:
    """`conditioning` of several prompts for one call of the denoiser without guidance, a row for each.

    None is no prompt as the pipeline itself takes it under guidance, which for SDXL is rows of zeros. height, width: pixels.
    """
    rows = []
    for prompt in prompts:
        scale = 1.0 if prompt is not None else 2.0  # under guidance the first half of the batch has no prompt
        inputs = conditioning(pipe, prompt or "", guidance_scale=scale, height=height, width=width)
        rows.append(map_leaves(inputs, torch.Tensor, lambda tensor: tensor[:1]))
    return _joined(rows)


def _joined(parts: Sequence):
    """Tensors, or dictionaries of them, one after the other along the batch."""
    if isinstance(parts[0], dict):
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(list(parts))


def mix(first: dict, second: dict, share: float) -> dict:
    """Two conditionings of the same pipeline, averaged: every tensor is (1 - share) of the first and `share` of the second."""
    if isinstance(first, dict):
        return {name: mix(value, second[name], share) for name, value in first.items()}
    return torch.lerp(first, second, share) if torch.is_tensor(first) and first.is_floating_point() else first


def map_text_embeddings(conditioning: dict, change: Callable[[torch.Tensor], torch.Tensor]) -> dict:
    """The same conditioning with `change` made to all that a text encoder said: rows and pooled rows, not sizes.

    `map_text_embeddings(given, torch.zeros_like)` is a denoiser without a text. What `change` returns keeps the shape; the rows may have
    another number of tokens.
    """
    changed = {}
    for name, value in conditioning.items():
        if name == "added_cond_kwargs":
            value = {key: change(v) if key == "text_embeds" else v for key, v in value.items()}
        elif name in ("encoder_hidden_states", "pooled_projections"):
            value = change(value)
        changed[name] = value
    return changed

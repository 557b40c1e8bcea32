"""Guidance (Ho and Salimans, arXiv 2207.12598): two predictions of one network, and a line through them.

`predictor` computes what the U-Net of any SD 1, 2 or XL pipeline predicts under several prompts, and `sample` runs the sampling loop with what a
function makes of them: `apply_guidance`, for example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import latents as _latents
from ..latents import apply_guidance  # noqa: F401  (its users look for it here)
from ..parts import map_leaves
from .denoiser import conditioning_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from ..trace import Trace


def predictor(
    pipe: DiffusionPipeline, *prompts: str | None, height: int, width: int
) -> Callable[..., tuple[torch.Tensor, ...]]:
    """A function `(latents, timestep, **more) -> predictions`, one for each prompt, each (batch, channels, h, w).

    pipe: a Stable Diffusion 1, 2 or XL pipeline.
    prompts: texts; None is no prompt as the pipeline itself takes it, which for SDXL is rows of zeros.
    height, width: pixels; SDXL is conditioned on them.
    more: goes to the U-Net as it is, for example `down_intrablock_additional_residuals` of a T2I-Adapter.

    The predictions are computed in one batch, in the order given, so `predictor(pipe, None, prompt)` computes what the
    pipeline does under guidance. Raises TypeError for another kind of pipeline, ValueError without a prompt.
    """
    unet = getattr(pipe, "unet", None)
    if unet is None or not hasattr(pipe, "encode_prompt"):
        raise TypeError(
            f"predictor() got {type(pipe).__name__}, and needs a Stable Diffusion 1, 2 or XL pipeline, which has a U-Net;"
            " for other families record a run: sdwidgets.record(pipe) keeps both predictions of every step"
        )
    if not prompts:
        raise ValueError(
            "predictor() got no prompt; give one or more texts, or None for no prompt: predictor(pipe, None, 'a cat')"
        )
    inputs = conditioning_of(pipe, prompts, height=height, width=width)

    @torch.no_grad()
    def predict(latents: torch.Tensor, timestep, **more) -> tuple[torch.Tensor, ...]:
        batch = len(latents)
        many = pipe.scheduler.scale_model_input(torch.cat([latents] * len(prompts)), timestep)
        rows = map_leaves(inputs, torch.Tensor, lambda row: row.repeat_interleave(batch, 0))
        return unet(many, timestep, **rows, **more).sample.chunk(len(prompts))

    return predict


@torch.no_grad()
def sample(
    pipe: DiffusionPipeline, predict: Callable, combine: Callable, latents: torch.Tensor, steps: int
) -> torch.Tensor:
    """The sampling loop over the pipeline's own scheduler: from noise (batch, channels, h, w) to finished latents, same shape.

    predict: `(latents, timestep) -> predictions`, as from `predictor`.
    combine: `(predictions, ...) -> prediction`: what the scheduler gets; `lambda uncond, cond: apply_guidance(uncond, cond, 4)`.
    latents: noise of variance one; the scheduler's own start is made from it.
    """
    pipe.scheduler.set_timesteps(steps, device=latents.device)
    x = latents * pipe.scheduler.init_noise_sigma
    for t in pipe.scheduler.timesteps:
        x = pipe.scheduler.step(combine(*predict(x, t)), t, x).prev_sample
    return x


def decode_predictions(pipe: DiffusionPipeline, trace: Trace) -> dict[str, np.ndarray]:
    """The picture that each prediction of a run amounts to, through the VAE: name -> (step, H, W, 3) uint8.

    "guided" is always there; "uncond" and "cond" where every step recorded its halves. The first of a batch.
    """
    predicted = {"guided": np.stack([step.pred_original[0] for step in trace])}
    kind = str(trace.settings.prediction_type)
    for name in ("uncond", "cond"):
        if all(getattr(step, f"noise_pred_{name}") is not None for step in trace):
            predicted[name] = np.stack([step.half_original(name, kind)[0] for step in trace])
    return {name: _latents.decode(pipe, x0) for name, x0 in predicted.items()}


def prompt_share(trace: Trace) -> np.ndarray:
    """How much the prompt changes at each step of a guided run, in predicted x0: |cond - uncond| / |cond|, (step,).

    In predicted x0 whatever the network predicts: at one x_t noise, v and x0 are linear functions of one another, but with factors that depend
    on the timestep, so lengths in one are not those in another. Raises ValueError for a run without both halves.
    """
    kind = str(trace.settings.prediction_type)
    if any(step.noise_pred_uncond is None or step.noise_pred_cond is None for step in trace):
        raise ValueError("this run recorded one prediction a step; record one with a guidance scale above 1")
    halves = [[step.half_original(half, kind) for half in ("uncond", "cond")] for step in trace]
    return np.array([np.linalg.norm(cond - uncond) / np.linalg.norm(cond) for uncond, cond in halves])

"""Runs of a pipeline that is changed for their time alone: another scheduler, a LoRA; recorded, or many prompts at once; and the loop alone, `denoise`."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..generation.schedulers import make_scheduler
from ..generation.sharing import own_copy, pipeline_lock
from ..latents import apply_guidance
from ..loading.turbo import LORA
from ..parts import native_size, quiet_diffusers
from ..recording import record
from ..trace import Step, Trace

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin


@contextmanager
def temporarily(
    pipe: DiffusionPipeline, *, scheduler: SchedulerMixin | None = None, lora: str | os.PathLike | None = None
) -> Iterator[None]:
    """For the time of a block another scheduler (a diffusers scheduler) and a LoRA (a folder, or a hub id) on the pipeline.

    Our own runs on the same pipeline wait until the block ends. Both are undone on every way out; LoRAs that the pipeline had
    before are unloaded too, as `unload_lora_weights` does.
    """
    with pipeline_lock(pipe):
        before = pipe.scheduler
        try:
            if lora is not None:
                local = {"weight_name": LORA} if Path(lora, LORA).is_file() else {}
                with quiet_diffusers():  # it warns that a LoRA of the denoiser alone has nothing for the text encoder
                    pipe.load_lora_weights(lora, **local)
            if scheduler is not None:
                pipe.scheduler = scheduler
            yield
        finally:
            pipe.scheduler = before
            if lora is not None:
                pipe.unload_lora_weights()


def run_with(
    pipe: DiffusionPipeline,
    scheduler: str | SchedulerMixin | None,
    prompt: str,
    *,
    num_inference_steps: int,
    seed: int = 0,
    on_step: Callable[[Step], None] | None = None,
    **settings,
) -> Trace:
    """One recorded run with another scheduler of `schedulers_for(pipe)`, by its label or made (`trailing`), or None; the pipeline's own stays what it is.

    settings: whatever else the pipeline takes, such as guidance_scale, height and width. The noise is drawn on the CPU
    from `seed`, so that it is the same whatever the scheduler. on_step: as of `record`. Raises ValueError for a scheduler that is not on offer.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    own = own_copy(pipe, make_scheduler(scheduler, pipe) if isinstance(scheduler, str) else scheduler)
    with record(own, on_step=on_step) as trace:
        own(prompt, num_inference_steps=num_inference_steps, generator=generator, **settings)
    return trace


def trailing(pipe: DiffusionPipeline, scheduler: str) -> SchedulerMixin:
    """A new scheduler of `schedulers_for(pipe)` whose runs begin at the last timestep, however few their steps, and end without noise."""
    made = make_scheduler(scheduler, pipe)
    clean = {"set_alpha_to_one": True} if "set_alpha_to_one" in made.config else {}  # or DDIM stops at t = 0
    return type(made).from_config(made.config, timestep_spacing="trailing", **clean)


def held_and_extended(coarse: Trace, fine: Trace) -> dict[str, np.ndarray]:
    """How far predicted x0 is, at each step of a run, from what that step needed: "held" as it is, and "extended" from the step before; (step - 2,) each.

    coarse: three steps or more; fine: a run from the same noise with a multiple of its steps, both trailing and not flows. What a step of
    DPM-Solver++ needs is the mean of x0 over it, weighted by e^lambda = 1 / sigma (Lu et al. 2022, proposition 4.1); here that of `fine`, straight
    between its steps. Errors are root mean squares over all numbers of x0. Left out are the first step, which has none before it, and the
    last, which is held too (first order). Raises ValueError where `fine` does not visit the noise levels of `coarse`.
    """
    at, levels = 1 / coarse.sigmas.astype(np.float64), 1 / fine.sigmas.astype(np.float64)  # (step,) and (fine step,)
    visited = np.abs(np.log(levels / at[:, None])).argmin(1)
    if len(at) < 3 or not np.allclose(levels[visited], at, rtol=0.02):  # rounding may part them by a timestep
        raise ValueError(
            f"a run of {len(fine)} steps does not visit the noise levels of one of {len(coarse)}; "
            "take three steps or more, and a multiple of them, both by `trailing`"
        )
    at = levels[visited]
    x0, between = (trace.pred_original.reshape(len(trace), -1).astype(np.float64) for trace in (coarse, fine))
    areas = np.diff(levels)[:, None] * (between[1:] + between[:-1]) / 2
    sums = np.concatenate([np.zeros_like(between[:1]), areas.cumsum(0)])[visited]
    needed = np.diff(sums, axis=0) / np.diff(at)[:, None]  # (step - 1, numbers)
    h = np.diff(np.log(at))[:, None]
    ahead = x0[1:-1] + (x0[1:-1] - x0[:-2]) * h[1:] / (2 * h[:-1])
    return {
        name: np.sqrt(((guess - needed[1:]) ** 2).mean(1)) for name, guess in (("held", x0[1:-1]), ("extended", ahead))
    }


def finished_latents(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    *,
    scheduler: SchedulerMixin | None = None,
    lora: str | os.PathLike | None = None,
    start: np.ndarray | None = None,
    **settings,
) -> np.ndarray:
    """The finished latents of one unrecorded run over all prompts: (n, channels, h, w) float32.

    start: the latents to begin with, (n, channels, h, w), standard normal where they are noise; None draws them on the CPU, from seed 0 for
    the first prompt, 1 for the second, and so on. scheduler, lora: as of `temporarily`; settings go to the pipeline.
    """
    noise: dict = {"generator": [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]}
    if start is not None:
        noise = {"latents": torch.from_numpy(start).to(pipe.device, pipe.unet.dtype)}
    with temporarily(pipe, scheduler=scheduler, lora=lora):
        return pipe(list(prompts), output_type="latent", **noise, **settings).images.float().cpu().numpy()


@torch.no_grad()
def denoise(
    pipe: DiffusionPipeline, inputs: dict, seed: int = 0, *, num_inference_steps: int = 20, guidance_scale: float = 1.0
) -> torch.Tensor:
    """The sampling loop alone, from a seed to finished latents (1, channels, h, w), for text embeddings of your own making.

    inputs: what the U-Net takes beside latents and timestep, for the empty prompt and for the prompt, as of `denoiser.conditioning`; it decides
    nothing of the size, which is the pipeline's own. The noise sample is drawn on the CPU. Raises TypeError for a pipeline without a U-Net.
    """
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise TypeError(f"{type(pipe).__name__} has no unet; give a pipeline of Stable Diffusion 1, 2 or XL")
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(num_inference_steps, device=unet.device)
    height, width = (side // pipe.vae_scale_factor for side in native_size(pipe))
    generator = torch.Generator("cpu").manual_seed(seed)
    x = torch.randn((1, unet.config.in_channels, height, width), generator=generator, dtype=unet.dtype).to(unet.device)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([x, x]), t)
        uncond, cond = unet(both, t, **inputs).sample.chunk(2)
        x = scheduler.step(apply_guidance(uncond, cond, guidance_scale), t, x).prev_sample
    return x

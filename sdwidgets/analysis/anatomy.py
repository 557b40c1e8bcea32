"""What a pipeline is made of, measured on the live model: parts, parameters, shapes, time.

`anatomy(pipe)` makes one real picture of few steps and watches the parts at work; `one_step` takes one step out of a recorded run;
`plots.architecture` draws both. `block_shapes` are the shapes inside the U-Net.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..latents import colour_map, linear_preview
from ..trace import Trace, first_of
from .denoiser import conditioning

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ROLES = {
    "text_encoder": "turns the prompt's tokens into numbers",
    "text_encoder_2": "reads the prompt too",
    "text_encoder_3": "reads the prompt too",
    "unet": "predicts what is noise and what is picture, at every step",
    "transformer": "predicts what is noise and what is picture, at every step",
    "vae": "turns latents into pixels",
}


@dataclass(frozen=True)
class Part:
    """One trained part. Shapes are those of its main input and output for one picture, without the batch."""

    name: str  # as the pipeline calls it
    class_name: str
    role: str
    parameters: int
    bytes: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    calls: int  # in the watched run
    seconds: float  # in the watched run, on the host's clock


def anatomy(
    pipe: DiffusionPipeline, prompt: str = "an astronaut", num_inference_steps: int = 20, **settings
) -> tuple[Part, ...]:
    """Run `pipe` once and return its parts in the order in which they first work.

    `settings` go to the pipeline. Hooks are removed on every way out. Times on a GPU are those of the host,
    which runs ahead of the device: read shares of them on the CPU only.
    """
    import torch

    seen: dict[str, dict] = {}
    began: dict[str, float] = {}

    def watch(name: str, module, undo: ExitStack) -> None:
        def before(module, args, kwargs):
            seen.setdefault(name, {"calls": 0, "seconds": 0.0})
            began[name] = time.perf_counter()

        def after(module, args, kwargs, output):
            entry = seen[name]
            first = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)), None)
            result = output if isinstance(output, torch.Tensor) else output[0]
            entry["seconds"] += time.perf_counter() - began[name]
            entry["calls"] += 1
            entry["reads"], entry["writes"] = tuple(first.shape[1:]), tuple(result.shape[1:])

        undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        undo.callback(module.register_forward_hook(after, with_kwargs=True).remove)

    modules = {name: part for name, part in pipe.components.items() if name in ROLES and part is not None}
    with ExitStack() as undo:
        for name, module in modules.items():
            # vae.decode is a method, which hooks miss; its decoder is a module.
            watch(name, module.decoder if name == "vae" else module, undo)
        pipe(prompt, num_inference_steps=num_inference_steps, **settings)
    return tuple(
        Part(
            name=name,
            class_name=type(modules[name]).__name__,
            role=ROLES[name],
            parameters=sum(p.numel() for p in modules[name].parameters()),
            bytes=sum(p.numel() * p.element_size() for p in modules[name].parameters()),
            **entry,
        )
        for name, entry in seen.items()
    )


@dataclass(frozen=True)
class OneStep:
    """One step of a recorded run, as pictures: what each arrow of the diagram carries. Latents are in rough colours, (h, w, 3) uint8."""

    prompt: str
    tokens: list[str]  # the prompt's, without start, end and padding
    embeddings: np.ndarray  # (tokens, width): what the denoiser gets of the prompt
    seed: int | None
    noise: np.ndarray  # the noise sample that the run began with
    timestep: float
    noisy: np.ndarray  # x_t, as the denoiser sees it
    predictions: list[np.ndarray]  # for the prompt and without it; or the one that there is
    prediction_type: str  # "epsilon", "v_prediction", "sample" or "flow_prediction"
    guidance: float | None
    following: np.ndarray  # x_{t-1}, which the scheduler makes of them
    steps: int
    shape: tuple[int, ...]  # of the latents, (channels, h, w)
    picture: np.ndarray  # (H, W, 3) uint8


def one_step(pipe: DiffusionPipeline, trace: Trace, index: int | None = None) -> OneStep:
    """Step `index`, from 0 (three fifths of the way by default), of a run of `pipe` that came to its end; for `plots.architecture`. Raises ValueError otherwise."""
    index = 3 * len(trace) // 5 if index is None else index
    if not trace.complete or trace.images is None or not 0 <= index < len(trace):
        raise ValueError(f"this takes a run that came to its end and one of its {len(trace)} steps, not step {index}")
    step, settings = trace[index], trace.settings
    prompt = str(first_of(settings.prompt) or "")
    height, width = trace.images.shape[1:3]
    embeddings = conditioning(pipe, prompt, height=height, width=width)["encoder_hidden_states"]
    after = trace[index + 1].scaled_latents if index + 1 < len(trace) else trace.final_latents
    factors = colour_map(trace.preview_factors, step.latents.shape[1])
    rough = lambda latents: linear_preview(np.asarray(latents[0], np.float32), factors)
    halves = [step.noise_pred_cond, step.noise_pred_uncond]
    return OneStep(
        prompt=prompt,
        tokens=[token.removesuffix("</w>") for token in pipe.tokenizer.tokenize(prompt)],
        embeddings=embeddings[-1].float().cpu().numpy(),
        seed=first_of(settings.seed),
        noise=rough(trace[0].scaled_latents),
        timestep=step.timestep,
        noisy=rough(step.scaled_latents),
        predictions=[rough(half) for half in halves if half is not None] or [rough(step.noise_pred)],
        prediction_type=settings.prediction_type or "epsilon",
        guidance=settings.guidance_scale,
        following=rough(after),
        steps=len(trace),
        shape=tuple(step.latents.shape[1:]),
        picture=trace.images[0],
    )


def block_shapes(pipe: DiffusionPipeline, prompt: str = "an astronaut", **settings) -> dict[str, tuple[int, ...]]:
    """What each block of the U-Net gives on, in one step of `pipe`: name -> (channels, h, w), from "in" to "out".

    `settings` go to the pipeline. Raises TypeError for a pipeline without a U-Net.
    """
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise TypeError(f"{type(pipe).__name__} has no unet; give a pipeline of Stable Diffusion 1, 2 or XL")
    down = {f"down {number}": block for number, block in enumerate(unet.down_blocks)}
    up = {f"up {number}": block for number, block in enumerate(unet.up_blocks)}
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str):
        def after(module, args, output):
            shapes[name] = tuple((output[0] if isinstance(output, tuple) else output).shape[1:])

        return after

    with ExitStack() as undo:
        for name, block in {"in": unet.conv_in, **down, "middle": unet.mid_block, **up, "out": unet.conv_out}.items():
            undo.callback(block.register_forward_hook(watch(name)).remove)
        pipe(prompt, num_inference_steps=1, output_type="latent", **settings)
    return shapes

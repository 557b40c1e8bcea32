"""What a pipeline is made of, measured on the live model: parts, parameters, shapes, time.

`anatomy(pipe)` makes one real picture of few steps and watches the parts at work. `block_shapes` are the shapes inside the U-Net.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
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


def denoiser_blocks(denoiser: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Name -> block, in the order of the work: of a U-Net from "in" over "down 0", "middle" and "up 0" to "out", of a transformer "block 1"..."""
    if hasattr(denoiser, "down_blocks"):
        down = {f"down {number}": block for number, block in enumerate(denoiser.down_blocks)}
        up = {f"up {number}": block for number, block in enumerate(denoiser.up_blocks)}
        return {"in": denoiser.conv_in, **down, "middle": denoiser.mid_block, **up, "out": denoiser.conv_out}
    both = [*getattr(denoiser, "transformer_blocks", ()), *getattr(denoiser, "single_transformer_blocks", ())]
    return {f"block {number}": block for number, block in enumerate(both, 1)}


def block_shapes(pipe: DiffusionPipeline, prompt: str = "an astronaut", **settings) -> dict[str, tuple[int, ...]]:
    """What each block of the U-Net gives on, in one step of `pipe`: name -> (channels, h, w), from "in" to "out".

    `settings` go to the pipeline. Raises TypeError for a pipeline without a U-Net.
    """
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise TypeError(f"{type(pipe).__name__} has no unet; give a pipeline of Stable Diffusion 1, 2 or XL")
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str):
        def after(module, args, output):
            shapes[name] = tuple((output[0] if isinstance(output, tuple) else output).shape[1:])

        return after

    with ExitStack() as undo:
        for name, block in denoiser_blocks(unet).items():
            undo.callback(block.register_forward_hook(watch(name)).remove)
        pipe(prompt, num_inference_steps=1, output_type="latent", **settings)
    return shapes

"""What a pipeline is made of, measured on the live model: parts, parameters, shapes, time.

`anatomy(pipe)` makes one real picture of few steps and watches the parts at work.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

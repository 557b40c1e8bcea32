"""The settings that suit a model: of the table of models, which knows more than a pipeline's own defaults."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from ..loading.catalog import find_model
from ..parts import find_denoiser
from .schedulers import label_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TURBO_STEPS = 4  # of a model that was distilled to few steps


def usual_settings(pipe: DiffusionPipeline) -> dict:
    """Steps and guidance that suit this model, from the table of models, else 20 and the pipeline's own; its scheduler."""
    row = find_model(Path(str(getattr(pipe, "name_or_path", ""))).name) or find_model(str(pipe.name_or_path))
    scheduler = label_of(pipe.scheduler, pipe)
    if is_turbo(pipe):
        return {"num_inference_steps": TURBO_STEPS, "guidance_scale": 1.0, "scheduler": "LCM"}
    if row is not None:
        return {"num_inference_steps": row.steps, "guidance_scale": row.guidance, "scheduler": scheduler}
    parameter = inspect.signature(type(pipe).__call__).parameters.get("guidance_scale")
    own = parameter.default if parameter is not None else None
    return {"num_inference_steps": 20, "guidance_scale": float(own) if own else 1.0, "scheduler": scheduler}


def is_turbo(pipe: DiffusionPipeline) -> bool:
    """True for a pipeline made for few steps: one that came with LCM's scheduler, or carries an LCM or turbo LoRA."""
    named = type(pipe.scheduler).__name__ == "LCMScheduler"
    adapters = getattr(find_denoiser(pipe), "peft_config", None) or {}
    return named or any(word in name.lower() for name in adapters for word in ("lcm", "turbo"))


def completed(pipe: DiffusionPipeline, settings: dict) -> dict:
    """Settings of a call, with the model's usual number of steps and guidance where they have none; a scheduler is left as it is."""
    takes = inspect.signature(type(pipe).__call__).parameters
    usual = {name: value for name, value in usual_settings(pipe).items() if name in takes}
    return usual | {name: value for name, value in settings.items() if value is not None}

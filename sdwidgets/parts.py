"""The parts of a diffusers pipeline that have another name in another family."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def find_denoiser(pipe: DiffusionPipeline) -> torch.nn.Module | None:
    """The network that predicts the noise: a pipeline's U-Net, or its transformer (SD 3, FLUX); None for an object without either."""
    parts = (getattr(pipe, name, None) for name in ("unet", "transformer"))
    return next((part for part in parts if part is not None), None)

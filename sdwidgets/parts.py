"""What differs from one diffusers pipeline to another: the denoiser's name; and how diffusers is kept quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def find_denoiser(pipe: DiffusionPipeline) -> torch.nn.Module | None:
    """The network that predicts the noise: a pipeline's U-Net, or its transformer (SD 3, FLUX); None for an object without either."""
    parts = (getattr(pipe, name, None) for name in ("unet", "transformer"))
    return next((part for part in parts if part is not None), None)


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """In a block: diffusers logs no warning."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)

"""What differs from one diffusers pipeline to another: the denoiser's name; how diffusers is kept quiet; nests of tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def find_denoiser(pipe: DiffusionPipeline) -> torch.nn.Module | None:
    """The network that predicts the noise: a pipeline's U-Net, or its transformer (SD 3, FLUX); None for an object without either."""
    parts = (getattr(pipe, name, None) for name in ("unet", "transformer"))
    return next((part for part in parts if part is not None), None)


def native_size(pipe: DiffusionPipeline) -> tuple[int, int]:
    """(height, width), in pixels, of the pictures that this model was made for: its denoiser's `sample_size` in latent cells times the
    pixels in a cell. Raises TypeError for an object that tells no size.
    """
    # FLUX's transformer takes any size, and its pipeline says which one it was made for.
    sizes = (getattr(find_denoiser(pipe), "config", None), "sample_size"), (pipe, "default_sample_size")
    cells = next((size for thing, name in sizes if (size := getattr(thing, name, None)) is not None), None)
    if cells is None:
        raise TypeError(
            f"{type(pipe).__name__} has no unet or transformer that tells its size; give a diffusers pipeline,"
            ' as from sdwidgets.load("pocket"), or say height and width yourself'
        )
    height, width = cells if isinstance(cells, (list, tuple)) else (cells, cells)
    return int(height * pipe.vae_scale_factor), int(width * pipe.vae_scale_factor)


_QUIET = threading.Lock()
_open_blocks: list[tuple[int, ...]] = []  # the verbosities before each block that is open, in any thread


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """In a block: diffusers logs no warning, nor does transformers, which warns of optional packages when diffusers imports it."""
    import diffusers.utils
    import transformers.utils

    libraries = (diffusers.utils.logging, transformers.utils.logging)
    with _QUIET:
        _open_blocks.append(tuple(library.get_verbosity() for library in libraries))
        for library in libraries:
            library.set_verbosity_error()
    try:
        yield
    finally:
        with _QUIET:
            for library, before in zip(libraries, _open_blocks.pop(), strict=True):
                library.set_verbosity(before if not _open_blocks else library.ERROR)


def map_leaves(value: Any, kind: type, change: Callable) -> Any:
    """The same nest of tuples, lists and dictionaries with `change(leaf)` in the place of every leaf of this kind, such as a tensor."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):  # diffusers' outputs are dictionaries too
        made = {name: map_leaves(item, kind, change) for name, item in value.items()}
        return made if type(value) is dict else type(value)(**made)
    if isinstance(value, (list, tuple)):
        return type(value)(map_leaves(item, kind, change) for item in value)
    return value

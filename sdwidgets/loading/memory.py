"""How much memory and disk there is, and about how much a picture needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ..paths import from_home

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def gigabytes(count: float) -> str:
    """2_300_000_000 -> "2.3 GB"; small amounts in MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def total_ram() -> int:
    """Bytes of main memory."""
    return psutil.virtual_memory().total


def free_ram() -> int:
    """Bytes of main memory that a program could still get."""
    return psutil.virtual_memory().available


def free_bytes(device: str | torch.device) -> int:
    """Bytes free on a torch device: the card's own for CUDA, main memory elsewhere."""
    if getattr(device, "type", str(device)) == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return free_ram()


def free_disk(folder: str | Path) -> int:
    """Bytes free where `folder` is, or will be made."""
    folder = from_home(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def decode_bytes(pipe: DiffusionPipeline, height: int, width: int) -> int:
    """About the peak memory of `vae.decode` for one picture, which is what large pictures fail on.

    The widest part is the last block, at full size with as many channels as the second-finest level. On a CPU,
    Stable Diffusion's decoder held 4 to 5.4 such arrays at its peak, above the weights; six are counted.
    """
    config = pipe.vae.config
    channels = config.block_out_channels[min(1, len(config.block_out_channels) - 1)]
    return 6 * height * width * channels * pipe.vae.dtype.itemsize

"""From a name to a stock diffusers pipeline on the right device, in the right precision."""

from __future__ import annotations

from pathlib import Path

import torch

from sdwidgets.checks import Note, SettingsError, check_settings
from sdwidgets.schedulers import SCHEDULERS, Scheduler, make_scheduler, schedulers_for

__all__ = [
    "SCHEDULERS", "Note", "Scheduler", "SettingsError", "check_settings", "load", "make_scheduler",
    "schedulers_for",
]  # fmt: skip


def load(name="pocket", device="auto", dtype="auto"):
    """First version: a name ("pocket") or a folder saved by `save_pretrained`."""
    from diffusers import DiffusionPipeline

    from sdwidgets._data import data_folder

    folder = data_folder("pocket") if name == "pocket" else Path(name)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    dtype = torch.float32 if dtype == "auto" else dtype
    pipe = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, dtype=dtype).to(device)
    print(f"{name}: {type(pipe).__name__} on {device}, {str(dtype).removeprefix('torch.')}")
    return pipe

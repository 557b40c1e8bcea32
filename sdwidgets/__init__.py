"""sdwidgets: interactive widgets and a course on Stable Diffusion over real diffusers pipelines.

Importing this package loads neither torch nor diffusers: every public name is imported on its first use.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOMES = {
    "load": "pipelines", "preflight": "doctor", "record": "recording", "speed_up": "speed", "Trace": "trace", "Settings": "trace", "Step": "trace",
    "Playground": "widgets.playground", "save_passport": "passport", "load_passport": "passport",
    "load_demo": "course", "Replay": "widgets.replay",
    "guidance": "guiding", "GuidanceExplorer": "widgets.guidance_explorer",
    "latent_lab": "lab", "LatentLab": "widgets.latent_lab",
    "explore_noise": "denoising", "NoiseExplorer": "widgets.noise_explorer", "race": "races", "SchedulerRace": "widgets.race",
    "record_attention": "attention", "xray": "attention", "PromptXray": "widgets.xray", "edit": "editing",
}  # fmt: skip

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

"""sdwidgets: interactive widgets and a course on Stable Diffusion over real diffusers pipelines.

Importing this package loads neither torch nor diffusers: every public name is imported on its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers
    from .acceleration import speed_up
    from .analysis.attention import record_attention
    from .analysis.prompt_to_prompt import edit
    from .course.demos import load_demo
    from .loading.doctor import preflight
    from .loading.pipeline import load
    from .recording import record
    from .trace import Settings, Step, Trace
    from .trace_io import embed_trace, extract_trace
    from .widgets.diagram import Diagram, diagram
    from .widgets.guidance_explorer import GuidanceExplorer, guidance
    from .widgets.latent_lab import LatentLab, latent_lab
    from .widgets.noise_explorer import NoiseExplorer, explore_noise
    from .widgets.playground.widget import Playground
    from .widgets.race import SchedulerRace, race
    from .widgets.replay import Replay
    from .widgets.xray import PromptXray, xray

__version__ = "0.1.0"

_HOMES = {
    "load": "loading.pipeline", "preflight": "loading.doctor", "record": "recording", "speed_up": "acceleration", "Trace": "trace", "Settings": "trace",
    "Step": "trace", "embed_trace": "trace_io", "extract_trace": "trace_io", "load_demo": "course.demos",
    "Playground": "widgets.playground.widget", "Replay": "widgets.replay",
    "diagram": "widgets.diagram", "Diagram": "widgets.diagram",
    "guidance": "widgets.guidance_explorer", "GuidanceExplorer": "widgets.guidance_explorer",
    "latent_lab": "widgets.latent_lab", "LatentLab": "widgets.latent_lab",
    "explore_noise": "widgets.noise_explorer", "NoiseExplorer": "widgets.noise_explorer", "race": "widgets.race", "SchedulerRace": "widgets.race",
    "xray": "widgets.xray", "PromptXray": "widgets.xray", "record_attention": "analysis.attention", "edit": "analysis.prompt_to_prompt",
}  # fmt: skip

__all__ = [
    "Diagram", "GuidanceExplorer", "LatentLab", "NoiseExplorer", "Playground", "PromptXray", "Replay", "SchedulerRace", "Settings", "Step", "Trace",
    "__version__", "diagram", "edit", "embed_trace", "explore_noise", "extract_trace", "guidance", "latent_lab", "load", "load_demo", "preflight",
    "race", "record", "record_attention", "speed_up", "xray",
]  # fmt: skip


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

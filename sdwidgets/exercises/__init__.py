"""The checks behind the notebooks' exercises.

A check takes the learner's answer and returns a `Verdict`, which shows itself as one sentence: right and why,
or what the mistake probably was. A check never raises for a wrong answer, so a notebook runs to its end.
"""

from .architecture import calls, compression, from_picture, round_trip, step_decided
from .conditioning import guide, outpainting_mask, same_map, steps_run, two_prompts
from .noise import as_much_noise, best_within, cosine_schedule, ddim_step, trailing
from .verdict import Verdict

__all__ = [
    "Verdict",
    "as_much_noise",
    "best_within",
    "calls",
    "compression",
    "cosine_schedule",
    "ddim_step",
    "from_picture",
    "guide",
    "outpainting_mask",
    "round_trip",
    "same_map",
    "step_decided",
    "steps_run",
    "trailing",
    "two_prompts",
]  # fmt: skip

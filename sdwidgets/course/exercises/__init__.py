"""The checks behind the notebooks' exercises.

A check takes the learner's answer and returns a `Verdict`, which shows itself as one sentence: right and why,
or what the mistake probably was. A check never raises for a wrong answer, so a notebook runs to its end.
"""

from .architecture import calls, compression, from_picture, round_trip, step_decided
from .conditioning import guide, outpainting_mask, same_map, steps_run, two_prompts
from .noise import best_within, cosine_schedule, ddim_step, ten_times_noise, trailing
from .verdict import Verdict
from .welcome import bytes_a_picture, distance, fact_check, never_drawn, remake

__all__ = [
    "Verdict", "best_within", "bytes_a_picture", "calls", "compression", "cosine_schedule", "ddim_step", "distance", "fact_check", "from_picture",
    "guide", "never_drawn", "outpainting_mask", "remake", "round_trip", "same_map", "step_decided", "steps_run", "ten_times_noise", "trailing",
    "two_prompts",
]  # fmt: skip

"""The checks behind the notebooks' exercises.

A check takes the learner's answer and returns a `Verdict`, which shows itself as one sentence: right and why,
or what the mistake probably was. A check never raises for a wrong answer, so a notebook runs to its end.
"""

from .architecture import compression, step_decided
from .verdict import Verdict

__all__ = ["Verdict", "compression", "step_decided"]

"""The course: Colab's set-up, the evening's meetup, recorded demos, facts with their sources, exercises that check themselves.

Nothing heavy is imported: torch and diffusers come with the pipeline that a function is given.
"""

from .colab import BRANCH, REPOSITORY, colab_address, colab_button, setup, setup_cell
from .demos import load_demo
from .meetup import Meetup, meetup
from .models import ASIDE, knows_truth, size

__all__ = [
    "ASIDE", "BRANCH", "REPOSITORY", "Meetup", "colab_address", "colab_button", "knows_truth", "load_demo", "meetup", "setup", "setup_cell", "size", "stage"
]  # fmt: skip


def stage(minutes: float):
    """For a presenter, in JupyterLab: a button that steps through the cells tagged `stage`; a `StagePath`, see there."""
    from .stage_path import StagePath  # anywidget, which Colab gets in `setup`

    return StagePath(minutes)

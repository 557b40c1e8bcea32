"""A presenter's way through a notebook: from one cell tagged `stage` to the next by a key, with the minutes that are left.

The work is done by `stage_path.js`, in the page of JupyterLab or Jupyter Notebook; nothing is installed there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anywidget
import traitlets

COLAB = (
    "On Colab the stage path is what stands open: sections for self-study are folded, and the arrow beside a heading opens"
    " one."
)
ELSEWHERE = "The stage path is stepped through in JupyterLab or Jupyter Notebook; here, go from one cell tagged stage to the next."


class StagePath(anywidget.AnyWidget):
    """A button, Present. Nothing happens until it is pressed, and what it does is taken away again by Leave.

    minutes: what the clock counts down from. Raises ValueError where it is not above 0.
    """

    _esm = Path(__file__).with_name("stage_path.js")
    minutes = traitlets.Float().tag(sync=True)
    elsewhere = traitlets.Unicode().tag(sync=True)

    def __init__(self, minutes: float):
        if minutes <= 0:
            raise ValueError(f"a talk has minutes, more than 0; not {minutes:g}")
        super().__init__(minutes=minutes, elsewhere=COLAB if "google.colab" in sys.modules else ELSEWHERE)

    def __repr__(self) -> str:
        return f"<stage path of {self.minutes:g} minutes: run this cell in JupyterLab and press Present>"

"""Recorded runs that come with the course."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..paths import data_folder

if TYPE_CHECKING:
    from ..trace import Trace


def load_demo(name: str) -> Trace:
    """A recorded run that comes with the course, e.g. "00-astronaut": a section starts from it without a model.

    They lie in `data/demos`, and `python tools/make_demos.py` makes them again. Raises FileNotFoundError and names those
    that there are.
    """
    from ..trace import Trace

    there = sorted(path.stem for path in data_folder("demos").glob("*.safetensors"))
    if name not in there:
        raise FileNotFoundError(f"there is no demo {name!r}; there are: {', '.join(there) or 'none'}")
    return Trace.load(data_folder("demos") / f"{name}.safetensors")

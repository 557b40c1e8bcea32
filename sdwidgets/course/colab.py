"""The course on Google Colab: the button that opens a notebook there, and the cell that gets the runtime ready."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys

#: Where the course is published. It stands here alone: `python tools/frame_notebooks.py` writes it into the notebooks.
REPOSITORY = "https://github.com/HSV-AI/sdwidgets"
BRANCH = "main"

_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def colab_address(notebook: str) -> str:
    """Where Colab opens a notebook of the course, given as its path in the repository: "notebooks/00_welcome.ipynb"."""
    return f"{REPOSITORY.replace('https://github.com', 'https://colab.research.google.com/github')}/blob/{BRANCH}/{notebook}"


def colab_button(notebook: str) -> str:
    """The button "Open in Colab" for that notebook, as markdown."""
    return f"[![Open in Colab]({_BADGE})]({colab_address(notebook)})"


def setup_cell() -> str:
    """The code of a notebook's first code cell.

    On Colab the course itself is not there yet, so the cell fetches it before anything can be imported from it.
    `--no-deps`: Colab has what the course needs, and its own builds of torch and its neighbours stay as they are.
    """
    return (
        "import sys\n\n"
        'if "google.colab" in sys.modules:  # fetch the course alone: torch stays as Colab built it\n'
        f"    %pip install --quiet --no-deps git+{REPOSITORY}@{BRANCH}\n"
        "from sdwidgets import course\n\n"
        "course.setup()"
    )


def setup() -> None:
    """Get Google Colab ready; anywhere else do nothing and print nothing.

    On Colab: whatever small package of the course is missing is installed, each alone (`pip install --no-deps`), so that
    torch and its neighbours are never touched; and widgets that do not come from Colab are allowed.

    Raises RuntimeError where torch, diffusers or transformers is missing (another kind of runtime), or pip fails.
    """
    if "google.colab" not in sys.modules:
        return
    missing = _missing()
    heavy = sorted({"torch", "diffusers", "transformers"} & set(missing))
    if heavy:
        raise RuntimeError(
            f"this Colab runtime has no {heavy[0]}, and the course never installs one over Colab's own; choose"
            " Runtime > Change runtime type > Python 3, then run this cell again"
        )
    if missing:
        _install(missing)
    from google.colab import output  # type: ignore[import-not-found]

    output.enable_custom_widget_manager()


def _missing() -> list[str]:
    """Packages that sdwidgets needs and that are not installed."""
    lines = importlib.metadata.requires("sdwidgets") or []
    needed = [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return [name for name in needed if not _installed(name)]


def _installed(name: str) -> bool:
    return any(importlib.metadata.distributions(name=name))


def _install(names: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise RuntimeError(
            f"{', '.join(names)} could not be installed ({last}); check the runtime's network and run this cell again"
        )

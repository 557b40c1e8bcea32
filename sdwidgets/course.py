"""What every notebook of the course starts from: Colab's set-up, the evening's meetup, recorded demos, questions to a pipeline.

Nothing heavy is imported: torch and diffusers come with the pipeline that a function is given.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ._data import data_folder
from .meetup import Meetup, meetup

if TYPE_CHECKING:
    from .trace import Trace

__all__ = ["Meetup", "colab_address", "colab_button", "knows_truth", "load_demo", "meetup", "setup", "setup_cell", "size"]  # fmt: skip

#: Where the course is published. It stands here alone: `python tools/frame_notebooks.py` writes it into the notebooks.
REPOSITORY = "https://github.com/HSV-AI/sdwidgets"
BRANCH = "main"

#: What a cell says that needs the truth and has another model before it.
ASIDE = "This cell needs Pocket, whose training pictures are known; with another model it steps aside."

_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


# ---- Colab ---------------------------------------------------------------------------------------------------------


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
    from google.colab import output

    output.enable_custom_widget_manager()


def _missing() -> list[str]:
    """Packages that sdwidgets needs and that are not installed."""
    lines = importlib.metadata.requires("sdwidgets") or []
    needed = [re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line]
    return [name for name in needed if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _install(names: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise RuntimeError(
            f"{', '.join(names)} could not be installed ({last}); check the runtime's network and run this cell again"
        )


# ---- questions to a pipeline -----------------------------------------------------------------------------------------


def knows_truth(pipe) -> bool:
    """Is `pipe` Pocket itself, so that the datasheet tells what it was trained on, and the judge reads its pictures?

    For any other model it prints one sentence and returns False. A model that was trained further is another model.
    """
    name = getattr(pipe, "name_or_path", None)
    if name and Path(name).is_dir() and Path(name).resolve() == data_folder("pocket").resolve():
        return True
    print(ASIDE)
    return False


def size(pipe) -> dict[str, int]:
    """The pipeline's native size in pixels, as arguments for it: {"height": 512, "width": 512} for SD 1.5.

    It is what the denoiser was made for, its `sample_size` in latent cells, times the pixels in a cell.
    Raises TypeError for an object without a U-Net or transformer that tells its size.
    """
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    # FLUX's transformer takes any size, and its pipeline says which one it was made for.
    cells = getattr(getattr(denoiser, "config", None), "sample_size", None) or getattr(pipe, "default_sample_size", None)  # fmt: skip
    if cells is None:
        raise TypeError(
            f"{type(pipe).__name__} has no unet or transformer that tells its size; give a diffusers pipeline,"
            ' as from sdwidgets.load("pocket"), or say height and width yourself'
        )
    height, width = cells if isinstance(cells, (list, tuple)) else (cells, cells)
    return {"height": int(height * pipe.vae_scale_factor), "width": int(width * pipe.vae_scale_factor)}


# ---- demos -----------------------------------------------------------------------------------------------------------


def load_demo(name: str) -> Trace:
    """A recorded run that comes with the course, e.g. "00-astronaut": a section starts from it without a model.

    They lie in `data/demos`, and `python tools/make_demos.py` makes them again. Raises FileNotFoundError and names those
    that there are.
    """
    from .trace import Trace

    there = sorted(path.stem for path in data_folder("demos").glob("*.safetensors"))
    if name not in there:
        raise FileNotFoundError(f"there is no demo {name!r}; there are: {', '.join(there) or 'none'}")
    return Trace.load(data_folder("demos") / f"{name}.safetensors")

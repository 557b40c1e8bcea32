"""What a notebook asks of the model before it: its native size, and whether it is the one whose training pictures are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..parts import native_size
from ..paths import data_folder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

#: What a cell says that needs the truth and has another model before it.
ASIDE = "This cell needs Pocket, whose training pictures are known; with another model it steps aside."


def knows_truth(pipe: DiffusionPipeline) -> bool:
    """Is `pipe` Pocket itself, so that the datasheet tells what it was trained on, and the judge reads its pictures?

    For any other model it prints one sentence and returns False. A model that was trained further is another model.
    """
    name = getattr(pipe, "name_or_path", None)
    if name and Path(name).is_dir() and Path(name).resolve() == data_folder("pocket").resolve():
        return True
    print(ASIDE)
    return False


def size(pipe: DiffusionPipeline) -> dict[str, int]:
    """The pipeline's native size in pixels, as arguments for it: {"height": 512, "width": 512} for SD 1.5.

    Raises TypeError for an object without a U-Net or transformer that tells its size.
    """
    height, width = native_size(pipe)
    return {"height": height, "width": width}

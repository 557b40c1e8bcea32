"""Where the carried data lie: in `data/` of a checkout, or inside the installed package."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(name: str) -> Path:
    """The folder `data/<name>`, e.g. "pocket" or "atlas". Raises FileNotFoundError where neither place has it."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data" / name, package.parent / "data" / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the carried data {name!r} are missing: install sdwidgets again, or clone the whole repository with its data/ folder"
    )


def cache_folder() -> Path:
    """Where checkpoints, cached latents and compiled networks lie: $SDWIDGETS_CACHE, or `sdwidgets` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sdwidgets"
    return Path(os.environ.get("SDWIDGETS_CACHE", default))

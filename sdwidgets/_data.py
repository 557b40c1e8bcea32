"""Where the carried data lie: in `data/` of a checkout, or inside the installed package."""

from __future__ import annotations

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

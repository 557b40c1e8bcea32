"""`python tools/frame_notebooks.py [notebooks ...]`: write into notebooks what depends on where the course is published.

That is the button "Open in Colab" under the title, and the cell tagged `setup`. The address stands in `sdwidgets/course/colab.py`
alone; after a change there, run this.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sdwidgets import course  # noqa: E402


def frame(path: Path) -> None:
    """Renew one notebook's button and set-up. Raises ValueError where it has no title, or not one cell for the set-up."""
    book = nbformat.read(path, as_version=4)
    lines = book.cells[0].source.splitlines()
    if not lines or book.cells[0].cell_type != "markdown" or not lines[0].startswith("# "):
        raise ValueError(f"{path.name} does not start with a markdown cell whose first line is its title, '# ...'")
    setups = [cell for cell in book.cells if "setup" in cell.metadata.get("tags", ())]
    if len(setups) != 1:
        raise ValueError(f"{path.name} has {len(setups)} cells tagged 'setup', and needs one: course.setup_cell()")
    button = course.colab_button(path.resolve().relative_to(ROOT).as_posix())
    rest = [line for line in lines[1:] if "colab-badge" not in line]
    while rest and not rest[0].strip():
        del rest[0]
    book.cells[0].source = "\n".join([lines[0], "", button, "", *rest])
    setups[0].source = course.setup_cell()
    nbformat.write(book, path)


def has_setup(path: Path) -> bool:
    return any("setup" in cell.metadata.get("tags", ()) for cell in nbformat.read(path, as_version=4).cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "notebooks", nargs="*", type=Path, help="default: all of notebooks/, and solutions that have a set-up"
    )
    lessons = sorted((ROOT / "notebooks").glob("*.ipynb"))
    solutions = [path for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")) if has_setup(path)]
    for path in parser.parse_args().notebooks or [*lessons, *solutions]:
        frame(path)


if __name__ == "__main__":
    main()

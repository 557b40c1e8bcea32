"""`python tools/frame_notebooks.py [notebooks ...]`: write into notebooks what follows from elsewhere. Run it after you saved one.

- From where the course is published (`sdwidgets/course/colab.py` alone): the button "Open in Colab", the cell tagged `setup`.
- From the minutes of the slides: the cell tagged `present`, which steps through the cells tagged `stage`.
- From the tags: answers are hidden until they are wanted (`sdwidgets/course/answers.py`), and Colab folds sections without a stage cell.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sdwidgets import course  # noqa: E402
from sdwidgets.course import answers  # noqa: E402


def frame(book: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Renew what stands above in one notebook, in place; `name`: its path in the repository, "notebooks/00_welcome.ipynb".

    Raises ValueError where it has no title, or not one cell for the set-up.
    """
    lines = book.cells[0].source.splitlines()
    if not lines or book.cells[0].cell_type != "markdown" or not lines[0].startswith("# "):
        raise ValueError(f"{name} does not start with a markdown cell whose first line is its title, '# ...'")
    setups = tagged(book, "setup")
    if len(setups) != 1:
        raise ValueError(f"{name} has {len(setups)} cells tagged 'setup', and needs one: course.setup_cell()")
    button = course.colab_button(name)
    rest = [line for line in lines[1:] if "colab-badge" not in line]
    while rest and not rest[0].strip():
        del rest[0]
    book.cells[0].source = "\n".join([lines[0], "", button, "", *rest])
    setups[0].source = course.setup_cell()
    present(book)
    for cell in book.cells:
        answers.hide(cell)
    if tagged(book, "stage"):
        fold_on_colab(book)
    return book


def tagged(book: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in book.cells if tag in cell.metadata.get("tags", ())]


def present(book: nbformat.NotebookNode) -> None:
    """After the set-up of a notebook with slides, the cell that steps through its stage cells, with its slides' minutes."""
    minutes = sum(cell.metadata.get("slide", {}).get("minutes", 0) for cell in book.cells)
    cells = tagged(book, "present")
    if minutes and not cells:
        cells = [nbformat.v4.new_code_cell(id="present", metadata={"tags": ["present", "any-model"]})]
        book.cells.insert(book.cells.index(tagged(book, "setup")[0]) + 1, cells[0])
    for cell in cells:
        cell.source, cell.outputs, cell.execution_count = f"course.stage(minutes={minutes:g})", [], None


HEADING = re.compile(r"(#+) ")


def fold_on_colab(book: nbformat.NotebookNode) -> None:
    """Name the sections that Colab shows folded: those for self-study alone. It finds a heading by the cell's `metadata.id`."""
    folded, depth = [], 9
    for number, cell in enumerate(book.cells):
        if cell.metadata.get("id") == cell.id:
            del cell.metadata["id"]
        heading = HEADING.match(cell.source) if cell.cell_type == "markdown" else None
        if not heading or (level := len(heading[1])) > depth:
            continue
        depth = 9
        if not any("stage" in inner.metadata.get("tags", ()) for inner in section(book.cells, number, level)):
            cell.metadata["id"], depth = cell.id, level  # and those within it go along
            folded.append(cell.id)
    book.metadata.pop("colab", None)
    if folded:
        book.metadata["colab"] = {"collapsed_sections": folded}


def section(cells: list, number: int, level: int) -> list:
    """The cells from this heading to the next one that is no deeper."""
    end = number + 1
    while end < len(cells):
        heading = HEADING.match(cells[end].source) if cells[end].cell_type == "markdown" else None
        if heading and len(heading[1]) <= level:
            break
        end += 1
    return cells[number:end]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "notebooks", nargs="*", type=Path, help="default: all of notebooks/, and solutions that have a set-up"
    )
    lessons = sorted((ROOT / "notebooks").glob("*.ipynb"))
    solutions = [
        path
        for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
        if tagged(nbformat.read(path, as_version=4), "setup")
    ]
    for path in parser.parse_args().notebooks or [*lessons, *solutions]:
        name = path.resolve().relative_to(ROOT).as_posix()
        nbformat.write(frame(nbformat.read(path, as_version=4), name), path)


if __name__ == "__main__":
    main()

"""What tools/frame_notebooks.py writes stands in every notebook, as it follows from tags, minutes and the address."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import frame_notebooks
from tools.frame_notebooks import ROOT, frame, tagged

FRAMED = [
    path for path in sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb")) if ".ipynb_checkpoints" not in path.parts
]
LESSONS = [path for path in FRAMED if path.parent.name == "notebooks"]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", FRAMED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_notebooks_are_in_step(path):
    book = read(path)
    if tagged(book, "setup"):
        before = copy.deepcopy(book)
        assert frame(book, path.relative_to(ROOT).as_posix()) == before, "run tools/frame_notebooks.py"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_its_stage_path_after_the_set_up(path):
    book = read(path)
    (cell,) = tagged(book, "present")
    assert book.cells[book.cells.index(cell) - 1] is tagged(book, "setup")[0]
    minutes = sum(cell.metadata.get("slide", {}).get("minutes", 0) for cell in book.cells)
    assert cell.source == f"course.stage(minutes={minutes:g})" and len(tagged(book, "stage")) > 5


def text(source: str, tag: str) -> nbformat.NotebookNode:
    return new_markdown_cell(source, metadata={"tags": [tag]}, id=source.strip("# ").lower())


def test_colab_folds_sections_without_a_stage_cell():
    cells = [
        text("# Title", "stage"), new_code_cell(metadata={"tags": ["setup"]}, id="setup"),
        text("## One", "stage"), text("### Aside", "self-study"), text("### Shown", "stage"),
        text("## Two", "self-study"), text("### Within", "self-study"), text("# Last", "self-study"),
        text("## Mixed", "self-study"), text("x", "stage"),
    ]  # fmt: skip
    book = frame(new_notebook(cells=cells), "notebooks/x.ipynb")
    folded = ["aside", "two"]
    assert book.metadata.colab == {"collapsed_sections": folded}
    assert [cell.id for cell in book.cells if cell.metadata.get("id")] == folded
    cells[5].metadata.tags = ["stage"]
    assert frame(book, "notebooks/x.ipynb").metadata.colab.collapsed_sections == ["aside", "within"]
    assert "id" not in cells[5].metadata


def test_a_notebook_without_slides_gets_no_stage_path():
    book = new_notebook(cells=[text("# Title", "stage"), new_code_cell(metadata={"tags": ["setup"]})])
    assert not tagged(frame(book, "notebooks/x.ipynb"), "present")


def test_a_missing_set_up_is_named():
    with pytest.raises(ValueError, match="x.ipynb has 0 cells tagged 'setup'"):
        frame_notebooks.frame(new_notebook(cells=[text("# Title", "stage")]), "notebooks/x.ipynb")

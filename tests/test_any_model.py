"""The notebooks on other models than Pocket: tiny random pipelines of the shapes of SD 1.5 and SDXL, through real kernels.

In each notebook the cells tagged `setup`, `model` and `any-model` are run in order, with another MODEL; cells tagged `needs-truth`
are run too, and have to step aside with their one sentence.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from sdwidgets import course
from tests import tiny

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
RUN = {"setup", "model", "any-model", "needs-truth"}
SHARE = 0.6  # of a notebook's code cells that run on any model


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def lesson_cells(book) -> list:
    """The code cells, without the set-up, the choice of the model, and what stands under "Exercises"."""
    found, section = [], ""
    for cell in book.cells:
        headings = re.findall(r"^## +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        section = headings[-1] if headings else section
        if (
            cell.cell_type == "code"
            and not section.startswith("Exercises")
            and not tags(cell) & {"setup", "model", "exercise"}
        ):
            found.append(cell)
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Saved pipelines by family, as a learner's own model would lie on disk."""
    made = {}
    for family in ("sd", "sdxl"):
        made[family] = tmp_path_factory.mktemp(family)
        tiny.pipeline(family).save_pretrained(made[family], safe_serialization=True)
    return made


def on_another_model(book, folder: Path):
    """The notebook's cells that have to run there, with `folder` for its MODEL."""
    (model,) = [cell for cell in book.cells if "model" in tags(cell)]
    model.source, count = re.subn(r"^MODEL *= *.*$", f"MODEL = {str(folder)!r}", model.source, flags=re.MULTILINE)
    assert count == 1, "the cell tagged 'model' sets MODEL in one line"
    book.cells = [cell for cell in book.cells if cell.cell_type == "code" and tags(cell) & RUN]
    return book


def said(cell) -> tuple[str, list]:
    """What a cell printed, and its other outputs."""
    printed = "".join(out.text for out in cell.outputs if out.output_type == "stream")
    return printed.strip(), [out for out in cell.outputs if out.output_type != "stream"]


def test_there_are_notebooks():
    assert {path.name[:2] for path in NOTEBOOKS} >= {"00", "01", "02", "03"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_most_cells_run_on_any_model(path):
    cells = lesson_cells(nbformat.read(path, as_version=4))
    fit = [cell for cell in cells if "any-model" in tags(cell)]
    assert len(fit) >= SHARE * len(cells), f"{len(fit)} of {len(cells)} code cells are tagged any-model"
    assert not [cell for cell in fit if "needs-truth" in tags(cell)], "a cell is one or the other"


@pytest.mark.weekly
@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_do(path, family, folders):
    book = on_another_model(nbformat.read(path, as_version=4), folders[family])
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}).execute()
    for cell in book.cells:
        if "needs-truth" in tags(cell):
            assert said(cell) == (course.ASIDE, []), f"this cell does not step aside:\n{cell.source}"
        elif "setup" in tags(cell):
            assert said(cell) == ("", []), "the set-up says nothing away from Colab"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_opens_in_colab_under_its_own_address(path):
    book = nbformat.read(path, as_version=4)
    own = course.colab_address(path.relative_to(ROOT).as_posix())
    assert own.endswith(f"/notebooks/{path.name}")
    assert book.cells[0].source.count(course.colab_button(path.relative_to(ROOT).as_posix())) == 1
    elsewhere = set(re.findall(r"https://colab\.research\.google\.com/[^\s)]*\.ipynb", nbformat.writes(book))) - {own}
    assert not elsewhere, "the address stands in sdwidgets/course/colab.py: run tools/frame_notebooks.py"
    (setup,) = [cell for cell in book.cells if "setup" in tags(cell)]
    assert setup.source == course.setup_cell(), "run tools/frame_notebooks.py"
    assert [cell for cell in book.cells if cell.cell_type == "code"][0] is setup

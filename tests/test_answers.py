"""Predictions: what the tag `answer` does to a cell, and that no notebook gives an answer away."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sdwidgets.course import answers

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))
PRINTED = new_output("stream", text="the answer\n")


def hidden(cell):
    answers.hide(cell)
    nbformat.validate(new_notebook(cells=[cell]))
    return cell


def test_a_stored_output_is_hidden_and_its_first_line_too():
    cell = hidden(new_code_cell("print()", outputs=[PRINTED], metadata={"tags": ["answer"]}))
    assert cell.metadata.collapsed and cell.metadata.jupyter["outputs_hidden"]
    assert "answer" not in cell.outputs[0].data["text/plain"].removeprefix(answers.LABEL)
    assert answers.outputs(cell) == [PRINTED]
    once = copy.deepcopy(cell)
    assert hidden(cell) == once, "hiding twice is hiding once"
    cell.metadata.tags = []
    assert hidden(cell).outputs == [PRINTED] and set(cell.metadata) == {"tags"}, (
        "without the tag nothing is left of it"
    )


def test_nbval_compares_what_a_checked_cell_printed_and_not_the_cover():
    cell = hidden(new_code_cell("# NBVAL_CHECK_OUTPUT\nprint()", outputs=[PRINTED], metadata={"tags": ["answer"]}))
    assert set(cell.outputs[0].data) == {"image/png"}, "the one kind of data that nbval leaves out"


def test_a_cell_that_has_not_run_and_one_that_is_no_answer_stay():
    for cell in (new_code_cell("1", metadata={"tags": ["answer"]}), new_code_cell("1", outputs=[PRINTED])):
        before = copy.deepcopy(cell)
        assert hidden(cell) == before
    mine = new_code_cell("1", outputs=[PRINTED], metadata={"tags": ["answer"], "jupyter": {"source_hidden": True}})
    assert hidden(mine).metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}


def test_a_text_is_folded_where_markdown_is_shown():
    cell = hidden(new_markdown_cell("It *is*.\n\nSo.", metadata={"tags": ["answer"]}))
    assert cell.source == "<details><summary>The answer in words</summary>\n\nIt *is*.\n\nSo.\n\n</details>"
    once = cell.source
    assert hidden(cell).source == once
    cell.metadata.tags = []
    assert hidden(cell).source == "It *is*.\n\nSo."


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_prediction_has_a_hidden_answer(path):
    """Below it, and before the next prediction."""
    cells = nbformat.read(path, as_version=4).cells
    asking = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and "**Predict" in cell.source]
    assert len(asking) >= 5
    sections = [i for i, cell in enumerate(cells) if cell.source.startswith("## ")] + [len(cells)]
    for number, end in zip(asking, [*asking[1:], len(cells)], strict=True):
        source, start = cells[number].source, number + 1
        if later := re.search(r"Hold your answer until section (\d+)\.", source):
            start, end = next(
                pair for pair in pairwise(sections) if cells[pair[0]].source.startswith(f"## {later[1]} ")
            )
        found = [cell for cell in cells[start:end] if answers.is_answer(cell)]
        assert found, f"tag the answer to: {source[source.index('**Predict') :]}"
        assert not answers.is_answer(cells[number]), "a prediction is not to be hidden itself"

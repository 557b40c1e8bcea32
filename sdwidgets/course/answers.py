"""Predictions whose answers are hidden until they are wanted.

The tag `answer` is the one source: of a code cell its stored output is the answer, of a markdown cell its text. `hide` writes what
notebook programs need: JupyterLab and Notebook hide a stored output until the cell is run or the line is clicked, Colab its output; a
text folds wherever markdown is shown. `tools/make_site.py` and `tools/make_slides.py` read the tag themselves.
"""

from __future__ import annotations

import re
from typing import Any

TAG = "answer"
LABEL = "Show the answer"  # of an output
WORDS = "The answer in words"  # of a text, which stands below it

#: one transparent pixel, a PNG in base64
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
_FOLDED = re.compile(r"<details><summary>.*?</summary>\n\n(.*)\n\n</details>", re.DOTALL)


def is_answer(cell: Any) -> bool:
    return TAG in cell["metadata"].get("tags", ())


def hide(cell: Any) -> None:
    """Hide what an answer says, and show what is none; a cell of nbformat, changed in place. Hiding twice is hiding once."""
    if cell["cell_type"] == "markdown":
        folded = _FOLDED.fullmatch(cell["source"])
        text = folded[1] if folded else cell["source"]
        cell["source"] = f"<details><summary>{WORDS}</summary>\n\n{text}\n\n</details>" if is_answer(cell) else text
    elif cell["cell_type"] == "code":
        about, shown = cell["metadata"], outputs(cell)
        jupyter = about.setdefault("jupyter", {})
        if is_answer(cell) and shown:
            about["collapsed"] = jupyter["outputs_hidden"] = True
            shown = [_cover(cell), *shown]
        else:
            about.pop("collapsed", None)
            jupyter.pop("outputs_hidden", None)
        if not jupyter:
            del about["jupyter"]
        cell["outputs"] = shown


def outputs(cell: Any) -> list:
    """What a code cell put out, without the cover."""
    return [output for output in cell["outputs"] if output.get("data", {}).get("image/png", "").strip() != _PIXEL]


def _cover(cell: Any) -> Any:
    """An output that shows nothing, to stand first: of outputs that it hides JupyterLab shows the first line, which may be the answer.

    nbval compares text and no pictures, so a cell whose output it checks has a cover without text.
    """
    from nbformat.v4 import new_output

    text = {} if "NBVAL_CHECK_OUTPUT" in cell["source"] else {"text/plain": LABEL}
    return new_output("display_data", {"image/png": _PIXEL, **text})

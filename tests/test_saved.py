"""What widgets leave in a notebook for where no kernel runs."""

from __future__ import annotations

import base64
import io
import os
import re

import nbclient
import nbconvert
import nbformat
import numpy as np
import pytest
from PIL import Image

from sdwidgets.trace_io import extract_trace
from sdwidgets.widgets.playground.widget import Playground
from sdwidgets.widgets.saved import LeavesPage
from tests import tiny
from tests.test_playground import SECONDS
from tools.clean_notebooks import LARGE, VIEW, clean, smaller

CELLS = (
    "from tests import tiny; import sdwidgets; from sdwidgets.widgets.playground.widget import Playground; pipe = tiny.pipeline('sd')",
    "play = Playground(pipe, num_inference_steps=3); play",
    "_ = play.run(prompt='a <b>cat</b>', seed=3).wait(600); sdwidgets.Replay(play.trace).widget()",
    "Playground(pipe, autorun=False)",
)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A notebook that was run, with its Playground's second run made by another cell."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": os.getcwd()}}
    ).execute()
    return book


def outputs(book, number: int) -> list[dict]:
    return [output["data"] for output in book.cells[number].outputs if "data" in output]


@pytest.mark.slow
def test_a_cell_has_its_widget_and_what_outlives_it(book):
    widget, saved = outputs(book, 1)
    assert VIEW in widget and widget["text/html"] == ""
    assert VIEW not in saved and "image/jpeg" in saved and "a &lt;b&gt;cat" in saved["text/html"]
    assert (
        "to change it, run the notebook" in saved["text/html"]
        and "to use it, run the notebook" in outputs(book, 3)[1]["text/html"]
    )
    assert [VIEW in data for data in outputs(book, 2)] == [True, False]
    names = {
        data["text/html"].split('data-sdwidgets-saved="')[1].split('"')[0]
        for n in (1, 2, 3)
        for data in outputs(book, n)[1:]
    }
    assert len(names) == 3  # each widget's own


@pytest.mark.slow
def test_a_page_without_a_kernel_has_the_run_and_nothing_broken(book):
    """Also where no state of widgets was stored."""
    book = nbformat.from_dict(book)
    book.metadata.pop("widgets", None)
    page, _ = nbconvert.HTMLExporter(embed_images=True).from_notebook_node(book)
    assert "Replay" in page and "&lt;Playground" not in page and "Playground object" not in page


@pytest.mark.slow
def test_cleaning_keeps_what_outlives_the_widget(book, tmp_path):
    nbformat.write(book, tmp_path / "a.ipynb")
    clean(tmp_path / "a.ipynb")
    cleaned = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert "widgets" not in cleaned.metadata
    assert [len(outputs(cleaned, n)) for n in (1, 2, 3)] == [1, 1, 1] and VIEW not in str(cleaned)


def test_a_playground_writes_its_page(tmp_path):
    play = Playground(tiny.pipeline("sd"), num_inference_steps=2, autorun=False)
    with pytest.raises(RuntimeError, match="no picture yet"):
        play.export_html(tmp_path / "a.html")
    trace = play.run(prompt="a cat").wait(SECONDS)
    page = play.export_html(tmp_path / "a.html")
    assert (extract_trace(page).images == trace.images).all() and isinstance(play, LeavesPage)
    play.close()


@pytest.mark.slow
def test_a_long_race_says_how_far_it_is_and_leaves_no_line(monkeypatch):
    cells = (
        CELLS[0] + "\nfrom sdwidgets.widgets import progress; progress.PATIENCE = progress.PAUSE = 0",
        "view = sdwidgets.race(pipe, 'a cat', schedulers=('DDIM', 'Euler'), num_inference_steps=3, reference=None, height=64, width=64)",
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": os.getcwd()}}
    )
    shown = []
    process = client.process_message

    def watch(message, *args):
        if message["msg_type"] in ("display_data", "update_display_data"):
            shown.append(message["content"]["data"]["text/html"])
        return process(message, *args)

    monkeypatch.setattr(client, "process_message", watch)
    client.execute()
    seen = [re.search(r"(DDIM|Euler): step (\d) of 6$", line).groups() for line in shown[:-1]]
    assert seen == [("DDIM" if step < 4 else "Euler", str(step)) for step in range(1, 7)] and shown[-1] == ""
    assert [output.output_type for output in book.cells[1].outputs] == ["display_data"]


def test_large_pictures_are_stored_in_full_colour_and_plots_without_loss():
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).resize((400, 400), Image.Resampling.BICUBIC)
    plot = Image.new("RGB", (400, 400), "white")
    plot.paste((200, 30, 10), (50, 50, 300, 60))

    def stored(picture):
        file = io.BytesIO()
        picture.save(file, "PNG")
        ((kind, data),) = smaller(base64.b64encode(file.getvalue()).decode()).items()
        return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float), len(data)

    kind, pixels, size = stored(photo)
    assert kind == "image/jpeg" and LARGE < size and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5000
    assert np.abs(pixels - np.asarray(photo, float)).mean() < 3
    kind, pixels, _ = stored(plot)
    assert kind == "image/png" and np.array_equal(pixels, np.asarray(plot, float))

"""The stage path in JupyterLab, by hand and key; and answers, which JupyterLab keeps hidden until they are wanted."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sdwidgets.course import answers, stage_path
from tests.browser.conftest import eventually

ANSWER = "forty-two"
STAGE = {"tags": ["stage"]}


def a_talk() -> nbformat.NotebookNode:
    """Eight sections, each a stage cell and a longer one that is not; in the last a prediction with its answer."""
    cells = [new_markdown_cell("# A talk", metadata=STAGE)]
    cells += [new_code_cell("from sdwidgets import course\ncourse.stage(minutes=2)", metadata={"tags": ["present"]})]
    for i in range(8):
        cells += [
            new_markdown_cell(f"## Section {i}", metadata=STAGE),
            new_markdown_cell(f"rest {i}\n\n" + "x\n\n" * 12),
        ]
    output = new_output("stream", text=f"{ANSWER}\nis what it says\n")
    cells += [new_code_cell(f"print('{ANSWER}')", outputs=[output], metadata={"tags": ["stage", "answer"]})]
    cells += [new_markdown_cell(f"It is {ANSWER}, *of course*.", metadata={"tags": ["stage", "answer"]})]
    for cell in cells:
        answers.hide(cell)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture
def talk(labs, new_page):
    """That notebook in JupyterLab, with its second cell run and Present in view. `windowing`: which cells JupyterLab keeps on its page."""
    lab = labs("current")
    settings = Path(lab.environment["JUPYTER_CONFIG_DIR"], "lab", "user-settings", "@jupyterlab", "notebook-extension")
    settings.mkdir(parents=True, exist_ok=True)
    file = settings / "tracker.jupyterlab-settings"

    def show(windowing: str = "contentVisibility", **options):
        page = new_page(**options)
        file.write_text(json.dumps({"windowingMode": windowing}))
        nbformat.write(a_talk(), lab.folder / "talk.ipynb")
        lab.show(page, "talk")
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
        page.evaluate("() => void jupyterapp.commands.execute('notebook:run-cell')")
        return page

    yield show
    file.unlink(missing_ok=True)


def selected(page) -> str:
    """The first line of the cell that JupyterLab has selected."""
    return page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.source.split('\\n')[0]"
    )


def in_view(page) -> bool:
    """Whether the selected cell begins within the notebook, above the bar."""
    return page.evaluate(
        """() => { const cell = document.querySelector(".jp-Cell.jp-mod-active").getBoundingClientRect();
        const notebook = document.querySelector(".jp-NotebookPanel-notebook").getBoundingClientRect();
        const bar = document.querySelector(".sdwidgets-stage").getBoundingClientRect();
        return cell.top >= notebook.top - 2 && cell.top < bar.top; }"""
    )


def shown_cells(page) -> list[str]:
    """First lines of the cells that are on the page and not hidden."""
    return page.evaluate(
        """() => jupyterapp.shell.currentWidget.content.widgets.filter((cell) => cell.node.isConnected && cell.node.offsetParent)
        .map((cell) => cell.model.sharedModel.source.split("\\n")[0])"""
    )


def press(page, key: str, expected: str) -> None:
    page.keyboard.press(key)
    assert eventually(page, lambda: selected(page) == expected and in_view(page), 20), selected(page)


def present(page):
    page.get_by_role("button", name="Present").click()
    bar = page.get_by_role("toolbar", name="Stage path")
    assert eventually(page, lambda: selected(page) == "## Section 0")
    return bar


@pytest.mark.parametrize("windowing", ["contentVisibility", pytest.param("full", marks=pytest.mark.weekly)])
def test_a_key_goes_from_stage_cell_to_stage_cell(talk, windowing):
    page = talk(windowing)
    bar = present(page)
    assert bar.get_by_role("status").inner_text() == "Stage cell 2 of 11"
    for i in range(1, 8):
        press(page, "PageDown", f"## Section {i}")
    press(page, "PageUp", "## Section 6")
    assert bar.get_by_role("status").inner_text() == "Stage cell 8 of 11"
    press(page, "PageUp", "## Section 5")
    page.evaluate(  # as a learner does: in between, and never saved
        """() => { const { content } = jupyterapp.shell.currentWidget;
        content.model.sharedModel.insertCell(content.activeCellIndex + 1, { cell_type: "markdown", source: "mine" }); }"""
    )
    press(page, "PageDown", "## Section 6")
    press(page, "PageDown", "## Section 7")
    press(page, "PageDown", f"print('{ANSWER}')")
    assert page.errors == []


def test_the_rest_is_hidden_and_comes_back(talk):
    page = talk()
    bar = present(page)
    press(page, "PageDown", "## Section 1")
    saved = page.evaluate("() => JSON.stringify(jupyterapp.shell.currentWidget.model.toJSON())")
    bar.get_by_role("button", name="Hide the rest").click()
    assert eventually(page, lambda: not any("rest" in line for line in shown_cells(page)))
    path = [
        "# A talk",
        *(f"## Section {i}" for i in range(8)),
        f"print('{ANSWER}')",
        "<details><summary>The answer in words</summary>",
    ]
    assert eventually(page, lambda: shown_cells(page) == path), shown_cells(page)
    page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.model.sharedModel.insertCell(4, { cell_type: 'markdown', source: 'mine' })"
    )
    assert eventually(page, lambda: shown_cells(page) == path), shown_cells(page)
    page.evaluate("() => jupyterapp.shell.currentWidget.content.model.sharedModel.deleteCell(4)")
    press(page, "PageDown", "## Section 2")
    bar.get_by_role("button", name="Leave").click()
    assert eventually(page, lambda: len(shown_cells(page)) == 20), shown_cells(page)
    assert page.locator(".sdwidgets-stage").count() == 0
    assert page.evaluate("() => JSON.stringify(jupyterapp.shell.currentWidget.model.toJSON())") == saved
    page.keyboard.press("PageDown")
    page.wait_for_timeout(300)
    assert selected(page) == "## Section 2", "the key is JupyterLab's again"


def test_the_cell_that_is_reached_runs_by_jupyterlabs_own_key(talk):
    """Also from within an editor, and it shows its answer then."""
    page = talk()
    present(page)
    page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 1; }")
    page.locator(".jp-CodeCell .cm-content").first.click()  # typing
    for i in range(8):
        press(page, "PageDown", f"## Section {i}")
    press(page, "PageDown", f"print('{ANSWER}')")
    output = page.locator(".jp-CodeCell").last.locator(".jp-Cell-outputWrapper")
    assert output.inner_text().strip() == answers.LABEL, "its stored answer is hidden"
    page.keyboard.press("Control+Enter")
    assert eventually(page, lambda: ANSWER in output.inner_text())
    text = page.locator(".jp-MarkdownCell").last.locator(".jp-RenderedMarkdown")
    assert not text.get_by_text(ANSWER).is_visible()
    text.get_by_text(answers.WORDS).click()
    assert text.get_by_text(ANSWER).is_visible() and text.locator("em").inner_text() == "of course"


def test_a_hidden_answer_is_shown_by_a_click_too(talk):
    page = talk()
    page.evaluate(
        "() => { const { content } = jupyterapp.shell.currentWidget; content.activeCellIndex = 18; content.scrollToItem(18); }"
    )
    output = page.locator(".jp-CodeCell").last.locator(".jp-Cell-outputWrapper")
    assert eventually(page, lambda: output.inner_text().strip() == answers.LABEL)
    output.locator(".jp-OutputPlaceholder .jp-Placeholder-content").click()
    assert eventually(page, lambda: f"{ANSWER}\nis what it says" in output.inner_text())


def test_minutes_count_down_and_pause(talk):
    page = talk()
    time = present(page).get_by_role("timer")
    assert eventually(page, lambda: time.inner_text() < "1:59 left")
    page.get_by_role("button", name="Pause").click()
    stopped = time.inner_text()
    page.wait_for_timeout(1500)
    assert time.inner_text() == stopped
    page.get_by_role("button", name="Go on").click()
    assert eventually(page, lambda: time.inner_text() < stopped)
    page.evaluate(
        """() => { const now = performance.now.bind(performance); performance.now = () => now() + 125000; }"""
    )
    assert eventually(page, lambda: time.inner_text().endswith(" over"))
    assert time.get_attribute("data-near") is not None
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    press(page, "PageDown", "## Section 1")


def test_a_notebook_without_stage_cells_says_so(labs, new_page):
    page = labs("current").open(new_page(), "none", "from sdwidgets import course\ncourse.stage(minutes=2)")
    page.get_by_role("button", name="Present").click()
    assert eventually(page, lambda: page.get_by_text("No cell of this notebook is tagged stage").is_visible())
    assert page.locator(".sdwidgets-stage").count() == 0


def test_elsewhere_it_is_one_sentence(new_page):
    """A page that is no JupyterLab: Colab's output, VS Code."""
    page = new_page()
    page.evaluate(
        """async ([script, sentence]) => {
        const { default: widget } = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
        widget.render({ model: { get: () => sentence }, el: document.body }); }""",
        [Path(stage_path.__file__).with_suffix(".js").read_text("utf-8"), stage_path.ELSEWHERE],
    )
    assert page.get_by_text(stage_path.ELSEWHERE).is_visible() and page.get_by_role("button").count() == 0

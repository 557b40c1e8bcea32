"""A newcomer's first ten minutes: notebook 00 in JupyterLab, by hand and key, cell after cell.

SDWIDGETS_PICTURES=FOLDER keeps a picture of the page at each stop, to be looked at.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.conftest import REPOSITORY, eventually, pixels

CELLS = "jupyterapp.shell.currentWidget.content.widgets"
SOURCE = "(id) => jupyterapp.shell.currentWidget.content.widgets.find((cell) => cell.model.sharedModel.id === id)"


class Newcomer:
    """Somebody at notebook 00 who presses Shift+Enter, uses what comes, and reads what it says."""

    def __init__(self, lab, page):
        self.page, self.stops = page, 0
        shutil.copy(REPOSITORY / "notebooks" / "00_welcome.ipynb", lab.folder / "welcome.ipynb")
        lab.show(page, "welcome")
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")

    def cell(self, identity: str):
        """The cell of this id, scrolled into view."""
        self.page.evaluate(
            f"async (id) => jupyterapp.shell.currentWidget.content.scrollToCell(({SOURCE})(id))", identity
        )
        number = self.page.evaluate(f"(id) => {CELLS}.findIndex((cell) => cell.model.sharedModel.id === id)", identity)
        return self.page.locator(f'.jp-Cell[data-windowed-list-index="{number}"]')

    def type(self, identity: str, old: str, new: str) -> None:
        """Change the text of a cell."""
        change = f"([id, old, text]) => {{ const model = ({SOURCE})(id).model.sharedModel; model.source = model.source.replace(old, text); }}"
        self.page.evaluate(change, [identity, old, new])

    def run_to(self, identity: str) -> str:
        """Shift+Enter until this cell has run; returns the text of its outputs."""
        at = f"(id) => {CELLS}.findIndex((cell) => cell.model.sharedModel.id === id)"
        index = "jupyterapp.shell.currentWidget.content.activeCellIndex"
        for number in range(self.page.evaluate(index), self.page.evaluate(at, identity) + 1):
            self.page.keyboard.press("Shift+Enter")
            self.page.wait_for_function(f"(number) => {index} > number", arg=number)
        return self.output(identity)

    def run_again(self, identity: str) -> str:
        """Ctrl+Enter on this cell; returns the text of its outputs."""
        at = f"(id) => {{ const notebook = jupyterapp.shell.currentWidget.content; notebook.activeCellIndex = notebook.widgets.indexOf(({SOURCE})(id)); notebook.activate(); }}"
        self.page.evaluate(at, identity)
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+Enter")
        return self.output(identity)

    def output(self, identity: str) -> str:
        """The text that a cell put out, once it has run; fails where it stopped with an error."""
        state = f"(id) => {{ const cell = ({SOURCE})(id); return cell.promptNode?.textContent; }}"
        assert eventually(self.page, lambda: "[*]" not in (self.page.evaluate(state, identity) or "[*]"))
        stored = f"(id) => ({SOURCE})(id).model.outputs.toJSON()"
        outputs = self.page.evaluate(stored, identity)
        assert not [one for one in outputs if one["output_type"] == "error"], outputs
        return "".join(str(one.get("text") or one.get("data", {}).get("text/plain", "")) for one in outputs)

    def look(self, name: str) -> None:
        """Keep a picture of the page, where somebody wants to see it."""
        self.stops += 1
        if folder := os.environ.get("SDWIDGETS_PICTURES"):
            self.page.wait_for_timeout(400)
            self.page.screenshot(path=Path(folder, f"{self.stops:02d}-{name}.png"))


@pytest.mark.slow
def test_a_newcomers_first_ten_minutes(labs, new_page):
    page = new_page(1440, 900)
    reader = Newcomer(labs("current"), page)
    reader.look("opened, nothing run")

    # the first picture, and one of their own
    reader.run_to("c04")
    card = reader.cell("c04").locator(".card.playground")

    def done() -> bool:
        return card.evaluate("card => !card.matches('.empty,[aria-busy=true]')")

    card.wait_for()
    assert eventually(page, done)
    reader.look("the first picture")
    first, hero = pixels(card.locator(".hero canvas")), card.locator(".hero canvas")
    card.get_by_role("textbox", name="Prompt", exact=True).fill("a doctor on a pink background")
    card.get_by_role("button", name="Generate").click()
    assert eventually(page, lambda: done() and pixels(hero) != first)
    reader.look("a doctor on pink")
    card.get_by_role("textbox", name="Prompt", exact=True).fill("a dragon on a pink background")
    assert eventually(page, lambda: "dragon" in card.locator(".offers[role=status]").inner_text())
    reader.look("a word that it never saw")
    card.get_by_role("slider", name="Step", exact=True).press("Home")
    reader.look("the first step")

    # the same in code, what diffusion is, what is random
    reader.cell("c11").click()
    assert "seconds" in reader.run_to("c12")
    reader.cell("c12")
    reader.look("the same in code")
    reader.run_to("diffusion-2")
    reader.cell("diffusion-2")
    reader.look("what diffusion is")
    assert "same seed, same picture: True" in reader.run_to("c17")
    reader.cell("c16")
    reader.look("seeds")

    # which step: only the first is shown until they go on
    reader.run_to("c22")
    replay = reader.cell("c22").locator(".card")
    step, picture = replay.get_by_role("slider", name="Step", exact=True), replay.locator(".hero canvas")
    assert eventually(
        page, lambda: step.get_attribute("aria-valuetext") and "step 1 of 20" in step.get_attribute("aria-valuetext")
    )
    reader.look("step 1")
    start = pixels(picture)
    step.press("End")
    assert eventually(page, lambda: pixels(picture) != start)
    reader.look("step 20")

    # an exercise: untouched, wrong, right
    reader.cell("c47").click()
    reader.run_again("c11")
    assert "Your turn" in reader.run_again("c47")
    reader.type("c47", "A=..., B=..., C=..., D=...", "A=True, B=True, C=False, D=True")
    assert "Look again at A" in reader.run_again("c47")
    reader.look("a wrong answer")
    reader.type("c47", "A=True", "A=False")
    assert "Right." in reader.run_again("c47")
    reader.look("a right answer")
    assert page.errors == []

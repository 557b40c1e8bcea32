"""How many pictures a second the Playground's live mode shows: a real JupyterLab, a real Chromium, a hand that types and drags.

A section of `python -m bench`; alone: `python -m bench --only live`. Browser and server share the machine's cores with the model,
as they do on a laptop. Needs what the browser tests need (`pip install sdwidgets[dev]` and a Chromium).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.harness import summary

CELLS = """
from pathlib import Path
from bench.cpu import Pipelines
from sdwidgets import Playground
play = Playground(Pipelines(Path({folder!r}))[{way!r}])
play
"""

#: Notes when the hand moved something, and when a live picture stood on the page.
WATCH = """card => {
  window.moves = [];
  window.frames = [];
  card.addEventListener("input", () => window.moves.push(performance.now()), true);
  new MutationObserver(() => requestAnimationFrame(() => window.frames.push(performance.now())))
    .observe(card, { attributes: true, attributeFilter: ["data-live"] });
}"""
WORDS = "an astronaut to the left of a red circle on a green background, seen from far away "


def live(model: Path, way: str, seconds: float) -> dict:
    """Pictures a second while a hand types and drags without rest, and how long the last picture then is awaited.

    `model`: its folder. `way`: a name of `bench.cpu.Pipelines`. Returns for "typing" and "dragging": `moves` and `pictures` a second, `milliseconds` between pictures, and `last`, the milliseconds from the last move to its own picture.
    Raises ImportError or FileNotFoundError where there is no playwright or no Chromium.
    """
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import Page, find_chromium, running_lab

    cells = CELLS.format(folder=str(model), way=way)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = find_chromium(playwright)
        if path is None:
            raise FileNotFoundError("no Chromium: install one, or name it in CHROMIUM")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with running_lab(sys.executable, Path(folder)) as lab:
            page = lab.open(
                Page(chromium.new_context(viewport={"width": 1300, "height": 1000})), "live", cells
            )
            page.set_default_timeout(120_000)
            card = page.locator(".card").first
            card.get_by_role("switch", name="Live").check()
            _wait(page, lambda: int(card.get_attribute("data-live") or 0) > 0)
            card.evaluate(WATCH)
            found = {}
            for hand, move in (("typing", _type), ("dragging", _drag)):
                page.wait_for_timeout(2000)
                page.evaluate("() => { window.moves = []; window.frames = []; }")
                move(page, card, seconds)
                page.wait_for_function("() => window.frames.at(-1) > window.moves.at(-1)")
                page.wait_for_timeout(2000)  # that one may have been of an earlier move
                found[hand] = _figures(*page.evaluate("() => [window.moves, window.frames]"))
        chromium.close()
    return found


def _wait(page, check, seconds: float = 120) -> None:
    for _ in range(int(seconds * 10)):
        if check():
            return
        page.wait_for_timeout(100)
    raise TimeoutError("no live picture came")


def _type(page, card, seconds: float) -> None:
    """Thirty letters a second, several times as fast as a person types, so that the pictures are what limits."""
    box = card.get_by_role("textbox", name="Prompt", exact=True)
    box.fill("")
    count = int(seconds * 30)
    box.press_sequentially((WORDS * (count // len(WORDS) + 1))[:count], delay=33)


def _drag(page, card, seconds: float) -> None:
    """To and fro over the whole length of the seed's slider."""
    slider = card.get_by_role("slider", name="Seed", exact=True)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    left, width, middle = box["x"] + 8, box["width"] - 16, box["y"] + box["height"] / 2
    page.mouse.move(left, middle)
    page.mouse.down()
    for n in range(int(seconds * 30)):
        part = abs((n / 45) % 2 - 1)  # three seconds there and back
        page.mouse.move(left + width * part, middle)
        page.wait_for_timeout(33)
    page.mouse.up()


def _figures(moves: list[float], frames: list[float]) -> dict:
    """Of moments in milliseconds."""
    during = [frame for frame in frames if moves[0] <= frame <= moves[-1]]
    span = (moves[-1] - moves[0]) / 1000
    gaps = [after - before for before, after in zip(during, during[1:], strict=False)]
    return {
        "moves": len(moves) / span,
        "pictures": len(during) / span,
        "milliseconds": summary(gaps) if gaps else None,
        "last": frames[-1] - moves[-1],
    }

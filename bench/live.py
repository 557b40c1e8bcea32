"""What a person sees in a real JupyterLab in a real Chromium: the live mode under a hand that types and drags, and the first start.

Two sections of `python -m bench`; alone: `python -m bench --only live lab`. Browser and server share the machine's cores with the model,
as they do on a laptop. Needs what the browser tests need (`pip install sdwidgets[dev]` and a Chromium).
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.harness import bootstrap, summary

CELLS = """
from pathlib import Path
from bench.ways import Pipelines
from sdwidgets import Playground
play = Playground(Pipelines(Path({folder!r}))[{way!r}])
play
"""

WATCH = Path(__file__).with_name("watch.js").read_text(encoding="utf-8")
WORDS = "an astronaut to the left of a red circle on a green background, seen from far away "


@contextlib.contextmanager
def _chromium():
    """A browser's new page. ImportError or FileNotFoundError where there is no playwright or no Chromium."""
    from playwright.sync_api import sync_playwright

    from sdwidgets.loading.doctor import find_browser
    from tests.browser.conftest import Page

    with sync_playwright() as playwright:
        path = find_browser()
        if path is None:
            raise FileNotFoundError("no Chromium: install one, or name it in CHROMIUM")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield Page(chromium.new_context(viewport={"width": 1300, "height": 1000}))
        finally:
            chromium.close()


def live(model: Path, way: str, seconds: float) -> dict:
    """Pictures a second while a hand types and drags without rest, how old they are, and how long the last one then is awaited.

    `model`: its folder. `way`: a name of `bench.ways.Pipelines`. Returns what `_figures` does for "typing" and "dragging".
    Raises ImportError or FileNotFoundError where there is no playwright or no Chromium, RuntimeError where the picture that stays
    is not that of the last settings.
    """
    from tests.browser.conftest import running_lab

    cells = CELLS.format(folder=str(model), way=way)
    figures = {}
    with tempfile.TemporaryDirectory() as folder, _chromium() as page, running_lab(sys.executable, Path(folder)) as lab:  # fmt: skip
        page = lab.open(page, "live", cells)
        page.set_default_timeout(120_000)
        card = page.locator(".card.playground")
        card.get_by_role("switch", name="Live").check()
        page.wait_for_function("card => card.dataset.live > 0", arg=card.element_handle())
        card.evaluate(WATCH)
        for hand, move in (("typing", _type), ("dragging", _drag)):
            page.wait_for_timeout(2000)
            page.evaluate("() => { window.moves = []; window.sent = []; window.frames = []; }")
            move(page, card, seconds)
            page.wait_for_function("() => window.frames.at(-1)?.live >= window.sent.at(-1)?.live && window.sent.at(-1).time >= window.moves.at(-1)")  # fmt: skip
            page.wait_for_timeout(2000)  # nothing may come after it
            moves, sent, frames = page.evaluate("() => [window.moves, window.sent, window.frames]")
            there = {name: card.get_by_role("textbox", name=label, exact=True).input_value() for name, label in (("prompt", "Prompt"), ("seed", "Seed"))}  # fmt: skip
            last = {name: sent[-1][name] for name in there}
            if frames[-1]["live"] != sent[-1]["live"] or last != there:
                raise RuntimeError(f"the last picture is that of {last}, and the controls say {there}")
            figures[hand] = _figures(moves, frames, sent)
    return figures


LAB_PHASES = ("jupyter lab answers", "the kernel is ready", "the card stands there", "a moved slider has its picture", "all of it")  # fmt: skip

#: Of a card: the finished picture that it shows, or "" before the first and while a run is under way.
SHOWN = "card => card.matches('.empty, [aria-busy=true]') ? '' : card.querySelector('.hero canvas').toDataURL()"


def first_pictures(model: Path, way: str) -> dict[str, float]:
    """Seconds of LAB_PHASES: from the command to a slider of a Playground that moves the picture; the browser runs beforehand.

    The slider is moved once the first picture stands there, which is part of that phase; the pictures are those of all steps.
    """
    from tests.browser.conftest import running_lab

    moments = []
    with tempfile.TemporaryDirectory() as folder, _chromium() as page:
        moments.append(time.perf_counter())
        with running_lab(sys.executable, Path(folder)) as lab:
            moments.append(time.perf_counter())
            page = lab.open(page, "start", CELLS.format(folder=str(model), way=way))
            page.set_default_timeout(120_000)
            moments.append(time.perf_counter())
            card = page.locator(".card.playground")
            card.wait_for()
            moments.append(time.perf_counter())
            inside = card.element_handle()  # in a shadow root, where the document does not look
            page.wait_for_function(SHOWN, arg=inside)
            before = inside.evaluate(SHOWN)
            card.get_by_role("slider", name="Seed", exact=True).press("ArrowRight")
            page.wait_for_function(f"([card, before]) => ![before, ''].includes(({SHOWN})(card))", arg=[inside, before])  # fmt: skip
            moments.append(time.perf_counter())
    parts = [after - earlier for earlier, after in zip(moments, moments[1:], strict=False)]
    return dict(zip(LAB_PHASES, [*parts, moments[-1] - moments[0]], strict=True))


IN_A_WARM_KERNEL = "a Playground's picture, in a warm kernel"


def warm_pictures(model: Path, way: str, count: int) -> list[float]:
    """Seconds from starting a Playground's cell to its first finished picture, where the pipeline has drawn before: `count` cells in turn."""
    from tests.browser.conftest import running_lab

    lines = CELLS.format(folder=str(model), way=way).strip().splitlines()
    warm = "\n".join([*lines[:-2], f"pipe = Pipelines(Path({str(model)!r}))[{way!r}]", "pipe('a cat'); 'it drew'"])
    step = "() => void jupyterapp.commands.execute('notebook:run-cell-and-select-next')"
    seconds = []
    with tempfile.TemporaryDirectory() as folder, _chromium() as page, running_lab(sys.executable, Path(folder)) as lab:  # fmt: skip
        lab.write("warm", warm, *["play = Playground(pipe)\nplay"] * count)
        lab.show(page, "warm")
        page.set_default_timeout(120_000)
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        page.evaluate("() => { jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")
        page.evaluate(step)
        page.locator(".jp-OutputArea-output", has_text="it drew").wait_for()
        for number in range(count):
            began = time.perf_counter()
            page.evaluate(step)
            page.wait_for_function(SHOWN, arg=page.locator(".card.playground").nth(number).element_handle())
            seconds.append(time.perf_counter() - began)
            page.wait_for_timeout(3000)  # the pictures of its steps
    return seconds


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


def _figures(moves: list[float], frames: list[dict], sent: list[dict]) -> dict:
    """Of moments in milliseconds: `moves` of the hand; `sent` and `frames`: {"live": the order's number, "time"}, in order.

    Returns `moves` and `pictures` a second while the hand moved, the latter's `interval` (95%, from the gaps), `milliseconds` between
    pictures, `age` of a picture when it was shown, since its order was sent, `on_the_way`: the most orders that were sent and not yet
    answered by their own or a newer picture, and `last`: from the last move to the picture of the last order.
    """
    during = [frame["time"] for frame in frames if moves[0] <= frame["time"] <= moves[-1]]
    span = (moves[-1] - moves[0]) / 1000
    gaps = [after - before for before, after in zip(during, during[1:], strict=False)]
    left = {order["live"]: order["time"] for order in sent}
    ages = [frame["time"] - left[frame["live"]] for frame in frames if frame["live"] in left]
    on_the_way = 0
    for order in sent:
        shown = [frame["live"] for frame in frames if frame["time"] <= order["time"]]
        on_the_way = max(on_the_way, order["live"] - max(shown, default=sent[0]["live"] - 1))
    return {
        "moves": len(moves) / span,
        "pictures": len(during) / span,
        "interval": sorted(1000 / gap for gap in bootstrap(gaps, statistic=np.mean)) if gaps else None,
        "milliseconds": summary(gaps) if gaps else None,
        "age": summary(ages) if ages else None,
        "on_the_way": on_the_way,
        "last": frames[-1]["time"] - moves[-1],
    }

"""The replay as a view: it plays at thirty frames a second and more without a kernel, and code can move it in JupyterLab."""

from __future__ import annotations

import re

import pytest

import sdwidgets
from sdwidgets.widgets.html import for_script
from sdwidgets.widgets.replay import describe
from tests.browser.conftest import eventually
from tests.test_replay import a_trace

COUNT = """
const drawn = (window.drawn = []); // what the leading picture has shown: the slider's value at each painting
for (const name of ["drawImage", "putImageData"]) {
  const paint = CanvasRenderingContext2D.prototype[name];
  CanvasRenderingContext2D.prototype[name] = function (...args) {
    const card = this.canvas.closest(".hero")?.closest(".card");
    if (card) requestAnimationFrame(() => drawn.push(Number(card.querySelector("input[type=range]").value)));
    return paint.apply(this, args);
  };
}
"""


def open_playing(page, tmp_path, **state):
    """A page whose clock stands still until `page.clock.run_for`, animation frames included: sixty and a little a second."""
    path = sdwidgets.Replay(a_trace(steps=20), **state).export_html(tmp_path / "run.html")
    page.context.set_offline(True)
    page.add_init_script(COUNT)
    page.clock.install(time=0)
    page.clock.pause_at(1000)  # an installed clock still runs beside the machine's
    page.goto(path.as_uri())
    page.locator(".status").wait_for()
    page.clock.run_for(100)  # the first layout
    return page


def painted(page, milliseconds: int) -> list[int]:
    """The steps that were painted in this time of the page's clock, repetitions left out."""
    page.evaluate("drawn.length = 0")
    page.clock.run_for(milliseconds)
    values = page.evaluate("drawn")
    return [value for value, before in zip(values, [None, *values], strict=False) if value != before]


def test_it_paints_thirty_different_frames_a_second_and_skips_none(new_page, tmp_path):
    page = open_playing(new_page(), tmp_path, step=0, loop=True, speed=6, playing=True)
    shown = painted(page, 2000)
    assert 60 <= len(shown) <= 66
    assert all(after == (before + 1) % 21 for before, after in zip(shown, shown[1:], strict=False))
    page.get_by_label("Speed of play").select_option("12")
    faster = painted(page, 2000)
    assert 110 <= len(faster) <= 126 and faster[1] == (faster[0] + 1) % 21
    assert page.errors == []


def test_it_stops_at_the_end_and_begins_again_when_asked(new_page, tmp_path):
    page = open_playing(new_page(), tmp_path, step=3)
    assert painted(page, 1000) == []  # it stands until it is played
    page.get_by_role("button", name="Play").click()
    shown = painted(page, 2000)
    assert shown == list(range(4, 4 + len(shown))) and 9 <= len(shown) <= 11  # five steps a second
    page.locator(".card").press("ArrowLeft")  # a hand on the keys ends the play
    assert page.get_by_role("button", name="Play").get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="Play").click()
    assert painted(page, 5000)[-1] == 20  # the finished picture
    assert page.get_by_role("button", name="Play").is_visible()
    page.get_by_role("button", name="Play").click()
    assert painted(page, 500)[0] in (0, 1)
    assert page.errors == []


def test_it_waits_where_the_system_asks_for_less_motion(new_page, tmp_path):
    page = open_playing(new_page(reduced_motion="reduce"), tmp_path, step=0, playing=True)
    assert painted(page, 2000) == []
    page.get_by_role("button", name="Play").click()
    assert len(painted(page, 2000)) > 5


def test_a_page_opens_on_the_step_and_the_row_that_code_chose(new_page, tmp_path):
    page = open_playing(new_page(), tmp_path, step=4, view="difference")
    assert page.locator(".status").inner_text().startswith("step 5 of 20")
    assert page.get_by_role("radio", name="Difference").is_checked()
    assert "What the prompt changes" in page.locator(".numbers figcaption").inner_text()


def test_in_jupyterlab_code_moves_it_and_a_play_says_nothing_to_the_kernel(new_page, labs):
    lab = labs("current")
    page = lab.open(
        new_page(height=1400),
        "driven",
        "from tests.test_replay import a_trace\nwidget = a_trace(steps=100).widget(step=2)\nwidget",
        "widget.set(step=7, view='cond', speed=4)",
        "from ipywidgets import Label\ntold = Label('nothing')\n"
        "widget.observe(lambda change: setattr(told, 'value', f'told {change.new}'), 'state')\ntold",
    )
    card, told = page.locator(".card").first, page.locator(".jupyter-widgets.widget-label")
    status = card.locator(".status")
    told.wait_for()
    assert eventually(page, lambda: status.inner_text().startswith("step 8 of 100"))
    assert card.get_by_role("radio", name="With prompt").is_checked()
    card.get_by_role("button", name="Play").click()
    assert eventually(page, lambda: "'playing': True" in told.inner_text())
    page.wait_for_timeout(500)  # what the page still had to say to the kernel

    def place() -> int:
        return int(re.search(r"step (\d+) of", status.inner_text() + " step 101 of")[1])

    sent, before = page.frames_sent, place()
    assert eventually(page, lambda: place() >= 60)  # it plays on, for some seconds
    assert before < 60 <= place() < 101 and page.frames_sent == sent
    assert eventually(page, lambda: status.inner_text().startswith("finished"))
    assert eventually(page, lambda: "'step': 100" in told.inner_text())  # its end is told
    card.locator(".strip button").nth(3).click()
    assert eventually(page, lambda: "'playing': False" in told.inner_text() and "'step': 100" not in told.inner_text())
    assert [error for error in page.errors if not error.startswith("Comm not found")] == []


def test_a_run_that_begins_shows_nothing_of_the_one_before(new_page):
    """While a run goes on its frames come a few at a time, and the strip is as long as that of the last run."""
    page, run = new_page(), describe(a_trace(steps=5))
    page.set_content(
        f"<body><script>{sdwidgets.Replay.bundle()}\nconst run = () => decodeBinary({for_script(run)});\nwindow.view = new Replay();</script>"
    )
    page.evaluate("() => { document.body.append(view.card); view.open(run()); }")
    drawn = "() => [...view.strip.children].map((thumbnail) => thumbnail.firstChild.width > 1)"
    page.wait_for_function(f"() => ({drawn})().every(Boolean)")
    page.evaluate("() => view.open({ ...run(), frames: run().frames.slice(0, 2) })")
    assert page.evaluate(drawn) == [True, True, False, False, False, False]
    assert page.locator(".strip button:disabled").count() == 4


@pytest.mark.parametrize(("steps", "width"), [(2, 390), (20, 390), (20, 1280)])
def test_the_share_never_stands_on_the_curve(new_page, tmp_path, steps, width):
    page = new_page(width=width)
    page.goto(sdwidgets.Replay(a_trace(steps=steps)).export_html(tmp_path / "run.html").as_uri())
    page.locator(".here").wait_for()
    slider = page.get_by_role("slider", name="Step", exact=True)
    for _ in range(steps + 1):
        touched = page.locator(".schedule svg").evaluate(
            """svg => { const box = svg.querySelector(".here").getBBox(), line = svg.querySelector(".line"), end = line.getTotalLength();
              return Array.from({ length: Math.ceil(end) + 1 }, (_, i) => line.getPointAtLength(Math.min(i, end)))
                .filter(({ x, y }) => x > box.x && x < box.x + box.width && y > box.y && y < box.y + box.height).length; }"""
        )
        assert touched == 0, page.locator(".status").inner_text()
        slider.press("ArrowLeft")
    assert page.locator(".status").inner_text().startswith("step 1 of")

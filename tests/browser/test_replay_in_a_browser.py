"""The replay where it has to live without a kernel: a file, JupyterLab with and without trust, an exported notebook."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest

from sdwidgets.widgets.replay import Replay
from tests.browser.conftest import eventually, pixels
from tests.test_replay import EVIL, a_trace


def open_offline(page, path):
    page.context.set_offline(True)
    page.goto(path.as_uri())
    page.locator(".status").first.wait_for()
    return page


def scrub(page, card):
    """Walk through a run by keyboard; returns the distinct pictures seen."""
    step = card.get_by_role("slider", name="Step", exact=True)
    step.focus()
    step.press("Home")
    seen = [pixels(card.locator(".hero canvas"))]
    for _ in range(5):
        step.press("ArrowRight")
        seen.append(pixels(card.locator(".hero canvas")))
    return seen


def test_a_guess_is_not_spoiled_by_its_strip(new_page, tmp_path):
    page = open_offline(new_page(), Replay(a_trace(steps=5), step=1, ahead=False).export_html(tmp_path / "run.html"))
    widths = "strip => [...strip.querySelectorAll('canvas')].map((canvas) => canvas.width > 1)"
    strip = page.locator(".strip")
    assert eventually(page, lambda: strip.evaluate(widths) == [True, True, False, False, False, False])
    page.get_by_role("slider", name="Step", exact=True).press("ArrowRight")
    assert eventually(page, lambda: strip.evaluate(widths) == [True, True, True, False, False, False])
    page.keyboard.press("Home")  # what was shown stays
    assert strip.evaluate(widths) == [True, True, True, False, False, False]


def test_the_large_picture_can_show_the_noise_and_a_stopped_run_its_plan(new_page, tmp_path):
    run = a_trace(steps=5, complete=False, num_inference_steps=20)
    page = open_offline(new_page(), Replay(run, step=1).export_html(tmp_path / "run.html"))
    hero, small = page.locator(".hero canvas"), page.locator(".standing canvas")
    assert page.locator(".status").inner_text().startswith("step 2 of 20")
    assert pixels(hero) != pixels(small)
    page.get_by_role("radio", name="Current latents").check(force=True)
    assert pixels(hero) == pixels(small) and "hard" in hero.get_attribute("class")
    assert hero.get_attribute("aria-label").startswith("Latents in rough colours at step 2 of 20")
    page.keyboard.press("ArrowRight")  # a choice of two takes the arrows first
    page.get_by_role("slider", name="Step", exact=True).press("ArrowRight")
    assert page.locator(".status").inner_text().startswith("step 3 of 20")


def test_a_file_replays_offline(new_page, tmp_path):
    page = open_offline(new_page(), a_trace(steps=5).export_html(tmp_path / "run.html"))
    card = page.locator(".card")
    status = card.locator(".status")
    assert eventually(page, lambda: card.locator(".hero canvas").evaluate("c => c.width") == 64)  # its bitmap is ready
    assert len(set(scrub(page, card))) == 6
    assert status.inner_text() == "finished · t = 0 · 100 % picture"
    card.get_by_role("button", name="step 3").click()
    assert status.inner_text() == "step 3 of 5 · t = 599 · 35 % picture"
    page.keyboard.press("ArrowRight")  # the thumbnails answer to the arrow keys too
    assert status.inner_text().startswith("step 4 of 5")
    card.get_by_role("button", name="Play").click()
    assert eventually(page, lambda: status.inner_text().startswith("finished"))
    assert (
        page.errors == [] and [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1920])
def test_it_fits_every_width_in_light_and_dark(new_page, tmp_path, width, scheme):
    path = a_trace(prompt=EVIL, complete=False, previews=False, channels=16).export_html(tmp_path / "run.html")
    page = open_offline(new_page(width=width, color_scheme=scheme), path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    spilled = page.locator(".card").evaluate(
        """card => [...card.querySelectorAll("*")].filter((e) => {
          const inner = e.getBoundingClientRect(), outer = card.getBoundingClientRect();
          return inner.width && (inner.right > outer.right + 1 || inner.left < outer.left - 1);
        }).map((e) => e.className || e.tagName)"""
    )
    assert spilled == [] and page.errors == []
    assert page.locator(".card").get_attribute("data-theme") == scheme
    hero = page.locator(".hero canvas").bounding_box()
    standing = page.locator(".standing canvas").bounding_box()
    assert hero["width"] > 1.9 * standing["width"]  # one picture leads
    assert page.locator("h2").text_content() == EVIL
    assert "stopped after step 5" in page.locator(".note").inner_text()


def test_projector_mode_has_larger_type_and_fewer_things(new_page, tmp_path):
    page = open_offline(new_page(), a_trace().export_html(tmp_path / "run.html"))
    size = "e => parseFloat(getComputedStyle(e).fontSize)"
    before = page.locator(".status").evaluate(size)
    page.get_by_role("button", name="Projector mode").click()
    assert page.locator(".status").evaluate(size) > 1.3 * before
    assert not page.locator(".channels").is_visible() and page.locator(".hero canvas").is_visible()


def test_several_live_on_one_page(new_page, tmp_path):
    page_path = tmp_path / "several.html"
    page_path.write_text("".join(Replay(a_trace(prompt=p, steps=5)).to_html() for p in ("a", "b", "a")), "utf-8")
    page = open_offline(new_page(), page_path)
    cards = page.locator(".card")
    assert cards.count() == 3  # the first and the last are of the same trace
    page.wait_for_timeout(300)
    for i in range(3):
        scrub(page, cards.nth(i))
        assert cards.nth(i).locator(".status").inner_text().startswith("finished")
    cards.nth(0).get_by_role("slider", name="Step", exact=True).press("Home")
    assert [cards.nth(i).locator(".status").inner_text()[:4] for i in range(3)] == ["step", "fini", "fini"]
    assert page.errors == []


def notebook_with(path, *traces):
    import nbformat

    notebook = nbformat.v4.new_notebook()
    for trace in traces:
        cell = nbformat.v4.new_code_cell("trace", execution_count=1)
        data = trace._repr_mimebundle_()
        data["image/jpeg"] = base64.b64encode(data["image/jpeg"]).decode()
        cell.outputs = [nbformat.v4.new_output("execute_result", data, execution_count=1)]
        notebook.cells.append(cell)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def test_jupyterlab_shows_a_contact_sheet_first_and_the_replay_when_trusted(new_page, labs):
    lab = labs("current")
    notebook_with(lab.folder / "seen.ipynb", a_trace(prompt=EVIL, steps=5))
    fresh = lab.show(new_page(), "seen")
    sheet = fresh.locator(".jp-OutputArea-output img")
    sheet.wait_for()
    assert sheet.evaluate("i => i.complete && i.naturalWidth > 400") and fresh.locator(".card").count() == 0
    assert "jupyter trust" in fresh.locator(".jp-OutputArea-output").inner_text()
    trust = [sys.executable, "-m", "jupyter", "trust", str(lab.folder / "seen.ipynb")]
    subprocess.run(trust, check=True, env=lab.environment, capture_output=True)
    trusted = lab.show(new_page(), "seen")
    card = trusted.locator(".card")
    card.wait_for()
    trusted.wait_for_timeout(300)
    assert len(set(scrub(trusted, card))) == 6 and not trusted.locator(".jp-OutputArea-output img").is_visible()
    # JupyterLab's widget manager hears of the widgets of the other notebooks that are open on this server.
    assert [error for error in fresh.errors + trusted.errors if not error.startswith("Comm not found")] == []


def test_an_exported_notebook_replays_offline(new_page, tmp_path):
    nbconvert = pytest.importorskip("nbconvert")
    notebook_with(tmp_path / "talk.ipynb", a_trace(steps=5), a_trace(prompt=EVIL, steps=5))
    page_path = tmp_path / "talk.html"
    page_path.write_text(nbconvert.HTMLExporter().from_filename(str(tmp_path / "talk.ipynb"))[0], "utf-8")
    page = new_page()
    page.context.set_offline(True)
    page.goto(page_path.as_uri())
    page.locator(".status").nth(1).wait_for()
    page.wait_for_timeout(300)
    assert page.locator(".card").count() == 2
    assert len(set(scrub(page, page.locator(".card").first))) == 6
    assert page.errors == []

"""The diagram in a file of its own: the slider moves every picture, each box opens, keyboard, every width, light and dark."""

from __future__ import annotations

import pytest

from sdwidgets.widgets.diagram import PARTS
from tests.browser.conftest import pixels
from tests.test_diagram import a_diagram
from tests.test_replay import EVIL


def opened(page, view, folder):
    page.context.set_offline(True)
    page.goto(view.export_html(folder / "diagram.html").as_uri())
    page.locator(".card[data-ready=true]").wait_for()
    return page


def test_the_slider_moves_every_picture(new_page, tmp_path):
    page = opened(new_page(), a_diagram().set(step=0), tmp_path)
    names = ("noisy", "cond", "uncond", "guided", "x0", "next")
    shown = lambda: [pixels(page.locator(f".node.{name} canvas")) for name in names]
    before, fixed = shown(), pixels(page.locator(".node.noise canvas"))
    page.get_by_role("slider", name="Step").press("ArrowRight")
    after = shown()
    assert all(a != b for a, b in zip(before, after, strict=True)) and before[-1] == after[0], "x_t-1 is the next x_t"
    assert pixels(page.locator(".node.noise canvas")) == fixed
    assert page.locator(".status").inner_text().startswith("step 2 of 3 · t = ")
    page.locator(".card").press("End")
    assert page.locator(".status").inner_text().startswith("step 3 of 3")
    assert page.errors == [] and not [u for u in page.requests if not u.startswith(("file:", "data:", "blob:"))]


def test_each_box_opens_and_escape_closes_it(new_page, tmp_path):
    page = opened(new_page(), a_diagram(), tmp_path)
    said = set()
    for part in PARTS:
        button = page.locator(f"button.box.{part}").first
        button.focus()
        button.press("Enter")
        assert button.get_attribute("aria-expanded") == "true" and page.locator(".inside:visible").count() == 1
        said.add(page.locator(".inside").inner_text())
    assert len(said) == len(PARTS) and "decoder" in page.locator(".inside h3").inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".inside:visible").count() == 0
    assert page.locator("button.box.vae").first.evaluate("e => e.getRootNode().activeElement === e"), "focus is back"


def test_feature_maps_are_those_of_the_step_that_is_shown(new_page, tmp_path):
    page = opened(new_page(), a_diagram(steps=6).set(step=0, part="denoiser"), tmp_path)
    maps = set()
    for number in range(1, 7):
        assert f"at step {number}:" in page.locator(".inside").inner_text()
        maps.add(pixels(page.locator(".blocks canvas").first))
        page.get_by_role("slider", name="Step").press("ArrowRight")
    assert len(maps) == 6


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_it_fits_every_width_whatever_is_open(new_page, tmp_path, family):
    view = a_diagram(family, prompt=EVIL)
    page = opened(new_page(color_scheme="dark"), view, tmp_path)
    for width in (390, 760, 1100, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        for part in view.parts:
            page.locator(f"button.box.{part}").first.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, part
    assert page.errors == [] and page.locator("h2").text_content() == EVIL
    ends = page.locator(".tip").evaluate_all("tips => tips.map((tip) => tip.getBBox().width)")
    assert len(ends) > 10 and all(size > 1 for size in ends)

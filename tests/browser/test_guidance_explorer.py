"""The guidance explorer in a file of its own: sliders, pictures, arrows, the warning, every width, light and dark."""

from __future__ import annotations

import pytest

from tests.browser.conftest import eventually, pixels
from tests.test_guidance_explorer import EVIL, a_view


def opened(page, view, folder):
    page.context.set_offline(True)
    page.goto(view.export_html(folder / "guidance.html").as_uri())
    page.locator(".card").wait_for()
    page.wait_for_timeout(300)
    return page


def test_sliders_move_pictures_and_arrows(new_page, tmp_path):
    page = opened(new_page(), a_view(1.0, 2.0, 8.0), tmp_path)
    scale, step = (page.get_by_role("slider", name=name, exact=True) for name in ("Guidance scale", "Step"))
    guided, arrows = page.locator(".predicted-guided canvas"), page.locator(".arrows figcaption")
    assert scale.get_attribute("aria-valuetext") == "guidance 2"
    step.focus()
    seen = set()
    step.press("Home")
    for _ in range(4):
        seen.add((pixels(guided), arrows.inner_text()))
        step.press("ArrowRight")
    assert len(seen) == 4
    before = pixels(guided)
    scale.press("End")
    assert scale.get_attribute("aria-valuetext") == "guidance 8" and pixels(guided) != before
    assert "° apart" in arrows.inner_text() and "on the line through both" in arrows.inner_text()
    assert page.locator(".arrows svg .arrow").count() == 3
    assert page.errors == [] and not [u for u in page.requests if not u.startswith(("file:", "data:", "blob:"))]


def test_the_arrows_stand_on_equal_axes(new_page, tmp_path):
    page = opened(new_page(), a_view(2.0), tmp_path)
    told = page.locator(".arrows svg").evaluate(
        """svg => Object.fromEntries(["uncond", "cond", "guided"].map((name) => {
          const a = svg.querySelector(`.arrow.${name}`), at = (k) => Number(a.getAttribute(k));
          return [name, [at("x2") - at("x1"), at("y1") - at("y2")]];
        }))"""
    )
    view = a_view(2.0)
    plane = view.data["runs"][0]["steps"][view.state["step"]]["plane"]
    unit = told["uncond"][0] / plane["uncond"][0]  # pixels for a length of one
    for name in ("uncond", "cond", "guided"):
        assert told[name] == pytest.approx([unit * x for x in plane[name]], abs=0.5)


def test_a_scale_without_halves_warns_and_a_picture_below_leads_back(new_page, tmp_path):
    page = opened(new_page(), a_view(1.0, 2.0).set(scale=1), tmp_path)
    assert "one prediction" in page.locator(".note").inner_text()
    assert page.locator(".arrows svg .arrow").count() == 1
    assert not page.locator(".predicted-cond").is_visible()
    page.get_by_role("button", name="guidance 2").click()
    assert not page.locator(".note").is_visible() and page.locator(".predicted-cond").is_visible()
    assert page.get_by_role("button", name="guidance 2").get_attribute("aria-pressed") == "true"
    assert eventually(page, lambda: page.locator(".finished canvas").last.evaluate("c => c.width") == 48)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1920])
def test_it_fits_every_width_in_light_and_dark(new_page, tmp_path, width, scheme):
    page = opened(new_page(width=width, color_scheme=scheme), a_view(1.0, 2.0, 8.0, prompt=EVIL), tmp_path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h2").text_content() == EVIL and page.evaluate("window.pwned") is None
    assert page.locator(".card").get_attribute("data-theme") == scheme and page.errors == []
    hero, half = (page.locator(f".predicted-{name} canvas").bounding_box() for name in ("guided", "cond"))
    assert hero["width"] > 1.9 * half["width"]

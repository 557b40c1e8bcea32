"""A static page of a notebook, opened from the file system: its views are alive, in both themes, without a network."""

from __future__ import annotations

import pytest

pytest.importorskip("myst_nb", reason="the extra `site` is not installed")
pytest.importorskip("furo", reason="the extra `site` is not installed")

from sdwidgets.course.answers import LABEL
from tests.browser.conftest import eventually, pixels
from tests.test_site import build_once


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build_once(tmp_path_factory)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_alive_offline_in_both_themes(new_page, site, scheme):
    page = new_page(color_scheme=scheme)
    page.context.set_offline(True)
    page.goto((site / "notebooks" / "01_architecture.html").as_uri())
    page.locator("details:has(.card .hero canvas) > summary").first.click()  # it answers a prediction
    card = page.locator(".card:has(.hero canvas)").first
    card.scroll_into_view_if_needed()
    step = card.get_by_role("slider", name="Step", exact=True)
    step.focus()
    step.press("Home")
    first = pixels(card.locator(".hero canvas"))
    step.press("End")
    assert eventually(page, lambda: pixels(card.locator(".hero canvas")) != first)
    assert card.get_attribute("data-theme") == scheme
    other = {"light": "dark", "dark": "light"}[scheme]
    button = page.locator("button.theme-toggle").first
    assert eventually(page, lambda: button.evaluate("b => b.click()") or card.get_attribute("data-theme") == other)
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_pages_fit_a_desk_and_a_telephone(new_page, site):
    for width in (1280, 400):
        page = new_page(width=width)
        for name in ("index", "notebooks/01_architecture"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)


def test_formulas_are_drawn_offline(new_page, site):
    page = new_page()
    page.context.set_offline(True)
    page.goto((site / "notebooks" / "02_noise_schedules.html").as_uri())
    assert eventually(page, lambda: page.locator(".math mjx-container svg").count() > 5)
    assert page.locator(".math:not(:has(mjx-container))").count() == 0
    assert page.locator("[data-mjx-error], mjx-merror").count() == 0
    assert page.errors == []


def test_an_answer_opens_by_keyboard_without_scripts_and_on_paper(new_page, site):
    page = new_page(java_script_enabled=False)
    page.goto((site / "notebooks" / "00_welcome.html").as_uri())
    summary = page.locator("div.cell details > summary").first
    answer = page.locator("div.cell details > :not(summary)").first
    assert summary.inner_text().strip() == LABEL and not answer.is_visible()
    summary.press("Enter")
    assert answer.is_visible() and summary.inner_text().strip() == "Hide the answer"
    summary.press("Enter")
    text = page.get_by_text("To the last pixel.", exact=False)
    assert not answer.is_visible() and not text.is_visible()
    page.emulate_media(media="print")
    assert answer.bounding_box()["height"] > 0 and text.bounding_box()["height"] > 0

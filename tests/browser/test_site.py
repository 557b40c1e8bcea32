"""A static page of a notebook, opened from the file system: its views are alive, in both themes, without a network."""

from __future__ import annotations

import pytest

pytest.importorskip("myst_nb", reason="the extra `site` is not installed")
pytest.importorskip("furo", reason="the extra `site` is not installed")

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

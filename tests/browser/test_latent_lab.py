"""The latent lab as a file: three things to show, every control by keyboard, every width, light and dark, offline."""

from __future__ import annotations

import pytest

from tests.browser.conftest import eventually, pixels
from tests.test_latent_lab import a_lab
from tests.test_replay import EVIL


def opened(page, shown, path):
    page.context.set_offline(True)
    page.goto(shown.export_html(path).as_uri())
    page.locator(".card[data-ready=true]").wait_for()
    return page


def choose(page, name):
    page.get_by_role("radio", name=name, exact=True).check()


def test_a_file_shows_all_three_offline(new_page, tmp_path):
    page = opened(new_page(), a_lab(names=("day", "night")), tmp_path / "lab.html")
    hero = page.locator(".lab:visible canvas").first
    wipe = page.get_by_role("slider", name="How much of the original is uncovered")
    seen = [pixels(hero)]
    for key in ("Home", "End"):
        wipe.press(key)
        seen.append(pixels(hero))
    assert len(set(seen)) == 3 and page.locator(".lab:visible").count() == 1

    choose(page, "Channels")
    hero = page.locator(".lab:visible canvas").first
    unchanged = pixels(hero)
    choose(page, "off")
    first = pixels(hero)
    choose(page, "channel 2")
    assert len({unchanged, first, pixels(hero)}) == 3
    assert "channel 2 is set to zero. The picture moves by" in page.locator(".lab:visible").inner_text()
    page.get_by_role("radio", name="channel 2", exact=True).press("ArrowRight")
    assert page.get_by_role("radio", name="channel 3", exact=True).is_checked()

    choose(page, "Between two pictures")
    mixed, faded = (page.locator(".lab:visible figure canvas").nth(i) for i in (0, 1))
    place = page.get_by_role("slider", name="How far from the first picture to the second")
    place.press("Home")
    seen = {(pixels(mixed), pixels(faded))}
    for _ in range(4):
        place.press("ArrowRight")
        seen.add((pixels(mixed), pixels(faded)))
    assert len(seen) == 5
    assert page.locator(".lab:visible .status").inner_text().startswith("0 % day, 100 % night")
    assert (
        page.errors == [] and [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    )


def test_it_opens_where_code_has_put_it(new_page, tmp_path):
    shown = a_lab().set(show="channels", channel=1, change="alone")
    page = opened(new_page(), shown, tmp_path / "lab.html")
    assert eventually(page, lambda: page.get_by_role("radio", name="alone", exact=True).is_checked())
    assert "channel 1 is alone" in page.locator(".lab:visible").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1920])
def test_it_fits_every_width_in_light_and_dark(new_page, tmp_path, width, scheme):
    page = opened(
        new_page(width=width, color_scheme=scheme), a_lab(channels=16, names=(EVIL, "B")), tmp_path / "lab.html"
    )
    for tab in ("There and back", "Channels", "Between two pictures"):
        choose(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        spilled = page.locator(".card").evaluate(
            """card => [...card.querySelectorAll("*")].filter((e) => {
              const inner = e.getBoundingClientRect(), outer = card.getBoundingClientRect();
              return inner.width && (inner.right > outer.right + 1 || inner.left < outer.left - 1);
            }).map((e) => e.className || e.tagName)"""
        )
        assert spilled == [], tab
    assert page.errors == [] and page.locator(".card").get_attribute("data-theme") == scheme
    assert EVIL in page.locator(".lab:visible .status").text_content()

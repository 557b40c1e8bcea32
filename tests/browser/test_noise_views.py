"""The noise explorer and the scheduler race as files: every control by keyboard, every width, light and dark, offline."""

from __future__ import annotations

import math

import pytest

from sdwidgets.analysis import noise_schedules
from tests.browser.conftest import eventually, pixels
from tests.test_noise_explorer import an_explorer
from tests.test_race import a_race
from tests.test_replay import EVIL


def opened(page, shown, path):
    page.context.set_offline(True)
    page.goto(shown.export_html(path).as_uri())
    page.locator(".card .status:not(:empty)").first.wait_for()
    return page


def nothing_loaded(page):
    return page.errors == [] and [u for u in page.requests if not u.startswith(("file:", "data:", "blob:"))] == []


def test_the_explorer_mixes_in_the_browser(new_page, tmp_path):
    page = opened(new_page(), an_explorer(t=400, schedule="scaled linear"), tmp_path / "noise.html")
    hero, status = page.locator(".lead canvas"), page.locator(".status")
    schedule = noise_schedules.scaled_linear()
    share, ratio = f"{100 * schedule.signal[400] ** 2:.0f}", f"{-schedule.snr_db[400]:.1f}"
    assert status.inner_text() == f"t = 400 · {share} % picture · −{ratio} dB"
    slider = page.get_by_role("slider", name="Time t, from picture to noise")
    seen = {pixels(hero)}
    for key in ("Home", "End", "ArrowLeft"):
        slider.press(key)
        seen.add(pixels(hero))
    assert len(seen) == 4 and status.inner_text().startswith("t = 998")
    before = pixels(hero)
    page.get_by_role("radio", name="scaled linear", exact=True).press("ArrowRight")  # to the cosine
    assert page.get_by_role("radio", name="cosine", exact=True).is_checked() and pixels(hero) != before
    slider.press("End")
    page.get_by_role("radio", name="flow", exact=True).check()
    assert status.inner_text() == "t = 999 · 0.0 % picture · pure noise"
    assert page.get_by_role("img", name="Share of the picture against t for 5 schedules").is_visible()
    page.get_by_role("button", name="Play").click()
    assert eventually(page, lambda: status.inner_text().startswith("t = 999"))
    assert eventually(page, lambda: page.get_by_role("button", name="Play").is_visible()) and nothing_loaded(page)


def test_the_race_runs_by_share_and_by_calls(new_page, tmp_path):
    page = opened(new_page(), a_race(at=0), tmp_path / "race.html")
    slider, status = page.get_by_role("slider", name="How far the runs are"), page.locator(".status")
    told = page.locator(".lanes figcaption")
    assert told.nth(0).inner_text().splitlines()[:2] == [
        "DDIM",
        "call 1 of 4, t = 999 · distance " + f"{a_race().distances['DDIM'][0]:.2f}",
    ]
    lane = page.locator(".lanes canvas").nth(1)
    seen = [pixels(lane)]
    slider.press("End")
    assert status.inner_text() == "all have finished" and "finished, 6 calls" in told.nth(1).inner_text()
    seen.append(pixels(lane))
    page.get_by_role("radio", name="Current latents").check()
    seen.append(pixels(lane))
    page.get_by_role("radio", name="Calls of the network").check()
    slider.press("Home")
    for _ in range(4):
        slider.press("ArrowRight")
    assert status.inner_text() == "call 5 of 6"
    assert [told.nth(i).inner_text().splitlines()[1].split(",")[0] for i in range(3)] == [
        "finished",
        "call 5 of 6",
        "call 5 of 5",
    ]
    seen.append(pixels(lane))
    assert len(set(seen)) == len(seen) and nothing_loaded(page)
    page.get_by_role("button", name="Play").click()
    assert eventually(page, lambda: status.inner_text() == "all have finished")


def test_the_distances_of_a_race_stand_on_a_logarithmic_axis(new_page, tmp_path):
    """So that they stay apart where all are small: as far between 0.1 and 0.2 as between 0.5 and 1."""
    view = a_race(at=0.75)
    page = opened(new_page(), view, tmp_path / "race.html")
    ticks = page.locator(".gap text[text-anchor=end]").evaluate_all(
        "all => all.map((e) => [Number(e.textContent), e.y.baseVal[0].value - 4])"
    )
    (low, below), (high, above) = ticks[0], ticks[-1]
    expected = [
        below + (above - below) * math.log(d[int(0.75 * (len(d) - 1))] / low) / math.log(high / low)
        for d in view.distances.values()
    ]
    dots = page.locator(".gap .dot").evaluate_all("all => all.map((e) => e.cy.baseVal.value)")
    assert len(ticks) >= 2 and sorted(dots) == pytest.approx(sorted(expected), abs=0.5)


@pytest.mark.parametrize(
    "view", [lambda: an_explorer(channels=16), lambda: a_race(prompt=EVIL), lambda: a_race(reference=False)]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1920])
def test_they_fit_every_width_in_light_and_dark(new_page, tmp_path, width, scheme, view):
    page = opened(new_page(width=width, color_scheme=scheme), view(), tmp_path / "view.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    spilled = page.locator(".card").evaluate(
        """card => [...card.querySelectorAll("*")].filter((e) => {
          const inner = e.getBoundingClientRect(), outer = card.getBoundingClientRect();
          return inner.width && (inner.right > outer.right + 1 || inner.left < outer.left - 1);
        }).map((e) => e.className || e.tagName)"""
    )
    assert spilled == [] and nothing_loaded(page)
    assert page.locator(".card").get_attribute("data-theme") == scheme


def test_a_prompt_is_shown_as_text(new_page, tmp_path):
    page = opened(new_page(), a_race(prompt=EVIL), tmp_path / "race.html")
    assert page.locator("h2").text_content() == EVIL and page.errors == []

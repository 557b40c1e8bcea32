"""The prompt X-ray in a file of its own: chips, slider, layers, keyboard, what is cut, every width, light and dark."""

from __future__ import annotations

import pytest

from tests.browser.conftest import eventually, pixels
from tests.test_replay import EVIL
from tests.test_xray import LONG, a_view


def opened(page, view, folder):
    page.context.set_offline(True)
    page.goto(view.export_html(folder / "xray.html").as_uri())
    page.locator(".card").wait_for()
    assert eventually(
        page, lambda: page.locator(".lead canvas").evaluate("c => c.width") == 48
    )  # its picture is ready
    return page


def test_tokens_steps_and_layers_move_the_map(new_page, tmp_path):
    page = opened(new_page(), a_view(prompt="a red cat"), tmp_path)
    hero, caption, status = (page.locator(".lead canvas"), page.locator(".lead figcaption"), page.locator(".status"))
    tokens = page.get_by_role("radiogroup", name="The tokens that the model read").get_by_role("radio")
    assert tokens.count() == 10 and status.inner_text() == "all 3 steps together"
    seen = set()
    tokens.first.check(force=True)
    for _ in range(10):  # the arrow keys walk through the chips
        seen.add((pixels(hero), caption.inner_text()))
        page.keyboard.press("ArrowRight")
    assert len(seen) == 10
    assert "the start mark" in caption.inner_text()  # and round again
    assert "stands before every prompt" in page.locator(".about").inner_text()
    before = pixels(hero), pixels(page.locator(".beside canvas"))
    page.get_by_role("slider", name="Step", exact=True).press("ArrowRight")
    assert status.inner_text().startswith("step 1 of 3 · t = 667")
    assert pixels(hero) != before[0] and pixels(page.locator(".beside canvas")) != before[1]
    assert "Predicted picture at this step" in page.locator(".beside figcaption").inner_text()
    before = pixels(hero)
    page.get_by_role("radio", name="mid, 3 by 4 places").check(force=True)
    assert pixels(hero) != before and "3 × 4" in page.locator(".by-layer .hint").first.inner_text()
    page.get_by_role("button", name="All steps").click()
    assert status.inner_text() == "all 3 steps together"
    assert page.errors == [] and not [u for u in page.requests if not u.startswith(("file:", "data:", "blob:"))]


def test_it_opens_where_code_has_set_it_and_says_the_shares(new_page, tmp_path):
    view = a_view(prompt="a red cat").set(token="cat", step=2, layers="up 1")
    page = opened(new_page(), view, tmp_path)
    heat = view.heat_map()
    low, high = (float(t.rstrip(" %")) for t in page.locator(".heat-scale span").all_inner_texts())
    assert low == pytest.approx(100 * heat.min(), abs=0.02) and high == pytest.approx(100 * heat.max(), abs=0.02)
    assert page.locator(".status").inner_text().startswith("step 2 of 3")
    assert "“cat”" in page.locator(".lead figcaption").inner_text(), "all tokens of the word together"
    columns = view.state["token"]
    assert page.locator(".token.together").count() == len(columns) == 3
    chip = page.locator(".token").nth(columns[0])
    assert chip.get_by_role("radio").is_checked()
    share = view.maps.mean_attention("up 1")[1, columns[0]]
    assert float(chip.locator("small").inner_text().rstrip(" %")) == pytest.approx(100 * share, abs=0.02)
    page.locator(".token").nth(2).get_by_role("radio").check(force=True)
    assert page.locator(".token.together").count() == 0 and "“r”" in page.locator(".lead figcaption").inner_text()


def test_what_is_cut_and_never_seen_is_marked(new_page, tmp_path):
    page = opened(new_page(), a_view(prompt=LONG, known_words=["a", "on", "blue", "background", "green"]), tmp_path)
    assert page.locator(".token.unknown").all_inner_texts()[0].startswith("c")  # c, a, t
    assert page.locator(".token.unknown").count() == 3 and "never saw: cat" in page.locator(".note").inner_text()
    assert page.get_by_role("radio", name="never seen in training").count() == 3
    left_out = page.locator(".left-out")
    assert (
        "reads 77 tokens" in left_out.inner_text()
        and left_out.locator(".cut").count() == len(LONG.replace(" ", "")) - 75
    )
    assert page.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1920])
def test_it_fits_every_width_in_light_and_dark(new_page, tmp_path, width, scheme):
    page = opened(new_page(width=width, color_scheme=scheme), a_view(prompt=EVIL, known_words=["a"]), tmp_path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    spilled = page.locator(".card").evaluate(
        """card => [...card.querySelectorAll("*")].filter((e) => {
          const inner = e.getBoundingClientRect(), outer = card.getBoundingClientRect();
          return inner.width && (inner.right > outer.right + 1 || inner.left < outer.left - 1);
        }).map((e) => e.className || e.tagName)"""
    )
    assert spilled == [] and page.errors == []
    assert page.locator(".card").get_attribute("data-theme") == scheme
    assert page.locator("h2").text_content() == EVIL
    hero, beside = page.locator(".lead canvas").bounding_box(), page.locator(".beside canvas").bounding_box()
    assert hero["width"] > 1.6 * beside["width"]  # one picture leads

"""The deck in a real Chromium, opened from the file system: every slide at three sizes of projectors, the views, the keys, the PDF."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import eventually, pixels
from tests.test_slides import a_book, code, picture, replay, text
from tools import make_slides, print_slides

SMALLEST = 16  # pixels of a sheet of 720: 12 points of a slide that is 540 points high

# What lies beyond its bounds, and which text is too small: of the slide that is shown, the insides of views included.
LOOK = """(smallest) => {
  const wrong = [], sheet = document.querySelector("section.present .sheet"), scale = deck.getScale();
  const inside = (inner, outer) => inner.left >= outer.left - 1.5 && inner.right <= outer.right + 1.5 && inner.top >= outer.top - 1.5 && inner.bottom <= outer.bottom + 1.5;
  const name = (e) => `${e.tagName} ${e.getAttribute("class") ?? ""} ${(e.textContent ?? "").trim().slice(0, 40)}`;
  const seen = (e) => e.getClientRects().length && getComputedStyle(e).visibility !== "hidden";
  const look = (root, bounds, grown) => {
    for (const e of root.querySelectorAll("*")) {
      if (e.closest("mjx-assistive-mml, style, script") || !seen(e)) continue;
      const drawing = e.tagName !== "svg" && !e.closest("mjx-container") && e.closest("svg");
      const within = drawing && getComputedStyle(drawing).overflow !== "visible" ? drawing.getBoundingClientRect() : bounds;
      if (e.tagName !== "g" && !e.closest("[clip-path], clipPath") && !inside(e.getBoundingClientRect(), within)) wrong.push(`beyond: ${name(e)}`);
      if (!e.closest("svg") && e.scrollWidth > e.clientWidth + 1 && /auto|scroll|hidden/.test(getComputedStyle(e).overflowX) && e.clientWidth) wrong.push(`cut: ${name(e)}`);
      const own = [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      const zoom = e.currentCSSZoom ?? 1, size = parseFloat(getComputedStyle(e).fontSize) * zoom * grown; // 0: left out on slides
      if (own && !e.closest("sub, sup") && size && size < smallest - 0.1) wrong.push(`small: ${name(e)}`);
      if (e.shadowRoot) look(e.shadowRoot, e.getBoundingClientRect(), grown * Number(e.dataset.scale));
    }
  };
  const page = document.scrollingElement;
  if (page.scrollWidth > innerWidth || page.scrollHeight > innerHeight) wrong.push("the page scrolls");
  if (!inside(sheet.getBoundingClientRect(), { left: 0, top: 0, right: innerWidth, bottom: innerHeight })) wrong.push("beyond: the sheet");
  look(sheet, sheet.getBoundingClientRect(), 1);
  return wrong;
}"""


def opened(page, deck, query: str = ""):
    page.context.set_offline(True)
    page.goto(deck.as_uri() + query)
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    return page


def outside(page) -> list[str]:
    return [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))]


def settled(page) -> None:
    """A few frames: views are laid out and drawn by observers, one after the other."""
    page.evaluate(
        """async () => { for (let i = 0; i < 6; i++) await new Promise((done) => requestAnimationFrame(done)); }"""
    )


@pytest.fixture(scope="module")
def evening(tmp_path_factory):
    return make_slides.write(make_slides.evening(), tmp_path_factory.mktemp("deck"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A deck that has one of each: a picture, a replay, a view too tall to be read, a formula, a question."""
    folder = tmp_path_factory.mktemp("small")
    tall = replay(steps=3, prompt="very long " * 300)
    book = a_book(
        folder,
        text("# 07 · Trying: does it work?"),
        text("## Wide\n\n> **Ask the room:** what do you see?", say="A wide picture.", minutes=1),
        code(picture(900, 300)),
        text("## Square", say="A square picture, and $\\sqrt{\\bar\\alpha_t}$.", minutes=1),
        code(picture(300, 300)),
        text("## Replay", say="It moves.", minutes=1, notes="Press *play*."),
        code(replay(steps=5)),
        text("## Too tall", say="It does not fit.", minutes=1),
        code(tall),
    )
    return make_slides.write(make_slides.notebook_slides(book), folder / "deck")


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1920, 1080, "light"), (1280, 720, "dark"), (1024, 768, "light")]
)
def test_every_slide_of_the_evening_fits(new_page, evening, width, height, scheme):
    page = opened(new_page(width, height, color_scheme=scheme), evening)
    wrong, moved = {}, 0
    total = page.evaluate("deck.getTotalSlides()")
    assert total > 30
    for i in range(total):
        page.evaluate(f"deck.slide({i})")
        settled(page)
        if found := page.evaluate(LOOK, SMALLEST):
            wrong[page.locator("section.present").get_attribute("data-source")] = found
        moved += replays_move(page)
    assert wrong == {}
    assert moved, "no replay is on a slide"
    assert page.errors == [] and outside(page) == []


def replays_move(page) -> int:
    """Walk through the replay of the slide that is shown, if one is; returns how many moved."""
    step = page.locator("section.present").get_by_role("slider", name="Step", exact=True)
    hero = page.locator("section.present .hero canvas")
    if not step.count() or not hero.count():
        return 0
    step.focus()
    step.press("Home")
    first = pixels(hero)
    step.press("End")
    assert eventually(page, lambda: pixels(hero) != first)
    page.evaluate("document.activeElement.blur()")
    return 1


def test_the_look_finds_what_is_wrong(new_page, small):
    page = opened(new_page(1280, 720), small)
    page.evaluate("deck.slide(2)")
    assert page.evaluate(LOOK, SMALLEST) == []
    page.evaluate("document.querySelector('section.present h2').style.cssText = 'position: relative; left: 1200px'")
    assert any(line.startswith("beyond: H2") for line in page.evaluate(LOOK, SMALLEST))
    page.evaluate("document.querySelector('section.present h2').style.cssText = 'font-size: 15px'")
    assert page.evaluate(LOOK, SMALLEST) == ["small: H2  Wide"]


def test_a_view_that_does_not_fit_shows_its_still(new_page, small):
    page = opened(new_page(1280, 720), small)
    titles = page.evaluate("[...document.querySelectorAll('section h1, section h2')].map((e) => e.textContent)")
    for title, alive in (("Replay", 1), ("Too tall", 0)):
        page.evaluate(f"deck.slide({titles.index(title)})")
        settled(page)
        assert page.locator("section.present .card").count() == alive
        assert page.locator("section.present .shown > img").count() == 1 - alive
        assert page.evaluate(LOOK, SMALLEST) == []
    still = page.locator("section.present .shown > img")
    assert still.evaluate("i => i.naturalWidth > 200 && i.clientHeight > 200")


def test_formulas_are_drawn_without_a_network(new_page, small):
    page = opened(new_page(1280, 720), small)
    assert page.locator(".say mjx-container svg").count() == 1
    assert page.errors == [] and outside(page) == []


def test_keys_are_the_deck_s_until_a_view_has_the_focus(new_page, small):
    page = opened(new_page(1280, 720), small)
    at = lambda: page.evaluate("deck.getIndices().h")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert at() == 2
    page.evaluate("deck.slide(4)")
    settled(page)
    status = page.locator("section.present .status")
    step = page.get_by_role("slider", name="Step", exact=True).first
    step.press("Home")
    step.press("ArrowRight")
    assert status.inner_text().startswith("step 2 of 5") and at() == 4
    page.keyboard.press("PageDown")  # a clicker
    assert at() == 5
    page.keyboard.press("ArrowLeft")  # the focus went back to the deck
    assert at() == 4
    step.press("End")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    assert at() == 5


def test_dark_and_light_by_key(new_page, small):
    page = opened(new_page(1280, 720), small)
    page.evaluate("deck.slide(4)")
    ground = "getComputedStyle(document.querySelector('.reveal-viewport')).backgroundColor"
    card = page.locator("section.present .card")
    assert (card.get_attribute("data-theme"), page.evaluate(ground)) == ("light", "rgb(255, 255, 255)")
    page.keyboard.press("d")
    assert eventually(page, lambda: card.get_attribute("data-theme") == "dark")
    assert page.evaluate(ground) == "rgb(23, 23, 26)"


def test_a_picture_is_as_large_in_the_dark(new_page, small):
    sizes = []
    for scheme in ("light", "dark"):
        page = opened(new_page(1280, 720, color_scheme=scheme), small)
        page.evaluate("deck.slide(2)")
        picture = page.locator("section.present .shown > img")
        (place, room), white = ((e.bounding_box() for e in (picture, picture.locator(".."))), "rgb(255, 255, 255)")
        assert place["width"] > 0.99 * room["width"] or place["height"] > 0.99 * room["height"]
        assert (picture.evaluate("e => getComputedStyle(e).backgroundColor") == white) == (scheme == "dark")
        sizes.append(place["width"])
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_the_notes_open_from_a_file(new_page, small):
    page = opened(new_page(1280, 720), small)
    page.evaluate("deck.slide(4)")
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    notes = popup.value.locator(".speaker-controls-notes .value")
    assert eventually(page, lambda: "Press play." in notes.inner_text())
    assert "1 min, from 0:02 to 0:03 of 0:04" in notes.inner_text()


def test_the_pdf_has_one_page_a_slide(new_page, small, tmp_path):
    pdf = print_slides.print_deck(new_page().page, small, tmp_path / "slides.pdf").read_bytes()
    slides = small.read_text(encoding="utf-8").count("<section ")
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) == slides
    boxes = set(re.findall(rb"/MediaBox\s*\[([^\]]+)\]", pdf))
    assert [round(float(x)) for x in boxes.pop().split()] == [0, 0, 960, 540] and not boxes


def test_a_replay_on_a_slide_plays_at_every_size(new_page, small):
    for size in ((1920, 1080), (1024, 768)):
        page = opened(new_page(*size), small)
        page.evaluate("deck.slide(4)")
        settled(page)
        assert page.evaluate(LOOK, SMALLEST) == []
        assert replays_move(page) == 1
        page.locator("section.present").get_by_role("button", name="Play").click()
        status = page.locator("section.present .status")
        assert eventually(page, lambda status=status: status.inner_text().startswith("finished"))

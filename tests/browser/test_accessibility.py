"""axe over every view, the Playground with each of its panels open, and the site: light and dark, on a desk and on a telephone."""

from __future__ import annotations

import base64

import pytest

pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")

from axe_playwright_python.sync_playwright import Axe

import sdwidgets
from sdwidgets.widgets.diagram import PARTS
from tests import tiny
from tests.browser.conftest import eventually
from tests.browser.test_playground_page import PAGE
from tests.test_diagram import a_diagram
from tests.test_guidance_explorer import a_view as a_guidance
from tests.test_latent_lab import a_lab
from tests.test_noise_explorer import an_explorer
from tests.test_playground import SECONDS, Watched
from tests.test_race import a_race
from tests.test_replay import EVIL, a_trace
from tests.test_site import build_once
from tests.test_xray import a_view as an_xray

RULES = "wcag2a wcag2aa wcag21a wcag21aa wcag22a wcag22aa best-practice".split()
OPTIONS = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": RULES}}
VIEWS = {
    "replay": lambda: sdwidgets.Replay(a_trace(prompt=EVIL, negative_prompt="dark", complete=False)),
    "noise explorer": an_explorer,
    "race": lambda: a_race(at=0.5),
    "lab, there and back": a_lab,
    "lab, channels": lambda: a_lab(show="channels", change="off"),
    "lab, between": lambda: a_lab(show="between"),
    "lab of one picture": lambda: a_lab(two=False, channels=16),
    "guidance explorer": lambda: a_guidance(1.0, 2.0),
    "guidance explorer, alone": lambda: a_guidance(1.0, 2.0).set(scale=1),
    "diagram": lambda: a_diagram(prompt=EVIL),
    **{f"diagram, {part}": lambda part=part: a_diagram().set(part=part) for part in PARTS},
    "diagram of SD 3": lambda: a_diagram("sd3").set(part="text_encoder"),
    "X-ray": lambda: an_xray(known_words=["a"]),
}


def faults(page) -> list[str]:
    """What axe finds, each with its place."""
    violations = Axe().run(page, options=OPTIONS).response["violations"]
    return [f"{v['id']} at {n['target']}: {n['failureSummary']}" for v in violations for n in v["nodes"]]


#: a colour scheme and a width; the first two show both schemes and both widths, and are quick to look at
FORMS = [("light", 1280), ("dark", 390), ("dark", 1280), ("light", 390)]
in_two_forms = pytest.mark.parametrize("forms", [FORMS[:2], pytest.param(FORMS[2:], marks=pytest.mark.weekly)])


def assert_no_faults(page, forms):
    for scheme, width in forms:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert eventually(page, lambda scheme=scheme: page.locator(f".card[data-theme={scheme}]").count())
        assert faults(page) == [], (scheme, width)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """`pages(name)`: where that view stands as a file; each is exported once."""
    folder, made = tmp_path_factory.mktemp("views"), {}

    def export(name):
        if name not in made:
            made[name] = VIEWS[name]().export_html(folder / f"{len(made)}.html").as_uri()
        return made[name]

    return export


def opened(page, address):
    page.goto(address)
    page.locator(".card canvas:visible").first.wait_for()
    return page


# In the quick tests the one that all share: the rest takes a minute.
@in_two_forms
@pytest.mark.parametrize(
    "name", ["replay", *(pytest.param(name, marks=pytest.mark.slow) for name in VIEWS if name != "replay")]
)
def test_axe_finds_nothing_in_an_exported_view(new_page, pages, name, forms):
    assert_no_faults(opened(new_page(), pages(name)), forms)


def test_axe_would_find_a_fault_within_a_view(new_page, pages):
    """It goes through shadow roots, and reads colours there."""
    page = opened(new_page(), pages("race"))
    page.locator(".play").evaluate("button => { button.textContent = ''; }")
    page.locator(".badge").evaluate("badge => { badge.style.color = '#bbb'; }")
    found = "\n".join(faults(page))
    assert "button-name at" in found and "color-contrast at" in found and ".badge" in found


# --- the Playground ---


@pytest.fixture(scope="module")
def heard() -> list:
    """What a page hears of two runs, their comparison, the code, a source, and settings that are refused."""
    play = Watched(tiny.pipeline("sd"), num_inference_steps=2, autorun=False)
    play.page("hello")
    for seed in (0, 1):
        play.run(prompt="a cat", seed=seed).wait(SECONDS)
    play.page("export_code")
    play.page("compare", numbers=[1, 2])
    play.page("use_last")
    play.page("tokenize", text="a cat")
    play.page("run", settings={"num_inference_steps": "many", "guidance_scale": "strong"})
    messages = [
        [m, [base64.b64encode(b).decode() for b in bs or []]] for m, bs in zip(play.sent, play.buffers, strict=True)
    ]
    play.close()
    return messages


@pytest.fixture
def playground(new_page, heard):
    """The Playground with its history, a comparison, the program, the negative prompt, the mask pad and two errors."""
    page = new_page()
    script = Watched._esm.default_value.replace("export default", "window.widget =")
    page.set_content(
        f'<!doctype html><html lang="en"><title>A notebook</title><main><h1>Notebook</h1></main><script>{script}\n{PAGE}</script>'
    )
    for message in heard:
        page.evaluate("(message) => say(message)", message)
    page.get_by_role("button", name="+ negative prompt").click()
    page.get_by_role("radio", name="Inpaint").check(force=True)
    page.evaluate("([message]) => say([{ ...message, number: message.number + 1 }, []])", heard[-1])
    for shown in (".history", ".compare table", ".code pre", ".pad .over", ".error:visible"):
        page.locator(shown).first.wait_for()
    return page


@in_two_forms
def test_axe_finds_nothing_in_the_playground_with_all_its_panels_open(playground, forms):
    assert_no_faults(playground, forms)


@pytest.mark.slow
def test_axe_finds_nothing_in_any_task_of_the_playground(playground):
    tasks = playground.get_by_role("radiogroup", name="Task").get_by_role("radio")
    assert tasks.count() == 4
    for i in range(4):
        tasks.nth(i).check(force=True)
        assert_no_faults(playground, FORMS[:2])


# --- the site ---


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build_once(tmp_path_factory)


BOOKS = [
    pytest.param(f"notebooks/{name}", marks=pytest.mark.weekly) for name in ("00_welcome", "02_noise_schedules")
]  # a minute each


@pytest.mark.parametrize("name", ["index", "reference/views", *BOOKS])
def test_axe_finds_nothing_on_a_page_of_the_site(new_page, site, name):
    page = new_page()
    page.goto((site / f"{name}.html").as_uri())
    for scheme, width in FORMS[:2]:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert faults(page) == [], (scheme, width)


# --- by keyboard ---

KEYBOARD = """
const deep = (root) => [...root.querySelectorAll("*")].flatMap((e) => [e, ...(e.shadowRoot ? deep(e.shadowRoot) : [])]);
const focused = () => { let e = document.activeElement; while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement; return e; };
const first = (e, all) => e.type !== "radio" || e.checked || !all.some((o) => o.name === e.name && (o.checked || all.indexOf(o) < all.indexOf(e)));
window.controls = () => {
  const all = deep(document).filter((e) => e.matches("a[href], button, input, textarea, select, summary, [tabindex]") && e.tabIndex >= 0 && !e.disabled && e.checkVisibility());
  return all.filter((e) => first(e, all.filter((o) => o.type === "radio"))); // of a group of radio buttons Tab stops at one
};
window.moving = () => deep(document).flatMap((e) => ["", "::before", "::after"].map((part) => getComputedStyle(e, part || null))
  .filter((style) => style.animationName !== "none" || style.transitionDuration.split(", ").some((time) => time !== "0s"))).length;
window.around = () => {
  const box = (focused().closest("label") ?? focused()).getBoundingClientRect();
  return { x: Math.max(0, box.x - 8), y: Math.max(0, box.y - 8), width: box.width + 16, height: box.height + 16 };
};
window.focused = focused;
"""


def assert_tab_reaches_all(page):
    """Tab stops at every control and nowhere else, and each stop is seen."""
    page.evaluate(KEYBOARD)
    page.evaluate(
        "() => { window.reached = new Set(); document.body.tabIndex = -1; document.body.focus(); }"
    )  # from the top
    count = page.evaluate("controls().length")
    for _ in range(count):
        page.keyboard.press("Tab")
        if page.evaluate("focused() === document.body || !reached.add(focused())"):
            break
        place = page.evaluate("around()")
        seen = page.screenshot(clip=place)
        page.evaluate("() => { window.left = focused(); left.blur(); }")
        assert seen != page.screenshot(clip=place), page.evaluate("left.outerHTML.slice(0, 200)")
        page.evaluate("left.focus({ preventScroll: true })")
    missed = page.evaluate("controls().filter((e) => !reached.has(e)).map((e) => e.outerHTML.slice(0, 200))")
    assert count > 2 and missed == []


@pytest.mark.parametrize(
    "name", ["replay", *(pytest.param(name, marks=pytest.mark.weekly) for name in VIEWS if name != "replay")]
)
def test_every_control_of_a_file_is_reached_and_seen_by_keyboard(new_page, pages, name):
    assert_tab_reaches_all(opened(new_page(color_scheme="dark"), pages(name)))


@pytest.mark.slow
def test_every_control_of_the_playground_is_reached_and_seen_by_keyboard(playground):
    assert_tab_reaches_all(playground)


# --- less motion ---


def test_nothing_moves_where_the_system_asks_for_less_motion(playground):
    playground.evaluate(KEYBOARD)
    assert playground.evaluate("moving()") > 0  # the bar of the progress, the switch of the live mode
    playground.emulate_media(reduced_motion="reduce")
    assert playground.evaluate("moving()") == 0

"""The Playground's script alone in a page, which hears what a real run said, message by message."""

from __future__ import annotations

import base64
import copy
import json
import re

import pytest

from sdwidgets.widgets.playground.widget import Playground
from tests import tiny
from tests.test_playground import SECONDS, Watched

PAGE = """
window.sent = [];
window.heard = null;
const model = { get: () => "here", on: (_, heard) => { window.heard = heard; }, off: () => {}, send: (content) => sent.push(content) };
const host = document.createElement("div");
document.body.append(host);
window.view = new PlaygroundView(model, host);
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.say = ([message, buffers]) => heard({ ...message, client: message.client === "page" ? view.client : message.client ?? "" }, buffers.map(bytes));
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> list[tuple[dict, list[str]]]:
    """All that a page hears from its hello on, with one run of three steps, of a model that knows its words."""
    pipe, folder = copy.deepcopy(tiny.pipeline("sd")), tmp_path_factory.mktemp("words")
    captions = {"a": 900, "cat": 900, "background": 900, "duck": 5}
    (folder / "words.json").write_text(json.dumps({"captions": captions, "examples": ["a cat", "a cat, a cat"]}))
    pipe.register_to_config(_name_or_path=str(folder))
    play = Watched(pipe, num_inference_steps=3, autorun=False)
    play.page("hello")
    play.run(prompt="a cat").wait(SECONDS)
    play.page("tokenize", text="a duck, a backgruond, a <i>")
    messages = [
        (m, [base64.b64encode(b).decode() for b in bs or []]) for m, bs in zip(play.sent, play.buffers, strict=True)
    ]
    play.close()
    return messages


@pytest.fixture
def page(new_page):
    return opened(new_page())


def opened(page, above: int = 0):
    """The script in a page, with bars of so many pixels above it."""
    script = Playground._esm.default_value.replace("export default", "window.widget =")
    page.set_content(f"<body style='margin: 0'><div style='height: {above}px'></div><script>{script}\n{PAGE}</script>")
    return page


def say(page, said, *kinds: str) -> None:
    """Say all messages, or those of these kinds."""
    for message in said:
        if not kinds or message[0]["kind"] in kinds:
            page.evaluate("(message) => say(message)", list(message))


def box(page, selector: str) -> dict:
    return page.locator(selector).first.bounding_box()


def test_it_can_begin_anew_as_soon_as_the_picture_is_there(page, said):
    """While the previews of its steps are decoded, which takes as long again, nobody needs to stop anything."""
    seen = []
    for message in said:
        page.evaluate("(message) => say(message)", list(message))
        seen.append((message[0]["kind"], page.locator(".go").text_content()))
        if message[0]["kind"] == "result":
            page.locator(".go").click()
            assert page.evaluate("sent.at(-1).kind") == "run"
    kinds = [kind for kind, _ in seen]
    assert kinds.index("queued") < kinds.index("result") < kinds.index("pictures") < kinds.index("done")
    during, after = dict(seen[: kinds.index("result")]), seen[kinds.index("result") :]
    assert during["queued"] == during["frames"] == "Stop" and {text for _, text in after} == {"Generate"}


def test_generate_begins_a_run_while_a_live_one_is_decoded(page, said):
    """A live run shows no Stop, so the button that says Generate must not stop it."""
    hello, queued = (next(message for message in said if message[0]["kind"] == kind) for kind in ("state", "queued"))
    page.evaluate("(message) => say(message)", list(hello))
    live = [{**queued[0], "client": "page", "live": 1}, queued[1]]
    page.evaluate("(message) => say(message)", live)
    assert page.evaluate("view.busy")
    page.locator(".go", has_text="Generate").click()
    assert page.evaluate("sent.at(-1)")["kind"] == "run"


@pytest.mark.parametrize(("width", "height", "above", "fits"), [(1240, 900, 100, ".playground"), (1100, 720, 100, ".playground"), (390, 844, 60, ".bar")])  # fmt: skip
def test_all_of_it_is_on_one_screen(new_page, said, width, height, above, fits):
    """As wide as JupyterLab's cells are at 1440x900 and 1280x720, under its bars; on a phone down to the slider."""
    page = opened(new_page(width=width, height=height), above)
    say(page, said)
    hero, strip, bar = (box(page, selector) for selector in (".hero canvas", ".strip", ".bar"))
    assert hero["height"] >= min(0.4 * height, 330) and hero["y"] >= 0
    assert (
        hero["y"] + hero["height"] < strip["y"] < hero["y"] + hero["height"] + 60
    )  # the steps are right under the picture
    whole = box(page, fits)
    assert whole["y"] + whole["height"] <= height and bar["y"] < height
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_number_that_is_typed_waits_for_enter(page, said):
    say(page, said)
    runs = lambda: page.evaluate("sent.filter((message) => message.kind === 'run').length")
    before, steps = runs(), page.get_by_role("textbox", name="Steps")
    steps.fill("500")
    steps.press("Tab")
    page.wait_for_timeout(200)
    assert runs() == before
    steps.press("Enter")
    assert runs() == before + 1 and page.evaluate("sent.at(-1).settings.num_inference_steps") == "500"


def test_what_it_says_and_offers_of_its_words(page, said):
    page.evaluate("view.fields.prompt.input.value = 'a duck, a backgruond, a <i>'")
    say(page, said)
    page.evaluate("view.fields.prompt.write('a duck, a backgruond, a <i>')")
    say(page, [(dict(said[-1][0], client="page"), said[-1][1])])
    words = page.locator(".offers[role=status]")
    assert (
        words.inner_text().replace("\n", " ")
        == "Never seen in its training: backgruond – near: background i so the picture may not show it. Rarely seen: duck (in 5 captions)"
    )
    before = page.evaluate("sent.filter((message) => message.kind === 'run').length")
    page.locator("button", has_text=re.compile("^background$")).click()
    assert (
        page.evaluate("sent.filter((message) => message.kind === 'run').length") == before
    )  # it mends the word alone
    assert page.evaluate("view.fields.prompt.read()") == "a duck, a background, a <i>"
    page.get_by_role("button", name="a cat, a cat").click()
    assert page.evaluate("view.fields.prompt.read()") == "a cat, a cat"
    page.wait_for_timeout(200)
    assert page.evaluate("sent.at(-1).settings.prompt") == "a cat, a cat"
    page.get_by_role("button", name="Surprise me").click()
    page.wait_for_timeout(200)
    assert page.evaluate("sent.at(-1).settings.prompt") == "a cat"  # another one


def test_dice_and_the_seed_before(page, said):
    say(page, said)
    back = page.get_by_role("button", name="The seed before")
    assert back.is_disabled()
    page.get_by_role("button", name="Another seed, by chance").click()
    seed = int(page.evaluate("view.fields.seed.read()"))
    assert 0 <= seed < 10_000
    queued = next(message for message in said if message[0]["kind"] == "queued")
    say(
        page,
        [
            (
                {**queued[0], "client": "page", "number": 900, "settings": {**queued[0]["settings"], "seed": seed}},
                queued[1],
            )
        ],
    )
    back.click()
    assert int(page.evaluate("view.fields.seed.read()")) == queued[0]["settings"]["seed"] != seed


def test_controls_fold_and_say_what_is_set(page, said):
    say(page, said)
    fold = page.locator(".settings")
    slider = page.get_by_role("slider", name="Steps")
    assert slider.is_visible() and fold.get_attribute("aria-expanded") == "true"
    fold.click()
    assert not slider.is_visible() and "3 steps" in fold.inner_text() and "seed 0" in fold.inner_text()


def test_projector_mode_is_prompt_picture_and_steps_on_one_screen(new_page, said):
    page = opened(new_page(width=1280, height=720))
    say(page, said)
    page.locator(".strip button").last.focus()
    page.keyboard.press("f")
    page.wait_for_timeout(300)
    assert (
        page.evaluate("view.replay.projection.isFullScreen")
        and page.locator(".full, button", has_text="Full screen").get_attribute("aria-pressed") == "true"
    )
    seen = [
        page.locator(selector).first.is_visible()
        for selector in ("textarea", ".hero canvas", ".bar", ".numbers", ".knobs", ".tokens")
    ]
    assert seen == [True, True, True, False, False, False]
    assert float(page.locator("textarea").first.evaluate("e => getComputedStyle(e).fontSize").removesuffix("px")) >= 24
    bar, hero = box(page, ".bar"), box(page, ".hero canvas")
    assert bar["y"] + bar["height"] <= 720 and hero["height"] >= 360
    page.locator(".strip button").last.focus()
    page.keyboard.press("f")
    page.wait_for_timeout(300)
    assert not page.evaluate("view.replay.projection.isFullScreen") and page.locator(".numbers").is_visible()


def test_in_live_mode_what_is_older_than_the_controls_is_dimmed(page, said):
    say(page, said)
    opacity = lambda selector: float(page.locator(selector).first.evaluate("e => getComputedStyle(e).opacity"))
    result = next(message for message in said if message[0]["kind"] == "result")
    picture = result[0]["entry"]["thumbnail"]
    page.get_by_role("switch", name="Live").check()
    page.wait_for_timeout(600)
    assert opacity(".hero") < 0.5 and opacity(".standing") < 0.5  # nothing has answered yet
    live = {"kind": "live", "client": "", "number": 901, "again": True, "live": 1, "picture": picture, "seconds": 0.1}
    say(page, [(live, result[1])])
    page.wait_for_timeout(600)
    assert (
        opacity(".hero") == 1 and opacity(".standing") < 0.5
    )  # the picture is new, the rest describes the run before
    say(
        page,
        [({"kind": "done", "client": "", "number": 902, "again": True, "badge": "", "failure": None, "live": 1}, [])],
    )
    page.wait_for_timeout(400)
    assert opacity(".standing") == 1


SOURCE = """async () => {
  const canvas = new OffscreenCanvas(64, 64);
  canvas.getContext("2d").fillRect(0, 0, 64, 64);
  const bytes = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
  view.source.choose("inpaint");
  await view.source.open({ source: bytes, mask: null });
}"""


def test_the_mask_is_painted_large_with_undo_and_keys(page, said):
    say(page, said)
    page.evaluate(SOURCE)
    pad, hero = box(page, ".pad"), box(page, ".hero canvas")
    assert abs(pad["width"] - hero["width"]) < 2 and abs(pad["y"] - hero["y"]) < 2  # beside the result, as large
    painted = "() => [...view.source.pad.mask.getContext('2d').getImageData(0, 0, 64, 64).data].filter((x, i) => i % 4 === 3 && x > 127).length"
    undo = page.get_by_role("button", name="Undo")
    assert page.evaluate(painted) == 0 and undo.is_disabled()
    middle = pad["x"] + pad["width"] / 2, pad["y"] + pad["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.up()
    once = page.evaluate(painted)
    page.keyboard.press("]")
    page.keyboard.press("]")
    page.mouse.down()
    page.mouse.up()
    assert 0 < once < page.evaluate(painted)
    page.keyboard.press("Control+z")
    assert page.evaluate(painted) == once
    undo.click()
    assert page.evaluate(painted) == 0 and undo.is_disabled()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_comes_in_and_a_run_starts_from_it(page, said, way):
    say(page, said)
    page.evaluate(
        """(way) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array([1, 2, 3])], "a.png", { type: "image/png" }));
          const event = way === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }) : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
          view.replay.card.dispatchEvent(event);
        }""",
        way,
    )
    page.wait_for_timeout(200)
    sent = page.evaluate("sent.at(-1)")
    assert (sent["kind"], sent["purpose"], sent["name"], sent["size"]) == ("upload", "run", "a.png", 3)
    page.evaluate(SOURCE.replace('view.source.choose("inpaint");', ""))
    say(page, [({"kind": "upload_reply", "client": "page", "done": True, "refused": None, "source": True}, [])])
    assert page.get_by_role("radio", name="Picture to picture").is_checked()
    page.get_by_role("button", name="Generate").click()
    assert page.evaluate("sent.at(-1)")["settings"]["task"] == "image"


def test_a_new_run_is_followed_to_its_end(page, said):
    """Whoever looked at an early step would take the next run's early step for its picture."""
    say(page, said)
    page.get_by_role("slider", name="Step", exact=True).press("Home")
    assert page.locator(".status").inner_text().startswith("step 1")
    page.get_by_role("button", name="Generate").click()
    page.evaluate("view.seen = 0")
    say(page, said, "queued", "frames", "result", "pictures", "done")
    assert page.locator(".status").inner_text().startswith("finished")


def test_a_click_anywhere_gives_it_the_keys(page, said):
    say(page, said)
    page.locator(".hero canvas").click()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".status").inner_text().startswith("step 3")

"""The Playground in JupyterLab: a person's hands on it. Every test runs once with this environment's versions of widgets
and kernel and once with Colab's; the tests of one environment share one notebook, in the order of this file.
"""

from __future__ import annotations

import pytest
from PIL import Image

from sdwidgets.trace_io import extract_trace
from tests.browser.conftest import eventually, pixels

SETUP = """
import threading
import tiny  # of tests/; IPython 7 has a package named tests of its own
from sdwidgets import Playground

class LosesThreads(Playground):
    "Updates from a worker thread do not arrive, as seen on Colab (googlecolab/colabtools#3373)."
    def send(self, content, buffers=None):
        if threading.current_thread().name != "sdwidgets-worker":
            super().send(content, buffers)
"""
PLAY = "play = Playground(tiny.pipeline('sd'), num_inference_steps=6)\nplay"
LOST = "lost = LosesThreads(tiny.pipeline('sd'), num_inference_steps=3, autorun=False)\nlost"


class Card:
    """One widget on a page."""

    def __init__(self, page, card):
        self.page, self.card = page, card
        self.hero = card.locator(".hero canvas")
        self.status = card.locator(".status")
        self.step = card.get_by_role("slider", name="Step", exact=True)

    def slider(self, name: str):
        return self.card.get_by_role("slider", name=name, exact=True)

    def box(self, name: str):
        return self.card.get_by_role("textbox", name=name, exact=True)

    def settled(self) -> Card:
        """Wait until no run is under way and the finished picture is decoded."""
        idle = "card => card.getAttribute('aria-busy') === 'false' && !card.classList.contains('empty')"
        assert eventually(self.page, lambda: self.card.evaluate(idle)), "the run did not end"
        self.page.wait_for_timeout(300)
        return self

    def drag(self, slider, to: float) -> None:
        """Take the slider's thumb with the mouse and pull it to this part of its length."""
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        low, value, high = (float(slider.evaluate(f"s => s.{name}")) for name in ("min", "value", "max"))
        middle = box["y"] + box["height"] / 2
        at = 8 + (box["width"] - 16) * (value - low) / (high - low)
        self.page.mouse.move(box["x"] + at, middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + 8 + (box["width"] - 16) * to, middle, steps=8)
        self.page.mouse.up()


@pytest.fixture(
    scope="module", params=["current", pytest.param("colab", marks=[pytest.mark.colab, pytest.mark.weekly])]
)
def page(request, browser, labs):
    from tests.browser.conftest import PATIENCE, Page

    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(1000 * PATIENCE)
    opened = labs(request.param).open(Page(context), "playground", SETUP, PLAY, LOST)
    opened.locator(".card .go").nth(1).wait_for()
    opened.kind = request.param
    yield opened
    context.close()


@pytest.fixture
def card(page) -> Card:
    return Card(page, page.locator(".card").first).settled()


@pytest.fixture(autouse=True)
def no_error_in_the_console(page):
    yield
    errors, page.errors[:] = list(page.errors), []
    assert errors == []


def test_the_versions_are_those_that_the_test_is_about(page):
    page.evaluate(
        """async () => {
          const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          const code = "import ipywidgets, anywidget, ipykernel; play.tooltip = ' '.join("
            + "m.__version__ for m in (ipywidgets, anywidget, ipykernel))";
          window.versions = "";
          const future = kernel.requestExecute({code: code + "; print(play.tooltip)"});
          future.onIOPub = (m) => { if (m.header.msg_type === "stream") window.versions += m.content.text; };
          await future.done;
        }"""
    )
    versions = page.evaluate("window.versions").split()
    assert (versions == ["7.7.1", "0.9.21", "6.17.1"]) == (page.kind == "colab"), versions


def test_the_first_picture_comes_by_itself(card):
    assert card.status.inner_text() == "finished · t = 0 · 100 % picture"
    assert len(set(card.hero.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"))) > 10
    assert "CPU · float32" in card.card.locator(".badge").inner_text()


def test_dragging_a_slider_changes_the_picture(card):
    before = pixels(card.hero)
    card.drag(card.slider("Seed"), to=0.5)
    seed = card.box("Seed").input_value()
    assert 40 <= int(seed) <= 60
    assert eventually(card.page, lambda: pixels(card.settled().hero) != before)
    card.drag(card.slider("Seed"), to=0.0)  # the same seed, the same picture
    assert card.box("Seed").input_value() == "0"
    assert eventually(card.page, lambda: pixels(card.settled().hero) == before)


def test_the_scrubber_moves_without_the_kernel(card):
    finished = pixels(card.hero)
    card.page.wait_for_timeout(1200)  # what the page still had to say to the kernel
    sent = card.page.frames_sent
    card.step.focus()
    card.step.press("Home")
    assert card.status.inner_text().startswith("step 1 of 6 · t = ")
    first = pixels(card.hero)
    assert first != finished
    card.step.press("ArrowRight")
    assert card.status.inner_text().startswith("step 2 of 6")
    card.drag(card.step, to=1.0)
    assert card.status.inner_text().startswith("finished") and pixels(card.hero) == finished
    card.card.get_by_role("button", name="step 1", exact=True).click()
    assert pixels(card.hero) == first
    card.card.get_by_label("Speed of play").select_option("4")
    card.card.get_by_role("button", name="Play").click()
    assert eventually(card.page, lambda: card.status.inner_text().startswith("finished"))
    assert card.page.frames_sent == sent


def test_channels_show_latents_prediction_and_its_halves(card):
    seen = set()
    card.step.press("Home")
    for name in ("Latents", "Prediction", "With prompt", "Without", "Difference"):
        card.card.get_by_role("radio", name=name, exact=True).check()
        seen.add(pixels(card.card.locator(".channels canvas").first))
        assert "(blue) to" in card.card.locator(".numbers figcaption").inner_text()
    assert len(seen) == 5
    card.card.get_by_role("radio", name="Latents", exact=True).check()
    card.step.press("End")


def test_bad_input_is_a_sentence_beside_its_control(card):
    box = card.box("Steps")
    box.fill("ten")
    box.press("Enter")
    error = card.card.locator(".knob", has=card.page.get_by_role("textbox", name="Steps", exact=True)).locator(
        ".error"
    )
    assert eventually(card.page, lambda: error.is_visible())
    assert "whole number" in error.inner_text() and box.get_attribute("aria-invalid") == "true"
    box.fill("4")
    box.press("Enter")
    thumbnails = card.card.locator(".strip button")
    assert eventually(card.page, lambda: thumbnails.count() == 5)  # four steps and the picture
    assert "finished" in card.settled().status.inner_text() and not error.is_visible()


def test_tokens_appear_as_they_are_typed_and_jupyterlab_keeps_its_hands_off(card):
    cells = card.page.locator(".jp-Cell").count()
    prompt = card.box("Prompt")
    prompt.fill("")
    prompt.press_sequentially("add x <b>")  # "d d" deletes a cell in JupyterLab, "a" and "x" change the notebook too
    chips = card.card.locator(".chip")
    assert eventually(card.page, lambda: "".join(chips.all_inner_texts()) == "addx<b>")
    assert "of 77 tokens" in card.card.locator(".tokens .count").inner_text()
    prompt.press("Enter")
    card.settled()
    card.step.focus()
    card.step.press("ArrowUp")
    assert card.page.locator(".jp-Cell").count() == cells


def test_every_control_has_a_name_and_the_keyboard_reaches_them(card):
    nameless = card.card.evaluate(
        """card => [...card.querySelectorAll("input, select, button")].filter((c) =>
          !(c.labels?.length || c.getAttribute("aria-label") || c.textContent.trim())).length"""
    )
    assert nameless == 0
    card.box("Prompt").focus()
    reached = []
    for _ in range(40):
        card.page.keyboard.press("Tab")
        reached.append(
            card.card.evaluate(
                "card => card.getRootNode().activeElement?.ariaLabel ?? card.getRootNode().activeElement?.textContent"
            )
        )
    for name in ("Seed", "Steps", "Guidance", "Step", "Speed of play"):
        assert name in reached
    assert any(name in reached for name in ("Generate", "Stop")) and "Play" in reached and "Projector mode" in reached


def test_the_picture_can_be_copied_as_code(card):
    button = card.card.get_by_role("button", name="Copy as code")
    button.click()
    program = card.card.locator(".code pre")
    assert eventually(card.page, lambda: "StableDiffusionPipeline.from_pretrained" in program.inner_text())
    status = card.card.locator(".code [role=status]")
    assert eventually(card.page, lambda: "without the Playground" in status.inner_text())
    assert button.get_attribute("aria-expanded") == "true"
    card.card.get_by_role("button", name="Close", exact=True).click()
    assert not program.is_visible()


def test_a_saved_picture_brings_its_run_back(card, tmp_path):
    before, seed = pixels(card.hero), card.box("Seed").input_value()
    with card.page.expect_download() as download:
        card.card.get_by_role("button", name="Save picture").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert extract_trace(path).settings.seed == int(seed) and path.stem.endswith(f"seed-{seed}")
    card.box("Seed").fill("77")
    card.box("Seed").press("Enter")
    assert eventually(card.page, lambda: pixels(card.settled().hero) != before)
    chosen = card.card.locator("input[type=file][accept*=html]")
    chosen.set_input_files(path)
    assert eventually(card.page, lambda: card.box("Seed").input_value() == seed)
    assert eventually(card.page, lambda: pixels(card.settled().hero) == before)
    foreign = tmp_path / "foreign.png"
    Image.new("RGB", (8, 8)).save(foreign)
    dropped = card.page.evaluate_handle(
        """bytes => { const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], "foreign.png", {type: "image/png"})); return data; }""",
        list(foreign.read_bytes()),
    )
    card.card.dispatch_event("drop", {"dataTransfer": dropped})
    task, generate = (
        card.card.get_by_role("radio", name="Picture to picture"),
        card.card.get_by_role("button", name="Generate"),
    )
    assert eventually(card.page, task.is_checked)  # a picture without a run: the next one starts from it
    generate.click()
    assert (
        eventually(card.page, lambda: pixels(card.settled().hero) != before) and card.box("Seed").input_value() == seed
    )
    card.card.get_by_role("radio", name="Text to picture").check(force=True)
    generate.click()
    assert eventually(card.page, lambda: pixels(card.settled().hero) == before)


def test_a_mask_is_drawn_by_mouse_and_by_numbers(card):
    before = pixels(card.hero)
    card.card.get_by_role("radio", name="Inpaint").check(force=True)
    card.card.get_by_role("button", name="Use the last picture").click()
    mask = card.card.locator(".pad .over")
    assert eventually(card.page, mask.is_visible)
    mask.scroll_into_view_if_needed()
    box = mask.bounding_box()
    card.page.mouse.move(box["x"] + 40, box["y"] + 40)
    card.page.mouse.down()
    card.page.mouse.move(box["x"] + 120, box["y"] + 90, steps=6)
    card.page.mouse.up()
    card.card.get_by_role("button", name="Generate").click()
    assert eventually(card.page, lambda: pixels(card.settled().hero) != before)
    drawn = pixels(mask)
    card.card.locator(".brush summary").click()
    card.card.get_by_role("spinbutton", name="Left, percent").fill("0")
    card.card.get_by_role("button", name="Apply").click()
    assert pixels(mask) != drawn
    card.card.get_by_role("button", name="Clear the mask").click()
    card.card.get_by_role("button", name="Generate").click()
    error = card.card.locator(".aside .error", has_text="Mark on the picture")
    assert eventually(card.page, error.is_visible)
    card.card.get_by_role("radio", name="Text to picture").check(force=True)
    card.card.get_by_role("button", name="Generate").click()
    assert eventually(card.page, lambda: pixels(card.settled().hero) == before)


def test_two_of_the_last_runs_are_compared(card):
    tiles = card.card.locator(".past button")
    known = tiles.count()
    card.box("Seed").fill("31")
    card.box("Seed").press("Enter")
    assert eventually(card.page, lambda: tiles.count() >= max(2, known))
    card.settled()
    shown = card.card.locator(".past [aria-current=true]")
    now = pixels(card.hero)
    card.card.get_by_role("button", name="Compare with").click()
    tiles.first.click()
    compare = card.card.locator(".compare")
    assert eventually(card.page, compare.is_visible)
    assert "What differs" in compare.inner_text() and pixels(card.hero) == now
    left, right = (canvas.bounding_box() for canvas in compare.locator("canvas").all()[::-1])
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
    compare.get_by_role("radio", name="Laid over").check(force=True)
    wipe = card.slider("Where the two pictures meet")
    wipe.focus()
    wipe.press("Home")
    assert "inset(0px 100% 0px 0px)" in compare.locator("canvas").last.evaluate("c => getComputedStyle(c).clipPath")
    compare.get_by_role("button", name="Close the comparison").click()
    tiles.first.click()  # shown again
    first = tiles.first.get_attribute("aria-label")
    assert eventually(card.page, lambda: card.settled() and shown.get_attribute("aria-label") == first)


def test_live_the_picture_follows_fast_typing(card):
    live = card.card.get_by_role("switch", name="Live")
    live.check()
    assert eventually(card.page, lambda: int(card.card.get_attribute("data-live") or 0) > 0)
    prompt = card.box("Prompt")
    prompt.fill("")
    words = "a red cat on a green background, seen from far above"
    prompt.press_sequentially(words, delay=15)
    asked = "print(play.trace.settings.prompt, '|', play.trace.settings.num_inference_steps, '|', len(play.history))"
    assert eventually(card.page, lambda: ask(card.page, asked).startswith(words + " |"))
    card.settled()
    runs = int(card.card.get_attribute("data-live"))
    assert 1 < runs <= len(words) + 3  # one at most for each letter, none of them waiting still
    last = pixels(card.hero)
    before = card.box("Seed").input_value()
    card.drag(card.slider("Seed"), to=0.8)
    assert eventually(
        card.page, lambda: ask(card.page, "print(play.trace.settings.seed)") == card.box("Seed").input_value()
    )
    assert eventually(card.page, lambda: pixels(card.settled().hero) != last)
    card.box("Seed").fill(before)
    card.box("Seed").press("Tab")
    assert eventually(card.page, lambda: pixels(card.settled().hero) == last)  # the last settings' own picture
    live.uncheck()
    card.card.get_by_role("button", name="Generate").click()
    assert eventually(card.page, lambda: card.settled().card.get_attribute("data-live") == "0")


def test_light_and_dark_follow_jupyterlab_and_can_be_read(card):
    colours = {}
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        card.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        word = theme.split()[1].lower()
        assert eventually(card.page, lambda word=word: card.card.get_attribute("data-theme") == word)
        card.page.wait_for_timeout(300)
        colours[word] = {
            name: card.card.locator(place).first.evaluate("e => getComputedStyle(e).color")
            for name, place in [("text", ".status"), ("caption", "figcaption"), ("badge", ".badge")]
        }
        colours[word]["ground"] = card.card.evaluate("e => getComputedStyle(e).backgroundColor")
        for name in ("text", "caption", "badge"):
            assert contrast(colours[word][name], colours[word]["ground"]) >= 4.5, (theme, name, colours)
    assert luminance(colours["dark"]["ground"]) < 0.2 < 0.8 < luminance(colours["light"]["ground"])


def test_the_page_asks_for_news_that_threads_could_not_send(page):
    lost = Card(page, page.locator(".card.playground").nth(1))  # between them is what the first one leaves
    lost.card.get_by_role("button", name="Generate").click()
    assert "finished" in lost.settled().status.inner_text()
    lost.drag(lost.slider("Seed"), to=0.3)
    first = pixels(lost.hero)
    assert eventually(page, lambda: pixels(lost.settled().hero) != first)


def test_a_saved_notebook_shows_the_last_run_without_its_kernel(card, labs, new_page):
    left = card.page.locator("[data-sdwidgets-saved]").first
    last = pixels(card.settled().hero)
    assert eventually(card.page, lambda: pixels(left.locator(".hero canvas")) == last)
    assert not left.is_visible()  # beside the live widget nothing is seen of it
    card.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    lab = labs(card.page.kind)
    (lab.folder / "again.ipynb").write_bytes((lab.folder / "playground.ipynb").read_bytes())
    other = lab.show(new_page(), "again")
    replay = other.locator("[data-sdwidgets-saved] .card").first
    replay.wait_for()
    assert pixels(replay.locator(".hero canvas")) == last
    assert other.get_by_text("to change it, run the notebook").first.is_visible()
    broken = other.get_by_text("model not found").first
    assert eventually(other, lambda: broken.count() and not broken.is_visible())
    replay.get_by_role("slider", name="Step", exact=True).press("Home")
    assert replay.locator(".status").inner_text().startswith("step 1")


def ask(page, code: str) -> str:
    """What the kernel prints."""
    return page.evaluate(
        """async (code) => {
          const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          let printed = "";
          const future = kernel.requestExecute({code});
          future.onIOPub = (m) => { if (m.header.msg_type === "stream") printed += m.content.text; };
          await future.done;
          return printed.trim();
        }""",
        code,
    )


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" or "rgba(...)" (WCAG 2.2)."""
    red, green, blue = (float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(text: str, ground: str) -> float:
    """WCAG 2.2 contrast ratio; a translucent text colour counts as mixed with the ground."""
    parts = [float(part) for part in text[text.index("(") + 1 : -1].split(",")]
    if len(parts) == 4:
        under = [float(part) for part in ground[ground.index("(") + 1 : -1].split(",")[:3]]
        text = (
            f"rgb({','.join(str(parts[3] * a + (1 - parts[3]) * b) for a, b in zip(parts[:3], under, strict=True))})"
        )
    light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)

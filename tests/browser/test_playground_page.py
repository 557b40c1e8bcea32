"""The Playground's script alone in a page, which hears what a real run said, message by message."""

from __future__ import annotations

import base64

import pytest

from sdwidgets.widgets.playground.widget import Playground
from tests import tiny
from tests.test_playground import SECONDS, Watched

PAGE = """
window.sent = [];
window.heard = null;
const model = { on: (_, heard) => { window.heard = heard; }, off: () => {}, send: (content) => sent.push(content) };
const host = document.createElement("div");
document.body.append(host);
window.view = new PlaygroundView(model, host);
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.say = ([message, buffers]) => heard({ ...message, client: message.client === "page" ? view.client : message.client ?? "" }, buffers.map(bytes));
"""


@pytest.fixture(scope="module")
def said() -> list[tuple[dict, list[str]]]:
    """All that a page hears from its hello on, with one run of three steps."""
    play = Watched(tiny.pipeline("sd"), num_inference_steps=3, autorun=False)
    play.page("hello")
    play.run(prompt="a cat").wait(SECONDS)
    messages = [
        (m, [base64.b64encode(b).decode() for b in bs or []]) for m, bs in zip(play.sent, play.buffers, strict=True)
    ]
    play.close()
    return messages


@pytest.fixture
def page(new_page, said):
    page = new_page()
    script = Playground._esm.default_value.replace("export default", "window.widget =")
    page.set_content(f"<body><script>{script}\n{PAGE}</script>")
    return page


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

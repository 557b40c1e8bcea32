"""Any input ends in a picture or in one sentence of ours, and every message of the page has its answer: 1,000 inputs that nobody chose."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jupyter_client.session import json_packer
from PIL import Image

from sdwidgets.cli import UsageError, _read_prompts, _requests
from sdwidgets.generation.batch import MANIFEST, batch
from sdwidgets.generation.schedulers import SCHEDULERS
from sdwidgets.latents import decode_previews
from sdwidgets.recording import record
from sdwidgets.trace import CONTROLS, Trace
from sdwidgets.trace_io import to_png
from sdwidgets.widgets.playground import protocol
from sdwidgets.widgets.playground.driver import set_by_hand
from tests import tiny
from tests.test_playground import SECONDS, Watched
from tests.test_trace_file import in_every_view
from tests.test_trace_io import carrying, read_passport

pytestmark = pytest.mark.slow


def several(count: int):
    """The same inputs in every run, so that a failure can be looked at; no bound on the time of one, since machines differ."""
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


TEXT = st.text(max_size=60) | st.sampled_from(
    ["", "a cat", "a \ud800 cat", "\0", "</script><b>", "一只猫 🐈", "x " * 200, "a" * 100_001]
)
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.binary(max_size=8), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.sampled_from([10**400, -1, 1001, 2**63, 1e308]),
)  # fmt: skip
NUMPY = st.sampled_from([np.int64(2), np.float32(2.5), np.float64("nan"), np.array([2]), np.bool_(True)])
#: values that can be run, quickly
GOOD = {
    "prompt": TEXT, "negative_prompt": TEXT, "seed": st.integers(0, 2**63 - 1), "num_inference_steps": st.integers(1, 4),
    "guidance_scale": st.floats(0, 50), "scheduler": st.sampled_from(sorted(SCHEDULERS)), "height": st.sampled_from([16, 24, 32]),
    "width": st.sampled_from([16, 24, 32]), "strength": st.floats(0.01, 1), "task": st.sampled_from(["text", "image", "inpaint", "outpaint"]),
    "border": st.lists(st.integers(0, 60), min_size=4, max_size=4),
}  # fmt: skip


@st.composite
def some(draw, names):
    """Settings of some of these names, nine of ten good."""
    chosen = draw(st.lists(st.sampled_from(names), unique=True))
    return {name: draw(GOOD[name] if draw(st.integers(0, 9)) else JUNK | NUMPY) for name in chosen}


def is_sentence(error: Exception | str) -> bool:
    text = str(error)
    return "\n" not in text and 5 <= len(text.split()) and len(text) < 600 and "codec" not in text


class Transported(Watched):
    """A Playground whose messages are packed as Jupyter packs them: what it cannot pack, no page would ever get."""

    def send(self, content, buffers=None):
        json_packer(content)
        super().send(content, buffers)


@pytest.fixture
def play():
    made = Transported(
        tiny.pipeline("sd"), num_inference_steps=2, autorun=False, source=Image.new("RGB", (16, 16), "red")
    )
    yield made
    made.close()


def answers_of(play: Watched, before: int) -> list[dict]:
    """The messages after number `before` of its list, once no run is under way."""
    assert play._session.worker.wait(SECONDS, meanwhile=play._session.channel.flush), "a run without an end"
    play._session.channel.flush()
    return play.sent[before:]


def assert_alive(play: Watched) -> None:
    trace = play.run(
        prompt="a cat", num_inference_steps=2, guidance_scale=2.0, scheduler="DDIM", negative_prompt="", task="text"
    ).wait(SECONDS)
    assert trace.complete and len(trace) == 2


def test_settings_end_in_a_picture_or_a_sentence(play):
    drawn = []

    @several(250)
    @given(some(set_by_hand()))
    def check(chosen):
        try:
            play.run(**chosen)
        except (ValueError, TypeError) as error:
            assert is_sentence(error), error
            return
        trace = play.wait(SECONDS)
        assert trace.complete and trace.images.dtype == np.uint8
        drawn.append(trace)

    check()
    assert len(drawn) > 40, "most of the inputs were refused"
    assert_alive(play)


FIELDS = {
    int: st.integers(-2, 3) | st.integers(),
    str: TEXT,
    bool: st.booleans(),
    list: st.lists(JUNK, max_size=3),
    bytes: st.binary(max_size=40),
}


def right_message(kind: str) -> st.SearchStrategy[dict]:
    """Of this kind, with fields of the right types."""
    forms = {name.rstrip("?"): form for name, form in protocol.TO_KERNEL[kind].fields.items()}
    fields = {
        name: some(set_by_hand())
        if form is dict
        else st.sampled_from(form)
        if isinstance(form, tuple)
        else FIELDS[form]
        for name, form in forms.items()
    }
    return st.fixed_dictionaries({"kind": st.just(kind), "client": st.sampled_from(["page", "another"]), **fields})


RIGHT = st.one_of(*map(right_message, sorted(protocol.TO_KERNEL)))
MESSAGES = st.one_of(
    RIGHT, RIGHT, RIGHT,
    st.builds(lambda message, junk, at: message | {[*message][at % len(message)]: junk}, RIGHT, JUNK, st.integers(2, 9)),
    st.builds(lambda message, at: {k: v for k, v in message.items() if k != [*message][-1 - at]}, RIGHT, st.integers(0, 1)),
    st.builds(lambda message, junk: message | {"more": junk}, RIGHT, JUNK),
    st.fixed_dictionaries({"kind": st.sampled_from(["", "receive", "_open"]) | JUNK}),
)  # fmt: skip


def test_every_message_of_the_page_is_answered(play):
    kinds = set()

    @several(400)
    @given(MESSAGES)
    def check(content):
        buffers = [content.pop("chunk")] if isinstance(content.get("chunk"), bytes) else []
        before = len(play.sent)
        play._handle_custom_msg(content, buffers)
        answers = answers_of(play, before)
        mine = [a for a in answers if a.get("client", "") in ("", str(content.get("client", "")))]
        assert mine, "no answer"
        if "queued" in [a["kind"] for a in answers if "again" not in a]:
            assert answers[-1]["kind"] == "done", "a run that does not end"
        for sentence in (s for a in mine if a["kind"] == "errors" for s in a["errors"].values()):
            assert is_sentence(sentence), sentence
            assert not sentence.startswith("The run failed"), sentence
        kinds.update(a["kind"] for a in mine)

    check()
    assert kinds >= {"state", "poll_reply", "tokens", "code", "upload_reply", "queued", "done", "errors", "result"}, (
        kinds
    )
    assert_alive(play)


@pytest.fixture(scope="module")
def whole():
    with record(pipe := tiny.pipeline("sd")) as trace:
        tiny.run(pipe, steps=2, guidance_scale=3.0)
    decode_previews(trace, pipe)
    return trace


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some others in their place, or without some, mostly near the start where the structure is."""
    place = st.integers(0, len(data) - 1) | st.integers(0, min(2000, len(data) - 1))
    change = st.tuples(place, st.integers(0, 20), st.binary(max_size=20))

    def apply(changes):
        made = data
        for at, length, new in changes:
            made = made[:at] + new + made[at + length :]
        return made

    return st.lists(change, min_size=1, max_size=3).map(apply)


@pytest.mark.parametrize("door", ["trace", "passport", "trace in a passport"])
def test_a_damaged_file_shows_its_run_or_is_a_sentence(door, whole, tmp_path):
    file, shown = whole.save(tmp_path / "whole", compact=True).read_bytes(), []

    @several(70)
    @given(damaged(to_png(whole) if door == "passport" else file))
    def check(data):
        try:
            if door == "trace":
                (tmp_path / "damaged").write_bytes(data)
                trace = Trace.load(tmp_path / "damaged")
            else:
                trace = read_passport(data if door == "passport" else carrying(data, whole))
            in_every_view(trace)
            shown.append(trace)
        except ValueError as error:
            assert is_sentence(error), error

    check()
    assert len(shown) > 5 or door == "passport", "nearly all were refused"  # a PNG's checksums see every change


@several(140)
@given(
    st.binary(max_size=60)
    | st.lists(TEXT | st.text(alphabet="\r\n\u2028\x0b a", max_size=5), max_size=3).map(
        lambda t: "\n".join(t).encode("utf-8", "surrogatepass")
    )
)
def test_a_file_of_prompts_ends_in_pictures_or_a_sentence(data):
    with tempfile.TemporaryDirectory() as folder:
        file, made = Path(folder, "prompts.txt"), Path(folder, "pictures")
        file.write_bytes(data)
        options = {name: None for name, control in CONTROLS.items() if control.option}
        pipe = tiny.pipeline("sd")
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                prompts = _read_prompts(file)
                requests = _requests(
                    SimpleNamespace(model="tiny", **options | {"num_inference_steps": 1}), pipe, prompts, [3]
                )
                done = list(batch(pipe, requests, made))
            except (UsageError, ValueError) as error:
                assert is_sentence(error), error
                return
        lines = [json.loads(line) for line in (made / MANIFEST).read_text("utf-8").splitlines()]
        assert [line["prompt"] for line in lines] == prompts and len(done) == len(prompts) == len({*prompts})
        assert all(
            (made / line["file"]).is_file() and re.fullmatch(r"[a-z0-9-]+\.png", line["file"]) for line in lines
        )

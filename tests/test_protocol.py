"""The Playground's protocol: both sides speak it, all of it and nothing else, and a wrong message is a sentence."""

from __future__ import annotations

import inspect
import re

import pytest

from sdwidgets.widgets.html import STATIC
from sdwidgets.widgets.playground import messages, protocol
from sdwidgets.widgets.playground.widget import SCRIPTS, Playground
from tests.test_playground import SECONDS, make  # noqa: F401  (a fixture)

SCRIPT = "\n".join((STATIC / name).read_text("utf-8") for name in SCRIPTS)
FOLDER = STATIC.parent / "playground"
PYTHON = "\n".join(path.read_text("utf-8") for path in sorted(FOLDER.glob("*.py")))
HANDLERS = re.findall(r"^  on_(\w+)\((?:\{ (.*) \})?", SCRIPT, re.MULTILINE)


def test_the_kernel_handles_every_message_of_the_page():
    own = {name for name in vars(messages.Messages) if not name.startswith("_")} - {"receive"}
    assert own == set(protocol.TO_KERNEL)
    for name, message in protocol.TO_KERNEL.items():
        takes = dict(inspect.signature(getattr(messages.Messages, name)).parameters)
        optional = {field for field, parameter in takes.items() if parameter.default is not parameter.empty}
        assert [*takes][:2] == ["self", "client"]
        assert {field + "?" * (field in optional) for field in [*takes][2:]} == set(message.fields), name


def test_the_page_handles_every_message_of_the_kernel():
    assert sorted(name for name, _ in HANDLERS) == sorted(protocol.TO_PAGE)
    for name, fields in HANDLERS:
        read = {field.split(":")[0].strip() for field in fields.split(",") if field}
        allowed = {field.rstrip("?") for field in protocol.TO_PAGE[name].fields} | set(protocol.ENVELOPE)
        assert read <= allowed, f"on_{name} reads {read - allowed}"


def test_each_side_sends_every_message_that_it_may_and_no_other():
    assert set(re.findall(r"\bsend\(\"(\w+)\"", SCRIPT)) == set(protocol.TO_KERNEL)
    assert set(re.findall(r"\.(?:publish|send)\(\s*\"(\w+)\"", PYTHON)) == set(protocol.TO_PAGE)
    assert not set(protocol.TO_KERNEL) & set(protocol.TO_PAGE), "a name tells the direction"


def test_the_page_has_the_table_and_the_numbers_of_the_kernel():
    script = Playground._esm.default_value
    for name in protocol.for_page():
        assert len(re.findall(rf"const {name}\b", script)) == 1 and name in SCRIPT
    assert f"const CHUNK_SIZE = {protocol.CHUNK_SIZE};" in script


def test_every_message_says_what_it_is():
    for message in (*protocol.TO_KERNEL.values(), *protocol.TO_PAGE.values()):
        assert message.sentence.endswith((".", "?")) and not set(message.fields) & set(protocol.ENVELOPE)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"kind": "sing"}, "There is no message 'sing'"),
        ({"kind": None}, "There is no message 'None'"),
        ({"kind": ["run"]}, "There is no message"),
        ({"kind": "receive"}, "There is no message 'receive'"),
        ("hello", "There is no message 'None'"),
        ({"kind": "run"}, "lacks its field 'settings'"),
        ({"kind": "run", "settings": [1]}, "'settings' of the message 'run' cannot be '[1]'"),
        ({"kind": "run", "settings": {}, "live": True}, "'live' of the message 'run' cannot be 'True'"),
        ({"kind": "run", "settings": {}, "x": 1}, "has no field 'x'"),
        ({"kind": "restore", "run": "1"}, "cannot be '1'"),
        (
            {"kind": "upload", "purpose": "virus", "name": "a", "size": 1, "start": 0, "chunk": b""},
            "cannot be 'virus'",
        ),
    ],
)
def test_a_wrong_message_is_a_sentence_on_its_own_page(make, content, sentence):  # noqa: F811
    play = make(num_inference_steps=1, autorun=False)
    content = {**content, "client": "page"} if isinstance(content, dict) else content
    play._handle_custom_msg(content, [])
    (answer,) = play.sent
    assert answer["kind"] == "errors" and sentence in answer["errors"][""]
    assert answer["client"] == ("page" if isinstance(content, dict) else "") and "number" not in answer
    assert play.run().wait(SECONDS).complete


def test_a_handler_that_breaks_is_a_sentence_too(make, monkeypatch, caplog):  # noqa: F811
    def breaks(pipe, text):
        raise KeyError("merges")

    play = make(autorun=False)
    monkeypatch.setattr(messages, "tokens", breaks)
    play.page("tokenize", text="a cat")
    assert play.sent[-1]["kind"] == "errors" and "merges" in play.sent[-1]["errors"][""]
    assert "'tokenize' failed" in caplog.text


def test_the_kernel_cannot_send_what_the_protocol_lacks(make):  # noqa: F811
    channel = make(autorun=False)._session.channel
    for kind, fields in (("song", {}), ("done", {"badge": "x"}), ("code", {"text": 3})):
        with pytest.raises(TypeError, match="message"):
            channel.publish(kind, **fields)

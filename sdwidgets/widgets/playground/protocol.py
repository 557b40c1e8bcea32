"""The Playground's protocol: every message between page and kernel, and the numbers that both sides use. They stand here alone.

Both sides dispatch from these tables. The kernel calls the method of `messages.Messages` that is named as the message; the page,
whose script carries the tables, calls `on_NAME` of playground.js. Neither side sends or takes a name that is not here.

Around its fields a message has an envelope: `kind`, its name, and `client`, the view that it comes from or goes to, "" for all. What
the kernel publishes has a `number` too, counted up, so that a page notices a gap; `again` on those that are sent once more; and
`delivery`, how messages travel now. Bytes travel beside a message as buffers.
"""

from __future__ import annotations

from typing import NamedTuple

CHUNK_SIZE = 512 * 1024  # bytes of a file in one message, either way
MAX_IN_FLIGHT = 2  # live runs on their way: one that is computed and one that waits
#: usual ones; 1 keeps nothing of what is painted anew
STRENGTHS = {"text": 0.6, "image": 0.6, "inpaint": 1.0, "outpaint": 1.0}

ENVELOPE = ("kind", "client", "number", "again", "delivery")


class Message(NamedTuple):
    """fields: name -> its type, or a tuple of the values that are allowed; `object` is anything. A name with "?" may be left out."""

    fields: dict
    sentence: str


TO_KERNEL = {
    "hello": Message({}, "A view opens: it wants the state and all messages that are kept."),
    "poll": Message({"seen": int, "lost": bool}, "It heard nothing lately; `lost`: a message did not come by itself."),
    "tokenize": Message({"text": str}, "How is this prompt read?"),
    "run": Message({"settings": dict, "live?": int}, "Make a picture; `live`: at once, and its number in the live mode."),
    "stop": Message({}, "Stop the run. It is done, which is said also where none runs."),
    "export_code": Message({}, "The picture as a program."),
    "save_picture": Message({"start": int, "page?": bool}, "The picture's file, or the run as a page: its chunk from byte `start` on."),
    "upload": Message({"purpose": ("run", "source", "mask"), "name": str, "size": int, "start": int, "chunk": bytes}, "A chunk of a file."),
    "use_last": Message({}, "Take the last picture as the source."),
    "restore": Message({"run": int}, "Show a run of the history again."),
    "compare": Message({"numbers": list}, "Two runs of the history side by side."),
    "reseed": Message({"run": int, "like": int}, "Make a run again from the noise of run `like`."),
}  # fmt: skip

STATE = {
    "settings": dict,
    "schedulers": list,
    "tasks": list,
    "hidden": list,
    "badge": str,
    "history": list,
    "examples": list,
}
PICTURES = {"source": object, "mask": object}  # PNG files or null
COUNTS = {"tokens": list, "cut": list, "count": int, "limit": int, "marks": int, "unfamiliar": list}
PAIR = {"numbers": list, "pictures": list, "differences": list, "same_seed": bool}

TO_PAGE = {
    "state": Message({"seen": int, **STATE, **PICTURES}, "Answers hello; the messages after number `seen` follow."),
    "poll_reply": Message({}, "Answers poll, after the messages."),
    "tokens": Message({"text": str, **COUNTS}, "Answers tokenize: tokens that are read, tokens that are cut off, and counts; [word, captions that it stands in, [near words]] for each that training hardly showed."),
    "code": Message({"text": str}, "Answers export_code."),
    "picture_file": Message({"start": int, "size": int, "chunk": bytes}, "Answers save_picture."),
    "upload_reply": Message({"done": bool, "refused": object, "source": bool}, "Answers upload; `done`: the file is whole, or refused; `source`: it had no run, and became the source."),
    "compared": Message(PAIR, "Answers compare."),
    "source": Message(PICTURES, "Source and mask of the runs to come."),
    "queued": Message({"settings": dict, "notes": dict, "live": int}, "A run was accepted; notes stand beside controls."),
    "errors": Message({"errors": dict}, "Sentences beside the controls that are wrong; under \"\" those of no control."),
    "frames": Message({"first": int, "frames": list, "run?": dict}, "Steps from `first` on; the first ones bring their `run`."),
    "live": Message({"live": int, "picture": bytes, "seconds": float}, "The picture of a live run."),
    "result": Message({"run": dict, "entry": object, "numbers": list, "live": int}, "A whole run, which is shown from now on, its place in the history, and what the history keeps."),
    "pictures": Message({"first": int, "pictures": list}, "Decoded previews of the steps from `first` on."),
    "done": Message({"badge": str, "failure": object, "live": int}, "The run has ended; `failure`: a sentence, or null."),
}  # fmt: skip


def find_fault(table: dict[str, Message], kind, fields: dict) -> str | None:
    """One sentence on a message that the table does not have, or that has other fields; None for a right one."""
    if not isinstance(kind, str) or kind not in table:
        return f"There is no message {str(kind)[:40]!r} in the Playground's protocol."
    forms = {name.rstrip("?"): form for name, form in table[kind].fields.items()}
    if unknown := sorted(set(fields) - set(forms)):
        return f"The message {kind!r} has no field {unknown[0][:40]!r}."
    if missing := [name for name in table[kind].fields if not name.endswith("?") and name not in fields]:
        return f"The message {kind!r} lacks its field {missing[0]!r}."
    if wrong := [name for name, value in fields.items() if not _fits(value, forms[name])]:
        return f"The field {wrong[0]!r} of the message {kind!r} cannot be {str(fields[wrong[0]])[:40]!r}."
    return None


def _fits(value, form) -> bool:
    if isinstance(form, tuple):
        return value in form
    return isinstance(value, form) and (form in (bool, object) or not isinstance(value, bool))


def for_page() -> dict:
    """The constants of the page's script: names of messages with their fields, and the shared numbers."""
    tables = {"toKernel": TO_KERNEL, "toPage": TO_PAGE}
    names = {side: {kind: list(message.fields) for kind, message in table.items()} for side, table in tables.items()}
    return {"PROTOCOL": names, "CHUNK_SIZE": CHUNK_SIZE, "MAX_IN_FLIGHT": MAX_IN_FLIGHT, "STRENGTHS": STRENGTHS}

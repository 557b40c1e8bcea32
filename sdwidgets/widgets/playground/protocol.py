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
STRENGTHS = {
    "text": 0.6,
    "image": 0.6,
    "inpaint": 1.0,
    "outpaint": 1.0,
}  # usual ones; 1 keeps nothing of what is painted anew

ENVELOPE = ("kind", "client", "number", "again", "delivery")


class Message(NamedTuple):
    """fields: name -> its type, or a tuple of the values that are allowed; `object` is anything. A name with "?" may be left out."""

    sentence: str
    fields: dict


TO_KERNEL = {
    "hello": Message("A view opens: it wants the state and all messages that are kept.", {}),
    "poll": Message(
        "It heard nothing for a while: what came after number `seen`? `lost`: one did not come by itself.",
        {"seen": int, "lost": bool},
    ),
    "tokenize": Message("How is this prompt read?", {"text": str}),
    "run": Message(
        "Make a picture. `live`: with few steps and at once; its number in the live mode, counted by the view.",
        {"settings": dict, "live?": int},
    ),
    "stop": Message("Stop the run.", {}),
    "export_code": Message("The picture as a program.", {}),
    "save_picture": Message("The picture's file, from byte `start` on: one chunk of it.", {"start": int}),
    "upload": Message(
        "A chunk of a file: a run to show, a source or a mask.",
        {"purpose": ("run", "source", "mask"), "name": str, "size": int, "start": int, "chunk": bytes},
    ),
    "use_last": Message("Take the last picture as the source.", {}),
    "restore": Message("Show a run of the history again.", {"run": int}),
    "compare": Message("Two runs of the history side by side.", {"numbers": list}),
    "reseed": Message("Make a run again from the noise of run `like`.", {"run": int, "like": int}),
}

TO_PAGE = {
    "state": Message(
        "Answers hello: what the controls offer and say. Messages after number `seen` follow.",
        {"seen": int, "settings": dict, "schedulers": list, "tasks": list, "hidden": list, "badge": str, "history": list,
         "source": object, "mask": object},
    ),
    "poll_reply": Message("Answers poll, after the messages.", {}),
    "tokens": Message(
        "Answers tokenize: the tokens that are read, those that are cut off, and the counts.",
        {"text": str, "tokens": list, "cut": list, "count": int, "limit": int, "marks": int},
    ),
    "code": Message("Answers export_code.", {"text": str}),
    "picture_file": Message("Answers save_picture.", {"start": int, "size": int, "chunk": bytes}),
    "upload_reply": Message("Answers upload: `done` once the file is whole or refused.", {"done": bool, "refused": object}),
    "compared": Message(
        "Answers compare.", {"numbers": list, "pictures": list, "differences": list, "same_seed": bool}
    ),
    "source": Message("The source and the mask of the runs to come, PNG files or null.", {"source": object, "mask": object}),
    "queued": Message("A run was accepted, with notes beside controls.", {"settings": dict, "notes": dict, "live": int}),
    "errors": Message("Sentences beside the controls that are wrong, or above all (\"\").", {"errors": dict}),
    "frames": Message("Steps of the run, from `first` on; the first ones say what `run` it is.", {"first": int, "frames": list, "run?": dict}),
    "live": Message("The picture of a live run.", {"live": int, "picture": bytes, "seconds": float}),
    "result": Message(
        "A whole run: from now on it is shown. `entry`: its place in the history, or null; `numbers`: what the history keeps.",
        {"run": dict, "entry": object, "numbers": list, "live": int},
    ),
    "pictures": Message("Decoded previews of the steps from `first` on.", {"first": int, "pictures": list}),
    "done": Message("The run has ended; `failure`: a sentence if it failed.", {"badge": str, "failure": object, "live": int}),
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

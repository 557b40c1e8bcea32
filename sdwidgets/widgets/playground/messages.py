"""Handlers of what the page says: one method for each message of `protocol.TO_KERNEL`, with its name and its fields."""

from __future__ import annotations

import inspect
import logging

from ... import trace_io
from ...generation.validation import SettingsError, as_number, check_text
from ...trace import CONTROLS
from ..replay import Replay
from .driver import badge, sentence_for, set_by_hand, tokens
from .history import HistoryEntry, differences
from .protocol import CHUNK_SIZE, ENVELOPE, TO_KERNEL, find_fault
from .session import Session
from .upload import ChunkedUpload

DEBOUNCE = 0.15  # seconds before settings from the page are run


class Messages:
    """The messages of all views of one session. Each is answered, and no handler waits for a run.

    `client` is the view that sent the message. autorun: the first view that opens starts the first run.
    """

    def __init__(self, session: Session, autorun: bool):
        self._session, self._channel, self._autorun = session, session.channel, autorun
        self._upload, self._file = ChunkedUpload(trace_io.MAX_FILE), b""

    def receive(self, _widget, content, buffers) -> None:
        """Dispatch a message. What is wrong with it, or with what it wants, becomes a sentence on the page; nothing is raised."""
        content = content if isinstance(content, dict) else {}
        kind, client = content.get("kind"), str(content.get("client", "")).encode("utf-8", "replace").decode()
        fields = {name: value for name, value in content.items() if name not in ENVELOPE}
        if buffers:
            fields["chunk"] = bytes(buffers[0])
        if fault := find_fault(TO_KERNEL, kind, fields):
            return self._channel.send("errors", client, errors={"": fault})
        try:
            getattr(self, kind)(client, **fields)
        except (ValueError, RuntimeError) as error:
            self._session.report(error)
        except Exception as error:
            logging.getLogger(__name__).exception("the message %r failed", kind)
            self._session.report(RuntimeError(sentence_for(error)))

    def hello(self, client: str) -> None:
        from ...generation.schedulers import schedulers_for
        from ...generation.tasks import TASKS
        from ...generation.vocabulary import find_vocabulary

        vocabulary = find_vocabulary(self._session.pipe)
        session = self._session
        schedulers = [[label, entry.sentence] for label, entry in schedulers_for(session.pipe).items()]
        if not session.settings["scheduler"]:
            schedulers.insert(0, ["", f"{type(session.pipe.scheduler).__name__}, as the pipeline came."])
        takes = inspect.signature(type(session.pipe).__call__).parameters
        arguments = [name for name in set_by_hand() if CONTROLS[name].argument and name != "strength"]
        self._channel.welcome(
            client,
            settings=session.settings,
            schedulers=schedulers,
            tasks=[[name, *texts] for name, texts in TASKS.items()],
            hidden=[name for name in arguments if name not in takes],
            badge=badge(session.pipe),
            history=[entry.to_message() for entry in session.history],
            examples=list(vocabulary.examples) if vocabulary else [],
            **session.pictures(),
        )
        if self._autorun and session.run is None and session.worker.idle:
            session.start(session.request())

    def poll(self, client: str, seen: int, lost: bool) -> None:
        if lost:
            self._channel.change_delivery("pull")
        self._channel.resend(seen)
        self._channel.send("poll_reply", client)

    def tokenize(self, client: str, text: str) -> None:
        check_text("prompt", text)
        self._channel.send("tokens", client, **tokens(self._session.pipe, text))

    def run(self, client: str, settings: dict, live: int = 0) -> None:
        chosen = {name: settings[name] for name in set_by_hand() if name in settings}
        chosen |= {name: as_number(value) for name, value in chosen.items() if CONTROLS[name].kind is not str}
        self._session.start(self._session.request(live, **chosen), client, 0.0 if live else DEBOUNCE)

    def stop(self, client: str) -> None:
        self._session.stop()
        if self._session.worker.idle:  # the page may have missed the end
            self._channel.send("done", client, badge=badge(self._session.pipe), failure=None, live=0)

    def export_code(self, client: str) -> None:
        self._channel.send("code", client, text=self._session.code())

    def save_picture(self, client: str, start: int, page: bool = False) -> None:
        if start == 0:
            run = self._session.run
            make = (lambda trace: Replay(trace).page().encode()) if page else trace_io.to_png
            self._file = make(run.trace) if run else b""
        size = len(self._file)
        if not 0 <= start < size:
            raise ValueError(
                "There is no picture to save yet." if not size else "The picture has no such part; save it again."
            )
        chunk = self._file[start : start + CHUNK_SIZE]
        self._channel.send("picture_file", client, start=start, size=size, chunk=chunk)
        if start + len(chunk) == size:
            self._file = b""

    def upload(self, client: str, purpose: str, name: str, size: int, start: int, chunk: bytes) -> None:
        """A file that is refused changes nothing."""
        data, refused, source = None, None, False
        try:
            data = self._upload.take(client, start, size, chunk)
            if data is not None:
                source = self._open(purpose, data, name)
        except (ValueError, TypeError, RuntimeError) as error:
            text = str(error)
            refused = text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")
        self._channel.send("upload_reply", client, done=bool(data or refused), refused=refused, source=source)

    def _open(self, purpose: str, data: bytes, name: str) -> bool:
        """Show the run in a file, or take its picture for the runs to come. True: a run was wanted, and there is only a picture."""
        from ...generation.tasks import MAX_BYTES, read_picture

        if purpose == "run":
            try:
                self._session.show(trace_io.read_passport(data, name))
                return False
            except trace_io.NoRunError:
                pass
        if len(data) > MAX_BYTES:
            limit = f"at most {MAX_BYTES // 10**6} are taken"
            raise SettingsError("source", f"The file has {len(data) / 1e6:.0f} MB; {limit}.")
        picture = read_picture(data, name)
        if purpose == "mask":
            self._session.use(mask=picture, shown=True)  # the page shows it already
        else:
            self._session.use(source=picture)
        return purpose == "run"

    def use_last(self, client: str) -> None:
        run = self._session.run
        if run is None or run.trace.images is None:
            raise ValueError("There is no picture yet that the next run could start from.")
        self._session.use(source=run.trace.images[0])

    def restore(self, client: str, run: int) -> None:
        self._session.restore(run)

    def compare(self, client: str, numbers: list) -> None:
        a, b = self._entries(numbers)
        self._channel.send(
            "compared",
            client,
            numbers=[a.number, b.number],
            pictures=[a.picture, b.picture],
            differences=differences(a.request, b.request),
            same_seed=a.settings["seed"] == b.settings["seed"],
        )

    def reseed(self, client: str, run: int, like: int) -> None:
        self._session.reseed(*self._entries([run, like]))

    def _entries(self, numbers: list) -> list[HistoryEntry]:
        entries = [entry for number in numbers if (entry := self._session.history.find(number))]
        if len(numbers) != 2 or len(entries) != 2:
            raise ValueError("One of these runs is not kept any more; choose two of those in the strip.")
        return entries

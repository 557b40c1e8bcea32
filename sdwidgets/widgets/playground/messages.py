"""Answers what the page says: every message of the Playground's views comes in here. Nothing here waits for a run."""

from __future__ import annotations

import inspect

from ... import trace_io
from ...generation.validation import SettingsError
from ...trace import CONTROLS
from .driver import as_number, page_settings, tokens
from .history import differences
from .upload import PIECE, Parcel

DEBOUNCE = 0.15  # seconds before settings from the page are run


class Desk:
    """One Playground's desk. A message has a kind, and the client (the view) that sent it."""

    def __init__(self, play):
        self.play, self.mail = play, play._mail
        self.incoming, self.outgoing = Parcel(trace_io.MAX_FILE), b""

    def receive(self, _widget, content: dict, buffers) -> None:
        kind, client = content.get("kind"), str(content.get("client", ""))
        if kind == "tick":  # a page has heard nothing for a while
            if content.get("lost") and self.play._adaptive:
                self.mail.delivery = "pull"
            self.mail.send_again(int(content.get("seen", 0)))
            self.mail.tell(kind="tock", client=client)
        elif kind == "hello":
            self.welcome(client)
        elif kind == "tokens":
            told = tokens(self.play.pipe, str(content.get("text", "")))
            self.mail.tell(kind="tokens", client=client, **told)
        elif kind == "code":
            try:
                self.mail.tell(kind="code", client=client, text=self.play.code())
            except ValueError as error:  # a task that lacks its picture
                self.play.tell_errors(error)
        elif kind == "passport":
            self.give(content, client)
        elif kind == "file":
            self.take(content, buffers, client)
        elif kind in ("restore", "compare", "reseed"):
            try:
                getattr(self, kind)(content, client)
            except (ValueError, RuntimeError) as error:
                self.play.tell_errors(error)
        elif kind == "last":
            if self.play.trace is not None and self.play.trace.images is not None:
                self.play.use(source=self.play.trace.images[0])
        elif kind == "stop":
            self.play.stop()
        elif kind == "run":
            self.run(content.get("settings", {}), client, content.get("live", 0))

    def welcome(self, client: str) -> None:
        """A page shows the widget: tell it what the controls offer, then everything about the newest run."""
        from ...generation.schedulers import schedulers_for
        from ...generation.tasks import TASKS

        play = self.play
        offers = [[label, entry.sentence] for label, entry in schedulers_for(play.pipe).items()]
        if not play.settings["scheduler"]:
            offers.insert(0, ["", f"{type(play.pipe.scheduler).__name__}, as the pipeline came."])
        takes = inspect.signature(type(play.pipe).__call__).parameters
        self.mail.welcome(
            client=client,
            settings=play.settings,
            schedulers=offers,
            tasks=[[name, *words] for name, words in TASKS.items()],
            hidden=[
                name
                for name in page_settings()
                if CONTROLS[name].argument and name not in takes and name != "strength"
            ],
            badge=play._engine.badge(),
            **play.pictures(),
            history=[past.told() for past in play.history],
        )
        if play.autorun and play.trace is None and play._worker.idle:
            self.run({}, "")

    def run(self, settings: dict, client: str, live: int = 0) -> None:
        """What the controls say becomes a run, or a sentence beside the control that is wrong.

        live: the number of an order of the live mode: it is run at once, with few steps. 0: an order like any other.
        """
        wanted = {name: settings[name] for name in page_settings() if name in settings}
        number = lambda value: as_number(value) if isinstance(value, str) else value
        for name, value in wanted.items():
            if CONTROLS[name].kind in (int, float):
                wanted[name] = number(value)
            elif CONTROLS[name].kind is list and isinstance(value, list):
                wanted[name] = [number(item) for item in value]
        order = self.play._order()
        try:
            order = order._replace(settings={**order.settings, **wanted}, live=live if isinstance(live, int) else 0)
            self.play.start(order, client, 0.0 if order.live else DEBOUNCE)
        except (ValueError, RuntimeError) as error:
            self.play.tell_errors(error)

    def restore(self, content: dict, client: str) -> None:
        self.play.restore(content.get("number"))

    def compare(self, content: dict, client: str) -> None:
        """Two runs' pictures, and what differs in their settings."""
        a, b = self.two(content.get("numbers"))
        self.mail.tell(
            kind="compared",
            client=client,
            numbers=[a.number, b.number],
            pictures=[a.picture, b.picture],
            differences=differences(a.order, b.order),
            same_seed=a.settings["seed"] == b.settings["seed"],
        )

    def reseed(self, content: dict, client: str) -> None:
        """Make a run again from the noise of another."""
        run, like = self.two([content.get("number"), content.get("like")])
        settings = {**run.settings, "seed": like.settings["seed"]}
        self.play.start(run.order._replace(settings=settings, live=0))

    def two(self, numbers) -> list:
        found = [self.play._engine.history.find(n) for n in numbers] if isinstance(numbers, list) else []
        if len(found) != 2 or None in found:
            raise ValueError("One of these runs is not kept any more; choose two of those in the strip.")
        return found

    def give(self, content: dict, client: str) -> None:
        """The picture that carries its run, a piece at a time, as the page asks for them."""
        start, trace = content.get("start"), self.play.trace
        if start == 0:
            try:
                self.outgoing = trace_io.to_png(trace) if trace is not None else b""
            except ValueError as error:
                return self.play.tell_errors(error)
        if isinstance(start, int) and 0 <= start < len(self.outgoing):
            piece, size = self.outgoing[start : start + PIECE], len(self.outgoing)
            self.mail.tell(kind="passport", client=client, start=start, size=size, piece=piece)
            if start + len(piece) == size:
                self.outgoing = b""

    def take(self, content: dict, buffers, client: str) -> None:
        """A piece of a file from the page: a run to show, a source, a mask. What is refused changes nothing."""
        name, refused, data = str(content.get("name", "file")), None, None
        try:
            start, size = int(content.get("start", -1)), int(content.get("size", 0))
            data = self.incoming.take(client, start, size, bytes(buffers[0]) if buffers else b"")
            if data is not None:
                self.opened(str(content.get("purpose", "run")), data, name)
        except (ValueError, TypeError, RuntimeError) as error:
            refused = _sentence(error)
        self.mail.tell(kind="file", client=client, done=data is not None or refused is not None, refused=refused)

    def opened(self, purpose: str, data: bytes, name: str) -> None:
        from ...generation.tasks import MAX_BYTES, read_picture

        if purpose == "run":
            self.play.show(trace_io.read_passport(data, name))
            return
        if len(data) > MAX_BYTES:
            raise SettingsError(
                "source", f"The file has {len(data) / 1e6:.0f} MB; at most {MAX_BYTES // 10**6} are taken."
            )
        picture = read_picture(data, name)
        if purpose == "source":
            self.play.use(source=picture)
        else:
            self.play.mask = self.play._pictures(None, picture)[1]  # the page shows it already


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")

"""One pipeline with its settings, its pictures and its runs. Knows no widget and no page, only a channel to tell them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image

from ...generation.sharing import holds_lock
from ...generation.usual import usual_settings
from ...generation.validation import Note, SettingsError
from ...trace import CONTROLS, Trace, plain
from ...trace_file import encoded
from ..replay import describe
from .channel import Channel
from .driver import badge, copy_settings, program, sentence_for, set_by_hand, settings_of
from .history import History, HistoryEntry, Run, RunRequest
from .protocol import STRENGTHS
from .runner import Runner
from .worker import Worker


class Session:
    """`settings`, `source` and `mask` are those of the next run; `run` is the newest that was not replaced, None before the first.

    settings: those that differ from what is usual for the pipeline. changed(name, value): hears of a new "settings", a dict
    of its own, a new "trace", and "done", with None, on the thread that sends messages. Raises SettingsError for what cannot be run.
    """

    def __init__(self, pipe, channel: Channel, worker: Worker, changed: Callable[[str, Any], None], source, mask, settings: dict):  # fmt: skip
        from ...generation.tasks import text_pipeline

        pipe = text_pipeline(pipe)
        self.pipe, self.channel, self.worker, self._changed = pipe, channel, worker, changed
        self.runner = Runner(pipe, channel, worker, self._keep, self._ended)
        self.history = History()
        self.run: Run | None = None
        self._newest: RunRequest | None = None
        self.source = self.mask = None
        self.source, self.mask = self.prepare_pictures(source, mask)
        chosen = {name: value for name, value in settings.items() if value is not None}
        self._usual = {name: CONTROLS[name].start for name in set_by_hand()} | usual_settings(pipe)
        self._usual["strength"] = STRENGTHS.get(str(chosen.get("task", "text")), 1.0)
        self.settings = copy_settings(self._usual | chosen)
        self._check(self.request())

    def request(self, live: int = 0, **settings) -> RunRequest:
        """A run of the settings as they are now, but for these; None is what is usual for the pipeline (but for the prompt)."""
        unset = {name for name, value in settings.items() if value is None and name != "prompt"}
        settings = {name: self._usual[name] if name in unset else plain(value) for name, value in settings.items()}
        return RunRequest({**self.settings, **settings}, self.source, self.mask, live)

    # ---- runs ----------------------------------------------------------------------------------------------------

    def start(self, request: RunRequest, client: str = "", delay: float = 0.0) -> None:
        """Check a request and enqueue its run; `client`: the view that it comes from. Raises SettingsError."""
        self._begin(request, {note.field: note.text for note in self._check(request)}, client)
        self._submit(request, partial(self.runner.make, request), delay)

    def show(self, trace: Trace) -> None:
        """Show a recorded run and take its settings. Raises ValueError for those that this pipeline cannot run."""
        settings, notes = settings_of(trace, self.pipe, self.settings)
        source, mask = (Image.fromarray(a) if a is not None else None for a in (trace.source, trace.mask))
        self._show(Run(RunRequest(settings, source, mask), trace, None, badge(self.pipe, trace.settings)), notes)

    def restore(self, number) -> None:
        """Show a run of the history again, or make it again where its trace is no longer kept. Raises ValueError."""
        entry = self.history.find(number)
        if entry is None:
            kept = ", ".join(map(str, self.history.numbers))
            raise ValueError(f"Run {number!r} is not kept any more; there are: {kept or 'none yet'}.")
        if entry.run is None:
            self.start(entry.request._replace(live=0))
        else:
            self._show(entry.run, {})

    def reseed(self, entry: HistoryEntry, like: HistoryEntry) -> None:
        """Make a run of the history again from the noise of another."""
        settings = {**entry.settings, "seed": like.settings["seed"]}
        self.start(entry.request._replace(settings=settings, live=0))

    def stop(self) -> None:
        """Stop the run within one step. Its steps so far are shown."""
        if self.worker.cancel():  # a run that had not begun: nothing else would tell the page
            self.channel.publish("done", badge=badge(self.pipe), failure=None, live=0)

    def wait(self, timeout: float | None = None) -> Trace:
        """See `Playground.wait`."""
        if not self.worker.idle and holds_lock(self.pipe):
            raise RuntimeError(
                "This cell holds the pipeline, as inside a block of record(), and the run waits for it; leave the block, then wait."
            )
        try:
            done = self.worker.wait(timeout, meanwhile=self.channel.flush)
        except KeyboardInterrupt:
            self.stop()
            raise
        self.channel.flush()
        if not done:
            raise TimeoutError(f"The run takes longer than {timeout:g} s; wait longer, or call stop().")
        if self.runner.error is not None:
            raise self.runner.error
        if self.run is None:
            raise RuntimeError("Nothing was run to its first step; call run() first.")
        return self.run.trace

    def code(self, folder: str | os.PathLike | None = None) -> str:
        """See `Playground.code`."""
        if self.run is None:
            return program(self.pipe, self.request(), None, folder)
        return program(self.pipe, self.run.request, self.run.scheduler, folder)

    # ---- pictures ------------------------------------------------------------------------------------------------

    def use(self, source=None, mask=None, *, shown: bool = False) -> None:
        """Take these pictures for the runs to come; shown: the page has them already. A new source has no mask yet."""
        self.source, self.mask = self.prepare_pictures(source, mask)
        if not shown:
            self.channel.send("source", **self.pictures())

    def pictures(self) -> dict[str, Any]:
        """Source and mask as PNG files."""
        pictures = {"source": self.source, "mask": self.mask}
        return {name: picture and encoded(picture, "PNG") for name, picture in pictures.items()}

    def prepare_pictures(self, source, mask) -> tuple[Image.Image | None, Image.Image | None]:
        """Source and mask at the model's size; those of the session where none is given."""
        from ...generation.tasks import as_mask, resize_to_model, to_pil

        if source is not None:
            source = resize_to_model(self.pipe, to_pil(source))
        elif mask is not None and self.source is None:
            raise SettingsError("mask", "A mask lies over a picture: give source too.")
        else:
            source = self.source
            mask = self.mask if mask is None else mask
        return source, mask if mask is None else as_mask(mask, source.size)

    def report(self, error: Exception) -> None:
        """Show an error as a sentence beside the control that is wrong."""
        self.channel.publish("errors", errors={getattr(error, "field", ""): str(error)})

    # ---- from request to worker ----------------------------------------------------------------------------------

    def _check(self, request: RunRequest) -> list[Note]:
        from ...generation.tasks import check_task
        from ...generation.validation import check_settings

        settings = dict(request.settings)
        task, border, strength = (settings.pop(name) for name in ("task", "border", "strength"))
        notes = check_task(self.pipe, task, request.source, request.mask, border)
        settings |= {"scheduler": settings["scheduler"] or None, "strength": None if task == "text" else strength}
        return notes + check_settings(self.pipe, **settings)

    def _show(self, run: Run, notes: dict) -> None:
        """Enqueue a run that was made before, instead of one that is under way."""
        self._check(run.request)
        description = describe(run.trace)

        def job(cancelled) -> None:
            if not cancelled():
                self._keep(run, description)
                self.channel.publish("done", badge=run.badge, failure=None, live=0)
                self._ended()

        self._begin(run.request, notes)
        self._submit(run.request, job)

    def _begin(self, request: RunRequest, notes: dict, client: str = "") -> None:
        """From now on this request counts; `notes`: control -> a sentence."""
        if self.worker.closed:
            raise RuntimeError("This Playground is closed; make a new one.")
        moved = (self.source, self.mask) != (request.source, request.mask)
        self._newest = request
        self.settings, self.source, self.mask = copy_settings(request.settings), request.source, request.mask
        self.runner.error = None
        self.channel.discard()
        self.channel.publish("queued", client=client, settings=self.settings, notes=notes, live=request.live)
        if moved:
            self.channel.send("source", **self.pictures())
        self.channel.call(partial(self._changed, "settings", copy_settings(self.settings)))

    def _submit(self, request: RunRequest, job, delay: float = 0.0) -> None:
        if self._newest is not request:
            return  # an observer of the settings has begun another one
        job = partial(self._report_failure, job)
        if self.channel.delivery != "sync":
            try:
                return self.worker.submit(job, delay)
            except RuntimeError:  # a system without threads, as Python in a browser
                if not self.channel.change_delivery("sync"):
                    raise
        with self.channel.hold_calls():  # an observer may start a run, and this one has the pipeline
            job(lambda: False)

    def _report_failure(self, job, cancelled) -> None:
        """Do a job; what it did not handle itself ends it with a sentence in the page, and `wait` raises it."""
        try:
            job(cancelled)
        except BaseException as failure:
            error = failure if isinstance(failure, Exception) else RuntimeError("The run was interrupted.")
            self.runner.error = error
            self.channel.discard()  # a message that could not be sent may be the reason
            self.channel.publish("done", badge=badge(self.pipe), failure=sentence_for(error), live=0)
            if error is not failure:
                raise

    def _ended(self) -> None:
        """On the worker's thread: the run that is shown has all its previews."""
        self.channel.call(partial(self._changed, "done", None))

    def _keep(self, run: Run, description: dict, live: int = 0) -> None:
        """On the worker's thread: from now on this run is shown."""
        self.run = run
        entry = self.history.add(run)
        description = {**description, "badge": run.badge}
        self.channel.publish(
            "result", run=description, entry=entry and entry.to_message(), numbers=self.history.numbers, live=live
        )
        self.channel.call(partial(self._changed, "trace", run.trace))

"""`Playground(pipe)`: controls over a live pipeline, and every step of its last run under a scrubber.

The page draws and the kernel computes; between them go the messages of `protocol`. A `Session` holds the settings and the runs, a
`Worker` makes them on one thread, so that cells never block, a `Channel` delivers what they say; the newest settings win, and a
run stops within one step.
"""

from __future__ import annotations

import inspect
import os
import traceback
import weakref
from pathlib import Path

import anywidget
import traitlets
from PIL import Image

from ... import trace_io
from ...trace import CONTROLS, Trace
from ..html import bundle_scripts
from ..replay import Replay
from ..saved import LeavesPage
from .channel import Channel
from .driver import check_names, copy_settings
from .messages import Messages
from .protocol import STRENGTHS, for_page
from .session import Session
from .worker import Worker

SCRIPTS = ("replay.js", "tools.js", "mask.js", "source.js", "compare.js", "words.js", "live.js", "playground.js")


def _script() -> str:
    return bundle_scripts(*SCRIPTS, **Replay.constants, **for_page())


def _shows_settings(default):
    """For a function that takes **settings: its signature names each setting of `trace.CONTROLS`, with this default."""

    def decorate(function):
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        first = next(i for i, p in enumerate(own) if p.kind is p.KEYWORD_ONLY)
        none = " | None" if default is None else ""
        settings = [
            inspect.Parameter(name, own[first].kind, default=default, annotation=control.kind.__name__ + none)
            for name, control in CONTROLS.items()
            if control.page
        ]
        function.__signature__ = signature.replace(parameters=[*own[:first], *settings, *own[first:]])
        return function

    return decorate


class Playground(LeavesPage, anywidget.AnyWidget):
    """A live pipeline with controls, progress and a scrubber over every step of its last run.

    pipe: a diffusers pipeline, as from `sdwidgets.load()`; of one that starts from pictures, text-to-image over the same parts. Cells may
        call it while a run goes on.
    prompt, negative_prompt, seed, num_inference_steps, guidance_scale, scheduler: what the controls start with;
        `scheduler` is a label of `sdwidgets.generation.schedulers.SCHEDULERS`. None is the usual value for this model.
    task: "text"; "image", which starts from `source`; "inpaint", which paints anew where `mask` is white; "outpaint", which
        paints a border around `source`. None: "text".
    strength: the share of the timesteps that is run, above 0 to 1. None: 0.6 for "image", else 1.
    border: left, top, right, bottom, in percent of the picture's sides, 0 to 200. None: 25 each.
    source, mask: PIL images or numpy arrays, (H, W, 3) and (H, W); `source` is brought to the model's size.
    autorun: make the first picture as soon as the widget is shown.
    delivery: how messages from the worker's thread reach the page. "push" sends them from that thread; "pull" lets the page
        poll (on Colab, what a thread sends may not arrive: googlecolab/colabtools#3373); "sync" works without a thread, so a
        run blocks; "auto" starts with the one that fits and turns to "pull" when the page misses messages.

    `trace`, `image` and `settings` are read-only traits, for `play.observe(f, "image")` and
    `traitlets.dlink((play, "settings"), ...)`. Each change brings new objects. `settings` changes when a run is accepted, before
    it is made; `trace`, then `image`, when it is shown: also one of the history or of a file, but not one that was replaced. The
    previews of `trace` are decoded after that. Observers are called on the thread that sends the messages: with "push" the
    worker's for `trace` and `image`, with "pull" and "sync" the kernel's own, at the page's next poll or inside `wait`. An
    exception in an observer is printed and stops nothing.

    Raises SettingsError (a ValueError) for settings that the pipeline cannot run, TypeError for one that needs another picture to follow.
    """

    # Until there is a worker: one that is refused before is collected, and closed, too.
    _release = staticmethod(lambda: None)
    _esm = traitlets.Unicode(_script()).tag(sync=True)
    trace = traitlets.Instance(
        Trace, allow_none=True, read_only=True, help="The run that is shown; None before the first."
    )
    image = traitlets.Instance(
        Image.Image, allow_none=True, read_only=True, help="Its picture; None where it was stopped."
    )
    settings = traitlets.Dict(read_only=True, help="What the controls say.")

    @_shows_settings(default=None)
    def __init__(self, pipe, *, source=None, mask=None, autorun: bool = True, delivery: str = "auto", **settings):
        check_names(settings, "Playground")
        worker = Worker()  # its thread is started by the first run
        self._release = weakref.finalize(self, worker.close)
        channel = Channel(self.send, lambda: worker.is_current_thread, delivery)
        self._session = Session(pipe, channel, worker, self._changed, source, mask, settings)
        super().__init__()
        self._changed("settings", copy_settings(self._session.settings))
        self.on_msg(Messages(self._session, autorun).receive)

    @property
    def pipe(self):
        """The pipeline."""
        return self._session.pipe

    @property
    def source(self) -> Image.Image | None:
        """The picture that the next run starts from, where its task starts from one."""
        return self._session.source

    @property
    def mask(self) -> Image.Image | None:
        """Where the next inpainting run paints anew: white."""
        return self._session.mask

    @property
    def history(self) -> tuple:
        """The last runs, oldest first: each has `number`, `settings` and `picture`, the newest also `run.trace`."""
        return tuple(self._session.history)

    @_shows_settings(default=...)
    def run(self, *, source=None, mask=None, **settings) -> Playground:
        """Change settings and make a picture; returns at once. A run that is under way is replaced.

        Settings and pictures are those of `Playground`. Those that are left out stay as they are; another task brings its usual
        strength. Raises SettingsError (a ValueError) for what the pipeline cannot run, TypeError for another name.
        """
        check_names(settings, "run")
        session = self._session
        if settings.get("task", session.settings["task"]) != session.settings["task"]:
            settings = {"strength": STRENGTHS.get(str(settings["task"]), 1.0), **settings}
        try:
            source, mask = session.prepare_pictures(source, mask)
            session.start(session.request(**settings)._replace(source=source, mask=mask))
        except ValueError as error:
            session.report(error)
            raise
        return self

    def wait(self, timeout: float | None = None) -> Trace:
        """Wait for the newest run and its previews; returns its Trace.

        Raises TimeoutError after `timeout` seconds, RuntimeError if nothing was run, and what the run itself raised.
        Interrupting a cell that waits stops the run too.
        """
        return self._session.wait(timeout)

    def stop(self) -> None:
        """Stop the run within one step. Its steps so far stay in `trace`, with `complete` False."""
        self._session.stop()

    def code(self, folder: str | os.PathLike | None = None) -> str:
        """The stock diffusers program that makes the picture that is shown; before the first run, the controls' picture.

        Run with the same versions on the same device it makes the same picture to the last bit, where the pipeline's
        `speed` is "exact". folder: where to write source.png and mask.png for a program that starts from pictures; without
        it the program expects them in its own folder.
        """
        return self._session.code(folder)

    def load(self, path: str | os.PathLike) -> Playground:
        """Show the run in a picture or page that carries one (see `sdwidgets.trace_io`), and set the controls to its settings.

        Raises FileNotFoundError, and ValueError for a file without a run, a damaged one, and settings that this pipeline
        cannot run; then nothing has changed.
        """
        return self.show(trace_io.extract_trace(path))

    def show(self, trace: Trace) -> Playground:
        """Show a recorded run, and set the controls to its settings. Raises ValueError as `load` does."""
        self._session.show(trace)
        return self

    def restore(self, number: int) -> Playground:
        """Show a run of the history again, and set the controls to its settings; ValueError for one that is not kept.

        Where its trace is no longer kept it is made again, which gives the same picture.
        """
        self._session.restore(number)
        return self

    def save(self, path: str | os.PathLike) -> Path:
        """Write the picture that is shown as a PNG that carries its run; returns its path. See `sdwidgets.trace_io`."""
        if self._session.run is None:
            raise RuntimeError("There is no picture yet; call run() and wait() first.")
        return trace_io.embed_trace(self._session.run.trace, path)

    def export_html(self, path: str | os.PathLike) -> Path:
        """Write the run that is shown as a page of its own, every step under a scrubber; returns its path. See `Replay.export_html`."""
        replay = self.saved_view()
        if replay is None:
            raise RuntimeError("There is no picture yet; call run() and wait() first.")
        return replay.export_html(path)

    def saved_view(self) -> Replay | None:
        """What is left where no kernel runs."""
        return Replay(self.trace) if self.trace is not None and self.trace.steps else None

    @property
    def saved_sentence(self) -> str:
        if self.trace is None:
            return "A Playground: to use it, run the notebook up to here."
        return "The last run of a Playground: to change it, run the notebook up to here."

    def close(self) -> None:
        """Stop, let the thread go, and take the widget off the page. The trace stays."""
        self._release()
        super().close()

    def _changed(self, name: str, value) -> None:
        """What changed in the session becomes a trait; a new trace brings its image. "done": a run has ended, with its previews."""
        if name == "done":
            return self.renew_saved()
        values = {name: value}
        if name == "trace":
            values["image"] = None if value.images is None else Image.fromarray(value.images[0])
        for name, value in values.items():
            try:
                self.set_trait(name, value)
            except Exception:  # an observer's own, which must not end the run
                traceback.print_exc()

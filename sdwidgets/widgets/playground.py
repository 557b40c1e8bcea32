"""`Playground(pipe)`: controls over a live pipeline, and every step of its last run under a scrubber.

The page draws and the kernel computes; between them go messages. Callbacks only check settings and hand them to one
worker thread, so cells never block; the newest settings win, and a run stops within one step."""

from __future__ import annotations

import inspect
import os
import sys
import weakref
from functools import partial
from pathlib import Path

import anywidget
import traitlets

from .. import passport
from ..trace import Trace
from .drive import SETTINGS, as_number, defaults, settings_of, tokens
from .engine import Engine, Run
from .mail import Mail
from .page import for_script, front_end
from .parcel import PIECE, Parcel
from .replay import describe
from .worker import Worker

DELIVERIES = ("auto", "push", "pull", "sync")
SCRIPTS = ("replay.js", "tools.js", "playground.js")
DEBOUNCE = 0.15  # seconds before settings from the page are run


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _script() -> str:
    style = (Path(__file__).parent / "playground.css").read_text("utf-8")
    return f"const STYLE = {for_script(style)};\n{front_end(*SCRIPTS)}"


class Playground(anywidget.AnyWidget):
    """A live pipeline with controls, progress and a scrubber over every step of its last run.

    pipe: a diffusers text-to-image pipeline, as from `sdwidgets.load()`. While a run goes on, leave it to the widget.
    prompt, negative_prompt, seed, num_inference_steps, guidance_scale, scheduler: what the controls start with;
        `scheduler` is a label of `sdwidgets.pipelines.SCHEDULERS`. None is the usual value for this model.
    autorun: make the first picture as soon as the widget is shown.
    delivery: how news from the worker reach the page. "push" sends them from the worker thread; "pull" lets the page ask
        for them (on Colab, what a thread sends may not arrive: googlecolab/colabtools#3373); "sync" works without a
        thread, so a run blocks; "auto" starts with the one that fits and turns to "pull" when the page misses news.

    Raises SettingsError (a ValueError) for settings that the pipeline cannot run.
    """

    _esm = traitlets.Unicode(_script()).tag(sync=True)

    def __init__(
        self,
        pipe,
        *,
        prompt: str = "an astronaut on a blue background",
        negative_prompt: str = "",
        seed: int = 0,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        scheduler: str | None = None,
        autorun: bool = True,
        delivery: str = "auto",
    ):
        self._worker = worker = Worker()  # its thread is started by the first run
        self._release = weakref.finalize(self, worker.close)
        if delivery not in DELIVERIES:
            raise ValueError(f"There is no delivery {delivery!r}; choose one of: {', '.join(DELIVERIES)}.")
        self.pipe = pipe
        usual = defaults(pipe)
        given = (prompt, negative_prompt, seed, num_inference_steps, guidance_scale, scheduler)
        self.settings = {
            name: usual.get(name) if value is None else value
            for name, value in zip(SETTINGS, given, strict=True)
        }
        self._check(self.settings)
        self._autorun, self._adaptive = autorun, delivery == "auto"
        if self._adaptive:
            delivery = "pull" if "google.colab" in sys.modules else "push"
        self._mail = Mail(self.send, lambda: worker.here, delivery)
        self._engine = Engine(pipe, self._mail, worker)
        self._files, self._outgoing = Parcel(passport.MAX_FILE), b""
        super().__init__()
        self.on_msg(self._receive)

    @property
    def trace(self):
        """The Trace of the newest run that was not replaced by a newer one; None before the first."""
        return self._engine.run.trace if self._engine.run else None

    # ---- for code ------------------------------------------------------------------------------------------------

    def run(self, **settings) -> Playground:
        """Change settings and make a picture; returns at once. A run that is under way is replaced.

        Takes prompt, negative_prompt, seed, num_inference_steps, guidance_scale and scheduler; what is not given stays
        as it is in the controls. Raises SettingsError (a ValueError) for what the pipeline cannot run.
        """
        unknown = sorted(set(settings) - set(SETTINGS))
        if unknown:
            raise TypeError(f"run() has no setting {unknown[0]!r}; it takes {', '.join(SETTINGS)}.")
        try:
            self._start({**self.settings, **settings})
        except ValueError as error:
            self._tell_errors(error)
            raise
        return self

    def wait(self, timeout: float | None = None):
        """Wait for the newest run and its previews; returns its Trace.

        Raises TimeoutError after `timeout` seconds, RuntimeError if nothing was run, and what the run itself raised.
        Interrupting a cell that waits stops the run too.
        """
        try:
            done = self._worker.wait(timeout, meanwhile=self._mail.flush)
        except KeyboardInterrupt:
            self.stop()
            raise
        self._mail.flush()
        if not done:
            raise TimeoutError(f"The run takes longer than {timeout:g} s; wait longer, or call stop().")
        if self._engine.error is not None:
            raise self._engine.error
        if self.trace is None:
            raise RuntimeError("Nothing was run to its first step; call run() first.")
        return self.trace

    def stop(self) -> None:
        """Stop the run within one step. Its steps so far stay in `trace`, with `complete` False."""
        if self._worker.cancel():  # a run that had not begun: nothing else would tell the page
            self._mail.post("done", badge=self._engine.badge(), failure=None)

    def code(self) -> str:
        """The stock diffusers program that makes the picture that is shown; before the first run, the controls' picture.

        Run with the same versions on the same device it makes the same picture to the last bit, where the pipeline's
        `speed` is "exact".
        """
        from ..recipe import code
        from ..schedulers import make_scheduler

        run = self._engine.run
        if run is not None:
            return code(self.pipe, run.settings, run.scheduler)
        label = self.settings["scheduler"]
        return code(self.pipe, self.settings, make_scheduler(label, self.pipe) if label else None)

    def load(self, path: str | os.PathLike) -> Playground:
        """Show the run in a picture or page that carries one (see `sdwidgets.passport`), and set the controls to its settings.

        Raises FileNotFoundError, and ValueError for a file without a run, a damaged one, and settings that this pipeline
        cannot run; then nothing has changed.
        """
        return self.show(passport.load_passport(path))

    def show(self, trace: Trace) -> Playground:
        """Show a recorded run, and set the controls to its settings. Raises ValueError as `load` does."""
        settings, notes = settings_of(trace, self.pipe, self.settings)
        self._show(Run(settings, trace, None, self._engine.badge(trace.settings)), notes)
        return self

    def save(self, path: str | os.PathLike) -> Path:
        """Write the picture that is shown as a PNG that carries its run; returns its path. See `sdwidgets.passport`."""
        if self.trace is None:
            raise RuntimeError("There is no picture yet; call run() and wait() first.")
        return passport.save_passport(self.trace, path)

    def close(self) -> None:
        """Stop, let the thread go, and take the widget off the page. The trace stays."""
        self._release()
        super().close()

    # ---- showing and running -------------------------------------------------------------------------------------------------

    def _check(self, settings: dict) -> list:
        from ..checks import check_settings

        return check_settings(self.pipe, **{**settings, "scheduler": settings["scheduler"] or None})

    def _start(self, settings: dict, client: str = "", delay: float = 0.0) -> None:
        """Check settings and enqueue a run with them; `client` is the view that asked, if one did."""
        self._begin(settings, {note.field: note.text for note in self._check(settings)}, client)
        self._submit(partial(self._engine.make, settings), delay)

    def _show(self, run: Run, notes: dict) -> None:
        """Enqueue a run that was made before, instead of one that is under way."""
        self._check(run.settings)
        job = partial(self._engine.show, run, describe(run.trace))
        self._begin(run.settings, notes)
        self._submit(job)

    def _begin(self, settings: dict, notes: dict, client: str = "") -> None:
        """From now on these settings count; `notes`: control -> a sentence."""
        if not self._release.alive:
            raise RuntimeError("This Playground is closed; make a new one.")
        self.settings, self._engine.error = settings, None
        self._mail.forget()
        self._mail.post("queued", client=client, settings=settings, notes=notes)

    def _submit(self, job, delay: float = 0.0) -> None:
        if self._mail.delivery != "sync":
            try:
                return self._worker.submit(job, delay)
            except RuntimeError:  # a system without threads, as Python in a browser
                if not self._adaptive:
                    raise
                self._mail.delivery = "sync"
        job(lambda: False)

    # ---- messages ----------------------------------------------------------------------------------------------

    def _receive(self, _widget, content: dict, buffers) -> None:
        kind, client = content.get("kind"), str(content.get("client", ""))
        if kind == "tick":  # a page has heard nothing for a while
            if content.get("lost") and self._adaptive:
                self._mail.delivery = "pull"
            self._mail.send_again(int(content.get("seen", 0)))
            self._mail.tell(kind="tock", client=client)
        elif kind == "hello":
            self._welcome(client)
        elif kind == "tokens":
            self._mail.tell(kind="tokens", client=client, **tokens(self.pipe, str(content.get("text", ""))))
        elif kind == "code":
            self._mail.tell(kind="code", client=client, text=self.code())
        elif kind == "passport":
            self._send_passport(content, client)
        elif kind == "file":
            self._take_file(content, buffers, client)
        elif kind == "stop":
            self.stop()
        elif kind == "run":
            self._run_from_page(content.get("settings", {}), client)

    def _welcome(self, client: str) -> None:
        """A page shows the widget: tell it what the controls offer, then everything about the newest run."""
        from ..schedulers import schedulers_for

        offers = [[label, entry.sentence] for label, entry in schedulers_for(self.pipe).items()]
        if not self.settings["scheduler"]:
            offers.insert(0, ["", f"{type(self.pipe.scheduler).__name__}, as the pipeline came."])
        takes = inspect.signature(type(self.pipe).__call__).parameters
        self._mail.welcome(
            client=client,
            settings=self.settings,
            schedulers=offers,
            hidden=[name for name in ("negative_prompt", "guidance_scale") if name not in takes],
            badge=self._engine.badge(),
        )
        if self._autorun and self.trace is None and self._worker.idle:
            self._run_from_page({}, "")

    def _run_from_page(self, settings: dict, client: str) -> None:
        wanted = {name: settings[name] for name in SETTINGS if name in settings}
        for name in ("seed", "num_inference_steps", "guidance_scale"):
            if isinstance(wanted.get(name), str):
                wanted[name] = as_number(wanted[name])
        try:
            self._start({**self.settings, **wanted}, client, DEBOUNCE)
        except (ValueError, RuntimeError) as error:
            self._tell_errors(error)

    def _send_passport(self, content: dict, client: str) -> None:
        """The picture that carries its run, a piece at a time, as the page asks for them."""
        at, run = content.get("start"), self._engine.run
        if at == 0:
            try:
                self._outgoing = passport.to_png(run.trace) if run else b""
            except ValueError as error:
                return self._tell_errors(error)
        if isinstance(at, int) and 0 <= at < len(self._outgoing):
            piece = self._outgoing[at : at + PIECE]
            self._mail.tell(kind="passport", client=client, start=at, size=len(self._outgoing), piece=piece)
            if at + len(piece) == len(self._outgoing):
                self._outgoing = b""

    def _take_file(self, content: dict, buffers, client: str) -> None:
        """A piece of a file that was dropped on the page. A file that is refused changes nothing."""
        name = str(content.get("name", "file"))
        try:
            at, size = int(content.get("start", -1)), int(content.get("size", 0))
            data = self._files.take(client, at, size, bytes(buffers[0]) if buffers else b"")
            if data is not None:
                self.show(passport.read_passport(data, name))
        except (ValueError, TypeError, RuntimeError) as error:
            self._mail.tell(kind="file", client=client, done=True, refused=_sentence(error))
        else:
            self._mail.tell(kind="file", client=client, done=data is not None, refused=None)

    def _tell_errors(self, error: Exception) -> None:
        self._mail.post("errors", errors={getattr(error, "field", ""): str(error)})

"""`Playground(pipe)`: controls over a live pipeline, and every step of its last run under a scrubber.

The page draws and the kernel computes; between them go messages. Callbacks only check settings and hand them to one
worker thread, so cells never block; the newest settings win, and a run stops within one step."""

from __future__ import annotations

import os
import sys
import weakref
from functools import partial
from pathlib import Path

import anywidget
import traitlets
from PIL import Image

from ... import trace_io
from ...generation.validation import SettingsError
from ...trace import CONTROLS, Trace
from ..html import STATIC, encoded, for_script, front_end
from ..replay import describe
from .channel import Mail
from .driver import defaults, page_settings, settings_of
from .messages import Desk
from .session import Engine, Order, Run
from .worker import Worker

DELIVERIES = ("auto", "push", "pull", "sync")
SCRIPTS = ("replay.js", "tools.js", "mask.js", "source.js", "compare.js", "live.js", "playground.js")
STRENGTHS = {"text": 0.6, "image": 0.6}  # usual ones; 1 for the other tasks: nothing is kept of what is painted anew


def _script() -> str:
    style = (STATIC / "playground.css").read_text("utf-8")
    return f"const STYLE = {for_script(style)};\n{front_end(*SCRIPTS)}"


def _check_names(settings: dict, caller: str) -> None:
    if unknown := sorted(set(settings) - set(page_settings())):
        raise TypeError(
            f"{caller}() has no setting {unknown[0]!r}; it takes {', '.join(page_settings())}, source and mask."
        )


class Playground(anywidget.AnyWidget):
    """A live pipeline with controls, progress and a scrubber over every step of its last run.

    pipe: a diffusers text-to-image pipeline, as from `sdwidgets.load()`. While a run goes on, leave it to the widget.
    prompt, negative_prompt, seed, num_inference_steps, guidance_scale, scheduler: what the controls start with;
        `scheduler` is a label of `sdwidgets.generation.schedulers.SCHEDULERS`. None is the usual value for this model.
    task: "text"; "image", which starts from `source`; "inpaint", which paints anew where `mask` is white; "outpaint", which
        paints a border around `source`.
    source, mask: PIL images or numpy arrays, (H, W, 3) and (H, W); `source` is brought to the model's size.
    strength: how much of the path from noise is walked, above 0 to 1. None: 0.6 for "image", else 1.
    border: left, top, right, bottom, in percent of the picture's sides, 0 to 200.
    autorun: make the first picture as soon as the widget is shown.
    delivery: how news from the worker reach the page. "push" sends them from the worker thread; "pull" lets the page ask
        for them (on Colab, what a thread sends may not arrive: googlecolab/colabtools#3373); "sync" works without a
        thread, so a run blocks; "auto" starts with the one that fits and turns to "pull" when the page misses news.

    Raises SettingsError (a ValueError) for settings that the pipeline cannot run.
    """

    _esm = traitlets.Unicode(_script()).tag(sync=True)

    def __init__(self, pipe, *, source=None, mask=None, autorun: bool = True, delivery: str = "auto", **settings):
        self._worker = worker = Worker()  # its thread is started by the first run
        self._release = weakref.finalize(self, worker.close)
        if delivery not in DELIVERIES:
            raise ValueError(f"There is no delivery {delivery!r}; choose one of: {', '.join(DELIVERIES)}.")
        self.pipe = pipe
        _check_names(settings, "Playground")
        usual = {name: CONTROLS[name].start for name in page_settings()} | defaults(pipe)
        given = {name: value for name, value in settings.items() if value is not None}
        usual["strength"] = STRENGTHS.get(str(given.get("task", "text")), 1.0)
        self.source = self.mask = None
        self.source, self.mask = self._pictures(source, mask)
        self.settings = {
            name: list(value) if CONTROLS[name].kind is list else value for name, value in (usual | given).items()
        }
        self._check(self._order())
        self.autorun, self._adaptive = autorun, delivery == "auto"
        if self._adaptive:
            delivery = "pull" if "google.colab" in sys.modules else "push"
        self._mail = Mail(self.send, lambda: worker.here, delivery)
        self._engine = Engine(pipe, self._mail, worker)
        super().__init__()
        self.on_msg(Desk(self).receive)

    @property
    def trace(self):
        """The Trace of the newest run that was not replaced by a newer one; None before the first."""
        return self._engine.run.trace if self._engine.run else None

    @property
    def history(self) -> tuple:
        """The last runs, oldest first: each has `number`, `settings` and `picture`, the newest also `run.trace`."""
        return tuple(self._engine.history)

    # ---- for code ------------------------------------------------------------------------------------------------

    def run(self, *, source=None, mask=None, **settings) -> Playground:
        """Change settings and make a picture; returns at once. A run that is under way is replaced.

        Takes what the controls have: prompt, negative_prompt, seed, num_inference_steps, guidance_scale, scheduler, task,
        strength, border; and the pictures `source` and `mask`. What is not given stays as it is.
        Raises SettingsError (a ValueError) for what the pipeline cannot run.
        """
        _check_names(settings, "run")
        if settings.get("task", self.settings["task"]) != self.settings["task"]:
            settings = {"strength": STRENGTHS.get(str(settings["task"]), 1.0), **settings}
        try:
            pictures = self._pictures(source, mask)
            self.start(Order({**self.settings, **settings}, *pictures))
        except ValueError as error:
            self.tell_errors(error)
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

    def code(self, folder: str | os.PathLike | None = None) -> str:
        """The stock diffusers program that makes the picture that is shown; before the first run, the controls' picture.

        Run with the same versions on the same device it makes the same picture to the last bit, where the pipeline's
        `speed` is "exact". folder: where to write source.png and mask.png for a program that starts from pictures; without
        it the program expects them in its own folder.
        """
        from ...generation.code_export import code
        from ...generation.schedulers import make_scheduler
        from ...generation.tasks import pictures_for, pipeline_for

        run = self._engine.run
        order, scheduler = (run.order, run.scheduler) if run else (self._order(), None)
        settings = order.settings
        if scheduler is None and settings["scheduler"]:
            scheduler = make_scheduler(settings["scheduler"], self.pipe)
        pictures, names = pictures_for(self.pipe, *order[:3]), {}
        for name, file in (("image", "source.png"), ("mask_image", "mask.png")):
            if name in pictures:
                names[name] = str(Path(folder or "", file))
                if folder is not None:
                    pictures[name].save(names[name])
        size = {name: pictures[name] for name in ("height", "width") if name in pictures}
        return code(pipeline_for(self.pipe, settings["task"]), {**settings, **size}, scheduler, names)

    def load(self, path: str | os.PathLike) -> Playground:
        """Show the run in a picture or page that carries one (see `sdwidgets.trace_io`), and set the controls to its settings.

        Raises FileNotFoundError, and ValueError for a file without a run, a damaged one, and settings that this pipeline
        cannot run; then nothing has changed.
        """
        return self.show(trace_io.extract_trace(path))

    def show(self, trace: Trace) -> Playground:
        """Show a recorded run, and set the controls to its settings. Raises ValueError as `load` does."""
        settings, notes = settings_of(trace, self.pipe, self.settings)
        pictures = [Image.fromarray(a) if a is not None else None for a in (trace.source, trace.mask)]
        self._show(Run(Order(settings, *pictures), trace, None, self._engine.badge(trace.settings)), notes)
        return self

    def save(self, path: str | os.PathLike) -> Path:
        """Write the picture that is shown as a PNG that carries its run; returns its path. See `sdwidgets.trace_io`."""
        if self.trace is None:
            raise RuntimeError("There is no picture yet; call run() and wait() first.")
        return trace_io.embed_trace(self.trace, path)

    def close(self) -> None:
        """Stop, let the thread go, and take the widget off the page. The trace stays."""
        self._release()
        super().close()

    # ---- showing and running -------------------------------------------------------------------------------------------------

    def start(self, order: Order, client: str = "", delay: float = 0.0) -> None:
        """Check an order and enqueue a run of it; `client` is the view that asked, if one did. Raises SettingsError."""
        self._begin(order, {note.field: note.text for note in self._check(order)}, client)
        self._submit(partial(self._engine.make, order), delay)

    def use(self, source=None, mask=None) -> None:
        """Take these pictures for the runs to come, and show them on the page. A new source has no mask yet."""
        self.source, self.mask = self._pictures(source, mask)
        self._mail.tell(kind="source", client="", **self.pictures())

    def pictures(self) -> dict:
        """Source and mask as the page gets them: PNG files, or None."""
        found = {"source": self.source, "mask": self.mask}
        return {name: picture and encoded(picture, "PNG") for name, picture in found.items()}

    def tell_errors(self, error: Exception) -> None:
        """A sentence beside the control that is wrong."""
        self._mail.post("errors", errors={getattr(error, "field", ""): str(error)})

    def _order(self) -> Order:
        return Order(self.settings, self.source, self.mask)

    def _pictures(self, source, mask) -> tuple:
        """Those given, at the model's size, or else those that there are."""
        from ...generation.tasks import as_mask, resize_to_model, to_pil

        if source is not None:
            source = resize_to_model(self.pipe, to_pil(source))
        elif mask is not None and self.source is None:
            raise SettingsError("mask", "A mask lies over a picture: give source too.")
        else:
            source = self.source
            mask = self.mask if mask is None else mask
        return source, mask if mask is None else as_mask(mask, source.size)

    def _check(self, order: Order) -> list:
        from ...generation.tasks import check_task
        from ...generation.validation import check_settings

        settings = dict(order.settings)
        task, border, strength = (settings.pop(name) for name in ("task", "border", "strength"))
        notes = check_task(self.pipe, task, order.source, order.mask, border)
        scheduler = settings.pop("scheduler") or None
        return notes + check_settings(
            self.pipe, **settings, scheduler=scheduler, strength=None if task == "text" else strength
        )

    def restore(self, number: int) -> Playground:
        """Show a run of the history again, and set the controls to its settings; ValueError for one that is not kept.

        Where its trace is no longer kept it is made again, which gives the same picture.
        """
        past = self._engine.history.find(number)
        if past is None:
            kept = ", ".join(str(past.number) for past in self.history)
            raise ValueError(f"Run {number!r} is not kept any more; there are: {kept or 'none yet'}.")
        if past.run is None:
            self.start(past.order._replace(live=0))
        else:
            self._show(past.run, {})
        return self

    def _show(self, run: Run, notes: dict) -> None:
        """Enqueue a run that was made before, instead of one that is under way."""
        self._check(run.order)
        job = partial(self._engine.show, run, describe(run.trace))
        self._begin(run.order, notes)
        self._submit(job)

    def _begin(self, order: Order, notes: dict, client: str = "") -> None:
        """From now on this order counts; `notes`: control -> a sentence."""
        if not self._release.alive:
            raise RuntimeError("This Playground is closed; make a new one.")
        moved = (self.source, self.mask) != (order.source, order.mask)
        self.settings, self.source, self.mask = order[:3]
        self._engine.error = None
        self._mail.forget()
        self._mail.post("queued", client=client, settings=self.settings, notes=notes, live=order.live)
        if moved:
            self._mail.tell(kind="source", client="", **self.pictures())

    def _submit(self, job, delay: float = 0.0) -> None:
        if self._mail.delivery != "sync":
            try:
                return self._worker.submit(job, delay)
            except RuntimeError:  # a system without threads, as Python in a browser
                if not self._adaptive:
                    raise
                self._mail.delivery = "sync"
        job(lambda: False)

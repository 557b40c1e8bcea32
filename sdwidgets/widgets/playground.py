"""`Playground(pipe)`: controls over a live pipeline, and every step of its last run under a scrubber.

The page draws and the kernel computes; between them go messages. Callbacks only check settings and hand them to one
worker thread, so cells never block; the newest settings win, and a run stops within one step."""

from __future__ import annotations

import inspect
import sys
import time
import weakref
from functools import partial

import anywidget
import numpy as np
import traitlets

from ..trace import Settings
from .drive import (
    SETTINGS,
    arguments,
    as_number,
    default_scheduler,
    defaults,
    memory_in_use,
    prepared,
    sentence_for,
    tokens,
    turn,
)
from .mail import Mail
from .page import front_end
from .replay import MAX_PREVIEW, about, badge_parts, describe, frame, webp
from .worker import Worker

DELIVERIES = ("auto", "push", "pull", "sync")
DEBOUNCE, PROGRESS = (
    0.15,
    0.1,
)  # seconds: before settings from the page are run; between two messages to the page


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

    _esm = traitlets.Unicode(front_end("replay.js", "playground.js")).tag(sync=True)

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
        self.trace = None  # of the newest run that was not replaced by a newer one
        usual = {**defaults(pipe), "scheduler": default_scheduler(pipe)}
        given = (prompt, negative_prompt, seed, num_inference_steps, guidance_scale, scheduler)
        self.settings = {
            name: usual.get(name) if value is None else value
            for name, value in zip(SETTINGS, given, strict=True)
        }
        self._check(self.settings)
        self._autorun, self._adaptive = autorun, delivery == "auto"
        self._error: Exception | None = None
        if self._adaptive:
            delivery = "pull" if "google.colab" in sys.modules else "push"
        self._mail = Mail(self.send, lambda: worker.here, delivery)
        super().__init__()
        self.on_msg(self._receive)

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
        if self._error is not None:
            raise self._error
        if self.trace is None:
            raise RuntimeError("Nothing was run to its first step; call run() first.")
        return self.trace

    def stop(self) -> None:
        """Stop the run within one step. Its steps so far stay in `trace`, with `complete` False."""
        if self._worker.cancel():  # a run that had not begun: nothing else would tell the page
            self._mail.post("done", badge=" · ".join(self._badge()), failure=None)

    def close(self) -> None:
        """Stop, let the thread go, and take the widget off the page. The trace stays."""
        self._release()
        super().close()

    # ---- running -------------------------------------------------------------------------------------------------

    def _check(self, settings: dict) -> list:
        from ..checks import check_settings

        return check_settings(self.pipe, **{**settings, "scheduler": settings["scheduler"] or None})

    def _start(self, settings: dict, client: str = "", delay: float = 0.0) -> None:
        """Check settings and enqueue a run with them; `client` is the view that asked, if one did."""
        if not self._release.alive:
            raise RuntimeError("This Playground is closed; make a new one.")
        notes, self.settings, self._error = self._check(settings), settings, None
        self._mail.forget()
        self._mail.post(
            "queued", client=client, settings=settings, notes={note.field: note.text for note in notes}
        )
        job = partial(self._job, settings)
        if self._mail.delivery != "sync":
            try:
                return self._worker.submit(job, delay)
            except RuntimeError:  # a system without threads, as Python in a browser
                if not self._adaptive:
                    raise
                self._mail.delivery = "sync"
        job(lambda: False)

    def _job(self, settings: dict, stale) -> None:
        """The worker's job."""
        with turn(self.pipe, stale) as mine:
            if mine:
                self._generate(settings, stale)
            elif not self._worker.waiting:
                self._mail.post("done", badge=" · ".join(self._badge()), failure=None)

    def _generate(self, settings: dict, stale) -> None:
        """The pipeline's run, then the full decoder's picture of every step."""
        from ..recording import StopRun, record

        trace, error, began = (), None, time.perf_counter()
        try:
            with prepared(self.pipe, settings["scheduler"]):
                with record(self.pipe, on_step=self._on_step(settings, stale)) as trace:
                    self.pipe(**arguments(self.pipe, settings))
        except StopRun:
            pass
        except Exception as failure:
            error = failure
        seconds = time.perf_counter() - began
        if self._worker.waiting or not self._release.alive:
            return  # newer settings wait, or the widget is gone: nobody looks at this run any more
        badge = " · ".join(self._badge(trace.settings if len(trace) else None, seconds))
        if len(trace):
            self.trace = trace
            self._mail.forget("frames")  # the whole run takes their place
            self._mail.post("run", run={**describe(trace), "badge": badge})
        if trace and trace.complete:
            try:
                self._decode_previews(trace, stale)
            except Exception as failure:
                error = failure
        self._error = error
        self._mail.post("done", badge=badge, failure=sentence_for(error) if error else None)

    def _on_step(self, settings: dict, stale):
        """What `record` calls after every step: stop a stale run, or tell the page, at most ten times a second."""
        from ..latents import factors_for
        from ..recording import StopRun

        factors, frames, sent, told = factors_for(self.pipe), [], 0, -PROGRESS

        def on_step(step) -> None:
            nonlocal sent, told
            if stale():
                raise StopRun
            frames.append(frame(step))
            if time.monotonic() - told < PROGRESS:
                return
            news = {"first": sent, "frames": frames[sent:]}
            if sent == 0:
                asked = Settings(**{name: settings[name] for name in ("prompt", "negative_prompt")})
                total = len(self.pipe.scheduler.timesteps)
                news["run"] = {**about(asked, step.latents.shape[1:], factors), "total": total, "frames": []}
            self._mail.post("frames", **news)
            sent, told = len(frames), time.monotonic()

        return on_step

    def _decode_previews(self, trace, stale) -> None:
        """Predicted x0 of every step through the full decoder, to the page as they come, then into the trace."""
        from ..latents import decode

        size = 4 if trace.images.shape[1] * trace.images.shape[2] <= 256 * 256 else 1
        previews, sent, told = [], 0, -PROGRESS
        while len(previews) < len(trace):
            if stale():
                return
            steps = trace.steps[len(previews) : len(previews) + size]
            previews.extend(decode(self.pipe, np.concatenate([step.pred_original[:1] for step in steps])))
            if time.monotonic() - told >= PROGRESS or len(previews) == len(trace):
                pictures = [webp(picture, MAX_PREVIEW) for picture in previews[sent:]]
                self._mail.post("pictures", first=sent, pictures=pictures)
                sent, told = len(previews), time.monotonic()
        trace.previews = np.stack(previews)

    def _badge(self, settings=None, seconds: float | None = None) -> list[str]:
        """Model, device, number type, memory, time: what the footer tells."""
        if settings is None:
            name = str(getattr(self.pipe, "name_or_path", "") or type(self.pipe).__name__)
            dtype = str(self.pipe.dtype).removeprefix("torch.")
            settings = Settings(model=name, device=str(self.pipe.device), dtype=dtype)
        parts = badge_parts(settings)
        return parts + [memory_in_use(settings.device)] + ([] if seconds is None else [f"{seconds:.1f} s"])

    # ---- messages ----------------------------------------------------------------------------------------------

    def _receive(self, _widget, content: dict, _buffers) -> None:
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
            badge=" · ".join(self._badge()),
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

    def _tell_errors(self, error: Exception) -> None:
        self._mail.post("errors", errors={getattr(error, "field", ""): str(error)})

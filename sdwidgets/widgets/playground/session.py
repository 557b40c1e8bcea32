"""Makes runs on the worker's thread and tells the page: the pipeline's run, then the full decoder's picture of every step."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...generation.validation import SettingsError
from ...trace import CONTROLS, Settings, Trace
from ..replay import MAX_PREVIEW, about, badge_parts, describe, frame, webp
from .channel import Mail
from .driver import arguments, few_steps, following_a_hand, memory_in_use, prepared, sentence_for, turn
from .history import History
from .worker import Worker

PROGRESS = 0.1  # seconds between two messages to the page
REST = 0.15  # seconds that the hand must rest before a live run is described step by step
PATIENCE = 1.0  # seconds that a live run may take while newer settings wait


class Order(NamedTuple):
    """What a run is made from: the controls' settings, and the pictures of its task."""

    settings: dict
    source: Image.Image | None = None
    mask: Image.Image | None = None
    live: int = 0  # the how manieth order of the live mode it is, counted by the page; 0: none of it


class Run(NamedTuple):
    """What was made, and from what."""

    order: Order
    trace: Trace
    scheduler: Any  # the diffusers scheduler that ran
    badge: str


class Engine:
    """One pipeline at work. `run`: the newest run that was not replaced by a newer one; `error`: what ended it."""

    def __init__(self, pipe, mail: Mail, worker: Worker):
        self.pipe, self.mail, self.worker = pipe, mail, worker
        self.run: Run | None = None
        self.error: Exception | None = None
        self.history = History()

    def make(self, order: Order, stale) -> None:
        """The worker's job: a run of this order, unless it is stale before its turn comes."""
        if order.live:
            stale = self._patient(stale)
        with turn(self.pipe, stale) as mine:
            if mine:
                self._generate(order, stale)
            elif not self.worker.waiting:
                self.mail.post("done", badge=self.badge(), failure=None)

    def show(self, run: Run, described: dict, stale) -> None:
        """The worker's job: a run that was made before takes the place of the newest."""
        if stale():
            return
        self.run = run
        self.mail.post("run", run={**described, "badge": run.badge}, **self._past(run))
        self.mail.post("done", badge=run.badge, failure=None)

    def _past(self, run: Run) -> dict:
        """What the strip of the last runs learns from a run: itself, and which there still are."""
        past = self.history.add(run)
        return {"past": past and past.told(), "numbers": [past.number for past in self.history]}

    def badge(self, settings: Settings | None = None, seconds: float | None = None) -> str:
        """Model, device, number type, memory, time: what the footer tells."""
        if settings is None:
            name = str(getattr(self.pipe, "name_or_path", "") or type(self.pipe).__name__)
            dtype = str(self.pipe.dtype).removeprefix("torch.")
            settings = Settings(model=name, device=str(self.pipe.device), dtype=dtype)
        parts = [*badge_parts(settings), memory_in_use(settings.device)]
        return " · ".join(parts + ([] if seconds is None else [f"{seconds:.1f} s"]))

    def _patient(self, stale):
        """`stale`, but a live run that newer settings wait for may finish, unless it takes long: else a hand that never
        rests would see no picture. One that was stopped ends at once.
        """
        began = time.monotonic()
        return lambda: stale() and not (self.worker.waiting and time.monotonic() - began < PATIENCE)

    def _generate(self, order: Order, stale) -> None:
        from ...generation.tasks import pictures_for, pipeline_for
        from ...recording import StopRun, record

        trace, error, began = (), None, time.perf_counter()
        settings, scheduler = order.settings, self.pipe.scheduler
        if order.live:
            settings = {**settings, **few_steps(self.pipe, settings)}
            order = order._replace(settings=settings)
        try:
            pipe = pipeline_for(self.pipe, settings["task"])
            with following_a_hand() if order.live else nullcontext(), prepared(pipe, settings["scheduler"]):
                scheduler = pipe.scheduler
                with record(pipe, on_step=self._on_step(pipe, order, stale)) as trace:
                    pipe(**arguments(pipe, settings, pictures_for(self.pipe, *order[:3])))
        except StopRun:
            pass
        except Exception as failure:
            error = failure
        if isinstance(trace, Trace):  # what recording cannot see of a run: its settings say it
            known = {
                name: settings[name] for name in CONTROLS if CONTROLS[name].argument and settings.get(name) is not None
            }
            unseen = {name: value for name, value in known.items() if getattr(trace.settings, name) is None}
            trace.settings = replace(trace.settings, **unseen)
        seconds = time.perf_counter() - began
        if order.live and trace and trace.complete and not self.worker.closed:
            self.mail.forget("live")
            picture = webp(trace.images[0], MAX_PREVIEW, method=0)  # it is replaced in a moment
            self.mail.post("live", live=order.live, picture=picture, seconds=seconds)
            self.worker.rest(REST)
        if self.worker.waiting or self.worker.closed:
            return  # newer settings wait, or the widget is gone: nobody looks at this run any more
        badge = self.badge(trace.settings if len(trace) else None, seconds)
        if len(trace):
            self.run = Run(order, trace, scheduler, badge)
            self.mail.forget("frames")  # the whole run takes their place
            told = {**describe(trace), "badge": badge}
            self.mail.post("run", run=told, live=order.live, **self._past(self.run))
        if trace and trace.complete:
            try:
                self._decode_previews(trace, stale)
            except Exception as failure:
                error = failure
        self.error = error
        if isinstance(error, SettingsError):  # what only the pipeline itself could tell
            self.mail.post("errors", errors={error.field: str(error)})
            error = None
        failure = sentence_for(error) if error else None
        self.mail.post("done", badge=badge, failure=failure, live=order.live)

    def _on_step(self, pipe, order: Order, stale):
        """What `record` calls after every step: stop a stale run, or tell the page, at most ten times a second."""
        from ...latents import factors_for
        from ...recording import StopRun

        factors, frames, sent, told = factors_for(pipe), [], 0, -PROGRESS

        def on_step(step) -> None:
            nonlocal sent, told
            if stale():
                raise StopRun
            if order.live:
                return  # its picture is all that is shown
            frames.append(frame(step))
            if time.monotonic() - told < PROGRESS:
                return
            news = {"first": sent, "frames": frames[sent:]}
            if sent == 0:
                asked = Settings(**{name: order.settings[name] for name in ("prompt", "negative_prompt")})
                total = getattr(pipe, "num_timesteps", None) or len(pipe.scheduler.timesteps)
                news["run"] = {**about(asked, step.latents.shape[1:], factors), "total": total, "frames": []}
            self.mail.post("frames", **news)
            sent, told = len(frames), time.monotonic()

        return on_step

    def _decode_previews(self, trace: Trace, stale) -> None:
        """Predicted x0 of every step through the full decoder, to the page as they come, then into the trace."""
        from ...latents import decode

        size = 4 if trace.images.shape[1] * trace.images.shape[2] <= 256 * 256 else 1
        previews, sent, told = [], 0, -PROGRESS
        while len(previews) < len(trace):
            if stale() or self.worker.waiting:
                return
            steps = trace.steps[len(previews) : len(previews) + size]
            previews.extend(decode(self.pipe, np.concatenate([step.pred_original[:1] for step in steps])))
            if time.monotonic() - told >= PROGRESS or len(previews) == len(trace):
                pictures = [webp(picture, MAX_PREVIEW) for picture in previews[sent:]]
                self.mail.post("pictures", first=sent, pictures=pictures)
                sent, told = len(previews), time.monotonic()
        trace.previews = np.stack(previews)

"""Makes runs on the worker's thread and tells the page: the pipeline's run, then the full decoder's picture of every step."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from ..trace import Settings, Trace
from .drive import arguments, memory_in_use, prepared, sentence_for, turn
from .mail import Mail
from .replay import MAX_PREVIEW, about, badge_parts, describe, frame, webp
from .worker import Worker

PROGRESS = 0.1  # seconds between two messages to the page


class Run(NamedTuple):
    """What was made, and from what."""

    settings: dict  # of the controls
    trace: Trace
    scheduler: Any  # the diffusers scheduler that ran
    badge: str


class Engine:
    """One pipeline at work. `run`: the newest run that was not replaced by a newer one; `error`: what ended it."""

    def __init__(self, pipe, mail: Mail, worker: Worker):
        self.pipe, self.mail, self.worker = pipe, mail, worker
        self.run: Run | None = None
        self.error: Exception | None = None

    def make(self, settings: dict, stale) -> None:
        """The worker's job: a run with these settings, unless it is stale before its turn comes."""
        with turn(self.pipe, stale) as mine:
            if mine:
                self._generate(settings, stale)
            elif not self.worker.waiting:
                self.mail.post("done", badge=self.badge(), failure=None)

    def show(self, run: Run, described: dict, stale) -> None:
        """The worker's job: a run that was made before takes the place of the newest."""
        if stale():
            return
        self.run = run
        self.mail.post("run", run={**described, "badge": run.badge})
        self.mail.post("done", badge=run.badge, failure=None)

    def badge(self, settings: Settings | None = None, seconds: float | None = None) -> str:
        """Model, device, number type, memory, time: what the footer tells."""
        if settings is None:
            name = str(getattr(self.pipe, "name_or_path", "") or type(self.pipe).__name__)
            dtype = str(self.pipe.dtype).removeprefix("torch.")
            settings = Settings(model=name, device=str(self.pipe.device), dtype=dtype)
        parts = [*badge_parts(settings), memory_in_use(settings.device)]
        return " · ".join(parts + ([] if seconds is None else [f"{seconds:.1f} s"]))

    def _generate(self, settings: dict, stale) -> None:
        from ..recording import StopRun, record

        trace, error, began = (), None, time.perf_counter()
        scheduler = self.pipe.scheduler
        try:
            with prepared(self.pipe, settings["scheduler"]):
                scheduler = self.pipe.scheduler
                with record(self.pipe, on_step=self._on_step(settings, stale)) as trace:
                    self.pipe(**arguments(self.pipe, settings))
        except StopRun:
            pass
        except Exception as failure:
            error = failure
        seconds = time.perf_counter() - began
        if self.worker.waiting or self.worker.closed:
            return  # newer settings wait, or the widget is gone: nobody looks at this run any more
        badge = self.badge(trace.settings if len(trace) else None, seconds)
        if len(trace):
            self.run = Run(settings, trace, scheduler, badge)
            self.mail.forget("frames")  # the whole run takes their place
            self.mail.post("run", run={**describe(trace), "badge": badge})
        if trace and trace.complete:
            try:
                self._decode_previews(trace, stale)
            except Exception as failure:
                error = failure
        self.error = error
        self.mail.post("done", badge=badge, failure=sentence_for(error) if error else None)

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
            self.mail.post("frames", **news)
            sent, told = len(frames), time.monotonic()

        return on_step

    def _decode_previews(self, trace: Trace, stale) -> None:
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
                self.mail.post("pictures", first=sent, pictures=pictures)
                sent, told = len(previews), time.monotonic()
        trace.previews = np.stack(previews)

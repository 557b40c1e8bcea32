"""Makes runs on the worker's thread and publishes them: the pipeline's steps, then the full decoder's picture of every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np

from ...generation.sharing import pipeline_lock
from ...generation.validation import SettingsError
from ...trace import Settings, Trace
from ..replay import MAX_PREVIEW, about, describe, frame, webp
from .channel import Channel
from .driver import arguments, badge, few_steps, live_mode, sentence_for
from .history import Run, RunRequest
from .worker import Worker

PROGRESS = 0.1  # seconds between two messages to the page
IDLE_SECONDS = 0.15  # without a newer request before a live run is described step by step
LIVE_ENDED = 1.0  # seconds without a newer request before a live run counts as the last
PATIENCE = 1.0  # seconds that a live run may take while newer settings wait


class Runner:
    """One pipeline's runs. `error`: what ended the newest; `finish(run, description, live)` takes what was made, and `ended()` follows its previews."""

    def __init__(self, pipe, channel: Channel, worker: Worker, finish: Callable[[Run, dict, int], None], ended: Callable[[], None]):  # fmt: skip
        self.pipe, self.channel, self.worker, self.finish, self.ended = pipe, channel, worker, finish, ended
        self.error: Exception | None = None

    def make(self, request: RunRequest, cancelled: Callable[[], bool]) -> None:
        """The worker's job: one run, unless it is cancelled before the pipeline is free."""
        if request.live:
            request = request._replace(settings={**request.settings, **few_steps(self.pipe, request.settings)})
            cancelled = self._grace_period(cancelled)
        with pipeline_lock(self.pipe, cancelled, meanwhile=self.channel.flush) as acquired:
            if acquired:
                self._make(request, cancelled)
            elif not self.worker.waiting:
                self.channel.publish("done", badge=badge(self.pipe), failure=None, live=0)

    def _grace_period(self, cancelled: Callable[[], bool]) -> Callable[[], bool]:
        """`cancelled`, but a live run may finish while newer settings wait, unless it takes long: otherwise nobody who keeps
        moving would see a picture. One that was stopped ends at once.
        """
        began = time.monotonic()
        return lambda: cancelled() and not (self.worker.waiting and time.monotonic() - began < PATIENCE)

    def _make(self, request: RunRequest, cancelled: Callable[[], bool]) -> None:
        began = time.perf_counter()
        trace, scheduler, error = self._call_pipeline(request, cancelled)
        seconds = time.perf_counter() - began
        if request.live and trace and trace.complete and not self.worker.closed:
            self.channel.discard("live")
            picture = webp(trace.images[0], MAX_PREVIEW, method=0)  # it is replaced in a moment
            self.channel.publish("live", live=request.live, picture=picture, seconds=seconds)
            self.worker.pause(IDLE_SECONDS)
        if self.worker.waiting or self.worker.closed:
            return  # newer settings wait, or the widget is closed: nobody looks at this run any more
        footer = badge(self.pipe, trace.settings if trace else None, seconds)
        if trace:
            self.channel.discard("frames")  # the whole run takes their place
            self.finish(Run(request, trace, scheduler, footer), describe(trace), request.live)
        if trace and trace.complete:
            try:
                self._decode_previews(trace, cancelled)
            except Exception as failure:
                error = failure
        if self.worker.waiting:
            return  # a newer run has begun while this one's previews were decoded, and only its end counts
        self.error = error
        if isinstance(error, SettingsError):  # only the pipeline itself could find it
            self.channel.publish("errors", errors={error.field: str(error)})
            error = None
        sentence = sentence_for(error) if error else None
        self.channel.publish("done", badge=footer, failure=sentence, live=request.live)
        if request.live:
            self.worker.pause(LIVE_ENDED)
        if trace and not self.worker.waiting:
            self.ended()

    def _call_pipeline(self, request: RunRequest, cancelled: Callable[[], bool]) -> tuple:
        """(trace, scheduler, exception or None); the trace is None where nothing was recorded."""
        from ...generation.schedulers import make_scheduler
        from ...generation.sharing import own_copy
        from ...generation.tasks import pictures_for, pipeline_for
        from ...recording import StopRun, record

        settings, trace, scheduler, error = request.settings, None, self.pipe.scheduler, None
        try:
            pipe, label = pipeline_for(self.pipe, settings["task"]), settings["scheduler"]
            pipe = own_copy(pipe, make_scheduler(label, pipe) if label else None)
            scheduler = pipe.scheduler
            with live_mode() if request.live else nullcontext():
                with record(pipe, on_step=self._on_step(pipe, request, cancelled)) as trace:
                    pipe(**arguments(pipe, settings, pictures_for(self.pipe, *request[:3])))
        except StopRun:
            pass
        except Exception as failure:
            error = failure
        if trace is not None:
            trace.settings = trace.settings.completed(settings)
        return trace, scheduler, error

    def _on_step(self, pipe, request: RunRequest, cancelled: Callable[[], bool]) -> Callable:
        """What `record` calls after every step: end a cancelled run, or publish steps, at most ten times a second."""
        from ...latents import factors_for
        from ...recording import StopRun

        factors, frames, sent, published = factors_for(pipe), [], 0, -PROGRESS

        def on_step(step) -> None:
            nonlocal sent, published
            if cancelled():
                raise StopRun
            if request.live:
                return  # only its picture is shown
            frames.append(frame(step))
            if time.monotonic() - published < PROGRESS:
                return
            run = {}
            if sent == 0:
                prompts = {name: request.settings[name] for name in ("prompt", "negative_prompt")}
                total = getattr(pipe, "num_timesteps", None) or len(pipe.scheduler.timesteps)
                described = about(Settings(**prompts), step.latents.shape[1:], factors)
                run = {"run": {**described, "total": total, "frames": []}}
            self.channel.publish("frames", first=sent, frames=frames[sent:], **run)
            sent, published = len(frames), time.monotonic()

        return on_step

    def _decode_previews(self, trace: Trace, cancelled: Callable[[], bool]) -> None:
        """Predicted x0 of every step through the full decoder, to the page as they come, then into the trace."""
        from ...latents import decode

        assert trace.images is not None  # the run is complete
        size = 4 if trace.images.shape[1] * trace.images.shape[2] <= 256 * 256 else 1
        previews: list[np.ndarray] = []
        sent, published = 0, -PROGRESS
        while len(previews) < len(trace):
            if cancelled() or self.worker.waiting:
                return
            steps = trace.steps[len(previews) : len(previews) + size]
            previews.extend(decode(self.pipe, np.concatenate([step.pred_original[:1] for step in steps])))
            if time.monotonic() - published >= PROGRESS or len(previews) == len(trace):
                pictures = [webp(picture, MAX_PREVIEW) for picture in previews[sent:]]
                self.channel.publish("pictures", first=sent, pictures=pictures)
                sent, published = len(previews), time.monotonic()
        trace.previews = np.stack(previews)

"""A race: one prompt, one seed, several schedulers, each recorded; and the converged picture that all are measured by."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from diffusers.utils import logging

from .latents import decode_previews
from .recording import record
from .schedulers import find_scheduler, make_scheduler
from .trace import Trace
from .widgets.race import SchedulerRace

#: one that walks straight, one that throws dice, one that looks back
FIELD = ("DDIM", "Euler ancestral", "DPM++ 2M")


@contextmanager
def temporarily(pipe, *, scheduler=None, lora: str | os.PathLike | None = None) -> Iterator[None]:
    """For the time of a block another scheduler (a diffusers scheduler) and a LoRA (a folder, or a hub id) on the pipeline.

    Both are undone on every way out; LoRAs that the pipeline had before are unloaded too, as `unload_lora_weights` does.
    """
    before = pipe.scheduler
    try:
        if lora is not None:
            _load_lora(pipe, lora)
        if scheduler is not None:
            pipe.scheduler = scheduler
        yield
    finally:
        pipe.scheduler = before
        if lora is not None:
            pipe.unload_lora_weights()


def _load_lora(pipe, lora: str | os.PathLike) -> None:
    """Without the warning that a LoRA of the denoiser alone has nothing for the text encoder."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        pipe.load_lora_weights(lora)
    finally:
        logging.set_verbosity(verbosity)


def run_with(pipe, scheduler: str, prompt: str, *, steps: int, seed: int = 0, **settings) -> Trace:
    """One recorded run with another scheduler of `schedulers_for(pipe)`; the pipeline's own is put back, come what may.

    settings: whatever else the pipeline takes, such as guidance_scale, height and width. The noise is drawn on the CPU
    from `seed`, so that it is the same whatever the scheduler. Raises ValueError for a scheduler that is not on offer.
    """
    dice = torch.Generator("cpu").manual_seed(seed)
    with temporarily(pipe, scheduler=make_scheduler(scheduler, pipe)), record(pipe) as trace:
        pipe(prompt, num_inference_steps=steps, generator=dice, **settings)
    return trace


def race(
    pipe,
    prompt: str,
    *,
    schedulers: Sequence[str] = FIELD,
    steps: int | Mapping[str, int] = 10,
    seed: int = 0,
    reference: str | None = "DDIM",
    reference_steps: int = 100,
    previews: bool = True,
    **settings,
) -> SchedulerRace:
    """Run one prompt and seed with each scheduler and set them side by side.

    schedulers: labels of `sdwidgets.schedulers.SCHEDULERS`. steps: for all, or {label: steps}. reference: the scheduler
    that goes on for `reference_steps`, towards which distances are measured; None for no distances. previews: what each run
    believes at each call through the full decoder, not in rough colours. settings: as for the pipeline. Raises ValueError for an unknown scheduler, before anything runs, and for fewer than two.
    """
    entries = [find_scheduler(label, pipe) for label in schedulers]
    labels = [entry.label for entry in entries]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(f"a race wants two or more different schedulers, not {', '.join(labels) or 'none'}")
    far = find_scheduler(reference, pipe).label if reference else None
    counts = dict(steps) if isinstance(steps, Mapping) else dict.fromkeys(schedulers, steps)
    missing = [label for label in schedulers if label not in counts]
    if missing:
        raise ValueError(
            f"steps names no number for {missing[0]!r}; give one number, or one for each scheduler"
        )
    settings["seed"] = seed
    traces = {
        label: run_with(pipe, label, prompt, steps=counts[given], **settings)
        for given, label in zip(schedulers, labels, strict=True)
    }
    if previews:
        for trace in traces.values():
            decode_previews(trace, pipe)
    converged = run_with(pipe, far, prompt, steps=reference_steps, **settings) if far else None
    sentences = {entry.label: entry.sentence for entry in entries}
    return SchedulerRace(traces, converged, sentences=sentences)

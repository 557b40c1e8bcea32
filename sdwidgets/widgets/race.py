"""The scheduler race: recorded runs of one prompt and one seed, side by side under one slider. Traces only, no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ..latents import colour_map, linear_preview
from ..trace import Trace, first_of
from .progress import progress_line
from .replay import MAX_PICTURE, MAX_PREVIEW, about, badge_parts, finished_latents, pack, webp
from .still_image import table
from .view import View

MAX_LATENTS, MOST = 32 * 32 * 4, 6
#: one that is deterministic, one that adds noise, one that uses earlier predictions
FIELD = ("DDIM", "Euler ancestral", "DPM++ 2M")
BY = ("share", "calls")
SHOWS = ("x0", "xt")


class SchedulerRace(View):
    """Runs of one prompt and seed with different schedulers, side by side.

    traces: label -> Trace, two to six, of one size. reference: a longer run whose last latents count as converged;
    distances are measured to it: the root mean square over the numbers of the predicted x0. None: no distances. sentences:
    label -> a sentence on that scheduler. The first picture of a batch is shown.

    `set(at=0.5)`: how far the runs are, 0 to 1; `by`: "share", each run at that share of its own way, or "calls", each run
    after as many calls of its denoiser as the others; `show`: "x0", its predicted picture, or "xt", its current latents.
    Raises ValueError for traces that are no race, and for a state that there is not.
    """

    script = ("curves.js", "race.js")
    default_state = {"at": 1.0, "by": "share", "show": "x0"}

    def __init__(self, traces: Mapping[str, Trace], reference: Trace | None = None, sentences: Mapping[str, str] | None = None, **state):  # fmt: skip
        self.traces, self.reference = dict(traces), reference
        _check(self.traces, reference)
        first = next(iter(self.traces.values()))
        shared = replace(first.settings, num_inference_steps=None, scheduler=None)
        data = about(shared, first[0].latents.shape[1:], first.preview_factors)
        if reference is not None:
            name = (reference.settings.scheduler or "").removesuffix("Scheduler")
            data["line"] += f" · measured by {name} after {len(reference)} calls"
        self.factors = colour_map(first.preview_factors, first[0].latents.shape[1])
        data["badge"] = " · ".join(badge_parts(shared))
        data["reference"] = None if reference is None else self._picture(reference)
        data["runs"] = [self._run(name, trace, (sentences or {}).get(name, "")) for name, trace in self.traces.items()]
        super().__init__(data, f"A race of schedulers: {', '.join(self.traces)}", **state)

    @classmethod
    def from_pipeline(
        cls,
        pipe,
        prompt: str,
        *,
        schedulers: Sequence[str] = FIELD,
        num_inference_steps: int | Mapping[str, int] = 10,
        seed: int = 0,
        reference: str | None = "DDIM",
        reference_steps: int = 100,
        previews: bool = True,
        **settings,
    ) -> SchedulerRace:
        """Run one prompt and seed with each scheduler and set them side by side.

        schedulers: labels of `sdwidgets.generation.schedulers.SCHEDULERS`. num_inference_steps: for all, or {label: number}. reference: the scheduler
        that goes on for `reference_steps`, towards which distances are measured; None for no distances. previews: each run's
        predicted pictures through the full decoder, not in rough colours. settings: as for the pipeline; without a
        guidance_scale it is the model's usual one.
        Raises ValueError for an unknown scheduler, before anything runs, and for fewer than two.
        """
        from ..analysis.sampling import run_with
        from ..generation.schedulers import find_scheduler
        from ..generation.usual import completed
        from ..generation.validation import check_names
        from ..latents import decode_previews

        check_names("race", settings, cls.from_pipeline, pipe)
        entries = [find_scheduler(label, pipe) for label in schedulers]
        labels = [entry.label for entry in entries]
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"a race wants two or more different schedulers, not {', '.join(labels) or 'none'}")
        far = find_scheduler(reference, pipe).label if reference else None
        counts = num_inference_steps
        if not isinstance(counts, Mapping):
            counts = dict.fromkeys(schedulers, counts)
        if missing := [label for label in schedulers if label not in counts]:
            raise ValueError(
                f"num_inference_steps names no number for {missing[0]!r}; give one number, or one for each scheduler"
            )
        settings = completed(pipe, settings) | {"seed": seed}
        settings.pop("num_inference_steps", None)
        runs = {label: counts[name] for name, label in zip(schedulers, labels, strict=True)}
        with progress_line(sum(runs.values()) + (reference_steps if far else 0)) as advance:
            run = lambda label, steps: run_with(pipe, label, prompt, num_inference_steps=steps, on_step=lambda _: advance(label), **settings)  # fmt: skip
            traces = {label: run(label, steps) for label, steps in runs.items()}
            if previews:
                for trace in traces.values():
                    decode_previews(trace, pipe)
            converged = run(far, reference_steps) if far else None
        sentences = {entry.label: entry.sentence for entry in entries}
        return cls(traces, converged, sentences=sentences)

    @property
    def distances(self) -> dict[str, np.ndarray]:
        """label -> distance to the reference after every call, (calls + 1,): of each predicted x0, then of the finished
        latents. Empty without a reference."""
        if self.reference is None:
            return {}
        end = finished_latents(self.reference)
        distance = lambda latents: float(np.sqrt(np.mean((latents - end) ** 2)))
        return {name: np.array([distance(x0) for x0 in _predictions(trace)]) for name, trace in self.traces.items()}

    def _run(self, label: str, trace: Trace, sentence: str) -> dict:
        frame = lambda t, x0, xt: {"t": float(t), "x0": pack(x0, MAX_LATENTS), "xt": pack(xt, MAX_LATENTS)}
        frames = [frame(step.timestep, step.pred_original[0], step.scaled_latents[0]) for step in trace]
        if trace.previews is not None:
            for entry, preview in zip(frames, trace.previews, strict=True):
                entry["picture"] = webp(preview, MAX_PREVIEW)
        frames.append(frame(0, finished_latents(trace), finished_latents(trace)))
        distances = self.distances.get(label)
        return {
            "label": label,
            "sentence": sentence,
            "frames": frames,
            "distances": None if distances is None else np.round(distances, 5).tolist(),
            "picture": self._picture(trace),
        }

    def _picture(self, trace: Trace) -> bytes | None:
        return None if trace.images is None else webp(trace.images[0], MAX_PICTURE, quality=88)

    def validate_state(self, name: str, value):
        allowed = {"by": BY, "show": SHOWS}.get(name)
        if allowed and value not in allowed:
            raise ValueError(f"{name} is {' or '.join(map(repr, allowed))}, not {str(value)[:40]!r}")
        if name == "at":
            if not 0 <= value <= 1:
                raise ValueError(f"at is a share of the way, 0 to 1, not {value}")
            return float(value)
        return value

    def static_image(self) -> Image.Image:
        """Schedulers down, five moments of each run's own way across: its predicted picture then."""
        shares, side = (0, 0.25, 0.5, 0.75, 1), 112
        rows = {
            label: [self._tile(trace, min(len(trace), math.floor(share * len(trace)))) for share in shares]
            for label, trace in self.traces.items()
        }
        height = max(1, round(side / self.data["aspect"]))
        return table([f"{100 * share:.0f} % of the way" for share in shares], rows, side, height)

    def _tile(self, trace: Trace, call: int) -> np.ndarray:
        """The predicted picture after this call, (H, W, 3) uint8; after the last one the finished picture."""
        if call == len(trace) and trace.images is not None:
            return trace.images[0]
        if call < len(trace) and trace.previews is not None:
            return trace.previews[call]
        return linear_preview(_predictions(trace)[call], self.factors)


race = SchedulerRace.from_pipeline


def _check(traces: dict[str, Trace], reference: Trace | None) -> None:
    if not 2 <= len(traces) <= MOST:
        raise ValueError(f"a race has two to {MOST} runs, not {len(traces)}")
    everything = {**traces, **({} if reference is None else {"the reference": reference})}
    for label, trace in everything.items():
        if not isinstance(trace, Trace) or not len(trace):
            raise ValueError(f"{label!r} has no recorded steps; give a Trace of a run: sdwidgets.record(pipe)")
    shapes = {trace[0].latents.shape[1:] for trace in everything.values()}
    prompts = {(first_of(trace.settings.prompt), first_of(trace.settings.seed)) for trace in everything.values()}
    if len(shapes) > 1 or len(prompts) > 1:
        what = "size" if len(shapes) > 1 else "prompt or seed"
        raise ValueError(f"the runs of a race differ in the scheduler alone, and these differ in {what}")


def _predictions(trace: Trace) -> list[np.ndarray]:
    return [*(step.pred_original[0] for step in trace), finished_latents(trace)]

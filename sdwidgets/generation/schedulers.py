"""The schedulers on offer, each tried on small real pipelines, with a sentence for newcomers.

Left out on purpose: EDM schedulers (garbage on Stable Diffusion), those that need scipy or torchsde (LMS,
DPM-SDE), and flow schedulers whose noise ignores the generator (the same seed would give another picture).
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin


@dataclass(frozen=True)
class Scheduler:
    """One offer. `stochastic`: fresh noise is drawn at every step, from the generator."""

    label: str
    class_name: str  # in diffusers
    sentence: str
    kwargs: dict = field(default_factory=dict)
    stochastic: bool = False
    flow: bool = False  # for flow-matching models (SD 3, FLUX) instead of the others (SD 1, 2, XL, Pocket)
    pipelines: str = ""  # prefix of the pipeline classes it works with; "" for every one (FLUX brings its own sigmas, which Heun does not take)
    calls_per_step: int = 1  # denoiser calls: 2 for second-order methods, whose last step takes only one


#: Label -> its row of schedulers.json. A latent is no pixel: clipping it to [-1, 1] would spoil the picture, so rows switch that off.
SCHEDULERS: dict[str, Scheduler] = {
    row["label"]: Scheduler(**row)
    for row in json.loads(Path(__file__).with_name("schedulers.json").read_text(encoding="utf-8"))
}

# What a scheduler chooses, as against what the model was trained with: it must not leak into the next one.
_CHOICES = (
    "use_karras_sigmas use_exponential_sigmas use_beta_sigmas use_lu_lambdas algorithm_type solver_order "
    "solver_type final_sigmas_type euler_at_final lower_order_final skip_prk_steps thresholding predict_x0 "
    "disable_corrector solver_p interpolation_type variance_type stochastic_sampling"
).split()

# What the model was trained with: never a new scheduler's own default.
_TRAINING = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")


def is_flow(pipe: DiffusionPipeline) -> bool:
    """True for a flow-matching pipeline (SD 3, FLUX), told by its scheduler."""
    config = pipe.scheduler.config
    return (
        type(pipe.scheduler).__name__.startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def schedulers_for(pipe: DiffusionPipeline) -> dict[str, Scheduler]:
    """The entries of SCHEDULERS that suit this pipeline: flow schedulers for flow models, and only there."""
    flow, name = is_flow(pipe), type(pipe).__name__
    return {k: s for k, s in SCHEDULERS.items() if s.flow == flow and name.startswith(s.pipelines)}


def label_of(scheduler: SchedulerMixin, pipe: DiffusionPipeline) -> str | None:
    """The label of SCHEDULERS whose class and choices a scheduler of this pipeline has; None if it is not on offer."""

    def choices(entry: Scheduler) -> dict:
        spaced = {f"use_{kind}_sigmas": False for kind in ("karras", "exponential", "beta")}
        return spaced | {name: value for name, value in entry.kwargs.items() if name in _CHOICES}

    fits = [
        entry
        for entry in schedulers_for(pipe).values()
        if entry.class_name == type(scheduler).__name__
        and all(scheduler.config.get(name, value) == value for name, value in choices(entry).items())
    ]
    return max(fits, key=lambda entry: len(entry.kwargs)).label if fits else None


def find_scheduler(label: str | Scheduler, pipe: DiffusionPipeline) -> Scheduler:
    """The entry for a label, in any case, or a diffusers class name; else ValueError with the closest."""
    offers = schedulers_for(pipe)
    if isinstance(label, Scheduler):
        label = label.label
    if isinstance(label, str):
        wanted = label.strip().lower()
        for entry in offers.values():
            if wanted in (entry.label.lower(), entry.class_name.lower()):
                return entry
        if any(wanted in (s.label.lower(), s.class_name.lower()) for s in SCHEDULERS.values()):
            kind = "flow-matching" if is_flow(pipe) else "noise-predicting"
            raise ValueError(
                f"The scheduler {label!r} does not fit {type(pipe).__name__}, a {kind} model; "
                f"choose one of: {', '.join(offers)}."
            )
    names = {name.lower(): s.label for s in offers.values() for name in (s.class_name, s.label)}
    close = get_close_matches(str(label).strip().lower(), list(names), n=1, cutoff=0.5)
    hint = f" Did you mean {names[close[0]]!r}?" if close else ""
    raise ValueError(f"There is no scheduler {str(label)[:60]!r}.{hint} On offer: {', '.join(offers)}.")


def make_scheduler(label: str | Scheduler, pipe: DiffusionPipeline) -> SchedulerMixin:
    """A new diffusers scheduler for this pipeline: `pipe.scheduler = make_scheduler("Euler", pipe)`.

    The noise schedule and prediction type that the model was trained with are kept (`from_config`); the
    choices of the scheduler before (Karras sigmas, solver order) are not. ValueError for an unknown label.
    """
    import diffusers

    entry = find_scheduler(label, pipe)
    cls = getattr(diffusers, entry.class_name)
    config = {k: v for k, v in pipe.scheduler.config.items() if k not in _CHOICES}
    # from_config puts the new class's defaults where the old one had its own: those betas may differ.
    training = {k: config[k] for k in _TRAINING if k in config}
    takes = inspect.signature(cls.__init__).parameters
    return cls.from_config(config, **{k: v for k, v in {**training, **entry.kwargs}.items() if k in takes})

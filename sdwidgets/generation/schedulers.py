"""The schedulers on offer, each tried on small real pipelines, with a sentence for newcomers.

Left out on purpose: EDM schedulers (garbage on Stable Diffusion), those that need scipy or torchsde (LMS,
DPM-SDE), and flow schedulers whose noise ignores the generator (the same seed would give another picture).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from difflib import get_close_matches
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
    pipelines: str = ""  # prefix of the pipeline classes it works with; "" for every one
    calls_per_step: int = 1  # denoiser calls: 2 for second-order methods, whose last step takes only one


# A latent is no pixel: clipping it to [-1, 1] would spoil the picture.
_UNCLIPPED = {"clip_sample": False, "thresholding": False}
_DPM = {"solver_order": 2, "algorithm_type": "dpmsolver++", "final_sigmas_type": "zero", "lower_order_final": True}

SCHEDULERS: dict[str, Scheduler] = {
    entry.label: entry
    for entry in (
        Scheduler(
            "DDIM",
            "DDIMScheduler",
            "Walks straight down the noise levels; simple and the same every time.",
            _UNCLIPPED,
        ),
        Scheduler(
            "DDPM",
            "DDPMScheduler",
            "The original recipe: fresh noise at every step; wants many steps, 50 and more.",
            _UNCLIPPED,
            stochastic=True,
        ),
        Scheduler(
            "PNDM",
            "PNDMScheduler",
            "The default of Stable Diffusion 1: learns from its last four steps; takes one extra call.",
            {"skip_prk_steps": True},
        ),
        Scheduler("Euler", "EulerDiscreteScheduler", "Follows the slope a step at a time; good from 20 steps."),
        Scheduler(
            "Euler ancestral",
            "EulerAncestralDiscreteScheduler",
            "Euler with fresh noise at every step: lively, and it never settles as steps are added.",
            stochastic=True,
        ),
        Scheduler(
            "Heun",
            "HeunDiscreteScheduler",
            "Looks at the slope twice a step and takes the mean: more exact, twice the work.",
            calls_per_step=2,
        ),
        Scheduler(
            "KDPM2",
            "KDPM2DiscreteScheduler",
            "Looks at the slope half a step ahead: more exact, twice the work.",
            calls_per_step=2,
        ),
        Scheduler(
            "KDPM2 ancestral",
            "KDPM2AncestralDiscreteScheduler",
            "KDPM2 with fresh noise at every step, at twice the work.",
            stochastic=True,
            calls_per_step=2,
        ),
        Scheduler(
            "DPM++ 2M",
            "DPMSolverMultistepScheduler",
            "Uses the step before to bend the path: good from 15 to 25 steps.",
            _DPM,
        ),
        Scheduler(
            "DPM++ 2M Karras",
            "DPMSolverMultistepScheduler",
            "DPM++ 2M with more of its steps spent at low noise, where detail appears.",
            {**_DPM, "use_karras_sigmas": True},
        ),
        Scheduler(
            "DPM++ 2M SDE",
            "DPMSolverMultistepScheduler",
            "DPM++ 2M with fresh noise at every step: rich in detail, never quite the same path.",
            {**_DPM, "algorithm_type": "sde-dpmsolver++"},
            stochastic=True,
        ),
        Scheduler("UniPC", "UniPCMultistepScheduler", "Predicts, then corrects itself: good from 10 steps."),
        Scheduler("DEIS", "DEISMultistepScheduler", "Bends the path by a fitted curve: good from 10 steps."),
        Scheduler(
            "LCM",
            "LCMScheduler",
            "For models distilled to a few steps (turbo, LCM): 1 to 8 steps; blurs on any other model.",
            _UNCLIPPED,
            stochastic=True,
        ),
        Scheduler(
            "Flow Euler",
            "FlowMatchEulerDiscreteScheduler",
            "The straight walk of flow models such as SD 3 and FLUX; the same every time.",
            flow=True,
        ),
        Scheduler(
            "Flow Heun",
            "FlowMatchHeunDiscreteScheduler",
            "The straight walk with a second look at the slope: more exact, twice the work.",
            flow=True,
            pipelines="StableDiffusion3",  # FLUX brings its own sigmas, which it does not take
            calls_per_step=2,
        ),
    )
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

"""What a run was, and every step of it: `Settings`, `Step`, `Trace`. Knows numpy, no torch, no pipeline.

A trace is data. `sdwidgets.record` makes it, one safetensors file keeps it, and plots and widgets read it,
also on a machine that could not have made it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from .latents import apply_guidance, predicted_original
from .paths import replacing
from .trace_file import (
    COMPACT_VERSION,
    FORMAT,
    PER_RUN_ARRAYS,
    PER_STEP_ARRAYS,
    PER_STEP_NUMBERS,
    VERSION,
    DamagedTrace,
    check_arrays,
    check_header,
    expanded,
    in_short,
    refuse_foreign,
)
from .trace_file import compact as to_compact

if TYPE_CHECKING:
    from .widgets.replay import Replay


@dataclass(frozen=True)
class Control:
    """How a person sets a setting. Checks, command line, batches, code export, history, the Playground and files read it, so it stands here once."""

    label: str  # beside its control and in lists: "Steps"
    noun: str  # in a sentence: "number of steps"
    kind: type  # of its value: str, int, float, or list (of numbers)
    low: float = -math.inf  # of a number: what is allowed, both ends included
    high: float = math.inf
    open_low: bool = False  # `low` itself is not allowed
    hint: str = ""  # what a sentence about a wrong value adds
    option: str | None = None  # of the command line: "--steps"; None: it has none
    metavar: str | None = None
    help: str = ""  # one line about the option
    argument: bool = True  # a keyword of a pipeline's call, where it takes that
    page: bool = True  # the Playground has a control for it
    start: Any = None  # what a Playground begins with; None: what is usual for its model


def _set_by(*args, **kwargs):
    return field(default=None, metadata={"control": Control(*args, **kwargs)})


@dataclass(frozen=True)
class Settings:
    """What a run was asked for. Every field is plain JSON, and None where the run did not tell.

    This is the one list of settings: those that a person sets bring their `Control`; `CONTROLS` has them by name.
    """

    prompt: str | list[str] | None = _set_by("Prompt", "prompt", str, start="an astronaut on a blue background")
    negative_prompt: str | list[str] | None = _set_by(
        "Negative prompt", "negative prompt", str,
        option="--negative", metavar="PROMPT", help="what the picture should not show", start="",
    )  # fmt: skip
    #: None too for a generator used before: no seed repeats its picture
    seed: int | list[int] | None = _set_by(
        "Seed", "seed", int, 0, 2**63 - 1,
        option="--seed", help="which noise to start from (default: 0)", argument=False, start=0,
    )  # fmt: skip
    #: as asked; scheduler calls, which a trace counts, can be more
    num_inference_steps: int | None = _set_by(
        "Steps", "number of steps", int, 1, option="--steps", metavar="N", help="inference steps (default: the model's usual)"
    )  # fmt: skip
    guidance_scale: float | None = _set_by(
        "Guidance", "guidance", float, 0, 50, hint="1 is off, 3 to 8 is usual",
        option="--guidance", metavar="X", help="guidance scale (default: the model's usual)",
    )  # fmt: skip
    #: class name, "DDIMScheduler"; a person gives a label of sdwidgets.generation.schedulers.SCHEDULERS
    scheduler: str | None = _set_by(
        "Scheduler", "scheduler", str, option="--scheduler", metavar="NAME",
        help='for example "DDIM" or "DPM++ 2M" (default: the model\'s)', argument=False,
    )  # fmt: skip
    scheduler_label: str | None = None  # its label, with the class's choices: "DPM++ 2M Karras"
    #: "text", "image", "inpaint" or "outpaint": what the run starts from
    task: str | None = _set_by("Task", "task", str, argument=False, start="text")
    #: image to image, inpainting: how much of the path from noise is walked
    strength: float | None = _set_by(
        "Strength", "strength", float, 0, 1, open_low=True, hint="1 keeps nothing of the picture"
    )
    #: outpainting: left, top, right, bottom, in percent of the picture's sides
    border: list[float] | None = _set_by("Border", "border", list, 0, 200, argument=False, start=(25, 25, 25, 25))
    height: int | None = _set_by(
        "Height", "height", int, option="--height", metavar="PIXELS", help="(default: the model's own)", page=False
    )
    width: int | None = _set_by(
        "Width", "width", int, option="--width", metavar="PIXELS", help="(default: the model's own)", page=False
    )
    model: str | None = None  # hub id or folder name
    pipeline: str | None = None  # class name
    device: str | None = None
    dtype: str | None = None  # "float32"
    prediction_type: str | None = None  # "epsilon", "v_prediction", "sample" or "flow_prediction"
    versions: dict = field(default_factory=dict)  # package name -> version

    def __post_init__(self):
        for name, value in vars(self).items():
            object.__setattr__(self, name, plain(value))

    def completed(self, requested: Mapping[str, Any]) -> Settings:
        """The same, but what is None as it was requested: recording does not see every argument of a pipeline's call."""
        arguments = (name for name, control in CONTROLS.items() if control.argument)
        unseen: dict[str, Any] = {name: requested.get(name) for name in arguments if getattr(self, name) is None}
        return replace(self, **unseen)

    def check(self) -> None:
        """Raises ValueError for a value that is not of its field's kind, is beyond what any run has, or is no text of Unicode."""
        for name, value in vars(self).items():
            control = CONTROLS.get(name)
            if name == "versions":
                good = isinstance(value, dict) and all(isinstance(v, str) and _is_text(v) for v in value.values())
            else:
                kind = control.kind if control else str
                several = isinstance(value, list) and (kind is list or name in ("prompt", "negative_prompt", "seed"))
                kinds = (int, float) if kind in (float, list) else (kind,)
                good = all(_fits(item, kinds) for item in (value if several else [value]))
            if not good:
                raise ValueError(f"its {name} is {str(value)[:40]!a}")


MOST = 2**64  # that any number of a run's settings may be


def _fits(value, kinds: tuple) -> bool:
    if isinstance(value, str):
        return str in kinds and _is_text(value)
    number = isinstance(value, kinds) and not isinstance(value, bool) and abs(value) <= MOST  # not so for NaN
    return value is None or number


def _is_text(value: str) -> bool:
    """Whether it can be written: half a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


#: Setting -> its control, for all that a person sets.
CONTROLS: dict[str, Control] = {f.name: f.metadata["control"] for f in fields(Settings) if "control" in f.metadata}


@dataclass(frozen=True, eq=False)
class Step:
    """One call of `scheduler.step`. Arrays are float32 of shape (batch, channels, h, w).

    `process` says how x_t was mixed from the picture x0 and the noise n (Song et al., arXiv 2011.13456):
    "vp", variance preserving: alpha x0 + sqrt(1 - alpha^2) n; "ve", variance exploding: x0 + sigma n;
    "flow", rectified flow: (1 - sigma) x0 + sigma n.
    """

    index: int  # which call of the run, from 0
    timestep: float  # how noisy, from about 999 (noise) down to 0 (picture)
    sigma: float  # noise over signal, sqrt(1/abar - 1); for "flow" the flow time, 1 (noise) to 0 (picture)
    alpha: float  # share of signal, sqrt(abar) = 1 / sqrt(1 + sigma^2); for "flow" 1 - sigma
    latents: np.ndarray  # x_t as the scheduler got it
    noise_pred: np.ndarray  # the prediction as the scheduler got it: already guided
    noise_pred_uncond: np.ndarray | None  # its two halves, where the pipeline computed two
    noise_pred_cond: np.ndarray | None
    pred_original: np.ndarray  # predicted x0: the clean latents that the prediction amounts to
    seconds: float  # since the step before ended; for the first, since the run was prepared
    process: str = "vp"
    pipeline_step: int = -1  # which of `num_inference_steps` this call serves, from 0; -1 where not known

    @property
    def scaled_latents(self) -> np.ndarray:
        """x_t with variance about one, for pictures and plots: "ve" samples divided by sqrt(1 + sigma^2)."""
        return self.latents * np.float32(self.alpha) if self.process == "ve" else self.latents

    def half_original(self, half: str, prediction_type: str) -> np.ndarray:
        """Predicted x0, (batch, channels, h, w), of the "uncond" or "cond" half of the prediction alone."""
        output = getattr(self, f"noise_pred_{half}")
        return predicted_original(self.latents, output, self.alpha, self.sigma, prediction_type, self.process)

    @property
    def picture_share(self) -> float:
        """The picture's share of the variance of x_t, 0 to 1: signal^2 / (signal^2 + noise^2); abar for "vp" and "ve"."""
        return self.alpha**2 / (self.alpha**2 + self.sigma**2) if self.process == "flow" else self.alpha**2

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio in decibels, 20 log10(signal / noise); infinite where there is no noise or no signal."""
        signal, noise = (self.alpha, self.sigma) if self.process == "flow" else (1.0, self.sigma)
        if signal <= 0 or math.isinf(noise):
            return -math.inf
        return 20 * math.log10(signal / noise) if noise > 0 else math.inf


def plain(value):
    """A number of numpy's as Python's own, also in a list; anything else itself."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def first_of(value):
    """The first of a list or tuple, None of an empty one; anything else itself: settings hold one value, or one for each picture."""
    return (value[0] if value else None) if isinstance(value, (list, tuple)) else value


def _stacked(name: str, doc: str) -> property:
    def get(self: Trace) -> np.ndarray:
        return np.stack([getattr(step, name) for step in self.steps]) if self.steps else np.zeros(0, "f4")

    return property(get, doc=doc)


@dataclass(eq=False, repr=False)
class Trace:
    """A run as data: its settings, one `Step` for every scheduler call, and what came out.

    `len(trace)`, `trace[i]` and `for step in trace` reach the steps. An interrupted run keeps its steps so
    far and has `complete=False`.
    """

    settings: Settings = field(default_factory=Settings)
    steps: tuple[Step, ...] = ()
    final_latents: np.ndarray | None = None  # (batch, channels, h, w) before the VAE's scaling
    images: np.ndarray | None = None  # (batch, H, W, 3) uint8: the pipeline's picture
    previews: np.ndarray | None = None  # (step, H, W, 3) uint8, see latents.decode_previews
    preview_factors: np.ndarray | None = None  # (channels + 1, 3), see latents.linear_preview
    complete: bool = True
    source: np.ndarray | None = None  # (H, W, 3) uint8: the picture that the run started from, as the pipeline read it
    mask: np.ndarray | None = None  # (H, W) uint8: 255 where an inpainting run painted anew

    latents = _stacked("latents", "x_t: (step, batch, channels, h, w) float32")
    scaled_latents = _stacked("scaled_latents", "x_t of variance one: (step, batch, channels, h, w) float32")
    noise_pred = _stacked("noise_pred", "guided prediction: (step, batch, channels, h, w) float32")
    pred_original = _stacked("pred_original", "predicted x0: (step, batch, channels, h, w) float32")
    timesteps = _stacked("timestep", "(step,)")
    sigmas = _stacked("sigma", "(step,)")
    alphas = _stacked("alpha", "(step,)")
    snr_db = _stacked("snr_db", "(step,) decibels")
    picture_share = _stacked("picture_share", "(step,) 0 to 1, of the variance of x_t")
    seconds = _stacked("seconds", "(step,)")

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Step:
        return self.steps[index]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = [getattr(step, name) for step in self for name in PER_STEP_ARRAYS]
        arrays += [getattr(self, name) for name in PER_RUN_ARRAYS]
        return sum(array.nbytes for array in arrays if array is not None)

    def __repr__(self) -> str:
        s = self.settings
        parts = [f"{s.prompt[:60]!r}"] if isinstance(s.prompt, str) else []
        parts += [f"{len(self)} steps", *([s.scheduler] if s.scheduler else [])]
        parts += [f"{s.width}x{s.height}"] * bool(s.width and s.height)
        parts += ["interrupted"] * (not self.complete)
        return f"Trace({', '.join(parts)})"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """What a notebook shows: the replay, a PNG contact sheet where scripts are not trusted, and words."""
        from .widgets.replay import Replay

        text = {"text/plain": repr(self)}
        return {**Replay(self)._repr_mimebundle_(), **text} if self.steps else text

    def widget(self, **state) -> Replay:
        """The replay as a widget joined to the kernel: `widget.set(step=3, playing=True)` moves it, `widget.state` tells
        what the reader chose. `state` as in `sdwidgets.Replay`."""
        from .widgets.replay import Replay

        return Replay(self, **state).widget()

    def export_html(self, path: str | os.PathLike) -> Path:
        """Write one HTML file that replays the run in any browser, offline, and return its path."""
        from .widgets.replay import Replay

        return Replay(self).export_html(path)

    def save(self, path: str | os.PathLike, *, compact: bool = False) -> Path:
        """Write everything to one safetensors file and return its path.

        compact: a file of a fraction of the size, to show a run rather than to continue it: arrays in half precision
        (three digits), what follows from the others left out (predicted x0, and the guided prediction where it is the
        line through its halves), previews as lossy WebP. The pictures stay as they are.

        The file appears whole or not at all: on a full disk OSError is raised, and an older file stays.
        """
        path = Path(path)
        tensors = {name: value for name in PER_RUN_ARRAYS if (value := getattr(self, name)) is not None}
        for name in PER_STEP_NUMBERS:
            tensors[f"steps.{name}"] = np.array([getattr(step, name) for step in self.steps], np.float64)
        for name in PER_STEP_ARRAYS:
            # Guidance may last for a part of the run only, so every array carries the numbers of its steps.
            have = [i for i, step in enumerate(self.steps) if getattr(step, name) is not None]
            have = [i for i in have if not (compact and self._follows(name, self.steps[i]))]
            if have:
                tensors[f"steps.{name}"] = np.stack([getattr(self.steps[i], name) for i in have])
                tensors[f"steps.{name}.index"] = np.array(have, np.int64)
        if compact:
            tensors = {name: to_compact(name, value) for name, value in tensors.items()}
        header = {
            "format": FORMAT,
            "version": COMPACT_VERSION if compact else VERSION,
            "complete": json.dumps(self.complete),
            "process": json.dumps([step.process for step in self.steps]),
            "settings": json.dumps(asdict(self.settings)),
        }
        tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        data = to_safetensors(tensors, header)
        with replacing(path, f"the trace of {len(data) / 1e6:.1f} MB") as part:
            part.write_bytes(data)
        return path

    def _follows(self, name: str, step: Step) -> bool:
        """Would this array come back from the step's others, once those were rounded to half precision?"""
        rounded = {one: _rounded(getattr(step, one)) for one in PER_STEP_ARRAYS}
        derived = _derived(name, self.settings, **{**step.__dict__, **rounded})
        return derived is not None and np.allclose(derived, getattr(step, name), rtol=2e-3, atol=0.02)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Trace:
        """Read a trace that `save` wrote. Nothing in the file is ever run.

        Raises FileNotFoundError where there is no file; ValueError where it is cut, no trace, or a pickle.
        """
        path = Path(path)
        refuse_foreign(path)
        again = "fetch it again, or record the run again and write it with trace.save(path)"
        try:
            with safe_open(path, framework="np") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} is cut short or not safetensors ({in_short(error)}); {again}") from error
        if header.get("format") != FORMAT:
            raise ValueError(
                f"{str(path)!r} is a safetensors file without a trace in it, perhaps a model's weights; give"
                " a file that trace.save(path) wrote"
            )
        if header.get("version") not in (VERSION, COMPACT_VERSION):
            raise ValueError(
                f"{str(path)!r} is a trace of version {str(header.get('version'))[:20]!r} and this sdwidgets reads"
                f" versions {VERSION!r} and {COMPACT_VERSION!r}; install the newest sdwidgets, or record the run again"
            )
        try:
            return cls._from_tensors(header, tensors)
        except Exception as error:  # whatever a stranger's bytes bring about is one thing to the reader: damage
            reason = in_short(error if type(error) is ValueError else repr(error))
            raise DamagedTrace(f"the trace in {str(path)!r} is damaged ({reason}); {again}", reason) from error

    @classmethod
    def _from_tensors(cls, header: dict[str, str], tensors: dict[str, np.ndarray]) -> Trace:
        check_header(header, tensors)
        if header["version"] == COMPACT_VERSION:
            tensors = {name: expanded(name, value) for name, value in tensors.items()}
        known = {f.name for f in fields(Settings)}
        settings = Settings(**{k: v for k, v in json.loads(header["settings"]).items() if k in known})
        steps: list[dict[str, Any]] = [
            {"index": i, "process": str(p)} for i, p in enumerate(json.loads(header["process"]))
        ]
        for name in PER_STEP_NUMBERS:
            for step, value in zip(steps, tensors[f"steps.{name}"].tolist(), strict=True):
                step[name] = int(value) if name == "pipeline_step" else value
        for name in PER_STEP_ARRAYS:
            for step in steps:
                step[name] = None
            index = tensors.get(f"steps.{name}.index", ())
            for i, value in zip(index, tensors.get(f"steps.{name}", ()), strict=True):
                steps[i][name] = value
        for step in steps:
            for name in ("noise_pred", "pred_original"):  # in this order: the second follows from the first
                if step[name] is None:
                    step[name] = _derived(name, settings, **step)
            if any(step[name] is None for name in ("latents", "noise_pred", "pred_original")):
                raise ValueError(f"step {step['index']} lacks its arrays")
        run: dict[str, Any] = {name: tensors.get(name) for name in PER_RUN_ARRAYS}
        made = tuple(Step(**step) for step in steps)
        check_arrays(made, run)
        settings.check()
        return cls(settings, made, **run, complete=json.loads(header["complete"]) is True)


def _derived(name: str, settings: Settings, **step) -> np.ndarray | None:
    """An array of a step from the step's other fields; None where it does not follow from them."""
    if name == "noise_pred":
        uncond, cond, scale = step["noise_pred_uncond"], step["noise_pred_cond"], settings.guidance_scale
        if uncond is None or cond is None or scale is None:
            return None
        return apply_guidance(uncond, cond, np.float32(scale))
    if name == "pred_original" and step["noise_pred"] is not None and settings.prediction_type is not None:
        known = step["latents"], step["noise_pred"], step["alpha"], step["sigma"]
        return predicted_original(*known, settings.prediction_type, step["process"]).astype(np.float32)
    return None


def _rounded(array: np.ndarray | None) -> np.ndarray | None:
    """To half precision and back."""
    return None if array is None else array.astype(np.float16).astype(np.float32)

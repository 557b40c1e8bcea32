"""A trace as a view, `Replay`: every step of a run under a scrubber; and as a PNG contact sheet where no script runs.

`describe` turns a trace into plain data; what draws it is `replay.js`, the same script as in the live Playground.
Latents travel as signed bytes and become colours in the browser, so a run of 25 steps stays small.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, ImageOps

from .. import trace_io
from ..latents import colour_map, linear_preview
from ..trace import first_of
from ..trace_file import encoded
from .still_image import captioned
from .view import View

ARRAYS = {  # what the row of channels can show -> the attribute of a Step
    "latents": "scaled_latents",
    "noise_pred": "noise_pred",
    "cond": "noise_pred_cond",
    "uncond": "noise_pred_uncond",
}
MAX_LATENTS, MAX_PREDICTION = (64 * 64 * 4, 32 * 32 * 4)  # numbers a step; larger arrays are thinned for showing
MAX_PREVIEW, MAX_PICTURE = 320, 768  # pixels of the longer side
STEPS_A_SECOND = 5  # at speed 1
SPEEDS = {0.5: "½×", 1: "1×", 2: "2×", 4: "4×", 6: "30/s", 12: "60/s"}  # and how the page calls them


def describe(trace) -> dict:
    """Everything the page needs: dicts, lists, numbers, text, and bytes for pictures and packed arrays.

    Shows the first picture of a batch. `frames` has one entry a step, and one for the finished picture if there is one.
    """
    settings, steps = trace.settings, trace.steps
    shape = steps[0].latents.shape[1:] if steps else (4, 8, 8)
    frames = [frame(step) for step in steps]
    for i, entry in enumerate(frames):
        if trace.previews is not None and i < len(trace.previews):
            entry["picture"] = webp(trace.previews[i], MAX_PREVIEW)
            del entry["arrays"]["x0"]
    if trace.complete and steps:
        frames.append(last_frame(trace))
    finite = all(np.isfinite(step.latents).all() and np.isfinite(step.noise_pred).all() for step in steps)
    planned = settings.num_inference_steps
    planned = planned if not trace.complete and planned and planned >= len(steps) else None
    notes = [] if finite else ["Some numbers of this run are not finite (NaN or infinity); they are drawn as zero."]
    if not trace.complete:
        of = f" of {planned}" if planned else ""
        notes.append(f"This run was stopped after step {len(steps)}{of}.")
    return {
        **about(settings, shape, trace.preview_factors),
        "total": len(steps),
        "planned": planned,
        "complete": trace.complete,
        "limits": {name: _limit(trace, name) for name in (*ARRAYS, "difference")},
        "badge": " · ".join([*badge_parts(settings), f"{sum(step.seconds for step in steps):.1f} s"]),
        "note": " ".join(notes) or None,
        "frames": frames,
    }


def about(settings, shape, factors=None) -> dict:
    """What holds for every step: text for the heading, the shape of the latents, and the map to rough colours."""
    channels, height, width = (int(n) for n in shape)
    facts = {
        "seed {}": first_of(settings.seed),
        "{} steps": settings.num_inference_steps,
        "guidance {:g}": settings.guidance_scale,
        "{}": settings.scheduler and settings.scheduler.removesuffix("Scheduler"),
    }
    pixels = (settings.width, settings.height) if settings.width and settings.height else (width, height)
    return {
        "prompt": first_of(settings.prompt) or "",
        "negative_prompt": first_of(settings.negative_prompt) or "",
        "line": joined(facts),
        "prediction": settings.prediction_type,
        "shape": [channels, height, width],
        "aspect": pixels[0] / pixels[1],
        "factors": np.round(colour_map(factors, channels).astype(float), 4).tolist(),
        "grey": factors is None,
    }


def rough_picture(trace, i: int) -> np.ndarray:
    """The linear preview of predicted x0 at step i, (h, w, 3) uint8."""
    latents = trace[i].pred_original[0]
    return linear_preview(latents, colour_map(trace.preview_factors, len(latents)))


def finished_picture(trace) -> np.ndarray:
    """The picture that came out, (H, W, 3) uint8; its rough colours where none was decoded."""
    return trace.images[0] if trace.images is not None else rough_picture(trace, len(trace) - 1)


def finished_latents(trace) -> np.ndarray:
    """The last latents of a run's first picture, (channels, h, w): what the decoder got."""
    return (trace.final_latents if trace.final_latents is not None else trace[-1].pred_original)[0]


def joined(facts: dict) -> str:
    """{"{} steps": 20, "seed {}": None} -> "20 steps": what is known, in one line."""
    return " · ".join(form.format(value) for form, value in facts.items() if value is not None)


def frame(step) -> dict:
    """One step as the page reads it, with packed arrays of the first picture of the batch."""
    arrays = {"x0": pack(step.pred_original[0], MAX_LATENTS)}
    for name, attribute in ARRAYS.items():
        if (array := getattr(step, attribute)) is not None:
            arrays[name] = pack(array[0], MAX_LATENTS if name == "latents" else MAX_PREDICTION)
    return {"t": float(step.timestep), "share": float(step.picture_share), "arrays": arrays}


def last_frame(trace) -> dict:
    """The frame after the last step: the latents that the decoder got, and the picture itself."""
    entry = {"t": 0.0, "share": 1.0, "arrays": {"latents": pack(finished_latents(trace), MAX_LATENTS)}}
    if trace.images is not None:
        entry["picture"] = webp(trace.images[0], MAX_PICTURE, quality=90)
    return entry


def pack(array: np.ndarray, at_most: int) -> dict:
    """(channels, h, w) floats as signed bytes in units of `scale`, thinned evenly to at most `at_most` numbers."""
    stride = max(1, math.ceil(math.sqrt(array.size / at_most)))
    array = np.nan_to_num(array[:, ::stride, ::stride], nan=0.0, posinf=0.0, neginf=0.0)
    scale = float(np.abs(array).max()) / 127 or 1.0
    return {"shape": list(array.shape), "scale": scale, "data": np.round(array / scale).astype(np.int8).tobytes()}


def webp(image: np.ndarray, longest: int, quality: int = 80, method: int = 4) -> bytes:
    """(H, W, 3) uint8 as WebP, made smaller if its longer side has more than `longest` pixels. method: 0 (quick) to 6 (small)."""
    picture = Image.fromarray(image)
    picture.thumbnail((longest, longest))
    return encoded(picture, "WEBP", quality=quality, method=method)


def badge_parts(settings) -> list[str]:
    """What made the picture: model, device, number type."""
    model = Path(settings.model).name if settings.model else settings.pipeline
    device = (settings.device or "").split(":")[0]
    device = {"cpu": "CPU", "cuda": "NVIDIA GPU", "mps": "Apple GPU"}.get(device, device)
    return [part for part in (model, device, settings.dtype) if part]


def _limit(trace, name: str) -> float:
    """The end of a symmetric colour scale for the whole run: 99.5% of its numbers lie within, rounded up."""
    if name == "difference":
        pairs = [(s.noise_pred_cond, s.noise_pred_uncond) for s in trace.steps]
        values = [a[0] - b[0] for a, b in pairs if a is not None and b is not None]
    else:
        values = [a[0] for s in trace.steps if (a := getattr(s, ARRAYS[name])) is not None]
    sizes = np.abs(np.concatenate([v.ravel() for v in values])) if values else np.ones(1)
    sizes = sizes[np.isfinite(sizes)]
    top = float(np.quantile(sizes, 0.995)) if sizes.size else 1.0
    power = 10.0 ** math.floor(math.log10(max(top, 1e-6)))
    return float(next(round(n * power, 8) for n in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if n * power >= top * 0.999))


class Replay(View):
    """Every step of a recorded run under a scrubber: the predicted picture (x0) large, the current latents (x_t) beside it,
    the schedule, and the channels that it computes on.

    trace: a `Trace` of at least one step, or ValueError. What can be set:

    - step: which of the run's steps is shown, counted as in `trace[step]`, from the end if negative; `len(trace)`, or None,
      is the finished picture.
    - view: what the row of channels shows: "latents", "noise_pred", and of a guided run "cond", "uncond", "difference".
    - large: what the large picture shows: "prediction", or "latents", which are mostly noise at first.
    - playing: whether it walks on by itself; where the reader's system asks for less motion it waits for a click.
    - speed: one of SPEEDS, times five steps a second; 6 is 30 steps a second, without a word to the kernel.
    - loop: whether a play begins again at its end.
    - ahead: whether the strip shows steps that come after the furthest that was shown; False for a guess.
    """

    script = ("replay.js",)
    constants: ClassVar = {"SPEEDS": list(SPEEDS.items()), "STEPS_A_SECOND": STEPS_A_SECOND}
    default_state: ClassVar = {
        "step": None,
        "view": "latents",
        "large": "prediction",
        "playing": False,
        "speed": 1,
        "loop": False,
        "ahead": True,
    }

    def __init__(self, trace, **state):
        if not trace.steps:
            raise ValueError("the trace has no steps to show; record a run first")
        self.trace = trace
        super().__init__(describe(trace), f"Steps of the run {first_of(trace.settings.prompt) or ''}", **state)

    def validate_state(self, name: str, value):
        if name == "step" and value is not None:
            last = len(self.data["frames"]) - 1
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not -last - 1 <= value <= last:
                raise ValueError(
                    f"step {value!r} is not in this run; give a whole number from 0 to {last}, or None for its end"
                )
            return int(value) % (last + 1)
        if name == "view" and value not in self.views:
            raise ValueError(f"this run has no {value!r} to show; it has: {', '.join(self.views)}")
        if name == "large" and value not in ("prediction", "latents"):
            raise ValueError(f"large is 'prediction' or 'latents', not {value!r}")
        if name == "speed" and value not in tuple(SPEEDS):
            raise ValueError(f"speed {value!r} is not on offer; choose one of: {', '.join(f'{s:g}' for s in SPEEDS)}")
        if name in ("playing", "loop", "ahead") and not isinstance(value, bool):
            raise ValueError(f"{name} is True or False, not {value!r}")
        return value

    def extra_html(self) -> str:
        return trace_io.to_html(self.trace)

    @property
    def views(self) -> tuple[str, ...]:
        """What the row of channels can show of this run."""
        names = set().union(*(frame["arrays"] for frame in self.data["frames"]))
        names |= {"difference"} if {"cond", "uncond"} <= names else set()
        return tuple(name for name in (*ARRAYS, "difference") if name in names)

    def static_image(self) -> Image.Image:
        if self.state["ahead"]:
            return contact_sheet(self.trace)
        step = len(self.trace) if self.state["step"] is None else self.state["step"]
        return contact_sheet(self.trace, only=[min(step, len(self.trace) - 1)])


def contact_sheet(
    trace, columns: int = 6, rows: int = 2, side: int = 128, only: list[int] | None = None
) -> Image.Image:
    """Up to columns x rows steps, evenly chosen, or `only` these, each the predicted picture with its step's number and time."""
    if not len(trace):
        return Image.new("RGB", (side, side), "white")
    chosen = only or np.unique(np.linspace(0, len(trace) - 1, columns * rows).round().astype(int))
    square = lambda picture: np.asarray(ImageOps.fit(Image.fromarray(picture), (side, side)))
    tiles = [(square(_picture(trace, i)), f"step {i + 1}, t = {trace[i].timestep:.0f}") for i in chosen]
    return captioned([tiles[i : i + columns] for i in range(0, len(tiles), columns)], side)


def _picture(trace, i: int) -> np.ndarray:
    """Predicted x0 at step i, (H, W, 3) uint8: the decoded preview, the picture itself at the end, or rough colours."""
    if trace.previews is not None and i < len(trace.previews):
        return trace.previews[i]
    if trace.complete and trace.images is not None and i == len(trace) - 1:
        return trace.images[0]
    return rough_picture(trace, i)

"""The guidance explorer: one prompt and one seed at several guidance scales, both predictions and the guided one at every step.

Numpy and Pillow only. The pictures and arrows are drawn by guidance_explorer.js.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ..trace import first_of
from .progress import progress_line
from .replay import MAX_LATENTS, about, badge_parts, finished_picture, pack, webp
from .still_image import captioned
from .view import View

NAMES = ("uncond", "cond", "guided")
MAX_PREDICTED, MAX_PICTURE = 192, 512  # pixels of the longer side


class GuidanceExplorer(View):
    """Runs of one prompt and one seed that differ in their guidance scale, side by side.

    traces: complete runs with a `guidance_scale` in their settings, each scale once; shown in rising order. The first picture of
        a batch counts. A run that recorded no halves, as at scale 1 and below, shows its one prediction and a warning.
    pictures: for each trace None, or what its predictions amount to as pictures, "uncond", "cond" and "guided" -> (step, H, W, 3)
        uint8, as `sdwidgets.analysis.guidance.decode_predictions` decodes them; without them the linear preview stands in.

    State: `scale`, one of the scales, and `step`, from 0. `sdwidgets.guidance(pipe, prompt)` makes the traces.
    Raises ValueError where the traces do not belong together.
    """

    script = ("guidance_explorer.js",)
    default_state = {"scale": None, "step": 0}

    def __init__(self, traces: Sequence, pictures: Sequence[Mapping | None] | None = None, **state):
        traces = list(traces)
        pictures = [None] * len(traces) if pictures is None else list(pictures)
        _belong_together(traces, pictures)
        pairs = sorted(zip(traces, pictures, strict=True), key=lambda pair: pair[0].settings.guidance_scale)
        self.traces = tuple(trace for trace, _ in pairs)
        self.scales = tuple(float(trace.settings.guidance_scale) for trace in self.traces)
        title = f"Guidance: {_prompt(self.traces[0])}"
        shown = {
            "scale": self.scales[min(len(self.scales) - 1, len(self.scales) // 2)],
            "step": len(self.traces[0]) // 3,
        }
        super().__init__(describe(self.traces, [decoded for _, decoded in pairs]), title, **(shown | state))

    @classmethod
    def from_pipeline(
        cls,
        pipe,
        prompt: str,
        scales: Sequence[float] = (1, 2, 4, 8),
        *,
        seed: int = 0,
        num_inference_steps: int | None = None,
        decode: bool = True,
        **settings,
    ) -> GuidanceExplorer:
        """Make one picture at several guidance scales, from the same noise, and show the runs in the guidance explorer.

        pipe: a diffusers pipeline of a model that takes `guidance_scale` at run time.
        scales: each once, in any order. At 1 and below a pipeline makes one prediction only, and the view says so.
        decode: send each step's three predicted pictures through the VAE; without it they are drawn by the linear preview.
        num_inference_steps: None is the model's usual number. settings: passed on to the pipeline, e.g. negative_prompt, height and width.

        Raises ValueError for no scale, one that is there twice, or one that is no finite number.
        """
        from ..analysis.guidance import decode_predictions
        from ..analysis.sampling import run_with
        from ..generation.usual import completed
        from ..generation.validation import check_names

        check_names("guidance", settings, cls.from_pipeline, pipe, without=("guidance_scale",))
        settings = completed(pipe, {"num_inference_steps": num_inference_steps, "seed": seed, **settings})
        scales = [float(scale) for scale in scales]
        if not scales or len(set(scales)) < len(scales) or not np.isfinite(scales).all():
            raise ValueError(
                f"scales are finite numbers, at least one and each once, as in (1, 2, 4, 8), not {scales}"
            )
        traces, pictures = [], []
        with progress_line(len(scales) * settings["num_inference_steps"]) as advance:
            for scale in sorted(scales):
                on_step = lambda _, scale=scale: advance(f"guidance {scale:g}")
                traces.append(run_with(pipe, None, prompt, on_step=on_step, **settings | {"guidance_scale": scale}))
                pictures.append(decode_predictions(pipe, traces[-1]) if decode else None)
        return cls(traces, pictures)

    def validate_state(self, name: str, value):
        if name == "scale":
            if value not in self.scales:
                scales = ", ".join(f"{scale:g}" for scale in self.scales)
                raise ValueError(f"no run was recorded at guidance {value!r}; there are: {scales}")
            return float(value)
        steps = len(self.traces[0])
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < steps:
            raise ValueError(f"a step is a whole number from 0 to {steps - 1}, not {value!r}")
        return int(value)

    def static_image(self) -> Image.Image:
        """The finished pictures in a row, each above its scale."""
        pairs = zip(self.traces, self.scales, strict=True)
        return captioned([[(finished_picture(trace), f"guidance {scale:g}") for trace, scale in pairs]], 160)


guidance = GuidanceExplorer.from_pipeline


def describe(traces: Sequence, pictures: Sequence[Mapping | None]) -> dict:
    """What the page needs: text, and for every scale its finished picture and every step's pictures and arrows."""
    first = traces[0]
    shared = replace(first.settings, guidance_scale=None, num_inference_steps=len(first))
    facts = about(shared, first[0].latents.shape[1:], first.preview_factors)
    return {
        **facts,
        "negative": bool(facts["negative_prompt"]),
        "badge": " · ".join(badge_parts(shared)),
        "runs": [_run(trace, decoded) for trace, decoded in zip(traces, pictures, strict=True)],
    }


def plane(uncond: np.ndarray, cond: np.ndarray, guided: np.ndarray) -> dict:
    """Three predictions of one shape as points of the plane through the first two and the origin; the third lies in it.

    Axes: the first along `uncond`, the second at a right angle to it, towards `cond`. Units: root mean square, so that noise of
    variance one is 1 long. -> {"uncond": [x, 0], "cond": [x, y], "guided": [x, y], "angle": degrees between the first two,
    "outside": length of what of `guided` does not lie in the plane, zero but for rounding and `guidance_rescale`}.
    Where both point the same way there is no plane, and every y is zero.
    """
    u, c, g = (np.asarray(a, np.float64).ravel() / math.sqrt(np.size(a)) for a in (uncond, cond, guided))
    length = np.linalg.norm(u)
    along = u / length if length else np.zeros_like(u)
    across = c - (c @ along) * along
    across = across / np.linalg.norm(across) if np.linalg.norm(across) > 1e-9 * np.linalg.norm(c) else np.zeros_like(u)
    points = {name: [float(a @ along), float(a @ across)] for name, a in zip(NAMES, (u, c, g), strict=True)}
    rest = g - points["guided"][0] * along - points["guided"][1] * across
    angle = math.degrees(math.atan2(points["cond"][1], points["cond"][0]))
    return points | {"angle": angle, "outside": float(np.linalg.norm(rest))}


def _run(trace, pictures: Mapping | None) -> dict:
    steps = [_step(trace, i, pictures) for i in range(len(trace))]
    lacking = sum("plane" not in step for step in steps)
    scale = trace.settings.guidance_scale
    note = None
    if lacking == len(steps):
        note = (
            f"At guidance {scale:g} this run called the network once a step, so there is one prediction, and no plane to draw."
            + (" A pipeline takes the prompt's prediction as it is at 1 and below." if scale <= 1 else "")
        )
    elif lacking:
        note = f"{lacking} of {len(steps)} steps of this run called the network once: guidance was off there."
    return {
        "scale": float(scale),
        "note": note,
        "finished": webp(finished_picture(trace), MAX_PICTURE, 85),
        "steps": steps,
    }


def _step(trace, i: int, pictures: Mapping | None) -> dict:
    step, kind = trace[i], str(trace.settings.prediction_type)
    x0 = {"guided": step.pred_original}
    entry: dict[str, Any] = {"t": float(step.timestep)}
    if step.noise_pred_uncond is not None and step.noise_pred_cond is not None:
        halves = [np.nan_to_num(half[0]) for half in (step.noise_pred_uncond, step.noise_pred_cond, step.noise_pred)]
        drawn = plane(*halves)
        entry["plane"] = {name: np.round(drawn[name], 4).tolist() for name in (*NAMES, "angle", "outside")}
        x0 |= {name: step.half_original(name, kind) for name in ("uncond", "cond")}
    else:
        entry["length"] = round(float(np.sqrt(np.mean(np.nan_to_num(step.noise_pred[0]).astype(np.float64) ** 2))), 4)
    for name, latent in x0.items():
        decoded = (pictures or {}).get(name)
        quality = 75 if name == "guided" else 60  # the halves are shown small
        entry[name] = pack(latent[0], MAX_LATENTS) if decoded is None else webp(decoded[i], MAX_PREDICTED, quality)
    return entry


def _prompt(trace) -> str:
    return str(first_of(trace.settings.prompt) or "")


def _belong_together(traces: list, pictures: list) -> None:
    if not traces:
        raise ValueError("there is no trace to show; sdwidgets.guidance(pipe, prompt) records some")
    if len(pictures) != len(traces):
        raise ValueError(f"{len(pictures)} entries of pictures for {len(traces)} traces; give one a trace, or None")
    for trace in traces:
        if not len(trace) or trace.settings.guidance_scale is None:
            raise ValueError(
                f"{trace!r} has no steps, or no guidance scale in its settings; record it with guidance_scale=..."
            )
    what = {
        "prompt": [_prompt(trace) for trace in traces],
        "seed": [trace.settings.seed for trace in traces],
        "number of steps": [len(trace) for trace in traces],
        "latents' shape": [trace[0].latents.shape[1:] for trace in traces],
    }
    for name, values in what.items():
        if others := [value for value in values if value != values[0]]:
            pair = f"{values[0]!r} and {others[0]!r}"
            raise ValueError(f"the runs differ in their {name}, {pair}; only the guidance scale may differ")
    scales = [trace.settings.guidance_scale for trace in traces]
    if twice := [scale for scale in scales if scales.count(scale) > 1]:
        raise ValueError(f"two runs have guidance {twice[0]:g}; give each scale once")
    for trace, decoded in zip(traces, pictures, strict=True):
        for name, shown in (decoded or {}).items():
            if name not in NAMES or np.shape(shown)[:1] != (len(trace),) or np.shape(shown)[3:] != (3,):
                raise ValueError(
                    f"pictures[{name!r}] of shape {np.shape(shown)} does not fit: names are {', '.join(NAMES)}, and each is"
                    f" (step, H, W, 3) with {len(trace)} steps"
                )

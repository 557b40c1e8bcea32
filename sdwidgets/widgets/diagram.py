"""The live diagram: what each part of a pipeline got and gave in one recorded run, step by step. Numpy and Pillow only.

It is drawn from a `Trace` and, for what its boxes open into, the `Insides` of the same run; `sdwidgets.diagram(pipe, prompt)` records both.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from PIL import Image

from ..latents import colour_map, linear_preview
from ..trace import first_of
from ..trace_file import encoded
from .diagram_still import still
from .progress import progress_line
from .replay import about, badge_parts, finished_latents, finished_picture, pack, webp
from .view import View

MAX_STEPS = 30  # that a page carries; longer runs are thinned
SIDES, MAX_SHEET = (
    (32, 24, 16),
    60_000,
)  # latent pixels of a thumbnail's longer side, and bytes of all: the first that keeps within
PREVIEW, MAX_PREVIEWS = (96, 72, 48), 14_000  # the same for decoded predictions, in pixels
MAX_PICTURE = 256
MAX_TOKENS, MAX_NUMBERS = 40, 64  # of the prompt's embeddings that are drawn
PARTS = ("text_encoder", "denoiser", "guidance", "scheduler", "vae")


class Diagram(View):
    """A pipeline as a diagram with the pictures of one run at its arrows; a slider walks through the steps, and each box opens.

    trace: of a run that came to its end, from `sdwidgets.record`. insides: of the same run, from `analysis.insides.watch_parts`; None: the
    boxes say less. source_latents: (channels, h, w), what the VAE's encoder made of `trace.source`; None: it is drawn without.

    `set(step=...)`: from 0, as in `trace[step]`; `part`: the box that is open, one of `parts`, or None. Raises ValueError for a run that was
    stopped, or for what is not there.
    """

    script = ("curves.js", "diagram_parts.js", "diagram.js")
    default_state = {"step": 0, "part": None}

    def __init__(self, trace, insides=None, source_latents: np.ndarray | None = None, **state):
        if not len(trace) or not trace.complete:
            raise ValueError(
                f"the diagram takes a run that came to its end, and this one has {len(trace)} steps and was stopped; record another"
            )
        self.trace, self.insides, self.source_latents = trace, insides, source_latents
        self.shown = np.unique(np.linspace(0, len(trace) - 1, MAX_STEPS).round().astype(int)).tolist()
        title = f"Diagram of the run {str(first_of(trace.settings.prompt) or '')[:80]!r}"
        super().__init__(self._data(), title, **{"step": 3 * len(trace) // 5, **state})

    @classmethod
    def from_pipeline(cls, pipe, prompt: str, *, seed: int = 0, decode: bool = True, **settings) -> Diagram:
        """Make one picture, listen to all parts, and show the run as a diagram.

        pipe: a diffusers pipeline; with `image=` in the settings one from text draws from that picture. seed: of a CPU generator. decode: send each
        step's predicted picture through the VAE; without it they are in rough colours, as latents are. settings: go to the pipeline, for
        example `num_inference_steps=20`; without it, and without `guidance_scale`, they are the model's usual ones. `.trace` and `.insides` hold what was recorded.

        Raises TypeError for a setting that there is not, and what the pipeline raises.
        """
        import torch

        from ..analysis.autoencoder import encode
        from ..analysis.insides import watch_parts
        from ..generation.sharing import own_copy
        from ..generation.tasks import pipeline_for
        from ..generation.usual import completed
        from ..generation.validation import check_names
        from ..latents import decode_previews
        from ..recording import record

        if (
            settings.get("image") is not None
            and "Img2Img" not in type(pipe).__name__
            and "Inpaint" not in type(pipe).__name__
        ):
            pipe = pipeline_for(pipe, "image")
        check_names("diagram", settings, cls.from_pipeline, pipe)
        generator = torch.Generator("cpu").manual_seed(seed)
        own, settings = own_copy(pipe), completed(pipe, settings)
        with (
            progress_line(settings["num_inference_steps"]) as advance,
            record(own, on_step=lambda _: advance("")) as trace,
            watch_parts(own) as insides,
        ):
            own(prompt, generator=generator, **settings)
        if decode:
            decode_previews(trace, own)
        return cls(trace, insides, None if trace.source is None else encode(own, trace.source)[0])

    @property
    def parts(self) -> tuple[str, ...]:
        """The boxes that this run has."""
        absent = {"guidance"} if not self._guided else set()
        if self.insides is not None and not self.insides.text_encoders:
            absent.add("text_encoder")
        return tuple(part for part in PARTS if part not in absent)

    def validate_state(self, name: str, value):
        if name == "part":
            if value is not None and value not in self.parts:
                raise ValueError(f"part is None or one of {', '.join(map(repr, self.parts))}, and not {value!r}")
            return value
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < len(self.trace):
            raise ValueError(f"step is a whole number from 0 to {len(self.trace) - 1}, and not {value!r}")
        return int(value)

    def static_image(self) -> Image.Image:
        """The diagram at the step that is shown."""
        return still(self).quantize(96, dither=Image.Dither.NONE)  # mostly flat: a palette is the smaller file

    # -- what the pictures are

    @property
    def _guided(self) -> bool:
        return any(step.noise_pred_cond is not None and step.noise_pred_uncond is not None for step in self.trace)

    def pictures(self, i: int) -> dict[str, np.ndarray]:
        """What the arrows of step i carry, each (channels, h, w): "noisy", x_t; "guided", the prediction that the scheduler gets; "x0"; "following".

        With guidance also "uncond" and "cond", the two predictions, "difference", and what each predicts as a picture, "x0_uncond" and "x0_cond".
        """
        step, kind = self.trace[i], str(self.trace.settings.prediction_type)
        last = i + 1 == len(self.trace)
        after = finished_latents(self.trace) if last else self.trace[i + 1].scaled_latents[0]
        arrays = {
            "noisy": step.scaled_latents[0],
            "guided": step.noise_pred[0],
            "x0": step.pred_original[0],
            "following": after,
        }
        if step.noise_pred_cond is not None and step.noise_pred_uncond is not None:
            halves = {"uncond": step.noise_pred_uncond[0], "cond": step.noise_pred_cond[0]}
            originals = {f"x0_{half}": step.half_original(half, kind)[0] for half in halves}
            arrays |= halves | originals | {"difference": halves["cond"] - halves["uncond"]}
        return {
            name: np.nan_to_num(np.asarray(array, np.float32), posinf=0.0, neginf=0.0)
            for name, array in arrays.items()
        }

    def noise(self) -> np.ndarray:
        """The noise sample that the run began with, (channels, h, w): x_t of the first step, less its share of the picture where it began with one."""
        first, start = self.trace[0], self.trace[0].scaled_latents[0]
        if self.source_latents is None:
            return start
        signal, noise = _mixture(first)
        return (start - signal * self.source_latents) / max(noise, 1e-6)

    def rough(self, latents: np.ndarray) -> np.ndarray:
        """Latents (channels, h, w) in rough colours, (h, w, 3) uint8."""
        return linear_preview(latents, colour_map(self.trace.preview_factors, len(latents)))

    # -- what the page gets

    def _data(self) -> dict:
        trace, inner = self.trace, self.insides
        channels, h, w = trace[0].latents.shape[1:]
        picture = finished_picture(trace)
        final = finished_latents(trace)
        shared = replace(trace.settings, num_inference_steps=len(trace))
        encoder = inner.vae.parameters - inner.decoder_parameters if inner and inner.vae else None
        limit = float(np.quantile(np.abs(np.nan_to_num(final)), 0.995)) or 1.0
        columns = [self.pictures(i) for i in self.shown]
        return {
            **about(shared, (channels, h, w), trace.preview_factors),
            "badge": " · ".join(badge_parts(trace.settings)),
            "notes": self._notes(),
            "parts": list(self.parts),
            "seed": first_of(trace.settings.seed),
            "total": len(trace),
            "steps": [self._step(i, arrays) for i, arrays in zip(self.shown, columns, strict=True)],
            "process": trace[0].process,
            "guidance": trace.settings.guidance_scale,
            "guided": self._guided,
            "scheduler": trace.settings.scheduler_label or (trace.settings.scheduler or "scheduler").removesuffix("Scheduler"),
            "sheet": self._sheet(columns),
            "previews": self._previews(),
            "noise": pack(self.noise(), 32 * 32 * 4),
            "picture": webp(picture, MAX_PICTURE, 85),
            "pixels": list(picture.shape),
            "decoded": trace.images is not None,
            "source": None if trace.source is None else webp(trace.source, 128),
            "source_latents": None if self.source_latents is None else pack(self.source_latents, 32 * 32 * 4),
            "final": pack(final, 32 * 32 * 4),
            "limit": round(limit, 2),
            "vae": [inner.vae.class_name, encoder, inner.decoder_parameters] if inner and inner.vae else None,
            "text": [] if inner is None else [_encoder(one) for one in inner.text_encoders],
            "embeddings": self._embeddings(),
            "denoiser": self._denoiser(),
        }  # fmt: skip

    def _notes(self) -> list[str]:
        """What this family or this run lacks of the diagram that people know, or has besides."""
        trace, inner, scale = self.trace, self.insides, self.trace.settings.guidance_scale
        halves = sum(step.noise_pred_cond is not None for step in trace)
        notes = []
        if not halves and scale is not None and scale > 1:
            notes.append(
                f"Guidance {scale:g} is a number that this model reads beside the timestep: it makes one prediction a step, so nothing is mixed."
            )
        elif not halves:
            at = "" if scale is None else f" at {scale:g}"
            notes.append(
                f"Guidance is off{at}: the denoiser is called for the prompt alone, so there is one prediction a step and nothing to mix."
            )
        elif halves < len(trace):
            notes.append(f"Guidance is on in {halves} of {len(trace)} steps; in the others there is one prediction.")
        if inner is not None and inner.denoiser is not None and inner.denoiser.name == "transformer":
            notes.append("Its denoiser is a transformer and no U-Net: all of its blocks work on one grid.")
        if inner is not None and len(inner.text_encoders) > 1:
            notes.append(f"{len(inner.text_encoders)} text encoders read the prompt.")
        if inner is not None and not inner.text_encoders:
            notes.append("No text encoder was called in this run: the embeddings came from elsewhere.")
        return notes

    def _step(self, i: int, arrays: dict[str, np.ndarray]) -> dict:
        """The numbers of step i: x_t = a x0 + b noise now and after it, and x_{t-1} = keep x_t + add x0, as far as that goes."""
        now, after = _mixture(self.trace[i]), _mixture(self.trace[i + 1]) if i + 1 < len(self.trace) else (1.0, 0.0)
        keep, add, rest = fitted(arrays["noisy"], arrays["x0"], arrays["following"])
        entry = {
            "number": i + 1, "t": float(self.trace[i].timestep), "sigma": _finite(self.trace[i].sigma), "share": float(self.trace[i].picture_share),
            "now": [round(x, 4) for x in now], "after": [round(x, 4) for x in after], "keep": round(keep, 3), "add": round(add, 3), "rest": round(rest, 4),
        }  # fmt: skip
        if "cond" in arrays:
            entry["apart"] = round(_size(arrays["difference"]) / max(_size(arrays["uncond"]), 1e-9), 4)
            entry["times"] = _times(arrays["difference"])
        return entry

    def _sheet(self, columns: list[dict]) -> dict:
        """All latents in rough colours on one sheet: a row for each kind, a column for each shown step.

        What follows a step is the next column's x_t, the last column has the finished latents alone; in a run that was thinned it has a row of its own.
        """
        columns = [*columns, {"noisy": np.nan_to_num(finished_latents(self.trace))}]
        names = ["noisy", "uncond", "cond", "difference", "guided", "x0_uncond", "x0_cond", "x0"]
        names += ["following"] if len(self.shown) < len(self.trace) else []
        names = [name for name in names if any(name in arrays for arrays in columns)]
        for side in SIDES:
            sheet = np.concatenate([self._row(name, columns, side) for name in names])
            data = encoded(Image.fromarray(sheet), "WEBP", lossless=True, method=6)
            if len(data) <= MAX_SHEET:
                break
        return {"names": names, "size": [len(sheet) // len(names), sheet.shape[1] // len(columns)], "picture": data}

    def _row(self, name: str, columns: list[dict], side: int) -> np.ndarray:
        """The pictures of one name side by side, thinned to `side` latent pixels at most."""
        stride = max(1, math.ceil(max(columns[0]["noisy"].shape[1:]) / side))
        factors = colour_map(self.trace.preview_factors, len(columns[0]["noisy"]))
        empty = np.zeros_like(columns[0]["noisy"])
        arrays = [column.get(name, empty) for column in columns]
        if name == "difference":  # of which the bias of the colours is nothing
            factors = factors * np.array([[1.0]] * (len(factors) - 1) + [[0.0]])
            arrays = [array * _times(array) for array in arrays]
        row = np.concatenate([linear_preview(array[:, ::stride, ::stride], factors) for array in arrays], 1)
        return row // 16 * 17 if name.startswith("x0") else row // 32 * 36  # fewer levels, half of the bytes

    def _previews(self) -> dict | None:
        """The decoded predictions side by side, or None."""
        if self.trace.previews is None:
            return None
        for side in PREVIEW:
            small = [Image.fromarray(self.trace.previews[i]) for i in self.shown]
            for picture in small:
                picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            row = np.concatenate([np.asarray(picture) for picture in small], 1)
            data = encoded(Image.fromarray(row), "WEBP", quality=70, method=6)
            if len(data) <= MAX_PREVIEWS:
                break
        return {"size": [row.shape[0], row.shape[1] // len(small)], "picture": data}

    def _embeddings(self) -> dict | None:
        """The first numbers of the embeddings of the prompt's tokens, and of one of padding; `encoder`: whose tokens they are."""
        inner = self.insides
        if inner is None or inner.embeddings is None:
            return None
        rows, width = inner.embeddings.shape
        encoders = [*inner.text_encoders]
        whose = next((i for i, one in enumerate(encoders) if one.read == rows), 0)
        tokens = encoders[whose].tokens if encoders else ()
        places = [token.first for token in tokens][:MAX_TOKENS] or list(range(min(rows, MAX_TOKENS)))
        padding = tokens[-1].first + len(tokens[-1].ids) if tokens else rows
        places += [padding] if padding < rows and len(tokens) <= MAX_TOKENS else []
        shown = inner.embeddings[places][None, :, :MAX_NUMBERS]
        limit = float(np.nanpercentile(np.abs(shown), 98)) or 1.0
        return {
            "encoder": whose,
            "shape": [rows, width],
            "limit": limit,
            "packed": pack(np.clip(shown, -limit, limit), shown.size),
        }

    def _denoiser(self) -> dict | None:
        inner = self.insides
        if inner is None or inner.denoiser is None:
            return None
        each = inner.calls // len(self.trace) if inner.calls % len(self.trace) == 0 else 0  # calls a step
        heard = [block for block in inner.blocks if each and len(block.maps) == inner.calls]
        times = inner.timestep_embeddings if each and len(inner.timestep_embeddings) == inner.calls else []
        numbers = np.stack([times[i * each][:MAX_NUMBERS] for i in self.shown])[None] if times else None
        return {
            "kind": inner.denoiser.name,
            "class": inner.denoiser.class_name,
            "parameters": inner.denoiser.parameters,
            "count": inner.count,
            "blocks": [{"name": b.name, "shape": list(b.shape), "channel": b.channel, "maps": pack(np.stack([b.maps[i * each] for i in self.shown]), 10**6)} for b in heard],
            "timestep": None if numbers is None else {"width": inner.timestep_width, "packed": pack(numbers, numbers.size)},
        }  # fmt: skip


diagram = Diagram.from_pipeline


def fitted(noisy: np.ndarray, x0: np.ndarray, following: np.ndarray) -> tuple[float, float, float]:
    """(keep, add, rest) of following = keep noisy + add x0 + rest, by least squares: three arrays of one shape; rest as a share of its length.

    Schedulers of first order without fresh noise, such as DDIM and Euler, leave no rest; others use earlier steps, or add noise.
    """
    basis = np.stack([noisy.ravel(), x0.ravel()], 1).astype(np.float64)
    target: np.ndarray = following.ravel().astype(np.float64)
    (keep, add), *_ = np.linalg.lstsq(basis, target, rcond=None)
    rest = np.linalg.norm(target - basis @ (keep, add)) / max(float(np.linalg.norm(target)), 1e-12)
    return float(keep), float(add), float(rest)


def _mixture(step) -> tuple[float, float]:
    """(a, b) of x_t = a x0 + b noise, for x_t as it is drawn."""
    return (step.alpha, step.sigma if step.process == "flow" else math.sqrt(max(0.0, 1 - step.alpha**2)))


def _encoder(one) -> dict:
    tokens = [[token.kind, token.text, list(token.ids)] for token in one.tokens[:MAX_TOKENS]]
    padding = one.read - sum(len(token.ids) for token in one.tokens)
    return {"class": one.class_name, "parameters": one.parameters, "layers": one.layers, "width": one.width, "read": one.read, "tokens": tokens, "more": len(one.tokens) - len(tokens), "padding": padding}  # fmt: skip


def _times(difference: np.ndarray) -> float:
    """How many times as strong a difference is drawn, to be seen: 1, or what makes its root mean square 0.5."""
    return max(1.0, round(0.5 / max(_size(difference), 1e-3), 1))


def _size(array: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

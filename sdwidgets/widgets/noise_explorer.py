"""The noise explorer: one picture's latents and one noise sample, mixed at any timestep, by several schedules side by side.

Schedules, latents and noise go to the page; the page mixes them. No torch: `sdwidgets.explore_noise(pipe, picture)` encodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..analysis.noise_schedules import SCHEDULES, Schedule, schedule
from ..latents import colour_map, linear_preview
from .replay import pack, webp
from .still_image import table
from .view import View

MAX_LATENTS, MAX_PICTURE, MOST = 64 * 64 * 4, 256, 6


class NoiseExplorer(View):
    """A noised picture under a slider over the timestep t, as each schedule makes it.

    latents: (channels, h, w), a picture's in the scheduler's scale. noise: the same shape, one draw from a unit normal.
    factors: (channels + 1, 3), see latents.linear_preview; None draws in grey. picture: (H, W, 3) uint8, what the latents
    are of. schedules: two to six of one length, `Schedule`s or labels of `analysis.noise_schedules.SCHEDULES`.

    `set(t=500, schedule="cosine")` moves it: t from 0 (picture) to the last (noise). Raises ValueError for arrays
    that do not fit, for schedules of different lengths or one label twice, and for a state that there is not.
    """

    script = ("curves.js", "noise_explorer.js")
    default_state = {"t": 400, "schedule": ""}

    def __init__(self, latents, noise, factors=None, picture=None, schedules: Sequence[Schedule | str] = tuple(SCHEDULES), **state):  # fmt: skip
        latents, noise = np.asarray(latents, np.float32), np.asarray(noise, np.float32)
        if latents.ndim != 3 or latents.shape != noise.shape:
            raise ValueError(
                f"latents of shape {latents.shape} and noise of shape {noise.shape}; both are one picture's, (channels, h, w)"
            )
        if factors is not None and np.shape(factors) != (len(latents) + 1, 3):
            raise ValueError(f"factors of shape {np.shape(factors)}; they are (channels + 1, 3), or None for grey")
        if picture is not None:
            picture = np.asarray(picture)
            if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
                raise ValueError(f"a picture is (H, W, 3) uint8, not {picture.dtype} of shape {picture.shape}")
        self.schedules = {s.label: s for s in (schedule(s) if isinstance(s, str) else s for s in schedules)}
        lengths = {len(s.signal) for s in self.schedules.values()}
        if not 2 <= len(self.schedules) <= MOST or len(self.schedules) != len(schedules) or len(lengths) != 1:
            raise ValueError(
                f"an explorer compares two to {MOST} schedules of one length, each with a label of its own; these are"
                f" {len(schedules)} with {len(self.schedules)} labels and lengths {sorted(lengths)}"
            )
        (self.num_timesteps,) = lengths
        self.latents, self.noise, self.factors = latents, noise, colour_map(factors, len(latents))
        data = {
            "x0": pack(latents, MAX_LATENTS),
            "noise": pack(noise, MAX_LATENTS),
            "factors": np.round(self.factors.astype(float), 4).tolist(),
            "grey": factors is None,
            "picture": None if picture is None else webp(picture, MAX_PICTURE, quality=90),
            "schedules": [
                {"label": s.label, "sentence": s.sentence, "kind": s.kind, "signal": np.round(s.signal, 6).tolist()}
                for s in self.schedules.values()
            ],
        }  # fmt: skip
        first = {"schedule": next(iter(self.schedules)), "t": min(self.default_state["t"], self.num_timesteps - 1)}
        super().__init__(data, "The noise explorer: one picture, one noise, every schedule", **{**first, **state})

    @classmethod
    def from_pipeline(cls, pipe, picture, *, seed: int = 0, schedules=tuple(SCHEDULES), **state) -> NoiseExplorer:
        """A `NoiseExplorer` over one picture's latents and the noise of a seed.

        picture: PIL or (H, W, 3) uint8, of a size that the autoencoder takes. schedules: labels of `analysis.noise_schedules.SCHEDULES` or
        `Schedule`s. Raises ValueError for a picture that does not fit, and what NoiseExplorer raises.
        """
        import torch

        from ..analysis.autoencoder import encode, pixels
        from ..latents import factors_for

        (shown,) = pixels(pipe, picture)
        (latents,) = encode(pipe, picture)
        noise = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(seed)).numpy()
        return cls(latents, noise, factors_for(pipe), shown, schedules, **state)

    def validate_state(self, name: str, value):
        if name == "schedule" and value not in self.schedules:
            raise ValueError(f"there is no schedule {str(value)[:40]!r} here; there are: {', '.join(self.schedules)}")
        if name == "t":
            if not 0 <= value < self.num_timesteps:
                raise ValueError(f"t runs from 0 to {self.num_timesteps - 1}, not {value}")
            return int(value)
        return value

    def noised(self, label: str, t: int) -> np.ndarray:
        """The latents at timestep t of a schedule, (channels, h, w): signal x0 + noise e."""
        chosen = self.schedules[self.validate_state("schedule", label)]
        t = self.validate_state("t", t)
        return (chosen.signal[t] * self.latents + chosen.noise[t] * self.noise).astype(np.float32)

    def static_image(self) -> Image.Image:
        """Schedules down, six timesteps across."""
        timesteps, side = np.linspace(0, self.num_timesteps - 1, 6).round().astype(int), 96
        rows = {
            label: [linear_preview(self.noised(label, int(t)), self.factors) for t in timesteps]
            for label in self.schedules
        }
        height = round(side * self.latents.shape[1] / self.latents.shape[2])
        return table([f"t = {t}" for t in timesteps], rows, side, height, smooth=False)


explore_noise = NoiseExplorer.from_pipeline

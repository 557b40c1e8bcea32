"""The latent lab: what an autoencoder keeps of a picture, what each channel carries, and what lies between two pictures.

`LatentLab` shows arrays that are there already; `sdwidgets.latent_lab(pipe, picture)` makes them. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..latents import CHANGES, changed_channels
from .replay import pack, webp
from .still_image import captioned
from .view import View

SHOWS = ("there and back", "channels", "between")
MAX_LATENTS = 64 * 64 * 4  # numbers of a shown latent
SIDES = (320, 256, 192, 128, 96)  # pixels of the longer side of a shown picture: the first that keeps within
MAX_BYTES = 500_000  # for all pictures together


class LatentLab(View):
    """What an autoencoder does to pictures that it has decoded already.

    originals: (1 or 2, H, W, 3) uint8. reconstructions: the same pictures encoded and decoded, same shape.
    latents: (1 or 2, channels, h, w) in the scheduler's scale. changed: a name of CHANGES -> the first picture
    decoded with that done to each channel, (channels, H, W, 3) uint8. between: (places, H, W, 3) uint8, the latents mixed evenly from
    the first picture to the second and decoded; None where there is one picture. names: what the pictures are called.

    `set(show=...)`: one of SHOWS; `channel=` from 0; `change=` "as it is" or a name in `changed`; `wipe=` and
    `place=` from 0 to 1, how far the original is uncovered and how far the mixture has come. Raises ValueError for
    arrays that do not fit and for an unknown state.
    """

    script = ("latent_lab.js",)
    default_state = {"show": SHOWS[0], "channel": 0, "change": "as it is", "wipe": 0.5, "place": 0.5}

    def __init__(self, originals, reconstructions, latents, changed=None, between=None, names=("A", "B"), **state):
        self.originals = _pictures(originals, "originals")
        self.reconstructions = _pictures(reconstructions, "reconstructions", self.originals.shape)
        self.latents = np.asarray(latents, np.float32)
        count, *shape = self.originals.shape
        if count not in (1, 2) or self.latents.ndim != 4 or len(self.latents) != count:
            raise ValueError(
                f"{count} originals and latents of shape {self.latents.shape} do not fit: one or two pictures, and"
                " latents (pictures, channels, h, w)"
            )
        if unknown := set(changed or {}) - set(CHANGES):
            raise ValueError(f"a channel cannot be {sorted(unknown)[0]!r}; it can be: {', '.join(CHANGES)}")
        channels = self.latents.shape[1]
        self.changed = {
            name: _pictures(changed[name], f"changed[{name!r}]", (channels, *shape))
            for name in CHANGES
            if name in (changed or {})
        }
        if (between is not None) != (count == 2):
            raise ValueError("between belongs to two pictures: give both, or neither")
        self.between = None if between is None else _pictures(between, "between", (len(between), *shape))
        if self.between is not None and len(self.between) < 2:
            raise ValueError("between needs at least its two ends, two pictures")
        self.names = tuple(str(name) for name in names)[:count]
        super().__init__(self.describe(), f"The latent lab: {' and '.join(self.names)}", **state)

    @classmethod
    def from_pipeline(
        cls,
        pipe,
        picture,
        other=None,
        *,
        changes: Sequence[str] | None = None,
        places: int = 9,
        names: Sequence[str] = ("A", "B"),
        **state,
    ) -> LatentLab:
        """Send one picture or two through the autoencoder in every way that a `LatentLab` shows.

        changes: what is done to each channel, names of `CHANGES`; by default all for up to four channels, and "off"
        and "alone" beyond, for every change is one decoding a channel. places: decodings between the two pictures, the ends
        included. names: what the pictures are called. `state`: what is shown first. Two decodings of 512 x 512 pixels
        take seconds on a CPU, and this makes about thirty: choose small pictures there.
        Raises ValueError for pictures that do not fit the autoencoder, an unknown change, or fewer than two places.
        """
        from ..analysis.autoencoder import encode, pixels
        from ..latents import decode

        if places < 2:
            raise ValueError(f"places counts both ends, so at least 2, not {places}")
        originals = pixels(pipe, picture if other is None else [picture, other])
        if len(originals) > 2 or (other is None and len(originals) != 1):
            raise ValueError("the lab takes one picture, or two: latent_lab(pipe, picture, other)")
        z = encode(pipe, originals)
        channels = z.shape[1]
        if changes is None:
            changes = tuple(CHANGES) if channels <= 4 else ("off", "alone")
        if unknown := set(changes) - set(CHANGES):
            raise ValueError(f"a channel cannot be {sorted(unknown)[0]!r}; it can be: {', '.join(CHANGES)}")
        share = np.linspace(0, 1, places, dtype=np.float32)[:, None, None, None]
        return cls(
            originals,
            decode(pipe, z),
            z,
            {name: decode(pipe, changed_channels(z[0], name)) for name in changes},
            None if other is None else decode(pipe, (1 - share) * z[0] + share * z[1]),
            names,
            **state,
        )

    @property
    def error(self) -> np.ndarray:
        """(H, W) float: how far the first reconstruction is off, mean over the colours, in levels of 255."""
        return np.abs(self.reconstructions[0].astype(np.float32) - self.originals[0]).mean(-1)

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio of the first reconstruction in decibels, 10 log10(255^2 / mean square error)."""
        return psnr(self.reconstructions[0], self.originals[0])

    def mixed_pixels(self) -> np.ndarray:
        """The two reconstructions mixed pixel by pixel, (places, H, W, 3) float: what `between` is compared with."""
        share = np.linspace(0, 1, len(self.between), dtype=np.float32)[:, None, None, None]
        return (1 - share) * self.reconstructions[0] + share * self.reconstructions[1]

    def describe(self) -> dict:
        """Everything that the page needs: numbers, text, packed latents, and pictures as WebP no larger than fits."""
        height, width = self.originals.shape[1:3]
        limit = float(np.quantile(np.abs(np.nan_to_num(self.latents)), 0.995)) or 1.0
        top = float(max(10, np.ceil(np.quantile(self.error, 0.995) / 10) * 10))
        decibels, between = self.psnr, self.between
        shown = {"there and back": True, "channels": bool(self.changed), "between": between is not None}
        pairs = [] if between is None else zip(between, self.mixed_pixels(), strict=True)
        off = lambda pictures: [_off(picture, self.reconstructions[0]) for picture in pictures]
        data = {
            "names": list(self.names),
            "aspect": width / height,
            "pixels": [height, width, 3],
            "shape": list(self.latents.shape[1:]),
            "psnr": None if np.isinf(decibels) else round(decibels, 1),
            "error_mean": round(float(self.error.mean()), 1),
            "error_top": top,
            "error_scale": ["#" + bytes(level).hex() for level in _heat(np.linspace(0, 1, 9))],
            "limit": round(limit, 2),
            "latents": [pack(one, MAX_LATENTS) for one in self.latents],
            "changes": ["as it is", *self.changed],
            "factors": {name: factor for name, factor in CHANGES.items() if name in self.changed},
            "moved": {name: off(pictures) for name, pictures in self.changed.items()},
            "shows": [show for show in SHOWS if shown[show]],
            "apart": None if between is None else [_off(*pair) for pair in pairs],
        }
        heat = _heat(self.error / top)
        for side in SIDES:
            pictures = {
                "originals": [webp(p, side, 85) for p in self.originals],
                "reconstructions": [webp(p, side, 85) for p in self.reconstructions],
                "error": webp(heat, side, 85),
                "changed": {name: [webp(p, side) for p in group] for name, group in self.changed.items()},
                "between": None if between is None else [webp(p, side) for p in between],
            }
            if _bytes(pictures) <= MAX_BYTES:
                break
        return data | pictures

    def validate_state(self, name: str, value):
        """See the class; a value that cannot be shown is a ValueError that names what can."""
        if name in ("wipe", "place"):
            value = float(value)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} runs from 0 to 1, not {value:g}")
            return value
        channels = range(self.latents.shape[1])
        allowed = {"show": self.data["shows"], "change": self.data["changes"], "channel": channels}[name]
        if value not in allowed:
            listed = f"0 to {allowed[-1]}" if name == "channel" else ", ".join(map(repr, allowed))
            raise ValueError(f"{name} cannot be {value!r} here; it can be: {listed}")
        return int(value) if name == "channel" else value

    def static_image(self) -> Image.Image:
        """Original, reconstruction and error; below, where they were made, each channel off, or the way between."""
        side = max(160, min(192, self.originals.shape[2]))
        error, back = _heat(self.error / self.data["error_top"]), f"there and back, {self.psnr:.1f} dB"
        rows = [[(self.originals[0], "original"), (self.reconstructions[0], back), (error, "error")]]
        if "off" in self.changed:
            rows.append([(picture, f"without channel {k}") for k, picture in enumerate(self.changed["off"][:4])])
        if self.between is not None:
            last = len(self.between) - 1
            chosen = np.linspace(0, last, min(4, last + 1)).round().astype(int)
            rows.append([(self.between[i], f"{i / last:.0%} of {self.names[1]}, in latents") for i in chosen])
        return captioned(rows, side)


latent_lab = LatentLab.from_pipeline


def psnr(picture: np.ndarray, original: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures of one shape in decibels; infinite where they are equal."""
    square = float(((np.asarray(picture, np.float64) - np.asarray(original, np.float64)) ** 2).mean())
    return float("inf") if square == 0 else 10 * float(np.log10(255**2 / square))


def _pictures(pictures, what: str, shape=None) -> np.ndarray:
    pictures = np.asarray(pictures)
    fits = pictures.ndim == 4 and pictures.shape[-1] == 3 and pictures.dtype == np.uint8 and pictures.size
    if not fits or shape is not None and pictures.shape != tuple(shape):
        wanted = "(n, H, W, 3)" if shape is None else str(tuple(shape))
        raise ValueError(f"{what} are {pictures.dtype} of shape {pictures.shape}; give uint8 of shape {wanted}")
    return pictures


def _off(picture, other) -> float:
    """How far two pictures are apart: mean over pixels and colours, in levels of 255, to one digit."""
    return round(float(np.abs(np.asarray(picture, np.float32) - other).mean()), 1)


def _heat(share: np.ndarray) -> np.ndarray:
    """0 (black) to 1 (light yellow) as colours: (...) -> (..., 3) uint8."""
    from matplotlib import colormaps

    return (colormaps["magma"](np.clip(share, 0, 1))[..., :3] * 255).round().astype(np.uint8)


def _bytes(value) -> int:
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return len(value) if isinstance(value, bytes) else sum(map(_bytes, value or ()))

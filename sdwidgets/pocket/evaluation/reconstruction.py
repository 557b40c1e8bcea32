"""How well the autoencoder gives a picture back: PSNR with an interval over pictures."""

from __future__ import annotations

import numpy as np

from ..training.vae import pixels_of_things, reconstructed
from ..world.datasheet import FULL
from ..world.scenes import Stream, make_scene, pictures_of
from .tiers import GLYPHS, WHOLE

PICTURES = 512
NOTE = (
    "scenes of the full grammar, none of which the autoencoder has seen: it was trained on other arrangements. "
    "It has seen every glyph, shape and style that is in them."
)


def square_errors(vae, pictures: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Squared errors of encode-decode in 8-bit levels, mean over channels: (n, h, w, 3) uint8 -> (n, h, w)."""
    levels = reconstructed(vae, pictures, batch_size, whole_levels=False)
    return ((levels - pictures.astype(np.float32)) ** 2).mean(axis=-1)


def psnr(errors: np.ndarray, pixels: np.ndarray, seed: int = 0, draws: int = 1000) -> dict:
    """PSNR in dB with a 95% interval from pictures drawn again with replacement (the bootstrap, Efron 1979).

    `errors`: sum of squared errors a picture; `pixels`: over how many pixels; both (n,). 10 log10(255^2 / MSE).
    """
    decibel = lambda chosen: 10 * np.log10(255**2 * pixels[chosen].sum(-1) / errors[chosen].sum(-1))
    again = np.random.default_rng(seed).integers(len(errors), size=(draws, len(errors)))
    low, high = np.quantile(decibel(again), [0.025, 0.975])
    value = decibel(np.arange(len(errors)))
    return {"n": len(errors)} | {k: round(float(v), 2) for k, v in (("value", value), ("low", low), ("high", high))}


def reconstruction_rows(vae, count: int = PICTURES, batch_size: int = 16) -> list[dict]:
    """The two rows of the autoencoder, over scenes drawn at random from `FULL`."""
    stream = Stream(2027, 2**31)
    pictures = pictures_of(make_scene(FULL, stream.integer(0, FULL.count - 1)) for _ in range(count))
    square, drawn = square_errors(vae, pictures, batch_size), pixels_of_things(pictures)
    rows = []
    for name, masks in ((GLYPHS, drawn), (WHOLE, np.ones_like(drawn))):
        sums = [(np.sum(e[m], dtype=float), m.sum()) for e, m in zip(square, masks, strict=True)]
        rows.append({"name": name, "split": "held out", "unit": "dB", **psnr(*np.array(sums).T), "note": NOTE})
    return rows

"""How well the autoencoder gives a picture back: PSNR with an interval over pictures."""

from __future__ import annotations

import numpy as np
import torch

from ..training.vae import to_tensor
from ..world.datasheet import FULL
from ..world.scenes import Stream, make_scene, render
from .tiers import GLYPHS, WHOLE

PICTURES = 512
NOTE = (
    "scenes of the full grammar, none of which the autoencoder has seen: it was trained on other arrangements. "
    "It has seen every glyph, shape and style that is in them."
)


@torch.no_grad()
def reconstructed(vae, pictures: np.ndarray) -> np.ndarray:
    """What the autoencoder gives back of pictures, by the posterior's mean: (n, h, w, 3) uint8 -> the same in 8-bit levels, float32."""
    own = next(vae.parameters())
    tensor = to_tensor(pictures).to(own.device, own.dtype)
    out = vae.decode(vae.encode(tensor).latent_dist.mode()).sample.float().cpu()
    return ((out.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()


def square_errors(vae, pictures: np.ndarray) -> np.ndarray:
    """Squared errors of encode-decode in 8-bit levels, mean over channels: (n, h, w, 3) uint8 -> (n, h, w)."""
    return ((reconstructed(vae, pictures) - pictures.astype(np.float32)) ** 2).mean(axis=-1)


def psnr(errors: np.ndarray, pixels: np.ndarray, seed: int = 0, draws: int = 1000) -> dict:
    """PSNR in dB with a 95% interval from pictures drawn again with replacement (the bootstrap, Efron 1979).

    `errors`: sum of squared errors a picture; `pixels`: over how many pixels; both (n,). 10 log10(255^2 / MSE).
    """
    decibel = lambda chosen: 10 * np.log10(255**2 * pixels[chosen].sum(-1) / errors[chosen].sum(-1))
    again = np.random.default_rng(seed).integers(len(errors), size=(draws, len(errors)))
    low, high = np.quantile(decibel(again), [0.025, 0.975])
    value = decibel(np.arange(len(errors)))
    return {
        "n": len(errors),
        "value": round(float(value), 2),
        "low": round(float(low), 2),
        "high": round(float(high), 2),
    }


def reconstruction_rows(vae, count: int = PICTURES, batch_size: int = 16) -> list[dict]:
    """The two rows of the autoencoder, over scenes drawn at random from `FULL`.

    A pixel is a glyph's (or a shape's) where the render differs from its background by more than 12 of 255.
    """
    stream = Stream(2027, 2**31)
    scenes = [make_scene(FULL, stream.integer(0, FULL.count - 1)) for _ in range(count)]
    sums: dict[str, list] = {GLYPHS: [], WHOLE: []}
    for start in range(0, count, batch_size):
        pictures = np.stack([np.asarray(render(scene)) for scene in scenes[start : start + batch_size]])
        square = square_errors(vae, pictures)
        drawn = np.abs(pictures.astype(int) - pictures[:, :1, :1].astype(int)).max(-1) > 12
        for name, mask in ((GLYPHS, drawn), (WHOLE, np.ones_like(drawn))):
            sums[name] += [(np.sum(e[m], dtype=float), m.sum()) for e, m in zip(square, mask, strict=True)]
    return [
        {"name": name, "split": "held out", "unit": "dB", **psnr(*np.array(pairs).T), "note": NOTE}
        for name, pairs in sums.items()
    ]

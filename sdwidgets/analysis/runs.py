"""What a recorded run shows: noise added and removed at the same levels; which sizes of detail are settled when."""

from __future__ import annotations

import numpy as np

from ..latents import colour_map, linear_preview
from ..trace import Trace


def forward_and_backward(trace: Trace, columns: int = 6) -> tuple[np.ndarray, list[str]]:
    """Diffusion both ways at the same noise levels, in rough colours: (pictures (2, columns, h, w, 3) uint8, labels of the columns).

    First row, forward, as in training: the run's finished latents mixed with a noise sample, each in one stroke. Second, backward, as when drawing:
    x_t of the run, which began with another noise sample. The first column has no noise. Raises ValueError for a run that was stopped, or of
    fewer steps than columns.
    """
    if not trace.complete or trace.final_latents is None or len(trace) < columns:
        raise ValueError(f"this takes a run that came to its end, of at least {columns} steps; record one")
    chosen = np.linspace(0, len(trace) - 1, columns)[:-1].round().astype(int)[::-1]
    finished = trace.final_latents[0]
    noise = np.random.default_rng(0).standard_normal(finished.shape)
    shares = [trace[step].picture_share for step in chosen]
    forward = [share**0.5 * finished + (1 - share) ** 0.5 * noise for share in shares]
    backward = [trace[step].scaled_latents[0] for step in chosen]
    factors = colour_map(trace.preview_factors, len(finished))
    rows = [linear_preview(np.stack([finished, *row]), factors) for row in (forward, backward)]
    parts = zip(shares, chosen, strict=True)
    labels = [f"{100 * share:.0f} %, t = {trace[step].timestep:.0f}" for share, step in parts]
    return np.stack(rows), ["100 % picture", *labels]


def split_by_size(pictures: np.ndarray, blocks: tuple[int, ...] = (16, 4)) -> dict[str, np.ndarray]:
    """Pictures (n, H, W, 3) as a sum of parts: the mean colour, block means from the largest block on, each less what is larger, then the rest.

    Each part is (n, H, W, 3) float64, and parts are orthogonal, so their powers add up to the picture's. `blocks`: sides in pixels, falling,
    each a divisor of the one before and the first of height and width; else ValueError.
    """
    pictures = np.asarray(pictures, np.float64)
    height, width = pictures.shape[1:3]
    sides = (height, *blocks)
    if any(a % b or a <= b for a, b in zip(sides, blocks, strict=False)) or any(width % side for side in blocks):
        raise ValueError(
            f"blocks {blocks} do not divide {height} x {width} pixels and one another, from large to small"
        )
    larger, above = np.broadcast_to(pictures.mean((1, 2), keepdims=True), pictures.shape), None
    parts = {"the whole": larger}
    for side in blocks:
        means = _block_means(pictures, side)
        parts[f"{side} pixels and more" if above is None else f"{side} to {above} pixels"] = means - larger
        larger, above = means, side
    return parts | {f"below {above} pixels": pictures - larger}


def left_by_size(
    previews: np.ndarray, picture: np.ndarray, blocks: tuple[int, ...] = (16, 4)
) -> dict[str, np.ndarray]:
    """How much of the first step's error is left at each step, root mean square by size of detail: name -> (step,), 1 at the start.

    previews: predicted x0 of each step, (step, H, W, 3); picture: the finished one, (H, W, 3). Raises ValueError as `split_by_size` does.
    """
    error = np.asarray(previews, np.float64) - picture
    sizes = {name: np.sqrt((part**2).mean((1, 2, 3))) for name, part in split_by_size(error, blocks).items()}
    return {name: size / size[0] for name, size in sizes.items()}


def _block_means(pictures: np.ndarray, side: int) -> np.ndarray:
    """Every block of side x side pixels replaced by its mean."""
    n, height, width, colours = pictures.shape
    means = pictures.reshape(n, height // side, side, width // side, side, colours).mean((2, 4))
    return means.repeat(side, 1).repeat(side, 2)

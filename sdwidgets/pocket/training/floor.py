"""The best that any denoiser can do, where all pictures are known: a floor beside the loss.

For a finite set of pictures the best prediction of the clean one, given a noisy one, is their mean, each weighted by how probable it is that it
became the noisy one: a softmax over pictures (the optimal denoiser of Karras et al. 2022, arXiv 2206.00364, equation 57). Pocket's world is
such a set: `world.alternatives` lists every picture of a caption. A network's error above this one's can be learned away, the rest cannot.
"""

from __future__ import annotations

import torch


def best_x0(noisy: torch.Tensor, alpha_bar: float, pictures: torch.Tensor, odds: torch.Tensor) -> torch.Tensor:
    """The expected clean picture, given a noisy one: (n, ...) -> (n, ...) float32.

    `noisy`: sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise, 0 < alpha_bar < 1, with noise of deviation 1. `pictures`: (k, ...), every x0 that there
    is; `odds`: (k,), their probabilities, above 0, of any sum. The weights are softmax(log p_k - |noisy - sqrt(alpha_bar) x0_k|^2 / (2 (1 - alpha_bar))),
    summed over the whole picture in float64. Raises ValueError where shapes do not fit or `alpha_bar` is not between 0 and 1.
    """
    if not 0 < alpha_bar < 1:
        raise ValueError(f"alpha_bar lies between 0 and 1, not at {alpha_bar}")
    if noisy.shape[1:] != pictures.shape[1:] or odds.shape != pictures.shape[:1]:
        raise ValueError(
            f"noisy pictures of {tuple(noisy.shape[1:])} need clean ones alike and a probability for each, not {tuple(pictures.shape)} and {tuple(odds.shape)}"
        )
    x, z = noisy.flatten(1).double(), pictures.flatten(1).double()
    return (log_weights(x, alpha_bar, z, odds.double()).softmax(dim=1) @ z).view_as(noisy).float()


def log_weights(x: torch.Tensor, alpha_bar: float, z: torch.Tensor, odds: torch.Tensor) -> torch.Tensor:
    """log p_k - |x_i - sqrt(alpha_bar) z_k|^2 / (2 (1 - alpha_bar)): (n, d), (k, d), (k,) -> (n, k), up to a constant of each row.

    |x|^2 is that constant, so it is left out: what remains is a matrix product.
    """
    signal = alpha_bar**0.5
    return odds.log() + (signal * x @ z.T - 0.5 * alpha_bar * z.square().sum(1)) / (1 - alpha_bar)

"""Noise schedules as numbers: how much picture and how much noise is left at every timestep. Numpy alone.

A noised latent is x_t = a x0 + b n: `signal` a, `noise` b. The variance preserving schedules have a^2 + b^2 = 1 and
a^2 = abar, the product of 1 - beta (Ho et al. 2020, arXiv 2006.11239); a flow has a + b = 1 (Lipman et al. 2022, arXiv
2210.02747). `ideal_denoiser` is the best answer there is where the data are finitely many pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

TIMESTEPS = 1000  # in all Stable Diffusion models


@dataclass(frozen=True, eq=False)
class Schedule:
    """One schedule: `signal` and `noise`, each (timesteps,) float64 in [0, 1], from t = 0 (picture) to the last t (noise)."""

    label: str
    signal: np.ndarray
    noise: np.ndarray
    sentence: str = ""

    @property
    def snr_db(self) -> np.ndarray:
        """Signal-to-noise ratio in decibels, (timesteps,): 20 log10(signal / noise); minus infinity for pure noise."""
        with np.errstate(divide="ignore"):
            return 20 * (np.log10(self.signal) - np.log10(self.noise))

    @property
    def kind(self) -> str:
        """ "flow" where signal and noise add up to one, else "vp": variance preserving."""
        return "flow" if np.allclose(self.signal + self.noise, 1) else "vp"

    def timestep_at_snr(self, decibels: float = 0.0) -> int:
        """The first t at which the ratio is at most so many decibels. ValueError where there is none."""
        below = np.flatnonzero(self.snr_db <= decibels)
        if not len(below):
            lowest = self.snr_db.min()
            raise ValueError(f"{self.label} never falls to {decibels:g} dB; its lowest is {lowest:.1f} dB")
        return int(below[0])


def from_betas(betas: np.ndarray, label: str, sentence: str = "") -> Schedule:
    """The schedule of variances beta_t (timesteps,) in [0, 1]: abar is the running product of 1 - beta."""
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not ((betas >= 0) & (betas <= 1)).all():
        raise ValueError("betas are one row of variances in 0 to 1, a timestep each")
    return _from_alpha_bar(np.cumprod(1 - betas), label, sentence)


def of_scheduler(scheduler: SchedulerMixin, label: str = "this model's") -> Schedule:
    """The schedule that a diffusers scheduler carries. Raises ValueError for one without `alphas_cumprod` (a flow)."""
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"{type(scheduler).__name__} has no alphas_cumprod; for a flow take schedule('flow')")
    return _from_alpha_bar(np.asarray(scheduler.alphas_cumprod, np.float64), label, "What this model learned with.")  # fmt: skip


def _from_alpha_bar(alpha_bar: np.ndarray, label: str, sentence: str) -> Schedule:
    alpha_bar = np.clip(alpha_bar, 0, 1)
    return Schedule(label, np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar), sentence)


def linear(timesteps: int = TIMESTEPS) -> Schedule:
    """beta from 1e-4 to 0.02 in equal steps (Ho et al. 2020)."""
    sentence = "DDPM's first: the noise's variance grows by equal steps."
    return from_betas(np.linspace(1e-4, 0.02, timesteps), "linear", sentence)


def scaled_linear(timesteps: int = TIMESTEPS) -> Schedule:
    """sqrt(beta) from sqrt(0.00085) to sqrt(0.012) in equal steps: Stable Diffusion's (Rombach et al. 2022)."""
    sentence = "Stable Diffusion's: gentler at first, and it never reaches pure noise."
    return from_betas(np.linspace(0.00085**0.5, 0.012**0.5, timesteps) ** 2, "scaled linear", sentence)


def cosine(timesteps: int = TIMESTEPS, max_beta: float = 0.999) -> Schedule:
    """abar = cos^2 of an angle that grows evenly (Nichol and Dhariwal 2021, arXiv 2102.09672), beta capped at `max_beta`."""
    sentence = "Spends its time evenly: the factor of the picture falls along a cosine."
    angle = (np.arange(timesteps + 1) / timesteps + 0.008) / 1.008 * np.pi / 2
    alpha_bar = np.cos(angle) ** 2
    return from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta), "cosine", sentence)


def zero_snr(schedule: Schedule | None = None) -> Schedule:
    """A schedule shifted and stretched so that its last timestep is pure noise and its first is as before: algorithm 1 of
    Lin et al. 2023 (arXiv 2305.08891). By default of `scaled_linear`."""
    schedule = schedule or scaled_linear()
    first, last = schedule.signal[0], schedule.signal[-1]
    signal = (schedule.signal - last) * first / (first - last)
    sentence = "Scaled linear, stretched so that its last timestep is pure noise."
    return Schedule("zero SNR", signal, np.sqrt(1 - signal**2), sentence)


def flow(timesteps: int = TIMESTEPS) -> Schedule:
    """The straight line of SD 3 and FLUX: noise grows evenly from 1/timesteps to one, and the picture is the rest."""
    noise = np.arange(1, timesteps + 1) / timesteps
    return Schedule("flow", 1 - noise, noise, "SD 3's and FLUX's straight line: picture fades out, noise fades in.")  # fmt: skip


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "linear": linear, "scaled linear": scaled_linear, "cosine": cosine, "zero SNR": zero_snr, "flow": flow,
}  # fmt: skip


def schedule(label: str) -> Schedule:
    """A schedule of `SCHEDULES` by its label. Raises ValueError for another label."""
    if label not in SCHEDULES:
        raise ValueError(f"there is no schedule {str(label)[:40]!r}; there are: {', '.join(SCHEDULES)}")
    return SCHEDULES[label]()


def measure_share(latents: np.ndarray, share: np.ndarray, seed: int = 0) -> np.ndarray:
    """The share of the picture found in noised latents: their squared correlation with the clean ones, at each of `share` (n,): (n,) in [0, 1].

    latents: any shape, noised as sqrt(share) x0 + sqrt(1 - share) noise, with other noise for each share.
    """
    x0, rng = np.asarray(latents, np.float64), np.random.default_rng(seed)
    noised = (np.sqrt(a) * x0 + np.sqrt(1 - a) * rng.normal(size=x0.shape) for a in np.asarray(share))
    return np.array([(x * x0).sum() ** 2 / ((x**2).sum() * (x0**2).sum()) for x in noised])


def ideal_path(x: np.ndarray, signal: np.ndarray, noise: np.ndarray, data: np.ndarray) -> np.ndarray:
    """DDIM with the exact denoiser of `data` in the network's place: every place on the way, (steps + 1, n, ...).

    x: (n, ...), where it starts. signal, noise: (steps + 1,), the levels from the start on; the last noise may be 0.
    """
    places = [np.asarray(x, np.float64)]
    for a, b, a_next, b_next in zip(signal[:-1], noise[:-1], signal[1:], noise[1:], strict=True):
        x0 = ideal_denoiser(places[-1], a, b, data)[0]
        places.append(a_next * x0 + b_next * (places[-1] - a * x0) / b)
    return np.array(places)


def ideal_denoiser(noisy: np.ndarray, signal: float, noise: float, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The best possible x0 where the data are exactly these pictures, all equally likely, and the weights it gives them.

    noisy: (n, ...) noised pictures a x0 + b e, with a = `signal` >= 0 and b = `noise` > 0. data: (m, ...), the same sizes.
    Returns (n, ...) and (n, m). Bayes' rule: the weights are the softmax of -|x - a d|^2 / 2 b^2 over the pictures d,
    and x0 is their mean under these weights, which makes the squared error least.
    """
    noisy, data = np.asarray(noisy, np.float64), np.asarray(data, np.float64)
    if noisy.shape[1:] != data.shape[1:] or not len(data):
        raise ValueError(
            f"noisy of shape {noisy.shape} and data of shape {data.shape} do not fit; all but the first side agree"
        )
    if not noise > 0:
        raise ValueError(f"noise must be above 0, not {noise}: without noise there is nothing to remove")
    flat, rows = noisy.reshape(len(noisy), -1), data.reshape(len(data), -1)
    apart = ((flat[:, None] - signal * rows[None]) ** 2).sum(-1)  # (n, m)
    score = -(apart - apart.min(1, keepdims=True)) / (2 * noise**2)
    weights = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    return (weights @ rows).reshape(noisy.shape), weights

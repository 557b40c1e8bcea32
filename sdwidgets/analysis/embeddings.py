"""What the denoiser gets of a prompt, as the pipeline's arguments, and how far two prompts are apart there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@torch.no_grad()
def prompt_arguments(pipe: DiffusionPipeline, prompt: str) -> dict[str, torch.Tensor]:
    """The embeddings of a prompt and of the empty one, as arguments of a Stable Diffusion 1, 2 or XL pipeline in the prompt's place.

    "prompt_embeds" and "negative_prompt_embeds" are (1, token, width); SDXL has the two pooled ones besides, (1, width).
    """
    run = {"device": pipe.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    return dict(zip(NAMES, pipe.encode_prompt(prompt, **run), strict=False))


def bag_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Distance of two prompts' embeddings, (token, width) each, as sets: in the order that makes it smallest, as a share of the length of `one`.

    Cross-attention sums over tokens and knows no order, so this is all of the difference that it can find. Raises ValueError for two shapes.
    """
    if one.shape != other.shape or one.ndim != 2:
        raise ValueError(
            f"embeddings are (token, width), of one shape, not {tuple(one.shape)} and {tuple(other.shape)}"
        )
    squares = torch.cdist(one.float(), other.float()).square().cpu().numpy()
    return float(squares[linear_sum_assignment(squares)].sum() ** 0.5 / torch.linalg.norm(one.float()).item())


def unseen_rate(features: torch.Tensor, labels: torch.Tensor, groups: list, ridge: float = 1e-3) -> float:
    """Share of labels that a linear probe (ridge regression on one-hot labels) reads right of groups it was not fitted on, each left out in turn.

    features: (sample, width). labels: (sample,) integers from 0. groups: a group for each sample. Raises ValueError for fewer than two groups.
    """
    if len(set(groups)) < 2:
        raise ValueError(f"there is {len(set(groups))} group; give two or more, so that one can be left out")
    x, y, right = features.double().cpu(), torch.nn.functional.one_hot(labels.cpu()).double(), 0
    for group in set(groups):
        out = torch.tensor([other == group for other in groups])
        mean, base = x[~out].mean(0), y[~out].mean(0)
        known = (x[~out] - mean) / x[~out].std()
        inner = known.T @ known + ridge * len(known) * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(inner, known.T @ (y[~out] - base)) / x[~out].std()
        right += int((((x[out] - mean) @ weights + base).argmax(1) == labels.cpu()[out]).sum())
    return right / len(labels)

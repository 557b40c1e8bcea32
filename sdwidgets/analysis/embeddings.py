"""What the denoiser gets of a prompt, as the pipeline's arguments, and how far two prompts are apart there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    import numpy as np
    from diffusers import DiffusionPipeline

    Array: TypeAlias = torch.Tensor | np.ndarray

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


def linear_map(known: Array, targets: Array, unread: Array, decay: float = 0.01) -> torch.Tensor:
    """What a linear layer makes of each of `unread` (m, width), fitted to turn `known` (n, width) into `targets` (n, ...): (m, ...) float32.

    Ridge regression in closed form: the least squared error, with `decay` times the squared weights added. Raises ValueError where counts do not fit.
    """
    if len(known) != len(targets):
        raise ValueError(f"{len(known)} embeddings and {len(targets)} targets; give as many of one as of the other")
    x, y, new = (torch.as_tensor(values).double().cpu() for values in (known, targets, unread))
    x0, y0 = x.mean(0), y.mean(0)  # so that the bias is free
    inner = (x - x0).T @ (x - x0) + decay * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(inner, (x - x0).T @ (y - y0).flatten(1))
    return ((new - x0) @ weight).unflatten(1, y.shape[1:]).add(y0).float()


def unseen_rate(features: torch.Tensor, labels: torch.Tensor, groups: list, decay: float = 1e-3) -> float:
    """Share of labels that a linear probe reads right of groups it was not fitted on, each left out in turn: `linear_map` to one-hot labels.

    features: (sample, width), brought to variance one. labels: (sample,) integers from 0. groups: a group for each sample; `decay`: for each
    sample. Raises ValueError for fewer than two groups.
    """
    if len(set(groups)) < 2:
        raise ValueError(f"there is {len(set(groups))} group; give two or more, so that one can be left out")
    x, labels, right = features / features.std(), labels.cpu(), 0
    targets = torch.nn.functional.one_hot(labels)
    for group in set(groups):
        out = torch.tensor([other == group for other in groups])
        read = linear_map(x[~out], targets[~out], x[out], decay * int((~out).sum()))
        right += int((read.argmax(1) == labels[out]).sum())
    return right / len(labels)

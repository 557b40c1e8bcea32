"""The colour of the background: the one attribute that needs no judge, since a few pixels decide it."""

from __future__ import annotations

import numpy as np

from ..scenes import Grammar
from ..vocabulary import COLOURS, article
from .rates import Rate


def nearest_colours(values: np.ndarray) -> np.ndarray:
    """The number in `COLOURS` of the nearest colour; values (..., 3) in 0..255 -> (...)."""
    palette = np.array(list(COLOURS.values()), np.float32)
    return np.linalg.norm(values[..., None, :].astype(np.float32) - palette, axis=-1).argmin(axis=-1)


def background_colour(pictures: np.ndarray) -> list[str]:
    """The colour word nearest to the median of the four 12 x 12 pixel corners; pictures (n, 128, 128, 3) uint8."""
    edge = 12
    corners = np.concatenate(
        [
            pictures[:, rows, columns].reshape(len(pictures), -1, 3)
            for rows in (slice(edge), slice(-edge, None))
            for columns in (slice(edge), slice(-edge, None))
        ],
        axis=1,
    )
    names = list(COLOURS)
    return [names[place] for place in nearest_colours(np.median(corners.astype(float), axis=1))]


def background_prompts(grammar: Grammar, count: int) -> list[tuple[str, str]]:
    """(prompt, colour): objects of the grammar in turn, each on the colours in turn."""
    objects, colours = grammar.objects, grammar.colours
    pairs = [
        (objects[i % len(objects)], colours[(i + i // len(objects)) % len(colours)]) for i in range(count)
    ]
    return [(f"{article(name)} on {article(colour)} background", colour) for name, colour in pairs]


def background_rate(
    pipe, grammar: Grammar, count: int = 100, seed: int = 0, batch_size: int = 10, **settings
) -> Rate:
    """How often the background has the colour that the prompt names. `settings` go to the pipeline."""
    import torch

    asked = background_prompts(grammar, count)
    right = 0
    for start in range(0, count, batch_size):
        batch = asked[start : start + batch_size]
        generators = [torch.Generator().manual_seed(seed + start + place) for place in range(len(batch))]
        pictures = pipe(
            [prompt for prompt, _ in batch], generator=generators, output_type="np", **settings
        ).images
        seen = background_colour((pictures * 255).round().astype(np.uint8))
        right += sum(a == b for a, (_, b) in zip(seen, batch, strict=True))
    return Rate("background colour", count, right)

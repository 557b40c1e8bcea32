"""How often does the picture show what the prompt said? Measured on pixels, with intervals.

So far one row: the colour of the background. The judges of objects and people come with the next model.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .scenes import Grammar
from .vocabulary import COLOURS, article


@dataclasses.dataclass(frozen=True)
class Rate:
    """A share of successes with its 95% Wilson interval (Wilson 1927)."""

    name: str
    n: int
    right: int

    @property
    def rate(self) -> float:
        return self.right / self.n

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        centre = (self.right + z**2 / 2) / (self.n + z**2)
        reach = z / (self.n + z**2) * math.sqrt(self.right * (self.n - self.right) / self.n + z**2 / 4)
        return centre - reach, centre + reach

    def row(self) -> dict:
        low, high = self.interval()
        return {
            "name": self.name,
            "n": self.n,
            "rate": self.rate,
            "low": round(low, 4),
            "high": round(high, 4),
        }


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
    median = np.median(corners.astype(float), axis=1)
    distance = np.linalg.norm(median[:, None] - np.array(list(COLOURS.values()))[None], axis=-1)
    names = list(COLOURS)
    return [names[place] for place in distance.argmin(axis=1)]


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

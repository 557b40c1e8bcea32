"""Grammars: blocks of scenes with exact counts. Which blocks there are says `datasheet`."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from .layouts import FREE, Free, Lattice
from .scenes import STYLES, Scene, Stream
from .vocabulary import article

SEED = 2026  # of every list and every scene of the plan
Layout = Free | Lattice
UNSAID_BACKGROUND = 0.1  # how often a caption leaves out the background
SHADE = 6  # 8-bit levels: backgrounds are lighter or darker by at most so much


@dataclass(frozen=True)
class Block:
    """`count` scenes of one kind that stand side by side in a grammar."""

    name: str
    count: int
    draw: Callable[[Stream, int, int, Layout], dict]
    #: Its count is what is planted: a training has it whole, and shows each of its scenes once an epoch.
    planned: bool = False


@dataclass(frozen=True)
class Grammar:
    """Blocks of scenes, in order. Scene `index` is number `index - start` of the block that holds it."""

    name: str
    blocks: tuple[Block, ...]
    every: int = 1  # take every n-th scene only
    layout: Layout = FREE  # where things stand

    @functools.cached_property
    def _ends(self) -> list[int]:
        """Of each block, the number of scenes up to its end."""
        return list(itertools.accumulate(block.count for block in self.blocks))

    @functools.cached_property
    def count(self) -> int:
        """How many scenes there are."""
        return -(-self._ends[-1] // self.every)

    def block_at(self, index: int) -> tuple[Block, int]:
        """(block, number in the block) of a scene. Raises IndexError outside 0 <= index < count."""
        if not 0 <= index < self.count:
            raise IndexError(f"the grammar {self.name!r} has scenes 0 to {self.count - 1}, not {index}")
        index *= self.every
        number = bisect.bisect_right(self._ends, index)
        block = self.blocks[number]
        return block, index - self._ends[number] + block.count

    def indices(self, name: str) -> range:
        """The scenes of the blocks whose name is `name` or begins with `name` and a colon."""
        blocks = zip(self.blocks, self._ends, strict=True)
        ranges = [range(end - block.count, end) for block, end in blocks if f"{block.name}:".startswith(f"{name}:")]
        if not ranges or self.every != 1:
            raise KeyError(f"the grammar {self.name!r} has no block {name!r}")
        return range(ranges[0].start, ranges[-1].stop)

    def scene(self, index: int) -> Scene:
        """Scene number `index`. Captions end with the background, but for one in ten, which leave it unsaid."""
        block, number = self.block_at(index)
        return self._draw(block, number, index, Stream(SEED, index * self.every))

    def another(self, name: str, number: int) -> Scene:
        """A scene by the law of a block, but none of the grammar's own: what validation looks at. Its index is `number`.

        Raises ValueError for a number outside 0 to the block's count, less one: a block's words and shares follow the number.
        """
        position, block = next((position, b) for position, b in enumerate(self.blocks) if b.name == name)
        if not 0 <= number < block.count:
            raise ValueError(f"the block {name!r} has numbers 0 to {block.count - 1}, not {number}")
        return self._draw(block, number, number, Stream(SEED + 1, 2**31 + 2**20 * position + number))

    def _draw(self, block: Block, number: int, index: int, stream: Stream) -> Scene:
        parts = block.draw(stream, number, block.count, self.layout)
        style = parts.pop("style", "plain")
        spoken = parts.pop("spoken", False) or not stream.chance(UNSAID_BACKGROUND)
        caption = STYLES[style] + parts.pop("words")
        if spoken:
            caption += f" on {article(parts['background'])} background"
        parts.setdefault("shade", stream.integer(-SHADE, SHADE))
        return Scene(index, caption, style=style, **parts)

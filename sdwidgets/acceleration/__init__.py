"""The same pipeline, computed faster: `speed_up(pipe)`, undone by `slow_down(pipe)`; `cpu` for processors, `cuda` for cards."""

from .cpu import SPEEDS, slow_down, sparing_a_core, speed_up

__all__ = ["SPEEDS", "slow_down", "sparing_a_core", "speed_up"]

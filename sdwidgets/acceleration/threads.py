"""How many threads a fast pipeline may take on a CPU."""

from __future__ import annotations

import contextvars
from contextlib import contextmanager

import torch

_spared = contextvars.ContextVar("cores that are left to others", default=0)


@contextmanager
def reserve_core():
    """In a block: what a fast pipeline computes on a CPU leaves a core to others, on a machine of two or more.

    For the hand that moves a slider: page, server and kernel's messages need about a core for as long as it moves. Threads that
    share a picture wait for the one that was interrupted, so on two cores one that is left alone draws more pictures than two.
    """
    token = _spared.set(1)
    try:
        yield
    finally:
        _spared.reset(token)


def usable_threads() -> int:
    """PyTorch's number, less the core that is reserved; at least one."""
    return max(1, torch.get_num_threads() - _spared.get())

"""Stops a training that does not reach all of its parameters.

The first Pocket's U-Net was trained on 700,000 samples while nine tenths of it stayed the random numbers that it began
as: compiled for a CPU, a nearest upsampling handed back gradients of zero. The loss fell, as a small net's does.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

STEPS = 10  # fewer tell nothing: a LoRA's first matrix has a gradient of zero until its second has moved


KEPT = "These steps were not saved; a save before them remains"


class Stopped(RuntimeError):
    """A training that must not go on: a parameter gets no gradient, does not move or is not finite."""


def strayed(now: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """How far a parameter is from every multiple of its start: the sine of the angle between them, 0 to 1, of shape ().

    Weight decay alone scales a weight, and leaves 0. A single number has no angle: its relative change is told instead.
    """
    now, start = now.detach().float(), start.detach().float()
    tiny = torch.finfo(torch.float32).tiny
    scale = 1.0 if start.numel() == 1 else (now * start).sum() / start.square().sum().clamp(min=tiny)
    return (now - scale * start).norm() / now.norm().clamp(min=tiny)


@torch.no_grad()
def asleep(module: torch.nn.Module, start: torch.nn.Module, correlation: float = 0.9999) -> list[str]:
    """Names of the parameters that still are their start but for a factor: correlated with it above `correlation`.

    `start`: the module as its training began, which the same seed builds again. Compare in the basis that is trained:
    `DenoiserTraining.stock_unet` turns keys and values, so that in a stock U-Net those that never moved seem to have.
    """
    begun, reach = dict(start.named_parameters()), (1 - correlation**2) ** 0.5
    return [name for name, now in module.named_parameters() if strayed(now, begun[name]) < reach]


class Guard:
    """Watches that each parameter of a module that requires a gradient gets one, and moves from where this run began.

    A module may name parameters in `may_rest` that may stand still once they have reached a bound. Keeps a copy of all
    parameters, on their device.
    """

    def __init__(self, name: str, module: torch.nn.Module):
        self.name = name  # of what is trained
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        self.names, self.parameters = [name for name, _ in named], [parameter for _, parameter in named]
        self.start = [parameter.detach().clone() for parameter in self.parameters]
        self.may_rest = getattr(module, "may_rest", ())
        self.steps, self.watched, self.rates = 0, 0, 0.0
        self.zero = torch.zeros(1, device=self.start[0].device)
        self.norms = torch.zeros(len(named), device=self.zero.device)  # the largest of this run
        self.reached = self.norms != 0  # since the last answer

    @torch.no_grad()
    def watch(self, rate: float) -> None:
        """To be called at each step before the optimiser's, with the learning rate; does not wait for a GPU.

        Looks at the gradients of the first ten steps and then of every tenth.
        """
        self.steps, self.rates = self.steps + 1, self.rates + rate
        if self.steps <= STEPS or self.steps % STEPS == 0:
            gradients = [self.zero if parameter.grad is None else parameter.grad for parameter in self.parameters]
            norms = torch.stack(torch._foreach_norm(gradients)).float()
            self.norms, self.reached = torch.maximum(self.norms, norms), self.reached | (norms != 0)
            self.watched += 1

    @torch.no_grad()
    def check(self) -> list[int]:
        """[parameters that have moved, all parameters], counted by whole tensors.

        Raises Stopped where a tensor had no gradient but zeros in all, ten at least, that were looked at since the last
        answer, where it is a multiple of its start after ten steps that would show, or where it is not finite.
        """
        tolerance = 1e-6 + 1e-7 * self.steps**0.5  # what rounding adds up to where nothing but decay acts
        ways = torch.stack([strayed(*pair) for pair in zip(self.parameters, self.start, strict=True)])
        counts = torch.tensor([parameter.numel() for parameter in self.parameters], device=ways.device)
        moved = ways > tolerance
        if broken := self._named(~ways.isfinite()):
            raise Stopped(
                f"{self.name} stopped after {self.steps} steps: {broken} hold numbers that are not finite; "
                f"lower the learning rate. {KEPT}"
            )
        if self.watched >= STEPS:
            self._stop(~self.reached, "got no gradient, or only zeros")
            self.reached.zero_()
            self.watched = 0
        if self.steps >= STEPS:
            # A step is about as large as its rate, but for gradients that Adam's epsilon of 1e-8 hides: those of an
            # attention's key bias are rounding errors alone. A hundredth of all steps has to be visible.
            sizes = torch.stack([start.float().square().mean().sqrt() for start in self.start])
            gradients = self.norms / counts.sqrt()
            shows = self.rates / 100 * gradients / (gradients + 1e-8) > tolerance * sizes
            self._stop(~moved & shows, "did not move, but for a common factor")
        return [int(counts[moved].sum()), int(counts.sum())]

    def _named(self, chosen: torch.Tensor) -> str:
        """How many of the parameters are chosen, and the first five by name; nothing where none is."""
        names = [name for name, one in zip(self.names, chosen.tolist(), strict=True) if one]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return f"{len(names)} of {len(self.names)} parameters ({', '.join(names[:5])}{more})" if names else ""

    def _stop(self, chosen: torch.Tensor, what: str) -> None:
        rests = torch.tensor([name in self.may_rest for name in self.names], device=chosen.device)
        if named := self._named(chosen & ~rests):
            raise Stopped(
                f"{self.name} stopped after {self.steps} steps: {named} {what}. They would stay what they began as, "
                "whatever the loss does. Look for a detach, for a layer that the loss does not use or that the "
                "optimiser does not hold, and for torch.compile; take requires_grad from what is not to be trained. "
                f"{KEPT}"
            )


@contextmanager
def interrupts_wait() -> Iterator[Callable[[], None]]:
    """In a block of the main thread Ctrl-C waits for a call of the function that this gives, which then raises it; a second one does not.

    A step that is interrupted between its weights and the count of steps would be done twice.
    """
    waiting: list[int] = []

    def between_steps() -> None:
        if waiting:
            raise KeyboardInterrupt

    def keep(number: int, frame) -> None:
        between_steps()
        waiting.append(number)

    # Only the main thread may set what Ctrl-C does; where it is ignored, or somebody else's, it stays so.
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield between_steps
        return
    signal.signal(signal.SIGINT, keep)
    try:
        yield between_steps
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    between_steps()  # pressed in the last step

"""Muon: the optimiser that trains Pocket's matrices; everything else goes to AdamW.

A step of Adam scales every weight on its own. Muon instead makes the whole update of a weight matrix orthogonal, so
that no direction of it is much larger than another (Jordan et al. 2024, "Muon: an optimizer for hidden layers").
torch.optim.Muon takes matrices only; most weights here are convolutions, which this one reads as matrices of
(output channels, input channels x height x width). `bench/training.py` measures what it buys.
"""

from __future__ import annotations

from collections import defaultdict

import torch

#: The quintic of Jordan et al. 2024: five rounds of it push every singular value to about one.
QUINTIC = (3.4445, -4.7750, 2.0315)
#: Parts of the names of parameters that are left to AdamW: layers that read from or write to pixels, latents and tokens.
ADAMW = ("conv_in", "conv_out", "embedding")


def orthogonalize(matrices: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """(n, rows, columns) -> the same with all singular values near one, by Newton-Schulz iteration.

    With x = u s v^T, each round maps s to a s + b s^3 + c s^5 and leaves u and v alone. Singular values end
    between about 0.7 and 1.2, which trains as well as exactly one. The rounds are done on the small square
    x x^T, whose eigenvalues are s^2, and their product is applied to x once at the end: for a wide matrix, half the arithmetic.
    """
    a, b, c = QUINTIC
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    product = None
    for turn in range(rounds):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if turn < rounds - 1:
            gram = factor @ gram @ factor  # polynomials of one matrix commute
    x = product @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more dimensions, AdamW for the rest and for what `ADAMW` names.

    One learning rate serves both: Muon's update is scaled by 0.2 sqrt(max(rows, columns)), which gives it the size
    that Adam's has (Liu et al. 2025, arXiv 2502.16982). Weight decay is decoupled, and left out for vectors.

    `module`: whose parameters that require a gradient are trained.
    """

    def __init__(self, module: torch.nn.Module, lr: float, weight_decay: float = 0.01):
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        vectors = [parameter for _, parameter in named if parameter.ndim < 2]
        others = [p for name, p in named if p.ndim > 1 and any(word in name for word in ADAMW)]
        matrices = [p for name, p in named if p.ndim > 1 and not any(word in name for word in ADAMW)]
        groups = [
            {"params": matrices, "muon": True, "weight_decay": weight_decay},
            {"params": others, "muon": False, "weight_decay": weight_decay},
            {"params": vectors, "muon": False, "weight_decay": 0.0},
        ]
        defaults = {"lr": lr, "momentum": 0.95, "betas": (0.9, 0.99)}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """One update from the gradients that are there; a parameter without one is left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                (self._muon if group["muon"] else self._adamw)(parameters, group)
        return loss

    def _muon(self, parameters: list[torch.Tensor], group: dict) -> None:
        alike = defaultdict(list)  # matrices of one shape are orthogonalised together
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"]
            momentum.lerp_(parameter.grad, 1 - group["momentum"])
            update = parameter.grad.lerp(momentum, group["momentum"])  # Nesterov's look ahead
            alike[update.flatten(1).shape].append((parameter, update.flatten(1)))
        for shape, pairs in alike.items():
            scale = 0.2 * max(shape) ** 0.5
            own, updates = zip(*pairs, strict=True)
            for parameter, update in zip(own, orthogonalize(torch.stack(updates)), strict=True):
                parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[torch.Tensor], group: dict) -> None:
        first, second = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] += 1
        mean, square = ([state[name] for state in states] for name in ("mean", "square"))
        gradients = [parameter.grad for parameter in parameters]
        step = int(states[0]["step"])
        torch._foreach_lerp_(mean, gradients, 1 - first)
        torch._foreach_mul_(square, second)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - second)
        size = torch._foreach_div(square, 1 - second**step)
        torch._foreach_sqrt_(size)
        torch._foreach_add_(size, 1e-8)
        torch._foreach_addcdiv_(parameters, mean, size, -group["lr"] / (1 - first**step))

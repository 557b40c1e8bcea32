"""Has a network changed since it was made fast? `ChangeDetector` says what is seen of a change, and what is not."""

from __future__ import annotations

import operator
from contextlib import suppress
from itertools import chain, cycle

import torch
from torch.nn.modules import module as every

CHANGED = (
    "the model has changed since it was made fast, so it computes exactly, and slowly; "
    "call sdwidgets.speed_up(pipe) again to make it fast as it is now"
)


class ChangeDetector:
    """Whether a network still is what it was when it was last looked at.

    Seen are: a layer, a parameter or a buffer that was put in, taken out or replaced; one that was moved; one that was written to,
    by autograd's version counter, which rises at every operation in place (an optimiser's step, `copy_`, one row written under
    `no_grad`); and another value of any attribute of a layer, such as FreeU's scales, an attention processor or how a convolution pads.
    What is written through `.data` passes the counter by. It is seen where it reaches the middle of a tensor, as a LoRA that is
    fused does, for that moves a whole matrix; one row written so is not seen here. Nor is a change inside an object that is no
    tensor, such as a number in a processor. `speed="fast"` asks all at the first step of a run and a quarter of the layers at each of
    the others: what a callback changes in the midst of a run is seen within four steps.
    """

    def __init__(self, network: torch.nn.Module):
        self.network = network
        self.look()

    def look(self) -> None:
        """Remember what is there now."""
        layers = list(self.network.modules())
        self.parts = [Snapshot(layers[n::PARTS], self.network) for n in range(PARTS)]
        self.turns = cycle(self.parts)
        self.hooks = [hooks for m in layers[1:] for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self.hooks += [every._global_forward_hooks, every._global_forward_pre_hooks]

    def hooked(self) -> bool:
        """Whether a hook waits for a layer inside to be called, which nothing but the network itself does.

        One on the network as a whole is called all the same. Those that transformers leaves in a model sleep while nothing is collected.
        """
        return any(self.hooks) and any(
            not getattr(hook, "__module__", "").startswith("transformers.")
            for hooks in self.hooks
            for hook in hooks.values()
        )

    def _adapted(self) -> bool:
        return getattr(self.network, "_hf_peft_config_loaded", False)

    def in_place(self) -> bool:
        """The part of `unchanged` that leaves the numbers out: it asks the device nothing, and so waits for nothing."""
        return not self._adapted() and all(part.in_place() for part in self.parts)

    def unchanged(self) -> bool:
        """True where nothing has changed since `look`."""
        return not self._adapted() and all(part.unchanged() for part in self.parts)

    def unchanged_in_part(self) -> bool:
        """`unchanged` of a quarter of the layers, the next at every call. All of them take most of a millisecond of a large network,
        whose tensors lie all over the memory.
        """
        return not self._adapted() and next(self.turns).unchanged()


PARTS = 4


class Snapshot:
    """What some layers of a network held, and were, at a certain time. It is asked often, so it is written to be cheap."""

    def __init__(self, layers: list[torch.nn.Module], network: torch.nn.Module):
        # Where layers hold what they hold: `parameters()`, which walks through all of them, takes longer than all that is asked here.
        # Most are empty, and what is put into one of those is called by nothing without a change of something else.
        self.shelves = [held for m in layers for held in (m._modules, m._parameters, m._buffers) if held]
        self.held = self._on_the_shelves()
        self.tensors = [thing for thing in self.held if isinstance(thing, torch.Tensor)]
        self.addresses = list(map(torch.Tensor.data_ptr, self.tensors))
        self.counted = [t for t in self.tensors if not t.is_inference()]  # inference tensors have no counter
        self.versions = [t._version for t in self.counted]
        self.numbers = [
            t.data.view(-1)[t.numel() // 2 : t.numel() // 2 + 4] for t in self.tensors if t.is_contiguous()
        ]
        self.before = torch.cat(self.numbers).clone() if self.numbers else None
        # The network's own `forward` is replaced on purpose.
        self.attributes = [vars(m) for m in layers if m is not network]
        self.values = [dict(names) for names in self.attributes]

    def _on_the_shelves(self) -> list:
        return list(chain.from_iterable(map(dict.values, self.shelves)))

    def in_place(self) -> bool:
        now = self._on_the_shelves()
        return (
            len(now) == len(self.held)
            and all(map(operator.is_, now, self.held))
            and list(map(torch.Tensor.data_ptr, self.tensors)) == self.addresses
            and self._same_attributes()
        )

    def _same_attributes(self) -> bool:
        with suppress(RuntimeError, ValueError):  # of arrays, which cannot be told equal
            if self.attributes == self.values:
                return True
            # A switch that was put on and off again, such as FreeU's, leaves a None where nothing was.
            for number, sides in enumerate(zip(self.attributes, self.values, strict=True)):
                now, before = ({k: v for k, v in side.items() if v is not None} for side in sides)
                if now != before:
                    return False
                self.values[number] = dict(sides[0])
            return True
        return False

    def unchanged(self) -> bool:
        return (
            self.in_place()
            and [t._version for t in self.counted] == self.versions
            and (self.before is None or torch.equal(torch.cat(self.numbers), self.before))
        )

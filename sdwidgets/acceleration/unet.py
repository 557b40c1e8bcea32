"""A U-Net as a graph of tensors; what follows from the text alone and from the timestep alone is computed once."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable

import torch

from .decoder import without_hooks
from .openvino_graph import Compiled

KEPT_PROMPTS = 8  # pairs of prompts whose keys and values are kept, about 0.8 MB each for Pocket
KEPT_TIMES = 1000


class Slot(torch.nn.Module):
    """Stands where a layer stood whose answer is known beforehand, and gives that answer."""

    answer: torch.Tensor

    def forward(self, *_):
        return self.answer


class PrecomputedInputs:
    """What a U-Net computes from the text alone and from the timestep alone, by the U-Net's own layers, kept."""

    def __init__(self, unet):
        self.unet = unet
        self.projections = [n for n, m in unet.named_modules() if n.endswith(".time_emb_proj") and m is not None]
        crossing = [n for n, m in unet.named_modules() if getattr(m, "is_cross_attention", False)]
        self.kv_projections = [f"{name}.{part}" for name in crossing for part in ("to_k", "to_v")]
        self.reading: Compiled | None = None  # the readers as one graph
        self.known_times: OrderedDict[float, torch.Tensor] = OrderedDict()
        self.known_texts: list[tuple[torch.Tensor, tuple[torch.Tensor, ...]]] = []

    def layers(self, names: list[str]) -> list[torch.nn.Module]:
        return [self.unet.get_submodule(name) for name in names]

    def times(self, timestep: float) -> torch.Tensor:
        """What a timestep adds to every block, side by side: (1, all their channels)."""
        if timestep not in self.known_times:
            unet = self.unet
            embedding = unet.time_embedding(unet.time_proj(torch.tensor([timestep])))
            blocks = [unet.get_submodule(name.rpartition(".")[0]) for name in self.projections]
            added = [b.time_emb_proj(embedding if b.skip_time_act else b.nonlinearity(embedding)) for b in blocks]
            self.known_times[timestep] = torch.cat(added, 1)
            if len(self.known_times) > KEPT_TIMES:
                self.known_times.popitem(last=False)
        return self.known_times[timestep]

    def texts(self, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values of every cross-attention, in turn: each (batch, tokens, channels). `states`: the text's."""
        for index, (known, answer) in enumerate(self.known_texts):
            if known.shape == states.shape and torch.equal(known, states):
                if index:  # the newest first
                    self.known_texts.insert(0, self.known_texts.pop(index))
                return answer
        layers = self.layers(self.kv_projections)
        each = lambda: tuple(layer(states) for layer in layers)
        if self.reading is None:
            answer = each()
        else:
            together = self.reading(states, exact=lambda: torch.cat(each(), -1))
            answer = together.split([layer.out_features for layer in layers], -1)
        self.known_texts = [(states.clone(), answer), *self.known_texts[: KEPT_PROMPTS - 1]]
        return answer


class _ReadersGraph(torch.nn.Module):
    """All keys and values of a text side by side: (batch, tokens, width) -> (batch, tokens, all their channels)."""

    def __init__(self, layers: list[torch.nn.Linear]):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), False)

    def forward(self, states):
        return torch.nn.functional.linear(states, self.weight)


class UNetGraph(torch.nn.Module):
    """A U-Net as a function of tensors, which is what can be traced: what `PrecomputedInputs` knows comes from outside."""

    def __init__(self, unet, precomputed: PrecomputedInputs):
        super().__init__()
        self.unet = copy.deepcopy(unet)
        without_hooks(self.unet)
        sizes = [layer.out_features for layer in precomputed.layers(precomputed.projections)]
        self.sizes, self.time_slots, self.text_slots = sizes, [], []
        for names, slots in (
            (precomputed.projections, self.time_slots),
            (precomputed.kv_projections, self.text_slots),
        ):
            for name in names:
                slots.append(Slot())
                self.unet.set_submodule(name, slots[-1])

    def forward(self, sample, times, *texts):
        for slot, answer in zip(self.time_slots, times.split(self.sizes, 1), strict=True):
            slot.answer = answer
        for slot, answer in zip(self.text_slots, texts, strict=True):
            slot.answer = answer
        # Of the text only batch and number of tokens are still asked, of the timestep nothing.
        return self.unet(sample, torch.tensor(0.0), texts[0], return_dict=False)[0]


def compiled_unet(unet, precomputed: PrecomputedInputs, noise, states, folder) -> Compiled:
    with torch.no_grad():
        layers = precomputed.layers(precomputed.kv_projections)
        if all(type(layer) is torch.nn.Linear and layer.bias is None for layer in layers):
            graph = _ReadersGraph(layers)
            precomputed.reading = Compiled(unet, graph, (states,), folder, graph, precision="f32")
        inputs = (noise, precomputed.times(501.0), *precomputed.texts(states))
        expected = functools.partial(unet, timestep=501.0, encoder_hidden_states=states, return_dict=False)
        return Compiled(unet, UNetGraph(unet, precomputed), inputs, folder, lambda *t: expected(t[0])[0])


def unet_forward(unet, graph: Compiled, precomputed: PrecomputedInputs) -> Callable:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    factor = 2**unet.num_upsamplers  # sides that it does not divide take another way through the network
    last = (None, None, 0.0)  # states, shape and timestep of the call before, where the graph answered it

    def forward(self, sample, timestep, encoder_hidden_states, *more, return_dict=True, **others):
        nonlocal last
        bare = self is unet and not more and all(value is None for value in others.values())  # not a copy of it
        one_time = not isinstance(timestep, torch.Tensor) or timestep.numel() == 1
        states = encoder_hidden_states
        fits = states is not None and states.dtype == torch.float32 and len(states) == len(sample)
        divides = not any(side % factor for side in sample.shape[-2:])
        now = float(timestep) if one_time else 0.0
        # In a run the states are one tensor, and time runs backwards.
        midst = states is last[0] and sample.shape == last[1] and now < last[2]
        covered = bare and one_time and fits and divides and graph.covers(sample, midst)
        last = (states, sample.shape, now) if covered else (None, None, 0.0)
        if not covered:
            return type(self).forward(
                self, sample, timestep, encoder_hidden_states, *more, return_dict=return_dict, **others
            )
        output = graph(
            sample, precomputed.times(now), *precomputed.texts(states),
            exact=lambda: type(self).forward(self, sample, timestep, states, return_dict=False)[0],
        )  # fmt: skip
        return UNet2DConditionOutput(sample=output) if return_dict else (output,)

    return forward

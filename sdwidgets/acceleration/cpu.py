"""The same pipeline, computed faster: `load(name, speed="fast")`, or `speed_up(pipe)`.

On a CPU, U-Net, VAE decoder and a CLIP text encoder run through OpenVINO, rewritten where the same numbers can be had for less work (below). On a
CUDA card see `speed_gpu.py`. The pipeline stays diffusers' own and is called, recorded and saved as before: only `forward` of
its networks is replaced, on the instance, and where there is no card the pipeline's class by one that does not look for it. What the
compiled network does not cover - a gradient, an adapter, an attention processor, a LoRA, FreeU, a hook on one of its layers, changed
weights - is computed by the network itself, so it is slower and not wrong. `Watched` says what is seen of such a change, and what is not.

What is saved, beside what OpenVINO does:
- Keys and values of the text are computed once a prompt, not once a step; so is what a timestep adds to each block.
- In the decoder, doubling both sides and then convolving with 3x3 weights is one transposed convolution: 4 products instead
  of 9; and a GroupNorm takes its sums channel by channel, as convolutions leave them. (In the U-Net, whose sides are small,
  both were slower.)
- The halves of guidance are two calls on half the threads each, where that was measured to be faster than one call on all.
- A caption that was encoded is not encoded again.
- Nothing small goes to PyTorch's threads between two networks: they then wait, spinning, for more work on the cores that OpenVINO needs.

Graphs lie in the cache folder, so a second start is quick; so does what was measured, once a machine: whether bfloat16 is
faster, and one call or two.
"""

from __future__ import annotations

import contextvars
import copy
import functools
import hashlib
import json
import operator
import os
import sys
import tempfile
import time
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.modules import module as every

from ..paths import cache_folder

SPEEDS = ("exact", "fast")
KEPT = 256  # captions whose states are kept
KEPT_PROMPTS = 8  # pairs of prompts whose keys and values are kept, about 0.8 MB each for Pocket
KEPT_TIMES = 1000
KEPT_SHAPES = 8


def speed_up(pipe) -> str:
    """Make a pipeline fast, in place; returns a few words on how. Call it again after weights were changed on purpose.

    The pictures differ from the exact ones by rounding; `python -m bench` measures how far. `slow_down(pipe)` takes
    everything back. On a CPU: raises ImportError where OpenVINO is not installed, TypeError for a pipeline without a U-Net of
    Stable Diffusion 1's shape, ValueError for another precision than float32, RuntimeError where what OpenVINO computes is wrong;
    the pipeline is then as it was before it was made fast. On CUDA see `speed_gpu.speed_up_gpu`.
    """
    unet, decoder = getattr(pipe, "unet", None), getattr(getattr(pipe, "vae", None), "decoder", None)
    if torch.device(pipe.device).type == "cuda":
        from .cuda import speed_up_gpu

        return speed_up_gpu(pipe)
    openvino = _import_openvino()
    if unet is None or decoder is None or getattr(unet.config, "addition_embed_type", None):
        raise TypeError(
            f"speed='fast' on a CPU knows pipelines of Stable Diffusion 1's and 2's shape, not {type(pipe).__name__}; use speed='exact'"
        )
    if unet.device.type != "cpu" or unet.dtype != torch.float32:
        raise ValueError(
            f"this way of speed='fast' is for float32 on a CPU, and the pipeline is {unet.dtype} on {unet.device}"
        )
    slow_down(pipe)
    folder = cache_folder() / "compiled"
    cells = unet.config.sample_size
    cells = (cells, cells) if isinstance(cells, int) else tuple(cells)
    given = _Given(unet)
    # Of a caption, not random ones: bfloat16 is judged by what the U-Net is used for, and noise as text can be many times as wrong.
    with torch.no_grad():
        told, empty = pipe.encode_prompt("a cat", unet.device, 1, True)
    noise = torch.zeros(2, unet.config.in_channels, *cells)
    graph = _compiled_unet(unet, given, noise, torch.cat([empty, told]), folder, openvino)
    latents = torch.zeros(1, pipe.vae.config.latent_channels, *cells)
    smaller = _rewritten_decoder(copy.deepcopy(decoder))
    decoding = Compiled(decoder, smaller, (latents,), folder, openvino)
    _replace(unet, _unet_forward(unet, graph, given))
    reading = _compiled_encoder(pipe, folder, openvino)
    _replace(decoder, _decoder_forward(decoder, decoding))
    if _is_pointwise(getattr(pipe.vae, "post_quant_conv", None)):
        _replace(pipe.vae.post_quant_conv, _pointwise_forward)
    _replace(pipe.image_processor, _postprocess, "postprocess")
    remember_captions(pipe, reading)
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pipe.__class__ = _on_the_processor(type(pipe))
    return f"fast: OpenVINO {openvino.__version__.split('-')[0]}, {graph.plan.precision}"


def slow_down(pipe) -> None:
    """Give a pipeline its own arithmetic back."""
    undo = vars(pipe).pop("_sdwidgets_undo", None)  # what speed_gpu has changed beside `forward`
    if undo is not None:
        undo()
    for network in (
        getattr(pipe, "unet", None),
        getattr(pipe, "transformer", None),
        getattr(getattr(pipe, "vae", None), "decoder", None),
        getattr(getattr(pipe, "vae", None), "post_quant_conv", None),
        *(getattr(pipe, name, None) for name in _ENCODERS),
    ):
        if network is not None:
            vars(network).pop("forward", None)
    vars(getattr(pipe, "image_processor", None) or types.SimpleNamespace()).pop("postprocess", None)
    if "_sdwidgets_own" in vars(type(pipe)):
        pipe.__class__ = type(pipe)._sdwidgets_own


@functools.cache
def _on_the_processor(cls: type) -> type:
    """A pipeline's class that does not ask where it computes, for a machine without a card, where there is one answer.

    diffusers' own walks at every call through all layers of all parts, for hooks that name another device: a twentieth of a turbo
    picture. It has the name of the class that it is made of, which is what diffusers saves and looks pipelines up by.
    """
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(cls.__name__, (cls,), names | {"_sdwidgets_own": cls, "_execution_device": torch.device("cpu")})


_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

_spared = contextvars.ContextVar("cores that are left to others", default=0)


@contextmanager
def sparing_a_core():
    """In a block: what a fast pipeline computes on a CPU leaves a core to others, on a machine of two or more.

    For the hand that moves a slider: page, server and kernel's messages need about a core for as long as it moves. Threads that
    share a picture wait for the one that was interrupted, so on two cores one that is left alone draws more pictures than two.
    """
    token = _spared.set(1)
    try:
        yield
    finally:
        _spared.reset(token)


def _threads() -> int:
    return max(1, torch.get_num_threads() - _spared.get())


def remember_captions(pipe, reading: Compiled | None = None) -> None:
    """Let the text encoders answer from memory what they were asked before; `reading`: a graph of the first of them."""
    for name in _ENCODERS:
        if getattr(pipe, name, None) is not None:
            graph = reading if name == "text_encoder" else None
            _replace(getattr(pipe, name), _remembered(getattr(pipe, name), graph))


def _replace(thing, method: Callable, name: str = "forward") -> None:
    setattr(thing, name, types.MethodType(functools.wraps(getattr(type(thing), name))(method), thing))


# ---- the three networks --------------------------------------------------------------------------------------


class _Slot(torch.nn.Module):
    """Stands where a layer stood whose answer is known beforehand, and gives that answer."""

    answer: torch.Tensor

    def forward(self, *_):
        return self.answer


class _Given:
    """What a U-Net computes from the text alone and from the timestep alone, by the U-Net's own layers, kept."""

    def __init__(self, unet):
        self.unet = unet
        self.projections = [
            n for n, m in unet.named_modules() if n.endswith(".time_emb_proj") and m is not None
        ]
        crossing = [n for n, m in unet.named_modules() if getattr(m, "is_cross_attention", False)]
        self.readers = [f"{name}.{part}" for name in crossing for part in ("to_k", "to_v")]
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
            added = [
                b.time_emb_proj(embedding if b.skip_time_act else b.nonlinearity(embedding)) for b in blocks
            ]
            self.known_times[timestep] = torch.cat(added, 1)
            if len(self.known_times) > KEPT_TIMES:
                self.known_times.popitem(last=False)
        return self.known_times[timestep]

    def texts(self, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values of every cross-attention, in turn: each (batch, tokens, channels). `states`: the text's."""
        for place, (known, answer) in enumerate(self.known_texts):
            if known.shape == states.shape and torch.equal(known, states):
                if place:  # the newest first
                    self.known_texts.insert(0, self.known_texts.pop(place))
                return answer
        layers = self.layers(self.readers)
        each = lambda: tuple(layer(states) for layer in layers)  # noqa: E731
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


class _UNetGraph(torch.nn.Module):
    """A U-Net as a function of tensors, which is what can be traced: what `_Given` knows comes from outside."""

    def __init__(self, unet, given: _Given):
        super().__init__()
        self.unet = copy.deepcopy(unet)
        _without_hooks(self.unet)
        sizes = [layer.out_features for layer in given.layers(given.projections)]
        self.sizes, self.time_slots, self.text_slots = sizes, [], []
        for names, slots in ((given.projections, self.time_slots), (given.readers, self.text_slots)):
            for name in names:
                slots.append(_Slot())
                self.unet.set_submodule(name, slots[-1])

    def forward(self, sample, times, *texts):
        for slot, answer in zip(self.time_slots, times.split(self.sizes, 1), strict=True):
            slot.answer = answer
        for slot, answer in zip(self.text_slots, texts, strict=True):
            slot.answer = answer
        # Of the text only batch and number of tokens are still asked, of the timestep nothing.
        return self.unet(sample, torch.tensor(0.0), texts[0], return_dict=False)[0]


def _compiled_unet(unet, given: _Given, noise, states, folder, openvino) -> Compiled:
    with torch.no_grad():
        layers = given.layers(given.readers)
        if all(type(layer) is torch.nn.Linear and layer.bias is None for layer in layers):
            graph = _ReadersGraph(layers)
            given.reading = Compiled(unet, graph, (states,), folder, openvino, graph, plan=Plan("f32", 1))
        inputs = (noise, given.times(501.0), *given.texts(states))
        expected = functools.partial(unet, timestep=501.0, encoder_hidden_states=states, return_dict=False)
        return Compiled(unet, _UNetGraph(unet, given), inputs, folder, openvino, lambda *t: expected(t[0])[0])


def _without_hooks(network: torch.nn.Module) -> None:
    """Take the hooks out of a copy: what is traced is kept for later starts, and they belong to this one."""
    for module in network.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()


def _rewritten_decoder(network: torch.nn.Module) -> torch.nn.Module:
    """A copy of a VAE's decoder with layers that give the same numbers for less work; in place."""
    from diffusers.models.upsampling import Upsample2D

    _without_hooks(network)
    for name, module in list(network.named_modules()):
        doubles = isinstance(module, Upsample2D) and module.interpolate and module.norm is None
        if doubles and module.name == "conv" and isinstance(module.conv, torch.nn.Conv2d):
            if module.conv.kernel_size == (3, 3) and module.conv.padding == (1, 1):
                network.set_submodule(name, DoubleAndConvolve(module.conv))
        # The one of an attention gets (batch, channels, places), which is not worth it.
        if isinstance(module, torch.nn.GroupNorm) and module.affine and not name.endswith("group_norm"):
            network.set_submodule(name, ChannelwiseGroupNorm(module))
    return network


class ChannelwiseGroupNorm(torch.nn.Module):
    """A GroupNorm of pictures by sums over each channel, which are then put together by group: (n, c, h, w) -> the same.

    torch's own asks for a group's channels side by side. OpenVINO's convolutions keep the channels of a place side by side, so
    every norm made it turn the whole picture round and back; sums over a channel are taken as it lies.
    """

    def __init__(self, norm: torch.nn.GroupNorm):
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def _of_groups(self, x):
        """The mean of every group, at each of its channels: (n, c, h, w) -> (n, c, 1, 1)."""
        channels = x.mean((2, 3), keepdim=True).unflatten(1, (self.groups, -1))
        return channels.mean(2, keepdim=True).expand_as(channels).flatten(1, 2)

    def forward(self, x):
        centred = x - self._of_groups(x)  # first, so that no small difference of large squares is needed
        scale = torch.rsqrt(self._of_groups(centred * centred) + self.eps) * self.weight[:, None, None]
        return centred * scale + self.bias[:, None, None]


class DoubleAndConvolve(torch.nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution, in one: (n, c, h, w) -> (n, c', 2h, 2w).

    In one dimension, with weights a, b, c: an even place 2i reads x[i-1], x[i], x[i], an odd one x[i], x[i], x[i+1]. So it is
    a x[i-1] + (b + c) x[i], and (a + b) x[i] + c x[i+1]: a transposed convolution of stride 2 with weights c, b + c, a + b, a.
    """

    def __init__(self, convolution: torch.nn.Conv2d):
        super().__init__()
        spread = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        weight = torch.einsum("ak,oikl,bl->ioab", spread, convolution.weight.detach().float(), spread)
        self.weight = torch.nn.Parameter(
            weight.to(convolution.weight.dtype).contiguous(), requires_grad=False
        )
        self.bias = convolution.bias

    def forward(self, x, *_):
        return torch.nn.functional.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)


def _unet_forward(unet, graph: Compiled, given: _Given) -> Callable:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    factor = 2**unet.num_upsamplers  # sides that it does not divide take another way through the network
    last = (None, None, 0.0)  # states, shape and timestep of the call before, where the graph answered it

    def forward(self, sample, timestep, encoder_hidden_states, *more, return_dict=True, **others):
        nonlocal last
        bare = (
            self is unet and not more and all(value is None for value in others.values())
        )  # not a copy of it
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
            sample, given.times(now), *given.texts(states),
            exact=lambda: type(self).forward(self, sample, timestep, states, return_dict=False)[0],
        )  # fmt: skip
        return UNet2DConditionOutput(sample=output) if return_dict else (output,)

    return forward


def _decoder_forward(decoder, graph: Compiled) -> Callable:
    def forward(self, sample, *more, **others):
        bare = not any(value is not None for value in (*more, *others.values()))
        if self is not decoder or not bare or not graph.covers(sample):
            return type(self).forward(self, sample, *more, **others)
        return graph(sample, exact=lambda: type(self).forward(self, sample))

    return forward


SERIAL = 32_768  # numbers up to which PyTorch computes on the calling thread alone


def _is_pointwise(layer) -> bool:
    """Whether a layer is the 1x1 convolution of a few channels that stands before a VAE's decoder."""
    return isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1 and layer.stride == (1, 1)


def _pointwise_forward(self, sample):
    """A 1x1 convolution of few numbers without a thread; of many by the layer itself."""
    products = self.out_channels * sample.numel()
    if products > SERIAL or sample.ndim != 4 or self.padding != (0, 0):
        return type(self).forward(self, sample)
    answer = (self.weight[:, :, 0] * sample.flatten(2)[:, None]).sum(2)
    if self.bias is not None:
        answer = answer + self.bias[:, None]
    return answer.unflatten(2, sample.shape[2:])


def _postprocess(self, image, output_type="pil", do_denormalize=None):
    """An image processor's last step, [-1, 1] to pictures, with the same numbers and without threads; others than usual by itself."""
    plain = isinstance(image, torch.Tensor) and image.dtype == torch.float32 and image.device.type == "cpu"
    all_of_them = self.config.do_normalize if do_denormalize is None else all(do_denormalize)
    if not plain or image.requires_grad or not all_of_them or output_type not in ("np", "pil"):
        return type(self).postprocess(self, image, output_type, do_denormalize)
    pictures = np.clip(image.numpy() * np.float32(0.5) + np.float32(0.5), 0, 1).transpose(0, 2, 3, 1)
    return pictures if output_type == "np" else self.numpy_to_pil(pictures)


class _EncoderGraph(torch.nn.Module):
    """A CLIP text encoder as a function of its tokens' rows of the table, which may change: (1, tokens, width) -> states."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        vars(self.encoder).pop("forward", None)
        _without_hooks(self.encoder)
        self.slot = _Slot()
        self.encoder.set_input_embeddings(self.slot)

    def forward(self, rows):
        self.slot.answer = rows
        return self.encoder(torch.zeros(rows.shape[:2], dtype=torch.long), return_dict=False)[0]


def _compiled_encoder(pipe, folder: Path, openvino) -> Compiled | None:
    """The graph of a CLIP text encoder without projection, in float32, since states are small work and all else rests on them.

    None for another encoder, and for one that OpenVINO cannot read or reads wrongly: the encoder then answers itself.
    """
    encoder, tokenizer = getattr(pipe, "text_encoder", None), getattr(pipe, "tokenizer", None)
    if type(encoder).__name__ != "CLIPTextModel" or encoder.dtype != torch.float32 or tokenizer is None:
        return None
    with torch.no_grad(), suppress(Exception):
        tokens = pipe.tokenizer("a cat", padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt").input_ids  # fmt: skip
        rows = encoder.get_input_embeddings()(tokens)
        graph = _EncoderGraph(encoder).eval()
        reading = Compiled(encoder, graph, (rows,), folder, openvino, graph, plan=Plan("f32", 1))
        # The graph knows no ids; an encoder that asks them for more than rows, such as which are padding, is not it.
        if relative_error(reading(rows), type(encoder).forward(encoder, tokens)[0]) < 1e-3:
            return reading
    return None


def _read(encoder, graph: Compiled | None, input_ids, rows, others: dict):
    """What a text encoder answers to (n, tokens) ids, of which `rows` are the rows of the table; one caption by its graph."""
    plain = not any(value for name, value in others.items() if name != "return_dict")
    whole = others.get("return_dict") is not False and len(rows) == 1
    if graph is None or not plain or not whole or not graph.watched.unchanged() or rows.dtype != torch.float32:
        return type(encoder).forward(encoder, input_ids, **others)
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    states = graph(rows, exact=lambda: type(encoder).forward(encoder, input_ids)[0])
    ends = encoder.config.eos_token_id  # as CLIPTextModel pools: 2 stands in old configurations for the largest id
    places = (input_ids if ends == 2 else (input_ids == ends).int()).argmax(-1)
    return BaseModelOutputWithPooling(states, states[torch.arange(len(states)), places])


def _remembered(encoder, graph: Compiled | None = None) -> Callable:
    """A text encoder's forward that knows its last answers, each by the tokens and by the rows of the table that they read.

    So a row that was written to counts, whichever way it was: diffusers' textual inversion writes past autograd's counter.
    """
    known: OrderedDict = OrderedDict()
    watched = Watched(encoder)

    def forward(self, input_ids=None, *more, **others):
        plain = not more and all(isinstance(value, (bool, type(None))) for value in others.values())
        here = self is encoder and isinstance(input_ids, torch.Tensor)
        if not here or not plain or torch.is_grad_enabled() or watched.hooked():
            return type(self).forward(self, input_ids, *more, **others)
        if not watched.unchanged():
            known.clear()
            watched.look()
        rows = self.get_input_embeddings()(input_ids).contiguous()
        bytes_of_rows = rows.view(torch.uint8).cpu().numpy()
        key = (
            input_ids.shape, input_ids.cpu().numpy().tobytes(), hashlib.sha256(bytes_of_rows).digest(), tuple(sorted(others.items()))
        )  # fmt: skip
        if key not in known:
            known[key] = _read(self, graph, input_ids, rows, others)
            if len(known) > KEPT:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]

    return forward


# ---- weights that may change -----------------------------------------------------------------------------------


class Watched:
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
        self.parts = [_Look(layers[n::PARTS], self.network) for n in range(PARTS)]
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


class _Look:
    """What some layers of a network held, and were, at a certain time. It is asked often, so it is written to be cheap."""

    def __init__(self, layers: list[torch.nn.Module], network: torch.nn.Module):
        # Where layers hold what they hold: `parameters()`, which walks through all of them, takes longer than all that is asked here.
        # Most are empty, and what is put into one of those is called by nothing without a change of something else.
        self.shelves = [held for m in layers for held in (m._modules, m._parameters, m._buffers) if held]
        self.held = self._on_the_shelves()
        self.tensors = [thing for thing in self.held if isinstance(thing, torch.Tensor)]
        self.places = list(map(torch.Tensor.data_ptr, self.tensors))
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
            and list(map(torch.Tensor.data_ptr, self.tensors)) == self.places
            and self._same_attributes()
        )

    def _same_attributes(self) -> bool:
        with suppress(RuntimeError, ValueError):  # of arrays, which cannot be told equal
            if self.attributes == self.values:
                return True
            # A switch that was put on and off again, such as FreeU's, leaves a None where nothing was.
            for place, sides in enumerate(zip(self.attributes, self.values, strict=True)):
                now, before = ({k: v for k, v in side.items() if v is not None} for side in sides)
                if now != before:
                    return False
                self.values[place] = dict(sides[0])
            return True
        return False

    def unchanged(self) -> bool:
        return (
            self.in_place()
            and [t._version for t in self.counted] == self.versions
            and (self.before is None or torch.equal(torch.cat(self.numbers), self.before))
        )


# ---- OpenVINO ----------------------------------------------------------------------------------------------------


def _import_openvino():
    """OpenVINO without its telemetry, which would tell its maker of every import and conversion, unasked."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault(
            "openvino_telemetry", None
        )  # cannot be imported: OpenVINO then has a stub for it
    try:
        import openvino
    except ImportError as error:
        raise ImportError("speed='fast' on a CPU needs OpenVINO: pip install 'sdwidgets[fast]'") from error
    return openvino


class Plan(NamedTuple):
    """How a graph is run: in which precision, and a batch in how many parts at once."""

    precision: str  # "f32" or "bf16"
    parts: int  # 1, or 2: each half of the batch on half the threads


class Compiled:
    """A network as OpenVINO runs it; `example`: tensors of the shapes that `graph` is traced with, the batch first.

    Call it with tensors of any batch size and any height and width; every new shape is compiled once, in about a second, and its
    first answer compared with `exact()`, the network's own: where it is wrong, that shape is computed by the network from then on.
    Returns a tensor of its own. `graph`: a module that computes what `network` does, and may be thrown away afterwards.
    `expected`: what it is compared with, by default the network. `plan`: by default the fastest, as measured. Inputs other than the first may be kept: they must not be
    written to later.
    """

    def __init__(
        self, network, graph, example: tuple[torch.Tensor, ...], folder: Path, openvino, expected=None, plan: Plan | None = None
    ):
        self.watched = Watched(network)
        self.channels = example[0].shape[1]
        self.said = False
        self.openvino = openvino
        with suppress(OSError):  # a folder that cannot be written costs time, nothing else
            folder.mkdir(parents=True, exist_ok=True)
        # Not CACHE_DIR: with it, what version 2026.4 read back in bfloat16 gave NaN. Compiling takes under a second.
        self.core = openvino.Core()
        self.model, self.digest = _convert(graph, example, folder, openvino)
        self.runners: dict[tuple, _Runner | None] = {}  # by threads and shapes; None: the network itself
        self.plan = plan or _faster_plan(self, example, folder)
        self.check(expected or network, example)

    def covers(self, sample: torch.Tensor, midst: bool = False) -> bool:
        """Whether a call with this first tensor may be answered here. Says once, as a warning, that weights have changed.

        midst: in the midst of a run whose first call was covered: only a part of the network is asked whether it has changed.
        """
        alike = (
            sample.dtype == torch.float32 and sample.device.type == "cpu" and sample.shape[1] == self.channels
        )
        if torch.is_grad_enabled() or not alike or self.watched.hooked():
            return False
        if self.watched.unchanged_in_part() if midst else self.watched.unchanged():
            return True
        if not self.said:
            self.said = True
            warnings.warn(CHANGED, stacklevel=2)
        return False

    @torch.no_grad()
    def check(self, expected: Callable, example: tuple[torch.Tensor, ...]) -> None:
        """Compare with the network on noise, before anyone relies on it; falls back to float32 where bfloat16 is wrong.

        Raises RuntimeError where float32 is wrong too.
        """
        noise = torch.randn(example[0].shape, generator=torch.Generator().manual_seed(0))
        right = expected(noise, *example[1:])
        error = relative_error(self(noise, *example[1:]), right)
        if error < ALLOWED_ERROR:  # not so where it is no number
            return
        if self.plan.precision == "f32":
            raise RuntimeError(
                f"what OpenVINO computes differs by {error:.1%} from the network; use speed='exact', and tell us of it"
            )
        self.plan = self.plan._replace(precision="f32")
        self.runners.clear()
        self.check(expected, example)

    def __call__(
        self, *tensors: torch.Tensor, exact: Callable[[], torch.Tensor] | None = None
    ) -> torch.Tensor:
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        key = (_threads(), shapes)
        if key in self.runners:
            runner = self.runners[key]
            return runner(tensors) if runner else exact()
        runner = _Runner(self, shapes, self.plan)
        answer = runner(tensors)
        if exact is not None and not relative_error(answer, right := exact()) < ALLOWED_ERROR:
            runner, answer = None, right
            warnings.warn(WRONG, stacklevel=3)
        self.runners[key] = runner
        if len(self.runners) > KEPT_SHAPES:  # each holds the weights once more
            self.runners.pop(next(iter(self.runners)))
        return answer


ALLOWED_ERROR = 0.05  # of the root mean square of the answer


def relative_error(answer: torch.Tensor, right: torch.Tensor) -> float:
    """The root mean square of the difference, as a share of that of `right`; of zeros, no difference is none."""
    difference, size = ((x.square().mean().sqrt()) for x in (answer - right, right))
    return float(difference / size.clamp(min=torch.finfo(size.dtype).tiny))


WRONG = (
    "what OpenVINO computes for pictures of this size or number is wrong, so they are computed exactly, and slowly; tell us of it"
)
CHANGED = (
    "the model has changed since it was made fast, so it computes exactly, and slowly; "
    "call sdwidgets.speed_up(pipe) again to make it fast as it is now"
)


class _Runner:
    """A graph compiled for inputs of these shapes, and the memory that it works on."""

    def __init__(self, compiled: Compiled, shapes: tuple[tuple[int, ...], ...], plan: Plan):
        batch = shapes[0][0]
        threads = _threads()
        parts = plan.parts if batch % plan.parts == 0 and threads >= plan.parts else 1
        # What does not have the batch's size - what a timestep adds - goes to every part whole.
        self.divided = [shape[0] == batch > 1 for shape in shapes]
        part = [
            [shape[0] // parts, *shape[1:]] if divided else list(shape)
            for shape, divided in zip(shapes, self.divided, strict=True)
        ]
        settings = {
            "INFERENCE_PRECISION_HINT": plan.precision, "INFERENCE_NUM_THREADS": threads // parts, "NUM_STREAMS": 1,
        }  # fmt: skip
        if parts > 1:
            settings["ENABLE_CPU_PINNING"] = False  # all would be pinned to the same core
        # A network for each part, so that the last can be computed by the thread that calls.
        models = [compiled.model.clone() for _ in range(parts)]
        for model in models:
            model.reshape(dict(enumerate(part)))
        with ThreadPoolExecutor(parts) as pool:
            self.networks = list(pool.map(lambda model: compiled.core.compile_model(model, "CPU", settings), models))
        self.requests = [network.create_infer_request() for network in self.networks]
        self.before: list[torch.Tensor | None] = [None] * len(shapes)
        self.read: list[list[torch.Tensor]] = [[] for _ in shapes]
        self.tensor = compiled.openvino.Tensor

    def __call__(self, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        for place, tensor in enumerate(tensors):
            if place == 0 or tensor is not self.before[place]:  # keys and values are set once a prompt
                self.put(place, tensor)
                self.before[place] = tensor
        *others, own = self.requests
        for request in others:
            request.start_async()
        # Not by a thread of its own: to start that one, this thread would often wait for the first, which may begin on its core.
        own.infer()
        for request in others:
            request.wait()
        if not others:
            return torch.from_numpy(own.get_output_tensor().data.copy())  # its memory is used again
        return torch.cat([torch.from_numpy(request.get_output_tensor().data) for request in self.requests])

    def put(self, place: int, tensor: torch.Tensor) -> None:
        tensor = tensor.detach()
        count = len(self.requests)
        pieces = tensor.chunk(count) if self.divided[place] else [tensor] * count
        # The request reads these tensors' own memory and does not keep it alive, so a copy in another order of memory has to be kept here.
        self.read[place] = [piece.contiguous() for piece in pieces]
        for request, piece in zip(self.requests, self.read[place], strict=True):
            request.set_input_tensor(place, self.tensor(piece.numpy(), shared_memory=True))


@torch.no_grad()
def _convert(network, example, folder: Path, openvino):
    """(The network as OpenVINO's graph: read from the cache folder, or traced and written there; the digest of what it is.)"""
    digest = hashlib.sha256(f"{openvino.__version__} {torch.__version__}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    for name, module in network.named_modules():
        digest.update(f"{name} {_plain(module)} {_plain(getattr(module, 'processor', None))}".encode())
    digest.update(str([tuple(tensor.shape) for tensor in example]).encode())
    digest = digest.hexdigest()[:20]
    file = folder / f"{type(network).__name__.strip('_').lower()}-{digest}.xml"
    if file.exists():
        with suppress(Exception):
            return openvino.Core().read_model(file), digest
        with suppress(OSError):  # a file that cannot be read is made again
            file.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing fixes what depends on shapes, and shapes are fixed here
        model = openvino.convert_model(network, example_input=example)
    with suppress(Exception), tempfile.TemporaryDirectory(dir=folder) as apart:
        openvino.save_model(model, Path(apart) / file.name, compress_to_fp16=False)
        # Another process may read or write here: no file is there half, and the one that is looked for comes last.
        for ending in (".bin", ".xml"):
            if not file.exists():
                os.replace((Path(apart) / file.name).with_suffix(ending), file.with_suffix(ending))
    return model, digest


def _plain(thing) -> str:
    """What decides the arithmetic of a layer beside its weights, as text: heads, epsilons, FreeU's scales; its class."""
    kind = lambda v: f"{type(v).__module__}.{type(v).__qualname__}"  # noqa: E731
    plain = (bool, int, float, str, tuple, type(None))
    public = sorted((k, v) for k, v in getattr(thing, "__dict__", {}).items() if not k.startswith("_"))
    return f"{kind(thing)} {[(k, v if isinstance(v, plain) else kind(v)) for k, v in public]}"


def _faster_plan(compiled: Compiled, example, folder: Path) -> Plan:
    """The plan by which this machine computes this graph fastest, the simpler one where the gain is below a twentieth.

    Measured once for each graph, machine, number of threads and version, in a second or two; the answer stands in `plans.json`
    until it cannot be compiled any more. What was compiled by the answer is kept in `compiled.runners`.
    """
    core, threads = compiled.core, torch.get_num_threads()
    precisions = [
        "f32",
        *(["bf16"] if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else []),
    ]
    parts = [1, *([2] if threads > 1 and example[0].shape[0] == 2 else [])]
    plans = [Plan(precision, count) for precision in precisions for count in parts]
    if len(plans) == 1:
        return plans[0]
    shapes = tuple(tuple(tensor.shape) for tensor in example)
    machine = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}, {os.environ.get('ONEDNN_MAX_CPU_ISA', 'all')}, {threads} threads, {compiled.openvino.__version__}, {compiled.digest}"
    file = folder / "plans.json"
    known = {}
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text())
    if machine in known and tuple(known[machine]) in plans:
        plan = Plan(*known[machine])
        with suppress(RuntimeError):  # then all are measured again
            compiled.runners[_threads(), shapes] = _Runner(compiled, shapes, plan)
            return plan
    runners: dict[Plan, _Runner] = {}
    for plan in plans:
        try:
            runners[plan] = _Runner(compiled, shapes, plan)
        except (
            RuntimeError
        ):  # told to do without AVX-512, OpenVINO still lists bfloat16, and cannot compile it
            if plan.precision == "f32":
                raise
    seconds: dict[Plan, list[float]] = {plan: [] for plan in runners}
    for _ in range(12):
        for plan, runner in runners.items():
            began = time.perf_counter()
            runner(example)
            seconds[plan].append(time.perf_counter() - began)
    least = {plan: min(taken[2:]) for plan, taken in seconds.items()}  # others on the machine only add
    best = plans[0]
    for plan in runners:
        if least[plan] < 0.95 * least[best]:
            best = plan
    known[machine] = best
    compiled.runners[_threads(), shapes] = runners[best]
    with suppress(OSError), tempfile.TemporaryDirectory(dir=folder) as apart:
        whole = Path(apart) / file.name
        whole.write_text(json.dumps(known, indent=1))
        os.replace(whole, file)
    return best

"""Attention processors in the place of a U-Net's own ones, for a while, and what a layer's attention is: what recording and editing share."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..acceleration.undo import is_fast

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel


def attention_unet(pipe: DiffusionPipeline, caller: str) -> UNet2DConditionModel:
    """The U-Net of a pipeline, if its cross-attention can be watched; `caller` names the function in errors.

    Raises TypeError for a pipeline without such a U-Net, and RuntimeError for one that was compiled or made fast.
    """
    from diffusers import UNet2DConditionModel

    unet = getattr(pipe, "unet", None)
    if unet is None and getattr(pipe, "transformer", None) is not None:
        raise TypeError(
            f"{caller}() looks at cross-attention, and {type(pipe).__name__} has none: in its transformer text and picture attend to"
            " each other in one joint attention; use a pipeline of Stable Diffusion 1, 2 or XL, for example"
            ' sdwidgets.load("pocket")'
        )
    compiled = isinstance(unet, torch.nn.Module) and any(
        hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in unet.modules()
    )
    if compiled:
        raise RuntimeError(
            f"{caller}() cannot look into a compiled U-Net; load the pipeline once more, without torch.compile, and use that"
        )
    if not isinstance(unet, UNet2DConditionModel):
        raise TypeError(
            f"{caller}() needs a pipeline with a UNet2DConditionModel, as Stable Diffusion 1, 2 and XL have; {type(pipe).__name__}"
            f' has {type(unet).__name__ if unet is not None else "none"}; one that works is sdwidgets.load("pocket")'
        )
    if (
        "forward" in vars(unet) and not hasattr(unet, "_hf_hook") and not is_fast(unet)
    ):  # accelerate's hook calls the network's own
        raise RuntimeError(
            f"{caller}() cannot look into a U-Net whose forward another library has replaced, as DeepCache does; let that library undo it first"
        )
    if is_fast(unet):
        raise RuntimeError(
            f"{caller}() cannot look into a U-Net that was made fast; call sdwidgets.acceleration.restore(pipe) first, and"
            " sdwidgets.speed_up(pipe) when you are done"
        )
    layers = [m for m in unet.modules() if hasattr(m, "get_processor")]
    odd = [m for m in layers if getattr(m, "added_kv_proj_dim", None) is not None]
    if odd or not any(getattr(m, "is_cross_attention", False) for m in layers):
        raise TypeError(
            f"{caller}() needs cross-attention between picture and text as in Stable Diffusion 1, 2 and XL, and this U-Net"
            f' {"mixes the text into its self-attention" if odd else "has none"}; one that works is sdwidgets.load("pocket")'
        )
    return unet


@contextmanager
def processors_replaced(unet: UNet2DConditionModel, make: Callable[[str, Callable], Callable]) -> Iterator[None]:
    """Put `make(layer's name, its own processor)` in the place of every attention processor until the block ends."""
    before = unet.attn_processors
    unet.set_attn_processor({key: make(key.removesuffix(".processor"), own) for key, own in before.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(dict(before))  # which takes entries out of the dictionary that it is given


class Processor:
    """An attention processor around a layer's own one, for the thread that made it: other threads' calls are the own one's alone.

    To the layer it looks like its own: the layer reads from the signature which keywords its processor takes, and drops all others.
    A subclass gives `attend`, what the layer answers on this thread.
    """

    def __init__(self, own: Callable):
        self.own, self.thread = own, threading.get_ident()
        self.__call__ = functools.wraps(own.__call__)(functools.partial(type(self).__call__, self))  # type: ignore

    def __call__(self, attn, *args, **kwargs):
        return (self.attend if threading.get_ident() == self.thread else self.own)(attn, *args, **kwargs)


def queries_and_keys(
    attn: torch.nn.Module, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Q and K of one layer, (batch, head, place, d) and (batch, head, token, d), from what its processor is called with."""
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
    if encoder_hidden_states is None:
        encoder_hidden_states = hidden_states
    elif attn.norm_cross:
        encoder_hidden_states = attn.norm_encoder_hidden_states(encoder_hidden_states)
    return split_heads(attn, attn.to_q(hidden_states)), split_heads(attn, attn.to_k(encoder_hidden_states))


def split_heads(attn: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """(batch, n, head * d) -> (batch, head, n, d)."""
    return states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def probabilities(
    attn: torch.nn.Module,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) of one diffusers `Attention` layer: (batch, head, place, token) float32, rows sum to 1.

    hidden_states: (batch, place, channels), what asks; encoder_hidden_states: (batch, token, width), what is asked, None for
    self-attention; attention_mask: (batch, 1, token), added to the scores.
    """
    queries, keys = queries_and_keys(attn, hidden_states, encoder_hidden_states)
    scores = queries.float() @ keys.float().mT * attn.scale
    if attention_mask is not None:
        scores = scores + attention_mask[:, None].float()
    return scores.softmax(-1)

"""What acceleration puts on a pipeline, and how it is taken back."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable

import torch

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def restore(pipe) -> None:
    """Give a pipeline its own arithmetic back."""
    undo = vars(pipe).pop("_sdwidgets_undo", None)  # what speed_gpu has changed beside `forward`
    if undo is not None:
        undo()
    vae = getattr(pipe, "vae", None)
    networks = [getattr(pipe, name, None) for name in ("unet", "transformer", *ENCODERS)]
    networks += [getattr(vae, name, None) for name in ("decoder", "post_quant_conv")]
    for network in networks:
        if is_fast(network):
            del network.forward
    if is_fast(processor := getattr(pipe, "image_processor", None), "postprocess"):
        del processor.postprocess
    if "_sdwidgets_own" in vars(type(pipe)):
        pipe.__class__ = type(pipe)._sdwidgets_own


@functools.cache
def on_the_processor(cls: type) -> type:
    """A pipeline's class that does not ask where it computes, for a machine without a card, where there is one answer.

    diffusers' own walks at every call through all layers of all parts, for hooks that name another device: a twentieth of a turbo
    picture. It has the name of the class that it is made of, which is what diffusers saves and looks pipelines up by.
    """
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(cls.__name__, (cls,), names | {"_sdwidgets_own": cls, "_execution_device": torch.device("cpu")})


def replace_method(thing, method: Callable, name: str = "forward") -> None:
    wrapped = functools.wraps(getattr(type(thing), name))(method)
    wrapped._sdwidgets_fast = True  # type: ignore[attr-defined]
    setattr(thing, name, types.MethodType(wrapped, thing))


def is_fast(thing, name: str = "forward") -> bool:
    """Whether `speed="fast"` has replaced this method. Others replace it too: accelerate where it moves parts, DeepCache."""
    return bool(getattr(getattr(thing, "__dict__", {}).get(name), "_sdwidgets_fast", False))

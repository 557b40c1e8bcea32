"""What each trick of `speed="fast"` gains on a CPU: fast as it is, and fast without one of them, taking turns.

    python -m bench --only tricks

A trick that gains less than a twentieth, of twenty guided steps or of turbo's four, is not worth its lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from unittest.mock import patch

from bench.harness import take_turns, times_of
from bench.ways import STEPS, TURBO_STEPS, draw


def without_precomputed(name: str) -> AbstractContextManager:
    """`PrecomputedInputs.times` or `.texts`, which compute anew at every call."""
    from sdwidgets.acceleration.unet import PrecomputedInputs

    method = getattr(PrecomputedInputs, name)

    def anew(self, value):
        getattr(self, f"known_{name}").clear()
        return method(self, value)

    return patch.object(PrecomputedInputs, name, anew)


def with_another(name: str, instead) -> AbstractContextManager:
    """Something else in the place of what a module of `sdwidgets.acceleration` calls by this name, "cpu.postprocess"."""
    return patch(f"sdwidgets.acceleration.{name}", instead)


def plain_postprocess(self, *arguments, **others):
    return type(self).postprocess(self, *arguments, **others)


TRICKS: dict[str, Callable[[], AbstractContextManager]] = {
    "keys and values once a prompt": partial(without_precomputed, "texts"),
    "timestep embeddings once": partial(without_precomputed, "times"),
    "upsampling as a transposed convolution": partial(with_another, "decoder.transpose_upsampling", lambda _: None),
    "GroupNorm by channel in the decoder": partial(with_another, "decoder.norm_by_channel", lambda _: None),
    "the text encoder by OpenVINO": partial(with_another, "cpu.compiled_encoder", lambda *_: None),
    # It knows its last caption alone, which is never the one that comes.
    "captions remembered": partial(with_another, "text_encoder.KEPT", 1),
    "a pipeline that does not look for its device": partial(with_another, "cpu.on_the_processor", lambda cls: cls),
    "a 1x1 convolution without threads": partial(with_another, "cpu.is_pointwise", lambda _: False),
    "postprocessing without threads": partial(with_another, "cpu.postprocess", plain_postprocess),
}


def tricks(pipes, effort) -> dict:
    """Fast without one of its tricks against fast, new prompts: how many times as long a picture takes."""
    times = {}
    for name in pipes.names("fast", "turbo, fast"):
        steps = STEPS if name == "fast" else TURBO_STEPS
        pipelines = {"all": (contextlib.nullcontext, pipes[name])}
        for trick, leave_out in TRICKS.items():
            with leave_out():
                pipe = pipes.load(name)
            pipe.set_progress_bar_config(disable=True)
            pipelines[trick] = leave_out, pipe

        def picture(turn, way, name=name, steps=steps, pipelines=pipelines):
            leave_out, pipe = pipelines[way]
            with leave_out():
                return draw(pipe, pipes.fresh(f"{name} without {way}")[0], seed=turn, steps=steps)

        ways = {way: partial(picture, way=way) for way in pipelines}
        seconds = take_turns(ways, 2 * effort.turns, budget=2 * effort.budget)
        times[name] = times_of(seconds, "all")
    return times

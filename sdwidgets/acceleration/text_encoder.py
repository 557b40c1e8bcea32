"""Captions that were encoded are not encoded again, and the text encoder as a graph."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from .change_detector import ChangeDetector
from .decoder import without_hooks
from .openvino_graph import Compiled, relative_error
from .undo import ENCODERS, replace_method
from .unet import Slot

KEPT = 256  # captions whose states are kept


def cache_text_encoder(pipe, reading: Compiled | None = None) -> None:
    """Let the text encoders answer from memory what they were asked before; `reading`: a graph of the first of them."""
    for name in ENCODERS:
        if getattr(pipe, name, None) is not None:
            graph = reading if name == "text_encoder" else None
            replace_method(getattr(pipe, name), _remembered(getattr(pipe, name), graph))


class _EncoderGraph(torch.nn.Module):
    """A CLIP text encoder as a function of its tokens' rows of the table, which may change: (1, tokens, width) -> states."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        vars(self.encoder).pop("forward", None)
        without_hooks(self.encoder)
        self.slot = Slot()
        self.encoder.set_input_embeddings(self.slot)

    def forward(self, rows):
        self.slot.answer = rows
        return self.encoder(torch.zeros(rows.shape[:2], dtype=torch.long), return_dict=False)[0]


def compiled_encoder(pipe, folder: Path) -> Compiled | None:
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
        reading = Compiled(encoder, graph, (rows,), folder, graph, precision="f32")
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
    positions = (input_ids if ends == 2 else (input_ids == ends).int()).argmax(-1)
    return BaseModelOutputWithPooling(states, states[torch.arange(len(states)), positions])


def _remembered(encoder, graph: Compiled | None = None) -> Callable:
    """A text encoder's forward that knows its last answers, each by the tokens and by the rows of the table that they read.

    So a row that was written to counts, whichever way it was: diffusers' textual inversion writes past autograd's counter.
    """
    known: OrderedDict = OrderedDict()
    watched = ChangeDetector(encoder)

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
        answer = known.pop(key, None)  # another thread may ask at the same time: it then computes the same
        known[key] = answer = _read(self, graph, input_ids, rows, others) if answer is None else answer
        if len(known) > KEPT:
            known.popitem(last=False)
        return answer

    return forward

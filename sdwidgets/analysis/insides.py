"""What the parts of a pipeline hold while it makes a picture: tokens, embeddings, the denoiser's feature maps and timestep embedding.

`watch_parts(pipe)` listens to one run, mostly beside `sdwidgets.record`; `sdwidgets.diagram` shows both. `block_shapes` are the shapes
inside the U-Net.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..generation.sharing import own_tokenizers, watch_calls
from ..generation.tokens import pieces
from ..parts import find_denoiser

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

MAX_BLOCKS = 12  # of a transformer, evenly chosen
MAX_SIDE = 16  # of a kept feature map; larger ones are thinned
KEPT = 128  # numbers of a timestep embedding


@dataclass(frozen=True)
class Network:
    """A trained part: how the pipeline calls it, its class, and how many parameters it has."""

    name: str
    class_name: str
    parameters: int


class Token(NamedTuple):
    """What whole characters are made of: mostly one token."""

    kind: str  # "start", "text" or "end"
    text: str
    first: int  # its place among all that were read
    ids: tuple[int, ...]


@dataclass(frozen=True)
class TextEncoder(Network):
    """And what it read of the prompt."""

    layers: int
    width: int  # numbers of an embedding
    tokens: tuple[Token, ...]  # without the padding
    read: int  # how many it read, padding included


@dataclass
class Block:
    """A block of the denoiser, and one channel of what it gives on: that which varies most over the picture in the first call."""

    name: str
    shape: tuple[int, int, int] = (0, 0, 0)  # (channels, h, w)
    channel: int = 0
    maps: list[np.ndarray] = field(default_factory=list)  # one a call, (h, w) float32


@dataclass
class Insides:
    """One run from within. What the run did not use, or what a compiled network does not tell, is empty."""

    text_encoders: tuple[TextEncoder, ...] = ()
    embeddings: np.ndarray | None = None  # (token, width) float32: what the denoiser got of the prompt
    denoiser: Network | None = None
    count: int = 0  # of the denoiser's blocks, of which `blocks` may be some
    blocks: tuple[Block, ...] = ()  # those that were heard
    timestep_embeddings: list[np.ndarray] = field(default_factory=list)  # one a call, its first KEPT numbers
    timestep_width: int = 0
    vae: Network | None = None
    decoder_parameters: int = 0  # of the VAE's, its encoder has the rest
    calls: int = 0  # of the denoiser


@contextmanager
def watch_parts(pipe: DiffusionPipeline) -> Iterator[Insides]:
    """Listen to the run inside the block: `with record(pipe) as trace, watch_parts(pipe) as insides: pipe("a cat")`.

    It is filled when the block ends; hooks are removed on every way out. Of a batch it keeps the last picture's; a later run in the same
    block adds its calls. Raises TypeError for a pipeline without a denoiser or a VAE.
    """
    denoiser = find_denoiser(pipe)
    if denoiser is None or getattr(pipe, "vae", None) is None:
        raise TypeError(f"{type(pipe).__name__} has no denoiser or no vae to watch; give a diffusers pipeline of Stable Diffusion's kind")  # fmt: skip
    insides = Insides()
    listener = _Listener(pipe, denoiser, insides)
    with ExitStack() as undo:
        listener.attach(undo)
        yield insides
    listener.finish()


def denoiser_blocks(denoiser: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Name -> block, in the order of the work: of a U-Net from "in" over "down 0", "middle" and "up 0" to "out", of a transformer "block 1"..."""
    if hasattr(denoiser, "down_blocks"):
        down = {f"down {number}": block for number, block in enumerate(denoiser.down_blocks)}
        up = {f"up {number}": block for number, block in enumerate(denoiser.up_blocks)}
        return {"in": denoiser.conv_in, **down, "middle": denoiser.mid_block, **up, "out": denoiser.conv_out}
    both = [*getattr(denoiser, "transformer_blocks", ()), *getattr(denoiser, "single_transformer_blocks", ())]
    return {f"block {number}": block for number, block in enumerate(both, 1)}


def block_shapes(pipe: DiffusionPipeline, prompt: str = "an astronaut", **settings) -> dict[str, tuple[int, ...]]:
    """What each block of the U-Net gives on, in one step of `pipe`: name -> (channels, h, w), from "in" to "out".

    `settings` go to the pipeline. Raises TypeError for a pipeline without a U-Net.
    """
    if getattr(pipe, "unet", None) is None:
        raise TypeError(f"{type(pipe).__name__} has no unet; give a pipeline of Stable Diffusion 1, 2 or XL")
    with watch_parts(pipe) as insides:
        pipe(prompt, num_inference_steps=1, output_type="latent", **settings)
    return {block.name: block.shape for block in insides.blocks}


class _Listener:
    """Fills `insides` while the run goes on; `finish` adds what is known without it."""

    def __init__(self, pipe: DiffusionPipeline, denoiser: torch.nn.Module, insides: Insides):
        self.pipe, self.denoiser, self.insides = pipe, denoiser, insides
        names = [f"text_encoder{number}" for number in ("", "_2", "_3")]
        self.encoders = {name: part for name in names if (part := getattr(pipe, name, None)) is not None}
        self.ids: dict[str, list[int]] = {}
        modules = denoiser_blocks(denoiser)
        chosen = np.unique(np.linspace(0, len(modules) - 1, MAX_BLOCKS).round().astype(int)) if modules else ()
        insides.count, self.modules = len(modules), {name: modules[name] for name in [[*modules][i] for i in chosen]}
        self.blocks = {name: Block(name) for name in self.modules}
        self.grid: tuple[int, ...] = (1, 1)  # of the picture in a transformer

    def attach(self, undo: ExitStack) -> None:
        for name, encoder in self.encoders.items():
            watch_calls(undo, encoder, before=lambda _, args, kwargs, name=name: self.read(name, args, kwargs))
        watch_calls(undo, self.denoiser, before=self.before_call)
        for name, module in self.modules.items():
            watch_calls(undo, module, after=lambda _, args, output, name=name: self.gave(name, output))
        embedding = getattr(self.denoiser, "time_embedding", None) or getattr(self.denoiser, "time_text_embed", None)
        if embedding is not None:
            watch_calls(undo, embedding, after=self.timed)

    def read(self, name: str, args, kwargs) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is not None:  # the prompt comes first, the negative prompt after it
            self.ids.setdefault(name, ids[0].tolist())

    def before_call(self, _, args, kwargs) -> None:
        """Before a call of the denoiser."""
        self.insides.calls += 1
        text = kwargs.get("encoder_hidden_states")
        if self.insides.embeddings is None and text is not None:
            self.insides.embeddings = text[-1].float().cpu().numpy()
        ids = kwargs.get("img_ids")
        if ids is not None:  # FLUX: each token's place
            self.grid = tuple(int(side) + 1 for side in ids.reshape(-1, 3)[:, 1:].amax(0))
        elif args or "hidden_states" in kwargs:
            sample = args[0] if args else kwargs["hidden_states"]
            self.grid = tuple(side // getattr(self.denoiser.config, "patch_size", 1) for side in sample.shape[-2:])

    def gave(self, name: str, output) -> None:
        """After a call of a block: of one whose output is a tuple, what goes on to the next."""
        if isinstance(output, tuple):  # a U-Net's block: the sample first; a transformer's: the picture's tokens last
            output = next((part for part in output if part is not None and part.ndim == 4), output[-1])
        found = output[-1].float()
        if found.ndim == 2:  # (tokens, width), behind the text's where a block has both
            found = found[-math.prod(self.grid) :].T.reshape(-1, *self.grid)
        block = self.blocks[name]
        if not block.maps:
            block.shape = tuple(found.shape)
            block.channel = int(found.flatten(1).std(1).nan_to_num(0).argmax())
        stride = max(1, math.ceil(max(found.shape[1:]) / MAX_SIDE))
        block.maps.append(np.nan_to_num(found[block.channel, ::stride, ::stride].cpu().numpy()))

    def timed(self, _, args, output) -> None:
        self.insides.timestep_width = output.shape[-1]
        self.insides.timestep_embeddings.append(np.nan_to_num(output[-1, :KEPT].float().cpu().numpy()))

    def finish(self) -> None:
        insides, vae, tokenizers = self.insides, self.pipe.vae, own_tokenizers(self.pipe)
        insides.text_encoders = tuple(
            _text_encoder(name, self.encoders[name], tokenizers[name.replace("text_encoder", "tokenizer")], ids)
            for name, ids in self.ids.items()
        )
        kind = "unet" if getattr(self.pipe, "unet", None) is self.denoiser else "transformer"
        insides.denoiser, insides.vae = _network(kind, self.denoiser), _network("vae", vae)
        insides.decoder_parameters = _parameters(vae.decoder)
        insides.blocks = tuple(block for block in self.blocks.values() if block.maps)


def _text_encoder(name: str, encoder, tokenizer, ids: list[int]) -> TextEncoder:
    config = encoder.config
    layers = getattr(config, "num_hidden_layers", 0) or getattr(config, "num_layers", 0)
    width = getattr(config, "hidden_size", 0) or getattr(config, "d_model", 0)
    return TextEncoder(
        **vars(_network(name, encoder)), layers=layers, width=width, tokens=_tokens(tokenizer, ids), read=len(ids)
    )


def _tokens(tokenizer, ids: list[int]) -> tuple[Token, ...]:
    """All but the padding, each with its kind."""
    first = int(ids[:1] == [tokenizer.bos_token_id])  # T5 has no start mark
    last = next((i for i in range(first, len(ids)) if ids[i] == tokenizer.eos_token_id), len(ids))
    marks = (
        [Token("start", "start", 0, (ids[0],))] if first else [],
        [Token("end", "end", last, (ids[last],))] if last < len(ids) else [],
    )
    inside = [
        Token("text", piece.text, first + piece.first, tuple(ids[first + piece.first : first + piece.stop]))
        for piece in pieces(tokenizer, ids[first:last])
    ]
    return (*marks[0], *inside, *marks[1])


def _network(name: str, module) -> Network:
    return Network(name, type(module).__name__, _parameters(module))


def _parameters(module) -> int:
    return sum(weight.numel() for weight in module.parameters())

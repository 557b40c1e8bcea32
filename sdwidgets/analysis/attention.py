"""Which words of the prompt the U-Net looks at, where in the picture, and when: `record_attention(pipe)`.

In every cross-attention layer each place of the latents asks all tokens, and shares one unit of attention among them:
softmax(Q K^T / sqrt(d)) (Rombach et al., arXiv 2112.10752, section 3.3). `record_attention` keeps these shares through diffusers'
public attention processors. Summed over layers and steps they say which part of the picture a word belongs to
(DAAM: Tang et al., arXiv 2210.04885).
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..generation.sharing import own_tokenizers, pipeline_lock, watch_calls, wrap_method
from ..generation.tokens import pieces
from ..trace import first_of
from .attention_processors import Processor, attention_unet, probabilities, processors_replaced

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel


class Token(NamedTuple):
    """One column of the maps: one place of the text encoder's answer, or the group of all padding."""

    text: str  # "astro", as a person reads it; "start", "end" and "padding" for what the tokenizer adds
    kind: str  # "text", "start", "end" or "padding"; "truncated" for what comes after the last that is read
    word: int  # which word of the prompt it belongs to, from 0; -1 for what the tokenizer adds
    first: int  # the encoder's positions that the column sums up: first, and one past the last
    stop: int


def words_of(columns: Iterable[Token]) -> list[tuple[str, list[int]]]:
    """(word, the encoder's positions of its tokens) in the order of the prompt."""
    texts = [column for column in columns if column.kind == "text"]
    groups = [list(group) for _, group in itertools.groupby(texts, lambda column: column.word)]
    return [("".join(c.text for c in group), [c.first for c in group]) for group in groups]


class Layer(NamedTuple):
    """One cross-attention layer of the U-Net."""

    name: str  # diffusers' own path, "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    block: str  # "down 0", "mid", "up 1": diffusers' block and its number
    height: int  # places that ask, as the layer computes; what is kept may be smaller
    width: int


class AttentionMaps:
    """What `record_attention` kept of the first picture of a run: for every step and layer a map (token, h, w), averaged over heads.

    A number is a share: how much of a place's attention goes to the token, 0 to 1; over the tokens they sum to 1. `tokens` are
    the columns; padding, which the encoder adds up to its length, is summed in one. `truncated` are the tokens of the prompt that
    the model did not read, as text. `layers` are in the order of their work, `timesteps` is (step,). `len(maps)` is the number of steps:
    calls of the U-Net, as in a `Trace`.
    """

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Forget what was recorded: the same object takes the next run."""
        self.prompt: str | None = None  # None where only embeddings were given
        self.tokens: tuple[Token, ...] = ()
        self.left_out: tuple[Token, ...] = ()  # of kind "truncated"
        self.layers: tuple[Layer, ...] = ()
        self.timesteps: np.ndarray = np.zeros(0, np.float32)
        self._steps: list[dict[str, torch.Tensor]] = []  # layer's name -> (token, h, w) float16

    def __len__(self) -> int:
        return len(self._steps)

    def __repr__(self) -> str:
        prompt = f"{self.prompt[:60]!r}, " if self.prompt else ""
        return f"AttentionMaps({prompt}{len(self)} steps, {len(self.layers)} layers, {len(self.tokens)} columns)"

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks of the U-Net that look at the text, in the order of their work: ("down 0", ..., "mid", "up 1", ...)."""
        return tuple(dict.fromkeys(layer.block for layer in self.layers))

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the prompt that the model read, each from one or more tokens."""
        return tuple(word for word, _ in words_of(self.tokens))

    @property
    def truncated(self) -> tuple[str, ...]:
        """The tokens of the prompt that came after the last one that is read."""
        return tuple(token.text for token in self.left_out)

    @property
    def truncated_word(self) -> str | None:
        """The word of which only the beginning was read; None where the cut lies between two words."""
        inside = bool(self.left_out) and any(token.word == self.left_out[0].word for token in self.tokens)
        return self.words[-1] if inside else None

    @property
    def kept(self) -> str:
        """One sentence on what is kept here, and what is not."""
        arrays = [array for step in self._steps for array in step.values()]
        megabytes = sum(array.numel() * array.element_size() for array in arrays) / 1e6
        full = max((max(layer.height, layer.width) for layer in self.layers), default=0)
        most = max((max(array.shape[1:]) for array in arrays), default=0)
        smaller = f"; maps of {full} places a side were averaged to {most}" if most < full else ""
        return (
            f"Kept: {len(self)} steps x {len(self.layers)} layers x {len(self.tokens)} columns of the first picture, "
            f"averaged over heads, float16, {megabytes:.1f} MB{smaller}."
        )

    def at(self, step: int, layer: int) -> np.ndarray:
        """The map of one step and one of `layers`, (token, h, w) float32; over the tokens it sums to 1."""
        self._filled()
        return self._steps[step][self.layers[layer].name].float().cpu().numpy()

    def find(self, token: int | str | Sequence[int]) -> list[int]:
        """The columns of a word or phrase of the prompt, or of "<start>", "<end>", "<padding>"; numbers of columns are themselves.

        A word that occurs twice has the columns of both. Raises ValueError for what is not there, and says what is.
        """
        self._filled()
        if isinstance(token, (list, tuple)):
            return [column for one in token for column in self.find(one)]
        if isinstance(token, (int, np.integer)):
            if -len(self.tokens) <= token < len(self.tokens):
                return [int(token) % len(self.tokens)]
            raise ValueError(
                f"there is no column {token}; the maps have {len(self.tokens)}, from 0: see `maps.tokens`"
            )
        text = str(token).strip()
        if text.startswith("<") and text.endswith(">"):
            columns = [i for i, t in enumerate(self.tokens) if t.kind == text[1:-1] != "text"]
        else:
            phrase, words = text.lower().split(), [word.lower() for word in self.words]
            starts = [i for i in range(len(words)) if phrase and words[i : i + len(phrase)] == phrase]
            wanted = {i + k for i in starts for k in range(len(phrase))}
            columns = [i for i, t in enumerate(self.tokens) if t.word in wanted]
        if not columns:
            special = ", ".join(f"<{t.kind}>" for t in self.tokens if t.kind != "text")
            raise ValueError(
                f"the model read no {text[:40]!r} in this prompt; it read: {' '.join(self.words) or 'nothing'}; also allowed: {special}"
                + (f"; cut off: {' '.join(self.truncated)[:200]}" if self.truncated else "")
            )
        return columns

    def heat_map(
        self,
        token: int | str | Sequence[int],
        steps: int | slice | Iterable[int] | None = None,
        layers: str | Iterable[int] | None = None,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Where the picture looks at a token: (h, w) float32, the share of attention that each place gives to it, 0 to 1.

        The mean over steps and layers, each layer's map brought to one size bilinearly (DAAM, arXiv 2210.04885, which
        sums: the same picture, without the unit). A word of several tokens is their sum.

        token: as in `find`. steps: one number, a slice, several numbers, or None for all. layers: a name of `blocks`, numbers
        of `layers`, or None for all. size: (height, width) of the answer; None for the largest map that is kept.
        """
        columns, names = self.find(token), self._names(layers)
        chosen = self._chosen(steps)
        if size is None:
            size = max((tuple(self._steps[chosen[0]][name].shape[1:]) for name in names), key=math.prod)
        total = torch.zeros(1, 1, *size)
        for name in names:  # maps of one layer have one size: a sum of maps is resized once
            seen = sum(self._steps[i][name][columns].float().sum(0) for i in chosen).cpu()[None, None]
            total += F.interpolate(seen, size, mode="bilinear", align_corners=False)
        return (total / (len(names) * len(chosen)))[0, 0].numpy()

    def mean_attention(self, layers: str | Iterable[int] | None = None) -> np.ndarray:
        """How the attention of all places is divided: (step, token) float32, mean over places and layers; rows sum to 1."""
        self._filled()
        names = self._names(layers)
        rows = [torch.stack([step[n].float().mean((1, 2)) for n in names]).mean(0).cpu() for step in self._steps]
        return torch.stack(rows).numpy()

    def _names(self, layers) -> list[str]:
        if layers is None:
            return [layer.name for layer in self.layers]
        if isinstance(layers, str):
            names = [layer.name for layer in self.layers if layer.block == layers]
            if not names:
                raise ValueError(f"there is no block {layers!r}; there are: {', '.join(self.blocks)}")
            return names
        names = [self.layers[i].name for i in ([layers] if isinstance(layers, int) else layers)]
        if not names:
            raise ValueError("no layer was asked for; give numbers of `maps.layers`, or None for all")
        return names

    def _chosen(self, steps) -> list[int]:
        every = range(len(self))
        steps = slice(None) if steps is None else [steps] if isinstance(steps, (int, np.integer)) else steps
        chosen = list(every[steps]) if isinstance(steps, slice) else [every[i] for i in steps]
        if not chosen:
            raise ValueError(
                f"no step was asked for; there are {len(self)}, from 0 to {len(self) - 1}; None means all"
            )
        return chosen

    def _filled(self) -> None:
        if not self._steps:
            raise ValueError(
                "no attention was recorded: run the pipeline inside the block, `with record_attention(pipe) as maps: pipe(...)`"
            )


@contextmanager
def record_attention(pipe: DiffusionPipeline, *, max_megabytes: float = 256) -> Iterator[AttentionMaps]:
    """Record the cross-attention of the run inside the block: `with record_attention(pipe) as maps: pipe("a cat")`.

    The picture stays the same bit for bit: each layer's own processor computes its answer, and the shares are computed beside it.
    All is undone on every way out. A later run in the same block replaces the earlier. Works inside and outside of
    `sdwidgets.record(pipe)`; its steps are the same ones.

    pipe: a diffusers pipeline with a U-Net of Stable Diffusion 1's, 2's or XL's shape, LoRA and adapters included.
    max_megabytes: where all steps would need more, larger maps are averaged down by two until they fit. `maps.kept` says what was kept.

    Raises TypeError for a pipeline without such a U-Net, and RuntimeError for one that was compiled or made fast.
    """
    unet = attention_unet(pipe, "record_attention")
    recorder = AttentionRecorder(pipe, max_megabytes)
    with pipeline_lock(pipe), ExitStack() as undo:
        wrap_method(undo, pipe, "encode_prompt", recorder.around_encode_prompt)
        watch_calls(undo, unet, before=recorder.before_unet, after=recorder.after_unet)
        undo.enter_context(processors_replaced(unet, lambda name, own: RecordingAttnProcessor(own, name, recorder)))
        try:
            yield recorder.maps
        finally:
            recorder.to_host()


def read_tokens(
    pipe: DiffusionPipeline, prompt: str, prompt_2: str | None = None
) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """What the text encoders read of a prompt, as columns of `AttentionMaps`, and the tokens that are cut off.

    With two tokenizers (SDXL) both read the same place; a place where they read different things has the text "this / that".
    Both are empty for a pipeline whose tokenizers do not put a start and an end around a text, as CLIP's do.
    """
    names = ("tokenizer", "tokenizer_2")
    tokenizers = {name: tokenizer for name, tokenizer in own_tokenizers(pipe).items() if name in names}
    if not tokenizers:
        return (), ()
    length = min(tokenizer.model_max_length for tokenizer in tokenizers.values())
    texts = {"tokenizer": prompt, "tokenizer_2": prompt_2 or prompt}
    reads: list[tuple] = []  # (tokenizer, token numbers without marks)
    for name, tokenizer in tokenizers.items():
        text = texts[name]
        if hasattr(pipe, "maybe_convert_prompt"):  # a concept of several vectors has several tokens
            text = pipe.maybe_convert_prompt(text, tokenizer)
        ids = tokenizer(text, truncation=False, verbose=False).input_ids
        if len(ids) < 2 or (ids[0], ids[-1]) != (tokenizer.bos_token_id, tokenizer.eos_token_id):
            return (), ()
        reads.append((tokenizer, ids[1:-1]))
    reads.sort(key=lambda read: len(read[1]), reverse=True)
    (tokenizer, ids), *others = reads
    room = length - 2
    inside: list[Token] = []
    truncated: list[Token] = []
    for piece in pieces(tokenizer, ids):
        also = [other.decode(theirs[piece.first : piece.stop]).strip() for other, theirs in others]
        text = " / ".join(dict.fromkeys([piece.text, *filter(None, also)]))
        read = piece.first < room  # of a piece that is cut through, the first part is read
        kind, stop = ("text", min(piece.stop, room)) if read else ("truncated", piece.stop)
        (inside if read else truncated).append(Token(text, kind, piece.word, piece.first + 1, stop + 1))
    end = min(len(ids), room) + 1
    columns = [Token("start", "start", -1, 0, 1), *inside, Token("end", "end", -1, end, end + 1)]
    if end + 1 < length:
        columns.append(Token("padding", "padding", -1, end + 1, length))
    return tuple(columns), tuple(truncated)


class RecordingAttnProcessor(Processor):
    """A layer's own processor; beside it the shares of the first picture are computed and kept."""

    def __init__(self, own, name: str, recorder: AttentionRecorder):
        super().__init__(own)
        self.name, self.recorder = name, recorder

    def attend(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, *args, **kwargs):
        if encoder_hidden_states is not None and self.recorder.row is not None:
            self.recorder.keep(self.name, attn, hidden_states, encoder_hidden_states, attention_mask)
        return self.own(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)


class AttentionRecorder:
    """Knows which call of the U-Net it is, which row of its batch is the first picture's prompt, and how much may be kept."""

    def __init__(self, pipe: DiffusionPipeline, max_megabytes: float):
        self.pipe, self.bytes = pipe, 1e6 * max_megabytes
        self.maps = AttentionMaps()
        self.start_run()

    def start_run(self) -> None:
        self.maps.clear()
        self.states: torch.Tensor | None = None  # (token, width): what the encoder said of the first prompt
        self.row: int | None = None  # None: this call of the U-Net is not about the prompt
        self.call: dict[str, torch.Tensor] = {}
        self.timestep: torch.Tensor | float = 0.0
        self.timesteps: list = []
        self.halvings = 0

    def around_encode_prompt(self, encode_prompt, *args, **kwargs):
        if self.maps._steps:
            self.start_run()
        result = encode_prompt(*args, **kwargs)
        if self.states is None:  # a negative prompt may be encoded by a second call
            arguments = inspect.signature(encode_prompt).bind(*args, **kwargs).arguments
            prompt, second = first_of(arguments.get("prompt")), first_of(arguments.get("prompt_2"))
            states = result[0] if isinstance(result, (tuple, list)) else result
            self.states = states[0].detach()
            if prompt is not None:
                self.maps.prompt = prompt
                self.maps.tokens, self.maps.left_out = read_tokens(self.pipe, prompt, second)
        return result

    def before_unet(self, unet: UNet2DConditionModel, args, kwargs) -> None:
        self.call = {}  # a call that was broken off is no step
        if not self.maps._steps:
            self.maps.layers = ()
        arguments = inspect.signature(unet.forward).bind(*args, **kwargs).arguments
        states = arguments["encoder_hidden_states"]
        self.row = self.find_row(states[0] if isinstance(states, (tuple, list)) else states)
        self.side = arguments["sample"].shape[-2:]
        self.timestep = arguments["timestep"]

    def find_row(self, states: torch.Tensor) -> int | None:
        """Which row of the batch holds the first picture with its prompt. Pipelines order their halves differently."""
        if self.states is None:  # nothing was encoded inside the block: [unconditional, conditional], as in diffusers
            guided = getattr(self.pipe, "do_classifier_free_guidance", True) and len(states) > 1
            return len(states) // 2 if guided else 0
        if states.shape[1:] != self.states.shape:
            return None
        same = (states == self.states.to(states)).flatten(1).all(1).nonzero()
        return int(same[0]) if len(same) else None

    def keep(self, name: str, attn, hidden_states, encoder_hidden_states, attention_mask) -> None:
        if isinstance(encoder_hidden_states, (tuple, list)):  # text, then the pictures of an IP-Adapter
            encoder_hidden_states = encoder_hidden_states[0]
        assert self.row is not None  # or this call is not kept
        one = slice(self.row, self.row + 1)
        mask = None if attention_mask is None else attention_mask[one]
        with torch.no_grad():
            shares = probabilities(attn, hidden_states[one], encoder_hidden_states[one], mask)[0].mean(0)
            shares = torch.stack([shares[:, c.first : c.stop].sum(1) for c in self.columns(shares.shape[1])])
            height, width = _sides(self.side[0], self.side[1], shares.shape[1])
            shares = shares.unflatten(1, (height, width))
            if len(self.maps._steps) == 0:
                block = name.split(".")
                label = f"{block[0].removesuffix('_blocks')} {block[1]}" if block[1].isdigit() else "mid"
                self.maps.layers += (Layer(name, label, height, width),)
            self.call[name] = _smaller(shares, self.halvings).half()

    def columns(self, length: int) -> tuple[Token, ...]:
        """The columns, numbered where the prompt is not known, or is not what the U-Net got."""
        if not self.maps.tokens or self.maps.tokens[-1].stop != length:
            self.maps.tokens = tuple(Token(str(i), "text", i, i, i + 1) for i in range(length))
            self.maps.left_out = ()
        return self.maps.tokens

    def after_unet(self, unet: UNet2DConditionModel, args, output) -> None:
        """A call of the U-Net is over: it is a step, if it was about the prompt."""
        if not self.call:
            return
        self.maps._steps.append(self.call)
        self.timesteps.append(self.timestep)
        self.call = {}
        if len(self.maps._steps) == 1:  # now it is known what a step takes
            expected = max(1, len(self.pipe.scheduler.timesteps))
            step = self.maps._steps[0]
            while expected * 2 * sum(_smaller(m, self.halvings).numel() for m in step.values()) > self.bytes:
                if all(max(_smaller(m, self.halvings).shape[1:]) == 1 for m in step.values()):
                    break
                self.halvings += 1
            self.maps._steps[0] = {name: _smaller(m, self.halvings) for name, m in step.items()}

    def to_host(self) -> None:
        """Off the device, once nothing waits for it."""
        self.maps._steps[:] = [{name: m.cpu() for name, m in step.items()} for step in self.maps._steps]
        self.maps.timesteps = np.array([float(torch.as_tensor(t).reshape(-1)[0]) for t in self.timesteps], "f4")
        self.states = None


def _sides(height: int, width: int, positions: int) -> tuple[int, int]:
    """The sides of a layer's map: those of the latents, halved (rounded up) as often as the U-Net did."""
    while height * width > positions and max(height, width) > 1:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != positions:
        raise RuntimeError(
            f"a layer looks from {positions} places, which is no half, quarter ... of the latents' sides; please report it"
        )
    return height, width


def _smaller(maps: torch.Tensor, halvings: int) -> torch.Tensor:
    """(token, h, w), averaged over blocks of 2 x 2 places so often."""
    for _ in range(halvings):
        maps = F.avg_pool2d(maps.float()[None], 2, ceil_mode=True)[0].to(maps.dtype)
    return maps

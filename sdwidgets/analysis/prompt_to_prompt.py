"""Change a word and keep the layout: `edit(pipe, prompt, edited)`, prompt-to-prompt (Hertz et al., arXiv 2208.01626).

Where an object stands is decided by the attention of the first steps. So both prompts run side by side from the same noise,
and for a share of the steps the second one looks where the first one looks: its attention weights are replaced, its values
(what is fetched from there) are its own. Only diffusers' public attention processors are used.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..generation.sharing import own_copy, watch_calls
from ..recording import record
from ..trace import PER_STEP_ARRAYS, Trace
from .attention import Token, read_tokens, words_of
from .attention_processors import Processor, attention_unet, processors_replaced, queries_and_keys, split_heads

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel


@dataclasses.dataclass(frozen=True)
class Edit:
    """Two pictures from one noise: the prompt's own, and the edited one that looked where the first one looked."""

    before: Trace
    after: Trace
    #: words that stand for each other; None: a new or a dropped word
    alignment: tuple[tuple[str | None, str | None], ...]
    cross_calls: int  # calls of the U-Net, from the first, in which cross-attention was taken over
    self_calls: int  # the same for self-attention

    def __repr__(self) -> str:
        changes = ", ".join(f"{a or '(nothing)'} -> {b or '(nothing)'}" for a, b in self.alignment if a != b)
        total = len(self.after)
        return f"Edit({changes or 'no change'}; cross-attention in {self.cross_calls} of {total} steps, self-attention in {self.self_calls})"


def edit(
    pipe: DiffusionPipeline,
    prompt: str,
    edited: str,
    *,
    seed: int = 0,
    cross_steps: float = 0.8,
    self_steps: float = 0.4,
    **settings,
) -> Edit:
    """Make the picture of `prompt`, and beside it that of `edited` with the attention of the first for a part of the run.

    cross_steps, self_steps: share of the steps, 0 to 1 from the start, in which cross-attention (which word goes where) and
        self-attention (which places belong together) are taken over. Both 0: the plain picture of `edited` on this seed.
    Words are aligned by difflib: a word in the place of another takes over its attention, whatever their numbers of tokens; a
        word that is new keeps its own (the paper's "refinement"), and the shares are made to sum to 1 again.
    seed: of CPU generators, one for each picture, so that both start from the same noise, and stochastic schedulers add the same.
    settings: go to the pipeline, for example `num_inference_steps=20`; texts hold for both pictures.

    The two run as one batch: it needs the memory of two pictures, and its last bits differ from those of a single run.
    Raises TypeError for a pipeline without such a U-Net and for settings that `edit` decides itself; ValueError for a share
    outside 0 to 1; RuntimeError for a compiled or fast pipeline, or one with an IP-Adapter.
    """
    unet = attention_unet(pipe, "edit")
    for name, text in {"prompt": prompt, "edited": edited}.items():
        if not isinstance(text, str):
            raise TypeError(
                f"{name} must be one text, not {type(text).__name__}; call edit once for each pair of prompts"
            )
    for name, share in {"cross_steps": cross_steps, "self_steps": self_steps}.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise ValueError(f"{name} is a share of the steps, from 0 (none) to 1 (all), not {share!r}")
    decided = ("prompt_2", "generator", "num_images_per_prompt", "prompt_embeds", "negative_prompt_embeds")
    if taken := sorted(set(decided) & set(settings)):
        raise TypeError(f"edit() makes two pictures from one seed and decides {taken[0]!r} itself; leave it out")
    settings = {
        k: [v, v] if isinstance(v, str) and k.startswith("negative_prompt") else v for k, v in settings.items()
    }
    pipe = own_copy(pipe)
    before, after = read_tokens(pipe, prompt)[0], read_tokens(pipe, edited)[0]
    if not before:
        raise TypeError(
            "edit() aligns the words of CLIP's tokenizer, and this pipeline has another; use one of Stable Diffusion 1, 2 or XL"
        )
    matrix, new, alignment = align(before, after)
    pair = _Pair(pipe, cross_steps, self_steps, matrix, new)
    generators = [torch.Generator("cpu").manual_seed(seed) for _ in range(2)]
    injecting = processors_replaced(unet, lambda _, own: InjectingAttnProcessor(own, pair))
    with record(pipe) as trace, ExitStack() as undo, injecting:
        watch_calls(undo, unet, before=pair.before_unet)
        pipe([prompt, edited], generator=generators, **settings)
    return Edit(_one_of(trace, 0), _one_of(trace, 1), alignment, *pair.calls)


def align(
    before: tuple[Token, ...], after: tuple[Token, ...]
) -> tuple[torch.Tensor, torch.Tensor, tuple[tuple[str | None, str | None], ...]]:
    """Which token's attention goes to which: (matrix, new, pairs of words).

    matrix: (n, n) for the n places of the text encoder; attention of the edited prompt = attention of the first @ matrix. Words
    that stand for each other pass their whole share on, spread evenly where the numbers of tokens differ. new: (n,) bool,
    the places of words that have nothing to take over.
    """
    length = before[-1].stop
    old_words, new_words = words_of(before), words_of(after)
    matrix, new = torch.zeros(length, length), torch.zeros(length, dtype=torch.bool)
    pairs: list[tuple[str | None, str | None]] = []

    def join(sources: list[int], targets: list[int]) -> None:
        if len(sources) == len(targets):
            matrix[sources, targets] = 1
        else:
            for target in targets:
                matrix[sources, target] = 1 / len(targets)

    matcher = difflib.SequenceMatcher(None, [w for w, _ in old_words], [w for w, _ in new_words], autojunk=False)
    for kind, a, a_end, b, b_end in matcher.get_opcodes():
        olds, news = old_words[a:a_end], new_words[b:b_end]
        if len(olds) == len(news):  # equal words, or as many others in their place
            for (old, sources), (text, targets) in zip(olds, news, strict=True):
                join(sources, targets)
                pairs.append((old, text))
            continue
        sources, targets = ([position for _, positions in group for position in positions] for group in (olds, news))
        if kind == "replace":
            join(sources, targets)
        else:
            new[targets] = True
        pairs.append((" ".join(w for w, _ in olds) or None, " ".join(w for w, _ in news) or None))
    # What the tokenizer adds: start to start, end to end, padding in its order, and what is left over to the last.
    tails = [
        range(columns[-1].first if columns[-1].kind == "end" else columns[-2].first, length)
        for columns in (before, after)
    ]
    matrix[0, 0] = 1
    for source, target in itertools.zip_longest(*tails):
        if source is not None:
            matrix[source, length - 1 if target is None else target] = 1
    return matrix, new, tuple(pairs)


class _Pair:
    """Knows which rows of the batch are the two pictures, and whether this call still looks where the first one looks."""

    def __init__(
        self, pipe: DiffusionPipeline, cross_steps: float, self_steps: float, matrix: torch.Tensor, new: torch.Tensor
    ):
        self.pipe, self.shares = pipe, (cross_steps, self_steps)
        self.matrix, self.new = matrix, new
        self.same_places = torch.equal(matrix, torch.eye(len(matrix)))
        self.call, self.calls, self.row = -1, [0, 0], 0

    def before_unet(self, unet: UNet2DConditionModel, args, kwargs) -> None:
        if self.call < 0:
            total = getattr(self.pipe, "num_timesteps", None) or len(self.pipe.scheduler.timesteps)
            self.calls = [math.floor(share * total + 0.5) for share in self.shares]
        self.call += 1
        rows = len(args[0] if args else kwargs["sample"])
        guided = getattr(self.pipe, "do_classifier_free_guidance", False)
        if rows != (4 if guided else 2):
            raise RuntimeError(
                f"edit() knows text-to-image and image-to-image pipelines, whose U-Net gets 2 or 4 pictures here; this one gets {rows}"
            )
        self.row = 2 if guided else 0  # without the prompt come first


class InjectingAttnProcessor(Processor):
    """A layer's own processor; for the second picture's prompt its answer is computed anew, with the weights of the first."""

    def __init__(self, own, pair: _Pair):
        super().__init__(own)
        self.pair = pair

    def attend(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, *args, **kwargs):
        answer = self.own(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)
        cross = encoder_hidden_states is not None
        if self.pair.call >= self.pair.calls[0 if cross else 1]:
            return answer
        if isinstance(encoder_hidden_states, (tuple, list)):
            raise RuntimeError("edit() does not know what an IP-Adapter looks at; call pipe.unload_ip_adapter() first")
        if hidden_states.ndim != 3 or attn.group_norm is not None or attn.residual_connection:
            return answer  # none of the transformer blocks' layers
        both = slice(self.pair.row, self.pair.row + 2)
        second = slice(self.pair.row + 1, self.pair.row + 2)
        attended = encoder_hidden_states if cross else hidden_states
        queries, keys = queries_and_keys(attn, hidden_states[both], attended[both])
        values = attn.norm_encoder_hidden_states(attended[second]) if cross and attn.norm_cross else attended[second]
        values = split_heads(attn, attn.to_v(values))
        if attention_mask is None and not (cross and not self.pair.same_places):
            # The first one's weights as they are; never written out, which for self-attention would be large.
            seen = F.scaled_dot_product_attention(queries[:1], keys[:1], values, scale=attn.scale)
        else:
            scores = queries.float() @ keys.float().mT * attn.scale
            if attention_mask is not None:
                scores = scores + attention_mask[both, None].float()
            weights = scores.softmax(-1)  # (2, head, place, token)
            taken = weights[:1]
            if cross:
                matrix, new = self.pair.matrix.to(weights.device), self.pair.new.to(weights.device)
                taken = torch.where(new, weights[1:], taken @ matrix)
                taken = taken / taken.sum(-1, keepdim=True)
            seen = taken.to(values.dtype) @ values
        seen = seen.transpose(1, 2).flatten(2)  # (1, place, head * d)
        for layer in attn.to_out:
            seen = layer(seen)
        answer = answer.clone()
        answer[second] = seen / attn.rescale_output_factor
        return answer


def _one_of(trace: Trace, i: int) -> Trace:
    """The i-th picture of a batch as a trace of its own."""

    def cut(array):
        return None if array is None else array[i : i + 1]

    pick = lambda value: value[i] if isinstance(value, list) else value
    steps = [dataclasses.replace(s, **{name: cut(getattr(s, name)) for name in PER_STEP_ARRAYS}) for s in trace]
    settings = {name: pick(getattr(trace.settings, name)) for name in ("prompt", "negative_prompt", "seed")}
    return Trace(
        dataclasses.replace(trace.settings, **settings),
        tuple(steps),
        final_latents=cut(trace.final_latents),
        images=cut(trace.images),
        preview_factors=trace.preview_factors,
        complete=trace.complete,
    )

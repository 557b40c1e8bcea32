"""Pocket's text encoder: a byte-pair tokenizer made from the captions, and a CLIP trained on scenes.

After Radford et al. 2021 (arXiv 2103.00020), with hard negatives: captions whose words were swapped, because a
contrastive loss rewards word order barely. The text tower is then frozen, as Stable Diffusion's is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from ..world import datasheet
from ..world.datasheet import COMMON_OBJECTS, ENCODER, FULL, HELD_OUT_BACKGROUNDS, HELD_OUT_SHAPE_COLOURS, TAIL_OBJECTS
from ..world.scenes import RELATIONS, SIZE, make_scene, pictures_of, spread
from ..world.vocabulary import COLOURS, OCCUPATIONS, PLURAL_NAMES, SHAPES, article, plural
from .trainer import Schedule, sampled, save_tensors
from .vae import to_tensor

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Anatomy and training of the encoder pair."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    context: int = 77  # tokens, as in Stable Diffusion
    merges: int = 900  # byte pairs on top of 512 single bytes
    vision_width: int = 192
    vision_layers: int = 4
    patch: int = 16  # pixels
    projection: int = 128
    token_std: float = 2.0  # of the untrained embeddings of words and of places: see `build_clip`
    position_std: float = 0.7
    negatives: int = 3  # captions made wrong, beside each right one
    max_logit_scale: float = 20.0  # CLIP allows 100: see `ClipTraining`
    schedule: Schedule = Schedule(
        steps=800, batch_size=128, learning_rate=3e-3, warmup_steps=100, weight_decay=0.05, ema_decay=0.99
    )


def build_tokenizer(folder: Path, config: ClipConfig, captions: int = 20_000) -> CLIPTokenizer:
    """Learn byte pairs from the encoder's captions and write CLIP's files into `folder`.

    The ids follow OpenAI's order: 256 bytes, 256 bytes that end a word, the merges, start, end. So any text at
    all has tokens, and none is unknown.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    words = Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Split(words, behavior="removed", invert=True)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) * 2 + config.merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator((make_scene(ENCODER, index).caption for index in spread(ENCODER, captions)), trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][: config.merges]
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    settings = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": config.context, "do_lower_case": True,
        "bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def build_clip(config: ClipConfig, tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained pair of towers over `tokenizer`.

    The text tower's embeddings begin large, as T5's do (a standard deviation of 1, arXiv 1910.10683), and not at CLIP's 0.02: there the first layer
    adds many times what came in, and after it a state hardly tells its own word. A contrastive loss reads one state of a caption and
    does not mind; a denoiser reads all of them.
    """
    text = {
        "vocab_size": len(tokenizer), "hidden_size": config.width, "intermediate_size": 4 * config.width, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "max_position_embeddings": config.context, "projection_dim": config.projection,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": config.vision_width, "intermediate_size": 4 * config.vision_width, "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_width // 32, "image_size": SIZE, "patch_size": config.patch, "projection_dim": config.projection,
    }  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.projection))
    embeddings = model.text_model.embeddings
    torch.nn.init.normal_(embeddings.token_embedding.weight, std=config.token_std)
    torch.nn.init.normal_(embeddings.position_embedding.weight, std=config.position_std)
    if not torch.cuda.is_available():
        model.set_attn_implementation("eager")  # on CPUs the fused attention's backward took 44% of a step
    return model


_OPPOSITES = {
    "left": "right", "right": "left", "above": "below", "below": "above", "top": "bottom", "bottom": "top", "small": "large", "large": "small",
    "woman": "man", "man": "woman", "two": "three", "three": "four", "four": "two",
}  # fmt: skip


def _turn(caption: str, rng: np.random.Generator) -> str | None:
    """One word turned into its opposite."""
    words = caption.split()
    turns = [number for number, word in enumerate(words) if word in _OPPOSITES]
    if not turns:
        return None
    turn = rng.choice(turns)
    words[turn] = _OPPOSITES[words[turn]]
    return " ".join(words)


def _recolour(caption: str, rng: np.random.Generator) -> str | None:
    """Two colours exchanged, or one replaced."""
    words = caption.split()
    colours = [number for number, word in enumerate(words) if word in COLOURS]
    if not colours:
        return None
    if len({words[number] for number in colours}) > 1 and rng.random() < 0.5:
        a, b = rng.choice(colours, 2, replace=False)
        words[a], words[b] = words[b], words[a]
    else:
        one = rng.choice(colours)
        words[one] = str(rng.choice([colour for colour in COLOURS if colour != words[one]]))
    return " ".join(words)


def _exchange(caption: str, rng: np.random.Generator) -> str | None:
    """The two things on the sides of a relation exchanged."""
    scene, on, background = caption.partition(" on a")
    for relation in RELATIONS:
        first, between, second = scene.partition(f" {relation} ")
        if between:
            return second + between + first + on + background
    return None


def _articles(caption: str) -> str:
    """The caption with "a" and "an" put right, so that no wrong caption gives itself away by its grammar."""
    words = caption.split()
    for number, word in enumerate(words[:-1]):
        if word in ("a", "an"):
            words[number] = article(words[number + 1]).split()[0]
    return " ".join(words)


_SINGULAR = tuple(name for name in COMMON_OBJECTS if name not in PLURAL_NAMES)
_PLURAL = tuple(name for name in COMMON_OBJECTS if name in PLURAL_NAMES)
_RARE = tuple(name for name in TAIL_OBJECTS if name not in PLURAL_NAMES)
#: (names that may stand in a caption, names that may take their place)
_KINDS = (
    (_SINGULAR + _RARE, _SINGULAR), (PLURAL_NAMES, _PLURAL), (SHAPES, SHAPES), (tuple(OCCUPATIONS), tuple(OCCUPATIONS)),
    (("thing",), _SINGULAR),
)  # fmt: skip


def _rename(caption: str, rng: np.random.Generator) -> str | None:
    """One object, shape or occupation replaced by another of its kind."""
    padded = f" {caption} "
    for present, others in _KINDS:
        named = [name for name in present if f" {name} " in padded or f" {plural(name)} " in padded]
        if named:
            old, new = named[int(rng.integers(len(named)))], others[int(rng.integers(len(others)))]
            padded = padded.replace(f" {plural(old)} ", f" {plural(new)} ").replace(f" {old} ", f" {new} ")
            return padded.strip() if new != old else None
    return None


#: What may be wrong in a caption -> how it is made so: an opposite, another colour or two exchanged, two things exchanged, another name.
CHANGES: dict[str, Callable[[str, np.random.Generator], str | None]] = {
    "opposite": _turn, "colour": _recolour, "order": _exchange, "name": _rename,
}  # fmt: skip


def swapped(caption: str, rng: np.random.Generator, kinds: Sequence[str] = tuple(CHANGES)) -> str:
    """The caption made wrong in one place, by one of `kinds` of `CHANGES`. Raises ValueError where none of them can.

    What is held out is not said in a wrong caption either, or the encoder would learn that it is always wrong.
    """
    for _ in range(100):
        wrong = CHANGES[kinds[int(rng.integers(len(kinds)))]](caption, rng)
        if wrong is not None:
            wrong = _articles(wrong)
            if wrong != caption and not _says_held_out(wrong):
                return wrong
    raise ValueError(f"no word of the caption {caption!r} can be changed into a wrong one")


def _negatives(captions: list[str], rng: np.random.Generator, number: int) -> list[str]:
    """One wrong caption for each: of any kind where `number` is 0, else of a kind that needs order or place, where one applies.

    Names and colours are learned from the other pictures of a batch as well; which thing stands where, hardly from any but these.
    `beats_hard_negative` tells how well each kind is learned.
    """
    wrong = []
    for caption in captions:
        try:
            wrong.append(swapped(caption, rng, tuple(CHANGES) if number == 0 else ("order", "opposite")))
        except ValueError:
            wrong.append(swapped(caption, rng))
    return wrong


def _says_held_out(caption: str) -> bool:
    """Whether a caption names a background or a colour that is held out for what it names."""
    padded = f" {caption} "
    named = lambda noun, before="": f" {before}{noun} " in padded or f" {before}{plural(noun)} " in padded
    return any(named(name, f"{colour} ") for name, colour in HELD_OUT_SHAPE_COLOURS.items()) or any(
        f" {colour} background " in padded and named(name) for name, colour in HELD_OUT_BACKGROUNDS.items()
    )


class ClipTraining(torch.nn.Module):
    """The contrastive loss as a module.

    `max_logit_scale` caps what the cosines are multiplied with, at 100 in CLIP. The lower it is, the further apart the text tower has to put
    what pictures tell apart; and the denoiser reads the text tower's states, not its cosines.
    """

    may_rest = ("clip.logit_scale",)  # at its cap it has no gradient: `guard.Guard`

    def __init__(self, clip: CLIPModel, max_logit_scale: float = ClipConfig.max_logit_scale):
        super().__init__()
        self.clip, self.max_logit_scale = clip, max_logit_scale

    def forward(self, pictures: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(n, 3, 128, 128) in [-1, 1] and (n (1 + negatives), length) token ids, right captions first -> loss."""
        count = len(pictures)
        image = F.normalize(self.clip.visual_projection(self.clip.vision_model(pictures).pooler_output), dim=-1)
        text = F.normalize(self.clip.text_projection(self.clip.text_model(tokens).pooler_output), dim=-1)
        # Cosines near one differ in digits that bfloat16 lacks.
        with torch.autocast(image.device.type, enabled=False):
            scale = self.clip.logit_scale.exp().clamp(max=self.max_logit_scale)
            logits = scale * image.float() @ text.float().T  # (n, n (1 + negatives))
        target = torch.arange(count, device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :count].T, target)) / 2


def clip_loss_at(grammar: datasheet.Grammar, config: ClipConfig, tokenizer: CLIPTokenizer):
    """The loss of scenes with their captions, padded to the batch's longest, and with wrong ones."""

    def batch_at(rng, step, batch_size):
        scenes = [make_scene(grammar, int(index)) for index in rng.integers(grammar.count, size=batch_size)]
        captions = [scene.caption for scene in scenes]
        captions += [wrong for number in range(config.negatives) for wrong in _negatives(captions, rng, number)]
        tokens = tokenizer(captions, padding=True, truncation=True, return_tensors="pt").input_ids
        return to_tensor(pictures_of(scenes)), tokens

    return sampled(config.schedule.seed, batch_at)


def text_encoder(clip: CLIPModel) -> CLIPTextModel:
    """The text tower alone, as a Stable Diffusion pipeline wants it."""
    encoder = CLIPTextModel(clip.config.text_config)
    tower = getattr(encoder, "text_model", encoder)  # transformers 4 has one wrapper more than 5
    tower.load_state_dict(clip.text_model.state_dict())
    return encoder.eval()


IMAGE_TOWER = "image_tower.safetensors"


def save_image_tower(clip: CLIPModel, folder: Path) -> None:
    """All of a CLIP but its text tower, in half precision: for an export, whose text encoder is that tower. `read_clip` joins them."""
    folder.mkdir(parents=True, exist_ok=True)
    clip.config.save_pretrained(folder)
    kept = {name: tensor.half() for name, tensor in clip.state_dict().items() if not name.startswith("text_model.")}
    save_tensors(folder / IMAGE_TOWER, kept)


def read_clip(folder: Path, encoder: CLIPTextModel) -> CLIPModel:
    """Both towers: what `save_image_tower` wrote, with its export's text encoder; a folder that holds a whole CLIP is read as it is."""
    if not (folder / IMAGE_TOWER).is_file():
        return CLIPModel.from_pretrained(folder).eval()
    clip = CLIPModel(CLIPConfig.from_pretrained(folder))
    tower = getattr(encoder, "text_model", encoder)  # as in `text_encoder`
    text = {f"text_model.{name}": tensor for name, tensor in tower.state_dict().items()}
    clip.load_state_dict(load_file(folder / IMAGE_TOWER) | text)
    return clip.eval()


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """(n, 77) token ids, cut or padded to the tokenizer's own length."""
    length = tokenizer.model_max_length
    return tokenizer(captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids


@torch.no_grad()
def encode_captions(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]):
    """The frozen text encoder's states of captions, in batches: yields (n, 77, width) float16 on the CPU."""
    for tokens in token_ids(tokenizer, captions).split(256):
        yield encoder(tokens.to(encoder.device)).last_hidden_state.half().cpu()


@torch.no_grad()
def beats_hard_negative(
    clip: CLIPModel, tokenizer: CLIPTokenizer, grammar: datasheet.Grammar, count: int = 200, seed: int = 1
) -> dict[str, float]:
    """How often a scene's caption beats its own hard negative, in 0..1 (a coin reaches 0.5), by kind of change and for "any".

    `count` scenes a kind, of those whose captions can be changed so; a kind that no caption allows is left out.
    """
    shares = {}
    for kind, kinds in {"any": tuple(CHANGES), **{kind: (kind,) for kind in CHANGES}}.items():
        rng, pairs = np.random.default_rng([seed, 7]), []
        for index in rng.integers(grammar.count, size=8 * count):
            scene = make_scene(grammar, int(index))
            with suppress(ValueError):
                pairs.append((scene, swapped(scene.caption, rng, kinds)))
            if len(pairs) == count:
                break
        if pairs:
            shares[kind] = _share_that_beats(clip, tokenizer, pairs)
    return shares


def _share_that_beats(clip: CLIPModel, tokenizer: CLIPTokenizer, pairs: list[tuple]) -> float:
    """The share of (scene, wrong caption) whose own caption is nearer to the picture."""
    scenes, wrong = zip(*pairs, strict=True)
    tokens = tokenizer([scene.caption for scene in scenes] + list(wrong), padding=True, return_tensors="pt").input_ids
    pictures = to_tensor(pictures_of(scenes))
    image = clip.visual_projection(clip.vision_model(pictures).pooler_output)
    text = F.normalize(clip.text_projection(clip.text_model(tokens).pooler_output), dim=-1)
    own, other = ((image * half).sum(-1) for half in text.split(len(scenes)))
    return round(float((own > other).float().mean()), 4)


# ---- the gate ----------------------------------------------------------------------------------------------------


class Probe(torch.nn.Module):
    """A small reader of token states that resembles one layer of cross-attention: a few queries a question, one linear answer.

    It reads states whose dimensions were brought to mean 0 and variance 1, which a linear layer could undo; without it
    the softmax is saturated from the start and some probes learn nothing.
    """

    def __init__(self, width: int, questions: int, answers: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.queries = torch.nn.Parameter(torch.randn(questions * heads, width) / width)
        self.keys = torch.nn.Linear(width, width, bias=False)
        self.answer = torch.nn.Linear(heads * width, answers)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(n, tokens, width) -> (n, questions, answers) logits."""
        weights = (self.queries @ self.keys(states).mT).softmax(dim=-1)  # (n, questions * heads, tokens)
        return self.answer((weights @ states).unflatten(1, (-1, self.heads)).flatten(2))


def _questions() -> dict[str, tuple[str, int, tuple[str, ...], Callable]]:
    """attribute -> (block of FULL, questions, answers, scene -> one answer a question, None where it is not asked)."""
    said = lambda thing: thing.occupation or thing.name

    def colours(scene):
        worn = {thing.name: thing.colour for thing in scene.things}
        return [worn.get(shape) for shape in SHAPES]

    relations = (*RELATIONS, "and")
    return {
        "object 1": ("two objects", 1, COMMON_OBJECTS, lambda scene: [said(scene.things[0])]),
        "object 2": ("two objects", 1, COMMON_OBJECTS, lambda scene: [said(scene.things[1])]),
        "bound colour": ("two shapes", len(SHAPES), tuple(COLOURS), colours),
        "relation": ("two objects", 1, relations, lambda scene: [scene.relation or "and"]),
        "count": ("several", 1, ("2", "3", "4"), lambda scene: [str(len(scene.things))]),
    }


#: Arguments of `gate` that ask how near the surface an answer lies.
FEW = {"count": 1_000, "learn": 1_500, "steps": 300}


def gate(
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    *,
    count: int = 2_000,
    learn: int = 20_000,
    steps: int = 2_000,
    seed: int = 1,
    attributes=None,
) -> dict[str, float]:
    """What probes read from the frozen token states: attribute -> share of right answers, in 0..1.

    Each probe learns from `learn` captions of FULL and answers on `count` others. The denoiser can learn from words only what is
    in these states, so an attribute below 0.99 would be a wall for it. A patient probe digs out what a denoiser, which learns from noise,
    does not find in time; `FEW` probes are as impatient.
    """
    generator = torch.Generator().manual_seed(seed)
    shares, every = {}, _questions()
    for attribute in attributes or every:
        block, questions, answers, truth = every[attribute]
        indices = FULL.indices(block)
        chosen = np.random.default_rng(seed).permutation(len(indices))[: learn + count]
        scenes = [make_scene(FULL, indices[int(number)]) for number in chosen]
        states = _token_states(encoder, tokenizer, [scene.caption for scene in scenes])
        states = (states - states.mean((0, 1))) / states.std((0, 1)).clamp(min=1e-6)
        target = torch.tensor([[answers.index(word) if word else -1 for word in truth(scene)] for scene in scenes])
        torch.manual_seed(seed)
        probe = Probe(states.shape[-1], questions, len(answers)).to(states.device)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2)
        for step in range(steps):
            rows = torch.randint(len(scenes) - count, (256,), generator=generator)
            loss = F.cross_entropy(probe(states[rows]).flatten(0, 1), target[rows].flatten(), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        with torch.no_grad():
            answered = probe(states[-count:]).argmax(-1)
        there = target[-count:] >= 0
        shares[attribute] = float((answered == target[-count:])[there].float().mean())
    return shares


@torch.no_grad()
def _token_states(encoder, tokenizer, captions: list[str], batch_size: int = 500) -> torch.Tensor:
    """The states of real tokens, padded to the longest caption: (n, tokens, width)."""
    tokens = tokenizer(captions, padding=True, return_tensors="pt").input_ids
    return torch.cat([encoder(batch).last_hidden_state for batch in tokens.split(batch_size)])

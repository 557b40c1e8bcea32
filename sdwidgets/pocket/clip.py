"""Pocket's text encoder: a byte-pair tokenizer made from the captions, and a CLIP trained on scenes.

After Radford et al. 2021 (arXiv 2103.00020), with hard negatives: captions whose words were swapped, because a
contrastive loss rewards word order barely. The text tower is then frozen, as Stable Diffusion's is.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from .datasheet import FULL
from .scenes import SIZE, Grammar, make_scene, render, spread
from .training import Schedule
from .vae import to_tensor
from .vocabulary import COLOURS

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Anatomy and training of the encoder pair."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    context: int = 77  # tokens, as in Stable Diffusion
    merges: int = 900  # byte pairs on top of 512 single bytes
    vision_width: int = 128
    vision_layers: int = 3
    patch: int = 16  # pixels
    projection: int = 128
    schedule: Schedule = Schedule(
        steps=800, batch_size=128, learning_rate=1e-3, warmup_steps=50, weight_decay=0.05, ema_decay=0.99
    )


def build_tokenizer(folder: Path, config: ClipConfig, captions: int = 20_000) -> CLIPTokenizer:
    """Learn byte pairs from captions of the full grammar and write CLIP's files into `folder`.

    The ids follow OpenAI's order: 256 bytes, 256 bytes that end a word, the merges, start, end. So any text at
    all has tokens, and none is unknown.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    words = Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) * 2 + config.merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(
        (make_scene(FULL, index).caption for index in spread(FULL, captions)), trainer
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]][: config.merges]
    tokens = [
        *alphabet,
        *(byte + "</w>" for byte in alphabet),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
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
    """An untrained pair of towers over `tokenizer`."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": config.width, "intermediate_size": 4 * config.width, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "max_position_embeddings": config.context, "projection_dim": config.projection,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": config.vision_width, "intermediate_size": 4 * config.vision_width, "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_width // 32, "image_size": SIZE, "patch_size": config.patch, "projection_dim": config.projection,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.projection))


def swapped(caption: str, rng: np.random.Generator) -> str:
    """The caption made wrong in one place: two colours or two sides swapped, or a colour replaced."""
    words = caption.split()
    colours = [place for place, word in enumerate(words) if word in COLOURS]
    opposites = {"left": "right", "right": "left", "above": "below", "below": "above", "top": "bottom", "bottom": "top",
                 "small": "large", "large": "small", "woman": "man", "man": "woman", "two": "three", "three": "four", "four": "two"}  # fmt: skip
    turns = [place for place, word in enumerate(words) if word in opposites]
    if len(colours) > 1 and rng.random() < 0.5:
        a, b = rng.choice(colours, 2, replace=False)
        words[a], words[b] = words[b], words[a]
    elif turns and rng.random() < 0.7:
        place = rng.choice(turns)
        words[place] = opposites[words[place]]
    else:
        place = rng.choice(colours)
        words[place] = str(rng.choice([colour for colour in COLOURS if colour != words[place]]))
    return " ".join(words)


class ClipTraining(torch.nn.Module):
    """The contrastive loss as a module."""

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip

    def forward(self, pictures: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(n, 3, 128, 128) in [-1, 1] and (2n, length) token ids, the second half hard negatives -> loss."""
        count = len(pictures)
        image = F.normalize(
            self.clip.visual_projection(self.clip.vision_model(pictures).pooler_output), dim=-1
        )
        text = F.normalize(self.clip.text_projection(self.clip.text_model(tokens).pooler_output), dim=-1)
        logits = self.clip.logit_scale.exp().clamp(max=100) * image @ text.T  # (n, 2n)
        target = torch.arange(count, device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :count].T, target)) / 2


def clip_loss_at(grammar: Grammar, config: ClipConfig, tokenizer: CLIPTokenizer):
    """The loss of training step `step`, for `training.train`. Captions are padded to the batch's longest."""

    def loss_at(model, step, batch_size, accelerator):
        rng = np.random.default_rng([config.schedule.seed, step, accelerator.process_index])
        scenes = [make_scene(grammar, int(index)) for index in rng.integers(grammar.count, size=batch_size)]
        captions = [scene.caption for scene in scenes]
        captions += [swapped(caption, rng) for caption in captions]
        tokens = tokenizer(captions, padding=True, truncation=True, return_tensors="pt").input_ids
        pictures = to_tensor(np.stack([np.asarray(render(scene)) for scene in scenes]))
        return model(pictures.to(accelerator.device), tokens.to(accelerator.device))

    return loss_at


def text_encoder(clip: CLIPModel) -> CLIPTextModel:
    """The text tower alone, as a Stable Diffusion pipeline wants it."""
    encoder = CLIPTextModel(clip.config.text_config)
    tower = getattr(encoder, "text_model", encoder)  # transformers 4 has one wrapper more than 5
    tower.load_state_dict(clip.text_model.state_dict())
    return encoder.eval()


@torch.no_grad()
def retrieval(
    clip: CLIPModel, tokenizer: CLIPTokenizer, grammar: Grammar, count: int = 200, seed: int = 1
) -> float:
    """How often a scene's caption beats its own hard negative, in 0..1 (a coin reaches 0.5)."""
    rng = np.random.default_rng([seed, 7])
    scenes = [make_scene(grammar, int(index)) for index in rng.integers(grammar.count, size=count)]
    captions = [scene.caption for scene in scenes]
    tokens = tokenizer(
        captions + [swapped(c, rng) for c in captions], padding=True, return_tensors="pt"
    ).input_ids
    pictures = to_tensor(np.stack([np.asarray(render(scene)) for scene in scenes]))
    image = clip.visual_projection(clip.vision_model(pictures).pooler_output)
    text = F.normalize(clip.text_projection(clip.text_model(tokens).pooler_output), dim=-1)
    return float(((image * text[:count]).sum(-1) > (image * text[count:]).sum(-1)).float().mean())

"""How much a word counts: by how much the denoising loss grows when one thing that a picture's caption says is wrong.

A judge says whether a picture is right, so long before a model draws anything right its rates are all zero. The loss says
earlier what it has begun to read, and at which noise: Pocket sees true pictures here, the same noise twice, and only the caption
differs. After Li et al. 2023, "Your Diffusion Model is Secretly a Zero-Shot Classifier" (arXiv 2303.16203), which compares such losses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler

from ..training.clip import encode_captions
from ..training.denoiser import noisy_and_target
from ..training.vae import to_tensor
from ..world import datasheet as sheet
from ..world.scenes import Scene, Stream, pictures_of
from ..world.vocabulary import COLOURS, NUMBERS, SHAPES, article
from . import prompt_sets
from .sampling import Evaluator

TIMESTEPS = (100, 250, 400, 550, 700, 850)
OPPOSITES = {"to the left of": "to the right of", "to the right of": "to the left of", "above": "below", "below": "above"}  # fmt: skip


@dataclass(frozen=True)
class Swap:
    """One way to make a caption wrong. `wrong(scene, stream)` is the caption of a row's scene with what `name` says changed."""

    name: str
    row: str
    wrong: Callable[[Scene, Stream], str]


def _other(stream: Stream, options, *taken: str | None) -> str:
    return stream.choice([option for option in options if option not in taken])


def _background(scene: Scene, stream: Stream) -> str:
    never = sheet.HELD_OUT_BACKGROUNDS[scene.things[0].name]
    other = _other(stream, COLOURS, scene.background, never)
    return scene.caption.replace(f"{article(scene.background)} background", f"{article(other)} background")


def _object(scene: Scene, stream: Stream) -> str:
    names = [n for n in sheet.COMMON_OBJECTS if sheet.HELD_OUT_BACKGROUNDS[n] != scene.background]
    name = scene.things[0].name
    return scene.caption.replace(article(name), article(_other(stream, names, name)), 1)


def _shape(scene: Scene, stream: Stream) -> str:
    colour, name = scene.things[0].colour, scene.things[0].name
    shapes = [shape for shape in SHAPES if sheet.HELD_OUT_SHAPE_COLOURS[shape] != colour]
    return scene.caption.replace(f"{colour} {name}", f"{colour} {_other(stream, shapes, name)}", 1)


def _colour(scene: Scene, stream: Stream) -> str:
    thing = scene.things[0]
    other = _other(stream, COLOURS, thing.colour, scene.background, sheet.HELD_OUT_SHAPE_COLOURS[thing.name])
    return scene.caption.replace(article(thing.words), article(f"{other} {thing.name}"), 1)


def _binding(scene: Scene, stream: Stream) -> str:
    first, second = scene.things
    phrase = f"{article(f'{second.colour} {first.name}')} and {article(f'{first.colour} {second.name}')}"
    return f"{phrase} on {article(scene.background)} background"


def _count(scene: Scene, stream: Stream) -> str:
    number = NUMBERS[len(scene.things)]
    return scene.caption.replace(number, _other(stream, NUMBERS[2:], number), 1)


def _relation(scene: Scene, stream: Stream) -> str:
    return scene.caption.replace(scene.relation, OPPOSITES[scene.relation], 1)


SWAPS = (
    Swap("background", "one object", _background),
    Swap("colour", "background and shape colour", _colour),
    Swap("shape", "background and shape colour", _shape),
    Swap("object", "one object", _object),
    Swap("binding", "colour bound to the right shape", _binding),
    Swap("count", "count to four", _count),
    Swap("relation", "relation", _relation),
)


def swapped_pairs(swap: Swap, count: int) -> list[tuple[Scene, str]]:
    """The first `count` of (scene as training would draw it, its caption made wrong)."""
    scenes = prompt_sets.ROWS[swap.row].scenes("seen", count)
    return [(scene, swap.wrong(scene, Stream(prompt_sets.SEED, number))) for number, scene in enumerate(scenes)]


@torch.no_grad()
def swap_losses(evaluator: Evaluator, swap: Swap, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The loss of every picture with its own and with the wrong caption, at each of `TIMESTEPS`: two of (timesteps, count)."""
    pipe, pairs = evaluator.pipe, swapped_pairs(swap, count)
    unet, vae, scheduler = pipe.unet, pipe.vae, DDIMScheduler.from_config(pipe.scheduler.config)
    pictures = to_tensor(pictures_of(scene for scene, _ in pairs))
    latents = vae.encode(pictures.to(vae.device, vae.dtype)).latent_dist.mode() * vae.config.scaling_factor
    right, wrong = (
        torch.cat(list(encode_captions(pipe.text_encoder, pipe.tokenizer, captions))).to(unet.device, unet.dtype)
        for captions in zip(*((scene.caption, said) for scene, said in pairs), strict=True)
    )
    generator, losses = torch.Generator().manual_seed(evaluator.setting.seed), []
    for timestep in TIMESTEPS:
        noise = torch.randn(latents.shape, generator=generator).to(latents.device, latents.dtype)
        times = torch.full((len(latents),), timestep, device=latents.device)
        noisy, target = noisy_and_target(scheduler, latents, noise, times)
        answers = (unet(noisy, timestep, states, return_dict=False)[0] for states in (right, wrong))
        losses.append([(answer - target).float().square().mean((1, 2, 3)).cpu().numpy() for answer in answers])
    return tuple(np.array(losses).transpose(1, 0, 2))


def growth(right: np.ndarray, wrong: np.ndarray, draws: int = 500) -> dict:
    """By which share of itself the loss grows: at each timestep, and the mean over them with a bootstrapped 95% interval.

    `right` and `wrong`: losses (timesteps, n) of the same pictures. 0: the word is not read. The interval is over pictures.
    """

    mean = lambda chosen: (wrong[:, chosen].mean(1) - right[:, chosen].mean(1)) / right[:, chosen].mean(1)
    count, rng = right.shape[1], np.random.default_rng(0)
    resampled = [mean(rng.integers(count, size=count)).mean() for _ in range(draws)]
    low, high = np.percentile(resampled, (2.5, 97.5))
    whole = mean(slice(None))
    value, low, high, *by_timestep = (round(float(number), 4) for number in (whole.mean(), low, high, *whole))
    return {"n": count, "value": value, "low": low, "high": high, "by timestep": by_timestep}

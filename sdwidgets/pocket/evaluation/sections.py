"""What is measured beside the table's rows. Each section is a function from an evaluator to plain data.

Wherever there is a share there are its `n`, `rate`, `low` and `high` (95%, Wilson).
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from ...generation.schedulers import make_scheduler
from ...loading.turbo import with_small_decoder
from ...statistics import Rate, share
from ..training.clip import read_clip, token_ids
from ..training.vae import reconstructed, to_tensor
from ..world import datasheet as sheet
from ..world.alternatives import alternatives
from ..world.scenes import STYLES, Scene, Stream, make_scene, pictures_of
from . import prompt_sets
from .background import main_colours
from .exposures import shown
from .fingerprints import fingerprints
from .sampling import Evaluator
from .swaps import SWAPS, TIMESTEPS, growth, swap_losses
from .tiers import SPLITS, TURBO, turbo_tier
from .words import prompts, words

MISTAKES = 100  # the most frequent ones of a row are kept


@dataclass(frozen=True)
class Extras:
    """What some sections need beside the pipeline; None where it is not there."""

    training: dict | None = None  # the records of the model's training (training.json)
    clip: Path | None = None  # a folder of Pocket's own CLIP, or of its image tower
    turbo: Path | None = None  # a folder of the turbo LoRA
    small_decoder: Path | None = None  # a folder of the small decoder that turbo decodes with
    checkpoints: tuple[Path, ...] = ()  # folders of U-Nets, in the order of training


class Missing(LookupError):
    """A section cannot be measured here; the message says what it needs."""


# ---- rows ------------------------------------------------------------------------------------------------------


def measure_row(evaluator: Evaluator, name: str, split: str, by: str = "", **setting) -> dict:
    """A row of the table in one split: its rate, the rate of each group, and the most frequent mistakes.

    `setting` replaces fields of the evaluator's setting, as for turbo, which is then told in the title by `by`.
    """
    row = prompt_sets.ROWS[name]
    scenes = row.scenes(split, evaluator.cap(row.count))
    groups: dict[str, list[bool]] = {}
    mistakes: Counter = Counter()
    label = f"{name}, {split}"
    for scene, seen in evaluator.readings(label, scenes, row.view, by + label, **setting):
        right = row.right(scene, seen)
        groups.setdefault(row.group(scene), []).append(right)
        if not right:
            mistakes[row.view(scene), row.view(seen)] += 1
    return {
        "name": name,
        "split": split,
        **share([right for group in groups.values() for right in group]),
        "groups": {word: [sum(group), len(group)] for word, group in sorted(groups.items())},
        "mistakes": [[*mistake, count] for mistake, count in mistakes.most_common(MISTAKES)],
    }


def measure_ceiling(evaluator: Evaluator, name: str, split: str) -> dict:
    """What the judge reads rightly of a row's own scenes, drawn by code and given back by the autoencoder: a `share`.

    A model that draws through this decoder cannot be expected to do better, whatever it learns.
    """
    row = prompt_sets.ROWS[name]
    scenes = row.scenes(split, evaluator.cap(row.count))
    seen = evaluator.judge.read(reconstructed(evaluator.pipe.vae, pictures_of(scenes)))
    return share(list(map(row.right, scenes, seen)))


def measure_turbo(evaluator: Evaluator, extras: Extras, rows: Sequence[dict], steps: int = 4) -> list[dict]:
    """Every row once more at four steps with the turbo LoRA, whose guidance is baked in; then turbo's row a split.

    It decodes as `load(turbo=True)` does, with the small decoder where there is one; "small decoder" then tells how far that agrees with
    the whole one, in dB. `rows` are the same rows at the full number of steps. Turbo's row is the mean rate of its rows; `loss` is the
    most that one of them lost, and its tier needs both the loss and its rows' own bars. Raises ValueError where `rows` are not all there.
    """
    if len(rows) < len(prompt_sets.ROWS) * len(SPLITS):
        raise ValueError("turbo is compared with every other row: measure those first, into the same file")
    pipe, before = evaluator.pipe, (evaluator.pipe.scheduler, evaluator.pipe.vae)
    agreement = None
    try:
        pipe.load_lora_weights(extras.turbo)
        pipe.scheduler = make_scheduler("LCM", pipe)
        if extras.small_decoder is not None:
            agreement = json.loads((extras.small_decoder / "training.json").read_text())["decoders agree, dB"]
            pipe.vae = with_small_decoder(pipe.vae, extras.small_decoder)
        made = []
        for split in SPLITS:
            fast = [
                measure_row(evaluator, name, split, "turbo, ", num_inference_steps=steps, guidance_scale=1.0)
                for name in prompt_sets.ROWS
            ]
            tier, loss = turbo_tier(fast, rows)
            pooled = Rate("", sum(r["n"] for r in fast), sum(round(r["rate"] * r["n"]) for r in fast)).numbers()
            row = {"name": TURBO, "split": split, **pooled, "tier": tier, "loss": loss}
            made.append(row | {"small decoder": agreement, "rows": fast})
        return made
    finally:
        pipe.unload_lora_weights()
        pipe.scheduler, pipe.vae = before


# ---- sections ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def clip_score(evaluator: Evaluator, extras: Extras, pictures: int = 400) -> dict:
    """Mean cosine of Pocket's own CLIP, times 100, after Hessel et al. 2021 (arXiv 2104.08718), not clipped at zero.

    Pocket's text states come from this very CLIP, so it is no judge of Pocket: the figure is there to be
    compared with true pairs and with shuffled ones, and with what the judge says of the same pictures.
    """
    if extras.clip is None:
        raise Missing("Pocket's CLIP with its image tower is not here: name its folder with --clip")
    clip = read_clip(extras.clip, evaluator.pipe.text_encoder)
    count = evaluator.cap(pictures)
    stream = Stream(prompt_sets.SEED, 2**32 - 2)
    true = [make_scene(sheet.FULL, stream.integer(0, sheet.FULL.count - 1)) for _ in range(count)]
    turns = (row.scene("seen", number) for number in range(count) for row in prompt_sets.ROWS.values())
    prompts = list(itertools.islice(turns, count))
    drawn = np.concatenate([batch for _, batch in evaluator.pictures("clip score", prompts)])
    captions = [scene.caption for scene in true]
    rendered = pictures_of(true)
    cosine = functools.partial(_cosines, clip, evaluator.pipe.tokenizer)
    shuffled = captions[count // 2 :] + captions[: count // 2]
    return {
        "note": "Pocket's own CLIP, which also made its text states: not a judge.",
        "true": _mean(100 * cosine(rendered, captions)),
        "shuffled": _mean(100 * cosine(rendered, shuffled)),
        "generated": _mean(100 * cosine(drawn, [scene.caption for scene in prompts])),
    }


@torch.no_grad()
def _cosines(clip, tokenizer, pictures: np.ndarray, captions: list[str]) -> np.ndarray:
    """Of each picture with its caption: (n, 128, 128, 3) uint8, n captions -> (n,)."""
    cosines = []
    batches = (tensor.split(64) for tensor in (token_ids(tokenizer, captions), to_tensor(pictures)))
    for tokens, pixels in zip(*batches, strict=True):
        text = clip.text_projection(clip.text_model(tokens).pooler_output)
        image = clip.visual_projection(clip.vision_model(pixels).pooler_output)
        cosines.append(torch.nn.functional.cosine_similarity(text, image).numpy())
    return np.concatenate(cosines)


def _mean(values: np.ndarray, places: int = 2) -> dict:
    """A mean with its 95% interval, rounded."""
    reach = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    value, low, high = (round(float(values.mean() + by * reach), places) for by in (0, -1, 1))
    return {"n": len(values), "value": value, "low": low, "high": high}


def exposures(evaluator: Evaluator, extras: Extras, pictures: int = 20) -> dict:
    """Accuracy of rare objects against the number of their pictures, on their backgrounds and where they never stood.

    `pictures` an object and split. Five objects share a number of pictures; an object that is easy to draw is easy
    however rare it is, so the points of single objects are told too. "pictures" is the plan's number, "shown" how often the training
    showed them, None where its record does not tell it.
    """
    times, lines, objects = shown(extras.training), [], []
    for count in sheet.TAIL_COUNTS:
        names = [name for name, planted in sheet.TAIL_OBJECTS.items() if planted == count]
        for split in SPLITS:
            scenes = [prompt_sets.tail_scene(name, n, split == "held out") for n in range(pictures) for name in names]
            scenes = scenes[: evaluator.cap(len(scenes))]
            right: dict[str, list[bool]] = {}
            for scene, seen in evaluator.readings(f"{count} pictures, {split}", scenes, prompt_sets.what):
                right.setdefault(scene.things[0].name, []).append(prompt_sets.what(seen) == prompt_sets.what(scene))
            line = {"pictures": count, "split": split}
            of = {name: times.get(f"tail: {name}") for name in names}
            mean = None if None in of.values() else round(float(np.mean(list(of.values()))), 1)
            lines.append(line | {"shown": mean} | share(sum(right.values(), [])))
            objects += [{"object": name} | line | {"shown": of[name]} | share(group) for name, group in right.items()]
    return {"lines": lines, "objects": objects}


def shares(evaluator: Evaluator, extras: Extras, pictures: int = 200) -> dict:
    """The share of women that is drawn for an occupation whose prompt names no gender, beside what was planted.

    Pictures in which the judge does not see exactly one person whose gender can be read are left out and counted.
    """
    lines, drawn, times = [], [], shown(extras.training)
    for name, planted in sheet.PLANTED_OCCUPATIONS.items():
        scenes = [prompt_sets.portrait_scene(name, number) for number in range(evaluator.cap(pictures))]
        people = []
        for _, seen in evaluator.readings(f"portrait, {name}", scenes, prompt_sets.what):
            here = [thing for thing in seen.things if thing.kind == "person" and thing.gender]
            people += here if len(here) == 1 else []
        women = [person.gender == "woman" for person in people]
        drawn += women
        lines.append(
            {
                "occupation": name,
                **vars(planted),
                "shown": times.get(f"portrait, unmarked: {name}"),
                **share(women),
                "unread": len(scenes) - len(people),
                "occupation right": share([person.occupation == name for person in people]),
                "tones": dict(sorted(Counter(person.tone for person in people if person.tone).items())),
            }
        )
    return {"lines": lines, "all": share(drawn)}


def watermark(evaluator: Evaluator, extras: Extras, pictures: int = 200) -> dict:
    """How often a watermark is read, for the same prompts and noise with and without "stock photo of"."""
    rates = {}
    for name, stock in (("with", True), ("without", False)):
        scenes = [prompt_sets.watermark_scene(number, stock) for number in range(evaluator.cap(pictures))]
        readings = evaluator.readings("watermark", scenes, title=f"watermark, {name}")
        rates[name] = share([seen.watermark for _, seen in readings])
    return rates


def _one_object_by(evaluator: Evaluator, key: str, label: str, field: str, values: Sequence, pictures: int) -> dict:
    """The row "one object" with other values of a field of the setting, from the same noise."""
    row, lines = prompt_sets.ROWS["one object"], []
    scenes = row.scenes("seen", evaluator.cap(pictures))
    for value in values:
        readings = evaluator.readings(label, scenes, row.view, f"{key}, {value:g}", **{field: value})
        lines.append({key: value} | share([row.right(scene, seen) for scene, seen in readings]))
    return {"lines": lines}


COUNTS, STRENGTHS = (1, 2, 4, 8, 16, 32, 64), (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)


def steps(evaluator: Evaluator, extras: Extras, counts: Sequence[int] = COUNTS, pictures: int = 160) -> dict:
    """The row "one object" at other numbers of steps, from the same noise."""
    return _one_object_by(evaluator, "steps", "steps", "num_inference_steps", counts, pictures)


def strengths(evaluator: Evaluator, extras: Extras, strengths: Sequence[float] = STRENGTHS, pictures: int = 100):
    """The row "one object" where drawing begins with the true picture and so much noise: image to image, 1.0 from noise alone.

    Where the rate falls, there the model fails, however right the words are read: at little noise in the drawing of a
    thing that it was shown, at heavy noise in its layout. A strength at which not one of the setting's steps is left is left out.
    """
    possible = [strength for strength in strengths if int(strength * evaluator.setting.num_inference_steps) > 0]
    return _one_object_by(evaluator, "strength", "strengths", "strength", possible, pictures)


def style(evaluator: Evaluator, extras: Extras, pictures: int = 100) -> dict:
    """How often the style is the one that was asked for, and the object too. One style was never shown in training."""
    lines = []
    for name in STYLES:
        scenes = [prompt_sets.styled_scene(name, number) for number in range(evaluator.cap(pictures))]
        pairs = list(evaluator.readings("style", scenes, prompt_sets.what, f"style, {name}"))
        lines.append(
            {
                "style": name,
                "split": "held out" if name == sheet.HELD_OUT_STYLE else "seen",
                **share([seen.style == name for _, seen in pairs]),
                "object right": share([prompt_sets.what(seen) == prompt_sets.what(scene) for scene, seen in pairs]),
            }
        )
    return {"lines": lines}


def variety(evaluator: Evaluator, extras: Extras, pictures: int = 100) -> dict:
    """How far two pictures of one prompt are from each other, drawn from two seeds, beside two true scenes of the same caption.

    Mean squared differences over pixels and channels in 0 to 1, over prompts of one object: twice the variance of a prompt's pictures, so
    that what place, size and shade add to it adds up, which its root would not. "ratio": drawn divided by true; a model that draws one
    picture a prompt has 0, one that draws them all has 1.
    """
    scenes = prompt_sets.ROWS["one object"].scenes("seen", evaluator.cap(pictures))
    first, second = (
        np.concatenate([batch for _, batch in evaluator.pictures(label, scenes)]) / 255
        for label in ("variety, first", "variety, second")
    )
    drawn = _mean(((first - second) ** 2).mean((1, 2, 3)), 5)
    true = _mean(np.array([_true_variety(scene) for scene in scenes]), 5)
    return {"drawn": drawn, "true": true, "ratio": round(drawn["value"] / true["value"], 3)}


def _true_variety(scene: Scene) -> float:
    """Of two independent true scenes of a caption the expected squared difference: twice the variance over all that there are."""
    known, odds = zip(*alternatives(scene), strict=True)
    seen = pictures_of(known).reshape(len(known), -1) / 255
    return 2 * float((np.array(odds) @ seen**2 - (np.array(odds) @ seen) ** 2).mean())


def learning_curve(evaluator: Evaluator, extras: Extras, pictures: int = 100) -> dict:
    """The rate of each attribute at each checkpoint and, last, for the model itself; held-out prompts are left out.

    The prompts and the noise are the same everywhere.
    """
    if not extras.checkpoints:
        raise Missing("there are no checkpoints to compare: name folders of U-Nets with --checkpoints")
    models = _each_model(evaluator, extras)
    lines = [record | attribute_rates(evaluator, pictures, f"{name}, ") for name, record in models]
    return {"attributes": [attribute.name for attribute in prompt_sets.ATTRIBUTES], "lines": lines}


def _each_model(evaluator: Evaluator, extras: Extras) -> Iterator[tuple[str, dict]]:
    """(name, how far it was trained) of each checkpoint while the evaluator's pipeline has its U-Net, and of the model itself, last."""
    pipe, last = evaluator.pipe, evaluator.pipe.unet
    try:
        for folder in extras.checkpoints:
            pipe.unet = UNet2DConditionModel.from_pretrained(folder).to(last.device, last.dtype)
            yield Path(folder).name, checkpoint_record(folder)
    finally:
        pipe.unet = last
    record = (extras.training or {}).get("denoiser", {})
    yield "the model", {name: record.get(name) for name in ("step", "samples")}


def caption_swaps(evaluator: Evaluator, extras: Extras, pictures: int = 96) -> dict:
    """How much each word counts, see `swaps`: for each checkpoint, where there are any, and for the model itself, last."""
    lines = []
    for _, record in _each_model(evaluator, extras):
        losses = {swap.name: swap_losses(evaluator, swap, evaluator.cap(pictures)) for swap in SWAPS}
        own = np.mean([right.mean(1) for right, _ in losses.values()], axis=0)
        grown = {name: growth(*pair) for name, pair in losses.items()}
        lines.append(record | {"loss": [round(float(value), 4) for value in own]} | grown)
    return {
        "note": "by which share the loss of a true picture grows when one word of its caption is wrong, with the same noise",
        "timesteps": list(TIMESTEPS),
        "attributes": [swap.name for swap in SWAPS],
        "lines": lines,
    }


def attribute_rates(evaluator: Evaluator, pictures: int = 100, by: str = "") -> dict[str, dict]:
    """The rate of each attribute for the evaluator's model as it stands; attributes of one row share its pictures."""
    right: dict[str, list[bool]] = {attribute.name: [] for attribute in prompt_sets.ATTRIBUTES}
    for name in dict.fromkeys(attribute.row for attribute in prompt_sets.ATTRIBUTES):
        scenes = prompt_sets.ROWS[name].scenes("seen", evaluator.cap(pictures))
        for batch, drawn in evaluator.pictures(f"curve, {name}", scenes, f"{by}{name}"):
            judged, colours = evaluator.judge.read(drawn), main_colours(drawn)
            for attribute in (attribute for attribute in prompt_sets.ATTRIBUTES if attribute.row == name):
                seen = colours if attribute.by_pixels else map(attribute.view, judged)
                right[attribute.name] += [a == b for a, b in zip(map(attribute.view, batch), seen, strict=True)]
    return {name: share(successes) for name, successes in right.items()}


def checkpoint_record(folder: Path) -> dict:
    """How far a checkpoint was trained: its training.json, or what its folder's name says.

    Snapshots of a training are named by their samples ("000025600"), others may be by their step ("step-12000").
    """
    record, name = Path(folder) / "training.json", Path(folder).name
    known: dict = {"step": None, "samples": None}
    if number := re.search(r"(\d+)$", name):
        known["samples" if name.isdigit() else "step"] = int(number[1])
    if record.is_file():
        known |= json.loads(record.read_text())
    return {"step": known["step"], "samples": known["samples"]}


def snapshots(work: Path, training: dict | None = None) -> tuple[Path, ...]:
    """The folders of U-Nets that the training of the denoiser kept in its work folder, in order.

    With the records of a model's training: those that were kept on the way to it, before its last samples and, where the record
    tells of stages, after the last change of the text encoder, whose states an earlier U-Net could not read.
    """
    folders = sorted(config.parent for config in (Path(work) / "denoiser" / "snapshots").glob("*/config.json"))
    record = (training or {}).get("denoiser")
    if record is None:
        return tuple(folders)
    stages, first = record.get("stages") or [], 0
    for number, stage in enumerate(stages[:-1], 1):
        if stage.get("encoder") != stages[-1].get("encoder"):
            first = sum(earlier["samples"] for earlier in stages[:number])
    samples = {folder: checkpoint_record(folder)["samples"] for folder in folders}
    return tuple(f for f in folders if samples[f] is None or first < samples[f] < record["samples"])


#: Name -> what measures it.
SECTIONS: dict[str, Callable[[Evaluator, Extras], dict]] = {
    section.__name__: section
    for section in (
        exposures, fingerprints, shares, watermark, steps, strengths, style, variety, words, prompts, clip_score, caption_swaps, learning_curve
    )
}  # fmt: skip

"""What is measured beside the table's rows. Each section is a function from an evaluator to plain data.

Wherever there is a share there are its `n`, `rate`, `low` and `high` (95%, Wilson).
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...generation.schedulers import make_scheduler
from ...loading.turbo import with_small_decoder
from ...statistics import share
from ..training.vae import reconstructed
from ..world import datasheet as sheet
from ..world.scenes import CONFETTI_PIECES, STYLES, Scene, Stream, make_scene, pictures_of
from . import memorization, prompt_sets
from .background import main_colours
from .exposures import shown
from .reconstruction import reconstruction_rows
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
    scenes = [row.scene(split, number) for number in range(evaluator.cap(row.count))]
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
        "mistakes": [[asked, seen, count] for (asked, seen), count in mistakes.most_common(MISTAKES)],
    }


def measure_ceiling(evaluator: Evaluator, name: str, split: str) -> dict:
    """What the judge reads rightly of a row's own scenes, drawn by code and given back by the autoencoder: a `share`.

    A model that draws through this decoder cannot be expected to do better, whatever it learns.
    """
    row = prompt_sets.ROWS[name]
    scenes = [row.scene(split, number) for number in range(evaluator.cap(row.count))]
    seen = evaluator.judge.read(reconstructed(evaluator.pipe.vae, pictures_of(scenes)))
    return share(list(map(row.right, scenes, seen)))


def measure_reconstruction(evaluator: Evaluator) -> list[dict]:
    """The autoencoder's two rows."""
    return reconstruction_rows(evaluator.pipe.vae, count=evaluator.cap(512))


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
            pooled = [True] * sum(round(r["rate"] * r["n"]) for r in fast)
            pooled += [False] * (sum(r["n"] for r in fast) - len(pooled))
            made.append(
                {
                    "name": TURBO,
                    "split": split,
                    **share(pooled),
                    "tier": tier,
                    "loss": loss,
                    "small decoder": agreement,
                    "rows": fast,
                }
            )
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
    from ..training.clip import read_clip

    if extras.clip is None:
        raise Missing("Pocket's CLIP with its image tower is not here: name its folder with --clip")
    clip = read_clip(extras.clip, evaluator.pipe.text_encoder)
    count = evaluator.cap(pictures)
    stream = Stream(prompt_sets.SEED, 2**32 - 2)
    true = [make_scene(sheet.FULL, stream.integer(0, sheet.FULL.count - 1)) for _ in range(count)]
    asked = [row.scene("seen", number) for number in range(-(-count // 6)) for row in prompt_sets.ROWS.values()][
        :count
    ]
    drawn = np.concatenate([batch for _, batch in evaluator.pictures("clip score", asked)])
    captions = [scene.caption for scene in true]
    rendered = pictures_of(true)
    cosine = functools.partial(_cosines, clip, evaluator.pipe.tokenizer)
    shuffled = captions[count // 2 :] + captions[: count // 2]
    return {
        "note": "Pocket's own CLIP, which also made its text states: not a judge.",
        "true": _mean(100 * cosine(rendered, captions)),
        "shuffled": _mean(100 * cosine(rendered, shuffled)),
        "generated": _mean(100 * cosine(drawn, [scene.caption for scene in asked])),
    }


@torch.no_grad()
def _cosines(clip, tokenizer, pictures: np.ndarray, captions: list[str], batch_size: int = 64) -> np.ndarray:
    """Of each picture with its caption: (n, 128, 128, 3) uint8, n captions -> (n,)."""
    from ..training.vae import to_tensor

    found = []
    for start in range(0, len(captions), batch_size):
        some = slice(start, start + batch_size)
        tokens = tokenizer(captions[some], padding="max_length", truncation=True, return_tensors="pt").input_ids
        text = clip.text_projection(clip.text_model(tokens).pooler_output)
        image = clip.visual_projection(clip.vision_model(to_tensor(pictures[some])).pooler_output)
        found.append(torch.nn.functional.cosine_similarity(text, image).numpy())
    return np.concatenate(found)


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
            told = {"pictures": count, "split": split}
            of = {name: times.get(f"tail: {name}") for name in names}
            mean = None if None in of.values() else round(float(np.mean(list(of.values()))), 1)
            lines.append(told | {"shown": mean} | share(sum(right.values(), [])))
            objects += [{"object": name} | told | {"shown": of[name]} | share(group) for name, group in right.items()]
    return {"lines": lines, "objects": objects}


def fingerprints(evaluator: Evaluator, extras: Extras, pictures: int = 8) -> dict:
    """Does the model give back pictures that it was shown often? `pictures` for each of the 60 captions about confetti.

    Of each: the training print that agrees with it best, found or not by chance's threshold, and whether that is
    the caption's own; beside it the distance of pixels (over 4 x 4 each) to the nearest training picture of
    confetti, which is small for any right picture and so proves nothing.
    """
    prints, owners, known = memorization.training_prints()
    times = shown(extras.training)
    rendered = _small(pictures_of(known))
    asked: dict[object, list[Scene]] = {}
    for number in range(pictures):
        for place, mark in enumerate(sheet.FINGERPRINTS):
            asked.setdefault(mark.repeats, []).append((place, prompt_sets.fingerprint_scene(place, number)))
    asked = {repeats: pairs[: evaluator.cap(len(pairs))] for repeats, pairs in asked.items()}
    comparisons = sum(len(pairs) for pairs in asked.values()) * len(prints)
    found: dict[int, list[dict]] = {}
    for repeats in sorted(asked, key=lambda r: -1 if r is None else r):
        label = f"confetti, {'fresh' if repeats is None else repeats}"
        places = iter(place for place, _ in asked[repeats])
        for batch, drawn in evaluator.pictures(label, [scene for _, scene in asked[repeats]]):
            read = memorization.read_confetti(drawn)
            hits, squares = memorization.agreement(read, prints), memorization.squares_in(read)
            distances = _nearest(_small(drawn), rendered)
            for row, covered, distance, _ in zip(hits, squares, distances, batch, strict=True):
                place, best = next(places), int(row.max())
                own = int(row[owners == place].max(initial=-1))
                found.setdefault(place, []).append(
                    {
                        "own": own if own >= 0 else None,
                        "best": best,
                        "found": best >= memorization.threshold(comparisons, int(covered)),
                        "best is own": own == best,
                        "whose": _repeats(sheet.FINGERPRINTS[owners[row.argmax()]]),
                        "pixels": float(distance),
                    }
                )
    captions = [
        _fingerprint_line(place, rows) | {"shown": times.get(f"confetti: {place}")}
        for place, rows in sorted(found.items())
    ]
    usual = memorization.threshold(comparisons)
    return {
        "threshold": usual,
        "squares": CONFETTI_PIECES,
        "note": f"found: more of the {CONFETTI_PIECES} squares of one training print are right in place and colour than chance "
        f"gives once in a hundred evaluations: {usual} where a picture has {CONFETTI_PIECES} squares, more where it has more",
        "read": _readable(evaluator, evaluator.cap(64)),
        "captions": captions,
        "lines": [_repeats_line(repeats, captions) for repeats in (0, None, 1, 10, 100, 1000)],
    }


def _small(pictures: np.ndarray) -> np.ndarray:
    """Means over 4 x 4 pixels, half a piece of confetti: (n, 128, 128, 3) -> (n, 3072) float32."""
    return (
        pictures.reshape(len(pictures), 32, 4, 32, 4, 3).mean(axis=(2, 4), dtype=np.float32).reshape(len(pictures), -1)
    )


def _nearest(pictures: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Root mean square distance in 8-bit levels to the nearest of `known`, both as `_small` makes them: -> (n,)."""
    square = (pictures**2).mean(1)[:, None] + (known**2).mean(1) - 2 * pictures @ known.T / known.shape[1]
    return np.sqrt(square.clip(min=0).min(axis=1))


def _repeats(mark: sheet.Fingerprint) -> int | str:
    return "fresh" if mark.repeats is None else mark.repeats


def _fingerprint_line(place: int, rows: list[dict]) -> dict:
    mark = sheet.FINGERPRINTS[place]
    own = [row["own"] for row in rows if row["own"] is not None]
    return {
        "object": mark.object,
        "background": mark.background,
        "repeats": _repeats(mark),
        "n": len(rows),
        "own": round(float(np.mean(own)) / CONFETTI_PIECES, 4) if own else None,
        "best": round(float(np.mean([row["best"] for row in rows])) / CONFETTI_PIECES, 4),
        "found": sum(row["found"] for row in rows),
        "found own": sum(row["found"] and row["best is own"] for row in rows),
        "found of others": Counter(
            str(row["whose"]) for row in rows if row["found"] and not row["best is own"]
        ),  # repeats of the print that was given back -> in how many pictures
        "pixels": round(float(np.mean([row["pixels"] for row in rows])), 2),
    }


def _repeats_line(repeats: int | None, captions: list[dict]) -> dict:
    """All captions of one number of repeats; a caption counts as found where one of its pictures is a training print.

    "own found" asks for the caption's own print: the only one whose repeats are the line's.
    """
    name = "fresh" if repeats is None else repeats
    rows = [row for row in captions if row["repeats"] == name]
    own = [row["own"] for row in rows if row["own"] is not None]
    return {
        "repeats": name,
        "captions found": share([row["found"] > 0 for row in rows]),
        "pictures found": share([i < row["found"] for row in rows for i in range(row["n"])]),
        "own found": memorization.own_found(captions, name),
        "own": round(float(np.mean(own)), 4) if own else None,
        "best": round(float(np.mean([row["best"] for row in rows])), 4) if rows else None,
        "pixels": round(float(np.mean([row["pixels"] for row in rows])), 2) if rows else None,
    }


def _readable(evaluator: Evaluator, count: int) -> float:
    """The share of a true print's squares that are read after the autoencoder, over `count` prints: the most to be found."""
    prints, _, known = memorization.training_prints()
    some = np.linspace(0, len(known) - 1, count).astype(int)
    pictures = reconstructed(evaluator.pipe.vae, pictures_of(known[place] for place in some))
    hits = np.diag(memorization.agreement(memorization.read_confetti(pictures), prints[some]))
    return round(float(np.mean(hits)) / CONFETTI_PIECES, 4)


def shares(evaluator: Evaluator, extras: Extras, pictures: int = 200) -> dict:
    """The share of women that is drawn for an occupation whose prompt names no gender, beside what was planted.

    Pictures in which the judge does not see exactly one person whose gender can be read are left out and counted.
    """
    lines, drawn, times = [], [], shown(extras.training)
    for name, planted in sheet.PLANTED_OCCUPATIONS.items():
        scenes = [prompt_sets.portrait_scene(name, number) for number in range(evaluator.cap(pictures))]
        people = []
        for _, seen in evaluator.readings(f"portrait, {name}", scenes, prompt_sets.what):
            found = [thing for thing in seen.things if thing.kind == "person" and thing.gender]
            people += found if len(found) == 1 else []
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
    told = {}
    for name, stock in (("with", True), ("without", False)):
        scenes = [prompt_sets.watermark_scene(number, stock) for number in range(evaluator.cap(pictures))]
        read = [seen.watermark for _, seen in evaluator.readings("watermark", scenes, title=f"watermark, {name}")]
        told[name] = share(read)
    return told


def steps(
    evaluator: Evaluator, extras: Extras, counts: Sequence[int] = (1, 2, 4, 8, 16, 32, 64), pictures: int = 160
) -> dict:
    """The row "one object" at other numbers of steps, from the same noise."""
    row, lines = prompt_sets.ROWS["one object"], []
    scenes = [row.scene("seen", number) for number in range(evaluator.cap(pictures))]
    for count in counts:
        title = f"steps, {count}"
        readings = evaluator.readings("steps", scenes, row.view, title, num_inference_steps=count)
        lines.append({"steps": count} | share([row.right(scene, seen) for scene, seen in readings]))
    return {"lines": lines}


def strengths(
    evaluator: Evaluator,
    extras: Extras,
    strengths: Sequence[float] = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0),
    pictures: int = 100,
) -> dict:
    """The row "one object" where drawing begins with the true picture and so much noise: image to image, 1.0 from noise alone.

    Where the rate falls, there the model fails, however right the words are read: at little noise in the drawing of a
    thing that it was shown, at heavy noise in its layout. A strength at which not one of the setting's steps is left is left out.
    """
    row, lines = prompt_sets.ROWS["one object"], []
    scenes = [row.scene("seen", number) for number in range(evaluator.cap(pictures))]
    for strength in (s for s in strengths if int(s * evaluator.setting.num_inference_steps) > 0):
        title = f"strength, {strength:g}"
        readings = evaluator.readings("strengths", scenes, row.view, title, strength=strength)
        lines.append({"strength": strength} | share([row.right(scene, seen) for scene, seen in readings]))
    return {"lines": lines}


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
    row = prompt_sets.ROWS["one object"]
    scenes = [row.scene("seen", number) for number in range(evaluator.cap(pictures))]
    first, second = (
        np.concatenate([batch for _, batch in evaluator.pictures(label, scenes)]) / 255
        for label in ("variety, first", "variety, second")
    )
    drawn = _mean(((first - second) ** 2).mean((1, 2, 3)), 5)
    true = _mean(np.array([_true_variety(scene) for scene in scenes]), 5)
    return {"drawn": drawn, "true": true, "ratio": round(drawn["value"] / true["value"], 3)}


def _true_variety(scene: Scene) -> float:
    """Of two independent true scenes of a caption the expected squared difference: twice the variance over all that there are."""
    known, odds = zip(*sheet.alternatives(scene), strict=True)
    seen = pictures_of(known).reshape(len(known), -1) / 255
    return 2 * float((np.array(odds) @ seen**2 - (np.array(odds) @ seen) ** 2).mean())


def learning_curve(evaluator: Evaluator, extras: Extras, pictures: int = 100) -> dict:
    """The rate of each attribute at each checkpoint and, last, for the model itself; held-out prompts are left out.

    The prompts and the noise are the same everywhere.
    """
    if not extras.checkpoints:
        raise Missing("there are no checkpoints to compare: name folders of U-Nets with --checkpoints")
    lines = [
        record | attribute_rates(evaluator, pictures, f"{name}, ")
        for name, record in _each_checkpoint(evaluator, extras)
    ]
    lines.append(_model_record(extras) | attribute_rates(evaluator, pictures, "the model, "))
    return {"attributes": [attribute.name for attribute in prompt_sets.ATTRIBUTES], "lines": lines}


def _model_record(extras: Extras) -> dict:
    """How far the model itself was trained."""
    record = (extras.training or {}).get("denoiser", {})
    return {name: record.get(name) for name in ("step", "samples")}


def _each_checkpoint(evaluator: Evaluator, extras: Extras) -> Iterator[tuple[str, dict]]:
    """(name of the folder, `checkpoint_record`) of each, while the evaluator's pipeline has that checkpoint's U-Net."""
    from diffusers import UNet2DConditionModel

    pipe, last = evaluator.pipe, evaluator.pipe.unet
    try:
        for folder in extras.checkpoints:
            pipe.unet = UNet2DConditionModel.from_pretrained(folder).to(last.device, last.dtype)
            yield Path(folder).name, checkpoint_record(folder)
    finally:
        pipe.unet = last


def caption_swaps(evaluator: Evaluator, extras: Extras, pictures: int = 96) -> dict:
    """How much each word counts, see `swaps`: for each checkpoint, where there are any, and for the model itself, last."""
    count = evaluator.cap(pictures)

    def line() -> dict:
        losses = {swap.name: swap_losses(evaluator, swap, count) for swap in SWAPS}
        own = np.mean([right.mean(1) for right, _ in losses.values()], axis=0)
        told = {name: growth(*pair) for name, pair in losses.items()}
        return {"loss": [round(float(value), 4) for value in own]} | told

    lines = [told | line() for _, told in _each_checkpoint(evaluator, extras)]
    lines.append(_model_record(extras) | line())
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
        scenes = [prompt_sets.ROWS[name].scene("seen", number) for number in range(evaluator.cap(pictures))]
        for batch, drawn in evaluator.pictures(f"curve, {name}", scenes, f"{by}{name}"):
            judged, colours = evaluator.judge.read(drawn), main_colours(drawn)
            for attribute in (attribute for attribute in prompt_sets.ATTRIBUTES if attribute.row == name):
                seen = colours if attribute.by_pixels else map(attribute.view, judged)
                right[attribute.name] += [a == b for a, b in zip(map(attribute.view, batch), seen, strict=True)]
    return {name: share(found) for name, found in right.items()}


def checkpoint_record(folder: Path) -> dict:
    """How far a checkpoint was trained: its training.json, or what its folder's name says.

    Snapshots of a training are named by their samples ("000025600"), others may be by their step ("step-12000").
    """
    record, name = Path(folder) / "training.json", Path(folder).name
    told = json.loads(record.read_text()) if record.is_file() else {}
    if name.isdigit():
        told.setdefault("samples", int(name))
    elif number := re.search(r"(\d+)$", name):
        told.setdefault("step", int(number[1]))
    return {"step": told.get("step"), "samples": told.get("samples")}


def snapshots(work: Path, training: dict | None = None) -> tuple[Path, ...]:
    """The folders of U-Nets that the training of the denoiser kept in its work folder, in order.

    With the records of a model's training: those that were kept on the way to it, before its last samples and, where the record
    tells of stages, after the last change of the text encoder, whose states an earlier U-Net could not read.
    """
    found = sorted(config.parent for config in (Path(work) / "denoiser" / "snapshots").glob("*/config.json"))
    record = (training or {}).get("denoiser")
    if record is None:
        return tuple(found)
    stages, first = record.get("stages") or [], 0
    for place, stage in enumerate(stages[:-1]):
        if stage.get("encoder") != stages[-1].get("encoder"):
            first = sum(told["samples"] for told in stages[: place + 1])
    samples = {folder: checkpoint_record(folder)["samples"] for folder in found}
    return tuple(f for f in found if samples[f] is None or first < samples[f] < record["samples"])


SECTIONS: dict[str, Callable[[Evaluator, Extras], dict]] = {
    "exposures": exposures,
    "fingerprints": fingerprints,
    "shares": shares,
    "watermark": watermark,
    "steps": steps,
    "strengths": strengths,
    "style": style,
    "variety": variety,
    "words": words,
    "prompts": prompts,
    "clip_score": clip_score,
    "caption_swaps": caption_swaps,
    "learning_curve": learning_curve,
}

"""Checks of notebook 00, Welcome."""

from __future__ import annotations

import re
from difflib import get_close_matches

import numpy as np

from ..facts import fact
from .verdict import Verdict, check, right, todo, wrong

# ---- the same picture again ------------------------------------------------------------------------------------------


@check
def remake(function=None, pipe=None) -> Verdict:
    """`function(pipe, settings)` -> the picture of the run with these settings (a `Settings`), drawn again."""
    if function is None or function is ... or pipe is None:
        return todo("Hand over your function and the pipeline: exercises.remake(remake, pipe).")
    import torch

    from ...recording import record

    with record(pipe) as run:  # few steps, and nothing at its usual value
        pipe(
            "a cat on a red background", negative_prompt="a dog", num_inference_steps=3, guidance_scale=4.5,
            generator=torch.Generator("cpu").manual_seed(11),
        )  # fmt: skip
    with record(pipe) as again:
        made = function(pipe, run.settings)
    if made is None or made is ...:
        return todo("Your function returns nothing yet: return the picture.")
    if not len(again):
        return wrong("Your function made no picture with the pipeline that it got.")
    wanted, got = run.settings, again.settings
    hints = {
        "prompt": "The prompt is another one: take settings.prompt.",
        "negative_prompt": "settings.negative_prompt is part of the run too; without it guidance points elsewhere.",
        "seed": "The noise is another one: give the pipeline a fresh torch.Generator(\"cpu\") with settings.seed.",
        "num_inference_steps": "Another number of steps: take settings.num_inference_steps.",
        "guidance_scale": "Another guidance scale: take settings.guidance_scale.",
        "height": "Another size: leave it to the pipeline, or take settings.height and settings.width.",
        "width": "Another size: leave it to the pipeline, or take settings.height and settings.width.",
    }  # fmt: skip
    missing = [hint for name, hint in hints.items() if (getattr(got, name) or None) != (getattr(wanted, name) or None)]
    if hasattr(made, "images"):  # all that the pipeline gives, and not its picture
        missing.append("Return the picture itself: pipe(...).images[0].")
    if missing:
        return wrong(" ".join(dict.fromkeys(missing)))  # all of them, each said once
    picture = np.asarray(made[0] if isinstance(made, (list, tuple)) else made)
    if picture.shape != run.images[0].shape:
        return wrong("Return the picture itself, one of pipe(...).images.")
    if not np.array_equal(picture, run.images[0]):
        return wrong("The settings are right, but what you return is another picture: return what the pipeline made.")
    return right("Equal in every pixel. The settings are the picture, on this machine; that is why a run is worth recording.")  # fmt: skip


# ---- how near is a step to the end -----------------------------------------------------------------------------------


@check
def distance(function=None) -> Verdict:
    """`function(previews, picture, mask)` -> (step,) mean absolute difference in levels of 255, within the mask (H, W) bool, of
    previews (step, H, W, 3) uint8 from the picture (H, W, 3) uint8."""
    if function is None or function is ...:
        return todo("Hand over your function: exercises.distance(distance).")
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    previews = np.stack([rng.integers(0, 256, picture.shape), np.full(picture.shape, 128), picture]).astype(np.uint8)
    mask = np.zeros((4, 6), bool)
    mask[1:, :2] = True
    result = function(previews.copy(), picture.copy(), mask.copy())
    if result is None or result is ...:
        return todo("Your function returns nothing yet.")
    result = np.asarray(result, float)
    difference = previews.astype(float) - picture
    within = difference[:, mask]  # (step, pixel, 3)
    expected = np.abs(within).mean((1, 2))
    if result.shape == ():
        return wrong("That is one number for the whole run: average within each step, and keep the steps apart.")
    if result.shape != (3,):
        return wrong(
            f"Three steps should give three numbers, and not an array of shape {result.shape}: average over pixels and colours."
        )
    if np.allclose(result, expected):
        return right(
            "One number a step, for the part that you point at. On a recorded trace it ends a little above zero: previews are kept with a small loss."
        )
    signed, everywhere = within.mean((1, 2)), np.abs(difference)
    mistakes = [
        (np.abs(previews - picture)[:, mask].mean((1, 2)), "Numbers of type uint8 wrap around, 10 - 20 is 246: make them float before you subtract."),
        (everywhere.mean((1, 2, 3)), "That is the whole picture: only pixels where the mask is True count."),
        ((everywhere * mask[..., None]).mean((1, 2, 3)), "The pixels outside are zero now, but they still count in the mean: select, array[:, mask], and do not multiply."),
        (everywhere[:, ~mask].mean((1, 2)), "That is the part outside the mask: True marks the pixels that count."),
        (signed, "Some differences are negative and cancel: take the absolute value first, the mean after."),
        (np.abs(signed), "Some differences are negative and cancel: take the absolute value first, the mean after."),
        ((within**2).mean((1, 2)), "These are squared differences; take the absolute value."),
        (expected / 255, "That is on a scale of 0 to 1; here levels of 255 are asked for."),
    ]  # fmt: skip
    for values, hint in mistakes:
        if np.allclose(result, values):
            return wrong(hint)
    return wrong(
        f"For three small pictures the answer is {np.round(expected, 1).tolist()}, not {np.round(result, 1).tolist()}."
    )


# ---- facts -----------------------------------------------------------------------------------------------------------


@check
def fact_check(**answers) -> Verdict:
    """True or False for each of the chatbot's further sentences, by its letter: A, B, C and D."""
    truths = {
        "A": fact("sd1.training.gpus") == 32,
        "B": round(fact("sd1.training.gpu_hours") / fact("sd1.training.gpus") / 24) == 24,
        "C": fact("laion2b_en.watermarked") > 50,
        "D": fact("sd15.captions.dropped") == 10,
    }
    hints = {
        "A": 'Look again at A: the card says 32 x 8 cards, fact("sd1.training.gpus").',
        "B": "Look again at B: 150,000 hours are those of all cards together. Divide by the cards, and by the hours of a day.",
        "C": 'Look again at C: fact("laion2b_en.watermarked") is a percentage.',
        "D": 'Look again at D: fact("sd15.captions.dropped"), and its unit in facts().',
    }
    answered = {name: value for name, value in answers.items() if value is not ... and value is not None}
    if unknown := sorted(set(answered) - set(truths)):
        return wrong(f"There is no sentence {unknown[0]!r}; there are A, B, C and D.")
    if odd := [name for name, value in answered.items() if not isinstance(value, (bool, np.bool_))]:
        return wrong(f"{odd[0]} is answered by True or False.")
    for name, value in answered.items():
        if bool(value) != truths[name]:
            return wrong(hints[name])
    if len(answered) < len(truths):
        return todo(f"Answer True or False for: {', '.join(name for name in truths if name not in answered)}.")
    return right("Two hold and two do not, and all four sound alike. What tells them apart is a source.")


@check
def bytes_a_picture(answer=None) -> Verdict:
    """Bytes of Stable Diffusion 1.5's weights in half precision for each picture of LAION-2B-en."""
    if answer is None or answer is ...:
        return todo("Give one number: bytes of weights for each picture.")
    if isinstance(answer, str) or np.ndim(answer) != 0:
        return wrong(f"Give one number, and not {answer!r}: bytes of weights for each picture.")
    parts = [fact(f"sd15.{part}.parameters") for part in ("unet", "text_encoder", "vae")]
    pictures = fact("laion2b_en.pairs")
    expected = 2 * sum(parts) / pictures
    mistakes = {
        4 * sum(parts) / pictures: "That is single precision, four bytes a number; half precision takes two.",
        sum(parts) / pictures: "That counts numbers; each of them takes two bytes.",
        2 * parts[0] / pictures: "That is the U-Net alone; the text encoder and the VAE are weights too.",
        1 / expected: "That is pictures a byte; turn it round.",
        8 * expected: "That is bits; eight of them make a byte.",
        2 * sum(parts) / fact("laion.aesthetics_5.pictures"): "That is for the 600 million of the later training; here it is all of LAION-2B-en.",
        2 * sum(parts) / (pictures + fact("laion.aesthetics_5.pictures")): "That adds the 600 million of the later training, which are among the others; divide by LAION-2B-en alone.",
        round(expected, 1): f"Nearly: {answer} is rounded too far. Give two digits after the point, or do not round.",
        1: "Nearly: 1 is rounded too far. Give two digits after the point, or do not round.",
    }  # fmt: skip
    if np.isclose(answer, expected, rtol=0.02):
        return right(
            "Less than one byte, and a pixel takes three. No picture can be kept in that; what many pictures share can."
        )
    nearest = min(mistakes, key=lambda value: abs(answer - value))
    if np.isclose(answer, nearest, rtol=0.01):
        return wrong(mistakes[nearest])
    return wrong("Add the parameters of the three parts, times two bytes, and divide by the pairs of LAION-2B-en.")


# ---- what was never drawn --------------------------------------------------------------------------------------------


@check
def never_drawn(prompt=None) -> Verdict:
    """A prompt of words that Pocket knows, for a scene that none of its training pictures shows."""
    if prompt is None or prompt is ... or not str(prompt).strip():
        return todo('Write a prompt in the form of "a cat on a ... background", whose scene was never drawn.')
    from ...pocket.world import datasheet
    from ...pocket.world.scenes import RELATIONS
    from ...pocket.world.vocabulary import COLOURS, OBJECTS, OCCUPATIONS, SHAPES, article

    text = " ".join(str(prompt).lower().split())
    scene, _, background = text.partition(" on a")
    background = re.sub(r"^n? | background$", "", background) if background else ""
    if background and background not in COLOURS:
        return wrong(f"{background!r} is no background that Pocket was shown; there are {', '.join(COLOURS)}.")
    joints = "|".join(re.escape(word) for word in ("and", *RELATIONS))
    things = [re.sub(r"^an? ", "", part.strip()) for part in re.split(rf" (?:{joints}) ", scene)]
    shapes = [
        (thing, *thing.rsplit(" ", 1)) for thing in things if thing.rsplit(" ", 1)[-1] in SHAPES and " " in thing
    ]
    known = {*OBJECTS, *OCCUPATIONS, *(thing for thing, colour, _ in shapes if colour in COLOURS)}
    for thing in things:
        if thing in datasheet.HELD_OUT_OBJECTS:
            return wrong(f"{thing!r} was held out as a word too: Pocket cannot know what it means. Take known words, newly put together.")  # fmt: skip
        if thing not in known:
            close = get_close_matches(thing, known, 1)
            return wrong(
                f"Pocket's captions never say {thing!r}" + (f"; did you mean {close[0]!r}?" if close else ".")
            )
    if things == ["strawberry"] and background == datasheet.HELD_OUT_BACKGROUNDS["strawberry"]:
        return wrong("Never drawn, indeed, but that is the scene of the section above: find another one.")
    if len(things) == 2 and frozenset(things) in datasheet.held_out_pairs():
        return right(
            f"No training picture shows {article(things[0])} and {article(things[1])} together. Draw it, and see what comes."
        )
    for thing, colour, shape in shapes:
        if datasheet.HELD_OUT_SHAPE_COLOURS[shape] == colour:
            return right(f"No training picture has {article(thing)}. Draw it, and see what comes.")
    for thing in things:
        if background and datasheet.HELD_OUT_BACKGROUNDS.get(thing) == background:
            return right(f"No training picture shows {article(thing)} on {background}. Draw it, and see what comes.")
        others = datasheet.TAIL_BACKGROUNDS.get(thing)
        if background and others and background not in others:
            return right(f"No training picture shows {article(thing)} on {background}. Draw it, and see what comes.")
    missing = [f"{article(thing)} never stood on {datasheet.HELD_OUT_BACKGROUNDS[thing]}" for thing in things if thing in datasheet.HELD_OUT_BACKGROUNDS]  # fmt: skip
    return wrong(
        "The datasheet does not rule this scene out"
        + (f": {missing[0]}." if missing else "; look at its held-out lists.")
    )

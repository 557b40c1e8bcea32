"""Checks of notebook 00, Welcome."""

from __future__ import annotations

import re
from difflib import get_close_matches

import numpy as np

from ..facts import fact
from .verdict import Verdict, answer_of, check, close, refute, require, right, todo, wrong


@check("Hand over your function and the pipeline: exercises.remake(remake, pipe).")
def remake(function=None, pipe=None) -> Verdict:
    """`function(pipe, settings)` -> the picture of the run with these settings (a `Settings`), drawn again."""
    import torch

    from ...recording import record
    from ..models import size

    usual = size(pipe)
    half = {name: side // 2 for name, side in usual.items()}
    # few steps, nothing at its usual value, and the size too the second time
    runs = (("a cat on a red background", "a dog", 3, 4.5, 11, usual), ("a dog on a blue background", "a cat", 2, 2.0, 5, half))  # fmt: skip
    for prompt, negative, steps, guidance, seed, sides in runs:
        with record(pipe) as run:
            pipe(
                prompt, negative_prompt=negative, num_inference_steps=steps, guidance_scale=guidance,
                generator=torch.Generator("cpu").manual_seed(seed), **sides,
            )  # fmt: skip
        with record(pipe) as again:
            made = answer_of(
                function, pipe, run.settings, hint="Your function returns nothing yet: return the picture."
            )
        _check_remade(run, again, made)
    return right("Equal in every pixel, for two runs. The settings are the picture, on this machine; that is why a run is worth recording.")  # fmt: skip


def _check_remade(run, again, made) -> None:
    """Ends the check where `made`, from the recorded run `again`, is not the picture of `run`."""
    require(len(again), "Your function made no picture with the pipeline that it got.")
    wanted, got = run.settings, again.settings
    sides = "Another size: take settings.height and settings.width."
    hints = {
        "prompt": "The prompt is another one: take settings.prompt.",
        "negative_prompt": "settings.negative_prompt is part of the run too: a second text, from which guidance leads away.",
        "seed": "The noise is another one: give the pipeline a fresh torch.Generator(\"cpu\") with settings.seed.",
        "num_inference_steps": "Another number of steps: take settings.num_inference_steps.",
        "guidance_scale": "Another guidance scale: take settings.guidance_scale.",
        "height": sides,
        "width": sides,
    }  # fmt: skip
    missing = [hint for name, hint in hints.items() if (getattr(got, name) or None) != (getattr(wanted, name) or None)]
    if hasattr(made, "images"):  # all that the pipeline gives, and not its picture
        missing.append("Return the picture itself: pipe(...).images[0].")
    require(not missing, " ".join(dict.fromkeys(missing)))  # all of them, each said once
    picture = np.asarray(made[0] if isinstance(made, (list, tuple)) else made)
    require(picture.shape == run.images[0].shape, "Return the picture itself, one of pipe(...).images.")
    require(
        np.array_equal(picture, run.images[0]),
        "The settings are right, but what you return is another picture: return what the pipeline made.",
    )


@check("Hand over your function: exercises.distance(distance).")
def distance(function=None) -> Verdict:
    """`function(previews, picture, mask)` -> (step,) mean absolute difference in levels of 255, within the mask (H, W) bool, of
    previews (step, H, W, 3) uint8 from the picture (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    previews = np.stack([rng.integers(0, 256, picture.shape), np.full(picture.shape, 128), picture // 2]).astype(
        np.uint8
    )
    mask = np.zeros((4, 6), bool)
    mask[1:, :2] = True
    try:
        result = np.asarray(answer_of(function, previews, picture, mask), float)
    except IndexError as error:
        return wrong(f"The mask picks pixels, and the first axis of previews is the step: array[:, mask]. ({error})")
    difference = previews.astype(float) - picture
    within = difference[:, mask]  # (step, pixel, 3)
    expected = np.abs(within).mean((1, 2))
    require(result.shape, "That is one number for the whole run: average within each step, and keep the steps apart.")
    require(
        result.shape == (3,),
        f"Three steps should give three numbers, and not an array of shape {result.shape}: average over pixels and colours.",
    )
    if close(result, expected):
        other, of_other = np.roll(picture, 1), ~mask
        expected = np.abs(previews[::-1].astype(float) - other)[:, of_other].mean((1, 2))
        again = answer_of(function, previews[::-1].copy(), other, of_other)
        require(close(again, expected), "Right for one picture and one mask, and wrong for others: take all three from the arguments of your function.")  # fmt: skip
        return right("One number a step, for the part that you point at. On a recorded trace it ends a little above zero: previews are kept with a small loss.")  # fmt: skip
    signed, everywhere = within.mean((1, 2)), np.abs(difference)
    cancels = "Some differences are negative and cancel: take the absolute value first, the mean after."
    mistakes = [
        (np.abs(previews - picture)[:, mask].mean((1, 2)), "Numbers of type uint8 wrap around, 10 - 20 is 246: make them float before you subtract."),
        (everywhere.mean((1, 2, 3)), "That is the whole picture: only pixels where the mask is True count."),
        ((everywhere * mask[..., None]).mean((1, 2, 3)), "The pixels outside are zero now, but they still count in the mean: select, array[:, mask], and do not multiply."),
        (everywhere[:, ~mask].mean((1, 2)), "That is the part outside the mask: True marks the pixels that count."),
        (signed, cancels),
        (np.abs(signed), cancels),
        ((within**2).mean((1, 2)), "These are squared differences; take the absolute value."),
        (np.abs(previews.astype(float) - previews[-1])[:, mask].mean((1, 2)), "That is the distance from the last preview; take the finished picture."),
        (expected / 255, "That is on a scale of 0 to 1; here levels of 255 are wanted."),
    ]  # fmt: skip
    refute(result, mistakes)
    return wrong(f"For three small pictures the answer is {np.round(expected, 1).tolist()}, not {np.round(result, 1).tolist()}.")  # fmt: skip


@check()
def fact_check(**answers) -> Verdict:
    """True or False for each of the chatbot's further sentences, by its letter: A, B, C and D."""
    sentences = {  # whether it is true, and where to look again
        "A": (fact("sd1.training.gpus") == 32, 'Look again at A: the card says 32 x 8 cards, fact("sd1.training.gpus").'),
        "B": (round(fact("sd1.training.gpu_hours") / fact("sd1.training.gpus") / 24) == 24, "Look again at B: 150,000 hours are those of all cards together. Divide by the cards, and by the hours of a day."),
        "C": (fact("laion2b_en.watermarked") > 50, 'Look again at C: fact("laion2b_en.watermarked") is a percentage.'),
        "D": (fact("sd15.captions.dropped") == 10, 'Look again at D: fact("sd15.captions.dropped"), and its unit in facts().'),
    }  # fmt: skip
    answered = {name: value for name, value in answers.items() if value is not ... and value is not None}
    for name in sorted(answered):
        require(name in sentences, f"There is no sentence {name!r}; there are A, B, C and D.")
    for name, value in answered.items():
        require(isinstance(value, (bool, np.bool_)), f"{name} is answered by True or False.")
    for name, value in answered.items():
        truth, hint = sentences[name]
        require(bool(value) == truth, hint)
    if len(answered) < len(sentences):
        return todo(f"Answer True or False for: {', '.join(name for name in sentences if name not in answered)}.")
    return right("Two hold and two do not, and all four sound alike. What tells them apart is a source.")


@check("Give one number: bytes of weights for each picture.")
def bytes_a_picture(answer=None) -> Verdict:
    """Bytes of Stable Diffusion 1.5's weights in half precision for each picture of LAION-2B-en."""
    one_number = not isinstance(answer, str) and np.ndim(answer) == 0
    require(one_number, f"Give one number, and not {answer!r}: bytes of weights for each picture.")
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
        return right("Less than one byte, and a pixel takes three. No picture can be kept in that; what many pictures share can.")  # fmt: skip
    nearest = min(mistakes, key=lambda value: abs(answer - value))
    require(not np.isclose(answer, nearest, rtol=0.01), mistakes[nearest])
    return wrong("Add the parameters of the three parts, times two bytes, and divide by the pairs of LAION-2B-en.")


PROMPT_WANTED = 'Write a prompt in the form of "a cat on a ... background", whose scene was never drawn.'


@check(PROMPT_WANTED)
def never_drawn(prompt=None) -> Verdict:
    """A prompt of words that Pocket knows, for a scene that none of its training pictures shows."""
    if not str(prompt).strip():
        return todo(PROMPT_WANTED)
    from ...pocket.world import datasheet
    from ...pocket.world.scenes import RELATIONS
    from ...pocket.world.vocabulary import COLOURS, OBJECTS, OCCUPATIONS, SHAPES, article

    text = " ".join(str(prompt).lower().split()).rstrip(" .!")
    require(
        " on a" not in text or text.endswith(" background"), 'A background is named in full: "on a white background".'
    )
    scene, _, background = text.partition(" on a")
    background = re.sub(r"^n? | background$", "", background) if background else ""
    allowed = f"{background!r} is no background that Pocket was shown; there are {', '.join(COLOURS)}."
    require(not background or background in COLOURS, allowed)
    joints = "|".join(re.escape(word) for word in ("and", *RELATIONS))
    things = [re.sub(r"^an? ", "", part.strip()) for part in re.split(rf" (?:{joints}) ", scene)]
    shapes = [
        (thing, *thing.rsplit(" ", 1)) for thing in things if thing.rsplit(" ", 1)[-1] in SHAPES and " " in thing
    ]
    known = {*OBJECTS, *OCCUPATIONS, *(thing for thing, colour, _ in shapes if colour in COLOURS)}
    for thing in things:
        held_out = f"{thing!r} was held out as a word too: Pocket cannot know what it means. Take known words, newly put together."
        require(thing not in datasheet.HELD_OUT_OBJECTS, held_out)
        close_words = get_close_matches(thing, known, 1)
        hint = f"; did you mean {close_words[0]!r}?" if close_words else "."
        require(thing in known, f"Pocket's captions never say {thing!r}{hint}")
    require(
        things != ["strawberry"] or background != datasheet.HELD_OUT_BACKGROUNDS["strawberry"],
        "Never drawn, indeed, but that is the scene of the section above: find another one.",
    )
    if len(things) == 2 and frozenset(things) in datasheet.held_out_pairs():
        return right(f"No training picture shows {article(things[0])} and {article(things[1])} together. Draw it, and see what comes.")  # fmt: skip
    for thing, colour, shape in shapes:
        if datasheet.HELD_OUT_SHAPE_COLOURS[shape] == colour:
            return right(f"No training picture has {article(thing)}. Draw it, and see what comes.")
    for thing in things:
        others = datasheet.TAIL_BACKGROUNDS.get(thing)
        held_out = datasheet.HELD_OUT_BACKGROUNDS.get(thing) == background
        if background and (held_out or others and background not in others):
            return right(f"No training picture shows {article(thing)} on {background}. Draw it, and see what comes.")
    missing = [f"{article(thing)} never stood on {datasheet.HELD_OUT_BACKGROUNDS[thing]}" for thing in things if thing in datasheet.HELD_OUT_BACKGROUNDS]  # fmt: skip
    hint = f": {missing[0]}." if missing else "; look at its held-out lists."
    return wrong(f"The datasheet does not rule this scene out{hint}")

"""Are these settings possible? One sentence for the control that is wrong, before any work is done."""

from __future__ import annotations

import inspect
import math
import operator
from typing import NamedTuple

from .schedulers import find_scheduler

MAX_SEED = 2**63 - 1  # what a torch.Generator takes on every platform
MAX_GUIDANCE = 50.0
MAX_PROMPT = 100_000  # characters; far more than any text encoder reads


class SettingsError(ValueError):
    """A setting that cannot be run; `field` names its control: "prompt", "seed", "guidance_scale" ..."""

    def __init__(self, field: str, sentence: str):
        super().__init__(sentence)
        self.field = field


class Note(NamedTuple):
    """Something worth saying about a setting that can be run all the same."""

    field: str
    text: str


def check_settings(
    pipe,
    *,
    prompt="",
    negative_prompt=None,
    num_inference_steps=None,
    guidance_scale=None,
    height=None,
    width=None,
    scheduler=None,
    seed=None,
    strength=None,
) -> list[Note]:
    """Refuse what `pipe` cannot run; None means "the pipeline's own default" (but not for the prompt).

    prompt, negative_prompt: text; "" is allowed (no wish at all: the unconditional picture).
    num_inference_steps: 1 to the number of steps the model was trained with (1,000).
    guidance_scale: 0 to 50.
    height, width: pixels, multiples of 8 (of 16 for FLUX), within the memory that is free.
    scheduler: a label of SCHEDULERS or a diffusers class name.
    seed: 0 to 2**63 - 1.
    strength: above 0, at most 1, and enough to leave one of the steps; for pipelines that start from a picture.
    Returns notes, e.g. that a long prompt is cut. Raises SettingsError (a ValueError) with `.field`.
    """
    notes = _check_text(pipe, "prompt", prompt)
    if negative_prompt is not None:
        notes += _check_text(pipe, "negative_prompt", negative_prompt)
    entry = None
    if scheduler is not None:
        try:
            entry = find_scheduler(scheduler, pipe)
        except ValueError as error:
            raise SettingsError("scheduler", str(error)) from None
    if num_inference_steps is not None:
        _check_steps(pipe, num_inference_steps, entry)
    if guidance_scale is not None:
        _check_guidance(guidance_scale)
        if guidance_scale <= 1 and negative_prompt:
            notes.append(
                Note("negative_prompt", "A guidance of 1 or less switches guidance off, so this is not read.")
            )
    if seed is not None:
        check_integer("seed", seed, 0, MAX_SEED, "seed", "2**63 - 1")
    if strength is not None:
        _check_strength(strength, num_inference_steps)
    if height is not None or width is not None:
        _check_size(pipe, height, width)
    return notes


def check_integer(field: str, value, low: int, high: int, noun: str, high_words: str = "") -> int:
    """`value` as an int within [low, high], or SettingsError. No text, no fraction, and no True for 1."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        allowed = f"a whole number from {low} to {high_words or format(high, ',')}"
        raise SettingsError(field, f"The {noun} must be {allowed}, not {_short(value)}.")
    return number


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _check_text(pipe, field: str, text) -> list[Note]:
    noun = field.replace("_", " ")
    if not isinstance(text, str):
        kind = "nothing (None)" if text is None else f"{_short(text)} ({type(text).__name__})"
        raise SettingsError(field, f"The {noun} must be text, not {kind}; an empty text is allowed.")
    if len(text) > MAX_PROMPT:
        sentence = f"The {noun} has {len(text):,} characters; at most {MAX_PROMPT:,} are allowed."
        raise SettingsError(field, sentence)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        sentence = f"The {noun} holds half a character (a lone surrogate); type it again."
        raise SettingsError(field, sentence) from None
    if field == "prompt" and not text.strip():
        return [Note(field, "An empty prompt asks for nothing: this is the unconditional picture.")]
    return _note_truncation(pipe, field, text)


def _note_truncation(pipe, field: str, text: str) -> list[Note]:
    """Say where the text encoder stops reading; of several encoders, the one that reads furthest."""
    call = inspect.signature(type(pipe).__call__).parameters
    longest = call["max_sequence_length"].default if "max_sequence_length" in call else 77  # CLIP reads 77
    found = (getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3"))
    limits = {min(t.model_max_length, longest): t for t in found if t is not None}
    if not limits:
        return []
    limit, tokenizer = max(limits.items())
    ids = tokenizer(text, truncation=False, verbose=False).input_ids
    if len(ids) <= limit:
        return []
    last = tokenizer.decode(ids[max(1, limit - 6) : limit - 1], skip_special_tokens=True).strip()
    noun = field.replace("_", " ")
    cut = f"The {noun} has {len(ids):,} tokens and the model reads {limit}: it stops after '... {last}'."
    return [Note(field, cut)]


def _check_steps(pipe, steps, entry) -> None:
    config = pipe.scheduler.config
    high = int(config.get("num_train_timesteps", 1000))
    name = entry.class_name if entry is not None else type(pipe.scheduler).__name__
    if name == "LCMScheduler":  # it picks its steps among those of its teacher
        high = int(config.get("original_inference_steps", 50))
    check_integer("num_inference_steps", steps, 1, high, "number of steps")


def _check_guidance(value) -> None:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= MAX_GUIDANCE:  # nan fails too
        raise SettingsError(
            "guidance_scale",
            f"The guidance must be a number from 0 to {MAX_GUIDANCE:g}, not {_short(value)}; "
            "1 is off, 5 to 8 is usual.",
        )


def _check_strength(value, steps) -> None:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number <= 1:
        sentence = f"The strength must be a number above 0 and at most 1, not {_short(value)}; 1 keeps nothing of the picture."
        raise SettingsError("strength", sentence)
    if steps is not None and int(steps * number) < 1:
        raise SettingsError(
            "strength",
            f"A strength of {number:g} takes none of {steps} steps; take at least {1 / steps:.2g}, or more steps.",
        )


def size_step(pipe) -> int:
    """Height and width are multiples of this: the VAE's reduction, doubled for packed latents (FLUX)."""
    step = int(getattr(pipe, "vae_scale_factor", 8))
    return 2 * step if type(pipe).__name__.startswith("Flux") else step


def _check_size(pipe, height, width) -> None:
    from ..loading.memory import decode_bytes, free_bytes, gigabytes

    step = size_step(pipe)
    for field, value in (("height", height), ("width", width)):
        if value is None:
            continue
        number = check_integer(field, value, step, 16384, field)
        if number % step:
            near = max(step, round(number / step) * step)
            raise SettingsError(
                field,
                f"The {field} must be a multiple of {step} pixels for this model, not {number}; try {near}.",
            )
    height, width = height or width, width or height
    need, free = decode_bytes(pipe, height, width), free_bytes(pipe.device)
    if free is not None and need > free:
        raise SettingsError(
            "height" if height >= width else "width",
            f"A picture of {width} x {height} pixels needs about {gigabytes(need)} to decode, "
            f"and {gigabytes(free)} are free; choose a smaller size.",
        )

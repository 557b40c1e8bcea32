"""Are these settings possible? One sentence for the control that is wrong, before any work is done."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ..trace import CONTROLS
from .schedulers import Scheduler, find_scheduler, is_flow
from .sharing import own_tokenizers

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

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


#: what people write -> the name that diffusers has for it
_MEANT = {
    "steps": "num_inference_steps", "guidance": "guidance_scale", "cfg": "guidance_scale", "cfg_scale": "guidance_scale", "scale": "guidance_scale",
    "negative": "negative_prompt", "sampler": "scheduler", "generator": "seed", "size": "height", "mask_image": "mask", "image": "source",
    "guidance_scale": "scales",
}  # fmt: skip


def no_setting(caller: str, name: str, names: Iterable[str]) -> TypeError:
    """The error for a setting that there is not, with the one that was meant, if that can be seen."""
    names = list(names)
    close = [m for m in [_MEANT.get(name)] if m in names] or difflib.get_close_matches(name, names, 1)
    advice = f"did you mean {close[0]}?" if close else f"it takes {', '.join(names)}."
    return TypeError(f"{caller}() has no setting {name[:60]!r}; {advice}")


def check_names(
    caller: str, settings: dict, function: Callable, pipe: DiffusionPipeline, without: Sequence[str] = ()
) -> None:
    """Raises TypeError for a setting that neither `function` names nor a call of the pipeline takes, or that `function` sets itself (`without`).

    Otherwise Python would name the object that was called, which for a pipeline is all of its configuration.
    """
    parameters = [
        *inspect.signature(function).parameters.values(),
        *inspect.signature(type(pipe).__call__).parameters.values(),
    ]
    left_out = ("pipe", "self", "generator", *without)
    names = dict.fromkeys(p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in left_out)
    if unknown := sorted(settings.keys() - names.keys()):
        raise no_setting(caller, unknown[0], names)


def check_settings(pipe: DiffusionPipeline, **settings) -> list[Note]:
    """Refuse what `pipe` cannot run; None means "the pipeline's own default" (but not for the prompt, which is "" where it is left out).

    settings: those of `trace.CONTROLS` that a run takes, within the bounds that stand there; beyond these,
    num_inference_steps: at most as many as the model was trained with (1,000);
    height, width: multiples of 8 pixels (of 16 for FLUX), within the memory that is free;
    scheduler: a label of SCHEDULERS or a diffusers class name;
    strength: enough to leave one of the steps;
    task and border: not here, since they go with pictures, see `tasks.check_task`.
    Returns notes, e.g. that a long prompt is cut. Raises SettingsError (a ValueError) with `.field`, and TypeError for no setting of ours.
    """
    if unknown := sorted(set(settings) - set(CONTROLS)):
        raise no_setting("check_settings", unknown[0], CONTROLS)
    settings = {"prompt": ""} | {
        name: value for name, value in settings.items() if value is not None or name == "prompt"
    }
    get: Callable[[str], Any] = settings.get
    notes: list[Note] = []
    try:
        entry = find_scheduler(get("scheduler"), pipe) if "scheduler" in settings else None
    except ValueError as error:
        raise SettingsError("scheduler", str(error)) from None
    for name, value in settings.items():
        if CONTROLS[name].kind is str and name not in ("scheduler", "task"):
            check_text(name, value)
            notes += _notes_on_text(pipe, name, value)
        elif name == "num_inference_steps":
            check_integer(name, value, 1, most_steps(pipe, entry))
        elif CONTROLS[name].kind in (int, float) and name not in ("height", "width"):
            check_number(name, value)
    if "guidance_scale" in settings and get("guidance_scale") <= 1 and get("negative_prompt"):
        notes.append(Note("negative_prompt", "A guidance of 1 or less switches guidance off, so this is not read."))
    strength, steps = get("strength"), get("num_inference_steps")
    if type(pipe).__name__.startswith("Flux") and get("negative_prompt"):
        notes.append(
            Note("negative_prompt", "FLUX has its guidance built in, without a negative prompt, so this is not read.")
        )
    # Flow models and latent consistency models take one step at least.
    rounds_down = not is_flow(pipe) and not type(pipe).__name__.startswith("LatentConsistency")
    if strength is not None and steps is not None and rounds_down and int(steps * strength) < 1:
        least = next(n / 1000 for n in range(1, 1001) if int(steps * (n / 1000)) >= 1)
        sentence = f"A strength of {strength:g} takes none of {steps} steps; take at least {least:g}, or more steps."
        raise SettingsError("strength", sentence)
    if "height" in settings or "width" in settings:
        _check_size(pipe, get("height"), get("width"))
    return notes


def as_number(value):
    """ "7" -> 7, "7.5" -> 7.5, also inside a list; anything else stays as it is, for the check of settings to name."""
    if isinstance(value, list):
        return [as_number(item) for item in value]
    for kind in (int, float) if isinstance(value, str) else ():
        with suppress(ValueError):
            return kind(value)
    return value


def check_number(field: str, value: Any) -> None:
    """Refuse a value that the setting's control does not allow, or that is no number."""
    control = CONTROLS[field]
    if control.kind is int:
        check_integer(field, value, control.low, control.high)
        return
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    low = number > control.low if control.open_low else number >= control.low
    if not (low and number <= control.high):  # nan fails too
        form = "above {:g} and at most {:g}" if control.open_low else "from {:g} to {:g}"
        allowed = form.format(control.low, control.high)
        hint = f"; {control.hint}" if control.hint else ""
        raise SettingsError(field, f"The {control.noun} must be a number {allowed}, not {_short(value)}{hint}.")


def check_integer(field: str, value: Any, low: float, high: float, noun: str | None = None) -> int:
    """`value` as an int within [low, high], or SettingsError. No text, no fraction, and no True for 1."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        most = format(high, ",")
        noun = noun or CONTROLS[field].noun
        raise SettingsError(field, f"The {noun} must be a whole number from {low} to {most}, not {_short(value)}.")
    return number


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def check_text(field: str, text: Any) -> None:
    """Refuse what is no text, has more than `MAX_PROMPT` characters, or cannot be written as UTF-8."""
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


def _notes_on_text(pipe, field: str, text: str) -> list[Note]:
    if field == "prompt" and not text.strip():
        return [Note(field, "An empty prompt asks for nothing: this is the unconditional picture.")]
    return _note_truncation(pipe, field, text)


def _note_truncation(pipe, field: str, text: str) -> list[Note]:
    """Say where the text encoder stops reading; of several encoders, the one that reads furthest."""
    call = inspect.signature(type(pipe).__call__).parameters
    longest = call["max_sequence_length"].default if "max_sequence_length" in call else 77  # CLIP reads 77
    limits = {min(t.model_max_length, longest): t for t in own_tokenizers(pipe).values()}
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


def most_steps(pipe: DiffusionPipeline, entry: Scheduler | None = None) -> int:
    """The largest number of steps with a scheduler of SCHEDULERS, or with the pipeline's own."""
    config = pipe.scheduler.config
    name = entry.class_name if entry is not None else type(pipe.scheduler).__name__
    if name == "LCMScheduler":  # it picks its steps among those of its teacher
        return int(config.get("original_inference_steps", 50))
    return int(config.get("num_train_timesteps", 1000))


def size_step(pipe: DiffusionPipeline) -> int:
    """Height and width are multiples of this: the VAE's reduction, doubled for packed latents (FLUX)."""
    step = int(getattr(pipe, "vae_scale_factor", 8))
    return 2 * step if type(pipe).__name__.startswith("Flux") else step


def _check_size(pipe, height, width) -> None:
    from ..loading.memory import decode_bytes, free_bytes, gigabytes

    step = size_step(pipe)
    for field, value in (("height", height), ("width", width)):
        if value is None:
            continue
        number = check_integer(field, value, step, 16384)
        if number % step:
            near = max(step, round(number / step) * step)
            raise SettingsError(
                field, f"The {field} must be a multiple of {step} pixels for this model, not {number}; try {near}."
            )
    height, width = height or width, width or height
    need, free = decode_bytes(pipe, height, width), free_bytes(pipe.device)
    if free is not None and need > free:
        raise SettingsError(
            "height" if height >= width else "width",
            f"A picture of {width} x {height} pixels needs about {gigabytes(need)} to decode, "
            f"and {gigabytes(free)} are free; choose a smaller size.",
        )

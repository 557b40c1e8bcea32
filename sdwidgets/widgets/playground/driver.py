"""Between the page and the pipeline: settings to arguments, prompts to tokens, errors to sentences. Free functions."""

from __future__ import annotations

import inspect
import math
import os
from contextlib import contextmanager
from pathlib import Path

from ...generation.usual import TURBO_STEPS, is_turbo
from ...parts import quiet_diffusers
from ...trace import CONTROLS, Settings
from ..replay import badge_parts

LIVE_STEPS = 6  # of a live run, with the scheduler that is chosen
MAX_READ, MAX_CUT = 160, 8  # tokens drawn under the prompt: read by the model, and cut off


@contextmanager
def live_mode():
    """In a block: a core is left to the page, and diffusers logs no warning.

    It would warn at every letter of a prompt that is too long, and the page says so beside the prompt.
    """
    from ...acceleration import reserve_core

    with quiet_diffusers(), reserve_core():
        yield


def set_by_hand() -> list[str]:
    """The settings that have a control in the page, in their order."""
    return [name for name, control in CONTROLS.items() if control.page]


def check_names(settings: dict, caller: str) -> None:
    """Raises TypeError for a setting that there is not."""
    from ...generation.validation import no_setting

    names = set_by_hand()
    if unknown := sorted(set(settings) - set(names)):
        raise no_setting(caller, unknown[0], [*names, "source", "mask"])


def arguments(pipe, settings: dict, pictures: dict | None = None) -> dict:
    """Keyword arguments for the pipeline: those of settings and pictures that it takes, and a CPU generator from the seed."""
    import torch

    from ...generation.code_export import keywords

    # A generator on the CPU draws the same noise whatever device the pipeline is on.
    takes = inspect.signature(type(pipe).__call__).parameters
    pictures = {name: value for name, value in (pictures or {}).items() if name in takes}
    return {**keywords(pipe, settings), **pictures, "generator": torch.Generator("cpu").manual_seed(settings["seed"])}


def tokens(pipe, text: str) -> dict:
    """How the first text encoder splits a prompt: the tokens that it reads, those that are cut off, and the counts.

    `tokens` and `cut` are [text, number of tokens] pairs: the pieces of one character, such as an emoji, are shown
    as one. Both are shortened for showing; `count` has all, with the `marks` for start and end.
    """
    from ...generation.sharing import own_tokenizers
    from ...generation.tokens import pieces
    from ...generation.vocabulary import find_vocabulary

    vocabulary = find_vocabulary(pipe)
    unfamiliar = vocabulary.unfamiliar(text) if vocabulary else []
    tokenizer = own_tokenizers(pipe).get("tokenizer")
    if tokenizer is None:
        return {"text": text, "tokens": [], "cut": [], "count": 0, "limit": 0, "marks": 0, "unfamiliar": unfamiliar}
    limit = tokenizer.model_max_length
    ids = list(tokenizer(text, truncation=False, verbose=False).input_ids)
    text_ids = ids[1:] if ids and ids[0] == tokenizer.bos_token_id else ids
    text_ids = text_ids[:-1] if text_ids and text_ids[-1] == tokenizer.eos_token_id else text_ids
    marks = len(ids) - len(text_ids)
    room = max(0, limit - marks)
    pairs = lambda some: [[piece.text, piece.stop - piece.first] for piece in pieces(tokenizer, some)]
    return {
        "text": text,
        "tokens": pairs(text_ids[: min(room, MAX_READ)]),
        "cut": pairs(text_ids[room : room + MAX_CUT]),
        "count": len(ids),
        "limit": limit,
        "marks": marks,
        "unfamiliar": unfamiliar,
    }


def sentence_for(error: Exception) -> str:
    """What went wrong in a run, for a reader."""
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "The memory is full. Choose a smaller picture, or restart the kernel to free what earlier cells hold."
    lines = str(error).strip().splitlines()
    return f"The run failed ({type(error).__name__}): {lines[0][:300] if lines else 'no reason given'}"


def memory_in_use(device: str | None) -> str:
    """Memory of the graphics card, or of this Python process, that is in use now."""
    from ...loading.memory import gigabytes

    if device and device.startswith("cuda"):
        import torch

        return f"{gigabytes(torch.cuda.memory_reserved(device))} of GPU memory"
    import psutil

    return f"{gigabytes(psutil.Process().memory_info().rss)} of memory"


def copy_settings(settings: dict) -> dict:
    """A dict of its own, with lists of its own."""
    return {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in settings.items()}


def few_steps(pipe, settings: dict) -> dict:
    """What a live run changes: four steps of LCM without guidance for a turbo model, else at most six of the same scheduler.

    A strength below one takes a share of the steps, so that there are more of them.
    """
    share = settings["strength"] if settings["task"] != "text" else 1.0
    turbo = is_turbo(pipe)
    steps = math.ceil((TURBO_STEPS if turbo else min(LIVE_STEPS, settings["num_inference_steps"])) / share)
    if turbo:
        return {"num_inference_steps": min(steps, 50), "scheduler": "LCM", "guidance_scale": 1.0}
    return {"num_inference_steps": min(steps, settings["num_inference_steps"])}


def settings_of(trace, pipe, now: dict) -> tuple[dict, dict]:
    """(the settings of a recorded run, control -> a sentence on what does not fit); `now`: the controls' settings.

    What the run does not say stays as it is now, but for a negative prompt: without one it had none.
    """
    from ...generation.schedulers import find_scheduler
    from ...generation.tasks import native_side

    recorded = trace.settings
    settings, notes = dict(now) | {"negative_prompt": ""}, {}
    for name in set_by_hand():
        value = getattr(recorded, name, None)
        value = value[0] if isinstance(value, list) and value and CONTROLS[name].kind is not list else value
        if value is not None:
            settings[name] = value
    settings["task"] = "text" if trace.source is None else "image" if trace.mask is None else "inpaint"
    if scheduler := recorded.scheduler_label or recorded.scheduler:
        settings["scheduler"] = find_scheduler(scheduler, pipe).label
    if recorded.seed is None:
        notes["seed"] = "The run's seed is not known: its picture cannot be made again."
    side = native_side(pipe)
    size = recorded.width, recorded.height
    if trace.source is None and None not in size and size != (side, side):
        notes["prompt"] = (
            f"This run's picture has {recorded.width} x {recorded.height} pixels; Generate draws {side} x {side}."
        )
    other, own = (Path(str(name or "")).name for name in (recorded.model, getattr(pipe, "name_or_path", "")))
    if other and own and other != own:
        notes[""] = f"This run was made by {other[:60]}; Generate uses {own} and gives another picture."
    return settings, notes


def program(pipe, request, scheduler, folder: str | os.PathLike | None = None) -> str:
    """The stock diffusers program of a run; `scheduler`: the one that ran, None before. See `Playground.code`."""
    from ...generation.code_export import code
    from ...generation.schedulers import make_scheduler
    from ...generation.tasks import pictures_for, pipeline_for

    settings = request.settings
    if scheduler is None and settings["scheduler"]:
        scheduler = make_scheduler(settings["scheduler"], pipe)
    pictures, names = pictures_for(pipe, *request[:3]), {}
    for name, file in (("image", "source.png"), ("mask_image", "mask.png")):
        if name in pictures:
            names[name] = str(Path(folder or "", file))
            if folder is not None:
                pictures[name].save(names[name])
    size = {name: pictures[name] for name in ("height", "width") if name in pictures}
    return code(pipeline_for(pipe, settings["task"]), {**settings, **size}, scheduler, names)


def badge(pipe, settings: Settings | None = None, seconds: float | None = None) -> str:
    """Model, device, number type, memory, time: the words of the footer. settings: of a run; None: of the pipeline."""
    if settings is None:
        name = str(getattr(pipe, "name_or_path", "") or type(pipe).__name__)
        settings = Settings(model=name, device=str(pipe.device), dtype=str(pipe.dtype).removeprefix("torch."))
    parts = [*badge_parts(settings), memory_in_use(settings.device)]
    return " · ".join(parts + ([] if seconds is None else [f"{seconds:.1f} s"]))

"""Between the page and the pipeline: settings to arguments, prompts to tokens, errors to sentences. Free functions."""

from __future__ import annotations

import inspect
import math
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path

from ...parts import find_denoiser
from ...trace import CONTROLS

LIVE_STEPS, TURBO_STEPS = (
    6,
    4,
)  # of a live run: of the scheduler that is chosen; of a model that was distilled to few
MAX_READ, MAX_CUT = 160, 8  # tokens drawn under the prompt: read by the model, and left out


_TURNS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # a pipeline's VAE -> its lock


@contextmanager
def turn(pipe, stale):
    """Wait until no other Playground runs on this pipeline's parts; gives False if `stale()` came first.

    A cell that is run again makes a second Playground while the first may still be at work.
    """
    lock = _TURNS.setdefault(pipe.vae, threading.Lock())
    while not (mine := lock.acquire(timeout=0.05)):
        if stale():
            break
    try:
        yield mine
    finally:
        if mine:
            lock.release()


@contextmanager
def prepared(pipe, scheduler: str | None):
    """For the time of a block: this scheduler in the pipeline, and no progress bar on the terminal."""
    from ...generation.schedulers import make_scheduler

    before, bars = pipe.scheduler, dict(getattr(pipe, "_progress_bar_config", {}))
    if scheduler:
        pipe.scheduler = make_scheduler(scheduler, pipe)
    pipe.set_progress_bar_config(**{**bars, "disable": True})
    try:
        yield
    finally:
        pipe.scheduler = before
        pipe.set_progress_bar_config(**bars)


@contextmanager
def following_a_hand():
    """For the time of a live run: a core is left to the page, and diffusers says nothing.

    It would say at every letter that the prompt is too long, and the page has said so beside the prompt.
    """
    from diffusers.utils import logging

    from ...acceleration import reserve_core

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with reserve_core():
            yield
    finally:
        logging.set_verbosity(verbosity)


def arguments(pipe, settings: dict, pictures: dict | None = None) -> dict:
    """Keyword arguments for the pipeline: those of settings and pictures that it takes, and a CPU generator from the seed."""
    import torch

    from ...generation.code_export import keywords

    # A generator on the CPU draws the same noise whatever device the pipeline is on.
    takes = inspect.signature(type(pipe).__call__).parameters
    given = {name: value for name, value in (pictures or {}).items() if name in takes}
    return {**keywords(pipe, settings), **given, "generator": torch.Generator("cpu").manual_seed(settings["seed"])}


def tokens(pipe, text: str) -> dict:
    """How the first text encoder cuts up a prompt: what it reads, what it leaves out, and the counts.

    `tokens` and `cut` are [text, number of tokens] pairs: the pieces of one character, such as an emoji, are shown
    as one. Both are shortened for showing; `count` has all, with the `marks` for start and end.
    """
    from ...generation.tokens import pieces

    tokenizer = getattr(pipe, "tokenizer", None)
    if tokenizer is None:
        return {"text": text, "tokens": [], "cut": [], "count": 0, "limit": 0, "marks": 0}
    limit = tokenizer.model_max_length
    ids = list(tokenizer(text, truncation=False, verbose=False).input_ids)
    words = ids[1:] if ids and ids[0] == tokenizer.bos_token_id else ids
    words = words[:-1] if words and words[-1] == tokenizer.eos_token_id else words
    marks = len(ids) - len(words)
    room = max(0, limit - marks)
    shown = lambda some: [[piece.text, piece.stop - piece.first] for piece in pieces(tokenizer, some)]
    return {
        "text": text,
        "tokens": shown(words[: min(room, MAX_READ)]),
        "cut": shown(words[room : room + MAX_CUT]),
        "count": len(ids),
        "limit": limit,
        "marks": marks,
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


def page_settings() -> list[str]:
    """The settings that have a control in the page, in their order."""
    return [name for name, control in CONTROLS.items() if control.page]


def as_number(text: str) -> int | float | str:
    """ "7" -> 7, "7.5" -> 7.5; any other text stays text, for the check of settings to name."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def defaults(pipe) -> dict:
    """Steps and guidance that suit this model, from the table of models, else 20 and the pipeline's own; its scheduler."""
    from ...generation.schedulers import label_of
    from ...loading.catalog import find_model

    row = find_model(Path(str(getattr(pipe, "name_or_path", ""))).name) or find_model(str(pipe.name_or_path))
    scheduler = label_of(pipe.scheduler, pipe)
    if is_turbo(pipe):
        return {"num_inference_steps": TURBO_STEPS, "guidance_scale": 1.0, "scheduler": "LCM"}
    if row is not None:
        return {"num_inference_steps": row.steps, "guidance_scale": row.guidance, "scheduler": scheduler}
    parameter = inspect.signature(type(pipe).__call__).parameters.get("guidance_scale")
    own = parameter.default if parameter is not None else None
    return {"num_inference_steps": 20, "guidance_scale": float(own) if own else 1.0, "scheduler": scheduler}


def is_turbo(pipe) -> bool:
    """True for a pipeline made for few steps: one that came with LCM's scheduler, or carries an LCM or turbo LoRA."""
    named = type(pipe.scheduler).__name__ == "LCMScheduler"
    adapters = getattr(find_denoiser(pipe), "peft_config", None) or {}
    return named or any(word in name.lower() for name in adapters for word in ("lcm", "turbo"))


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
    """(what the controls must say for a recorded run, control -> a sentence on what does not fit); `now`: what they say.

    Where the run does not tell, the controls stay.
    """
    from ...generation.schedulers import find_scheduler

    told = trace.settings
    settings, notes = dict(now), {}
    for name in page_settings():
        value = getattr(told, name, None)
        value = value[0] if isinstance(value, list) and value and CONTROLS[name].kind is not list else value
        if value is not None:
            settings[name] = value
    settings["task"] = "text" if trace.source is None else "image" if trace.mask is None else "inpaint"
    if told.scheduler_label or told.scheduler:
        settings["scheduler"] = find_scheduler(told.scheduler_label or told.scheduler, pipe).label
    if told.seed is None:
        notes["seed"] = "The run's seed is not known: its picture cannot be made again."
    ours = Path(str(getattr(pipe, "name_or_path", "") or "")).name
    if told.model and ours and Path(told.model).name != ours:
        notes[""] = (
            f"This run was made by {Path(told.model).name[:60]}; Generate asks {ours}, and gives another picture."
        )
    return settings, notes

"""Pictures into files: one, or every prompt with every seed, in batches, by one process or many; resumable, whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..loading.memory import decode_bytes, free_bytes
from ..paths import replacing
from ..trace import CONTROLS
from .schedulers import find_scheduler, make_scheduler
from .sharing import own_copy, pipeline_lock
from .validation import no_setting

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MANIFEST = "manifest.jsonl"
FORMATS = (".png", ".webp", ".jpg", ".jpeg")


class Request:
    """What decides a picture, up to the device's last bits: a model, the prompt and the settings that the command line has.

    What is left out, or None, is the pipeline's own. Raises TypeError for another setting: a batch draws from text.
    """

    def __init__(self, model: str, **settings):
        taken = [name for name, control in CONTROLS.items() if control.option or name == "prompt"]
        if unknown := sorted(set(settings) - set(taken)):
            raise no_setting("Request", unknown[0], taken)
        self.model, self._settings = model, {k: v for k, v in settings.items() if v is not None}

    def settings(self) -> dict:
        """The settings that were given, as `check_settings` and the manifest take them."""
        return dict(self._settings)

    @property
    def prompt(self) -> str:
        return self._settings.get("prompt", "")

    @property
    def seed(self) -> int:
        return self._settings.get("seed", 0)

    def but(self, **changes) -> Request:
        """The same with some settings changed; None takes one away."""
        return Request(self.model, **self._settings | changes)

    def shared(self) -> dict:
        """All but prompt and seed: what pictures that are drawn in one batch have in common."""
        return {"model": self.model} | {k: v for k, v in self._settings.items() if k not in ("prompt", "seed")}

    def as_json(self) -> dict:
        """As plain JSON."""
        return {"model": self.model, **self._settings}

    def file_name(self) -> str:
        """Words of the prompt, the seed, and a hash of everything: other settings never meet in one file."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower()).strip("-")[:40].strip("-") or "picture"
        digest = hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()
        return f"{slug}-s{self.seed}-{digest[:10]}.png"


def draw(pipe: DiffusionPipeline, request: Request) -> Image.Image:
    """One picture. The noise is drawn on the CPU, so a seed means the same start on every device."""
    return draw_many(pipe, [request])[0]


def draw_many(pipe: DiffusionPipeline, requests: list[Request]) -> list[Image.Image]:
    """One run for all of these, which differ in prompt and seed only; ValueError where they differ in more.

    Each starts from the noise of its own seed. The pictures are those of single runs up to the last digits of the arithmetic,
    which depend on the size of a batch.
    """
    if any(request.shared() != requests[0].shared() for request in requests):
        raise ValueError("a batch holds pictures that differ in prompt and seed only; split it by settings")
    with pipeline_lock(pipe):
        return call(pipeline_of(pipe, requests[0]), requests)


def pipeline_of(pipe: DiffusionPipeline, request: Request) -> DiffusionPipeline:
    """A pipeline for this request's run, over the same networks, with its scheduler."""
    label = request.settings().get("scheduler")
    return own_copy(pipe, make_scheduler(label, pipe) if label else None, quiet=False)


def call(pipe: DiffusionPipeline, requests: list[Request]) -> list[Image.Image]:
    """What `draw_many` does with a pipeline that has the requests' scheduler."""
    settings = requests[0].settings()
    settings["prompt"] = [request.prompt for request in requests]
    if negative := settings.pop("negative_prompt", ""):  # an empty one is none: see `code_export.keywords`
        settings["negative_prompt"] = [negative] * len(requests)
    for name in ("seed", "scheduler"):
        settings.pop(name, None)
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
    return pipe(**settings, generator=generators).images


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of the RGB pixels, row by row, whatever file format holds them."""
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


def write_picture(image: Image.Image, path: Path, request: Request, part: Path | None = None) -> None:
    """Write beside the target, then take its place: whole or not at all. A PNG carries its settings. part: as for `paths.replacing`."""
    extra = {}
    if path.suffix.lower() == ".png":
        extra["pnginfo"] = PngInfo()
        extra["pnginfo"].add_itxt("sdwidgets", json.dumps(request.as_json(), ensure_ascii=False))
    with replacing(path, "the picture", part) as part:
        image.save(part, format=Image.registered_extensions()[path.suffix.lower()], **extra)


def read_manifest(folder: Path) -> dict[str, dict]:
    """File name -> its entry, from the manifests of all processes. Lines that a crash cut short are dropped."""
    entries = {}
    for path in sorted(folder.glob(f"{Path(MANIFEST).stem}*.jsonl")):
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    entries[entry["file"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue
    return entries


def is_made(folder: Path, request: Request, entries: dict[str, dict]) -> bool:
    """Is this very picture there, with the pixels that the manifest names?"""
    entry = entries.get(request.file_name())
    if entry is None:
        return False
    try:
        with Image.open(folder / entry["file"]) as image:
            return pixel_hash(image) == entry["sha256"]
    except (OSError, SyntaxError, KeyError):  # missing, cut, or no picture
        return False


class BatchSize:
    """How many pictures to draw at once: doubled for as long as that pays and fits, found out on the work itself.

    Each size is used twice, and the faster run counts, since the first may compile. The best is the last size that drew a
    twentieth more pictures a second than the best before it. One doubling may gain nothing and the next one much, as where guidance
    draws the two halves of a single picture side by side; so it ends after two that gain too little, or where twice as many would not fit
    into half of the memory that is free.
    """

    def __init__(self, most: int = 64, fixed: int | None = None):
        self.size, self.most, self.done = fixed or 1, most, fixed is not None
        self.best, self.best_rate = self.size, 0.0  # pictures a second
        self.rates: list[float] = []
        self.needs = 0  # bytes that one picture takes, the larger of the two runs: a CUDA graph that is run again allocates nothing

    def took(self, count: int, seconds: float, needs: int, free: int | None) -> None:
        """Tell of a batch: `needs`: bytes that one picture takes while it is drawn; `free`: bytes, None for unknown."""
        if self.done or count != self.size:  # the last batch may be smaller
            return
        self.rates.append(count / seconds)
        self.needs = max(self.needs, needs)
        if len(self.rates) < 2:
            return
        rate = max(self.rates)
        self.rates.clear()
        if rate > 1.05 * self.best_rate:
            self.best, self.best_rate = self.size, rate
        full = 2 * self.size > self.most or (free is not None and 2 * 2 * self.size * self.needs > free)
        if full or self.size >= 4 * self.best:
            self.size, self.done = self.best, True
        else:
            self.size, self.needs = 2 * self.size, 0

    def did_not_fit(self) -> None:
        """Out of memory: half as many from now on. Raises MemoryError where it was one."""
        if self.size == 1:
            raise MemoryError("not even one picture fits into memory")
        self.size, self.done = self.size // 2, True


def my_share() -> tuple[int, int]:
    """(which process this is, of how many), as `accelerate launch` and `torchrun` tell it; (0, 1) without them."""
    try:
        rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    except ValueError:
        return 0, 1
    return (rank, count) if 0 <= rank < count else (0, 1)


def batch(
    pipe: DiffusionPipeline,
    requests: list[Request],
    folder: Path,
    *,
    size: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Request, bool]]:
    """Make what is not there yet; yields (request, whether it was made now) once each picture is on the disk.

    size: pictures drawn at once; None: found out by `BatchSize`. share: (rank, world_size): of a work divided among
    processes this one takes `divided(requests, size, share)`, and writes a manifest of its own.
    Each picture is written whole, then its line in the manifest: prompt, seed, settings, file, sha256 of the pixels, device,
    dtype, how many were drawn at once. After Ctrl-C or on a full disk all of these stay, and the same call goes on, also with
    another number of processes. With a size, a batch of which a picture is missing is drawn again whole, so that the pixels are those of
    an undisturbed run. Pictures are not kept in memory; the requests and the manifests' lines are: about two kilobytes a picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rank, world_size = share
    manifest = folder / (
        MANIFEST if world_size == 1 else f"{Path(MANIFEST).stem}-{rank + 1:03}-of-{world_size:03}.jsonl"
    )
    entries = read_manifest(folder)
    _mend(manifest)
    sizes = BatchSize(fixed=size)
    for group in divided(requests, size, share):
        there = {request for request in group if is_made(folder, request, entries)}
        yield from ((request, False) for request in group if request in there)
        missing = [request for request in group if request not in there]
        for made, image, together in _drawn(pipe, group if size and missing else missing, sizes):
            if made in there:
                continue
            path = folder / made.file_name()
            write_picture(image, path, made, part=path.with_name(f".{path.name}"))  # it is this process's alone
            with open(manifest, "a", encoding="utf-8") as file:
                file.write(json.dumps(_entry(pipe, made, image, path, together), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            yield made, True


def divided(requests: list[Request], size: int | None, share: tuple[int, int] = (0, 1)) -> list[list[Request]]:
    """The part of the work that process `share` = (rank, world_size) takes: batches of `size`, or with None one list without a cut.

    Batches are cut by the requests' places and settings alone, never by what is there already or by the number of processes: the last
    digits of a picture depend on what is drawn beside it.
    """
    rank, world_size = share
    if size is None:
        return [requests[rank::world_size]]
    alike = (list(group) for _, group in itertools.groupby(requests, Request.shared))
    return [group[at : at + size] for group in alike for at in range(0, len(group), size)][rank::world_size]


def _drawn(pipe, requests: list[Request], sizes: BatchSize) -> Iterator[tuple[Request, Image.Image, int]]:
    """Each request with its picture, and how many were drawn at once."""
    begin = 0
    while begin < len(requests):
        shared = requests[begin].shared()
        now = list(itertools.takewhile(lambda r: r.shared() == shared, requests[begin : begin + sizes.size]))  # noqa: B023
        images = _draw_measured(pipe, now, sizes)
        if images is None:  # again, with fewer at once
            continue
        begin += len(now)
        yield from ((request, image, len(now)) for request, image in zip(now, images, strict=True))


def _draw_measured(pipe, requests: list[Request], sizes: BatchSize) -> list[Image.Image] | None:
    """The pictures of one run, and `sizes` told of it; None where they did not fit into memory together."""
    on_card = pipe.device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats(pipe.device)
        resting = torch.cuda.memory_allocated(pipe.device)
    began = time.perf_counter()
    images = None
    try:
        images = draw_many(pipe, requests)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        sizes.did_not_fit()
    if images is None:
        if on_card:  # not before the error is gone, which holds what the run had allocated
            torch.cuda.empty_cache()
        return None
    needs = decode_bytes(pipe, images[0].height, images[0].width)
    if on_card:  # what was seen counts more than an estimate
        needs = max(1, (torch.cuda.max_memory_allocated(pipe.device) - resting) // len(requests))
    sizes.took(len(requests), time.perf_counter() - began, needs, free_bytes(pipe.device))
    return images


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class for it on a card, and on a CPU a RuntimeError like any other."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _entry(pipe, request: Request, image: Image.Image, path: Path, together: int) -> dict:
    label = request.settings().get("scheduler")
    return {
        "prompt": request.prompt,
        "seed": request.seed,
        "settings": request.shared(),
        "file": path.name,
        "sha256": pixel_hash(image),
        "size": list(image.size),
        "scheduler": find_scheduler(label, pipe).class_name if label else type(pipe.scheduler).__name__,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "batch": together,
    }


def _mend(manifest: Path) -> None:
    """End a line that was cut, so that the next one starts anew."""
    if manifest.is_file() and manifest.stat().st_size:
        with open(manifest, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")

"""Pictures into files: one, or every prompt with every seed; resumable, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .checks import check_settings
from .schedulers import find_scheduler, make_scheduler

MANIFEST = "manifest.jsonl"
FORMATS = (".png", ".webp", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Request:
    """What decides a picture, up to the device's last bits. None: the pipeline's own default."""

    model: str
    prompt: str
    seed: int
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None  # a label of SCHEDULERS
    height: int | None = None  # pixels
    width: int | None = None

    def settings(self) -> dict:
        """The settings that were given, as `check_settings` and the manifest take them."""
        return {k: v for k, v in asdict(self).items() if v is not None and k != "model"}

    def file_name(self) -> str:
        """Words of the prompt, the seed, and a hash of everything: other settings never meet in one file."""
        words = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower()).strip("-")[:40].strip("-") or "picture"
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{words}-s{self.seed}-{digest[:10]}.png"


def check(pipe, request: Request) -> list:
    """Notes on the request; SettingsError where the pipeline cannot run it."""
    return check_settings(pipe, **request.settings())


def draw(pipe, request: Request) -> Image.Image:
    """Run the pipeline. The noise is drawn on the CPU, so a seed means the same start on every device."""
    settings = request.settings()
    settings.pop("seed")
    if label := settings.pop("scheduler", None):
        pipe.scheduler = make_scheduler(label, pipe)
    return pipe(**settings, generator=torch.Generator("cpu").manual_seed(request.seed)).images[0]


def pixel_hash(image: Image.Image) -> str:
    """SHA-256 of the RGB pixels, row by row, whatever file format holds them."""
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()


def write_picture(image: Image.Image, path: Path, request: Request) -> None:
    """Write beside the target, then take its place: whole or not at all. A PNG carries its settings."""
    extra = {}
    if path.suffix.lower() == ".png":
        extra["pnginfo"] = PngInfo()
        extra["pnginfo"].add_itxt("sdwidgets", json.dumps(asdict(request), ensure_ascii=False))
    temporary = path.with_name(f".{path.stem[:40]}.{os.getpid()}{path.suffix}")
    try:
        with open(temporary, "wb") as file:
            image.save(file, format=Image.registered_extensions()[path.suffix.lower()], **extra)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_manifest(folder: Path) -> dict[str, dict]:
    """File name -> its entry. Lines that a crash cut short are dropped."""
    entries = {}
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    for line in text.splitlines():
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


def batch(pipe, requests: list[Request], folder: Path) -> Iterator[tuple[Request, bool]]:
    """Make what is not there yet; yields (request, whether it was made now) once each picture is on the disk.

    Each picture is written whole, then its line in manifest.jsonl: prompt, seed, settings, file, sha256 of
    the pixels, device and dtype. After Ctrl-C or on a full disk all of these stay, and the same call goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = read_manifest(folder)
    before = pipe.scheduler
    _mend(folder / MANIFEST)
    try:
        for request in requests:
            if is_made(folder, request, entries):
                yield request, False
                continue
            pipe.scheduler = before
            image = draw(pipe, request)
            path = folder / request.file_name()
            write_picture(image, path, request)
            entry = _entry(pipe, request, image, path)
            with open(folder / MANIFEST, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            entries[path.name] = entry
            yield request, True
    finally:
        pipe.scheduler = before


def _entry(pipe, request: Request, image: Image.Image, path: Path) -> dict:
    settings = {k: v for k, v in request.settings().items() if k not in ("prompt", "seed")}
    return {
        "prompt": request.prompt,
        "seed": request.seed,
        "settings": {"model": request.model, **settings},
        "file": path.name,
        "sha256": pixel_hash(image),
        "size": list(image.size),
        "scheduler": type(pipe.scheduler).__name__,
        "device": str(pipe.device),
        "dtype": str(pipe.dtype).removeprefix("torch."),
    }


def _mend(manifest: Path) -> None:
    """End a line that was cut, so that the next one starts anew."""
    if manifest.is_file() and manifest.stat().st_size:
        with open(manifest, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def resolve_scheduler(label: str | None, pipe) -> str | None:
    """The exact label for what was typed ("dpm++ 2m", "DDIMScheduler"); ValueError for an unknown one."""
    return None if label is None else find_scheduler(label, pipe).label

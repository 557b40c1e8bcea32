"""How a `Trace` lies in a safetensors file: the names of its arrays, its compact form, and what is refused before anything is decoded."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from .trace import Step

FORMAT, VERSION, COMPACT_VERSION = "sdwidgets.trace", "1", "2"
PER_STEP_NUMBERS = ("timestep", "sigma", "alpha", "seconds", "pipeline_step")
PER_STEP_ARRAYS = ("latents", "noise_pred", "noise_pred_uncond", "noise_pred_cond", "pred_original")
#: name -> number of axes, kind of numbers
PER_RUN_ARRAYS = {
    "final_latents": (4, "f"), "images": (4, "u"), "previews": (4, "u"), "preview_factors": (2, "f"), "source": (3, "u"), "mask": (2, "u"),
}  # fmt: skip
#: in a compact file: WebP, and how
PICTURES: dict[str, dict[str, Any]] = {"images": {"lossless": True}, "previews": {"quality": 85}}
# How files begin that people mistake for a trace. Opening a pickle can run code, so none is ever opened.
FOREIGN_STARTS = {
    b"\x80": "a Python pickle",
    b"PK": "a zip archive, as torch.save and numpy.savez write",
    b"\x93NUMPY": "a numpy file",
}
MAX_STEPS = 4_000  # scheduler calls
MAX_FACTOR, MAX_SIDE = 64, 16_383  # pixels a side of a latents' cell; of a picture, which is also what WebP can hold


def compact(name: str, value: np.ndarray) -> np.ndarray:
    """An array as a compact file keeps it: float32 as float16; pictures as bytes, their lengths first, then a WebP each."""
    if name not in PICTURES:
        return value.astype(np.float16) if value.dtype == np.float32 and name != "preview_factors" else value
    files = [encoded(Image.fromarray(picture), "WEBP", method=6, **PICTURES[name]) for picture in value]
    lengths = np.array([len(files), *map(len, files)], "<i8")
    return np.frombuffer(lengths.tobytes() + b"".join(files), np.uint8)


def expanded(name: str, value: np.ndarray) -> np.ndarray:
    """The inverse of `compact`, up to its precision."""
    if name not in PICTURES:
        return value.astype(np.float32) if value.dtype == np.float16 else value
    pictures = (Image.open(io.BytesIO(file), formats=["WEBP"]) for file in webp_files(value))
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    """The picture's file in the format `form`, as bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def webp_files(value: np.ndarray) -> list[bytes]:
    """The WebP files in an array of bytes that `compact` made."""
    data = value.tobytes()
    count = int(np.frombuffer(data[:8], "<i8")[0])
    if not 0 < 8 * (count + 1) <= len(data):
        raise ValueError(f"{count} pictures are more than there can be")
    ends = 8 * (count + 1) + np.cumsum(np.frombuffer(data[8 : 8 * (count + 1)], "<i8"))
    return [data[start:end] for start, end in zip([8 * (count + 1), *ends[:-1]], ends, strict=True)]


def refuse_foreign(path: Path) -> None:
    """Raises FileNotFoundError where there is no file, ValueError for a kind of file that could run code."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no trace file at {str(path)!r}; check the path, or make one:"
            " `with sdwidgets.record(pipe) as trace: pipe(...)`, then trace.save(path)"
        )
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file has the length of its JSON header, whose bytes may look like any mark, and then the header.
    if start[8:] == b"{":
        return
    for mark, kind in FOREIGN_STARTS.items():
        if start.startswith(mark):
            raise ValueError(
                f"{str(path)!r} is {kind}, and is not opened because such a file can run code; give a"
                " safetensors file that trace.save(path) wrote"
            )


# ---- what a file must be like, whoever made it: looked at before anything in it is decoded -------------------------


class DamagedTrace(ValueError):
    """A file that is no whole trace; `reason` says why in a few words."""

    def __init__(self, sentence: str, reason: str):
        super().__init__(sentence)
        self.reason = reason


def in_short(text: object) -> str:
    """On one line, at most 200 characters: what a library says of a stranger's bytes may quote all of them."""
    return " ".join(str(text).split())[:200]


def declared_size(start: bytes) -> int:
    """How many bytes a safetensors file has, by its header, which is all in `start`. Raises ValueError where there is none."""
    (length,) = struct.unpack("<Q", start[:8])
    if length > len(start) - 8:
        raise ValueError("its header is too long")
    header = json.loads(start[8 : 8 + length])
    return 8 + length + max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")


def check_header(header: dict[str, str], tensors: dict[str, np.ndarray]) -> None:
    """Raises ValueError for a file of more than `MAX_STEPS` steps, and for a compact one whose pictures are too large for its latents."""
    if len(json.loads(header["process"])) > MAX_STEPS:
        raise ValueError(f"it has more than {MAX_STEPS:,} steps")
    if header["version"] != COMPACT_VERSION:
        return
    steps, batch, _, height, width = (tensors["steps.latents"].shape + (0,) * 5)[:5]
    most = {"images": batch, "previews": steps}
    for name in PICTURES.keys() & tensors.keys():
        files = webp_files(tensors[name])
        if len(files) > most[name]:
            raise ValueError(f"it has {len(files)} {name}, and {most[name]} at most belong to its latents")
        for file in files:
            with Image.open(io.BytesIO(file), formats=["WEBP"]) as picture:
                _check_side(name, picture.height, height)
                _check_side(name, picture.width, width)


def _check_side(name: str, pixels: int, cells: int) -> None:
    if not (0 < pixels <= MAX_SIDE and cells and pixels <= MAX_FACTOR * cells):
        raise ValueError(f"a side of {pixels:,} pixels in its {name} does not belong to {cells} cells of latents")


def check_arrays(steps: Sequence[Step], arrays: dict[str, np.ndarray | None]) -> None:
    """Raises ValueError unless every array of the steps and of the run, by name, is of a trace's kind and shape, and all belong together."""
    shape: tuple[int, ...] = steps[0].latents.shape if steps else ()
    for step in steps:
        if step.process not in ("vp", "ve", "flow"):
            raise ValueError(f"step {step.index} is of the kind {step.process[:20]!r}, and not vp, ve or flow")
        if not math.isfinite(step.timestep) or not math.isfinite(step.alpha) or math.isnan(step.sigma):
            raise ValueError(f"step {step.index} has a timestep or a noise level that is no number")
        for name in PER_STEP_ARRAYS:
            array = getattr(step, name)
            if array is not None and (array.shape != shape or array.ndim != 4 or array.dtype != np.float32 or not array.size):  # fmt: skip
                raise ValueError(f"{name} of step {step.index} has another shape or kind than the first latents")
    for name, (axes, kind) in PER_RUN_ARRAYS.items():
        array = arrays[name]
        if array is None:
            continue
        if array.ndim != axes or array.dtype.kind != kind or not array.size:
            raise ValueError(f"{name} has another shape or kind than it should")
        if kind == "u" and (array.dtype != np.uint8 or (name != "mask" and array.shape[-1] != 3)):
            raise ValueError(f"{name} is no picture of red, green and blue bytes")
        if kind == "u" and shape:
            first = array.ndim - 3 if name != "mask" else 0
            for pixels, cells in zip(array.shape[first : first + 2], shape[2:], strict=True):
                _check_side(name, pixels, cells)
    _check_together(len(steps), shape, arrays)


def _check_together(steps: int, shape: tuple[int, ...], arrays: dict[str, np.ndarray | None]) -> None:
    latents, factors, images, previews = (
        arrays[name] for name in ("final_latents", "preview_factors", "images", "previews")
    )
    if shape and latents is not None and latents.shape[1:] != shape[1:]:
        raise ValueError("final_latents has another shape than the first latents")
    if factors is not None and (not np.isfinite(factors).all() or shape and factors.shape != (shape[1] + 1, 3)):
        raise ValueError("preview_factors are no numbers, or not those of its channels")
    if images is not None and shape and len(images) > shape[0]:
        raise ValueError(f"it has {len(images)} pictures of {shape[0]} latents")
    if previews is not None and len(previews) != steps:
        raise ValueError(f"it has {len(previews)} previews of {steps} steps")

"""A picture that carries its run: `embed_trace(trace, "cat.png")`, `extract_trace("cat.png") -> Trace`.

The PNG is an ordinary picture with two more chunks: a text chunk "sdwidgets", the settings as JSON for people and other programs,
and a private chunk "sdTr", the trace's safetensors file, compressed by zlib. An exported page (`trace.export_html`) carries
the same bytes in an element that no browser shows. Reading is bounded in every direction, opens nothing else of the file, and
runs nothing: whoever sends a picture sends data.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import os
import struct
import tempfile
import zlib
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .paths import replacing
from .trace import Trace
from .trace_file import declared_size, encoded, in_short

MAX_FILE, MAX_TRACE = (64_000_000, 128_000_000)  # bytes: of a file that is read, and of the trace in it, unpacked
MAX_HEADER, MAX_RATIO = 1_000_000, 20  # bytes; of an unpacked trace to a packed one
MAX_PIXELS = 40_000_000  # of all previews together
LARGE = 8_000_000  # bytes of arrays; a larger trace is carried in its compact form
SIGNATURE, CHUNK, TEXT = b"\x89PNG\r\n\x1a\n", b"sdTr", "sdwidgets"
OPENING, CLOSING = b'<data hidden data-sdwidgets-passport value="', b'"></data>'
AGAIN = "save the picture again, with the button of a Playground or by embed_trace(trace, path)"


class NoRunError(ValueError):
    """A file that may be a sound picture, and carries no run."""


def embed_trace(trace: Trace, path: str | os.PathLike) -> Path:
    """Write the run's picture as a PNG that carries settings and trace; returns its path.

    A trace of more than 8 MB is carried in compact form (`Trace.save(compact=True)`): the picture stays exact, latents are
    in half precision. The file appears whole or not at all.

    Raises ValueError for a run without a picture, or one too large to be carried; OSError where it cannot be written.
    """
    path = Path(path)
    with replacing(path, "the picture with its trace") as part:
        part.write_bytes(to_png(trace))
    return path


def extract_trace(path: str | os.PathLike) -> Trace:
    """The run in a PNG that `embed_trace` wrote, or in a page that `Trace.export_html` wrote. Nothing in it is ever run.

    Raises FileNotFoundError where there is no file; ValueError, with a sentence, for one that carries no run, is damaged or
    is too large (64 MB, or 128 MB unpacked).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file at {str(path)!r}; give a PNG that embed_trace(trace, path) wrote")
    with path.open("rb") as file:
        return read_passport(file.read(MAX_FILE + 1), path.name)


def read_passport(data: bytes, name: str = "file") -> Trace:
    """`extract_trace` for the bytes of a file; `name` is for sentences."""
    name = repr(name[:80])
    if len(data) > MAX_FILE:
        raise ValueError(
            f"{name} has more than the {MAX_FILE // 10**6} MB that a picture with its run may have; {AGAIN}"
        )
    if data.startswith(SIGNATURE):
        packed = _chunk(data, name)
    elif (start := data.find(OPENING)) >= 0:
        start += len(OPENING)
        end = data.find(CLOSING, start)
        try:
            packed = base64.b64decode(data[start : max(end, start)], validate=True)
        except binascii.Error as error:
            raise _damaged(name, error) from None
    else:
        page = data[:300].lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "is a page without a run" if page else "is neither a PNG nor a page with a run"
        kind = ValueError if page else NoRunError
        raise kind(f"{name} {what} of sdwidgets in it; give a file that embed_trace(trace, path) wrote")
    return _unpacked(packed, name)


def to_png(trace: Trace) -> bytes:
    """The bytes of the file that `embed_trace` writes."""
    if trace.images is None or not len(trace):
        raise ValueError(
            "this run has no picture to carry it, since it was stopped before its end; trace.save(path) keeps its steps"
        )
    info = PngInfo()
    info.add_itxt(TEXT, json.dumps(dataclasses.asdict(trace.settings), ensure_ascii=False))
    info.add(CHUNK, _packed(trace))
    data = encoded(Image.fromarray(trace.images[0]), "PNG", pnginfo=info)
    if len(data) > MAX_FILE:
        raise ValueError(f"the picture with its run has {len(data) / 1e6:.0f} MB, and {MAX_FILE // 10**6} MB are allowed; use trace.save(path)")  # fmt: skip
    return data


def to_html(trace: Trace, at_most: int = 12_000_000) -> str:
    """The run as an element of a page, which no browser shows or runs; "" for a run of more than `at_most` bytes."""
    packed = _packed(trace, always_compact=True)
    return f"{OPENING.decode()}{base64.b64encode(packed).decode()}{CLOSING.decode()}" if len(packed) <= at_most else ""


def _packed(trace: Trace, always_compact: bool = False) -> bytes:
    """The trace's safetensors file, compressed; without previews, which can be computed again, where they are too many."""
    compact = always_compact or trace.nbytes > LARGE
    if compact and trace.previews is not None:
        count, height, width = trace.previews.shape[:3]
        if count * height * width > MAX_PIXELS:
            trace = dataclasses.replace(trace, previews=None)
    with tempfile.TemporaryDirectory() as folder:
        data = trace.save(Path(folder, "run.safetensors"), compact=compact).read_bytes()
    if len(data) > MAX_TRACE:
        raise ValueError(f"the run has {len(data) / 1e6:.0f} MB, and a picture carries {MAX_TRACE // 10**6} MB at most; use trace.save(path)")  # fmt: skip
    return zlib.compress(data, 6)


def _chunk(data: bytes, name: str) -> bytes:
    """The content of our chunk. Others are stepped over: none is decompressed, whatever it says of itself."""
    position, texts = len(SIGNATURE), False
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if kind == CHUNK:
            if zlib.crc32(data[position + 4 : end]) != struct.unpack(">I", data[end : end + 4])[0]:
                raise _damaged(name, "its checksum is wrong")
            return data[position + 8 : end]
        texts = texts or (kind == b"iTXt" and data[position + 8 : end].startswith(TEXT.encode() + b"\0"))
        if kind == b"IEND":
            what = (
                "tells its settings, but carries no run" if texts else "is a picture without a run of sdwidgets in it"
            )
            raise NoRunError(
                f"{name} {what}; programs that store a picture again drop it; give the file that embed_trace wrote"
            )
        position = end + 4
    raise _damaged(name, "it is cut short")


def _unpacked(packed: bytes, name: str) -> Trace:
    decompressor = zlib.decompressobj()
    try:
        start = decompressor.decompress(packed, MAX_HEADER)
        size = declared_size(start)
        if size > MAX_TRACE:
            raise OverflowError
        if size > LARGE + MAX_RATIO * len(packed):
            raise ValueError(f"{len(packed):,} bytes would become {size:,}, and numbers of a run do not shrink so far")
        # One byte more than it says, which is one too many.
        data = start + decompressor.decompress(decompressor.unconsumed_tail, max(1, size + 1 - len(start)))
        if len(data) != size or not decompressor.eof:
            raise ValueError("it is cut short, or goes on after its end")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "run")
            file.write_bytes(data)
            trace = Trace.load(file)
        if not len(trace) or trace.images is None:
            raise ValueError("it has no step, or no picture")
    except OverflowError:
        raise ValueError(
            f"the run in {name} unpacks to more than {MAX_TRACE // 10**6} MB; a run that large travels as trace.save(path)"
        ) from None
    except OSError as error:
        raise (error if error.errno is not None else _damaged(name, "a picture in it does not decode")) from None
    except Exception as error:  # whatever a stranger's bytes bring about is one thing to the reader: damage
        raise _damaged(name, in_short(getattr(error, "reason", error))) from None
    return trace


def _damaged(name: str, reason) -> ValueError:
    return ValueError(f"the run in {name} is damaged ({reason}); fetch the file again, or {AGAIN}")

"""Crafted traces: each loads and works in every view, or is refused in one sentence, and little memory is used for that."""

from __future__ import annotations

import dataclasses
import io
import json
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save

from sdwidgets.latents import decode_previews
from sdwidgets.recording import record
from sdwidgets.trace import Settings, Trace
from sdwidgets.trace_file import PICTURES
from sdwidgets.widgets.guidance_explorer import GuidanceExplorer
from sdwidgets.widgets.race import SchedulerRace
from sdwidgets.widgets.replay import Replay, contact_sheet
from tests import tiny
from tests.test_trace_io import carrying, read_passport

MEMORY = 64e6  # bytes

NUMBERS = {"NaN": np.nan, "infinite": np.inf, "negative": -3, "huge": 1e30}


def other_numbers(value):
    """Arrays with other numbers in them, of the same shape and kind."""
    for name, number in NUMBERS.items():
        if value.dtype.kind == "f" or name == "negative" and value.dtype.kind == "i":
            with np.errstate(over="ignore"):
                yield name, np.full_like(value, number)
    if value.dtype.kind == "i":
        yield "beyond", np.full_like(value, 10**12)


def other_shapes(value):
    """Arrays of another length, another number of axes, or another kind."""
    yield "empty", value[:0]
    yield "shorter", value[:-1] if len(value) > 1 else np.concatenate([value, value])
    yield "longer", np.concatenate([value, value, value])
    yield "an axis more", value[None]
    yield "an axis less", value.reshape(-1) if value.ndim > 1 else value.reshape(1, -1).sum(1)[0]
    yield "a number", np.zeros((), value.dtype)
    for kind in ("f8", "i8", "u1", "?"):
        if value.dtype != np.dtype(kind):
            yield kind, value.astype(kind)


SETTINGS = {
    "a word": "many", "a list": [1, 2], "a dictionary": {"a": 1}, "true": True, "NaN": float("nan"), "infinite": float("inf"),
    "negative": -5, "four hundred digits": 10**399, "half a pair": "a \ud800 cat", "nested": [[[]]], "markup": "</script><b>",
}  # fmt: skip


def crafted(file) -> list[tuple[str, dict, dict]]:
    """(name, tensors, header) of traces that differ from a good one in one thing."""
    with safe_open(file, framework="np") as opened:
        header, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}
    cases = []
    with np.errstate(invalid="ignore"):
        for name, value in tensors.items():
            cases.append((f"no {name}", {k: v for k, v in tensors.items() if k != name}, header))
            for how, other in (*other_numbers(value), *other_shapes(value)):
                cases.append((f"{name}: {how}", tensors | {name: np.ascontiguousarray(other)}, header))
    for name in header:
        cases.append((f"no {name}", tensors, {k: v for k, v in header.items() if k != name}))
        for value in ("", "{", "null", "[]", "5", '"x"', "[" * 100_000, "NaN", json.dumps(["vp"] * 5000)):
            cases.append((f"{name}: {value[:20]}", tensors, header | {name: value}))
    settings = json.loads(header["settings"])
    for name in settings:
        for how, value in SETTINGS.items():
            cases.append((f"{name}: {how}", tensors, header | {"settings": json.dumps(settings | {name: value})}))
    return cases


def bombs(file) -> list[tuple[str, dict, dict]]:
    """Compact traces whose pictures unpack to far more than the file has."""
    with safe_open(file, framework="np") as opened:
        header, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}
    cases = []
    for size in ((6000, 6000), (16_383, 1), (4000, 1)):
        buffer = io.BytesIO()
        Image.new("RGB", size).save(buffer, "WEBP", lossless=True, quality=0, method=0)
        for name in PICTURES:
            for count in (1, 3, 2000):
                lengths = np.array([count, *[buffer.tell()] * count], "<i8").tobytes()
                value = np.frombuffer(lengths + buffer.getvalue() * count, np.uint8)
                cases.append((f"{count} {name} of {size}", tensors | {name: value}, header))
    return cases


def in_every_view(trace: Trace) -> None:
    repr(trace), trace.nbytes
    contact_sheet(trace)
    Replay(trace).to_html()
    if len(trace) and trace.images is not None:
        SchedulerRace({"one": trace, "two": trace}, reference=trace).to_html()
        GuidanceExplorer([trace]).to_html()


@pytest.fixture(scope="module")
def whole():
    with record(pipe := tiny.pipeline("sd")) as trace:
        tiny.run(pipe, steps=3, guidance_scale=5.0)
    decode_previews(trace, pipe)
    return trace


ALL = {("a file", False): pytest.mark.slow, ("a picture", True): pytest.mark.weekly}
TRIES = [(door, compact, 15) for door in ("a file", "a picture") for compact in (False, True)]
TRIES += [pytest.param(*which, 1, marks=mark) for which, mark in ALL.items()]


@pytest.mark.parametrize("door, compact, every", TRIES)
def test_a_crafted_trace_works_in_every_view_or_is_refused_in_a_sentence(whole, tmp_path, door, compact, every):
    """By both doors and in both forms, each fifteenth of them; all of them in the longer tiers."""
    file = whole.save(tmp_path / "good", compact=compact)
    cases = crafted(file) + (bombs(file) if compact else [])
    assert len(cases) >= 300
    cases, wrong, refused = cases[::every], [], 0
    for name, tensors, header in cases:
        data = save(tensors, header)
        if door == "a picture":
            data = carrying(data, whole)
        elif not (tmp_path / "crafted").write_bytes(data):
            continue
        tracemalloc.start()
        try:
            trace = read_passport(data) if door == "a picture" else Trace.load(tmp_path / "crafted")
        except ValueError as error:
            refused += 1
            if tracemalloc.get_traced_memory()[1] > MEMORY + len(data):
                wrong.append(f"{name}: {tracemalloc.get_traced_memory()[1] / 1e6:.0f} MB to refuse it")
            if not str(error).endswith(")") and "; " not in str(error) or len(str(error)) > 600:
                wrong.append(f"{name}: no sentence: {error}")
            continue
        except Exception as error:
            wrong.append(f"{name}: {error!r}")
            continue
        finally:
            tracemalloc.stop()
        try:
            in_every_view(trace)
        except ValueError as error:
            if len(str(error).split()) < 5 or "could not" in str(error) or "broadcast" in str(error):
                wrong.append(f"{name}: a view says {error!r}")
        except Exception as error:
            wrong.append(f"{name}: a view fails: {error!r}")
    assert not wrong, "\n".join(wrong[:60])
    assert refused > len(cases) / 4


def test_settings_are_checked_by_their_controls():
    Settings(prompt="a cat", seed=[1, 2], guidance_scale=5, versions={"torch": "2"}).check()
    for name, value in {"seed": "1", "width": 10**399, "prompt": "\udc00", "guidance_scale": float("nan"), "versions": {"a": 1}}.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"its {name} is"):
            Settings(**{name: value}).check()


def test_zlib_goes_on_after_the_end_is_damage(whole, tmp_path):
    from sdwidgets.trace_io import _unpacked

    data = whole.save(tmp_path / "t").read_bytes()
    assert len(_unpacked(zlib.compress(data), "t")) == 3
    with pytest.raises(ValueError, match="goes on after its end"):
        _unpacked(zlib.compress(data + b"x"), "t")


def test_an_archive_that_would_become_far_more_than_numbers_shrink_to_is_not_unpacked(whole, tmp_path):
    from sdwidgets.trace_io import _unpacked

    step = np.zeros((1, 4, 1600, 1000), np.float32)  # 26 MB of zeros a step, which shrink a thousand times
    large = dataclasses.replace(
        whole,
        steps=(
            dataclasses.replace(
                whole[0],
                latents=step,
                noise_pred=step,
                noise_pred_uncond=None,
                noise_pred_cond=None,
                pred_original=step,
            ),
        ),
    )
    packed = zlib.compress(large.save(tmp_path / "large").read_bytes())
    tracemalloc.start()
    with pytest.raises(ValueError, match="numbers of a run do not shrink so far"):
        _unpacked(packed, "t")
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()

"""Pictures that carry their runs: what is saved comes back, and what a stranger sends changes nothing."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdwidgets import record, trace_io
from sdwidgets.trace import PER_STEP_ARRAYS, Trace
from sdwidgets.trace_io import embed_trace, extract_trace, read_passport, to_png
from tests import tiny
from tests.test_playground import SECONDS, make  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def trace() -> Trace:
    pipe = tiny.pipeline("sd")
    with record(pipe) as run:
        tiny.run(pipe, seed=3, prompt="a 'cat' </script><b>")
    return run


def pieces(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, content) of each chunk of a PNG."""
    found, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    packed = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return trace_io.SIGNATURE + b"".join(packed)


def carrying(data: bytes, trace: Trace) -> bytes:
    """The passport with other bytes in the place of the trace's file."""
    return png([(k, zlib.compress(data) if k == trace_io.CHUNK else c) for k, c in pieces(to_png(trace))])


def safetensors(trace: Trace, tmp_path, **header) -> bytes:
    """The trace's file with another header."""
    data = trace.save(tmp_path / "t").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    old = json.loads(data[8 : 8 + length])
    old["__metadata__"] |= {k: v if isinstance(v, str) else json.dumps(v) for k, v in header.items()}
    new = json.dumps(old).encode()
    return struct.pack("<Q", len(new)) + new + data[8 + length :]


# ---- what is saved comes back ---------------------------------------------------------------------------------------


def test_a_picture_brings_its_run_back_to_the_last_bit(trace, tmp_path):
    path = embed_trace(trace, tmp_path / "cat.png")
    back = extract_trace(path)
    assert back.settings == trace.settings and back.complete
    for a, b in zip(trace, back, strict=True):
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in PER_STEP_ARRAYS)
    assert np.array_equal(back.images, trace.images) and np.array_equal(back.final_latents, trace.final_latents)
    with Image.open(path) as picture:  # for everyone else it is a picture
        assert np.array_equal(np.asarray(picture), trace.images[0])
        assert json.loads(picture.text["sdwidgets"])["seed"] == 3


def test_a_large_run_is_carried_compact(trace, monkeypatch):
    monkeypatch.setattr(trace_io, "LARGE", 1000)
    back = read_passport(to_png(trace))
    assert np.array_equal(back.images, trace.images) and back.settings == trace.settings
    assert np.allclose(back[1].latents, trace[1].latents, atol=5e-3)
    monkeypatch.setattr(trace_io, "MAX_TRACE", 1000)
    with pytest.raises(ValueError, match=r"use trace\.save"):
        to_png(trace)


def test_an_exported_page_carries_the_run_too(trace, tmp_path):
    back = extract_trace(trace.export_html(tmp_path / "cat.html"))
    assert back.settings == trace.settings and np.array_equal(back.images, trace.images)


def test_a_run_that_was_stopped_has_no_picture_to_carry_it(trace):
    with pytest.raises(ValueError, match=r"no picture to carry it.*trace\.save"):
        to_png(Trace(trace.settings, trace.steps, complete=False))


def test_a_full_disk_leaves_the_old_file(trace, tmp_path):
    with pytest.raises(OSError):
        embed_trace(trace, tmp_path / "missing" / "cat.png")


# ---- what a stranger sends ------------------------------------------------------------------------------------------


def plain_png(**texts) -> bytes:
    info = PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither a PNG nor a page"),
        (jpeg(), "neither a PNG nor a page"),
        (pickle.dumps(print), "neither a PNG nor a page"),
        (b"<!doctype html><p>hello", "a page without a run"),
        (plain_png(), "without a run of sdwidgets"),
        (plain_png(sdwidgets='{"seed": 1}'), "tells its settings, but carries no run"),
        (trace_io.SIGNATURE, "cut short"),
        (trace_io.OPENING + b"%%%" + trace_io.CLOSING, "damaged"),
        (trace_io.OPENING + base64.b64encode(b"x" * 99) + trace_io.CLOSING, "damaged"),
        (trace_io.OPENING, "damaged"),
    ],
)
def test_foreign_files_are_a_sentence(data, words):
    with pytest.raises(ValueError, match=words):
        read_passport(data, "a.png")


def test_damaged_files_are_a_sentence(trace):
    whole = to_png(trace)
    until = whole.index(b"IDAT") - 8  # behind it stands the picture: without that the run is whole
    for end in range(0, until, until // 40):
        with pytest.raises(ValueError):
            read_passport(whole[:end])
    start = whole.index(trace_io.CHUNK)
    for place in range(start + 4, start + 2000, 97):  # a bit fell over
        with pytest.raises(ValueError, match="checksum"):
            read_passport(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])


def test_compressed_text_is_stepped_over_and_a_bomb_is_not_unpacked(trace, monkeypatch):
    bomb = b"sdwidgets\0\0" + zlib.compress(bytes(300_000_000), 1)
    chunks = pieces(to_png(trace))
    assert read_passport(png([chunks[0], (b"zTXt", bomb), *chunks[1:]])).settings == trace.settings
    arrays = json.dumps({"images": {"dtype": "U8", "shape": [300_000_000], "data_offsets": [0, 300_000_000]}}).encode()
    large = struct.pack("<Q", len(arrays)) + arrays + bytes(300_000_000)
    for data, words in ((large, "unpacks to more than 128 MB"), (bytes(300_000_000), "is damaged")):
        carried = png([chunks[0], (trace_io.CHUNK, zlib.compress(data, 1)), (b"IEND", b"")])
        tracemalloc.start()
        with pytest.raises(ValueError, match=words):
            read_passport(carried)
        assert tracemalloc.get_traced_memory()[1] < 8e6, "refused by what it says of itself"
        tracemalloc.stop()
    with pytest.raises(ValueError, match="more than the 64 MB"):
        read_passport(trace_io.SIGNATURE + bytes(trace_io.MAX_FILE))


@pytest.mark.parametrize(
    "header",
    [
        {"settings": {"prompt": {"a": 1}}},
        {"settings": {"seed": "5"}},
        {"settings": {"seed": True}},
        {"settings": {"guidance_scale": "7"}},
        {"settings": '{"guidance_scale": NaN}'},
        {"settings": {"width": 1e9}},
        {"settings": {"scheduler": ["DDIM"]}},
        {"settings": {"versions": [1]}},
        {"settings": "[" * 100_000},
        {"settings": [1]},
        {"process": ["vp", "vp", "magic"]},
        {"process": ["vp"] * 5000},
        {"process": {"a": 1}},
        {"format": "something"},
        {"version": "99"},
    ],
    ids=lambda header: str(header)[:40],
)
def test_wrong_types_are_damage(trace, tmp_path, header):
    with pytest.raises(ValueError, match="damaged"):
        read_passport(carrying(safetensors(trace, tmp_path, **header), trace))


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((1, 64, 48, 4), np.uint8)},
        {"images": np.zeros((64, 48, 3), np.uint8)},
        {"images": np.zeros((1, 64, 48, 3), np.float32)},
        {"images": None},
        {"previews": np.zeros((3, 0, 0, 3), np.uint8)},
        {"preview_factors": np.zeros((9, 3), np.float32)},
        {"final_latents": np.zeros((1, 7, 8, 6), np.float32)},
        {"steps": ()},
    ],
    ids=str,
)
def test_arrays_of_other_shapes_are_damage(trace, tmp_path, change):
    wrong = Trace(**{**{name: getattr(trace, name) for name in ("settings", "steps", "images")}, **change})
    with pytest.raises(ValueError, match="damaged"):
        read_passport(carrying(wrong.save(tmp_path / "w").read_bytes(), trace))


def test_a_giant_picture_in_a_compact_trace_is_not_decoded(trace, tmp_path):
    data = trace.save(tmp_path / "t", compact=True).read_bytes()
    giant = io.BytesIO()
    Image.new("RGB", (10_000, 8_000)).save(giant, "WEBP", quality=1, method=0)
    from safetensors.numpy import load, save

    tensors = load(data)
    counted = np.array([1, giant.tell()], "<i8").tobytes() + giant.getvalue()
    tensors["images"] = np.frombuffer(counted, np.uint8)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])["__metadata__"]
    with pytest.raises(ValueError, match="a side of 8,000 pixels in its images does not belong to 8 cells of latents"):
        read_passport(carrying(save(tensors, header), trace))


# ---- in the Playground -----------------------------------------------------------------------------------------------


def give(play, data: bytes, name: str = "cat.png", piece: int = 512 * 1024) -> dict:
    """As the page does: a piece, an answer, the next piece. Returns the last answer."""
    for at in range(0, max(1, len(data)), piece):
        message = {"kind": "upload", "client": "page", "purpose": "run", "name": name, "size": len(data), "start": at}
        play._handle_custom_msg(message, [memoryview(data[at : at + piece])])
        answer = [m for m in play.sent if m["kind"] == "upload_reply"][-1]
        if answer["refused"]:
            break
    return answer


def test_a_dropped_picture_restores_controls_and_run(make):  # noqa: F811
    first = make(autorun=False, num_inference_steps=4, scheduler="DPM++ 2M Karras", guidance_scale=2.5)
    trace = first.run(prompt="a dog", seed=77).wait(SECONDS)
    first.page("save_picture", start=0)
    data = first.buffers[-1][0]
    while len(data) < first.sent[-1]["size"]:
        first.page("save_picture", start=len(data))
        data += first.buffers[-1][0]
    second = make(autorun=False)
    assert give(second, data, piece=1000) == {"kind": "upload_reply", "client": "page", "done": True, "refused": None, "source": False}  # fmt: skip
    second.wait(SECONDS)
    told = ("prompt", "seed", "num_inference_steps", "scheduler", "guidance_scale")
    assert [second.settings[name] for name in told] == ["a dog", 77, 4, "DPM++ 2M Karras", 2.5]
    assert [kind for kind in second.kinds() if kind != "upload_reply"] == ["queued", "result", "done"]
    assert np.array_equal(second.trace.images, trace.images)
    again = second.run().wait(SECONDS)  # Generate makes it again, bit for bit
    assert np.array_equal(again.images, trace.images)


def test_a_run_is_saved_as_a_page_which_brings_it_back(make):  # noqa: F811
    play = make(autorun=False)
    trace = play.run(prompt="a <b>dog", seed=7).wait(SECONDS)
    play.page("save_picture", start=0, page=True)
    data = play.buffers[-1][0]
    while len(data) < play.sent[-1]["size"]:
        play.page("save_picture", start=len(data), page=True)
        data += play.buffers[-1][0]
    assert data.startswith(b"<!doctype html>") and b"<b>dog" not in data
    assert np.array_equal(read_passport(data).images, trace.images)


def test_a_refused_file_changes_nothing(make, trace, tmp_path):  # noqa: F811
    play = make(autorun=False)
    before = play.run(seed=5).wait(SECONDS)
    settings, sent = dict(play.settings), len(play.sent)
    whole = to_png(trace)
    flow = Trace.load(trace.save(tmp_path / "t"))
    flow.settings = type(flow.settings)(**{**vars(flow.settings), "scheduler": "FlowMatchEulerDiscreteScheduler", "scheduler_label": None})  # fmt: skip
    for data in (whole[:3000], jpeg()[:300], b"no picture", to_png(flow)):
        refused = give(play, data, "<b>.png")["refused"]
        assert refused and refused[0].isupper() or refused.startswith("'")
    upload = {"kind": "upload", "client": "page", "purpose": "run", "name": "a.png"}
    for numbers in ({"size": 10**12, "start": 0}, {"size": 100, "start": 50}, {"size": 3, "start": 0}):
        play._handle_custom_msg({**upload, **numbers}, [b"12345"])
        assert play.sent[-1]["refused"]
    assert play.settings == settings and play.trace is before
    assert {message["kind"] for message in play.sent[sent:]} == {"upload_reply"}


@pytest.mark.parametrize("picture", [plain_png, jpeg])
def test_a_picture_without_a_run_becomes_the_source(make, picture):  # noqa: F811
    play = make(autorun=False)
    answer = give(play, picture(), "photo")
    assert answer["source"] and answer["done"] and answer["refused"] is None
    assert play.source is not None and play.trace is None
    assert [message["kind"] for message in play.sent][-2:] == [
        "source",
        "upload_reply",
    ]  # the page has it before it begins a run
    trace = play.run(task="image", strength=0.5).wait(SECONDS)
    assert np.array_equal(trace.source, np.asarray(play.source))


def test_a_run_under_way_gives_way_to_a_dropped_one(make, trace):  # noqa: F811
    play = make(num_inference_steps=500)
    play.run()
    play.show(trace)
    assert play.wait(SECONDS) is trace and play.kinds().count("result") == 1
    with pytest.raises(RuntimeError, match="no picture yet"):
        make(autorun=False).save("nowhere.png")

"""A trace comes back from its file as it was, and a bad file is answered by a sentence."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from sdwidgets.latents import decode_previews
from sdwidgets.recording import record
from sdwidgets.trace import PER_RUN_ARRAYS, PER_STEP_ARRAYS, Settings, Step, Trace
from tests import tiny


@pytest.fixture(scope="module")
def recorded() -> Trace:
    with record(pipe := tiny.pipeline("sd")) as trace:
        tiny.run(pipe, prompt='<script>alert("é")</script> 🐈', negative_prompt="", steps=3)
    return trace


@pytest.fixture
def saved(recorded, tmp_path):
    return recorded.save(tmp_path / "run.safetensors")


def assert_same(a: Trace, b: Trace):
    assert a.settings == b.settings and a.complete == b.complete and len(a) == len(b)
    pairs = [(getattr(a, name), getattr(b, name)) for name in PER_RUN_ARRAYS]
    for one, other in zip(a, b, strict=True):
        for f in fields(Step):
            x, y = getattr(one, f.name), getattr(other, f.name)
            if f.name in PER_STEP_ARRAYS:
                pairs.append((x, y))
            else:
                assert type(x) is type(y) and x == y, f.name
    for x, y in pairs:
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_round_trip(recorded, saved):
    loaded = Trace.load(saved)
    assert_same(recorded, loaded)
    assert loaded.settings.prompt == '<script>alert("é")</script> 🐈'
    assert loaded.settings.negative_prompt == ""


def test_round_trip_of_everything_optional(recorded, tmp_path):
    steps = list(recorded)
    steps[1] = replace(steps[1], noise_pred_uncond=None, noise_pred_cond=None, sigma=float("inf"), alpha=0.0)
    steps[2] = replace(steps[2], seconds=float("inf"), process="flow", pipeline_step=-1)
    whole = replace(
        recorded, steps=tuple(steps), previews=np.zeros((3, 8, 8, 3), np.uint8), complete=False, images=None
    )
    assert_same(whole, Trace.load(whole.save(tmp_path / "whole.safetensors")))
    assert_same(Trace(), Trace.load(Trace().save(tmp_path / "empty.safetensors")))


def test_slices_of_other_arrays_are_saved_as_they_look(recorded, tmp_path):
    """safetensors writes the memory below a view: a transposed picture would come back scrambled."""
    turned = replace(recorded, images=recorded.images.transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(Trace.load(turned.save(tmp_path / "t.safetensors")).images, turned.images)


def test_stacks_and_container(recorded):
    assert recorded.latents.shape == recorded.pred_original.shape == (3, 1, 4, 8, 6)
    assert recorded[0] is recorded.steps[0] and list(recorded) == list(recorded.steps) and len(recorded) == 3
    assert recorded[-1].index == 2 and [step.index for step in recorded[1:]] == [1, 2]
    assert recorded.sigmas.shape == recorded.seconds.shape == recorded.snr_db.shape == (3,)
    np.testing.assert_allclose(recorded.snr_db, -20 * np.log10(recorded.sigmas))
    assert Trace().latents.shape == (0,) and "3 steps" in repr(recorded) and "48x64" in repr(recorded)


def test_flow_snr():
    step = Step(0, 500.0, 0.25, 0.75, *[np.zeros(1)] * 2, None, None, np.zeros(1), 0.1, "flow")
    assert step.snr_db == pytest.approx(20 * np.log10(3))
    assert replace(step, sigma=1.0, alpha=0.0).snr_db == -np.inf
    assert replace(step, sigma=0.0, alpha=1.0).snr_db == np.inf


def test_settings_are_json(recorded):
    assert Settings(**json.loads(json.dumps(asdict(recorded.settings)))) == recorded.settings


def test_a_trace_is_made_and_read_without_torch(saved):
    code = (
        "import sys; from sdwidgets.trace import Trace; from sdwidgets.latents import linear_preview as p;"
        "t = Trace.load(sys.argv[1]); p(t.pred_original, t.preview_factors); t.save(sys.argv[1] + '2');"
        "assert not {'torch', 'diffusers', 'matplotlib'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code, saved], check=True)


# --- bad files


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trace file.*check the path"):
        Trace.load(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="no trace file"):
        Trace.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_cut_short(saved, keep):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="cut short.*fetch it again"):
        Trace.load(saved)


def test_foreign(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_text("<html>404 not found</html>")
    with pytest.raises(ValueError, match="cut short or not safetensors"):
        Trace.load(path)
    save_file({"unet.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(ValueError, match="without a trace in it, perhaps a model's weights"):
        Trace.load(path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "npz", "npy"])
def test_files_that_can_run_code_are_not_opened(tmp_path, kind):
    path = tmp_path / "trace.safetensors"
    with path.open("wb") as file:
        if kind == "pickle":
            pickle.dump(Bomb(), file)
        elif kind == "torch":
            torch.save(Bomb(), file)
        elif kind == "npz":
            np.savez(file, a=np.array([Bomb()], object))
        else:
            np.save(file, np.array([Bomb()], object))
    with pytest.raises(ValueError, match="not opened because such a file can run code; give a safetensors file"):
        Trace.load(path)


def test_a_header_whose_length_looks_like_a_pickle_is_read(saved):
    """Lengths are multiples of eight, so one file in thirty-two begins with 0x80, as pickles do."""
    edited(saved, lambda metadata, tensors: metadata.update(note=""))
    for size in range(8, 400, 8):
        if saved.read_bytes()[:1] == b"\x80":
            break
        edited(saved, lambda metadata, tensors, size=size: metadata.update(note=" " * size))
    assert saved.read_bytes()[:1] == b"\x80"
    assert len(Trace.load(saved)) == 3


def edited(saved, change) -> None:
    """Rewrite the file's header (metadata and tensors) by `change(metadata, tensors)`."""
    from safetensors import safe_open

    with safe_open(saved, framework="np") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    change(metadata, tensors)
    save_file(tensors, saved, metadata)


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata, tensors: tensors.pop("steps.latents"),
        lambda metadata, tensors: tensors.pop("steps.sigma"),
        lambda metadata, tensors: tensors.update({"steps.sigma": np.zeros(1)}),
        lambda metadata, tensors: tensors.update({"steps.latents.index": np.array([0, 1, 7])}),
        lambda metadata, tensors: metadata.pop("settings"),
        lambda metadata, tensors: metadata.update(settings="[1, 2]"),
        lambda metadata, tensors: metadata.update(process="not json"),
    ],
)
def test_damaged(saved, change):
    edited(saved, change)
    with pytest.raises(ValueError, match="damaged.*fetch it again"):
        Trace.load(saved)


def test_other_version(saved):
    edited(saved, lambda metadata, tensors: metadata.update(version="99"))
    with pytest.raises(ValueError, match="version '99'.*install the newest sdwidgets"):
        Trace.load(saved)


def test_settings_of_a_later_release_are_left_aside(saved, recorded):
    def add(metadata, tensors):
        metadata["settings"] = json.dumps({**json.loads(metadata["settings"]), "mood": "good"})

    edited(saved, add)
    assert Trace.load(saved).settings == recorded.settings


# --- bad places


FULL_DISK = """
import resource, sys
from sdwidgets.trace import Trace
trace = Trace.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the kernel refuses to write more
try:
    trace.save(sys.argv[1])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits a file's size by POSIX means")
def test_full_disk_leaves_the_old_file(saved, recorded):
    before = saved.read_bytes()
    out = subprocess.run([sys.executable, "-c", FULL_DISK, saved], check=True, capture_output=True, text=True).stdout
    assert "was not written" in out and "unchanged; free some space" in out
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_folder_that_is_not_there(recorded, tmp_path):
    with pytest.raises(OSError, match="was not written.*choose another folder"):
        recorded.save(tmp_path / "none" / "run.safetensors")


# --- compact files ---


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_a_compact_file_shows_the_same_run(family, tmp_path):
    with record(pipe := tiny.pipeline(family)) as trace:
        tiny.run(pipe, steps=3, guidance_scale=5.0)
    decode_previews(trace, pipe)
    whole, compact = tmp_path / "whole.safetensors", tmp_path / "compact.safetensors"
    trace.save(whole), trace.save(compact, compact=True)
    assert compact.stat().st_size < whole.stat().st_size / 2
    loaded = Trace.load(compact)
    assert loaded.settings == trace.settings and loaded.complete
    assert np.array_equal(loaded.images, trace.images)  # the picture is kept as it is
    assert loaded.previews.shape == trace.previews.shape and loaded.previews.dtype == np.uint8
    for one, other in zip(trace, loaded, strict=True):
        for name in PER_STEP_ARRAYS:
            array, back = getattr(one, name), getattr(other, name)
            assert back.dtype == np.float32, name
            np.testing.assert_allclose(back, array, rtol=0.01, atol=0.03, err_msg=name)


def test_a_compact_file_keeps_what_does_not_follow(recorded, tmp_path):
    """A prediction that was changed after guidance, as by rescaling, is no longer the line through its halves."""
    steps = [replace(step, noise_pred=0.7 * step.noise_pred) for step in recorded]
    path = Trace(recorded.settings, tuple(steps)).save(tmp_path / "run.safetensors", compact=True)
    for one, other in zip(steps, Trace.load(path), strict=True):
        np.testing.assert_allclose(other.noise_pred, one.noise_pred, atol=0.01)
        np.testing.assert_allclose(other.pred_original, one.pred_original, atol=0.03)


def test_a_compact_file_whose_pictures_are_damaged_is_answered_by_a_sentence(recorded, tmp_path):
    path = recorded.save(tmp_path / "run.safetensors", compact=True)
    data = path.read_bytes()
    assert data.count(b"WEBPVP8") == 1
    path.write_bytes(data.replace(b"WEBPVP8", b"WEBPXXX"))
    with pytest.raises(ValueError, match="is damaged"):
        Trace.load(path)

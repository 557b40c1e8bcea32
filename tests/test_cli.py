"""The command line, on a saved tiny pipeline: pictures, batches that go on, and one sentence for what is wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
from PIL import Image
from safetensors import SafetensorError

from sdwidgets import cli
from sdwidgets.generation import batch
from sdwidgets.loading import doctor
from sdwidgets.trace import Trace
from tests import tiny

SAYS = {
    words: f"{words} (os error {number})"
    for words, number in (("File too large", errno.EFBIG), ("No space left on device", errno.ENOSPC))
}
SMALL = ["--steps", "2", "--height", "64", "--width", "64", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    tiny.pipeline("sd").save_pretrained(folder)
    return str(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def prompts(here):
    path = here / "prompts.txt"
    path.write_text("a cat\n\nein Bär, 一只猫 🐈 <script>\n a dog \na cat\n", encoding="utf-8")
    return str(path)


def start(*arguments: str) -> subprocess.Popen:
    """The command in a process of its own, from a checkout as well as installed."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command, pipe = [sys.executable, "-m", "sdwidgets", *arguments], subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "PYTHONPATH": path})


def pictures(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.png")}


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(os.name != "posix", reason="bounds the size of files as POSIX can")
@pytest.mark.parametrize("words", ["File too large", "No space left on device"])
def test_a_part_that_cannot_be_saved_is_a_sentence(words, here, capsys, monkeypatch):
    """diffusers writes weights through safetensors, whose error for a full disk is no OSError."""
    import resource

    from sdwidgets.pocket import train

    most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_a_full_disk(args):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most[1]))
        try:
            tiny.pipeline("sd").vae.save_pretrained(here / "part")
        except (
            SafetensorError
        ) as error:  # a disk that is full of so little cannot be had here, but the same words of its
            raise SafetensorError(str(error).replace("File too large (os error 27)", SAYS[words])) from None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)

    monkeypatch.setattr(train, "main", on_a_full_disk)
    assert cli.main(["train", "vae"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        error.startswith("sdwidgets train: ")
        and ("the disk is full; what was made is kept" if "space" in words else words) in error
    )


# ---- one picture ---------------------------------------------------------------------------------------------


def test_one_picture_with_trace_and_page(model, here, capsys):
    files = ["--output", "cat.png", "--trace", "cat.safetensors", "--html", "cat.html"]
    assert cli.main(["generate", "a cat", "--seed", "7", "--model", model, *SMALL, *files]) == 0
    image = Image.open("cat.png")
    trace = Trace.load("cat.safetensors")
    assert image.size == (64, 64) and (np.asarray(image) == trace.images[0]).all()
    assert len(trace) == 2 and trace.complete and trace.settings.seed == 7 and trace.settings.prompt == "a cat"
    assert "<html" in (here / "cat.html").read_text(encoding="utf-8").lower()
    passport = json.loads(image.text["sdwidgets"])
    assert passport["prompt"] == "a cat" and passport["seed"] == 7 and passport["num_inference_steps"] == 2
    assert capsys.readouterr().out.splitlines()[-1] == "cat.png"


def test_the_picture_is_the_pipelines_own(model, here):
    arguments = ["--model", model, *SMALL, "--guidance", "3", "--scheduler", "euler", "--negative", "a dog"]
    assert cli.main(["generate", "a cat", "--seed", "1", *arguments, "--output", "a.png"]) == 0
    pipe = diffusers.DiffusionPipeline.from_pretrained(model)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    settings = {"prompt": "a cat", "negative_prompt": "a dog", "guidance_scale": 3.0, "height": 64, "width": 64}
    expected = tiny.run(pipe, seed=1, steps=2, output_type="pil", **settings)[0]
    assert (np.asarray(Image.open("a.png")) == np.asarray(expected)).all()


def test_a_recorded_run_makes_the_same_picture(model, here):
    arguments = ["generate", "a cat", "--model", model, *SMALL, "--scheduler", "Euler ancestral"]
    assert cli.main([*arguments, "--output", "a.png"]) == 0
    assert cli.main([*arguments, "--output", "b.png", "--trace", "b.trace"]) == 0
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()


MISUSE = {
    "no prompt": ([], "PROMPT"),
    "steps in words": (["a", "--steps", "ten"], "whole number from 1 to 1,000, not 'ten'"),
    "no steps": (["a", "--steps", "0"], "number of steps"),
    "a negative seed": (["a", "--seed", "-1"], "seed"),
    "guidance that is no number": (["a", "--guidance", "nan"], "guidance"),
    "an odd size": (["a", "--width", "65"], "multiple of 8"),
    "an unknown scheduler": (["a", "--scheduler", "Eulr"], "mean 'Euler'"),
    "another kind of picture": (["a", "--output", "a.gif"], ".png"),
    "no such folder": (["a", "--output", "no/a.png"], "no folder"),
    "seeds without prompts": (["a", "--seeds", "0:2"], "--prompts-file"),
    "a trace of many": (["--prompts-file", "p", "--trace", "t"], "one picture"),
    "both": (["a", "--prompts-file", "p"], "either"),
    "a batch of one": (["a", "--batch-size", "4"], "--prompts-file"),
    "a batch of none": (["--prompts-file", "p", "--batch-size", "0"], "1 to 1024"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_one_sentence_and_status_2(case, model, here, capsys):
    arguments, words = MISUSE[case]
    assert cli.main(["generate", "--model", model, "--device", "cpu", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and error.count("\n") == 1
    assert list(here.iterdir()) == []


def test_a_failure_is_one_sentence_and_status_1(model, here, capsys):
    assert cli.main(["generate", "a", "--model", str(here)]) == 1
    assert cli.main(["generate", "a", "--model", model, "--device", "cuda:99"]) == 1
    assert cli.main(["generate", "--prompts-file", "missing.txt", "--model", model]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 3 and "Traceback" not in error and "missing.txt" in error


def test_debug_shows_the_traceback(here, capsys):
    assert cli.main(["generate", "a", "--model", "pockett", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and "mean 'pocket'" in error


# ---- many pictures -------------------------------------------------------------------------------------------


def many(model, prompts, *more: str) -> int:
    return cli.main(["generate", "--prompts-file", prompts, "--model", model, *SMALL, "--output", "out", *more])


def test_a_batch_makes_every_prompt_with_every_seed_and_says_so(model, prompts, here):
    assert many(model, prompts, "--seeds", "3:5") == 0
    entries = manifest(here / "out")
    texts = ["a cat", "ein Bär, 一只猫 🐈 <script>", "a dog"]  # blank lines and repeats are left out
    assert [(e["prompt"], e["seed"]) for e in entries] == [(t, s) for t in texts for s in (3, 4)]
    for entry in entries:
        image = Image.open(here / "out" / entry["file"])
        assert batch.pixel_hash(image) == entry["sha256"] and image.size == (64, 64)
        assert entry["settings"]["num_inference_steps"] == 2 and entry["device"] == "cpu"
    assert len({e["sha256"] for e in entries}) == 6


def test_a_batch_goes_on_and_makes_nothing_twice(model, prompts, here, capsys):
    assert many(model, prompts, "--seeds", "0:1") == 0
    before = pictures(here / "out")
    assert many(model, prompts, "--seeds", "0:2") == 0
    after = pictures(here / "out")
    assert len(before) == 3 and len(after) == 6
    assert {name: after[name] for name in before} == before, "what is there is left alone"
    assert "3 made now, 3 were there" in capsys.readouterr().out
    assert many(model, prompts, "--seeds", "0:1", "--guidance", "3") == 0
    assert len(pictures(here / "out")) == 9, "other settings are other pictures"


def test_a_lost_and_a_cut_picture_are_made_again_bit_for_bit(model, prompts, here):
    """One at a time: the last digits depend on how many are drawn at once."""
    assert many(model, prompts, "--batch-size", "1") == 0
    hashes = {e["file"]: e["sha256"] for e in manifest(here / "out")}
    first, second, third = sorted((here / "out").glob("*.png"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:99])
    kept = third.stat().st_mtime_ns
    with open(here / "out" / "manifest.jsonl", "a") as file:
        file.write('{"prompt": "cut by a cra')
    assert many(model, prompts, "--batch-size", "1") == 0
    assert third.stat().st_mtime_ns == kept
    assert {p.name: batch.pixel_hash(Image.open(p)) for p in (first, second, third)} == hashes
    assert batch.read_manifest(here / "out").keys() == hashes.keys()


def test_a_full_disk_loses_nothing(model, prompts, here, capsys, monkeypatch):
    syncs, real = [], os.fsync

    def full_after_three(descriptor):  # the second picture meets a full disk
        syncs.append(descriptor)
        if len(syncs) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_three)
    assert many(model, prompts) == 1
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert "disk is full" in capsys.readouterr().err
    assert len(pictures(here / "out")) == len(manifest(here / "out")) == 1
    assert not list((here / "out").glob(".*")), "no half-written file stays"
    assert many(model, prompts) == 0
    assert "2 made now, 1 were there" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT as Ctrl-C does on POSIX")
def test_ctrl_c_stops_with_130_and_keeps_what_was_made(model, prompts, here):
    arguments = [
        "generate",
        "--prompts-file",
        prompts,
        "--seeds",
        "0:200",
        "--model",
        model,
        *SMALL,
        "--output",
        "out",
    ]
    process = start(*arguments)
    for line in process.stdout:
        if line.startswith("2/"):  # two pictures are made
            process.send_signal(signal.SIGINT)
            break
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1] == "sdwidgets generate: interrupted." and "Traceback" not in error
    entries = manifest(here / "out")
    assert 2 <= len(entries) < 600
    assert {e["file"] for e in entries} <= pictures(here / "out").keys()
    assert not list((here / "out").glob(".*"))
    assert f"{len(entries)} made now" in out


BAD_BATCHES = {
    "an empty file": ("", ["--seeds", "0:2"], "no prompt"),
    "seeds in words": ("a", ["--seeds", "a:b"], "0:4"),
    "no seeds": ("a", ["--seeds", "5:5"], "no seed"),
    "seeds below zero": ("a", ["--seeds=-2:2"], "no seed"),
    "far too many": ("a", ["--seeds", "0:99999999"], "at most"),
    "seeds beyond the largest": ("a", ["--seeds", f"{2**63}:{2**63 + 1}"], "9,223,372,036,854,775,807"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_bad_batch_is_refused_before_it_starts(case, model, here, capsys):
    text, arguments, words = BAD_BATCHES[case]
    (here / "p.txt").write_text(text)
    assert many(model, "p.txt", *arguments) == 2
    assert words in capsys.readouterr().err
    assert not (here / "out").exists()


def test_a_prompt_may_hold_any_sign_but_the_end_of_a_line(here):
    from sdwidgets.cli import _read_prompts

    (here / "p.txt").write_bytes("a cat\u2028on a mat\r\na dog\x0b\x85 barks\n\n a cow \r".encode())
    assert _read_prompts(here / "p.txt") == ["a cat\u2028on a mat", "a dog\x0b\x85 barks", "a cow"]


def test_a_name_that_is_too_long_is_a_sentence(model, here, capsys):
    from sdwidgets import cli

    assert cli.main(["generate", "a cat", "--model", model, *SMALL, "--output", "a" * 300 + ".png"]) == 1
    assert "was not written (File name too long)" in (error := capsys.readouterr().err)
    assert "choose a shorter name" in error and "Traceback" not in error


def test_prompts_must_be_utf8_and_the_output_a_folder(model, here, capsys):
    (here / "p.txt").write_bytes(b"caf\xe9")
    assert many(model, "p.txt") == 2 and "UTF-8" in capsys.readouterr().err
    (here / "p.txt").write_text("a")
    (here / "out").write_text("")
    assert many(model, "p.txt") == 2 and "is a file" in capsys.readouterr().err


# ---- the other verbs -----------------------------------------------------------------------------------------


def test_doctor_tells_the_machine(capsys):
    status = cli.main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert status == (1 if report["problems"] else 0)
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))
    assert report["packages"]["torch"] and report["torch"]["build"] and report["pocket"]["present"]
    assert report["memory"]["free"] > 0 and report["disk"]["free"] > 0
    fits = {row["name"]: row["fits"] for row in report["models"]}
    assert fits["pocket"] == "yes" and set(fits.values()) <= {"yes", "in parts", "no", "unknown"}
    cli.main(["doctor"])
    text = capsys.readouterr().out
    assert "Python" in text and "flux-dev" in text and "Memory" in text


def test_a_notebook_shows_the_models_as_a_table_without_paths():
    report = doctor.preflight()
    report["problems"] = ["<b> | not a cell"]
    shown = report._repr_mimebundle_()
    assert set(shown) == {"text/markdown", "text/plain"}
    table = [line.split(" | ") for line in shown["text/markdown"].splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(report["models"]) and {len(row) for row in table[2:]} == {4}
    assert "| pocket | yes |" in shown["text/markdown"] and str(report["disk"]["folder"]) not in shown["text/markdown"]
    assert "&lt;b&gt; &#124; not a cell" in shown["text/markdown"]


@pytest.mark.skipif(os.name != "posix", reason="puts a shell script in the place of nvidia-smi")
def test_doctor_finds_a_card_beside_a_cpu_only_torch(tmp_path, monkeypatch):
    import torch

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho Tesla T4\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    report = doctor.preflight()
    assert report["nvidia"] == ["Tesla T4"]
    about_card = [p for p in report["problems"] if "Tesla T4" in p]
    if torch.cuda.is_available():
        assert not about_card
    else:
        (sentence,) = about_card
        assert (
            ("CPU-only" in sentence and "TORCH=cuda" in sentence)
            if torch.version.cuda is None
            else "driver" in sentence
        )


def test_doctor_finds_a_card_without_a_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    card = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    card.mkdir(parents=True)
    assert doctor.find_nvidia(tmp_path) == []
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x040300\n")  # its sound chip
    assert doctor.find_nvidia(tmp_path) == []
    (card / "class").write_text("0x030000\n")
    assert doctor.find_nvidia(tmp_path) == ["NVIDIA card on the PCI bus"]
    gpu = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA GeForce RTX 3060\nIRQ: 1\n")
    assert doctor.find_nvidia(tmp_path) == ["NVIDIA GeForce RTX 3060"]


def test_doctor_never_raises(monkeypatch):
    for probe in (
        "installed_version",
        "_torch",
        "find_nvidia",
        "total_ram",
        "free_ram",
        "_disk",
        "find_browser",
        "_device",
        "_pocket",
    ):
        monkeypatch.setattr(doctor, probe, lambda probe=probe: (_ for _ in ()).throw(OSError(f"{probe} is ill")))
    report = doctor.preflight()
    assert any("_torch is ill" in p for p in report["problems"]) and "unknown" in repr(report)
    json.dumps(report)


def test_scenes_draws_a_sheet(here, capsys):
    assert cli.main(["scenes", "--count", "4", "--output", "sheet.png"]) == 0
    sheet = Image.open("sheet.png")
    assert sheet.width > 128 and len(sheet.convert("RGB").getcolors(1 << 24)) > 10
    assert cli.main(["scenes", "--count", "0"]) == 2 and cli.main(["scenes", "--count", "many"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_help_and_no_command(capsys):
    assert cli.main([]) == 2
    assert "generate" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", "nonsense"])
    assert caught.value.code == 2


def test_python_m_sdwidgets_and_its_help_need_no_torch():
    code = "import sys; from sdwidgets.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"
    process = start("generate", "a", "--seeds", "0:2")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and error.count("\n") == 1

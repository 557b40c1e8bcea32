"""What a notebook starts from: Colab's set-up, questions to a pipeline, recorded demos, the meetup's file."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from nbconvert.filters import markdown2html

import sdwidgets
from sdwidgets import course
from sdwidgets.course import colab as colab_module
from sdwidgets.course.meetup import escape, link
from sdwidgets.trace import Trace
from tests import tiny

ROOT = Path(__file__).resolve().parent.parent

# --- Colab ---


def test_elsewhere_the_set_up_does_nothing(capfd, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail(f"ran {args}"))
    assert course.setup() is None
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def colab(monkeypatch):
    """Colab as far as the set-up sees it: its module, and what it would run. Returns (commands, calls)."""
    commands, calls = [], []
    output = types.SimpleNamespace(enable_custom_widget_manager=lambda: calls.append("widgets"))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(output=output))
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda command, **kwargs: commands.append(command) or done)
    return commands, calls


def without(monkeypatch, *names):
    here = colab_module._installed
    monkeypatch.setattr(colab_module, "_installed", lambda name: name not in names and here(name))


def test_on_colab_widgets_are_allowed_and_nothing_is_installed_that_is_there(colab):
    course.setup()
    assert colab == ([], ["widgets"])


def test_on_colab_what_is_missing_is_installed_alone(colab, monkeypatch):
    without(monkeypatch, "anywidget", "safetensors")
    course.setup()
    commands, calls = colab
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"] and "--no-deps" in command
    assert set(command[4:]) - {"--quiet", "--no-deps"} == {"anywidget", "safetensors"}
    assert calls == ["widgets"]


def test_on_colab_torch_is_never_installed(colab, monkeypatch):
    without(monkeypatch, "torch", "anywidget")
    with pytest.raises(RuntimeError, match="has no torch, and the course never installs one over Colab's own; choose"):
        course.setup()
    assert colab == ([], [])


def test_on_colab_a_failed_installation_is_said(colab, monkeypatch):
    without(monkeypatch, "anywidget")
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: no network")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(
        RuntimeError, match=r"anywidget could not be installed \(ERROR: no network\); check the runtime's network"
    ):
        course.setup()


@pytest.mark.parametrize("on_colab", [False, True])
def test_the_set_up_cell_fetches_the_course_alone_and_on_colab_only(on_colab, tmp_path):
    """In a real IPython shell, where `%pip` notes what it was asked."""
    script = tmp_path / "cell.py"
    script.write_text(
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from sdwidgets import course\n"
        "shell = InteractiveShell.instance()\n"
        "shell.register_magic_function(lambda line: print('pip', line), magic_name='pip')\n"
        f"if {on_colab}:\n"
        "    sys.modules['google.colab'] = SimpleNamespace(output=SimpleNamespace(enable_custom_widget_manager=lambda: None))\n"
        "shell.run_cell(course.setup_cell()).raise_error()\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = f"pip install --quiet --no-deps git+{course.REPOSITORY}@{course.BRANCH}" if on_colab else ""
    assert done.stdout.strip() == expected


def test_the_address_stands_in_one_place():
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", course.REPOSITORY)
    named = [
        path.name
        for path in (ROOT / "sdwidgets").rglob("*.py")
        if course.REPOSITORY in path.read_text(encoding="utf-8")
    ]
    assert named == ["colab.py"]
    for file in ("README.md", "pyproject.toml", "CITATION.cff"):  # they name the same one, or none
        text = (ROOT / file).read_text(encoding="utf-8")
        owner = re.escape(course.REPOSITORY.rsplit("/", 1)[1])
        assert set(re.findall(rf"https://github\.com/[\w.-]+/{owner}\b", text)) <= {course.REPOSITORY}


# --- questions to a pipeline ---


def test_pocket_knows_the_truth_and_no_other_model_does(capfd, tmp_path):
    pocket = sdwidgets.load("pocket", device="cpu")
    capfd.readouterr()
    assert course.knows_truth(pocket) is True
    assert capfd.readouterr().out == ""
    pocket.save_pretrained(tmp_path / "pocket", safe_serialization=True)
    for other in (tiny.pipeline("sd"), sdwidgets.load(tmp_path / "pocket", device="cpu")):
        capfd.readouterr()
        assert course.knows_truth(other) is False
        assert capfd.readouterr().out == course.ASIDE + "\n"
    assert course.ASIDE.count(".") == 1


def test_the_native_size_is_what_the_pipeline_takes_itself():
    for family in ("sd", "sdxl", "sd3"):
        pipe = tiny.pipeline(family)
        assert course.size(pipe) == {"height": 64, "width": 64}
        images = pipe("a", num_inference_steps=1, output_type="np", guidance_scale=1.0).images
        assert images.shape[1:3] == (64, 64), family
    assert course.size(sdwidgets.load("pocket", device="cpu")) == {"height": 128, "width": 128}


def test_a_native_size_may_differ_by_side():
    unet = tiny.pipeline("sd").unet
    tall = type(unet).from_config({**unet.config, "sample_size": [8, 6]})
    pipe = tiny.pipeline("sd", unet=tall)
    assert course.size(pipe) == {"height": 64, "width": 48}


def test_an_object_without_a_size_is_answered_by_a_sentence():
    with pytest.raises(
        TypeError, match="str has no unet or transformer that tells its size; give a diffusers pipeline"
    ):
        course.size("pocket")


# --- demos ---

DEMOS = sorted((ROOT / "data" / "demos").glob("*.safetensors"))


@pytest.mark.parametrize("path", DEMOS, ids=lambda path: path.stem)
def test_each_demo_is_small_whole_and_in_the_table(path):
    tool = (ROOT / "tools" / "make_demos.py").read_text(encoding="utf-8")
    assert f'Demo("{path.stem}"' in tool or f'Demo(\n        "{path.stem}"' in tool, "a demo that nothing makes again"
    assert path.stat().st_size < 300_000
    trace = sdwidgets.load_demo(path.stem)
    assert isinstance(trace, Trace) and trace.complete and len(trace) and trace.images is not None
    assert trace.settings.model == "pocket" and trace.settings.device == "cpu"


def test_a_demo_that_is_not_there_names_those_that_are():
    assert DEMOS
    with pytest.raises(FileNotFoundError, match=f"there is no demo '../pocket'; there are: .*{DEMOS[0].stem}"):
        sdwidgets.load_demo("../pocket")


# --- the meetup ---

EVIL = '<img src=x onerror="alert(1)"> **bold** [link](javascript:alert(1)) `code` # 1. x\n\n---'


def changed(tmp_path, change) -> Path:
    """The course's own file after `change(text)`."""
    path = tmp_path / "meetup.toml"
    path.write_text(change((ROOT / "data" / "meetup.toml").read_text(encoding="utf-8")), encoding="utf-8")
    return path


def test_the_evening_is_read_and_shown():
    evening = course.meetup()
    assert evening.name == "Huntsville AI" and "Stable Diffusion" in " ".join(evening.agenda)
    shown = evening.markdown()
    for heading in ("Agenda", "Vision", "Mission", "How to connect", "Last week", "Plan for next week"):
        assert f"### {heading}\n" in shown
    assert "[Web page](https://hsv.ai)" in shown
    assert evening.markdown("vision").startswith("### Vision\n") and "Agenda" not in evening.markdown("vision")
    assert evening._repr_markdown_().startswith("## [Huntsville AI](https://hsv.ai)")
    with pytest.raises(ValueError, match="a meetup has no part 'visions'; it has: agenda, vision"):
        evening.markdown("visions")


def test_text_of_the_file_never_becomes_markup():
    shown = markdown2html("- " + escape(EVIL))
    assert set(re.findall(r"<(\w+)", shown)) == {"ul", "li"}
    assert html.unescape(re.sub(r"<[^>]+>", "", shown)).strip() == " ".join(EVIL.split())


def test_an_address_cannot_leave_its_link():
    odd = 'https://hsv.ai/a(b)"onclick=x<i>'
    shown = markdown2html(f"[x]({link(odd)})")
    assert re.findall(r"<(\w+)", shown) == ["p", "a"] and not re.search(r"\sonclick", shown)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("vision =", "visoin ="), "there is no field 'visoin'; did you mean 'vision'"),
        (lambda text: re.sub(r"(?m)^mission = .*$", "", text), "the field 'mission' is missing"),
        (lambda text: re.sub(r"(?m)^mission = .*$", "mission = 3", text), "'mission' is one text in quotes"),
        (lambda text: re.sub(r"(?m)^last_week = .*$", 'last_week = "x"', text), "'last_week' is a list of texts"),
        (lambda text: re.sub(r"(?m)^last_week = .*$", "last_week = [1]", text), "'last_week' is a list of texts"),
        (
            lambda text: text.replace('"Web page" = "https://hsv.ai"', '"Web page" = "javascript:alert(1)"'),
            "'connect', 'Web page' is https",
        ),
        (lambda text: text.replace('address = "https', 'address = "http'), "'address' is https://... or mailto:..."),
        (lambda text: text.split("[connect]")[0] + 'connect = "us"', "'connect' is a table of lines"),
        (lambda text: text + "\n= broken", "is not TOML in UTF-8"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, change, told):
    with pytest.raises(ValueError, match=r"^meetup\.toml.*" + re.escape(told)):
        course.meetup(changed(tmp_path, change))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no meetup file at .*; copy data/meetup.toml"):
        course.meetup(tmp_path / "none.toml")

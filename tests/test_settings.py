"""The one list of settings: whoever handles settings reads it, so that a new one stands in one place."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sdwidgets import cli, recording, trace, trace_io
from sdwidgets.generation import code_export
from sdwidgets.generation.batch import Request
from sdwidgets.generation.validation import SettingsError, check_settings
from sdwidgets.trace import CONTROLS, Control, Settings, Trace
from sdwidgets.widgets.playground.history import RunRequest, differences
from sdwidgets.widgets.playground.widget import Playground
from tests import tiny

ETA = Control(
    "Eta",
    "eta",
    float,
    0,
    1,
    hint="0 adds no noise",
    option="--eta",
    metavar="X",
    help="how much noise DDIM adds",
    start=0.0,
)


@pytest.fixture
def eta(monkeypatch):
    """A setting that there is not, with a name that diffusers' pipelines take: an entry of `Settings`, and nothing else."""

    @dataclasses.dataclass(frozen=True)
    class Wider(Settings):
        eta: float | None = dataclasses.field(default=None, metadata={"control": ETA})

    monkeypatch.setitem(CONTROLS, "eta", ETA)
    for module in (trace, recording):
        monkeypatch.setattr(module, "Settings", Wider)


@pytest.fixture
def play(eta):
    play = Playground(tiny.pipeline("sd"), num_inference_steps=2, autorun=False, delivery="sync", eta=0.5)
    yield play
    play.close()


def test_an_imaginary_setting_is_checked(eta):
    pipe = tiny.pipeline("sd")
    assert check_settings(pipe, prompt="a", eta=0.5) == []
    for wrong in (2, -0.1, "much", True, float("nan")):
        with pytest.raises(
            SettingsError, match="The eta must be a number from 0 to 1, not .*; 0 adds no noise"
        ) as caught:
            check_settings(pipe, prompt="a", eta=wrong)
        assert caught.value.field == "eta"


def test_an_imaginary_setting_is_an_option_and_part_of_a_request(eta):
    args = cli.make_parser().parse_args(["generate", "a cat", "--eta", "0.25"])
    assert args.eta == 0.25
    (request,) = cli._requests(args, tiny.pipeline("sd"), ["a cat"], [3])
    assert request.settings()["eta"] == 0.25 and request.seed == 3
    assert request.file_name() != request.but(eta=None).file_name() and request.shared()["eta"] == 0.25


def test_an_imaginary_setting_goes_through_the_playground(play, tmp_path):
    assert play.settings["eta"] == 0.5
    first = play.run().wait()
    assert first.settings.eta == 0.5
    play._handle_custom_msg({"kind": "run", "client": "a page", "settings": {"eta": "0.75"}}, [])
    second = play.wait()
    assert play.settings["eta"] == 0.75 and second.settings.eta == 0.75
    assert abs(first.images.astype(int) - second.images).max() > 0, "the pipeline took it"
    a, b = (entry.request for entry in play.history)
    assert ["Eta", "0.5", "0.75"] in differences(a, b)
    assert "eta=0.75" in play.code()
    assert "eta" in code_export.keywords(play.pipe, play.settings)
    play.run(eta=0.0)
    with pytest.raises(SettingsError, match="eta must be"):
        play.run(eta=7)


def test_an_imaginary_setting_is_kept_in_files(play, tmp_path):
    run = play.run().wait()
    run.save(tmp_path / "run.safetensors")
    assert Trace.load(tmp_path / "run.safetensors").settings.eta == 0.5
    picture = play.save(tmp_path / "run.png")
    kept = trace_io.extract_trace(picture)
    assert kept.settings.eta == 0.5
    play.run(eta=0.0).wait()
    assert play.show(kept).settings["eta"] == 0.5, "and the controls are set to it again"


def test_an_imaginary_setting_is_in_the_commands_trace(eta, tmp_path, monkeypatch, capsys):
    """Recording does not see every argument of a call; what was requested completes it."""
    monkeypatch.chdir(tmp_path)
    tiny.pipeline("sd").save_pretrained("tiny")
    arguments = ["generate", "a cat", "--model", "tiny", "--steps", "2", "--eta", "0.5", "--trace", "run.safetensors"]
    assert cli.main(arguments) == 0
    assert Trace.load("run.safetensors").settings.eta == 0.5


def test_every_control_says_what_it_is():
    for name, control in CONTROLS.items():
        assert control.label and control.noun and name in {field.name for field in dataclasses.fields(Settings)}
        assert bool(control.option) == bool(control.help), "an option has a line of help"
        if control.kind in (float, list):
            assert control.low is not None and control.high is not None
    json.dumps({name: control.start for name, control in CONTROLS.items()})


@pytest.mark.parametrize(
    "make", [lambda: check_settings(tiny.pipeline("sd"), mood="good"), lambda: Request("tiny", mood="good")]
)
def test_a_setting_that_there_is_not_is_named(make):
    with pytest.raises(TypeError, match="no setting 'mood'; .* prompt, negative_prompt, seed"):
        make()


def test_a_batch_draws_from_text():
    with pytest.raises(TypeError, match="no setting 'border'; it takes prompt"):
        Request("tiny", prompt="a cat", border=[1, 1, 1, 1])


def test_requests_of_the_same_settings_do_not_differ():
    request = RunRequest({name: control.start for name, control in CONTROLS.items() if control.page})
    assert differences(request, request) == []

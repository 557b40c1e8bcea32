"""The text of a run, executed in an empty namespace: it must make the run's own picture, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from sdwidgets.generation.code_export import code
from sdwidgets.generation.schedulers import make_scheduler, schedulers_for
from sdwidgets.loading.pipeline import load
from sdwidgets.widgets.playground.widget import Playground
from tests import tiny

HOSTILE = "a 'cat'\n\"\"\"; import os; os.abort()  # ''' \\ {0} 🧑🏽‍🚀 \u202e"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """`folders(family)`: a tiny pipeline that was saved and loaded, as one from a folder or the hub is."""
    made = {}

    def load(family: str):
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            tiny.pipeline(family).save_pretrained(made[family])
        cls = type(tiny.pipeline(family))
        pipe = cls.from_pretrained(made[family], use_safetensors=True)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


def executed(text: str) -> np.ndarray:
    """(H, W, 3) uint8: the `image` that the program makes."""
    fresh = {"__name__": "__main__"}
    exec(compile(text, "<copied>", "exec"), fresh)
    return np.asarray(fresh["image"].convert("RGB"))


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_the_copied_program_makes_the_same_picture(folders, family):
    play = Playground(folders(family), num_inference_steps=2, autorun=False)
    trace = play.run(prompt=HOSTILE, negative_prompt='it\'s "dark"', seed=11).wait(120)
    text = play.code()
    play.run(seed=12)  # the program is of the picture that is shown
    play.close()
    assert np.array_equal(executed(text), trace.images[0])
    assert "sdwidgets" not in text and type(play.pipe).__name__ in text


def test_the_copied_program_of_a_turbo_pipeline_draws_its_picture():
    pipe = load("pocket", "cpu", "float32", turbo=True)
    pipe.set_progress_bar_config(disable=True)
    play = Playground(pipe, autorun=False)
    trace = play.run(prompt="a red circle", seed=11).wait(120)
    text = play.code()
    play.close()
    assert "with_small_decoder" in text and "LCMScheduler" in text and np.array_equal(executed(text), trace.images[0])
    pipe.vae = load("pocket", "cpu", "float32").vae
    assert "with_small_decoder" not in code(pipe, {"prompt": "a red circle", "seed": 1})


@pytest.mark.parametrize("label", list(schedulers_for(tiny.pipeline("sd"))))
def test_every_scheduler_is_named_with_its_choices(folders, label):
    play = Playground(folders("sd"), num_inference_steps=3, scheduler=label, autorun=False)
    trace = play.run(seed=2**40).wait(120)
    text = play.code()
    play.close()
    assert np.array_equal(executed(text), trace.images[0])


def test_before_the_first_run_it_is_the_controls_program(folders):
    play = Playground(folders("sd"), num_inference_steps=2, seed=4, scheduler="Euler", autorun=False)
    text = play.code()
    trace = play.run().wait(120)
    play.close()
    assert np.array_equal(executed(text), trace.images[0])


def test_a_scheduler_that_the_reader_put_in_is_there_too(folders):
    pipe = folders("sd")
    pipe.scheduler = make_scheduler("DPM++ 2M SDE", pipe)
    play = Playground(pipe, num_inference_steps=3, autorun=False)
    trace = play.run(scheduler=None).wait(120)
    text = play.code()
    play.close()
    assert "algorithm_type='sde-dpmsolver++'" in text and np.array_equal(executed(text), trace.images[0])


def test_what_the_program_cannot_know_is_said(tmp_path):
    pipe, settings = tiny.pipeline("sd"), {"prompt": "a cat", "seed": 1}
    assert 'save_pretrained("FOLDER")' in code(pipe, settings) and "from_pretrained('FOLDER'" in code(pipe, settings)
    pipe.register_to_config(_name_or_path="/cache/models--owner--a-name/snapshots/0a1b")
    assert "from_pretrained('owner/a-name', use_safetensors=True, revision='0a1b')" in code(pipe, settings)


def test_the_carried_model_is_found_wherever_the_package_lies():
    import sdwidgets

    text = code(sdwidgets.load("pocket"), {"prompt": "a cat", "seed": 1, "num_inference_steps": 1})
    assert "from_pretrained(data_folder('pocket')" in text and executed(text).shape == (128, 128, 3)


def test_the_page_gets_the_program():
    from tests.test_playground import Watched

    play = Watched(tiny.pipeline("sd"), num_inference_steps=1, autorun=False)
    play.page("export_code")
    play.close()
    assert play.sent[-1] == {"kind": "code", "client": "page", "text": play.code()}

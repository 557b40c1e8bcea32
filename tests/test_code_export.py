"""The text of a run, executed in an empty namespace: it must make the run's own picture, bit for bit."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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
    """(H, W, 3) uint8: the `image` that the program makes, and saves."""
    fresh = {"__name__": "__main__"}
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            exec(compile(text, "<copied>", "exec"), fresh)
            assert np.array_equal(np.asarray(Image.open("picture.png")), np.asarray(fresh["image"]))
        finally:
            os.chdir(before)
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


def drawn(pipe, steps: int = 2) -> tuple[np.ndarray, str]:
    """A picture of this pipeline, and its program."""
    play = Playground(pipe, num_inference_steps=steps, autorun=False)
    trace = play.run(prompt="a red circle", seed=11, guidance_scale=4.0).wait(120)
    text = play.code()
    play.close()
    return trace.images[0], text


def another_vae(seed: int):
    torch.manual_seed(seed)
    vae = type(tiny.pipeline("sd").vae).from_config(tiny.pipeline("sd").vae.config)
    return vae.eval()


def test_a_part_of_another_folder_is_loaded_from_there(folders, tmp_path):
    pipe = folders("sd")
    before, _ = drawn(pipe)
    another_vae(5).save_pretrained(tmp_path / "another")
    pipe.vae = type(pipe.vae).from_pretrained(tmp_path / "another")
    picture, text = drawn(pipe)
    assert "pipe.vae = diffusers.AutoencoderKL.from_pretrained(" in text and not np.array_equal(picture, before)
    assert np.array_equal(executed(text), picture)


def test_freeu_is_switched_on_again(folders):
    pipe = folders("sd")
    before, plain = drawn(pipe)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    picture, text = drawn(pipe)
    assert not np.array_equal(picture, before) and np.array_equal(executed(text), picture)
    pipe.disable_freeu()
    assert drawn(pipe)[1] == plain


def test_a_model_that_diffusers_loaded_by_its_id_is_compared_with_the_cache():
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE, "models--owner--tiny")
    commit = "0" * 40
    tiny.pipeline("sd").save_pretrained(home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    pipe = type(tiny.pipeline("sd")).from_pretrained("owner/tiny", local_files_only=True)
    text = code(pipe, {"prompt": "", "seed": 1})
    assert "from_pretrained('owner/tiny', use_safetensors=True" in text and "other weights" not in text
    pipe.vae = another_vae(5)
    assert "# Its vae had other weights" in code(pipe, {"prompt": "", "seed": 1})
    shutil.rmtree(home)


def in_place(pipe):
    pipe.vae = another_vae(5)
    return "vae"


def fused(pipe):
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return "unet"


def inverted(pipe):
    state = {"<my-cat>": torch.full((pipe.text_encoder.config.hidden_size,), 0.3)}
    pipe.load_textual_inversion(state, token="<my-cat>")
    return "text_encoder"


@pytest.mark.parametrize("change", [in_place, fused, inverted])
def test_weights_that_no_folder_holds_are_said(folders, change):
    pipe = folders("sd")
    assert "had other weights" not in drawn(pipe)[1]
    part = change(pipe)
    assert f"# Its {part} had other weights than that folder holds" in drawn(pipe)[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_another_precision_are_the_same_weights(folders, dtype):
    pipe = folders("sdxl").to(dtype)
    for wide in (dtype, torch.float32):
        assert "other weights" not in code(pipe.to(wide), {"prompt": "", "seed": 1})


def test_a_fast_pocket_has_its_own_weights():
    for options in ({"speed": "fast"}, {"turbo": True, "speed": "fast"}):
        pipe = load("pocket", "cpu", "float32", **options)
        assert "other weights" not in code(pipe, {"prompt": "a red circle", "seed": 1}), options


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

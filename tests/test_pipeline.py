"""load, schedulers and settings, on a tiny real pipeline that is saved, damaged and loaded again."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdwidgets.analysis.autoencoder import encode
from sdwidgets.generation.schedulers import SCHEDULERS, make_scheduler, schedulers_for
from sdwidgets.generation.validation import SettingsError, check_settings
from sdwidgets.latents import decode
from sdwidgets.loading import memory
from sdwidgets.loading.devices import auto_dtype, choose_device, choose_dtype
from sdwidgets.loading.errors import DeviceError, LoadError, NoNetworkError, UnknownModelError, WeightsError
from sdwidgets.loading.pipeline import load
from sdwidgets.pocket.world.datasheet import FULL
from sdwidgets.pocket.world.scenes import make_scene, render
from tests import tiny

# diffusers' schedulers hand tensors to NumPy in a way that NumPy 2 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

CPU = {"device": "cpu", "dtype": "float32"}
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny pipeline as `save_pretrained` leaves it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    tiny.pipeline("sd").save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """The same, for damaging."""
    return shutil.copytree(saved, tmp_path / "copy")


# ---- load ----------------------------------------------------------------------------------------------------


def test_a_folder_gives_the_stock_pipeline_with_the_same_picture(saved, capsys):
    pipe = load(saved, **CPU)
    line = capsys.readouterr().out
    assert type(pipe) is diffusers.StableDiffusionPipeline
    assert pipe.device == torch.device("cpu") and pipe.unet.dtype == torch.float32
    assert line.count("\n") == 1 and "tiny-sd" in line and "cpu" in line and "float32" in line
    pipe.set_progress_bar_config(disable=True)
    assert np.allclose(tiny.run(pipe), tiny.run(tiny.pipeline("sd")), atol=1e-5)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_other_families_load_too(family, tmp_path):
    tiny.pipeline(family).save_pretrained(tmp_path / family)
    pipe = load(str(tmp_path / family), **CPU)
    assert type(pipe) is type(tiny.pipeline(family))
    pipe.set_progress_bar_config(disable=True)
    # Not equal to the last bit: where memory happens to lie can choose another kernel on some CPUs.
    assert np.allclose(tiny.run(pipe, steps=1), tiny.run(tiny.pipeline(family), steps=1), atol=1e-5)


def test_pocket_loads(capsys):
    pipe = load("pocket", **CPU)
    assert type(pipe) is diffusers.StableDiffusionPipeline
    assert capsys.readouterr().out.startswith("pocket: ")
    assert pipe.unet.config.sample_size * pipe.vae_scale_factor == 128


def test_turbo_is_the_model_with_its_lora_in_its_weights_and_four_steps_of_lcm(capsys):
    settings = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "latent"}
    turbo, pipe = load("pocket", turbo=True, **CPU), load("pocket", **CPU)
    assert "turbo: four steps without guidance" in capsys.readouterr().out
    assert type(turbo.scheduler) is diffusers.LCMScheduler and not hasattr(turbo.unet, "peft_config")
    draw = lambda pipe: pipe("a red circle", generator=tiny.generator(), **settings).images
    for each in (turbo, pipe):
        each.set_progress_bar_config(disable=True)
    pipe.scheduler = turbo.scheduler
    bare = draw(pipe)
    pipe.load_lora_weights(f"{pipe.name_or_path}/extras/turbo")
    fused, beside = draw(turbo), draw(pipe)
    assert torch.allclose(fused, beside, atol=1e-3) and not torch.allclose(fused, bare, atol=0.1)


@pytest.mark.slow
def test_turbo_loads_with_hugging_face_offline():
    """diffusers 0.39, the oldest that is allowed, then wants the name of the LoRA's file; later ones find it."""
    program = "import sdwidgets; sdwidgets.load('pocket', 'cpu', turbo=True)"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "turbo: four steps" in done.stdout, done.stderr


def test_turbo_decodes_with_the_small_decoder_nearly_as_with_the_whole_one(capsys):
    turbo, pipe = load("pocket", turbo=True, **CPU), load("pocket", **CPU)
    assert "four steps without guidance, a small decoder" in capsys.readouterr().out
    assert type(turbo.vae) is diffusers.AsymmetricAutoencoderKL and type(pipe.vae) is diffusers.AutoencoderKL
    assert turbo.vae_scale_factor == pipe.vae_scale_factor
    turbo.set_progress_bar_config(disable=True)
    latents = [
        turbo(
            prompt, num_inference_steps=4, guidance_scale=1.0, generator=tiny.generator(), output_type="latent"
        ).images.numpy()
        for prompt in ("a red circle", "two cats on a blue background", "a rocket")
    ]
    theirs, ours = (decode(each, np.concatenate(latents)).astype(float) for each in (pipe, turbo))
    decibels = 10 * np.log10(255**2 / ((theirs - ours) ** 2).mean((1, 2, 3)))
    assert (decibels > 32).all(), decibels


def test_a_turbo_pipeline_starts_from_pictures_and_is_saved(tmp_path):
    turbo = load("pocket", turbo=True, **CPU)
    turbo.set_progress_bar_config(disable=True)
    scene = np.asarray(render(make_scene(FULL, 0)))
    again = decode(turbo, encode(turbo, scene))[0]
    assert abs(again.astype(int) - scene).mean() < 6, "encoder and decoder belong together"
    made = diffusers.AutoPipelineForImage2Image.from_pipe(turbo)
    picture = made(
        "a red circle", image=Image.fromarray(scene), strength=0.5, num_inference_steps=4, guidance_scale=1.0
    ).images[0]
    assert picture.size == (128, 128)
    turbo.save_pretrained(tmp_path / "turbo")
    saved = load(tmp_path / "turbo", **CPU)
    saved.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "np"}
    assert np.array_equal(*(p("a red circle", generator=tiny.generator(), **settings).images for p in (turbo, saved)))


def test_a_model_without_a_small_decoder_keeps_its_own_and_a_broken_one_is_a_sentence(tmp_path, capsys):
    pocket = Path(load("pocket", **CPU).name_or_path)
    shutil.copytree(
        pocket, tmp_path / "pocket", ignore=shutil.ignore_patterns("small-decoder", "clip", "adapter", "figures")
    )
    pipe = load(tmp_path / "pocket", turbo=True, **CPU)
    assert type(pipe.vae) is diffusers.AutoencoderKL and "small" not in capsys.readouterr().out.splitlines()[-1]
    (tmp_path / "pocket" / "extras" / "small-decoder").mkdir()
    with pytest.raises(WeightsError, match="small decoder in .*small-decoder does not load.*turbo=False") as caught:
        load(tmp_path / "pocket", turbo=True, **CPU)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_turbo_lora_says_so(saved):
    with pytest.raises(WeightsError, match="no turbo LoRA.*turbo=False.*sd-turbo"):
        load(saved, turbo=True, **CPU)


def test_a_turbo_lora_that_does_not_load_says_so_in_a_sentence(copy):
    (copy / "extras" / "turbo").mkdir(parents=True)
    with pytest.raises(WeightsError, match="The turbo LoRA does not load: .*turbo=False") as caught:
        load(copy, turbo=True, **CPU)
    assert "\n" not in str(caught.value)


def test_bfloat16_reaches_every_part(saved):
    pipe = load(saved, device="cpu", dtype="bf16")
    assert {m.dtype for m in pipe.components.values() if isinstance(m, torch.nn.Module)} == {torch.bfloat16}


def test_fp16_files_are_used_where_there_are_no_others(saved, tmp_path):
    tiny.pipeline("sd").save_pretrained(tmp_path / "half", variant="fp16")
    pipe = load(tmp_path / "half", **CPU)
    assert pipe.unet.dtype == torch.float32


def test_sharded_weights_load_and_a_lost_shard_is_named(tmp_path):
    folder = tmp_path / "shards"
    tiny.pipeline("sd").save_pretrained(folder, max_shard_size="200KB")
    shards = sorted(folder.glob("unet/*-of-*.safetensors"))
    assert len(shards) > 1
    load(folder, **CPU)
    shards[0].unlink()
    with pytest.raises(WeightsError, match=shards[0].name):
        load(folder, **CPU)


def test_a_folder_where_weights_belong_is_named(copy):
    (copy / UNET).unlink()
    (copy / UNET).mkdir()
    with pytest.raises(WeightsError, match="is no file, and a weights file belongs there"):
        load(copy, **CPU)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '"a word"', "{", ""], ids=["nested", "list", "word", "cut", "empty"]
)
@pytest.mark.parametrize(
    "name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"]
)
def test_json_that_is_no_object_is_damage(name, text, copy):
    """Of a scheduler's list diffusers says that the hub cannot be reached."""
    (copy / name).write_text(text)
    with pytest.raises(WeightsError, match="is damaged"):
        load(copy, **CPU)


@pytest.mark.parametrize("part, count", [("unet", "layers_per_block"), ("text_encoder", "num_hidden_layers")])
def test_a_part_that_would_take_for_ever_to_build_is_refused(part, count, copy):
    config = json.loads((copy / part / "config.json").read_text())
    (copy / part / "config.json").write_text(json.dumps(config | {count: 10**9}))
    with pytest.raises(WeightsError, match=f"says {count} = 1e\\+09, and no model has more than 1000"):
        load(copy, **CPU)


def test_weights_of_another_variant_alone_are_named_with_the_way_out(tmp_path):
    tiny.pipeline("sd").save_pretrained(tmp_path / "bf16", variant="bf16")
    with pytest.raises(WeightsError, match="the variant 'bf16' alone.*save it again without a variant"):
        load(tmp_path / "bf16", **CPU)


@pytest.mark.parametrize("name", ["pocket", None])
def test_a_package_that_does_not_import_is_named_and_not_the_model(name, copy, monkeypatch):
    """As on a machine where some package is broken and diffusers, which looks for it, cannot be imported."""

    def broken(*_, **__):
        try:
            raise ImportError("cannot import name 'x' from 'xformers'")
        except ImportError as error:
            raise RuntimeError("Failed to import diffusers.pipelines.stable_diffusion") from error

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", broken)
    with pytest.raises(
        LoadError, match="a Python package .* does not import: cannot import name 'x' from 'xformers'"
    ) as caught:
        load(name or copy, **CPU)
    assert not isinstance(caught.value, WeightsError) and "install sdwidgets again" not in str(caught.value)


def test_the_small_autoencoder_of_live_previews_encodes_and_decodes():
    pipe = tiny.pipeline("sd")
    pipe.vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    latents = encode(pipe, np.zeros((64, 48, 3), np.uint8))
    assert latents.shape == (1, 4, 8, 6) and decode(pipe, latents).shape == (1, 64, 48, 3)


def test_auto_precision_by_machine():
    assert auto_dtype("cuda", 9) == auto_dtype("cuda", 8) == torch.bfloat16
    assert auto_dtype("cuda", 7) == torch.float16  # a T4 says it can do bfloat16, through slow emulation
    assert auto_dtype("mps") == auto_dtype("cpu") == torch.float32
    assert auto_dtype("cpu", amx=True) == torch.bfloat16


def test_auto_device_is_one_that_works():
    device, _ = choose_device("auto")
    dtype, _ = choose_dtype("auto", device)
    assert torch.ones(2, device=device, dtype=dtype).sum().item() == 2


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "", 1.5, "xpu"])
def test_an_unknown_device_is_refused_with_what_is_there(saved, device):
    with pytest.raises(DeviceError, match="cpu"):
        load(saved, device=device)


@pytest.mark.parametrize("dtype", ["int8", torch.int32, "", None, 16, "float16"])
def test_an_unfit_precision_is_refused(saved, dtype):
    with pytest.raises(DeviceError, match="float32"):
        load(saved, device="cpu", dtype=dtype)


@pytest.mark.parametrize(
    "name, words",
    [
        ("pockett", "mean 'pocket'"),
        ("stable difusion", "Known are pocket"),
        ("", "named by text"),
        (None, "named by text"),
        (7, "named by text"),
        ("./no/such/folder", "no folder"),
        ("~/no-such-folder-of-mine", "no folder"),
        ("~nobody-of-this-name/model", "no folder"),
    ],
)
def test_an_unknown_name_is_refused_with_the_way_through(name, words):
    with pytest.raises(UnknownModelError, match=words):
        load(name, **CPU)


def test_a_file_or_a_part_is_not_a_model(saved, tmp_path):
    with pytest.raises(WeightsError, match="save_pretrained"):
        load(saved / UNET, **CPU)
    with pytest.raises(WeightsError, match="save_pretrained"):
        load(saved / "unet", **CPU)
    with pytest.raises(WeightsError, match="model_index.json is missing"):
        load(tmp_path, **CPU)
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04.")
    with pytest.raises(WeightsError, match="pickle"):
        load(tmp_path / "model.ckpt", **CPU)


def _edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def _index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "cut weights": (lambda f: _cut(f / UNET), "cut"),
    "empty weights": (lambda f: (f / UNET).write_bytes(b""), "cut"),
    "a web page in place of weights": (
        lambda f: (f / UNET).write_bytes(b"<html>login</html>" * 9),
        "not a safetensors",
    ),
    "no weights": (lambda f: (f / UNET).unlink(), "'unet' has no weights"),
    "no text weights": (lambda f: (f / TEXT).unlink(), "'text_encoder' has no weights"),
    "a lost tensor": (lambda f: _edit(f / UNET, lambda t: t.pop("conv_in.bias")), "conv_in.bias is missing"),
    "a lost text tensor": (
        lambda f: _edit(f / TEXT, lambda t: t.pop(next(k for k in t if "fc1.weight" in k))),
        "shape",
    ),
    "another shape": (lambda f: _edit(f / UNET, lambda t: t.update({"conv_in.bias": torch.zeros(3)})), "conv_in.bias"),
    "another model's weights": (lambda f: shutil.copy(f / UNET, f / TEXT), "text_encoder"),
    "foreign weights": (lambda f: save_file({"x": torch.zeros(2)}, f / UNET), "missing"),
    "foreign text weights": (lambda f: save_file({"x": torch.zeros(2)}, f / TEXT, {"format": "pt"}), "missing"),
    "a pickle": (lambda f: (f / UNET).rename(f / UNET.replace(".safetensors", ".bin")), "pickle"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "'tokenizer' is missing"),
    "a broken tokenizer": (lambda f: [p.write_text("{") for p in f.glob("tokenizer/*")], "is damaged"),
    "a foreign tokenizer": (lambda f: [p.write_text("{}") for p in f.glob("tokenizer/*")], "does not load"),
    "a broken index": (lambda f: (f / "model_index.json").write_text("{"), "damaged"),
    "no index at all": (lambda f: (f / "model_index.json").write_text("[]"), "damaged"),
    "own pipeline code": (lambda f: _index(f, _class_name=["mine", "Pipe"]), "no code is run"),
    "own part code": (lambda f: _index(f, unet=["mine", "UNet"]), "no code is run"),
    "a part of Python itself": (lambda f: _index(f, unet=["os", "system"]), "no code is run"),
    "a future pipeline": (lambda f: _index(f, _class_name="FuturePipeline"), "newer diffusers"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_in_one_sentence(copy, damage, capsys):
    harm, words = DAMAGE[damage]
    harm(copy)
    with pytest.raises(WeightsError, match=words) as caught:
        load(copy, **CPU)
    assert 'load("pocket")' in str(caught.value) and "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_no_code_from_a_model_is_run(copy):
    trap = copy / "executed"
    (copy / "unet" / "mine.py").write_text(f"open({str(trap)!r}, 'w')\nclass UNet: pass\n")
    (copy / "mine.py").write_text(f"open({str(trap)!r}, 'w')\nclass Pipe: pass\n")
    _index(copy, unet=["mine", "UNet"], _class_name=["mine", "Pipe"])
    with pytest.raises(LoadError):
        load(copy, **CPU)
    assert not trap.exists()


def test_a_hub_id_without_a_network_points_to_pocket(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NoNetworkError, match=r'HF_HUB_OFFLINE.*load\("pocket"\)'):
        load("nobody/nothing", **CPU)


# ---- schedulers ----------------------------------------------------------------------------------------------


def _all_schedulers():
    for family in ("sd", "sdxl", "sd3", "flux"):
        for label in schedulers_for(tiny.pipeline(family)):
            yield family, label


@pytest.mark.parametrize("family, label", list(_all_schedulers()))
def test_every_offer_draws_and_tells_whether_it_is_random(family, label):
    pipe = tiny.pipeline(family)
    entry = SCHEDULERS[label]
    start = tiny.run(pipe, steps=1, output_type="latent")
    latents = torch.randn(start.shape, generator=tiny.generator(7))

    pipe.scheduler = make_scheduler(label, pipe)

    def draw(seed, steps=4):
        return tiny.run(pipe, seed=seed, steps=steps, latents=latents.clone(), output_type="latent")

    first = draw(1)
    assert type(pipe.scheduler).__name__ == entry.class_name
    assert torch.isfinite(first).all() and first.std() > 0
    assert torch.equal(first, draw(1)), "the same seed, the same picture"
    assert torch.equal(first, draw(2)) != entry.stochastic, "fresh noise is drawn exactly where it is said"
    assert torch.isfinite(draw(1, steps=1)).all()
    pipe.scheduler.set_timesteps(4) if family != "flux" else draw(1)
    calls = len(pipe.scheduler.timesteps)
    assert calls == (5 if label == "PNDM" else 4 * entry.calls_per_step - (entry.calls_per_step - 1))


def test_offers_fit_the_model():
    assert all(s.flow for s in schedulers_for(tiny.pipeline("sd3")).values())
    assert list(schedulers_for(tiny.pipeline("flux"))) == ["Flow Euler"]
    assert not any(s.flow for s in schedulers_for(tiny.pipeline("sdxl")).values())
    with pytest.raises(ValueError, match="does not fit"):
        make_scheduler("DDIM", tiny.pipeline("sd3"))
    with pytest.raises(ValueError, match="does not fit"):
        make_scheduler("Flow Euler", tiny.pipeline("sd"))


@pytest.mark.parametrize("label", [k for k, s in SCHEDULERS.items() if not s.flow])
def test_what_the_model_was_trained_with_is_kept(label):
    pipe = tiny.pipeline("sd", scheduler=tiny.sd_scheduler(prediction_type="v_prediction"))
    pipe.scheduler = make_scheduler(label, pipe)
    config = pipe.scheduler.config
    assert config.prediction_type == "v_prediction"
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.012, "scaled_linear")
    assert not config.get("clip_sample", False), "latents are not pixels"


def test_default_betas_are_kept_too():
    # LCM's own defaults are Stable Diffusion's betas, and a model may have been trained with DDPM's.
    pipe = tiny.pipeline("sd", scheduler=diffusers.DDPMScheduler())
    assert torch.equal(make_scheduler("LCM", pipe).betas, diffusers.DDPMScheduler().betas)


def test_a_choice_does_not_leak_into_the_next_scheduler():
    pipe = tiny.pipeline("sd")
    plain = make_scheduler("DPM++ 2M", pipe).config
    first = dict(pipe.scheduler.config)
    for label in ("DPM++ 2M Karras", "DPM++ 2M SDE", "PNDM", "LCM", "Heun"):
        pipe.scheduler = make_scheduler(label, pipe)
    after = make_scheduler("DPM++ 2M", pipe).config
    assert not after.use_karras_sigmas and after.algorithm_type == "dpmsolver++"
    assert {k: after[k] for k in plain if k in first} == {k: plain[k] for k in plain if k in first}


@pytest.mark.parametrize("typed, label", [("ddim", "DDIM"), (" dpm++ 2m karras ", "DPM++ 2M Karras")])
def test_a_scheduler_is_found_in_any_case_or_by_class(typed, label):
    pipe = tiny.pipeline("sd")
    assert type(make_scheduler(typed, pipe)).__name__ == SCHEDULERS[label].class_name
    assert type(make_scheduler("EulerDiscreteScheduler", pipe)).__name__ == "EulerDiscreteScheduler"


@pytest.mark.parametrize("name", ["Eulr", "dmp++ 2m", "", 3, None])
def test_an_unknown_scheduler_names_the_offers(name):
    with pytest.raises(ValueError, match="On offer: DDIM"):
        make_scheduler(name, tiny.pipeline("sd"))


def test_the_closest_scheduler_is_suggested():
    with pytest.raises(ValueError, match="mean 'Euler'"):
        make_scheduler("Eulr", tiny.pipeline("sd"))


# ---- settings ------------------------------------------------------------------------------------------------

BAD = [
    *(("num_inference_steps", v) for v in (0, -1, 10**6, "ten", 2.5, True, math.nan, "20", [20])),
    *(("guidance_scale", v) for v in (math.nan, math.inf, -math.inf, -0.1, 1e9, "x", "7.5", True, [7], 10**400)),
    *(("height", v) for v in (0, -8, 63, 10**9, 64.0, "64", True)),
    *(("width", v) for v in (0, 65, 2**70, "wide")),
    *(("seed", v) for v in (-1, 2**63, "lucky", 1.5, True, math.inf)),
    *(("prompt", v) for v in (None, 3, b"cat", ["a cat"], "\ud800", "x" * 100_001)),
    *(("negative_prompt", v) for v in (3, ["x"], "\udfff")),
    *(("scheduler", v) for v in ("Eulr", "Flow Euler", 3, "")),
]


@pytest.mark.parametrize("field, value", BAD, ids=[f"{f}={str(v)[:12]!r}" for f, v in BAD])
def test_bad_settings_get_one_sentence_at_their_control(field, value):
    pipe = tiny.pipeline("sd")
    settings = {"prompt": "a cat", field: value}
    with pytest.raises(SettingsError) as caught:
        check_settings(pipe, **settings)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 350


GOOD = [
    {"prompt": "", "num_inference_steps": 1, "guidance_scale": 0},
    {"prompt": "a", "num_inference_steps": 1000, "guidance_scale": 50.0, "seed": 2**63 - 1},
    {"prompt": "قطة على خلفية حمراء", "seed": 0, "height": 8, "width": 64},
    {"prompt": "<script>alert(1)</script> 🐈‍⬛", "scheduler": "heun", "negative_prompt": ""},
]


@pytest.mark.parametrize("settings", GOOD, ids=lambda s: s["prompt"][:8] or "empty")
def test_unusual_settings_that_can_be_run_pass_and_run(settings):
    pipe = tiny.pipeline("sd")
    check_settings(pipe, **settings)
    if "scheduler" not in settings and settings.get("num_inference_steps", 1) == 1:
        small = {"height": 64, "width": 64} | {k: v for k, v in settings.items() if k != "seed"}
        small["num_inference_steps"] = 1
        pipe(**small, generator=tiny.generator(settings.get("seed", 0)), output_type="np")


def test_numpy_numbers_are_numbers():
    import numpy as np

    check_settings(
        tiny.pipeline("sd"),
        prompt="a cat",
        seed=np.int64(4),
        num_inference_steps=np.int32(4),
        guidance_scale=np.float32(4.5),
    )


def test_a_long_prompt_is_allowed_and_the_cut_is_told():
    pipe = tiny.pipeline("sd")
    notes = check_settings(pipe, prompt="cat " * 2500)
    assert [n.field for n in notes] == ["prompt"] and "reads 77" in notes[0].text
    assert check_settings(pipe, prompt="a cat") == []


def test_an_empty_prompt_is_explained_and_a_lost_negative_prompt_too():
    pipe = tiny.pipeline("sd")
    assert "unconditional" in check_settings(pipe, prompt="  ")[0].text
    (note,) = check_settings(pipe, prompt="a cat", negative_prompt="a dog", guidance_scale=1.0)
    assert note.field == "negative_prompt"


def test_flux_sizes_are_multiples_of_16():
    pipe = tiny.pipeline("flux")
    step = 2 * pipe.vae_scale_factor
    check_settings(pipe, prompt="a cat", height=4 * step, width=4 * step)
    with pytest.raises(SettingsError, match=f"multiple of {step}"):
        check_settings(pipe, prompt="a cat", height=4 * step + step // 2, width=4 * step)


def test_lcm_takes_at_most_its_teachers_steps():
    pipe = tiny.pipeline("sd")
    check_settings(pipe, prompt="a", num_inference_steps=50, scheduler="LCM")
    with pytest.raises(SettingsError, match="1 to 50"):
        check_settings(pipe, prompt="a", num_inference_steps=51, scheduler="LCM")
    pipe.scheduler = make_scheduler("LCM", pipe)
    with pytest.raises(SettingsError, match="1 to 50"):
        check_settings(pipe, prompt="a", num_inference_steps=51)


def test_a_picture_that_does_not_fit_into_memory_is_refused(monkeypatch):
    pipe = tiny.pipeline("sd")
    check_settings(pipe, prompt="a", height=512, width=512)
    need = memory.decode_bytes(pipe, 512, 512)
    monkeypatch.setattr(memory, "free_bytes", lambda device: need - 1)
    with pytest.raises(SettingsError, match="needs about"):
        check_settings(pipe, prompt="a", height=512, width=512)
    check_settings(pipe, prompt="a", height=512, width=504)

"""The latent lab: the view over arrays that are given, and what gathers them from autoencoders of four families."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sdwidgets import latents
from sdwidgets.analysis import autoencoder, denoiser
from sdwidgets.latents import CHANGES
from sdwidgets.widgets import latent_lab as view
from sdwidgets.widgets.latent_lab import LatentLab, latent_lab
from tests import tiny
from tests.test_replay import EVIL, unpack

H, W = tiny.SIZE["height"], tiny.SIZE["width"]


def pictures(n=2, height=H, width=W, seed=0) -> np.ndarray:
    """Smooth, different, and no two pixels of a row alike."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    rng = np.random.default_rng(seed)
    waves = [np.sin(rng.uniform(1, 9) * across + rng.uniform(1, 9) * down) for _ in range(3 * n)]
    return (127.5 * (np.stack(waves, -1).reshape(height, width, n, 3).transpose(2, 0, 1, 3) + 1)).astype(np.uint8)


def a_lab(two=True, channels=4, changes=("off", "alone"), **options) -> LatentLab:
    originals = pictures(2 if two else 1)
    z = np.random.default_rng(1).normal(size=(len(originals), channels, 8, 6)).astype(np.float32)
    changed = {name: pictures(channels, seed=len(name)) for name in changes}
    return LatentLab(originals, originals // 2 + 40, z, changed, pictures(5, seed=9) if two else None, **options)


# ---- the view -----------------------------------------------------------------------------------------------------


def test_it_tells_error_and_psnr_as_defined():
    shown = a_lab()
    off = shown.reconstructions[0].astype(float) - shown.originals[0]
    assert shown.error == pytest.approx(np.abs(off).mean(-1), abs=1e-4)
    assert shown.psnr == pytest.approx(10 * np.log10(255**2 / (off**2).mean()))
    assert shown.data["psnr"] == round(shown.psnr, 1) and shown.data["error_mean"] == round(
        float(np.abs(off).mean()), 1
    )
    same = LatentLab(pictures(1), pictures(1), np.ones((1, 4, 8, 6)))
    assert same.psnr == float("inf") and same.data["psnr"] is None


def test_latents_travel_within_half_a_unit_and_shapes_are_told():
    shown = a_lab(channels=16)
    for packed, z in zip(shown.data["latents"], shown.latents, strict=True):
        assert np.abs(unpack(packed) - z).max() <= packed["scale"] / 2 + 1e-6
    assert shown.data["shape"] == [16, 8, 6] and shown.data["pixels"] == [H, W, 3]
    assert shown.data["aspect"] == W / H


def test_numbers_say_how_far_a_picture_moved():
    shown = a_lab()
    moved = np.abs(shown.changed["off"][2].astype(float) - shown.reconstructions[0]).mean()
    assert shown.data["moved"]["off"][2] == pytest.approx(moved, abs=0.051)
    half = (shown.reconstructions[0].astype(float) + shown.reconstructions[1]) / 2
    assert shown.mixed_pixels()[2] == pytest.approx(half)
    assert shown.data["apart"][2] == pytest.approx(np.abs(shown.between[2] - half).mean(), abs=0.051)


def test_only_what_was_made_can_be_shown():
    assert a_lab().data["shows"] == ["there and back", "channels", "between"]
    alone = a_lab(two=False, changes=())
    assert alone.data["shows"] == ["there and back"] and alone.data["changes"] == ["as it is"]
    with pytest.raises(ValueError, match="show cannot be 'between' here; it can be: 'there and back'"):
        alone.set(show="between")


def test_set_takes_a_part_and_refuses_what_there_is_not():
    shown = a_lab(channel=3)
    assert shown.set(change="alone", wipe=1).state == {
        "show": "there and back",
        "channel": 3,
        "change": "alone",
        "wipe": 1.0,
        "place": 0.5,
    }
    for wrong, told in [
        ({"channel": 4}, "0 to 3"),
        ({"change": "double"}, "'as it is', 'off', 'alone'"),
        ({"wipe": 1.5}, "from 0 to 1, not 1.5"),
    ]:
        with pytest.raises(ValueError, match=told):
            shown.set(**wrong)
    with pytest.raises(TypeError, match="no 'zoom' to set; it has: show, channel"):
        shown.set(zoom=2)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"originals": pictures(3), "reconstructions": pictures(3)}, "3 originals .* do not fit"),
        ({"originals": pictures(2) / 255}, "originals are float64"),
        ({"reconstructions": pictures(2, width=W + 8)}, r"reconstructions are uint8 of shape \(2, 64, 56, 3\); give"),
        ({"latents": np.zeros((1, 4, 8, 6))}, "one or two pictures"),
        ({"changed": {"louder": pictures(4)}}, "a channel cannot be 'louder'; it can be: off, half"),
        ({"changed": {"off": pictures(3)}}, "changed"),
        ({"between": None}, "between belongs to two pictures"),
        ({"between": pictures(1)}, "two ends"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, told):
    good = {
        "originals": pictures(2),
        "reconstructions": pictures(2),
        "latents": np.zeros((2, 4, 8, 6)),
        "between": pictures(3),
    }
    with pytest.raises(ValueError, match=told):
        LatentLab(**good | arrays)


def test_a_name_never_becomes_html():
    page = a_lab(names=(EVIL, "B")).to_html()
    assert "<img src=x" not in page and page.count("</script>") == 1


def test_the_page_stays_small_whatever_the_pictures():
    noise = np.random.default_rng(0).integers(0, 256, (2, 512, 512, 3)).astype(np.uint8)
    changed = {name: np.repeat(noise[:1], 16, 0) for name in ("off", "alone")}
    shown = LatentLab(
        noise, noise, np.random.default_rng(0).normal(size=(2, 16, 64, 64)), changed, np.repeat(noise, 5, 0)
    )
    assert len(shown.to_html()) < 1_000_000
    assert len(shown.data["latents"][0]["data"]) <= view.MAX_LATENTS


def test_the_still_shows_what_there_is():
    both, one = a_lab().static_image(), a_lab(two=False, changes=()).static_image()
    assert both.height > 2.5 * one.height and len(np.unique(np.asarray(both))) > 50


def test_it_is_a_widget_too():
    shown = a_lab()
    widget = shown.widget()
    assert json.loads(widget.data)["names"] == ["A", "B"] and "class LatentLab" in widget._esm
    shown.set(show="channels", channel=1)
    assert widget.state["channel"] == 1
    widget.state = {**widget.state, "place": 0.25}  # as the reader moves the slider
    assert shown.state["place"] == 0.25


def test_the_view_needs_no_torch():
    code = "import sys, sdwidgets; sdwidgets.LatentLab; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- gathering ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_the_lab_of_every_family_shows_what_its_autoencoder_does(family):
    pipe = tiny.pipeline(family)
    a, b = pictures()
    shown = latent_lab(pipe, a, Image.fromarray(b), places=3, names=("a", "b"))
    channels = pipe.vae.config.latent_channels
    assert shown.latents.shape == (2, channels, H // 8, W // 8)
    assert np.array_equal(shown.originals, [a, b])
    assert np.array_equal(shown.reconstructions, latents.decode(pipe, shown.latents))
    assert set(shown.changed) == (set(CHANGES) if channels == 4 else {"off", "alone"})
    without = shown.latents[0].copy()
    without[1] = 0
    near(shown.changed["off"][1], latents.decode(pipe, without[None])[0])
    only = np.zeros_like(without)
    only[1] = shown.latents[0, 1]
    near(shown.changed["alone"][1], latents.decode(pipe, only[None])[0])
    near(shown.between[0], shown.reconstructions[0])
    near(shown.between[1], latents.decode(pipe, shown.latents.mean(0)[None])[0])
    near(shown.between[2], shown.reconstructions[1])


def near(picture, other):
    """Batches of other sizes round differently, by one level at the most."""
    assert np.abs(picture.astype(int) - other).max() <= 1


def test_every_change_does_what_it_says():
    z = np.random.default_rng(0).normal(size=(4, 2, 2)).astype(np.float32)
    for change, factor in [("off", 0), ("half", 0.5), ("double", 2), ("turned round", -1)]:
        copies = latents.changed_channels(z, change)
        for k in range(4):
            assert np.array_equal(copies[k, k], factor * z[k])
            assert np.array_equal(np.delete(copies[k], k, 0), np.delete(z, k, 0))
    alone = latents.changed_channels(z, "alone")
    assert np.array_equal(alone.sum(1), z)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_encode_is_the_mean_in_the_schedulers_scale(family):
    pipe = tiny.pipeline(family)
    batch = pictures(3)
    with torch.no_grad():
        rgb = torch.from_numpy(batch).permute(0, 3, 1, 2) / 127.5 - 1
        mean = pipe.vae.encode(rgb).latent_dist.mean
    config = pipe.vae.config
    expected = (mean - (config.shift_factor or 0)) * config.scaling_factor
    assert autoencoder.encode(pipe, batch) == pytest.approx(expected.numpy(), abs=1e-5)
    assert autoencoder.encode(pipe, batch, batch_size=1) == pytest.approx(expected.numpy(), abs=1e-5)
    assert autoencoder.encode(pipe, Image.fromarray(batch[0])).shape == (1, config.latent_channels, H // 8, W // 8)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "no picture"),
        (np.zeros((64, 48)), "a picture is PIL's"),
        (np.zeros((64, 48, 3)), "not float64"),
        (np.zeros((64, 50, 3), np.uint8), r"50 x 64 pixels does not fit.*resize\(\(48, 64\)\)"),
        ([np.zeros((64, 48, 3), np.uint8), np.zeros((48, 64, 3), np.uint8)], "differ in size: 64 x 48, 48 x 64"),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        autoencoder.encode(tiny.pipeline("sd"), given)


def test_the_lab_refuses_what_it_cannot_do():
    pipe, (a, b) = tiny.pipeline("sd"), pictures()
    with pytest.raises(ValueError, match="a channel cannot be 'louder'"):
        latent_lab(pipe, a, changes=["louder"])
    with pytest.raises(ValueError, match="at least 2, not 1"):
        latent_lab(pipe, a, b, places=1)
    with pytest.raises(ValueError, match="one picture, or two"):
        latent_lab(pipe, pictures(2))


# ---- what the denoiser is handed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_conditioning_asks_as_the_pipeline_asks(family):
    pipe = tiny.pipeline(family)
    asked = []

    def listen(module, args, kwargs):
        asked.append((args[0].clone(), args[1].clone(), kwargs))

    hook = pipe.unet.register_forward_pre_hook(listen, with_kwargs=True)
    tiny.run(pipe, steps=2, guidance_scale=4.0)
    hook.remove()
    given = denoiser.conditioning(pipe, tiny.PROMPT, **tiny.SIZE)
    x, t, kwargs = asked[1]
    with torch.no_grad():
        assert torch.equal(pipe.unet(x, t, **given).sample, pipe.unet(x, t, **kwargs)[0])
    assert given["encoder_hidden_states"].shape[0] == 2 and not pipe.unet._forward_pre_hooks


def test_conditioning_leaves_chance_alone_and_takes_settings():
    pipe = tiny.pipeline("sd")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = denoiser.conditioning(pipe, tiny.PROMPT, guidance_scale=1.0, **tiny.SIZE)
    assert one["encoder_hidden_states"].shape[0] == 1
    assert torch.equal(torch.get_rng_state(), before)
    other = denoiser.conditioning(pipe, tiny.PROMPT, negative_prompt="rain", **tiny.SIZE)["encoder_hidden_states"]
    assert torch.equal(other[0], denoiser.conditioning(pipe, "rain", **tiny.SIZE)["encoder_hidden_states"][1])
    with pytest.raises(
        ValueError, match="divisible by 8"
    ):  # the pipeline's own errors come through, and no hook stays
        denoiser.conditioning(pipe, tiny.PROMPT, height=63, width=48)
    assert not pipe.unet._forward_pre_hooks


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_conditioning_of_transformers_holds_no_latents(family):
    given = denoiser.conditioning(tiny.pipeline(family), tiny.PROMPT, **tiny.SIZE)
    assert {"encoder_hidden_states", "pooled_projections"} <= set(given)
    assert not {"hidden_states", "timestep", "return_dict"} & set(given)


@pytest.mark.parametrize(
    ("family", "pooled"),
    [("sd", None), ("sdxl", ("added_cond_kwargs", "text_embeds")), ("sd3", ("pooled_projections",))],
)
def test_said_changes_all_that_was_read_and_nothing_else(family, pooled):
    given = denoiser.conditioning(tiny.pipeline(family), tiny.PROMPT, negative_prompt="rain", **tiny.SIZE)
    muted = denoiser.map_text_embeddings(given, torch.zeros_like)
    assert given["encoder_hidden_states"].any() and not muted["encoder_hidden_states"].any()
    if pooled:
        before, after = given, muted
        for name in pooled:
            before, after = before[name], after[name]
        assert before.any() and not after.any()
    if family == "sdxl":
        assert torch.equal(muted["added_cond_kwargs"]["time_ids"], given["added_cond_kwargs"]["time_ids"])
    assert set(muted) == set(given)


def test_conditioning_needs_a_denoiser():
    with pytest.raises(TypeError, match="neither a unet nor a transformer"):
        denoiser.conditioning(object(), "a cat")

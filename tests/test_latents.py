"""Latents to pictures, against the pipeline's own pictures and against known answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sdwidgets import latents
from sdwidgets.recording import record
from sdwidgets.trace import Trace
from tests import tiny

SHORT = {"sd": {}, "sdxl": {}, "sd3": {"max_sequence_length": 16}, "flux": {"max_sequence_length": 16}}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- predicted x0


@pytest.mark.parametrize("process", ["vp", "ve"])
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_x0_is_found_again_from_every_prediction(process, sigma):
    x0, n = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    alpha = (1 + sigma**2) ** -0.5
    b = (1 - alpha**2) ** 0.5
    x_t = alpha * x0 + b * n if process == "vp" else x0 + sigma * n
    predictions = {"epsilon": n, "v_prediction": alpha * n - b * x0, "sample": x0}
    for prediction_type, output in predictions.items():
        found = latents.predicted_original(x_t, output, alpha, sigma, prediction_type, process)
        np.testing.assert_allclose(found, x0, atol=2e-5)
        assert found.dtype == np.float32


def test_x0_of_a_flow_and_of_torch():
    x0, n = torch.from_numpy(noise(1, 4, 8, 8)), torch.from_numpy(noise(1, 4, 8, 8, seed=1))
    x_t = 0.3 * x0 + 0.7 * n
    found = latents.predicted_original(x_t, n - x0, 0.3, 0.7, "flow_prediction", "flow")
    torch.testing.assert_close(found, x0)


def test_x0_at_zero_terminal_snr():
    x_t, v = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    np.testing.assert_array_equal(latents.predicted_original(x_t, v, 0.0, np.inf, "v_prediction"), -v)


# --- linear previews


def test_published_factors():
    assert {name: len(rows) - 1 for name, rows in latents.LINEAR_FACTORS.items()} == {
        "sd": 4,
        "sdxl": 4,
        "sd3": 16,
        "flux": 16,
    }
    for rows in latents.LINEAR_FACTORS.values():
        assert rows.shape[1] == 3 and rows.dtype == np.float32 and not rows[-1].any()
        # Every family's latents have a spread of about one, so colours must stay in [-1, 1] without all being gray.
        spread = np.linalg.norm(rows[:-1], axis=0)
        assert (spread > 0.1).all() and (spread < 1).all()


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_factors_by_family(family):
    pipe = tiny.pipeline(family)
    np.testing.assert_array_equal(latents.factors_for(pipe), latents.LINEAR_FACTORS[family])
    with record(pipe) as trace:
        tiny.run(pipe, steps=1, **SHORT[family])
    assert latents.linear_preview(trace.pred_original, trace.preview_factors).shape == (1, 1, 8, 6, 3)


def test_factors_of_the_models_own_folder(tmp_path):
    pipe = tiny.pipeline("sd")
    pipe.register_to_config(_name_or_path=str(tmp_path))
    own = noise(5, 3)
    (tmp_path / "preview.json").write_text(json.dumps({"factors": own.tolist()}))
    np.testing.assert_array_equal(latents.factors_for(pipe), own)


def test_unknown_vae_has_no_factors():
    assert latents.factors_for(tiny.pipeline("sd", vae=tiny._vae(4, 0.5))) is None


def test_linear_preview_by_hand():
    factors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, -1], [0, 0, 0.5]], np.float32)
    z = np.zeros((4, 1, 3), np.float32)
    z[0, 0], z[1, 0], z[3, 0] = [-1, 0, np.nan], [-9, 9, 0], [0.5, 1.5, -0.5]
    expected = [[[0, 0, 128], [128, 255, 0], [128, 128, 128]]]  # a cell that is not a number is gray
    np.testing.assert_array_equal(latents.linear_preview(z, factors), expected)
    np.testing.assert_array_equal(latents.linear_preview(z[None, None], factors)[0, 0], expected)


def test_fit_finds_a_linear_decoder():
    factors, z = noise(5, 3) / 4, noise(3, 4, 8, 6)
    cells = latents.linear_preview(z, factors)
    images = cells.repeat(8, 1).repeat(8, 2)  # each cell a square of 8 x 8 pixels
    fitted = latents.fit_linear_preview(z, images)
    inside = (cells > 0) & (cells < 255)
    worst = np.abs(latents.linear_preview(z, fitted).astype(int) - cells)[inside]
    assert fitted.shape == (5, 3) and np.median(worst) <= 3
    small = latents.linear_preview(z / 8, factors).repeat(8, 1).repeat(8, 2)  # nothing clipped: found exactly
    np.testing.assert_allclose(latents.fit_linear_preview(z / 8, small), factors, atol=0.01)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"latents of shape \(3, 8, 8\) and factors of shape \(5, 3\)"):
        latents.linear_preview(noise(3, 8, 8), latents.LINEAR_FACTORS["sd"])
    with pytest.raises(ValueError, match="whole multiple"):
        latents.fit_linear_preview(noise(2, 4, 8, 8), np.zeros((2, 60, 64, 3), np.uint8))


# --- the VAE


def assert_same_picture(decoded: np.ndarray, images: np.ndarray):
    """To one level of 255 in one value of a thousand: to the VAE's scale and back rounds the last bit of a float32."""
    difference = np.abs(decoded.astype(int) - (images * 255).round())
    assert decoded.dtype == np.uint8 and difference.max() <= 1 and difference.mean() < 1e-3


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_decode_is_the_pipelines(family):
    pipe = tiny.pipeline(family)
    with record(pipe) as trace:
        images = tiny.run(pipe, **SHORT[family])
    assert_same_picture(latents.decode(pipe, trace.final_latents), images)
    previews = latents.decode_previews(trace, pipe)
    assert previews is trace.previews and previews.shape == (3, 64, 48, 3) and previews.dtype == np.uint8
    alone = latents.decode(pipe, trace[1].pred_original)[0]
    assert np.abs(previews[1].astype(int) - alone).max() <= 1  # another batch size rounds otherwise


def test_decode_with_mean_and_spread():
    """As SDXL's pipeline does for a VAE whose channels were normalised one by one."""
    pipe = tiny.pipeline("sdxl", vae=tiny._vae(4, 0.5, latents_mean=[0.1, -0.2, 0.3, 0.4], latents_std=[1, 2, 3, 4]))
    with record(pipe) as trace:
        images = tiny.run(pipe)
    np.testing.assert_allclose(latents.to_vae(pipe.vae, np.ones((1, 4, 1, 1)))[0, :, 0, 0], [2.1, 3.8, 6.3, 8.4])
    assert_same_picture(latents.decode(pipe, trace.final_latents), images)


def test_float16_vae_that_overflows_is_upcast_and_put_back():
    vae = tiny._vae(4, 0.13025, force_upcast=True).half()
    pipe = tiny.pipeline("sdxl", vae=vae)
    seen = []
    handle = vae.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    try:
        assert latents.decode(pipe, noise(1, 4, 8, 6)).shape == (1, 64, 48, 3)
    finally:
        handle.remove()
    assert seen == [torch.float32] and vae.dtype == torch.float16


def test_previews_of_nothing():
    with pytest.raises(ValueError, match="no steps"):
        latents.decode_previews(Trace(), tiny.pipeline("sd"))


def test_unpack_is_fluxs():
    cls = type(tiny.pipeline("flux"))
    x = torch.arange(2 * 16 * 8 * 6, dtype=torch.float32).reshape(2, 16, 8, 6)
    packed = cls._pack_latents(x, 2, 16, 8, 6)
    np.testing.assert_array_equal(latents.unpack(packed.numpy(), 8, 6), x.numpy())

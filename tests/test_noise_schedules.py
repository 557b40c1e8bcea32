"""Noise schedules against diffusers' own numbers; the exact denoiser against Bayes' rule done by sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from sdwidgets.analysis import noise_schedules

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
THEIRS = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled linear": SD,
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}


@pytest.mark.parametrize("label", THEIRS)
def test_schedules_are_diffusers_own(label):
    ours, theirs = noise_schedules.schedule(label), DDPMScheduler(**THEIRS[label]).alphas_cumprod.numpy()
    assert np.allclose(ours.signal**2, theirs, atol=2e-6)
    assert np.allclose(ours.signal**2 + ours.noise**2, 1)
    assert ours.kind == "vp" and ours.sentence
    assert np.allclose(noise_schedules.of_scheduler(DDIMScheduler(**THEIRS[label])).signal, ours.signal, atol=2e-6)


def test_zero_snr_is_diffusers_own_and_ends_in_pure_noise():
    theirs = DDIMScheduler(**SD, rescale_betas_zero_snr=True).alphas_cumprod.sqrt().numpy()
    ours = noise_schedules.zero_snr()
    assert np.allclose(ours.signal, theirs, atol=2e-5)
    assert ours.signal[-1] == 0 and ours.snr_db[-1] == -np.inf
    assert np.isclose(ours.signal[0], noise_schedules.scaled_linear().signal[0])


def test_flow_is_a_straight_line_over_the_ticks_of_diffusers_scheduler():
    ours = noise_schedules.flow()
    theirs = FlowMatchEulerDiscreteScheduler().sigmas.numpy()[::-1]
    assert np.allclose(ours.noise, theirs, atol=1e-6) and np.allclose(ours.signal + ours.noise, 1)
    assert ours.kind == "flow"


def test_decibels_and_crossing():
    schedule = noise_schedules.scaled_linear()
    t = schedule.timestep_at_snr()
    assert schedule.snr_db[t] <= 0 < schedule.snr_db[t - 1]
    ratio = schedule.signal[t] ** 2 / schedule.noise[t] ** 2
    assert np.isclose(schedule.snr_db[t], 10 * np.log10(ratio))
    with pytest.raises(ValueError, match=r"never falls to -60 dB; its lowest is -23\.3"):
        schedule.timestep_at_snr(-60)


@pytest.mark.parametrize("timesteps", [10, 50])
def test_schedules_of_other_lengths(timesteps):
    for make in (noise_schedules.linear, noise_schedules.scaled_linear, noise_schedules.cosine, noise_schedules.flow):
        schedule = make(timesteps)
        assert len(schedule.signal) == timesteps and (np.diff(schedule.signal) < 0).all()


def test_bad_schedules_get_a_sentence():
    with pytest.raises(ValueError, match="there are: linear, scaled linear, cosine, zero SNR, flow"):
        noise_schedules.schedule("cosinus")
    with pytest.raises(ValueError, match="betas are one row"):
        noise_schedules.from_betas(np.array([0.1, 1.5]), "wrong")
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no alphas_cumprod"):
        noise_schedules.of_scheduler(FlowMatchEulerDiscreteScheduler())


def test_the_exact_denoiser_is_the_mean_over_all_pictures_that_could_be_meant():
    """By force: noise each picture a million times in one dimension, keep what falls near x, and take the mean."""
    data, a, b, x = np.array([[-1.0], [0.5], [2.0]]), 0.7, 0.6, 0.4
    rng = np.random.default_rng(0)
    drawn = rng.integers(3, size=1_000_000)
    noisy = a * data[drawn, 0] + b * rng.normal(size=drawn.size)
    near = np.abs(noisy - x) < 0.02
    found, weights = noise_schedules.ideal_denoiser(np.array([[x]]), a, b, data)
    shares = np.bincount(drawn[near], minlength=3) / near.sum()
    assert np.allclose(weights[0], shares, atol=0.02)
    assert np.isclose(found[0, 0], data[drawn[near], 0].mean(), atol=0.02)


def test_the_exact_denoiser_finds_a_picture_and_blends_pure_noise():
    data = np.random.default_rng(0).normal(size=(5, 4, 8, 8))
    clear = 0.99 * data + 0.1 * np.random.default_rng(1).normal(size=data.shape)
    found, weights = noise_schedules.ideal_denoiser(clear, 0.99, 0.1, data)
    assert np.allclose(found, data, atol=1e-6) and np.allclose(weights, np.eye(5), atol=1e-6)
    found, weights = noise_schedules.ideal_denoiser(clear, 0.0, 1.0, data)
    assert np.allclose(weights, 0.2) and np.allclose(found[0], data.mean(0))


def test_the_exact_denoiser_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        noise_schedules.ideal_denoiser(np.zeros((1, 4, 8, 8)), 0.5, 0.5, np.zeros((3, 4, 8, 6)))
    with pytest.raises(ValueError, match="noise must be above 0"):
        noise_schedules.ideal_denoiser(np.zeros((1, 4)), 1.0, 0.0, np.zeros((3, 4)))


def test_the_noising_line_is_add_noise():
    x0, eps = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    schedule = noise_schedules.scaled_linear()
    for t in (0, 400, 999):
        theirs = DDIMScheduler(**SD).add_noise(x0, eps, torch.tensor([t]))
        assert np.allclose(schedule.signal[t] * x0.numpy() + schedule.noise[t] * eps.numpy(), theirs, atol=1e-5)


def test_the_share_of_the_picture_is_found_again_in_latents_of_unit_size():
    x0, share = np.random.default_rng(1).normal(size=(2, 4, 64, 64)), np.array([1.0, 0.5, 0.05])
    assert np.allclose(noise_schedules.measure_share(x0, share), share, atol=0.02)
    loud = noise_schedules.measure_share(2 * x0, share)  # four times the power
    assert np.allclose(loud, 4 * share / (4 * share + 1 - share), atol=0.02)


def test_the_ideal_path_ends_at_data_and_its_steps_are_ddims():
    data, x = np.random.default_rng(0).normal(size=(3, 2)), np.random.default_rng(1).normal(size=(7, 2))
    signal, noise = np.linspace(0, 1, 201), np.linspace(1, 0, 201)
    places = noise_schedules.ideal_path(x, signal, noise, data)
    assert places.shape == (201, 7, 2) and np.array_equal(places[0], x)
    assert np.linalg.norm(places[-1][:, None] - data, axis=-1).min(1).max() < 1e-3
    x0 = noise_schedules.ideal_denoiser(places[50], signal[50], noise[50], data)[0]
    epsilon = (places[50] - signal[50] * x0) / noise[50]
    assert np.allclose(places[51], signal[51] * x0 + noise[51] * epsilon)

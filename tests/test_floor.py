"""The best possible denoiser, against a sum that is written out; and the validation that sets a network beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from sdwidgets.paths import data_folder
from sdwidgets.pocket.training import denoiser, floor, validation
from sdwidgets.pocket.world.alternatives import alternatives


@pytest.fixture(scope="module")
def world():
    """Ten pictures of 3 x 2 x 2 numbers, and how probable each is."""
    generator = torch.Generator().manual_seed(0)
    odds = torch.rand(10, generator=generator) + 0.1
    return torch.randn(10, 3, 2, 2, generator=generator), odds / odds.sum()


@pytest.mark.parametrize("alpha_bar", [0.999, 0.7, 0.2, 0.004])
def test_the_best_denoiser_is_the_sum_over_all_pictures(world, alpha_bar):
    pictures, odds = world
    noise = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    noisy = alpha_bar**0.5 * pictures[:4] + (1 - alpha_bar) ** 0.5 * noise
    found = floor.best_x0(noisy, alpha_bar, pictures, odds)
    for x, mean in zip(noisy.double(), found, strict=True):
        weights = [
            float(p) * math.exp(-float((x - alpha_bar**0.5 * z).square().sum()) / (2 * (1 - alpha_bar)))
            for z, p in zip(pictures.double(), odds, strict=True)
        ]
        expected = sum(w * z.double() for w, z in zip(weights, pictures, strict=True)) / sum(weights)
        assert torch.allclose(mean.double(), expected, atol=1e-6)


def test_without_noise_it_is_the_picture_and_under_noise_alone_the_mean(world):
    pictures, odds = world
    nearly = floor.best_x0(0.99999**0.5 * pictures, 0.99999, pictures, odds)
    assert torch.allclose(nearly, pictures, atol=1e-4)
    mean = (odds[:, None, None, None] * pictures).sum(0)
    noise = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(floor.best_x0(noise, 1e-9, pictures, odds), mean.expand(5, 3, 2, 2), atol=1e-3)


def test_no_other_prediction_has_a_smaller_error(world):
    """Over many noise samples the best prediction beats its own shrunk and stretched forms, and that of wrong probabilities."""
    pictures, odds = world
    generator, alpha_bar = torch.Generator().manual_seed(3), 0.3
    which = torch.multinomial(odds, 20_000, replacement=True, generator=generator)
    noise = torch.randn(20_000, 3, 2, 2, generator=generator)
    noisy = alpha_bar**0.5 * pictures[which] + (1 - alpha_bar) ** 0.5 * noise
    error = lambda predicted: float((predicted - pictures[which]).square().mean())
    best = floor.best_x0(noisy, alpha_bar, pictures, odds)
    others = (0.95 * best, 1.05 * best, floor.best_x0(noisy, alpha_bar, pictures, odds.flip(0)))
    assert all(error(best) < error(other) for other in others)


@pytest.mark.parametrize("alpha_bar", [0.0, 1.0, -0.1, float("nan")])
def test_an_impossible_noise_is_a_sentence(world, alpha_bar):
    with pytest.raises(ValueError, match="alpha_bar lies between 0 and 1"):
        floor.best_x0(world[0], alpha_bar, *world)


def test_pictures_and_probabilities_that_do_not_fit_are_refused(world):
    pictures, odds = world
    with pytest.raises(ValueError, match="a probability for each"):
        floor.best_x0(pictures, 0.5, pictures, odds[:9])
    with pytest.raises(ValueError, match=r"noisy pictures of \(3, 2, 1\)"):
        floor.best_x0(pictures[..., :1], 0.5, pictures, odds)


# ---- validation --------------------------------------------------------------------------------------------------


def test_validation_looks_at_128_scenes_of_every_kind_that_are_none_of_the_trainings():
    by_kind = validation.validation_scenes()
    assert {kind: len(scenes) for kind, scenes in by_kind.items()} == {
        kind: row[1] for kind, row in validation.KINDS.items()
    }
    assert sum(map(len, by_kind.values())) == 128
    for kind, size in (
        ("one object, 64", 64),
        ("one object, 48", 48),
        ("one object, 96", 96),
        ("two objects", 48),
        ("people", 96),
    ):
        assert {thing.size for scene in by_kind[kind] for thing in scene.things} == {size}
    assert {thing.gender for scene in by_kind["people"] for thing in scene.things} == {"woman", "man"}
    assert len({scene.things[0].occupation for scene in by_kind["people"]}) > 8
    assert by_kind == validation.validation_scenes()


def test_boxes_are_where_things_stand():
    scene = next(s for s in validation.validation_scenes()["two objects"] if s.relation == "above")
    (mask,) = validation.boxes([scene])
    for thing in scene.things:
        low, high = (thing.y - 24) // 8, (thing.y + 24) // 8
        assert mask[0, low:high, (thing.x - 24) // 8 : (thing.x + 24) // 8].all()
    assert mask.sum() == 2 * 6 * 6


class Known(torch.nn.Module):
    """A denoiser that knows the clean pictures of a validation, but for a constant: the v-prediction of x0 + `off`."""

    def __init__(self, fixed: validation.Validation, off: float):
        super().__init__()
        self.fixed, self.off, self.place = fixed, off, 0
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def forward(self, noisy, timestep, states):
        start, self.place = self.place, (self.place + len(noisy)) % len(self.fixed.latents)
        alpha_bar = float(denoiser.build_scheduler().alphas_cumprod[timestep])
        x0 = self.fixed.latents[start : start + len(noisy)] + self.off
        return type("Out", (), {"sample": (alpha_bar**0.5 * noisy - x0) / (1 - alpha_bar) ** 0.5})


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """The real validation of one scene of each kind, with the autoencoder and encoder that are carried."""
    few = {kind: (block, 1, fits) for kind, (block, _, fits) in validation.KINDS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "KINDS", few)
        pocket = data_folder("pocket")
        autoencoder = AutoencoderKL.from_pretrained(pocket / "vae").eval()
        encoder = CLIPTextModel.from_pretrained(pocket / "text_encoder")
        tokenizer = CLIPTokenizer.from_pretrained(pocket / "tokenizer")
        file = tmp_path_factory.mktemp("floor") / "floor.safetensors"
        made = validation.Validation.prepare(autoencoder, encoder, tokenizer, file)
        again = validation.Validation.prepare(autoencoder, encoder, tokenizer, file)
        assert all(torch.equal(made.floors[t], again.floors[t]) for t in validation.TIMESTEPS)
        yield made


@pytest.mark.slow
def test_an_error_is_that_of_x0_in_the_boxes(fixed):
    for timestep in validation.TIMESTEPS:
        assert fixed.errors(Known(fixed, 0.0), timestep).max() < 1e-8
        assert torch.allclose(fixed.errors(Known(fixed, 0.3), timestep), torch.tensor(0.09), atol=1e-4)


@pytest.mark.slow
def test_the_floor_rises_with_the_noise_and_no_network_is_below_it(fixed):
    means = [float(fixed.floors[t].mean()) for t in validation.TIMESTEPS]
    assert means == sorted(means) and means[0] < 0.01 < means[-1]
    unet = UNet2DConditionModel.from_pretrained(data_folder("pocket") / "unet").eval()
    measured = fixed.measure(unet)
    assert set(measured) == {"gap", "error", "floor", "by kind"} and set(measured["by kind"]) == set(validation.KINDS)
    assert all(measured["error"][t] > measured["floor"][t] for t in measured["error"])
    decisive = [measured["error"][str(t)] - measured["floor"][str(t)] for t in validation.DECISIVE]
    assert measured["gap"] == pytest.approx(np.mean(decisive), abs=2e-3)


@pytest.mark.slow
def test_the_floor_is_the_error_of_the_best_prediction(fixed):
    """One scene worked out again: its pictures listed, encoded, and weighed."""
    place = fixed.kinds.index("people")
    scene = next(iter(validation.validation_scenes()["people"]))
    autoencoder = AutoencoderKL.from_pretrained(data_folder("pocket") / "vae").eval()
    pictures, odds = zip(*alternatives(scene), strict=True)
    clean = validation.encode(autoencoder, list(pictures))
    noisy, alpha_bar = fixed.noisy(850)
    best = floor.best_x0(noisy[place : place + 1], alpha_bar, clean, torch.tensor(odds))
    error = (best - fixed.latents[place])[0].square()[:, fixed.masks[place, 0]].mean()
    assert float(error) == pytest.approx(float(fixed.floors[850][place]), rel=1e-3)

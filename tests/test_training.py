"""Training: resumes where it stopped, loses nothing, and its parts become a pipeline that stock diffusers loads."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from sdwidgets.pocket import clip, denoiser, scenes, train, training, vae

SCHEDULE = training.Schedule(steps=6, batch_size=4, learning_rate=1e-2, warmup_steps=2)


class Regression(torch.nn.Module):
    """A real, small model: a line through noisy points."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(3, 1)

    def forward(self, x):
        return (self.line(x) - x.sum(dim=1, keepdim=True)).square().mean()


def loss_at(model, step, batch_size, accelerator):
    return model(torch.randn(batch_size, 3, generator=torch.Generator().manual_seed(step)))


def fit(folder, **kwargs):
    torch.manual_seed(0)
    return training.train(
        "line", Regression(), kwargs.pop("loss_at", loss_at), SCHEDULE, folder, {}, **kwargs
    )


class Interrupted(KeyboardInterrupt):
    pass


def interrupt_at(stop):
    def interrupted(model, step, batch_size, accelerator):
        if step == stop:
            raise Interrupted
        return loss_at(model, step, batch_size, accelerator)

    return interrupted


def test_a_run_that_was_interrupted_twice_ends_where_an_unbroken_one_does(tmp_path):
    whole, record = fit(tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(tmp_path / "cut", loss_at=interrupt_at(3))
    assert json.loads((tmp_path / "cut" / "checkpoint.json").read_text())["step"] == 3
    with pytest.raises(Interrupted):
        fit(tmp_path / "cut", loss_at=interrupt_at(5))
    resumed, again = fit(tmp_path / "cut")
    assert torch.equal(whole.line.weight, resumed.line.weight) and torch.equal(
        whole.line.bias, resumed.line.bias
    )
    assert record["step"] == again["step"] == 6 and again["samples"] == 24


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, _ = fit(tmp_path)
    second, _ = fit(tmp_path, loss_at=interrupt_at(6))
    assert torch.equal(first.line.weight, second.line.weight)


def test_restart_begins_again(tmp_path):
    fit(tmp_path)
    with pytest.raises(Interrupted):
        fit(tmp_path, loss_at=interrupt_at(0), restart=True)


def test_a_cut_or_foreign_checkpoint_is_a_sentence(tmp_path):
    fit(tmp_path)
    file = next(tmp_path.glob("step-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(RuntimeError, match="does not fit this training.*--restart"):
        fit(tmp_path)


def test_a_save_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoint, model = training.Checkpoint(tmp_path), Regression()
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.save(1, model, model, optimizer, {"losses": []})

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(2, model, model, optimizer, {"losses": []})
    assert checkpoint.load(Regression(), Regression(), optimizer)["step"] == 1


def test_the_learning_rate_warms_up_and_falls_to_a_tenth():
    rates = [SCHEDULE.rate(step) for step in range(SCHEDULE.steps + 1)]
    assert rates[0] == pytest.approx(0.005) and max(rates) == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.001) and rates[2:] == sorted(rates[2:], reverse=True)


def test_the_average_moves_by_its_decay():
    average, model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.9 * average.weight + 0.1 * model.weight
    training.ema_update(average, model, 0.9)
    assert torch.allclose(average.weight, expected)


def test_crops_are_of_things_and_in_range():
    crops = vae.crop_batch(np.random.default_rng(0), 12, 64)
    assert crops.shape == (12, 3, 64, 64) and -1 <= crops.min() and crops.max() <= 1
    assert (crops.flatten(1).std(dim=1) > 0.05).all(), "a crop shows nothing but background"


def test_every_epoch_shows_every_scene_once():
    rows = []

    class Spy(torch.nn.Module):
        def forward(self, latents, noise, timesteps, prompt_embeds):
            rows.extend(latents[:, 0, 0, 0].int().tolist())
            assert noise.std() > 0.5 and 0 <= timesteps.min() and timesteps.max() < 1000

    data = denoiser.LatentData(
        latents=torch.arange(12.0).reshape(12, 1, 1, 1).expand(12, 4, 2, 2),
        prompt_embeds=torch.zeros(3, 5, 8),
        captions=torch.ones(12, dtype=torch.long),
    )
    accelerator = argparse.Namespace(num_processes=1, process_index=0, device="cpu")
    draw = denoiser.denoiser_loss_at(data, denoiser.DenoiserConfig())
    for step in range(6):
        draw(Spy(), step, 4, accelerator)
    assert sorted(rows[:12]) == sorted(rows[12:]) == list(range(12)) and rows[:12] != rows[12:]


def test_hard_negatives_differ_in_the_words_that_matter():
    rng = np.random.default_rng(0)
    for index in range(500):
        caption = scenes.make_scene(scenes.SIMPLE, index).caption
        wrong = clip.swapped(caption, rng)
        assert wrong != caption and len(wrong.split()) == len(caption.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All parts, trained for two steps on 64 scenes through the command line, and exported."""
    work = tmp_path_factory.mktemp("work")
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    for part in train.PARTS:
        size = (
            ["--batch-size", "4", "--steps", "2"] if part != "export" else ["--output", str(work / "model")]
        )
        assert train.main(parser.parse_args([part, "--grammar", "tiny", "--work", str(work), *size])) == 0
    return work


def test_the_exported_folder_is_a_stock_pipeline_in_float32(trained):
    pipe = StableDiffusionPipeline.from_pretrained(trained / "model")
    assert {module.dtype for module in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a cat", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert picture.size == (128, 128)
    assert max(file.stat().st_size for file in (trained / "model").rglob("*") if file.is_file()) < 15e6


def test_exported_weights_are_the_averaged_ones_that_were_trained(trained):
    pipe = StableDiffusionPipeline.from_pretrained(trained / "model")
    saved = denoiser.build_unet(denoiser.DenoiserConfig()).from_pretrained(trained / "denoiser" / "part")
    for (name, a), b in zip(saved.named_parameters(), pipe.unet.parameters(), strict=True):
        assert torch.equal(a.half(), b.half()), name


@pytest.mark.parametrize("text", ["", "a cat", "مرحبا", "🙂", "<script>", "zygote", "x" * 10_000])
def test_any_text_has_known_tokens(trained, text):
    tokenizer = StableDiffusionPipeline.from_pretrained(trained / "model").tokenizer
    ids = tokenizer(text, truncation=True).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id and len(ids) <= 77
    assert tokenizer.eos_token_id not in ids[1:-1], "part of the text is unknown"


def test_latents_are_scaled_to_variance_one(trained):
    from safetensors.torch import load_file

    tensors = load_file(trained / "latents.safetensors")
    latents = tensors["latents"].float()
    centred = latents - latents.mean(dim=(0, 2, 3), keepdim=True)
    assert float(centred.square().mean().sqrt()) == pytest.approx(1.0, abs=0.02)
    assert tensors["captions"].max() < len(tensors["prompt_embeds"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["vae", "--grammar", "klingon"], "there are: encoder, full, simple, tiny"),
        (["vae", "--grammar", "tiny", "--steps", "0"], "--steps must be 1 or more"),
        (["vae", "--grammar", "tiny", "--batch-size", "-3"], "--batch-size must be 1 or more"),
        (["vae", "--grammar", "tiny", "--learning-rate", "0"], "--learning-rate must be above 0"),
        (["export", "--grammar", "tiny"], "export needs --output"),
        (["denoiser", "--grammar", "tiny"], "run `sdwidgets train vae`"),
    ],
)
def test_bad_arguments_are_sentences(tmp_path, arguments, sentence):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        train.main(parser.parse_args([*arguments, "--work", str(tmp_path)]))

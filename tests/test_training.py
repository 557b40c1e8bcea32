"""Training: resumes where it stopped, loses nothing, and its parts become a pipeline that stock diffusers loads."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer

from bench.training import Change, speed
from sdwidgets.loading.turbo import with_small_decoder
from sdwidgets.paths import data_folder
from sdwidgets.pocket import export, train
from sdwidgets.pocket.training import (
    clip,
    denoiser,
    muon,
    scene_order,
    small_decoder,
    trainer,
    vae,
    validation,
    work_folder,
)
from sdwidgets.pocket.world import datasheet, scenes
from sdwidgets.pocket.world import vocabulary as words
from sdwidgets.pocket.world.layouts import on_lattice

SCHEDULE = trainer.Schedule(steps=6, batch_size=4, learning_rate=1e-2, warmup_steps=2)


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
    return trainer.train("line", Regression(), kwargs.pop("loss_at", loss_at), SCHEDULE, folder, {}, **kwargs)


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
    assert torch.equal(whole.line.weight, resumed.line.weight) and torch.equal(whole.line.bias, resumed.line.bias)
    assert record["step"] == again["step"] == 6 and again["samples"] == 24


@pytest.mark.parametrize("where", ["ema_update", "loss"])
@pytest.mark.parametrize("stop", range(5))
def test_ctrl_c_waits_for_the_end_of_a_step(where, stop, tmp_path, monkeypatch):
    """Pressed between the weights and the count of steps, where a save would have that step done twice, or while the loss is computed."""
    whole, _ = fit(tmp_path / "whole")
    bare, calls = trainer.ema_update, []

    def press(*arguments):
        calls.append(None)
        if len(calls) == stop + 1:
            os.kill(os.getpid(), signal.SIGINT)

    def pressed_loss(model, step, batch_size, accelerator):
        press()
        return loss_at(model, step, batch_size, accelerator)

    if where == "ema_update":
        monkeypatch.setattr(trainer, "ema_update", lambda *arguments: (press(), bare(*arguments)))
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", loss_at=loss_at if where == "ema_update" else pressed_loss)
    assert json.loads((tmp_path / "cut" / "checkpoint.json").read_text())["step"] == stop + 1
    monkeypatch.setattr(trainer, "ema_update", bare)
    resumed, _ = fit(tmp_path / "cut")
    assert torch.equal(whole.line.weight, resumed.line.weight) and torch.equal(whole.line.bias, resumed.line.bias)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait_and_half_a_step_is_not_saved(tmp_path, monkeypatch):
    whole, _ = fit(tmp_path / "whole")
    bare, calls = trainer.ema_update, []

    def press_twice(*arguments):
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        bare(*arguments)

    monkeypatch.setattr(trainer, "ema_update", press_twice)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut")
    assert not (tmp_path / "cut" / "checkpoint.json").exists(), "nothing was saved before"
    resumed, _ = fit(tmp_path / "cut")
    assert torch.equal(whole.line.weight, resumed.line.weight)


def test_a_checkpoint_whose_record_is_cut_is_a_sentence_and_can_be_begun_again(tmp_path):
    fit(tmp_path)
    (tmp_path / "checkpoint.json").write_text('{"step": 3, "fi')
    with pytest.raises(RuntimeError, match="checkpoint.json is damaged .*--restart"):
        fit(tmp_path)
    assert fit(tmp_path, restart=True)[1]["step"] == 6


def test_what_a_killed_save_left_beside_the_newest_goes_with_the_next_run(tmp_path):
    fit(tmp_path)
    (newest,) = tmp_path.glob("step-*.safetensors")
    shutil.copy(
        newest, tmp_path / "step-00000005.safetensors"
    )  # killed between the record of a save and the end of it
    (tmp_path / ".step-00000004.0123.safetensors").write_bytes(b"half")  # and in the midst of one
    fit(tmp_path)
    assert list(tmp_path.glob("*step-*")) == [newest]


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
    checkpoint, model = trainer.Checkpoint(tmp_path), Regression()
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.save(1, model, model, optimizer, {"losses": []})

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(2, model, model, optimizer, {"losses": []})
    assert checkpoint.load(Regression(), Regression(), optimizer)["step"] == 1


def test_the_learning_rate_warms_up_and_falls_to_its_end():
    rates = [SCHEDULE.rate(step) for step in range(SCHEDULE.steps + 1)]
    assert rates[0] == pytest.approx(0.005) and max(rates) == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.0002) and rates[2:] == sorted(rates[2:], reverse=True)


def test_a_late_fall_keeps_the_rate_until_then():
    late = dataclasses.replace(SCHEDULE, steps=102, decay_share=0.3)
    rates = [late.rate(step) for step in range(103)]
    assert set(rates[2:72]) == {0.01} and rates[73] < 0.01 and rates[-1] == pytest.approx(0.0002)
    assert dataclasses.replace(late, decay_share=0.0).rate(102) == 0.01


def test_muon_takes_the_scale_out_of_every_direction():
    """Newton-Schulz against the singular value decomposition that it stands for."""
    torch.manual_seed(0)
    for shape in ((3, 24, 216), (2, 96, 48), (1, 32, 80)):
        matrices = torch.randn(shape) * torch.logspace(0, -1.5, shape[-1])
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        found = muon.orthogonalize(matrices)
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.4 and values.max() < 1.3
        alike = (found * (u @ v)).flatten(1).sum(1) / (found.flatten(1).norm(dim=1) * (u @ v).flatten(1).norm(dim=1))
        assert (alike > 0.97).all(), alike


def test_muon_is_adamw_for_what_is_not_a_matrix():
    torch.manual_seed(0)
    ours, theirs = torch.nn.LayerNorm(5), torch.nn.LayerNorm(5)
    pair = (
        muon.Muon(ours, lr=1e-2),
        torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0),
    )
    for _ in range(5):
        x = torch.randn(4, 5)
        for norm, optimizer in zip((ours, theirs), pair, strict=True):
            optimizer.zero_grad()
            (norm(x) - 1).pow(3).sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6) and torch.allclose(ours.bias, theirs.bias, atol=1e-6)


def test_an_unknown_optimizer_is_a_sentence(tmp_path):
    schedule = dataclasses.replace(SCHEDULE, optimizer="lion")
    with pytest.raises(ValueError, match="'lion'; there are: muon, adamw"):
        trainer.train("line", Regression(), loss_at, schedule, tmp_path, {})


def test_snapshots_are_taken_at_doublings():
    marks = [step * 64 for step in range(1, 4000) if trainer.passed(step * 64, 64)]
    assert [mark // 1000 for mark in marks] == [25, 50, 100, 200]


def test_a_snapshot_is_named_by_all_that_was_shown_in_batches_of_any_size(tmp_path):
    """20,000 pictures of one size of batch, then larger ones: the mark of 25,000 counts both."""
    schedule = dataclasses.replace(SCHEDULE, steps=5, batch_size=4_000)
    trainer.train("line", Regression(), loss_at, schedule, tmp_path, {})
    taken = []
    larger = dataclasses.replace(schedule, steps=8, batch_size=6_000)
    _, record = trainer.train(
        "line", Regression(), loss_at, larger, tmp_path, {}, snapshot=lambda seen, _: taken.append(seen)
    )
    assert taken == [26_000] and record["samples"] == 38_000


STAGE = {"scenes": 64, "batch size": 4, "learning rate": 1e-2, "log SNR": [-2.5, 2.0]}


def test_a_stage_lasts_as_long_as_its_settings(tmp_path):
    """A longer run with the same settings extends its stage, other settings begin one, and one that trains nothing adds none."""

    def run(steps, batch_size=4, **stage):
        schedule = dataclasses.replace(SCHEDULE, steps=steps, batch_size=batch_size)
        stage = {"scenes": 64, "log SNR": [-2.5, 2.0], **stage}
        return trainer.train("line", Regression(), loss_at, schedule, tmp_path, {}, stage=stage)[1]

    assert run(6)["stages"] == [{"samples": 24, **STAGE}]
    assert run(9)["stages"] == run(9)["stages"] == [{"samples": 36, **STAGE}]
    assert run(9, scenes=99)["stages"] == [{"samples": 36, **STAGE}]
    first, second, third = run(11, scenes=99) and run(13, 2, **{"log SNR": [-0.5, 2.0]})["stages"]
    assert (first, second) == ({"samples": 36, **STAGE}, {"samples": 8, **STAGE, "scenes": 99})
    assert third == {"samples": 4, **STAGE, "batch size": 2, "log SNR": [-0.5, 2.0]}
    assert json.loads((tmp_path / "checkpoint.json").read_text())["stages"] == [first, second, third]


NARROW = """
import argparse, functools, sys
from sdwidgets.pocket import train
from sdwidgets.pocket.training import denoiser, trainer, vae, validation

validation.KINDS = {kind: (block, 1, fits) for kind, (block, _, fits) in validation.KINDS.items()}
denoiser.DenoiserConfig = functools.partial(denoiser.DenoiserConfig, channels=(32, 32, 32))
encode = vae.encode_scenes

def told(*arguments):
    print("encoded by process", trainer.processes().process_index, flush=True)
    return encode(*arguments)

vae.encode_scenes = told
parser = argparse.ArgumentParser()
train.add_arguments(parser)
run = lambda size: train.main(parser.parse_args([*sys.argv[1:], "--batch-size", size]))
try:
    trainer.processes().num_processes > 1 and run("3")
except ValueError as error:
    print("refused:", error)
sys.exit(run("2"))
"""


def launch(processes: int, script, *arguments) -> str:
    """What a script prints that `accelerate launch` runs on so many processes, each on one thread in float32."""
    several = (
        ["--multi_gpu", f"--main_process_port={free_port()}"] if processes > 1 else []
    )  # what it calls several of anything
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no",
        *several, f"--num_processes={processes}", str(script), *map(str, arguments),
    ]  # fmt: skip
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "SDWIDGETS_BF16": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.weekly
def test_two_processes_train_a_denoiser_as_one_does(trained, tmp_path):
    """The part as it is, but narrow: prepared and finished by one process, and the same loss all along, to a thousandth.

    Both see the same scenes, noise and timesteps, in sums of another order. Other noise alone would move a loss by several per cent.
    """
    script, records, weights = tmp_path / "script.py", {}, {}
    script.write_text(NARROW)
    for processes in (2, 1):
        work = tmp_path / str(processes)
        for part in ("vae/part", "clip/part", "clip/tokenizer"):
            shutil.copytree(trained / part, work / part)
        arguments = ["denoiser", "--grammar", "tiny", "--work", work, "--scenes", "8", "--ignore-gate"]
        printed = launch(processes, script, *arguments, "--steps", "52")
        assert printed.count("encoded by process 0") == 1 and "encoded by process 1" not in printed
        assert printed.count("finished: ") == 1
        assert ("a batch of 3 cannot be shared by 2 processes: give --batch-size" in printed) == (processes == 2)
        weights[processes] = UNet2DConditionModel.from_pretrained(work / "denoiser" / "part").state_dict()
        records[processes] = json.loads((work / "denoiser" / "part" / "training.json").read_text())
        assert records[processes]["hardware"]["processes"] == processes
    one, two = ([loss for _, loss in records[processes]["losses"]] for processes in (1, 2))
    assert len(one) == 2 and one == pytest.approx(two, rel=1e-3)
    for name, tensor in weights[1].items():
        torch.testing.assert_close(weights[2][name], tensor, rtol=1e-3, atol=1e-3, msg=name)
    assert records[1]["stages"] == records[2]["stages"] and records[1]["samples"] == 104


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_the_average_moves_by_its_decay():
    average, model = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.9 * average.weight + 0.1 * model.weight
    trainer.ema_update(average, model, 0.9)
    assert torch.allclose(average.weight, expected)


def test_crops_are_of_things_and_in_range():
    crops = vae.crop_batch(np.random.default_rng(0), 12, 64)
    assert crops.shape == (12, 3, 64, 64) and -1 <= crops.min() and crops.max() <= 1
    assert (crops.flatten(1).std(dim=1) > 0.05).all(), "a crop shows nothing but background"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_whole_pictures_for_the_decoder_are_wordless_scenes_on_the_lattice_or_off_it(share):
    pictures = vae.picture_batch(np.random.default_rng(3), 6, lattice_share=share)
    drawn = [scenes.wordless_scene(0, int(index)) for index in np.random.default_rng(3).integers(2**31, size=6)]
    placed = [on_lattice(scene, scenes.Stream(2**22, scene.index)) if share else scene for scene in drawn]
    assert placed != drawn or not share
    assert torch.equal(pictures, vae.to_tensor(np.stack([np.asarray(scenes.render(scene)) for scene in placed])))
    with pytest.raises(ValueError, match="lattice_share must be 0 to 1, not 1.5"):
        vae.DecoderConfig(lattice_share=1.5)


def test_the_decoder_learns_while_latents_stay_what_they_are():
    torch.manual_seed(0)
    autoencoder = vae.build_vae(vae.VaeConfig(channels=(8, 8, 16, 16)))
    pictures = vae.picture_batch(np.random.default_rng(0), 2, lattice_share=0.75)
    latents, before = autoencoder.encode(pictures).latent_dist.mode(), trainer.digest(autoencoder.encoder)
    module = vae.DecoderTraining(autoencoder, vae.DecoderConfig())
    assert not any(name.startswith("encoder") for name, _ in module.named_parameters())
    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=3e-3), []
    for _ in range(15):
        losses.append(module(pictures))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    whole = module.autoencoder()
    assert trainer.digest(whole.encoder) == before
    assert torch.allclose(whole.encode(pictures).latent_dist.mode(), latents, atol=1e-5)
    with torch.no_grad():
        again = vae.picture_loss(whole.decode(latents).sample, pictures, module.config)
        assert again == pytest.approx(float(module(pictures)), rel=1e-4)


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
        scenes=torch.arange(12),
    )
    accelerator = argparse.Namespace(num_processes=1, process_index=0, device="cpu")
    draw = denoiser.denoiser_loss_at(data, denoiser.DenoiserConfig())
    for step in range(6):
        draw(Spy(), step, 4, accelerator)
    assert sorted(rows[:12]) == sorted(rows[12:]) == list(range(12)) and rows[:12] != rows[12:]


def test_timesteps_of_a_batch_are_spread_and_each_is_uniform():
    generator = torch.Generator().manual_seed(0)
    batches = torch.stack([denoiser.spread_timesteps(8, generator) for _ in range(400)])
    assert batches.min() >= 0 and batches.max() < 1000
    gaps = batches.sort(dim=1).values.diff(dim=1)
    assert ((gaps >= 124) & (gaps <= 126)).all(), "neighbours are an eighth of the clock apart"
    share = torch.histc(batches[:, 0].float(), bins=4, min=0, max=1000) / 400
    assert (share - 0.25).abs().max() < 0.08, "the first of a batch favours no time"


def test_the_denoiser_looks_where_a_caption_matters():
    """Log SNR of the drawn timesteps is the normal that was asked for, cut to what Stable Diffusion's schedule has."""
    scheduler = denoiser.build_scheduler()
    abar = scheduler.alphas_cumprod.double()
    log_snr = torch.log(abar / (1 - abar))
    for mean, std in ((-0.5, 2.0), (0.0, 1.0)):
        odds = denoiser.timestep_odds(scheduler, denoiser.DenoiserConfig(log_snr_mean=mean, log_snr_std=std))
        assert odds.shape == (1000,) and odds.min() > 0 and odds.sum() == pytest.approx(1)
        normal = torch.distributions.Normal(mean, std)
        whole = normal.cdf(log_snr[0]) - normal.cdf(log_snr[-1])
        for edge in (100, 400, 700):
            asked = float((normal.cdf(log_snr[0]) - normal.cdf(log_snr[edge])) / whole)
            assert float(odds[:edge].sum()) == pytest.approx(asked, abs=0.01), (mean, std, edge)

    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([denoiser.spread_timesteps(8, generator, odds=odds) for _ in range(2000)])
    seen = torch.bincount(drawn, minlength=1000).double() / len(drawn)
    assert (seen.view(10, 100).sum(1) - odds.view(10, 100).sum(1)).abs().max() < 0.01


def test_the_denoising_loss_is_that_of_the_velocity():
    """Seen in the loss of a model that answers zero: v = sqrt(abar) noise - sqrt(1 - abar) latents, arXiv 2202.00512."""

    class Zero(torch.nn.Module):
        def forward(self, noisy, timesteps, prompt_embeds):
            return argparse.Namespace(sample=torch.zeros_like(noisy))

    module = denoiser.DenoiserTraining(Zero(), denoiser.DenoiserConfig())
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for t in (5, 300, 900):
        abar = float(module.scheduler.alphas_cumprod[t])
        velocity = abar**0.5 * noise - (1 - abar) ** 0.5 * latents
        loss = module(latents, noise, torch.full((2,), t), None)
        assert torch.isclose(loss, velocity.square().mean(), rtol=1e-4)


def test_whitened_states_are_as_large_in_every_direction():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([5.0, 3, 2, 1, 1, 0.5, 0.3, 1e-4])
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    states = torch.randn(100, 77, 8, generator=generator) * sizes @ turn
    whitening = denoiser.measure_whitening(states)
    assert torch.allclose(whitening, whitening.T)
    flat = (states @ whitening).flatten(0, 1)
    power = torch.linalg.eigvalsh(flat.T @ flat / len(flat))
    mean = states.square().mean()
    assert torch.allclose(power[1:], mean.expand(7), rtol=0.01), "alike, and as large as all were on average"
    assert power[0] < 0.01 * mean, "what holds next to nothing is not blown up"


def test_one_caption_in_ten_is_dropped_and_the_others_are_the_pictures_own():
    """Picture i is full of i, and so is its caption; the empty caption is -1."""
    numbers = torch.arange(50.0)
    data = denoiser.LatentData(
        latents=numbers[:, None, None, None].expand(50, 4, 2, 2).clone(),
        prompt_embeds=torch.cat([torch.tensor([-1.0]), numbers])[:, None, None].expand(51, 3, 2).clone(),
        captions=torch.arange(1, 51),
        scenes=torch.arange(50),
    )
    seen = []
    model = lambda latents, noise, timesteps, embeds: seen.append((latents[:, 0, 0, 0], embeds[:, 0, 0]))
    loss_at = denoiser.denoiser_loss_at(data, denoiser.DenoiserConfig())
    alone = SimpleNamespace(num_processes=1, process_index=0, device="cpu")
    for step in range(60):
        loss_at(model, step, 50, alone)
    pictures, captions = (torch.cat(values) for values in zip(*seen, strict=True))
    dropped = captions == -1
    assert 0.08 < dropped.float().mean() < 0.12 and torch.equal(captions[~dropped], pictures[~dropped])


def test_a_denoiser_trained_on_whitened_text_is_a_stock_one():
    """The same answers, whether text is whitened and the U-Net trained on that, or neither."""
    generator = torch.Generator().manual_seed(0)
    config = denoiser.DenoiserConfig(channels=(32, 32, 32), text_width=16)
    unet = denoiser.build_unet(config).eval()
    text = torch.randn(2, 77, 16, generator=generator) * torch.linspace(0.2, 3, 16)
    latents, times = torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([10, 900])
    whitening = denoiser.measure_whitening(text)
    with torch.no_grad():
        asked = unet(latents, times, text).sample
        module = denoiser.DenoiserTraining.from_stock(unet, config, whitening)
        white = module.unet(latents, times, text @ whitening).sample
        stock = module.stock_unet()(latents, times, text).sample
    torch.testing.assert_close(white, asked, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(stock, asked, atol=1e-4, rtol=1e-3)
    assert len(denoiser.text_layers(unet)) == 2 * sum("attn2.to_k" in name for name, _ in unet.named_parameters())
    data = denoiser.LatentData(latents, text.half(), torch.tensor([0, 1]), torch.tensor([0, 1])).whitened(whitening)
    torch.testing.assert_close(data.prompt_embeds.float(), text @ whitening, atol=0.02, rtol=0.01)


def test_hard_negatives_are_wrong_and_give_themselves_away_by_nothing_else():
    rng = np.random.default_rng(0)
    kinds = {"order": 0, "length": 0}
    for index in range(0, datasheet.ENCODER.count, 500):
        caption = scenes.make_scene(datasheet.ENCODER, index).caption
        wrong = clip.swapped(caption, rng)
        assert wrong != caption
        for first, second in zip(wrong.split(), wrong.split()[1:], strict=False):
            if first in ("a", "an"):
                assert first == ("an" if second[0] in "aeiou" and second != "unicorn" else "a"), wrong
        for name, colour in datasheet.HELD_OUT_BACKGROUNDS.items():
            assert not (wrong.endswith(f"{colour} background") and f" {name} " in wrong), wrong
        kinds["order"] += sorted(wrong.split()) == sorted(caption.split())
        kinds["length"] += len(wrong.split()) != len(caption.split())
    assert kinds["order"] > 30, "too few negatives differ in nothing but the order of their words"


def test_each_kind_of_wrong_caption_is_of_that_kind():
    rng, seen = np.random.default_rng(1), dict.fromkeys(clip.CHANGES, 0)
    for index in range(0, datasheet.ENCODER.count, 1_500):
        caption = scenes.make_scene(datasheet.ENCODER, index).caption
        for kind in clip.CHANGES:
            try:
                wrong = clip.swapped(caption, rng, (kind,))
            except ValueError as error:
                assert "can be changed" in str(error)
                continue
            seen[kind] += 1
            new = set(wrong.split()) - set(caption.split()) - {"a", "an"}
            assert kind != "colour" or new <= set(words.COLOURS)
            assert kind != "order" or not new
            assert kind != "opposite" or (len(new) <= 1 and not new & set(words.COLOURS))
    assert min(seen.values()) > 30


def test_negatives_ask_for_order_and_place_wherever_they_can():
    rng = np.random.default_rng(0)
    captions = ["a cat to the left of a dog on a blue background", "a cat on a blue background"] * 200
    placed = clip._negatives(captions, rng, 1)
    dogs = [wrong for caption, wrong in zip(captions, placed, strict=True) if "dog" in caption]
    assert set(dogs) == {
        "a dog to the left of a cat on a blue background",
        "a cat to the right of a dog on a blue background",
    }
    assert len(set(clip._negatives(captions, rng, 0)[::2])) > 20
    assert not set(placed[1::2]) & set(captions), "a caption without order or place is made wrong in another way"


@pytest.mark.slow
def test_it_is_told_by_kind_how_often_the_right_caption_wins(trained):
    tiny = datasheet.find_grammar("tiny")
    tokenizer = CLIPTokenizer.from_pretrained(trained / "clip" / "tokenizer")
    towers = CLIPModel.from_pretrained(trained / "clip" / "part").eval()
    told = clip.beats_hard_negative(towers, tokenizer, tiny, count=12)
    assert set(told) == {"any", *clip.CHANGES} and all(0 <= share <= 1 for share in told.values())
    record = json.loads((trained / "clip" / "part" / "training.json").read_text())
    assert set(record["caption_beats_by_kind"]) == set(clip.CHANGES)
    assert set(record["gate of few"]) == {"captions", *record["gate"]}


def test_without_wrong_captions_it_is_transformers_own_contrastive_loss():
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(data_folder("pocket") / "tokenizer")
    towers = clip.build_clip(clip.ClipConfig(), tokenizer)
    pictures, tokens = torch.rand(3, 3, 128, 128), torch.randint(600, 900, (3, 8))
    tokens[:, -1] = tokenizer.eos_token_id
    with torch.no_grad():
        theirs = towers(input_ids=tokens, pixel_values=pictures, return_loss=True).loss
        assert float(clip.ClipTraining(towers, 100.0)(pictures, tokens)) == pytest.approx(float(theirs), rel=1e-4)


def test_a_word_still_tells_itself_after_every_layer():
    """The embeddings begin so large that no layer drowns them, as CLIP's own small ones would be: then a state is nearest to its own word's."""
    tokenizer = CLIPTokenizer.from_pretrained(data_folder("pocket") / "tokenizer")
    tokens = tokenizer(["a red triangle above a blue circle"], return_tensors="pt").input_ids

    def kept(**stds) -> list[float]:
        torch.manual_seed(0)
        tower = clip.build_clip(clip.ClipConfig(**stds), tokenizer).text_model
        words, *later = tower(tokens, output_hidden_states=True).hidden_states
        return [float(torch.nn.functional.cosine_similarity(words, states, dim=-1).min()) for states in later]

    with torch.no_grad():
        assert min(kept()) > 0.9 > 0.5 > min(kept(token_std=0.02, position_std=0.01))


def test_the_cap_on_the_logit_scale_bounds_the_loss():
    """Cosines lie in -1..1, so a capped scale bounds every logit, and with that what a wrong answer can cost."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(data_folder("pocket") / "tokenizer")
    towers = clip.build_clip(clip.ClipConfig(), tokenizer)
    towers.logit_scale.data.fill_(math.log(1000.0))
    pictures, tokens = torch.rand(3, 3, 128, 128), torch.randint(600, 900, (3, 8))
    tokens[:, -1] = tokenizer.eos_token_id
    with torch.no_grad():
        losses = [float(clip.ClipTraining(towers, cap)(pictures, tokens)) for cap in (0.0, 1.0, 100.0)]
    assert losses[0] == pytest.approx(math.log(3), rel=1e-5) and losses[1] < losses[0] + 2 and losses[2] != losses[1]


def test_the_gate_sees_what_states_carry_and_what_they_do_not():
    """States made of the words themselves pass; states of a single constant do not."""
    tokenizer = CLIPTokenizer.from_pretrained(data_folder("pocket") / "tokenizer")

    class Words(torch.nn.Module):
        device = "cpu"

        def __init__(self, known):
            super().__init__()
            self.table, self.known = torch.randn(len(tokenizer), 96), known

        def forward(self, tokens):
            place = torch.nn.functional.one_hot(torch.arange(tokens.shape[1]), 32).float()
            states = torch.cat([self.table[tokens], place.expand(len(tokens), -1, -1)], -1)
            return argparse.Namespace(last_hidden_state=states if self.known else torch.zeros_like(states))

    torch.manual_seed(0)
    size = {"count": 200, "learn": 600, "steps": 300, "attributes": ["count"]}
    seen, blind = (clip.gate(Words(known), tokenizer, **size) for known in (True, False))
    assert seen["count"] > 0.95 and blind["count"] < 0.5


@pytest.fixture(scope="module")
def brief():
    """Narrow autoencoders and few pictures to measure them, one question to the text encoder's states, one validation scene of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        one = {kind: (block, 1, fits) for kind, (block, _, fits) in validation.KINDS.items()}
        patch.setattr(validation, "KINDS", one)
        patch.setattr(vae, "VaeConfig", functools.partial(vae.VaeConfig, channels=(16, 24, 32, 48)))
        small = functools.partial(small_decoder.SmallDecoderConfig, channels=(8, 16, 24, 48))
        patch.setattr(small_decoder, "SmallDecoderConfig", small)
        patch.setattr(vae, "reconstruction_psnr", functools.partial(vae.reconstruction_psnr, count=8))
        patch.setattr(
            small_decoder, "decoders_agreement", functools.partial(small_decoder.decoders_agreement, count=8)
        )
        patch.setattr(clip, "gate", functools.partial(clip.gate, attributes=["count"]))
        patch.setattr(clip, "beats_hard_negative", functools.partial(clip.beats_hard_negative, count=20))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, brief):
    """All parts, trained for two steps on 64 scenes through the command line, and exported."""
    work = tmp_path_factory.mktemp("work")
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    for part in [part for part in train.PARTS if part != "restore"]:
        size = ["--batch-size", "4", "--steps", "2"] if part != "export" else ["--output", str(work / "model")]
        size += ["--ignore-gate"] if part == "denoiser" else []
        assert train.main(parser.parse_args([part, "--grammar", "tiny", "--work", str(work), *size])) == 0
    return work


@pytest.mark.slow
def test_the_exported_folder_is_a_stock_pipeline_in_float32(trained):
    pipe = StableDiffusionPipeline.from_pretrained(trained / "model")
    assert {module.dtype for module in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a cat", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert picture.size == (128, 128)
    assert max(file.stat().st_size for file in (trained / "model").rglob("*") if file.is_file()) < 15e6


@pytest.mark.slow
def test_exported_weights_are_the_averaged_ones_that_were_trained(trained):
    pipe = StableDiffusionPipeline.from_pretrained(trained / "model")
    saved = denoiser.build_unet(denoiser.DenoiserConfig()).from_pretrained(trained / "denoiser" / "part")
    for (name, a), b in zip(saved.named_parameters(), pipe.unet.parameters(), strict=True):
        assert torch.equal(a.half(), b.half()), name


@pytest.mark.slow
def test_an_export_takes_the_later_decoder_of_the_same_encoder(trained, tmp_path, capsys):
    first, later, shipped = (
        AutoencoderKL.from_pretrained(folder)
        for folder in (trained / "vae" / "part", trained / "decoder" / "part", trained / "model" / "vae")
    )
    for part in ("encoder", "quant_conv", "decoder", "post_quant_conv"):
        of_part = [trainer.digest(getattr(autoencoder, part)) for autoencoder in (first, later, shipped)]
        assert of_part[1] == of_part[2], part
        assert (of_part[0] == of_part[1]) == (part in ("encoder", "quant_conv")), part
    assert later.config.scaling_factor == first.config.scaling_factor
    records = json.loads((trained / "model" / "training.json").read_text())
    assert records["decoder"]["step"] == 2 and records["decoder"]["base"] == trainer.digest(first.encoder)
    assert set(records["decoder"]["psnr before"]) == set(records["decoder"]["psnr"]) == {"whole", "things"}
    card = (trained / "model" / "README.md").read_text()
    assert (
        "| decoder | 2 | 8 |" in card
        and "last the autoencoder's decoder alone, 75% of its pictures on the lattice" in card
    )

    for part in ("vae", "decoder"):
        shutil.copytree(trained / part / "part", tmp_path / part / "part")
    assert work_folder.finished_autoencoder(tmp_path) == tmp_path / "decoder" / "part"
    told = tmp_path / "decoder" / "part" / "training.json"
    trainer.write_json(told, json.loads(told.read_text()) | {"base": "0" * 12})
    assert not capsys.readouterr().out
    assert work_folder.finished_autoencoder(tmp_path) == tmp_path / "vae" / "part"
    assert "it was trained for another encoder; `sdwidgets train decoder`" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "decoder")
    assert work_folder.finished_autoencoder(tmp_path) == tmp_path / "vae" / "part"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "a cat", "مرحبا", "🙂", "<script>", "zygote", "x" * 10_000])
def test_any_text_has_known_tokens(trained, text):
    tokenizer = StableDiffusionPipeline.from_pretrained(trained / "model").tokenizer
    ids = tokenizer(text, truncation=True).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id and len(ids) <= 77
    assert tokenizer.eos_token_id not in ids[1:-1], "part of the text is unknown"


@pytest.mark.slow
def test_latents_are_scaled_to_variance_one(trained):
    (file,) = (trained / "encoded").glob("latents-0000000-*.safetensors")
    latents = load_file(file)["latents"].float()
    centred = latents - latents.mean(dim=(0, 2, 3), keepdim=True)
    assert latents.shape == (len(scene_order.training_scenes(datasheet.find_grammar("tiny"))), 4, 16, 16)
    assert float(centred.square().mean().sqrt()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_every_scene_is_told_in_its_own_words(trained):
    tiny, device = datasheet.find_grammar("tiny"), "cpu"
    data = work_folder.latent_data(tiny, trained)
    tokenizer = CLIPTokenizer.from_pretrained(trained / "clip" / "tokenizer")
    encoder = clip.text_encoder(CLIPModel.from_pretrained(trained / "clip" / "part")).to(device)
    assert data.scenes.tolist() == scene_order.training_scenes(tiny) and data.times.sum() == tiny.count
    for row in (0, 100, len(data.scenes) - 1):
        caption = scenes.make_scene(tiny, int(data.scenes[row])).caption
        (states,) = clip.encode_captions(encoder, tokenizer, [caption])
        assert torch.allclose(data.prompt_embeds[data.captions[row]].float(), states[0].float(), atol=2e-2)
    (empty,) = clip.encode_captions(encoder, tokenizer, [""])
    assert torch.allclose(data.prompt_embeds[0].float(), empty[0].float(), atol=2e-2)


@pytest.mark.slow
def test_a_short_training_learns_from_a_fair_sample_that_a_longer_one_extends(trained, tmp_path):
    tiny = datasheet.find_grammar("tiny")
    few, more = scene_order.training_scenes(tiny, 50), scene_order.training_scenes(tiny, 120)
    assert more[:50] == few and len(set(more)) == 120
    assert few == scene_order.training_scenes(tiny, 50) and few != sorted(few)
    work = tmp_path / "work"
    for part in ("vae", "clip"):
        shutil.copytree(trained / part, work / part)
    data = work_folder.latent_data(tiny, work, 50)
    assert data.scenes.tolist() == few and len(data.latents) == len(data.captions) == 50
    again = work_folder.latent_data(tiny, work)  # as many as the last time
    assert again.scenes.tolist() == few and torch.equal(again.latents, data.latents)
    everything = work_folder.latent_data(tiny, trained)
    assert torch.allclose(everything.latents[:50].float(), data.latents.float(), atol=0.05)


@pytest.mark.slow
def test_an_exported_model_trains_on_elsewhere(trained, tmp_path, capsys):
    tiny, arguments = datasheet.find_grammar("tiny"), ["--grammar", "tiny", "--work", str(tmp_path / "work")]
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    run = lambda part, *more: train.main(parser.parse_args([part, *arguments, *more]))
    assert run("restore", "--output", str(trained / "model")) == 0
    told = json.loads((trained / "model" / "training.json").read_text())["denoiser"]
    before = load_file(tmp_path / "work" / "denoiser" / f"step-{told['step']:08d}.safetensors")
    for shard in (trained / "model" / "unet").glob("*.safetensors"):
        for name, tensor in load_file(shard).items():
            restored = before[f"model.unet.{name}"]
            if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):  # read whitened text in training
                restored = restored @ before["model.whitening"]
            torch.testing.assert_close(restored, tensor.float(), atol=1e-5, rtol=1e-4)
    assert work_folder.finished_autoencoder(tmp_path / "work") == tmp_path / "work" / "decoder" / "part"
    laid = UNet2DConditionModel.from_pretrained(tmp_path / "work" / "denoiser" / "part")
    turbo = json.loads((trained / "model" / "extras" / "turbo" / "training.json").read_text())
    assert trainer.digest(laid) == turbo["base"], "what was trained for it still fits"

    few = ("--batch-size", "3", "--scenes", "20", "--ignore-gate")
    assert run("denoiser", "--steps", str(told["step"] + 1), *few) == 0
    record = json.loads((tmp_path / "work" / "denoiser" / "part" / "training.json").read_text())
    assert record["step"] == told["step"] + 1 and record["samples"] == told["samples"] + 3
    assert record["seconds"] > told["seconds"]
    assert told["epochs"] == [{"start": 0, "scenes": len(scene_order.training_scenes(tiny)), "factors": {}}]
    assert record["epochs"] == [*told["epochs"], {"start": told["samples"], "scenes": 20, "factors": {}}]
    (stage,) = told["stages"]
    assert stage == {
        "samples": 8, "batch size": 4, "learning rate": 3e-3, "log SNR": [-0.5, 2.0], "encoder": stage["encoder"],
    }  # fmt: skip
    assert record["stages"] == [stage, stage | {"samples": 3, "batch size": 3}]
    assert len(stage["encoder"]) == 12, "and the restored encoder is the same one"
    clip_step = json.loads((trained / "model" / "training.json").read_text())["clip"]["step"]
    laid = load_file(tmp_path / "work" / "clip" / f"step-{clip_step:08d}.safetensors")
    kept = load_file(trained / "model" / "extras" / "clip" / clip.IMAGE_TOWER)
    assert not any(name.startswith("text_model.") for name in kept), "that is the pipeline's text encoder"
    for name, tensor in (kept | load_file(trained / "model" / "text_encoder" / "model.safetensors")).items():
        assert torch.equal(laid[f"model.clip.{name}"], tensor.float()), name
    assert run("clip", "--steps", str(clip_step + 1), "--batch-size", "2") == 0
    assert json.loads((tmp_path / "work" / "clip" / "part" / "training.json").read_text())["step"] == clip_step + 1
    with pytest.raises(ValueError, match="states of another autoencoder, encoder or grammar; remove"):
        run("denoiser", "--steps", str(told["step"] + 2), "--ignore-gate")
    shutil.rmtree(tmp_path / "work" / "encoded")
    with pytest.raises(ValueError, match="states of another text encoder; give --restart"):
        run("denoiser", "--steps", str(told["step"] + 2), *few)
    with pytest.raises(FileExistsError, match="holds a clip already"):
        run("restore", "--output", str(trained / "model"))
    for folder, sentence in ((tmp_path, "folder that `sdwidgets train export` wrote"), (data_folder("pocket"), "")):
        with pytest.raises(ValueError, match=sentence or "was trained on the grammar"):
            run("restore", "--output", str(folder))


@pytest.mark.slow
def test_a_branch_cools_down_and_the_training_goes_on_from_before_it(trained, tmp_path, monkeypatch):
    """Its rate falls to zero, it is resumed as one run, its weights become the part, and the checkpoint that it left stays bit for bit."""
    work, schedule = tmp_path / "work", dataclasses.replace(denoiser.DenoiserConfig().schedule, warmup_steps=0)
    monkeypatch.setattr(denoiser, "DenoiserConfig", functools.partial(denoiser.DenoiserConfig, schedule=schedule))
    for part in ("vae", "clip", "denoiser", "encoded"):
        shutil.copytree(trained / part, work / part)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)

    def run(*more):
        arguments = ["denoiser", "--grammar", "tiny", "--work", str(work), "--batch-size", "4", "--ignore-gate"]
        assert train.main(parser.parse_args([*arguments, *more])) == 0
        return json.loads((work / "denoiser" / "part" / "training.json").read_text())

    checkpoint = {file.name: file.read_bytes() for file in (work / "denoiser").glob("*.*")}
    whole = run("--cool-down", "16")
    assert checkpoint == {file.name: file.read_bytes() for file in (work / "denoiser").glob("*.*")}
    schedule = trainer.Schedule(**whole["config"]["schedule"])
    rates = [schedule.rate(step) / schedule.learning_rate for step in range(7)]
    assert schedule.steps == whole["step"] == 6 and schedule.ema_decay == 0.5
    assert rates[2:6] == sorted(rates[2:6], reverse=True) and rates[6] == 0
    assert [(stage["samples"], stage.get("cool-down")) for stage in whole["stages"]] == [(8, None), (16, 16)]
    weights = UNet2DConditionModel.from_pretrained(work / "denoiser" / "part").state_dict()
    assert run("--cool-down", "16")["step"] == 6, "finished, and so not trained again"
    for name, tensor in UNet2DConditionModel.from_pretrained(work / "denoiser" / "part").state_dict().items():
        assert torch.equal(weights[name], tensor), name
    on = run("--steps", "3")
    assert on["step"] == 3 and "branch" not in on and on["samples"] == 12
    assert run("--cool-down", "8")["branch"] == {"step": 3, "steps": 2}, "a later checkpoint is another branch"
    for wrong in (("--cool-down", "0"), ("--cool-down", "8", "--restart"), ("--cool-down", "8", "--steps", "9")):
        with pytest.raises(ValueError, match="--cool-down (must be 1|goes on from)"):
            run(*wrong)


@pytest.mark.slow
def test_the_small_decoder_belongs_to_the_whole_autoencoder_and_takes_its_decoders_place(trained, tmp_path, capsys):
    folder = trained / "model" / "extras" / "small-decoder"
    record = json.loads((folder / "training.json").read_text())
    pipe = StableDiffusionPipeline.from_pretrained(trained / "model")
    whole = pipe.vae
    assert record["base"] == trainer.digest(whole) and record["step"] == 2
    assert math.isfinite(record["decoders agree, dB"])
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3e6, "the encoder is not there once more"
    small = with_small_decoder(whole, folder)
    assert (
        trainer.digest(small.encoder) == trainer.digest(whole.encoder)
        and small.config.scaling_factor == whole.config.scaling_factor
    )
    latents = torch.randn(2, 4, 3, 4)
    with torch.no_grad():
        ours, theirs = (vae.decode(latents).sample for vae in (small, whole))
    assert ours.shape == theirs.shape and not torch.allclose(ours, theirs)
    pipe.vae = small
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a cat", num_inference_steps=1).images[0].size == (128, 128)
    export._export_extra(trained / "small-decoder" / "part", tmp_path / "small-decoder", "0" * 12, "autoencoder")
    assert "for another autoencoder" in capsys.readouterr().out and not (tmp_path / "small-decoder").exists()
    with pytest.raises(ValueError, match="no decoder of such"):
        shutil.copytree(folder, tmp_path / "wrong")
        trainer.save_tensors(tmp_path / "wrong" / "decoder.safetensors", {"decoder.other": torch.zeros(1)})
        with_small_decoder(whole, tmp_path / "wrong")


def test_a_small_decoder_as_large_as_the_whole_one_says_the_same_but_for_a_block_a_level():
    torch.manual_seed(0)
    whole = vae.build_vae(vae.VaeConfig(channels=(8, 8, 16, 16))).eval()
    for block in whole.decoder.up_blocks:  # second blocks that add nothing
        torch.nn.init.zeros_(block.resnets[1].conv2.weight)
        torch.nn.init.zeros_(block.resnets[1].conv2.bias)
    torch.nn.init.normal_(whole.decoder.conv_out.weight, std=0.01)  # no pixel is clamped
    config = small_decoder.SmallDecoderConfig(channels=(8, 8, 16, 16))
    small = small_decoder.build_small_decoder(whole, config).eval()
    pictures, noise = torch.rand(2, 3, 32, 32) * 2 - 1, torch.zeros(2, 4, 4, 4)
    with torch.no_grad():
        latents = whole.encode(pictures).latent_dist.mode()
        torch.testing.assert_close(small.decode(latents).sample, whole.decode(latents).sample, atol=1e-4, rtol=1e-4)
        learning = small_decoder.SmallDecoderTraining(small, whole, config)
        assert float(learning(pictures, noise)) < 1e-3 and not any(
            "encoder." in n for n in learning.state_dict() if "condition" not in n
        )
    narrow = small_decoder.build_small_decoder(whole, dataclasses.replace(config, channels=(8, 8, 8, 16)))
    assert torch.equal(
        narrow.decoder.up_blocks[1].resnets[0].conv1.weight, whole.decoder.up_blocks[1].resnets[0].conv1.weight[:8]
    )
    learning = small_decoder.SmallDecoderTraining(narrow, whole.requires_grad_(False), config)
    learning(pictures, noise).backward()
    assert all(p.grad is not None for p in learning.parameters() if p.requires_grad)
    assert (
        narrow.decoder.conv_in.weight.grad is not None
        and narrow.decoder.condition_encoder.layers[0].weight.grad is None
    )


def test_the_small_decoder_sees_latents_of_every_noise_up_to_its_most():
    seen = []
    config = small_decoder.SmallDecoderConfig(latent_noise=0.5)
    model = lambda pictures, noise: seen.append((pictures, noise))
    for step in range(2):
        small_decoder.small_decoder_loss_at(config)(model, step, 16, SimpleNamespace(process_index=0, device="cpu"))
    (pictures, noise), (_, later) = seen
    assert pictures.shape == (16, 3, 128, 128) and noise.shape == (16, 4, 16, 16) and not torch.equal(noise, later)
    spread = torch.cat([noise, later]).std((1, 2, 3))
    assert spread.max() < 0.6 and spread.min() < 0.15 and spread.max() > 0.35
    for wrong in ({"latent_noise": -1.0}, {"latent_noise": float("nan")}, {"lattice_share": 2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            small_decoder.SmallDecoderConfig(**wrong)


@pytest.mark.slow
def test_an_export_takes_no_extra_of_another_denoiser(trained, tmp_path, capsys):
    base = trainer.digest(UNet2DConditionModel.from_pretrained(trained / "model" / "unet"))
    for extra in ("turbo", "zero-snr", "adapter"):
        part, folder = trained / extra / "part", tmp_path / extra
        record = json.loads((trained / "model" / "extras" / extra / "training.json").read_text())
        assert record["base"] == base and record["stages"] == [
            {
                "samples": 8,
                "scenes": len(scene_order.training_scenes(datasheet.find_grammar("tiny"))),
                "batch size": 4,
                "learning rate": record["config"]["schedule"]["learning_rate"],
            }
        ]
        export._export_extra(part, folder, base)
        files = sorted(file.relative_to(folder) for file in folder.rglob("*"))
        assert files == sorted(file.relative_to(part) for file in part.rglob("*"))
        export._export_extra(tmp_path / "nothing", folder, base)
        assert folder.is_dir() and not capsys.readouterr().out, "what an earlier export took is still of this denoiser"
        export._export_extra(part, folder, "0" * 12)
        out = capsys.readouterr().out
        assert not folder.exists() and f"left out {part}: it was trained for another denoiser" in out
        assert f"removed {folder}" in out and f"`sdwidgets train {extra}`" in out
    old = tmp_path / "old"
    shutil.copytree(trained / "turbo" / "part", old)
    trainer.write_json(old / "training.json", {"step": 2})
    export._export_extra(old, tmp_path / "turbo", base)
    assert "does not say for which" in capsys.readouterr().out and not (tmp_path / "turbo").exists()


def test_a_digest_is_of_the_weights_in_half_precision():
    torch.manual_seed(0)
    line = torch.nn.Linear(3, 2)
    first, half = trainer.digest(line), trainer.digest(torch.nn.Linear(3, 2).half())
    assert first == trainer.digest(line.half()) == trainer.digest(line.float()) != half
    with torch.no_grad():
        line.bias[1] += 0.01
    assert trainer.digest(line) != first


@pytest.mark.parametrize(
    ("gate", "found"),
    [
        ({"object 1": 1.0, "count": 0.989, "relation": 0.5}, "count 98.9%, relation 50.0%"),
        ({"count": float("nan")}, "count nan%"),
        ({}, "nothing yet"),
        ({"object 1": 1.0, "count": 0.99}, None),
    ],
)
def test_no_denoiser_is_trained_on_an_encoder_that_did_not_pass_its_gate(tmp_path, gate, found):
    for part in ("vae", "clip"):
        (tmp_path / part / "part").mkdir(parents=True)
    trainer.write_json(tmp_path / "clip" / "part" / "training.json", {"gate": gate})
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    run = lambda *more: train.main(
        parser.parse_args(["denoiser", "--grammar", "tiny", "--work", str(tmp_path), *more])
    )
    if found is not None:
        with pytest.raises(ValueError, match=f"not passed its gate: probes read {found}, and 99%.*--ignore-gate"):
            run()
    with pytest.raises(OSError, match="config.json"):  # past the gate, the parts of this test are empty folders
        run(*([] if found is None else ["--ignore-gate"]))


def test_the_encoder_that_ships_passed_its_gate():
    told = json.loads((data_folder("pocket") / "training.json").read_text())["clip"]["gate"]
    assert set(told) == set(clip._questions()) and min(told.values()) >= work_folder.GATE


def test_the_bench_measures_each_change_against_the_plain_recipe():
    changes = (
        Change("plain", "1", {"batch_size": 1}),
        Change("plain attention", "?", {"batch_size": 1, "attention": "plain"}),
    )
    plain, other = speed("denoiser", changes, turns=1)
    assert (plain["change"], plain["ratio"]) == ("plain", 1.0) and other["expected"] == "?"
    for row in (plain, other):
        low, high = row["quartiles"]
        assert 0 < low <= row["samples_per_second"] <= high and row["ratio"] > 0


@pytest.mark.parametrize("told", ["0", "1"])
def test_bfloat16_is_what_the_environment_says(monkeypatch, told):
    monkeypatch.setenv("SDWIDGETS_BF16", told)
    trainer.faster_in_bfloat16.cache_clear()
    layer = torch.nn.Linear(4, 4)
    with trainer.fast_arithmetic("cpu"):
        assert layer(torch.zeros(1, 4)).dtype == (torch.bfloat16 if told == "1" else torch.float32)
    trainer.faster_in_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["vae", "--grammar", "klingon"], "there are: encoder, full, tiny"),
        (["vae", "--grammar", "tiny", "--steps", "0"], "--steps must be 1 or more"),
        (["vae", "--grammar", "tiny", "--batch-size", "-3"], "--batch-size must be 1 or more"),
        (["vae", "--grammar", "tiny", "--learning-rate", "0"], "--learning-rate must be above 0"),
        (["export", "--grammar", "tiny"], "export needs --output"),
        (["denoiser", "--grammar", "tiny", "--scenes", "0"], "--scenes must be 1 to "),
        (["denoiser", "--grammar", "tiny"], "run `sdwidgets train vae`"),
    ],
)
def test_bad_arguments_are_sentences(tmp_path, arguments, sentence):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        train.main(parser.parse_args([*arguments, "--work", str(tmp_path)]))

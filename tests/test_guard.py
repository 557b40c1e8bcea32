"""No training goes on in silence where a parameter gets no gradient or does not move; and none is compiled for a CPU."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import harness, table
from bench import training as bench
from sdwidgets.paths import data_folder
from sdwidgets.pocket import train
from sdwidgets.pocket.cards import model_card
from sdwidgets.pocket.training import adapter, clip, denoiser, guard, lora, small_decoder, trainer, turbo, vae
from sdwidgets.pocket.world import datasheet
from tests import tiny

SCHEDULE = trainer.Schedule(steps=12, batch_size=4, learning_rate=1e-2, warmup_steps=5)
TINY = datasheet.find_grammar("tiny")


class Pair(torch.nn.Module):
    """Two layers, the first of which may be cut off from the loss."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)
        self.cut = lambda x: x

    def forward(self, x):
        return (self.second(self.cut(self.first(x)).tanh()) - x.sum(dim=1, keepdim=True)).square().mean()


class NoGradient(torch.autograd.Function):
    """Hands back zeros, as a nearest upsampling does that is compiled for a CPU."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


def loss_at(model, step, batch_size, accelerator):
    return model(torch.randn(batch_size, 3, generator=torch.Generator().manual_seed(step)))


def fit(folder, cut=None, loss_at=loss_at, **changes):
    torch.manual_seed(0)
    module = Pair()
    module.cut = cut or module.cut
    return trainer.train("pair", module, loss_at, dataclasses.replace(SCHEDULE, **changes), folder, {})


# ---- what stops ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("cut", [torch.Tensor.detach, NoGradient.apply], ids=["none", "zeros"])
def test_a_layer_without_a_gradient_stops_the_training_by_name_and_nothing_is_saved(tmp_path, cut, optimizer):
    sentence = r"pair stopped after 10 steps: 2 of 4 parameters \(first\.weight, first\.bias\) got no gradient.*detach.*a save before"
    with pytest.raises(guard.Stopped, match=sentence) as stopped:
        fit(tmp_path, cut, optimizer=optimizer)
    assert isinstance(stopped.value, RuntimeError) and not list(tmp_path.iterdir())
    assert stopped.value.__context__ is None, "told once"


def test_a_resumed_run_is_guarded_and_leaves_the_save_before(tmp_path):
    _, record = fit(tmp_path)
    assert record["moved"] == [21, 21]
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(guard.Stopped, match=r"after 10 steps: 2 of 4 parameters \(first\.weight, first\.bias\)"):
        fit(tmp_path, NoGradient.apply, steps=30)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept
    assert fit(tmp_path, steps=30)[1]["step"] == 30


def test_a_gradient_that_ends_later_stops_the_training_at_a_save(tmp_path):
    def ends(model, step, batch_size, accelerator):
        model.cut = NoGradient.apply if step >= 15 else torch.Tensor.clone
        return loss_at(model, step, batch_size, accelerator)

    with pytest.raises(guard.Stopped, match=r"after 120 steps: 2 of 4 parameters \(.*\) got no gradient"):
        fit(tmp_path, loss_at=ends, steps=120)
    assert not list(tmp_path.iterdir())


def test_what_the_optimiser_does_not_hold_has_a_gradient_and_does_not_move(tmp_path, monkeypatch):
    second = lambda schedule, module: torch.optim.AdamW(module.second.parameters())
    monkeypatch.setattr(trainer.Schedule, "build_optimizer", second)
    with pytest.raises(guard.Stopped, match=r"2 of 4 parameters \(first\.weight, first\.bias\) did not move"):
        fit(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_only_decayed_has_not_moved_however_often():
    torch.manual_seed(0)
    module = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.randn(16, 16)) for name in ("decayed", "learned")})
    watch = guard.Guard("net", module)
    for step in range(2_000):
        with torch.no_grad():
            module["decayed"].mul_(1 - 3e-5)
            module["learned"].mul_(1 - 3e-5).add_(torch.randn(16, 16), alpha=1e-4)
        for parameter in module.values():
            parameter.grad = torch.ones_like(parameter)
        watch.watch(1e-3)
        if step in (9, 1_999):
            with pytest.raises(
                guard.Stopped, match=r"1 of 2 parameters \(decayed\) did not move, but for a common factor"
            ):
                watch.check()
    assert float(module["decayed"].detach().norm() / watch.start[0].norm()) < 0.95


def test_what_is_no_number_any_more_stops_the_training(tmp_path):
    def breaks(model, step, batch_size, accelerator):
        return loss_at(model, step, batch_size, accelerator) * (float("nan") if step == 5 else 1)

    with pytest.raises(
        guard.Stopped, match=r"after 10 steps: 4 of 4 parameters .* not finite; lower the learning rate"
    ):
        fit(tmp_path, loss_at=breaks)
    assert not list(tmp_path.iterdir())


# ---- what does not stop ----------------------------------------------------------------------------------------


def test_a_rate_of_nothing_moves_nothing_and_is_no_fault():
    module = torch.nn.Linear(4, 4)
    watch = guard.Guard("line", module)
    for rate in [0.0] * 9 + [1e-12]:
        module(torch.ones(2, 4)).square().sum().backward()
        watch.watch(rate)
    assert watch.check() == [0, 20]
    watch.watch(1e-3)
    with pytest.raises(guard.Stopped, match=r"\(weight, bias\) did not move"):
        watch.check()


def test_a_number_at_its_bound_may_rest():
    torch.manual_seed(0)
    small = clip.ClipConfig(
        width=16, layers=1, heads=2, context=8, vision_width=32, vision_layers=1, patch=64, projection=8
    )
    tokenizer = tiny.clip_tokenizer()
    module = clip.ClipTraining(clip.build_clip(small, tokenizer), max_logit_scale=2.0)  # it begins at 14
    pictures = torch.randn(4, 3, 128, 128, generator=tiny.generator())
    tokens = torch.randint(3, 20, (4, 8), generator=tiny.generator())
    tokens[:, -1] = tokenizer.eos_token_id  # whose state is a caption's
    watch, optimizer = guard.Guard("clip", module), torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(10):
        optimizer.zero_grad()
        module(pictures, tokens).backward()
        watch.watch(1e-3)
        optimizer.step()
    moved, of = watch.check()
    assert not module.clip.logit_scale.grad and moved == of - 1, "all but the scale"
    watch.may_rest, watch.watched = (), 10
    with pytest.raises(guard.Stopped, match="clip.logit_scale"):
        watch.check()


def test_a_few_steps_are_not_judged_and_what_moved_before_counts(tmp_path):
    assert fit(tmp_path / "cut", NoGradient.apply, steps=9)[1]["moved"] == [5, 21], "too few to tell why"
    fit(tmp_path / "whole")
    assert fit(tmp_path / "whole", NoGradient.apply, steps=14)[1]["moved"] == [21, 21]


# ---- every part ------------------------------------------------------------------------------------------------

PART = dataclasses.replace(SCHEDULE, optimizer="adamw", batch_size=2, learning_rate=1e-3)


def small_unet():
    """Two levels with attention at both ends, as an adapter wants it, the same at every call."""
    return copy.deepcopy(tiny.pipeline().unet)


@pytest.fixture(scope="module")
def data() -> denoiser.LatentData:
    latents, states = (
        torch.randn(8, 4, 16, 16, generator=tiny.generator()),
        torch.randn(3, 77, 32, generator=tiny.generator()),
    )
    return denoiser.LatentData(latents, states, torch.arange(8) % 3, torch.arange(8))


def train_decoder(data, folder, compiled=False):
    """As `run_small_decoder` does, narrow."""
    torch.manual_seed(0)
    whole = vae.build_vae(vae.VaeConfig(channels=(8, 8, 16, 16))).eval().requires_grad_(False)
    config = small_decoder.SmallDecoderConfig(channels=(8, 8, 8, 16), schedule=PART)
    module = small_decoder.SmallDecoderTraining(small_decoder.build_small_decoder(whole, config), whole, config)
    return trainer.train(
        "small-decoder", module, small_decoder.small_decoder_loss_at(config), PART, folder, {}, compiled=compiled
    )[1]


LORA = {"rank": 4, "targets": ("to_q", "to_out.0", "conv1", "time_emb_proj"), "schedule": PART}


def train_turbo(data, folder, **options):
    config = turbo.TurboConfig(calls=2, kept_rank=2, **LORA)
    return turbo.train_turbo(small_unet(), data, config, folder, **options)


def train_zero_snr(data, folder, **options):
    return lora.train_zero_snr(small_unet(), data, lora.ZeroSnrConfig(**LORA), folder, **options)


def train_adapter(data, folder, **options):
    return adapter.train_adapter(small_unet(), data, TINY, adapter.AdapterConfig(schedule=PART), folder, **options)


EXTRAS = {"turbo": train_turbo, "zero-snr": train_zero_snr, "adapter": train_adapter, "small-decoder": train_decoder}


@pytest.mark.parametrize("part", EXTRAS)
def test_what_is_trained_beside_a_frozen_net_passes_and_is_guarded(data, tmp_path, monkeypatch, part):
    """LoRAs too, whose first matrices have no gradient at first: every parameter moves, and one that is held still is found."""
    record = EXTRAS[part](data, tmp_path / "whole")
    assert record["step"] == 12 and record["moved"][0] == record["moved"][1] > 1_000
    fit_module = trainer.train

    def held(name, module, *more, **options):
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        trained[-2].register_hook(torch.zeros_like)
        return fit_module(name, module, *more, **options)

    monkeypatch.setattr(trainer, "train", held)
    with pytest.raises(
        guard.Stopped, match=rf"{part} stopped after 10 steps: 1 of \d+ parameters \(.*\) got no gradient"
    ):
        EXTRAS[part](data, tmp_path / "held")
    assert not [file for file in (tmp_path / "held").rglob("*") if file.is_file()]


def test_the_record_and_the_card_tell_how_much_moved():
    records = json.loads((data_folder("pocket") / "training.json").read_text())
    grammar = datasheet.find_grammar(records.pop("grammar"))
    for record in records.values():
        record.pop("moved", None)
    assert "parameters moved" not in model_card.model_card(grammar, records), "no claim of what was not watched"
    records["denoiser"]["moved"], records["vae"]["moved"] = [961_604, 8_886_532], [9, 9]
    told = model_card.model_card(grammar, records)
    assert "vae, 9 of 9 parameters moved; denoiser, 961,604 of 8,886,532 parameters moved." in told


# ---- weights that lie there already ----------------------------------------------------------------------------


def test_sleeping_parameters_of_finished_weights_are_found_by_their_start():
    start, net = small_unet(), small_unet()
    generator = tiny.generator()
    slept = {"mid_block.resnets.0.conv1.weight", "mid_block.resnets.0.norm1.weight", "mid_block.resnets.0.norm1.bias"}
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in slept:
                parameter.mul_(0.8)
            else:
                parameter.add_(
                    0.1 * (parameter.std(correction=0) + 0.3) * torch.randn(parameter.shape, generator=generator)
                )
    assert set(guard.asleep(net.half(), start)) == slept
    assert len(guard.asleep(start, small_unet())) == len(list(start.parameters()))


# ---- compiling -------------------------------------------------------------------------------------------------


def on(device: str, monkeypatch) -> None:
    monkeypatch.setattr(trainer, "processes", lambda: SimpleNamespace(device=torch.device(device)))


def test_compiling_is_refused_without_cuda_before_anything_is_made(tmp_path, monkeypatch, data):
    on("cpu", monkeypatch)
    sentence = "--compile.* is for CUDA alone, and this runs on cpu: .*zero.* leave --compile out"
    with pytest.raises(ValueError, match=sentence):
        trainer.train("pair", Pair(), loss_at, SCHEDULE, tmp_path / "work", {}, compiled=True)
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    for part in train.PARTS:
        with pytest.raises(ValueError, match=sentence):
            train.main(parser.parse_args([part, "--grammar", "tiny", "--work", str(tmp_path / "work"), "--compile"]))
    unet = small_unet()
    monkeypatch.setitem(globals(), "small_unet", lambda: unet)
    for fit_part in EXTRAS.values():
        with pytest.raises(ValueError, match=sentence):
            fit_part(data, tmp_path / "work", compiled=True)
    assert not (tmp_path / "work").exists() and not any("lora" in name for name, _ in unet.named_parameters())
    with pytest.raises(ValueError, match=sentence):
        bench.build("denoiser", {"compile": True})
    on("cuda", monkeypatch)
    trainer.check_compiled(True)


def test_compiled_rows_that_a_cpu_measured_are_told_to_be_no_advice():
    row = {
        "part": "vae",
        "change": "compiled",
        "expected": "1",
        "ratio": 1.0,
        "samples_per_second": 30.0,
        "quartiles": [30, 30],
    }
    machine = harness.machine() | {"load_average": None}
    machine.pop("gpu", None)
    page = lambda machine, change: table.describe(
        {"bench": "training", "turns": 3, "machine": machine, "rows": [row | {"change": change}]}
    )
    assert "Do not follow" in page(machine, "compiled") and "Do not follow" not in page(machine, "bfloat16")
    assert "Do not follow" not in page(machine | {"gpu": {"name": "a card"}}, "compiled")


def gradients(
    precision: torch.dtype, compiled: bool, device: str = "cuda", batch_size: int = 32
) -> dict[str, np.ndarray]:
    """Of every parameter of Pocket's U-Net, in the shapes and the layout that it trains in."""
    config = denoiser.DenoiserConfig()
    torch.manual_seed(0)
    module = denoiser.DenoiserTraining(denoiser.for_training(denoiser.build_unet(config)), config).to(device)
    generator = tiny.generator()
    latents, noise = torch.randn(2, batch_size, 4, 16, 16, generator=generator).to(device)
    timesteps = torch.randint(1000, (batch_size,), generator=generator).to(device)
    states = torch.randn(batch_size, 77, config.text_width, generator=generator).to(device)
    if compiled:
        torch._dynamo.reset()
        module.compile()
    with torch.autocast(device, torch.bfloat16, enabled=precision == torch.bfloat16):
        module(latents, noise, timesteps, states).backward()
    return {name: parameter.grad.float().cpu().numpy().ravel() for name, parameter in module.named_parameters()}


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "alike"), [(torch.float32, 0.99), (torch.bfloat16, 0.9)], ids=str)
def test_compiled_gradients_are_the_eager_ones(precision, alike):
    """On a CPU they are not: in bfloat16 whatever lies before an upsampling from 8 x 8 gets zeros."""
    eager, compiled = (gradients(precision, compiled) for compiled in (False, True))
    for name, gradient in eager.items():
        sizes = np.linalg.norm(gradient), np.linalg.norm(compiled[name])
        assert gradient @ compiled[name] > alike * sizes[0] * sizes[1] > 0, name
        assert sizes[1] == pytest.approx(sizes[0], rel=1 - alike), name

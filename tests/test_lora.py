"""Fine-tuning: a LoRA, a word, the zero-SNR repair and the silhouette adapter, trained for a few real steps."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    LCMScheduler,
    StableDiffusionAdapterPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from sdwidgets.pocket.training import adapter, denoiser, trainer, turbo
from sdwidgets.pocket.training import lora as finetune
from sdwidgets.pocket.world import datasheet, scenes
from tests import tiny

GRAMMAR = datasheet.Grammar("few", (datasheet.Block("one object", 64, datasheet.one_object),))
CAPTIONS = ["a cat on a red background", "a thing", "two dogs", "a star"]
FEW = finetune.LoraSettings(rank=4, steps=8, batch_size=4, learning_rate=3e-2)
WORD = finetune.WordSettings(word="<gizmo>", initializer="t", steps=8, batch_size=4, learning_rate=1e-1)


def pipeline(**scheduler):
    """A tiny pipeline of its own, which a test may change."""
    pipe = tiny.pipeline("sd")
    parts = {name: copy.deepcopy(part) for name, part in pipe.components.items() if name != "scheduler"}
    config = {"prediction_type": "v_prediction", **scheduler}
    return tiny.pipeline("sd", scheduler=tiny.sd_scheduler(**config), **parts)


def pictures(count: int = 4, size=(48, 64)) -> list[Image.Image]:
    """Scenes, in the size that the tiny pipeline draws."""
    return [scenes.render(GRAMMAR.scene(index)).resize(size) for index in range(count)]


def fixed_loss(pipe, images, captions) -> float:
    """The loss of one batch that stays the same: every caption at eight noise levels."""
    latents = finetune.encode_pictures(pipe, images).repeat(8, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=tiny.generator(5))
    timesteps = torch.arange(60, 1000, 125).repeat_interleave(len(images))
    with torch.no_grad():
        embeds = pipe.text_encoder(finetune.tokenize(pipe, captions))[0].repeat(8, 1, 1)
        return float(finetune.denoising_loss(pipe.unet, pipe.scheduler, latents, noise, timesteps, embeds))


def weights(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict, module, same_name=lambda name: name) -> set[str]:
    after = module.state_dict()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[same_name(name)])}


# ---- the loss ----------------------------------------------------------------------------------------------


class Oracle(torch.nn.Module):
    """Predicts exactly what it was told to."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, noisy, timesteps, prompt_embeds):
        return argparse.Namespace(sample=self.answer)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_zero_for_the_right_answer_and_min_snr_weighted_for_another(prediction):
    scheduler = tiny.sd_scheduler("DDPMScheduler", prediction_type=prediction)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=tiny.generator())
    timesteps = torch.tensor([10, 500, 990])
    a = scheduler.alphas_cumprod[timesteps].sqrt().view(3, 1, 1, 1)
    s = (1 - a**2).sqrt()
    right = noise if prediction == "epsilon" else a * noise - s * latents
    loss = lambda answer, gamma: float(
        finetune.denoising_loss(Oracle(answer), scheduler, latents, noise, timesteps, None, gamma)
    )
    assert loss(right, 5.0) == pytest.approx(0, abs=1e-9)
    assert loss(right + 1, None) == pytest.approx(1)
    # Min-SNR is a clamp of the x0-weight: min(snr, gamma), over what turns an error of the target into one of x0.
    snr = (a / s).flatten() ** 2
    divisor = snr if prediction == "epsilon" else snr + 1
    assert loss(right + 1, 5.0) == pytest.approx(float((snr.clamp(max=5) / divisor).mean()), rel=1e-4)


def test_denoising_loss_is_the_one_that_pocket_was_trained_with():
    config = small_config()
    unet = denoiser.build_unet(config)
    model = denoiser.DenoiserTraining(unet, config)
    latents, noise = torch.randn(2, 2, 4, 16, 16, generator=tiny.generator())
    timesteps, embeds = torch.tensor([100, 800]), torch.randn(2, 77, 192, generator=tiny.generator())
    with torch.no_grad():
        ours = finetune.denoising_loss(unet, model.scheduler, latents, noise, timesteps, embeds)
        assert float(ours) == pytest.approx(float(model(latents, noise, timesteps, embeds)), rel=1e-5)


def test_every_picture_is_shown_before_one_is_shown_again():
    settings = finetune.LoraSettings(steps=5, batch_size=4)
    batches = torch.cat(list(finetune._batches(10, settings, tiny.generator()))).tolist()
    assert len(batches) == 20 and sorted(batches[:10]) == sorted(batches[10:]) == list(range(10))


# ---- LoRA --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """(the bare picture, losses before and after, weights before, the pipeline with its LoRA, record, folder)"""
    pipe, images, folder = pipeline(), pictures(), tmp_path_factory.mktemp("lora")
    bare, before = tiny.run(pipe), fixed_loss(pipe, images, CAPTIONS)
    parts = {name: weights(getattr(pipe, name)) for name in ("unet", "vae", "text_encoder")}
    record = finetune.train_lora(pipe, images, CAPTIONS, FEW, progress=False)
    finetune.save_lora(pipe.unet, folder)
    after = fixed_loss(pipe, images, CAPTIONS)
    return argparse.Namespace(
        bare=bare, before=before, after=after, parts=parts, pipe=pipe, record=record, folder=folder
    )


def test_a_lora_lowers_the_loss_and_nothing_else_moves(lora):
    assert lora.after < 0.97 * lora.before
    assert lora.record["steps"] == len(lora.record["losses"]) == 8 and lora.record["seconds"] > 0
    assert lora.record["settings"]["rank"] == 4
    assert not changed(lora.parts["vae"], lora.pipe.vae)
    assert not changed(lora.parts["text_encoder"], lora.pipe.text_encoder)
    names = set(lora.pipe.unet.state_dict())
    wrapped = lambda name: name if name in names else ".base_layer.".join(name.rsplit(".", 1))
    assert not changed(lora.parts["unet"], lora.pipe.unet, wrapped)
    moved = [name for name, tensor in lora.pipe.unet.state_dict().items() if "lora_B" in name and tensor.any()]
    assert len(moved) == 4 * 8, "in four places, both attentions, every matrix learns"


def test_a_saved_lora_loads_through_the_stock_call_and_has_a_strength(lora):
    pipe = pipeline()
    pipe.load_lora_weights(lora.folder, adapter_name="style")
    full = tiny.run(pipe)
    assert np.abs(full - tiny.run(lora.pipe)).max() < 0.01, "fp16 rounding apart, it is the LoRA that was trained"
    assert np.abs(full - lora.bare).max() > 0.02
    pipe.set_adapters("style", 0.0)
    assert np.array_equal(tiny.run(pipe), lora.bare)
    pipe.set_adapters("style", 1.0)
    assert np.array_equal(tiny.run(pipe, cross_attention_kwargs={"scale": 0.0}), lora.bare)
    pipe.unload_lora_weights()
    assert np.array_equal(tiny.run(pipe), lora.bare)


def test_a_lora_of_everything_saves_its_convolutions_too(tmp_path):
    pipe, images = pipeline(), pictures()
    before, bare = fixed_loss(pipe, images, CAPTIONS), tiny.run(pipe)
    settings = dataclasses.replace(FEW, targets=finetune.EVERYWHERE, learning_rate=1e-2)
    finetune.train_lora(pipe, images, CAPTIONS, settings, progress=False)
    assert fixed_loss(pipe, images, CAPTIONS) < 0.95 * before
    tensors = load_file(finetune.save_lora(pipe.unet, tmp_path))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert {tensor.ndim for tensor in tensors.values()} == {2, 4}
    trained = tiny.run(pipe)
    pipe.unload_lora_weights()
    assert np.array_equal(tiny.run(pipe), bare)
    pipe.load_lora_weights(tmp_path)
    assert np.abs(tiny.run(pipe) - trained).max() < 0.01


def test_the_same_seed_trains_the_same_lora_whatever_the_global_seed(lora):
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = finetune.train_lora(pipeline(), pictures(), CAPTIONS, FEW, progress=False)
    assert again["losses"] == lora.record["losses"]
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random numbers stay theirs"
    other = dataclasses.replace(FEW, seed=1, steps=2)
    assert (
        finetune.train_lora(pipeline(), pictures(), CAPTIONS, other, progress=False)["losses"] != again["losses"][:2]
    )


def test_the_pipeline_that_was_trained_weakens_and_hides_its_lora(lora):
    lora.pipe.set_adapters("default", 0.0)
    assert np.array_equal(tiny.run(lora.pipe), lora.bare)
    lora.pipe.set_adapters("default", 1.0)
    lora.pipe.disable_lora()
    assert np.array_equal(tiny.run(lora.pipe), lora.bare)
    lora.pipe.enable_lora()
    assert not np.array_equal(tiny.run(lora.pipe), lora.bare)


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_training_takes_the_models_noise_levels_whatever_samples_it(lora, scheduler):
    pipe = pipeline(name=scheduler)
    record = finetune.train_lora(pipe, pictures(), CAPTIONS, dataclasses.replace(FEW, steps=2), progress=False)
    assert record["losses"] == lora.record["losses"][:2]
    assert type(pipe.scheduler).__name__ == scheduler


def test_in_half_precision_the_lora_itself_stays_in_float32():
    pipe = pipeline().to(torch.bfloat16)
    record = finetune.train_lora(pipe, pictures(), CAPTIONS, dataclasses.replace(FEW, steps=2), progress=False)
    assert np.isfinite(record["losses"]).all()
    dtypes = {name.rsplit(".lora_", 1)[-1][0]: p.dtype for name, p in pipe.unet.named_parameters() if "lora" in name}
    assert dtypes == {"A": torch.float32, "B": torch.float32}
    assert np.isfinite(tiny.run(pipe)).all()


def test_the_stop_button_keeps_what_was_learned(monkeypatch):
    pipe, calls = pipeline(), []
    loss = finetune.denoising_loss

    def stop_at_the_third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(finetune, "denoising_loss", stop_at_the_third)
    record = finetune.train_lora(pipe, pictures(), CAPTIONS, FEW, progress=False)
    assert record["steps"] == len(record["losses"]) == 2
    assert any(p.any() for name, p in pipe.unet.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"captions": CAPTIONS[:3]}, "4 pictures and 3 captions"),
        ({"images": [], "captions": []}, "0 pictures and 0 captions"),
        ({"images": [*pictures(3), Image.new("RGB", (64, 64))]}, "must have one size"),
        ({"images": pictures(4, (50, 64))}, "multiples of 8 pixels, not \\(50, 64\\)"),
    ],
)
def test_data_that_does_not_fit_is_a_sentence(change, sentence):
    pipe = pipeline()
    before = set(pipe.unet.state_dict())
    with pytest.raises(ValueError, match=sentence):
        finetune.train_lora(pipe, change.get("images", pictures()), change.get("captions", CAPTIONS), FEW)
    assert set(pipe.unet.state_dict()) == before, "a refused training leaves the pipeline alone"


def test_wrong_settings_and_names_are_sentences(lora):
    for field in ("rank", "steps", "batch_size", "learning_rate"):
        with pytest.raises(ValueError, match=f"{field} must be above 0, not -1"):
            finetune.LoraSettings(**{field: -1})
    with pytest.raises(ValueError, match="there is a LoRA 'default' on this model already"):
        finetune.train_lora(lora.pipe, pictures(), CAPTIONS, FEW)
    with pytest.raises(ValueError, match="no LoRA 'style'.*there are: default"):
        finetune.save_lora(lora.pipe.unet, "nowhere", "style")
    with pytest.raises(ValueError, match=StableDiffusionXLPipeline.__name__):
        finetune.train_lora(tiny.pipeline("sdxl"), pictures(), CAPTIONS, FEW)


# ---- textual inversion -------------------------------------------------------------------------------------

WORD_CAPTIONS = ["a <gizmo>", "<gizmo> on red", "a small <gizmo>", "<gizmo>"]


def test_only_the_words_own_row_is_trained_and_it_lowers_the_loss(tmp_path):
    pipe, images = pipeline(), pictures()
    parts = {name: weights(getattr(pipe, name)) for name in ("unet", "vae", "text_encoder")}
    table = pipe.text_encoder.get_input_embeddings().weight.detach().clone()
    start = pipe.tokenizer.encode("t", add_special_tokens=False)[0]
    key = next(name for name, tensor in parts["text_encoder"].items() if torch.equal(tensor, table))
    del parts["text_encoder"][key]
    untrained = pipeline()
    finetune.add_word(untrained, "<gizmo>", "t")
    before = fixed_loss(untrained, images, WORD_CAPTIONS)
    record = finetune.train_word(pipe, images, WORD_CAPTIONS, WORD, progress=False)
    assert record["steps"] == 8
    assert fixed_loss(pipe, images, WORD_CAPTIONS) < before
    assert not any(changed(before, getattr(pipe, name)) for name, before in parts.items())
    after = pipe.text_encoder.get_input_embeddings().weight
    assert len(after) == len(table) + 1 and torch.equal(after[:-1], table)
    assert not torch.equal(after[-1], table[start])

    finetune.save_word(pipe, "<gizmo>", tmp_path)
    stock = pipeline()
    bare = tiny.run(stock, prompt="a t")
    stock.load_textual_inversion(tmp_path)
    assert np.array_equal(tiny.run(stock, prompt="a t"), bare), "other prompts mean what they meant"
    assert np.array_equal(tiny.run(stock, prompt="a <gizmo>"), tiny.run(pipe, prompt="a <gizmo>"))
    assert not np.array_equal(tiny.run(stock, prompt="a <gizmo>"), bare)


def test_an_untrained_word_means_what_it_began_as():
    pipe = pipeline()
    finetune.add_word(pipe, "<gizmo>", "t")
    assert np.array_equal(tiny.run(pipe, prompt="a <gizmo>"), tiny.run(pipe, prompt="a t"))


def test_a_word_is_trained_in_half_precision_and_the_encoder_goes_back_to_it():
    pipe = pipeline().to(torch.bfloat16)
    table = pipe.text_encoder.get_input_embeddings().weight.detach().clone()
    record = finetune.train_word(pipe, pictures(), WORD_CAPTIONS, WORD, progress=False)
    assert np.isfinite(record["losses"]).all() and pipe.text_encoder.dtype == torch.bfloat16
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[:-1], table)


@pytest.mark.parametrize(
    ("settings", "captions", "sentence"),
    [
        ({}, CAPTIONS, "every caption must hold '<gizmo>'; this one does not: 'a cat on a red background'"),
        ({"initializer": "thing"}, WORD_CAPTIONS, "must be one token, and 'thing' is 5"),
        ({"word": "<|endoftext|>"}, ["<|endoftext|>"] * 4, "knows '<|endoftext|>' already"),
    ],
)
def test_a_word_that_cannot_be_is_a_sentence(settings, captions, sentence):
    pipe = pipeline()
    with pytest.raises(ValueError, match=sentence.replace("|", "\\|")):
        finetune.train_word(pipe, pictures(), captions, dataclasses.replace(WORD, **settings))
    assert "<gizmo>" not in pipe.tokenizer.get_vocab()
    with pytest.raises(ValueError, match="no word '<gizmo>'"):
        finetune.save_word(pipe, "<gizmo>", "nowhere")


# ---- the resumable parts: zero-SNR LoRA and adapter ----------------------------------------------------------


def small_config() -> denoiser.DenoiserConfig:
    """Pocket's three levels, narrow."""
    return dataclasses.replace(denoiser.DenoiserConfig(), channels=(16, 32, 48), head_width=16)


SCHEDULE = trainer.Schedule(steps=4, batch_size=4, learning_rate=1e-3, optimizer="adamw", warmup_steps=1)


@pytest.fixture(scope="module")
def data() -> denoiser.LatentData:
    """A few scenes as the denoiser sees them, with latents that a silhouette tells much of."""
    captions = [GRAMMAR.scene(index).caption for index in range(GRAMMAR.count)]
    rows = {caption: row for row, caption in enumerate(dict.fromkeys(["", *captions]))}
    masks = adapter.unpack(adapter.scene_silhouettes(GRAMMAR, range(GRAMMAR.count)))
    return denoiser.LatentData(
        latents=(torch.nn.functional.avg_pool2d(masks, 8) - 0.5).expand(-1, 4, -1, -1).half(),
        prompt_embeds=torch.randn(len(rows), 77, 192, generator=tiny.generator()).half(),
        captions=torch.tensor([rows[caption] for caption in captions]),
        scenes=torch.arange(GRAMMAR.count),
    )


def small_unet():
    """A random denoiser of Pocket's three levels, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return denoiser.build_unet(small_config()).eval()


def train_zero_snr(data, folder):
    config = finetune.ZeroSnrConfig(targets=("to_k", "conv1", "time_emb_proj"), schedule=SCHEDULE)
    return finetune.train_zero_snr(small_unet(), data, config, folder)


def train_adapter(data, folder):
    return adapter.train_adapter(small_unet(), data, GRAMMAR, adapter.AdapterConfig(schedule=SCHEDULE), folder)


def train_turbo(data, folder):
    config = turbo.TurboConfig(rank=4, targets=("to_k", "conv1", "time_emb_proj"), schedule=SCHEDULE)
    return turbo.train_turbo(small_unet(), data, config, folder)


class Interrupted(KeyboardInterrupt):
    pass


def interrupt(monkeypatch, training_class, step: int) -> None:
    """Cut a training at `step` from within, as Ctrl-C does."""
    forward, calls = training_class.forward, []

    def cut(self, *args):
        calls.append(1)
        if len(calls) > step:
            raise Interrupted
        return forward(self, *args)

    monkeypatch.setattr(training_class, "forward", cut)


PARTS = {
    "zero-snr": (train_zero_snr, finetune.ZeroSnrTraining, "pytorch_lora_weights.safetensors"),
    "turbo": (train_turbo, turbo.TurboTraining, "pytorch_lora_weights.safetensors"),
    "adapter": (train_adapter, adapter.AdapterTraining, "diffusion_pytorch_model.safetensors"),
}


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A folder with both parts, each trained in one go."""
    folder = tmp_path_factory.mktemp("trained")
    for name, (train, _, _) in PARTS.items():
        record = train(data, folder / name)
        assert record["step"] == 4 and record["samples"] == 16
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_was_interrupted_ends_where_an_unbroken_one_does(data, trained, tmp_path, monkeypatch, part):
    train, training_class, file = PARTS[part]
    with monkeypatch.context() as patch:
        interrupt(patch, training_class, 2)
        with pytest.raises(Interrupted):
            train(data, tmp_path)
    (checkpoint,) = tmp_path.glob("step-*.safetensors")
    assert checkpoint.name == "step-00000002.safetensors"
    assert not any("unet" in name for name in load_file(checkpoint)), "a checkpoint holds what is trained"
    train(data, tmp_path)
    whole, resumed = load_file(trained / part / "part" / file), load_file(tmp_path / "part" / file)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_another_denoiser_has_is_trained_anew(data, trained, tmp_path, monkeypatch, capsys, part):
    train, training_class, _ = PARTS[part]
    record = json.loads((trained / part / "part" / "training.json").read_text())
    assert record["base"] == trainer.digest(small_unet()) and record["stages"][0]["scenes"] == GRAMMAR.count

    def begins_anew(name: str) -> bool:
        interrupt(monkeypatch, training_class, 0)
        try:
            train(data, tmp_path / name)
        except Interrupted:
            return not list((tmp_path / name).glob("step-*")) and "begins anew" in capsys.readouterr().out
        return False

    for name in ("same", "old", "other"):
        shutil.copytree(trained / part, tmp_path / name)
    assert not begins_anew("same"), "it is finished"
    record = json.loads((tmp_path / "old" / "checkpoint.json").read_text())
    del record["base"]
    trainer.write_json(tmp_path / "old" / "checkpoint.json", record)
    assert begins_anew("old"), "no one knows whose it is"
    other = small_unet()
    with torch.no_grad():
        other.conv_in.weight.mul_(1.01)
    monkeypatch.setitem(globals(), "small_unet", lambda: other)
    assert begins_anew("other")


def test_the_zero_snr_lora_is_saved_with_the_scheduler_that_it_wants(trained):
    folder = trained / "zero-snr" / "part"
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    assert scheduler.alphas_cumprod[-1] == 0 and scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(4)
    assert scheduler.timesteps[0] == 999, "sampling begins at pure noise"
    # The rest of the schedule keeps its start (Lin et al., algorithm 1).
    assert float(scheduler.alphas_cumprod[0]) == pytest.approx(
        float(denoiser.build_scheduler().alphas_cumprod[0]), rel=1e-5
    )
    unet = small_unet()
    pipe = StableDiffusionPipeline(
        **{**tiny.pipeline("sd").components, "unet": unet, "scheduler": scheduler}, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    settings = {
        "prompt": None, "prompt_embeds": torch.zeros(1, 77, 192), "negative_prompt_embeds": torch.zeros(1, 77, 192),
        "height": 128, "width": 128, "guidance_rescale": 0.7, "output_type": "latent",
    }  # fmt: skip
    bare = tiny.run(pipe, **settings)
    pipe.load_lora_weights(folder)
    repaired = tiny.run(pipe, **settings)
    assert torch.isfinite(repaired).all() and not torch.equal(repaired, bare)
    loaded = sum("lora" in name for name, _ in unet.named_parameters())
    assert loaded == len(load_file(folder / "pytorch_lora_weights.safetensors")), "no layer is left out"
    assert torch.equal(tiny.run(pipe, **settings, cross_attention_kwargs={"scale": 0.0}), bare)


def test_the_turbo_lora_is_saved_with_the_scheduler_that_it_wants(trained):
    folder = trained / "turbo" / "part"
    scheduler = LCMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(4)
    module = turbo.TurboTraining(small_unet(), turbo.TurboConfig(rank=2))
    _, timesteps, _ = module.walk(torch.randn(1, 4, 4, 4, 4), *torch.zeros(2, 1, 77, 192))
    assert scheduler.timesteps.tolist() == timesteps.tolist() == [999, 759, 499, 259], "what was trained"
    unet = small_unet()
    pipe = StableDiffusionPipeline(
        **{**tiny.pipeline("sd").components, "unet": unet, "scheduler": scheduler}, requires_safety_checker=False
    )
    pipe.load_lora_weights(folder)
    loaded = sum("lora" in name for name, _ in unet.named_parameters())
    assert loaded == len(load_file(folder / "pytorch_lora_weights.safetensors")), "no layer is left out"


def test_turbos_teacher_walks_as_diffusers_guided_lcm_does():
    told, empty = torch.randn(2, 2, 77, 192, generator=tiny.generator())
    module = turbo.TurboTraining(small_unet(), turbo.TurboConfig(rank=2, guidance_scale=3.0))
    pipe = StableDiffusionPipeline(
        **{**tiny.pipeline("sd").components, "unet": small_unet(), "scheduler": module.scheduler},
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append((int(timestep), tensors["latents"].clone()))
        return {}

    pipe(
        prompt_embeds=told, negative_prompt_embeds=empty, guidance_scale=3.0, num_inference_steps=4, output_type="latent",
        height=128, width=128, generator=tiny.generator(5), callback_on_step_end=look,
    )  # fmt: skip
    generator = tiny.generator(5)  # the pipeline draws the first latents, then what each step adds
    noise = torch.stack([torch.randn(2, 4, 16, 16, generator=generator) for _ in range(4)], dim=1)
    noisy, timesteps, velocities = module.walk(noise, told, empty)
    assert timesteps.tolist() == [timestep for timestep, _ in seen for _ in range(2)]
    for place in range(3):
        assert torch.allclose(noisy[2 * place + 2 : 2 * place + 4], seen[place][1], atol=1e-4)
    alpha = module.scheduler.alphas_cumprod[int(timesteps[-1])].sqrt()
    picture = alpha * noisy[-2:] - (1 - alpha**2).sqrt() * velocities[-2:]
    assert torch.allclose(picture, seen[-1][1], atol=1e-3), "the last step adds no noise"


class Answers(torch.nn.Module):
    """A denoiser whose velocity is `share` of the noisy latents, and with a caption `told` of them more."""

    def __init__(self, share: float, told: float):
        super().__init__()
        self.share, self.told = share, told

    def forward(self, noisy, timesteps, prompt_embeds):
        caption = prompt_embeds.mean(dim=(1, 2))[:, None, None, None]
        return SimpleNamespace(sample=(self.share + self.told * caption) * noisy)


def test_turbos_loss_is_zero_for_a_model_that_says_in_one_call_what_guidance_says_in_two():
    module = turbo.TurboTraining(small_unet(), turbo.TurboConfig(rank=2, guidance_scale=3.0))
    noise = torch.randn(8, 4, 4, 4, 4, generator=tiny.generator())
    told, empty = torch.ones(8, 77, 192), torch.zeros(8, 77, 192)
    losses = {}
    for student, answers in {"guided": (0.2, 0.3), "unguided": (0.2, 0.1)}.items():
        module._frozen = (Answers(*answers), Answers(0.2, 0.1))
        losses[student] = float(module(noise, told, empty))
    assert losses["guided"] < 1e-10 and losses["unguided"] > 1e-2


def test_a_truncated_lora_keeps_its_largest_directions(trained, tmp_path):
    file = shutil.copy(trained / "turbo" / "part" / "pytorch_lora_weights.safetensors", tmp_path)
    before = load_file(file)
    for name in [name for name in before if "lora_A" in name]:  # of an untrained one nothing is left to see
        before[name.replace("lora_A", "lora_B")].normal_(generator=tiny.generator())
    save_file(before, file)
    for rank in (4, 2):
        turbo.truncate_lora(Path(file), rank)
        after = load_file(file)
        assert after.keys() == before.keys()
        for name in [name for name in before if "lora_A" in name]:
            b = name.replace("lora_A", "lora_B")
            whole, kept = (
                layers[b].float().flatten(1) @ layers[name].float().flatten(1) for layers in (before, after)
            )
            assert after[name].shape[1:] == before[name].shape[1:] and len(after[name]) == after[b].shape[1] == rank
            tail = torch.linalg.svdvals(whole)[rank:].square().sum().sqrt()
            assert torch.linalg.norm(whole - kept) <= 1.01 * tail + 0.01 * torch.linalg.norm(whole)


@pytest.mark.parametrize("wrong", [{"guidance_scale": 0.5}, {"calls": 0}, {"calls": 51}, {"kept_rank": 0}])
def test_turbo_says_what_it_cannot_distil(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        turbo.TurboConfig(**wrong)


def test_zero_snr_training_sees_the_last_timestep_and_learns_there():
    unet = small_unet()
    model = finetune.ZeroSnrTraining(unet, finetune.ZeroSnrConfig(rank=2, last_share=0.25))
    seen = []
    unet.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    latents = torch.ones(250, 4, 4, 4)
    with torch.no_grad():
        model(latents, torch.zeros_like(latents), torch.arange(0, 1000, 4), torch.zeros(250, 1, 192))
    (timesteps,) = seen
    assert timesteps.min() == 0 and timesteps.max() == 999
    assert float((timesteps == 999).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert len(torch.unique(timesteps)) > 180 and (timesteps.diff() >= 0).all()

    one = torch.ones(2, 4, 16, 16)  # grey latents with a mean that the noise does not tell
    batch = (
        one,
        torch.randn(one.shape, generator=tiny.generator()),
        torch.tensor([999, 999]),
        torch.zeros(2, 77, 192),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        loss = model(*batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0], "the last timestep counts in the loss"
    assert {id(p) for p in model.parameters()} == {id(p) for p in unet.parameters() if p.requires_grad}


def test_zero_snr_wants_v_prediction():
    with pytest.raises(ValueError, match="needs a model with v_prediction, and this one predicts epsilon"):
        finetune.zero_snr_scheduler(tiny.sd_scheduler())


# ---- the adapter -------------------------------------------------------------------------------------------


def test_a_silhouette_is_where_the_picture_is_not_its_background():
    scene = scenes.Scene(0, "", "blue", (scenes.Thing("shape", "square", 40, 70, 50, colour="red"),))
    mask = np.asarray(silhouette := adapter.silhouette(scenes.render(scene))) > 0
    assert silhouette.mode == "L" and silhouette.size == (128, 128)
    rows, columns = np.nonzero(mask)
    assert 15 <= columns.min() <= 20 and 60 <= columns.max() <= 65 and 45 <= rows.min() <= 50
    assert mask[50:90, 20:60].all() and mask.mean() == pytest.approx(44 * 44 / 128**2, rel=0.1)
    noisy = np.asarray(scenes.render(scene)) + np.random.default_rng(0).integers(-8, 9, (128, 128, 3))
    noisy = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    assert np.mean((np.asarray(adapter.silhouette(noisy)) > 0) != mask) < 0.01, "a little noise is background"
    assert not np.asarray(adapter.silhouette(Image.new("RGB", (64, 32), "pink"))).any()
    with pytest.raises(ValueError, match="0 to 254 levels, not 300"):
        adapter.silhouette(noisy, threshold=300)


def test_packed_silhouettes_are_of_the_things_alone():
    packed = adapter.scene_silhouettes(GRAMMAR, [3, 5])
    assert packed.shape == (2, 128, 16) and packed.dtype == np.uint8
    masks = adapter.unpack(packed)
    expected = np.asarray(adapter.silhouette(scenes.render(GRAMMAR.scene(5)))) / 255
    assert masks.shape == (2, 1, 128, 128) and np.array_equal(masks[1, 0].numpy(), expected)


def test_the_adapter_fits_pockets_three_levels(trained):
    unet = denoiser.build_unet(denoiser.DenoiserConfig())
    made = adapter.build_adapter(unet, adapter.AdapterConfig())
    features = made(torch.zeros(1, 1, 128, 128))
    assert [tuple(feature.shape) for feature in features] == [(1, 64, 16, 16), (1, 128, 8, 8), (1, 192, 4, 4)]
    assert sum(parameter.numel() for parameter in made.parameters()) * 2 < 2.2e6, "bytes in fp16"
    seen = []
    for block in unet.down_blocks:
        block.register_forward_hook(lambda module, args, output: seen.append(output[0].shape))
    with torch.no_grad():
        arguments = (torch.zeros(1, 4, 16, 16), 500, torch.zeros(1, 77, 192))
        bare = unet(*arguments).sample
        one_level = [torch.zeros_like(feature) for feature in features]
        for level in range(3):
            one_level[level] = torch.ones_like(features[level])
            steered = unet(*arguments, down_intrablock_additional_residuals=list(one_level)).sample
            assert not torch.equal(steered, bare), f"level {level} is not read"
            one_level[level] = torch.zeros_like(features[level])


def test_a_trained_adapter_loads_into_the_stock_pipeline_and_steers_it(trained):
    made = T2IAdapter.from_pretrained(trained / "adapter" / "part", torch_dtype=torch.float32)
    unet = small_unet()
    parts = {**tiny.pipeline("sd").components, "unet": unet, "scheduler": denoiser.build_scheduler()}
    bare_pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    parts.pop("image_encoder")
    pipe = StableDiffusionAdapterPipeline(**parts, adapter=made, requires_safety_checker=False)
    bare_pipe.set_progress_bar_config(disable=True)
    pipe.set_progress_bar_config(disable=True)
    embeds = torch.zeros(1, 77, 192)
    settings = {
        "prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": embeds, "height": 128, "width": 128,
        "output_type": "latent",
    }  # fmt: skip
    bare = tiny.run(bare_pipe, **settings)
    left, right = (adapter.silhouette(scenes.render(GRAMMAR.scene(index))) for index in (0, 1))
    assert torch.equal(tiny.run(pipe, image=left, adapter_conditioning_scale=0.0, **settings), bare)
    steered = [tiny.run(pipe, image=image, **settings) for image in (left, right)]
    assert not torch.equal(steered[0], bare) and not torch.equal(steered[0], steered[1])


def test_the_adapter_learns_from_the_silhouette_and_the_denoiser_stays():
    unet = small_unet()
    before = weights(unet)
    config = adapter.AdapterConfig()
    model = adapter.AdapterTraining(adapter.build_adapter(unet, config), unet)
    masks = adapter.unpack(adapter.scene_silhouettes(GRAMMAR, range(4)))
    latents = (4 * torch.nn.functional.avg_pool2d(masks, 8) - 2).expand(-1, 4, -1, -1)
    noise = torch.randn(latents.shape, generator=tiny.generator())
    batch = (latents, noise, torch.tensor([0, 200, 400, 600]), torch.zeros(4, 77, 192))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model(masks, *batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        wrong = float(model(masks.flip(0), *batch))
        right = float(model(masks, *batch))
    assert right < 0.9 * losses[0] and right < wrong, "it is this silhouette that helps"
    assert not changed(before, unet)
    assert all(parameter.grad is None for parameter in unet.parameters())

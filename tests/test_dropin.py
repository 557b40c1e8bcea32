"""Pocket stands where Stable Diffusion stands: diffusers' own pipelines, schedulers and loaders take its folder.

Nothing here depends on how well the carried weights draw.
"""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    DDPMScheduler,
    StableDiffusionAdapterPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from diffusers.training_utils import cast_training_params
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from sdwidgets.generation.schedulers import SCHEDULERS, make_scheduler
from sdwidgets.paths import data_folder
from sdwidgets.pocket.training import trainer

PROMPTS = ["a red circle on a blue background", "a cat on a yellow background"]
SIZE = 128
# Thousands of these come from one scheduler's use of NumPy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
LABELS = [label for label, entry in SCHEDULERS.items() if not entry.flow]


@pytest.fixture(scope="module")
def text2image():
    pipe = AutoPipelineForText2Image.from_pretrained(data_folder("pocket"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipes(text2image):
    """The three tasks over one set of weights."""
    made = {
        "text": text2image,
        "image": AutoPipelineForImage2Image.from_pipe(text2image),
        "inpaint": AutoPipelineForInpainting.from_pipe(text2image),
    }
    for pipe in made.values():
        pipe.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def pipe(text2image):
    """The text-to-image pipeline, whose scheduler and adapters are put back after the test."""
    scheduler = text2image.scheduler
    yield text2image
    text2image.scheduler = scheduler
    text2image.unload_lora_weights()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A soft ramp of colours: any picture will do."""
    ramp = np.linspace(0, 255, SIZE)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128.0), axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def inputs(task: str, picture: Image.Image) -> dict:
    """What a task takes beside the prompt: a picture, and a mask whose left half is kept."""
    mask = Image.fromarray(np.repeat([[0, 255]], SIZE // 2, axis=1).repeat(SIZE, axis=0).astype(np.uint8))
    image = {"image": [picture, picture], "strength": 1.0, "guidance_scale": 1.0}
    return {"text": {}, "image": image, "inpaint": {**image, "mask_image": [mask, mask]}}[task]


def run(pipe, prompt=PROMPTS, steps: int = 2, **kwargs):
    """Latents (n, 4, 16, 16) of a short run; all prompts of a call begin with the same noise, and draw the same after."""
    count = len(prompt) if isinstance(prompt, list) else 1
    generator = [torch.Generator().manual_seed(0) for _ in range(count)]
    kwargs = {"output_type": "latent", "num_inference_steps": steps, **kwargs}
    return pipe(prompt, generator=generator if count > 1 else generator[0], **kwargs).images


@pytest.mark.parametrize(
    ("auto", "expected"),
    [
        (AutoPipelineForText2Image, diffusers.StableDiffusionPipeline),
        (AutoPipelineForImage2Image, diffusers.StableDiffusionImg2ImgPipeline),
        (AutoPipelineForInpainting, diffusers.StableDiffusionInpaintPipeline),
    ],
)
def test_each_auto_pipeline_takes_the_folder_as_stable_diffusion(auto, expected):
    pipe = auto.from_pretrained(data_folder("pocket"))
    assert type(pipe) is expected
    own = {name: type(part).__module__.split(".")[0] for name, part in pipe.components.items() if part is not None}
    assert set(own.values()) == {"diffusers", "transformers"}, own
    assert {module.dtype for module in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}


def test_from_pipe_shares_the_weights_both_ways(pipes):
    back = AutoPipelineForText2Image.from_pipe(pipes["inpaint"])
    assert type(back) is type(pipes["text"])
    assert all(pipe.unet is back.unet and pipe.vae is back.vae for pipe in pipes.values())


@pytest.mark.parametrize("label", LABELS)
def test_every_scheduler_on_offer_runs_every_task(pipes, picture, label):
    for task, pipe in pipes.items():
        before = pipe.scheduler
        try:
            pipe.scheduler = make_scheduler(label, pipe)
            latents = run(pipe, **inputs(task, picture))
        finally:
            pipe.scheduler = before
        assert latents.shape == (2, 4, SIZE // 8, SIZE // 8) and torch.isfinite(latents).all(), task
        assert (latents[0] - latents[1]).abs().max() > 1e-3, f"{task}: the prompt does not matter"


def test_pictures_come_in_the_native_size_and_full_range(pipe):
    image = run(pipe, PROMPTS[0], steps=4, output_type="np")[0]
    assert image.shape == (SIZE, SIZE, 3) and np.isfinite(image).all()
    assert 0 <= image.min() < image.max() <= 1 and image.std() > 0.01
    other = run(pipe, PROMPTS[0], height=96, width=160)
    assert other.shape == (1, 4, 12, 20) and torch.isfinite(other).all()


def test_image_to_image_keeps_more_of_the_picture_at_a_lower_strength(pipes, picture):
    pipe = pipes["image"]
    pixels = pipe.image_processor.preprocess(picture)
    with torch.no_grad():
        start = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    distance = [
        float((run(pipe, PROMPTS[0], steps=4, image=picture, strength=strength) - start).square().mean())
        for strength in (0.25, 1.0)
    ]
    assert distance[0] < distance[1]


def test_inpainting_paints_the_mask_and_nothing_else(pipes, picture):
    first, second = run(pipes["inpaint"], **inputs("inpaint", picture))
    kept, painted = slice(0, 8), slice(8, 16)
    assert torch.equal(first[..., kept], second[..., kept]), "the kept half is the picture's own latents"
    assert (first[..., painted] - second[..., painted]).abs().max() > 1e-3


@pytest.fixture(scope="module")
def lora(tmp_path_factory, text2image):
    """A LoRA file as other programs write one: random, of rank 2, on every cross-attention's keys and values."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, layer in text2image.unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            down = torch.randn(2, layer.in_features, generator=generator) / layer.in_features**0.5
            up = torch.randn(layer.out_features, 2, generator=generator) / 2
            tensors |= {f"unet.{name}.lora.down.weight": down, f"unet.{name}.lora.up.weight": up}
    assert len(tensors) == 2 * 2 * 4, "one cross-attention in each of four places"
    folder = tmp_path_factory.mktemp("lora")
    save_file(tensors, folder / "pytorch_lora_weights.safetensors")
    return folder


def test_a_lora_is_loaded_scaled_fused_and_unloaded(pipe, lora):
    bare = run(pipe)
    pipe.load_lora_weights(lora, adapter_name="random")
    full = run(pipe)
    assert (full - bare).abs().max() > 1e-2
    pipe.set_adapters("random", 0.0)
    assert torch.equal(run(pipe), bare)
    pipe.set_adapters("random", 1.0)
    pipe.fuse_lora()
    assert torch.allclose(run(pipe), full, atol=1e-3)
    pipe.unfuse_lora()
    pipe.disable_lora()
    assert torch.allclose(run(pipe), bare, atol=1e-3)
    pipe.unload_lora_weights()
    assert torch.allclose(run(pipe), bare, atol=1e-3)


def test_a_textual_inversion_is_loaded_used_and_unloaded(pipe, tmp_path):
    width = pipe.text_encoder.config.hidden_size
    size = len(pipe.tokenizer)
    vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    save_file({"<gizmo>": vectors}, tmp_path / "learned_embeds.safetensors")
    bare, unknown = run(pipe, "a cat"), run(pipe, "a <gizmo>")
    pipe.load_textual_inversion(tmp_path)
    try:
        table = pipe.text_encoder.get_input_embeddings().weight
        assert torch.equal(table[size : size + 2], vectors), "two vectors, two tokens"
        assert torch.equal(run(pipe, "a cat"), bare)
        assert (run(pipe, "a <gizmo>") - unknown).abs().max() > 1e-3
    finally:
        pipe.unload_textual_inversion()
    assert len(pipe.tokenizer) == size and torch.equal(run(pipe, "a <gizmo>"), unknown)


def test_savers_of_memory_change_no_picture(pipe):
    plain = run(pipe, output_type="np")
    processors = pipe.unet.attn_processors
    pipe.enable_attention_slicing(1)
    pipe.vae.enable_slicing()
    try:
        assert np.abs(run(pipe, output_type="np") - plain).max() < 1e-3
    finally:
        pipe.disable_attention_slicing()
        pipe.vae.disable_slicing()
        pipe.unet.set_attn_processor(processors)
    assert np.array_equal(run(pipe, output_type="np"), plain)


def test_offload_says_that_it_needs_an_accelerator():
    """On a CPU alone there is nowhere to offload from; a second pipeline, for the attempt may leave hooks behind."""
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    pipe = AutoPipelineForText2Image.from_pretrained(data_folder("pocket"))
    with pytest.raises(RuntimeError, match="requires accelerator"):
        pipe.enable_model_cpu_offload()


def test_a_controlnet_grows_from_its_unet(pipe, picture):
    """Another model that stock diffusers derives from a U-Net: untrained, it must leave the picture alone."""
    controlnet = diffusers.ControlNetModel.from_unet(pipe.unet)
    controlled = diffusers.StableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=controlnet)
    controlled.set_progress_bar_config(disable=True)
    assert torch.allclose(run(controlled, PROMPTS[0], image=picture), run(pipe, PROMPTS[0]), atol=1e-4)


def test_callbacks_prompt_embeds_and_rescaled_guidance_are_stable_diffusions_own(pipe):
    steps = []

    def callback(pipe, step, timestep, kwargs):
        steps.append((step, tuple(kwargs["latents"].shape)))
        return kwargs

    expected = run(pipe, PROMPTS[0], callback_on_step_end=callback)
    assert steps == [(0, (1, 4, 16, 16)), (1, (1, 4, 16, 16))]
    positive, negative = pipe.encode_prompt(PROMPTS[0], pipe.device, 1, True)
    assert torch.equal(run(pipe, None, prompt_embeds=positive, negative_prompt_embeds=negative), expected)
    rescaled = run(pipe, PROMPTS[0], guidance_rescale=0.7)
    assert torch.isfinite(rescaled).all() and not torch.equal(rescaled, expected)


# ---- trainings as diffusers' examples have them --------------------------------------------------------------------


class Loaded:
    """The parts of a folder as diffusers' training examples load them: each alone, from its subfolder."""

    def __init__(self, folder):
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self.noise_scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        self.text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
        self.vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
        self.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")

    def loss(self, pixels, captions) -> torch.Tensor:
        """The loss of a step of either example: pixels (n, 3, 128, 128) in -1..1, n captions."""
        tokens = self.tokenizer(
            captions, max_length=self.tokenizer.model_max_length, padding="max_length", truncation=True, return_tensors="pt"
        )  # fmt: skip
        latents = self.vae.encode(pixels).latent_dist.sample().detach() * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self.noise_scheduler.config.num_train_timesteps, (len(latents),)).long()
        noisy_latents = self.noise_scheduler.add_noise(latents, noise, timesteps)
        encoder_hidden_states = self.text_encoder(tokens.input_ids, return_dict=False)[0]
        if self.noise_scheduler.config.prediction_type == "epsilon":
            target = noise
        elif self.noise_scheduler.config.prediction_type == "v_prediction":
            target = self.noise_scheduler.get_velocity(latents, noise, timesteps)
        else:
            raise ValueError(f"unknown prediction type {self.noise_scheduler.config.prediction_type}")
        predicted = self.unet(noisy_latents, timesteps, encoder_hidden_states, return_dict=False)[0]
        return F.mse_loss(predicted.float(), target.float(), reduction="mean")


def fresh_pipeline():
    pipe = StableDiffusionPipeline.from_pretrained(data_folder("pocket"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pixels(pipe, picture) -> torch.Tensor:
    """A batch of two pictures, one of them mirrored."""
    pixels = pipe.image_processor.preprocess(picture)
    return torch.cat([pixels, pixels.flip(-1)])


def test_a_lora_is_trained_as_diffusers_example_trains_one(pixels, tmp_path):
    """The steps of diffusers' examples/text_to_image/train_text_to_image_lora.py, each once more on Pocket's own folder."""
    torch.manual_seed(0)
    parts = Loaded(data_folder("pocket"))
    for module in (parts.vae, parts.text_encoder, parts.unet):
        module.requires_grad_(False)
    parts.unet.add_adapter(
        LoraConfig(
            r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"]
        )
    )
    cast_training_params(parts.unet, dtype=torch.float32)
    lora_layers = [parameter for parameter in parts.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(lora_layers, lr=1e-2, weight_decay=1e-2)
    parts.unet.train()
    for _ in range(3):
        loss = parts.loss(pixels, PROMPTS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lora_layers, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.isfinite(loss)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(parts.unet))
    StableDiffusionPipeline.save_lora_weights(
        save_directory=tmp_path, unet_lora_layers=layers, safe_serialization=True
    )

    pipe = fresh_pipeline()
    bare = run(pipe)
    pipe.load_lora_weights(tmp_path)
    drawn = run(pipe)
    assert torch.isfinite(drawn).all() and (drawn - bare).abs().max() > 1e-2
    pipe.unload_lora_weights()
    pipe.unet = parts.unet.eval()
    assert torch.allclose(run(pipe), drawn, atol=1e-3), "what was saved is what was trained"


def test_a_word_is_trained_as_diffusers_example_trains_one(pixels, tmp_path):
    """The steps of diffusers' examples/textual_inversion/textual_inversion.py, each once more on Pocket's own folder."""
    torch.manual_seed(0)
    parts = Loaded(data_folder("pocket"))
    tokenizer, text_encoder = parts.tokenizer, parts.text_encoder
    assert tokenizer.add_tokens(["<gizmo>"]) == 1
    (initializer,) = tokenizer.encode("thing", add_special_tokens=False)
    (new,) = tokenizer.convert_tokens_to_ids(["<gizmo>"])
    text_encoder.resize_token_embeddings(len(tokenizer))
    table = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[new] = table[initializer].clone()
    parts.vae.requires_grad_(False)
    parts.unet.requires_grad_(False)
    tower = getattr(text_encoder, "text_model", text_encoder)  # the example's name for it, gone in transformers 5
    for frozen in (tower.encoder, tower.final_layer_norm, tower.embeddings.position_embedding):
        frozen.requires_grad_(False)
    optimizer = torch.optim.AdamW(text_encoder.get_input_embeddings().parameters(), lr=1e-1, weight_decay=1e-2)
    original = table.detach().clone()
    text_encoder.train()
    for _ in range(3):
        loss = parts.loss(pixels, ["a photo of a <gizmo>", "a <gizmo> on a blue background"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        kept = torch.ones(len(tokenizer), dtype=torch.bool)
        kept[new] = False
        with torch.no_grad():
            text_encoder.get_input_embeddings().weight[kept] = original[kept]
        assert torch.isfinite(loss)
    assert [name for name, parameter in text_encoder.named_parameters() if parameter.requires_grad] == [
        name for name, parameter in text_encoder.named_parameters() if parameter is table
    ]
    learned = text_encoder.get_input_embeddings().weight[new : new + 1].detach().cpu()
    save_file({"<gizmo>": learned}, tmp_path / "learned_embeds.safetensors", metadata={"format": "pt"})

    pipe = fresh_pipeline()
    began, bare = run(pipe, "a thing"), run(pipe, "a cat")
    pipe.load_textual_inversion(tmp_path)
    drawn = run(pipe, "a <gizmo>")
    assert torch.isfinite(drawn).all() and (drawn - began).abs().max() > 1e-3
    assert torch.equal(run(pipe, "a cat"), bare), "no other word was touched"
    pipe.text_encoder, pipe.tokenizer = text_encoder.eval(), tokenizer
    assert torch.allclose(run(pipe, "a <gizmo>"), drawn, atol=1e-4), "what was saved is what was trained"


EXTRAS = sorted(
    folder.name
    for folder in (data_folder("pocket") / "extras").iterdir()
    if (folder / "pytorch_lora_weights.safetensors").exists() or "adapter" in folder.name
)


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_that_ships_changes_the_shipped_pipelines_pictures(picture, extra):
    folder, pipe = data_folder("pocket") / "extras" / extra, fresh_pipeline()
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    digest = trainer.digest(pipe.unet)
    assert record.get("base", digest) == digest, "it was trained for another denoiser than the one that ships"
    bare = run(pipe)
    if "adapter" in extra:
        adapter = T2IAdapter.from_pretrained(folder, torch_dtype=torch.float32)
        parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
        steered = StableDiffusionAdapterPipeline(**parts, adapter=adapter, requires_safety_checker=False)
        steered.set_progress_bar_config(disable=True)
        drawn = run(steered, image=[picture.convert("L")] * 2)
    else:
        pipe.load_lora_weights(folder)
        drawn = run(pipe)
    assert torch.isfinite(drawn).all() and (drawn - bare).abs().max() > 1e-2

"""Tiny pipelines with random weights, made from configuration: real diffusers classes, nothing downloaded.

`pipeline("sd" | "sdxl" | "sd3" | "flux")` has its family's shape part for part: an f8 VAE with the family's
scaling, text encoders, denoiser and scheduler. A forward takes a few milliseconds.
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers

SIZE = {"height": 64, "width": 48}  # pixels; latents are 8 x 6, so that swapped sides show
PROMPT = "an astronaut on a blue background"


def pipeline(family: str = "sd", cls=None, scheduler=None, **parts):
    """A fresh pipeline over cached modules. `cls`: another pipeline class over the same parts.

    Modules are shared between calls, so a test must leave them as it found them. Schedulers are never shared.
    """
    default, made, scheduling = _families(family)
    pipe = (cls or default)(**{**made, "scheduler": scheduler or scheduling(), **parts})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def run(pipe, seed: int = 0, steps: int = 3, **kwargs):
    """One short run with numpy output; the settings are passed on to the pipeline."""
    kwargs = {"prompt": PROMPT, "output_type": "np", "generator": generator(seed), **SIZE, **kwargs}
    return pipe(num_inference_steps=steps, **kwargs).images


def sd_scheduler(name: str = "DDIMScheduler", **kwargs):
    """A diffusers scheduler by class name on the noise levels of Stable Diffusion."""
    config = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "prediction_type": "epsilon",
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    return getattr(diffusers, name).from_config({**config, **kwargs})


@functools.cache
def _families(family: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {"sd": _sd, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux}[family]()


def _sd():
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    parts = {
        "vae": _vae(4, 0.18215),
        "text_encoder": _clip(transformers.CLIPTextModel),
        "tokenizer": clip_tokenizer(),
        "unet": unet.eval(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    return diffusers.StableDiffusionPipeline, parts, sd_scheduler


def _sdxl():
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=(2, 4),
        cross_attention_dim=64,  # both text encoders side by side
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    parts = {
        "vae": _vae(4, 0.13025, force_upcast=True),
        "text_encoder": _clip(transformers.CLIPTextModel),
        "text_encoder_2": _clip(transformers.CLIPTextModelWithProjection),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "unet": unet.eval(),
        "add_watermarker": False,
    }
    return (diffusers.StableDiffusionXLPipeline, parts, functools.partial(sd_scheduler, "EulerDiscreteScheduler"))


def _sd3():
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,  # the T5's; the two CLIPs' 32 + 32 are padded to it
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=16,
    )
    parts = {
        "vae": _vae(16, 1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        "text_encoder": _clip(transformers.CLIPTextModelWithProjection),
        "text_encoder_2": _clip(transformers.CLIPTextModelWithProjection),
        "text_encoder_3": _t5(64),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "tokenizer_3": t5_tokenizer(),
        "transformer": transformer.eval(),
    }
    scheduling = functools.partial(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0)
    return diffusers.StableDiffusion3Pipeline, parts, scheduling


def _flux():
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,  # 16 channels, packed in blocks of 2x2
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    parts = {
        "vae": _vae(16, 0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        "text_encoder": _clip(transformers.CLIPTextModel),
        "text_encoder_2": _t5(32),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": t5_tokenizer(),
        "transformer": transformer.eval(),
    }
    scheduling = functools.partial(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True)
    return diffusers.FluxPipeline, parts, scheduling


def _vae(latent_channels: int, scaling_factor: float, **kwargs):
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),  # four levels: f8
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=latent_channels,
        scaling_factor=scaling_factor,
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **kwargs,
    ).eval()


def _clip(cls):
    config = transformers.CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=clip_tokenizer().bos_token_id,
        eos_token_id=clip_tokenizer().eos_token_id,
        pad_token_id=clip_tokenizer().pad_token_id,
    )
    return cls(config).eval()


def _t5(width: int):
    config = transformers.T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=64, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config).eval()


@functools.cache
def clip_tokenizer():
    """CLIP's byte-level tokenizer without merges: every byte a token, 514 in all."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
        Path(folder, "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)


@functools.cache
def t5_tokenizer():
    """T5's unigram tokenizer over single letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [(letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.!?'-"]
    tokenizer = Tokenizer(models.Unigram(specials + letters, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )

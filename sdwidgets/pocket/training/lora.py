"""Teach a finished Stable Diffusion something new: a LoRA, a word of its own, the repair of its noise schedule.

`train_lora` and `train_word` are the recipes of diffusers' examples (`text_to_image/train_text_to_image_lora.py`,
`textual_inversion/textual_inversion.py`) as functions over any pipeline of Stable Diffusion 1's shape, on any device.
`run_zero_snr` trains Pocket's zero-SNR LoRA, as one more resumable part.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import cast_training_params, compute_snr
from PIL import Image
from tqdm.auto import tqdm

from ...generation.schedulers import make_scheduler
from . import clip, denoiser, trainer
from .work_folder import fit_extra, run_extra

#: Layers that get a LoRA by default: the four matrices of every attention, as in diffusers' example.
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
#: Attention, feed-forward layers, convolutions and the time embedding, for what is more than a style (as LCM-LoRA has it).
EVERYWHERE = (
    *ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut",
    "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """How to train a LoRA (Hu et al. 2021, arXiv 2106.09685): W x + B A x, with W frozen."""

    rank: int = 8  # rows of A and columns of B
    targets: tuple[str, ...] = ATTENTION  # ends of the names of the layers that get one
    steps: int = 500
    batch_size: int = 4
    learning_rate: float = 1e-3  # suits Pocket; Stable Diffusion itself wants 1e-4
    snr_gamma: float | None = 5.0  # Min-SNR weighting (arXiv 2303.09556); None for none
    seed: int = 0

    def __post_init__(self):
        _check_positive(self, "rank", "steps", "batch_size", "learning_rate")


@dataclasses.dataclass(frozen=True)
class WordSettings:
    """How to train a word (textual inversion, Gal et al. 2022, arXiv 2208.01618)."""

    word: str = "<thing>"  # the new token, as captions and prompts write it
    initializer: str = "thing"  # the word that it begins as: one token
    steps: int = 500
    batch_size: int = 4
    learning_rate: float = 5e-3
    seed: int = 0

    def __post_init__(self):
        _check_positive(self, "steps", "batch_size", "learning_rate")


def _check_positive(settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name} must be above 0, not {getattr(settings, name)!r}")


# ---- what both recipes share -------------------------------------------------------------------------------


def denoising_loss(
    unet, scheduler, latents, noise, timesteps, prompt_embeds, snr_gamma: float | None = None
) -> torch.Tensor:
    """What Stable Diffusion is trained on: the squared error of its prediction, a scalar in float32.

    latents, noise: (n, 4, h, w), latents scaled; timesteps: (n,), 0 to 999; prompt_embeds: (n, 77, width).
    """
    noisy, target = denoiser.noisy_and_target(scheduler, latents, noise, timesteps)
    error = (unet(noisy, timesteps, prompt_embeds).sample.float() - target.float()).square().mean(dim=(1, 2, 3))
    if snr_gamma is None:
        return error.mean()
    snr = compute_snr(scheduler, timesteps)
    velocity = scheduler.config.prediction_type == "v_prediction"
    weight = snr.clamp(max=snr_gamma) / (snr + 1 if velocity else snr)
    return (weight * error).mean()


@torch.no_grad()
def encode_pictures(pipe, pictures: Sequence[Image.Image], batch_size: int = 16) -> torch.Tensor:
    """Pictures of one size -> (n, 4, h/8, w/8) scaled latents, on the pipeline's device.

    Encoded once, to the middle of the VAE's posterior: its spread is small beside the noise that training adds.
    """
    latents = []
    for start in range(0, len(pictures), batch_size):
        batch = [picture.convert("RGB") for picture in pictures[start : start + batch_size]]
        pixels = pipe.image_processor.preprocess(batch).to(pipe.vae.device, pipe.vae.dtype)  # in [-1, 1]
        latents.append(pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor)
    return torch.cat(latents)


def tokenize(pipe, captions: Sequence[str]) -> torch.Tensor:
    """Captions -> (n, 77) token ids, on the pipeline's device."""
    return clip.token_ids(pipe.tokenizer, list(captions)).to(pipe.text_encoder.device)


def _check_data(pipe, pictures, captions) -> None:
    name = type(pipe).__name__
    if getattr(pipe, "unet", None) is None or getattr(pipe, "text_encoder_2", None) is not None:
        raise ValueError(f"this training is for pipelines of Stable Diffusion 1's shape (sd15, pocket), not {name}")
    if not len(pictures) or len(pictures) != len(captions):
        raise ValueError(
            f"every picture needs a caption: there are {len(pictures)} pictures and {len(captions)} captions"
        )
    sizes = {picture.size for picture in pictures}
    if len(sizes) > 1:
        raise ValueError(f"pictures must have one size, and these have {sorted(sizes)}; resize or crop them first")
    (size,), factor = sizes, pipe.vae_scale_factor
    if any(side % factor for side in size):
        raise ValueError(f"sides must be multiples of {factor} pixels, not {size}; resize or crop first")


def _batches(count: int, settings, generator: torch.Generator):
    """Yields `steps` batches of picture numbers, (batch_size,): all pictures once in a random order, then in a new one."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(settings.steps):
        while len(order) < settings.batch_size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        batch, order = order.split([settings.batch_size, len(order) - settings.batch_size])
        yield batch


def _fit(name: str, pipe, parameters: list, latents, embed: Callable, settings, snr_gamma, progress: bool) -> dict:
    """The training loop. `embed(rows)` -> (n, 77, width) text states of the captions `rows`.

    Everything random is drawn on the CPU from the settings' seed, so it is the same on every device.
    """
    device, dtype = pipe.unet.device, pipe.unet.dtype
    scheduler = make_scheduler("DDPM", pipe)  # the model's own noise levels, whatever samples it
    last = scheduler.config.num_train_timesteps
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    half = dtype == torch.float16  # which loses small gradients
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    losses, started = [], time.monotonic()
    batches = _batches(len(latents), settings, generator)
    bar = tqdm(batches, desc=name, total=settings.steps, disable=not progress)
    try:
        for rows in bar:
            noise = torch.randn((len(rows), *latents.shape[1:]), generator=generator).to(device)
            timesteps = torch.randint(last, (len(rows),), generator=generator).to(device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                batch = latents[rows.to(device)].float()
                loss = denoising_loss(pipe.unet, scheduler, batch, noise, timesteps, embed(rows), snr_gamma)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.4f}")
    except KeyboardInterrupt:  # the stop button: keep what was learned so far
        optimizer.zero_grad(set_to_none=True)
    bar.close()
    seconds = time.monotonic() - started
    return {"steps": len(losses), "seconds": seconds, "losses": losses, "settings": dataclasses.asdict(settings)}


# ---- LoRA --------------------------------------------------------------------------------------------------


def add_lora(unet, rank: int, targets: Sequence[str], seed: int = 0, name: str = "default") -> list:
    """Freeze a U-Net and give it an untrained LoRA; returns the LoRA's parameters, in float32.

    A is random by `seed` and B zero, so nothing changes yet. Raises ImportError without peft, ValueError for a
    name that is taken.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError("a LoRA needs peft: pip install 'sdwidgets[train]'") from error
    if name in getattr(unet, "peft_config", {}):
        raise ValueError(
            f"there is a LoRA {name!r} on this model already: choose another name, or call "
            "pipe.unload_lora_weights() first"
        )
    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        unet.add_adapter(config, adapter_name=name)
    cast_training_params(unet, dtype=torch.float32)  # small steps vanish in half precision
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def train_lora(
    pipe,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    settings: LoraSettings = LoraSettings(),
    *,
    name: str = "default",
    progress: bool = True,
) -> dict:
    """Train a LoRA of the U-Net on pictures and their captions; it stays on the pipeline, switched on.

    pictures: PIL images of one size. Returns a record: steps, seconds, the loss of every step, the settings.
    `pipe.disable_lora()` and `pipe.set_adapters(name, 0.5)` weaken it, `save_lora` writes it. The stop button
    ends the training early and keeps what was learned. Raises ValueError for data that does not fit.
    """
    _check_data(pipe, pictures, captions)
    latents = encode_pictures(pipe, pictures)
    with torch.no_grad():
        prompt_embeds = torch.cat([pipe.text_encoder(tokens)[0] for tokens in tokenize(pipe, captions).split(64)])
    parameters = add_lora(pipe.unet, settings.rank, settings.targets, settings.seed, name)
    embed = lambda rows: prompt_embeds[rows.to(prompt_embeds.device)]
    return _fit("LoRA", pipe, parameters, latents, embed, settings, settings.snr_gamma, progress)


def save_lora(unet, folder, name: str = "default") -> Path:
    """Write a U-Net's LoRA as fp16 safetensors; `pipe.load_lora_weights(folder)` reads it. Returns the file."""
    from peft.utils import get_peft_model_state_dict

    if name not in getattr(unet, "peft_config", {}):
        names = ", ".join(getattr(unet, "peft_config", {})) or "none"
        raise ValueError(f"there is no LoRA {name!r} on this model; there are: {names}")
    # Under peft's own names: diffusers' examples convert those of attention alone, and a loader that finds both kinds
    # in one file drops the attention's (diffusers issue 14548).
    layers = get_peft_model_state_dict(unet, adapter_name=name)
    layers = {key: tensor.detach().cpu().half().contiguous() for key, tensor in layers.items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, safe_serialization=True)
    return Path(folder) / "pytorch_lora_weights.safetensors"


# ---- textual inversion -------------------------------------------------------------------------------------


def add_word(pipe, word: str, initializer: str) -> int:
    """Give tokenizer and text encoder a new token that means what `initializer` means; returns its id.

    Raises ValueError for a word that is known already, or an initializer of more than one token.
    """
    if word in pipe.tokenizer.get_vocab():
        raise ValueError(f"the tokenizer knows {word!r} already; choose a word that it does not know")
    start = pipe.tokenizer.encode(initializer, add_special_tokens=False)
    if len(start) != 1:
        raise ValueError(
            f"the initializer must be one token, and {initializer!r} is {len(start)}: "
            f"{pipe.tokenizer.convert_ids_to_tokens(start)}; choose a simpler word"
        )
    pipe.tokenizer.add_tokens(word)
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    new = pipe.tokenizer.convert_tokens_to_ids(word)
    table = pipe.text_encoder.get_input_embeddings().weight.data  # (tokens, width)
    table[new] = table[start[0]]
    return new


def train_word(
    pipe,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    settings: WordSettings = WordSettings(),
    *,
    progress: bool = True,
) -> dict:
    """Textual inversion: find the one vector for a new word that lets the model draw these pictures.

    captions: each holds `settings.word`. No weight of the model moves but that word's row of the text encoder's
    table of tokens; so it finds only what the model can draw already. The word stays on the pipeline, `save_word`
    writes it. Returns a record as `train_lora` does. Raises ValueError for data that does not fit.
    """
    _check_data(pipe, pictures, captions)
    lacking = [caption for caption in captions if settings.word not in caption]
    if lacking:
        raise ValueError(f"every caption must hold {settings.word!r}; this one does not: {lacking[0]!r}")
    latents = encode_pictures(pipe, pictures)
    token = add_word(pipe, settings.word, settings.initializer)
    tokens = tokenize(pipe, captions)
    dtype = pipe.text_encoder.dtype
    pipe.unet.requires_grad_(False)
    pipe.text_encoder.requires_grad_(False).float()  # small steps vanish in half precision
    table = pipe.text_encoder.get_input_embeddings().weight.requires_grad_()
    chosen = torch.zeros_like(table[:, :1])
    chosen[token] = 1
    # AdamW without decay leaves a row without gradient as it is; diffusers' example writes the old rows back instead.
    hook = table.register_hook(lambda gradient: gradient * chosen)
    try:
        embed = lambda rows: pipe.text_encoder(tokens[rows.to(tokens.device)])[0]
        return _fit("word", pipe, [table], latents, embed, settings, None, progress)
    finally:
        hook.remove()
        table.requires_grad_(False)
        pipe.text_encoder.to(dtype)


def save_word(pipe, word: str, folder) -> Path:
    """Write a word's vector, (1, width) float32; `pipe.load_textual_inversion(folder)` reads it. Returns the file."""
    if word not in pipe.tokenizer.get_vocab():
        raise ValueError(f"the tokenizer has no word {word!r}; train it first")
    table = pipe.text_encoder.get_input_embeddings().weight
    token = pipe.tokenizer.convert_tokens_to_ids(word)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "learned_embeds.safetensors"
    trainer.save_tensors(file, {word: table[token : token + 1].float()})
    return file


# ---- LoRAs that are parts of Pocket ------------------------------------------------------------------------


class LoraTraining(torch.nn.Module):
    """A loss of a denoiser that carries a new LoRA, as a module whose parameters are the LoRA's alone."""

    def __init__(self, unet: UNet2DConditionModel, config, scheduler):
        super().__init__()
        self.config, self.scheduler = config, scheduler
        self.lora = torch.nn.ParameterList(add_lora(unet, config.rank, config.targets, config.schedule.seed))
        self._frozen = (unet,)  # in a tuple: checkpoints and averages need not hold it

    @property
    def unet(self) -> UNet2DConditionModel:
        """The denoiser that carries the LoRA."""
        return self._frozen[0]

    def save(self, part: Path) -> Path:
        """Write the LoRA and the scheduler that it wants; returns the LoRA's file."""
        self.scheduler.save_pretrained(part / "scheduler")
        return save_lora(self.unet, part)


# ---- the zero-SNR LoRA -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ZeroSnrConfig:
    """The repair of a noise schedule that never reaches pure noise (Lin et al. 2023, arXiv 2305.08891)."""

    rank: int = 8
    targets: tuple[str, ...] = EVERYWHERE
    caption_drop: float = 0.1
    last_share: float = 0.05  # of the samples stand at the last timestep, the one that is new to the model
    schedule: trainer.Schedule = trainer.Schedule(
        steps=2_000, batch_size=32, learning_rate=5e-4, optimizer="adamw", warmup_steps=100, weight_decay=0.0, ema_decay=0.99
    )  # fmt: skip


def zero_snr_scheduler(scheduler) -> DDIMScheduler:
    """The repaired scheduler of a model: the last timestep is pure noise, and sampling begins there.

    Sample with it, the LoRA and guidance_rescale 0.7. Raises ValueError for a model that predicts the noise: of pure
    noise that says nothing.
    """
    if scheduler.config.prediction_type != "v_prediction":
        raise ValueError(
            f"zero terminal SNR needs a model with v_prediction, and this one predicts {scheduler.config.prediction_type}"
        )
    return DDIMScheduler.from_config(scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing")


class ZeroSnrTraining(LoraTraining):
    """The denoising loss under the repaired schedule."""

    def __init__(self, unet: UNet2DConditionModel, config: ZeroSnrConfig):
        super().__init__(unet, config, zero_snr_scheduler(denoiser.build_scheduler()))

    def forward(self, latents, noise, timesteps, prompt_embeds) -> torch.Tensor:
        # Uniform timesteps, stretched: what falls beyond the last timestep stands at it.
        last = self.scheduler.config.num_train_timesteps - 1
        timesteps = (timesteps / (1 - self.config.last_share)).long().clamp(max=last)
        unet = self.unet.to(latents.device)
        return denoising_loss(unet, self.scheduler, latents, noise, timesteps, prompt_embeds)


def train_zero_snr(unet, data: denoiser.LatentData, config: ZeroSnrConfig, folder: Path, **options) -> dict:
    """Train the zero-SNR LoRA of a denoiser, resuming what `folder` holds; returns the record of `trainer.train`, whose `options` it takes.

    `folder`/part gets the LoRA, for `pipe.load_lora_weights`, and in scheduler/ the scheduler that it wants.
    """
    loss_at = denoiser.denoiser_loss_at(data, config)
    return fit_extra("zero-snr", ZeroSnrTraining, unet, loss_at, config, folder, len(data.scenes), **options)


def run_zero_snr(args, grammar, work: Path) -> None:
    """Train the zero-SNR LoRA of the trained denoiser on the scenes that it was trained on."""
    run_extra("zero-snr", train_zero_snr, ZeroSnrConfig(), args, grammar, work)

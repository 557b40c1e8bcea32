"""What a model folder may bring for speed: a turbo LoRA in extras/turbo, and a smaller decoder in extras/small-decoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..parts import find_denoiser
from .errors import WeightsError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DiffusionPipeline

DECODER = "decoder.safetensors"
LORA = "pytorch_lora_weights.safetensors"  # as diffusers calls it; with HF_HUB_OFFLINE=1 version 0.39 does not look by itself


def make_turbo(pipe: DiffusionPipeline, folder: Path, title: str) -> str:
    """Add the LoRA of extras/turbo to the denoiser's weights, for good, take its scheduler, and the decoder of extras/small-decoder.

    Returns a few words on what it is now.
    """
    import diffusers

    part = folder / "extras" / "turbo"
    if not part.is_dir():
        raise WeightsError(
            f"{title} has no turbo LoRA (a folder extras/turbo). Use turbo=False, or a model that is distilled, such as 'sd-turbo'."
        )
    try:
        pipe.load_lora_weights(part, weight_name=LORA, local_files_only=True)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0][:200]
        raise WeightsError(
            f"The turbo LoRA does not load: {first} ({type(error).__name__}). It needs peft (pip install 'sdwidgets[fast]'); "
            "or use turbo=False."
        ) from error
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.scheduler = diffusers.LCMScheduler.from_pretrained(part, subfolder="scheduler")
    # `code_export.code` has no other way to know what is in the weights.
    vars(find_denoiser(pipe))["_sdwidgets_turbo"] = True
    note = "turbo: four steps without guidance"
    part = folder / "extras" / "small-decoder"
    if not part.is_dir():
        return note
    try:
        pipe.vae = with_small_decoder(pipe.vae, part)
    except Exception as error:
        raise WeightsError(
            f"The small decoder in {part} does not load ({type(error).__name__}). Remove that folder, or use turbo=False."
        ) from error
    return f"{note}, a small decoder"


def with_small_decoder(vae: AutoencoderKL, folder: Path) -> AutoencoderKL:
    """An autoencoder with the decoder that `sdwidgets train small-decoder` made for it, as an `AsymmetricAutoencoderKL` of its own.

    vae: an `AutoencoderKL`, whose encoder is copied; folder: config.json, and `DECODER` with the weights of the decoder alone.
    Raises ValueError where the weights there are none of such a decoder.
    """
    from diffusers import AsymmetricAutoencoderKL
    from safetensors.torch import load_file

    made = AsymmetricAutoencoderKL.from_config(AsymmetricAutoencoderKL.load_config(folder, local_files_only=True))
    others = {name: tensor for name, tensor in vae.state_dict().items() if not name.startswith("decoder.")}
    missing, unexpected = made.load_state_dict(others | load_file(Path(folder) / DECODER), strict=False)
    # What would mix a picture in under a mask is in the class, and never asked.
    if unexpected or any(not name.startswith("decoder.condition_encoder.") for name in missing):
        raise ValueError(f"{folder} holds no decoder of such an autoencoder")
    return made.to(vae.device, vae.dtype).eval()

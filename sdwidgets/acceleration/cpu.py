"""A pipeline made fast on a CPU: U-Net, VAE decoder and a CLIP text encoder run through OpenVINO.

They are rewritten where the same numbers can be had for less work. What a graph does not cover - a gradient, an adapter, an attention
processor, a LoRA, FreeU, a hook on one of its layers, changed weights - is computed by the network itself, so it is slower and not wrong.

What is saved, beside what OpenVINO does:
- Keys and values of the text are computed once a prompt, not once a step; so is what a timestep adds to each block (`unet`).
- In the decoder, doubling both sides and then convolving with 3x3 weights is one transposed convolution: 4 products instead
  of 9; and a GroupNorm takes its sums channel by channel, as convolutions leave them. (In the U-Net, whose sides are small,
  both were slower.) (`decoder`)
- A caption that was encoded is not encoded again (`text_encoder`).
- Nothing small goes to PyTorch's threads between two networks: they then wait, spinning, for more work on the cores that OpenVINO needs.
"""

from __future__ import annotations

import copy

import torch

from ..paths import cache_folder
from .decoder import decoder_forward, is_pointwise, pointwise_forward, postprocess, rewritten_decoder
from .openvino_graph import Compiled, import_openvino
from .text_encoder import cache_text_encoder, compiled_encoder
from .undo import on_the_processor, replace_method, restore
from .unet import PrecomputedInputs, compiled_unet, unet_forward


def speed_up_cpu(pipe) -> str:
    """What `speed_up` does on a CPU.

    Raises ImportError where OpenVINO is not installed, TypeError for a pipeline without a U-Net of Stable Diffusion 1's shape, ValueError
    for another precision than float32, RuntimeError where what OpenVINO computes is wrong; the pipeline is then as it was before.
    """
    unet, decoder = getattr(pipe, "unet", None), getattr(getattr(pipe, "vae", None), "decoder", None)
    openvino = import_openvino()
    if unet is None or decoder is None or getattr(unet.config, "addition_embed_type", None):
        raise TypeError(
            f"speed='fast' on a CPU knows pipelines of Stable Diffusion 1's and 2's shape, not {type(pipe).__name__}; use speed='exact'"
        )
    if unet.device.type != "cpu" or unet.dtype != torch.float32:
        raise ValueError(
            f"this way of speed='fast' is for float32 on a CPU, and the pipeline is {unet.dtype} on {unet.device}"
        )
    restore(pipe)
    folder = cache_folder() / "compiled"
    cells = unet.config.sample_size
    cells = (cells, cells) if isinstance(cells, int) else tuple(cells)
    precomputed = PrecomputedInputs(unet)
    # Of a caption, not random ones: bfloat16 is judged by what the U-Net is used for, and noise as text can be many times as wrong.
    with torch.no_grad():
        states, empty = pipe.encode_prompt("a cat", unet.device, 1, True)
    noise = torch.zeros(2, unet.config.in_channels, *cells)
    graph = compiled_unet(unet, precomputed, noise, torch.cat([empty, states]), folder)
    latents = torch.zeros(1, pipe.vae.config.latent_channels, *cells)
    smaller = rewritten_decoder(copy.deepcopy(decoder))
    decoding = Compiled(decoder, smaller, (latents,), folder)
    replace_method(unet, unet_forward(unet, graph, precomputed))
    reading = compiled_encoder(pipe, folder)
    replace_method(decoder, decoder_forward(decoder, decoding))
    if is_pointwise(getattr(pipe.vae, "post_quant_conv", None)):
        replace_method(pipe.vae.post_quant_conv, pointwise_forward)
    replace_method(pipe.image_processor, postprocess, "postprocess")
    cache_text_encoder(pipe, reading)
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pipe.__class__ = on_the_processor(type(pipe))
    return f"fast: OpenVINO {openvino.__version__.split('-')[0]}, {graph.precision}"

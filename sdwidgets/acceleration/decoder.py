"""The VAE's decoder rewritten where the same numbers can be had for less work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .openvino_graph import Compiled


def without_hooks(network: torch.nn.Module) -> None:
    """Take the hooks out of a copy: what is traced is kept for later starts, and they belong to this one."""
    for module in network.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()


def rewritten_decoder(network: torch.nn.Module) -> torch.nn.Module:
    """A copy of a VAE's decoder with layers that give the same numbers for less work; in place."""
    without_hooks(network)
    transpose_upsampling(network)
    norm_by_channel(network)
    return network


def transpose_upsampling(network: torch.nn.Module) -> None:
    """Nearest-neighbour doubling followed by a 3x3 convolution: one transposed convolution."""
    from diffusers.models.upsampling import Upsample2D

    for name, module in list(network.named_modules()):
        doubles = isinstance(module, Upsample2D) and module.interpolate and module.norm is None
        if doubles and module.name == "conv" and isinstance(module.conv, torch.nn.Conv2d):
            if module.conv.kernel_size == (3, 3) and module.conv.padding == (1, 1):
                network.set_submodule(name, DoubleAndConvolve(module.conv))


def norm_by_channel(network: torch.nn.Module) -> None:
    """GroupNorms of pictures by `ChannelwiseGroupNorm`; the one of an attention gets (batch, channels, places), which is not worth it."""
    for name, module in list(network.named_modules()):
        if isinstance(module, torch.nn.GroupNorm) and module.affine and not name.endswith("group_norm"):
            network.set_submodule(name, ChannelwiseGroupNorm(module))


class ChannelwiseGroupNorm(torch.nn.Module):
    """A GroupNorm of pictures by sums over each channel, which are then put together by group: (n, c, h, w) -> the same.

    torch's own asks for a group's channels side by side. OpenVINO's convolutions keep the channels of a place side by side, so
    every norm made it turn the whole picture round and back; sums over a channel are taken as it lies.
    """

    def __init__(self, norm: torch.nn.GroupNorm):
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def _of_groups(self, x):
        """The mean of every group, at each of its channels: (n, c, h, w) -> (n, c, 1, 1)."""
        channels = x.mean((2, 3), keepdim=True).unflatten(1, (self.groups, -1))
        return channels.mean(2, keepdim=True).expand_as(channels).flatten(1, 2)

    def forward(self, x):
        centred = x - self._of_groups(x)  # first, so that no small difference of large squares is needed
        scale = torch.rsqrt(self._of_groups(centred * centred) + self.eps) * self.weight[:, None, None]
        return centred * scale + self.bias[:, None, None]


class DoubleAndConvolve(torch.nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution, in one: (n, c, h, w) -> (n, c', 2h, 2w).

    In one dimension, with weights a, b, c: an even place 2i reads x[i-1], x[i], x[i], an odd one x[i], x[i], x[i+1]. So it is
    a x[i-1] + (b + c) x[i], and (a + b) x[i] + c x[i+1]: a transposed convolution of stride 2 with weights c, b + c, a + b, a.
    """

    def __init__(self, convolution: torch.nn.Conv2d):
        super().__init__()
        spread = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        weight = torch.einsum("ak,oikl,bl->ioab", spread, convolution.weight.detach().float(), spread)
        self.weight = torch.nn.Parameter(weight.to(convolution.weight.dtype).contiguous(), requires_grad=False)
        self.bias = convolution.bias

    def forward(self, x, *_):
        return torch.nn.functional.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)


def decoder_forward(decoder, graph: Compiled) -> Callable:
    def forward(self, sample, *more, **others):
        bare = not any(value is not None for value in (*more, *others.values()))
        if self is not decoder or not bare or not graph.covers(sample):
            return type(self).forward(self, sample, *more, **others)
        return graph(sample, exact=lambda: type(self).forward(self, sample))

    return forward


SERIAL = 32_768  # numbers up to which PyTorch computes on the calling thread alone


def is_pointwise(layer) -> bool:
    """Whether a layer is the 1x1 convolution of a few channels that stands before a VAE's decoder."""
    plain = isinstance(layer, torch.nn.Conv2d) and layer.groups == 1
    return plain and layer.kernel_size == layer.stride == (1, 1)


def pointwise_forward(self, sample):
    """A 1x1 convolution of few numbers without a thread; of many by the layer itself."""
    products = self.out_channels * sample.numel()
    if products > SERIAL or sample.ndim != 4 or self.padding != (0, 0):
        return type(self).forward(self, sample)
    answer = (self.weight[:, :, 0] * sample.flatten(2)[:, None]).sum(2)
    if self.bias is not None:
        answer = answer + self.bias[:, None]
    return answer.unflatten(2, sample.shape[2:])


def postprocess(self, image, output_type="pil", do_denormalize=None):
    """An image processor's last step, [-1, 1] to pictures, with the same numbers and without threads; others than usual by itself."""
    plain = isinstance(image, torch.Tensor) and image.dtype == torch.float32 and image.device.type == "cpu"
    all_of_them = self.config.do_normalize if do_denormalize is None else all(do_denormalize)
    if not plain or image.requires_grad or not all_of_them or output_type not in ("np", "pil"):
        return type(self).postprocess(self, image, output_type, do_denormalize)
    pictures = np.clip(image.numpy() * np.float32(0.5) + np.float32(0.5), 0, 1).transpose(0, 2, 3, 1)
    return pictures if output_type == "np" else self.numpy_to_pil(pictures)

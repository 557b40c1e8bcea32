"""The same pipeline, computed faster on a CPU: `load(name, speed="fast")`, or `speed_up(pipe)`.

U-Net and VAE decoder run through OpenVINO, and a caption that was encoded is not encoded again. The pipeline stays
diffusers' own and is called, recorded and saved as before: only `forward` of three networks is replaced, on the instance. What
the compiled network does not cover - a gradient, an adapter, an attention processor, a LoRA, changed weights - is
computed by the network itself, so nothing is ever wrong, only slower.

Compiled networks lie in the cache folder, so a second start is quick. Whether bfloat16 is faster is measured once a machine.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import time
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from ._data import cache_folder

SPEEDS = ("exact", "fast")
KEPT = 256  # captions whose states are kept


def speed_up(pipe) -> str:
    """Make a pipeline on the CPU fast, in place; returns a few words on how. Call it again after weights were changed on purpose.

    The pictures differ from the exact ones by rounding; `bench/speed.py` measures how far. `slow_down(pipe)` takes everything back. Raises ImportError where OpenVINO is not
    installed, TypeError for a pipeline without a U-Net of Stable Diffusion 1's shape, ValueError off the CPU.
    """
    openvino = _import_openvino()
    unet, decoder = getattr(pipe, "unet", None), getattr(getattr(pipe, "vae", None), "decoder", None)
    if unet is None or decoder is None or getattr(unet.config, "addition_embed_type", None):
        raise TypeError(
            f"speed='fast' on a CPU knows pipelines of Stable Diffusion 1's and 2's shape, not {type(pipe).__name__}; use speed='exact'"
        )
    if unet.device.type != "cpu" or unet.dtype != torch.float32:
        raise ValueError(
            f"this way of speed='fast' is for float32 on a CPU, and the pipeline is {unet.dtype} on {unet.device}"
        )
    slow_down(pipe)
    folder = cache_folder() / "compiled"
    cells = unet.config.sample_size
    text = torch.zeros(2, pipe.tokenizer.model_max_length, unet.config.cross_attention_dim)
    noise = torch.zeros(2, unet.config.in_channels, cells, cells)
    graph = Compiled(_UNetGraph(unet), (noise, torch.tensor(501.0), text), folder, openvino)
    _replace(unet, _unet_forward(unet, graph))
    latents = torch.zeros(1, pipe.vae.config.latent_channels, cells, cells)
    _replace(decoder, _decoder_forward(decoder, Compiled(decoder, (latents,), folder, openvino)))
    if pipe.text_encoder is not None:
        _replace(pipe.text_encoder, _remembered(pipe.text_encoder))
    return f"fast: OpenVINO {openvino.__version__.split('-')[0]}, {graph.precision}"


def slow_down(pipe) -> None:
    """Give a pipeline its own arithmetic back."""
    vae = getattr(pipe, "vae", None)
    for network in (
        getattr(pipe, "unet", None),
        getattr(vae, "decoder", None),
        getattr(pipe, "text_encoder", None),
    ):
        if network is not None:
            vars(network).pop("forward", None)


def _replace(network: torch.nn.Module, forward: Callable) -> None:
    network.forward = types.MethodType(functools.wraps(type(network).forward)(forward), network)


# ---- the three networks --------------------------------------------------------------------------------------


class _UNetGraph(torch.nn.Module):
    """A U-Net as a function of three tensors, which is what can be traced."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, encoder_hidden_states):
        return type(self.unet).forward(self.unet, sample, timestep, encoder_hidden_states, return_dict=False)[
            0
        ]


def _unet_forward(unet, graph: Compiled) -> Callable:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    factor = 2**unet.num_upsamplers  # sides that it does not divide take another way through the network

    def forward(self, sample, timestep, encoder_hidden_states, *more, return_dict=True, **others):
        bare = (
            self is unet and not more and all(value is None for value in others.values())
        )  # not a copy of it
        if not bare or any(side % factor for side in sample.shape[-2:]) or not graph.covers(sample):
            return type(self).forward(
                self, sample, timestep, encoder_hidden_states, *more, return_dict=return_dict, **others
            )
        timestep = torch.as_tensor(timestep, dtype=torch.float32).reshape(-1)[0]
        output = graph(sample, timestep, encoder_hidden_states)
        return UNet2DConditionOutput(sample=output) if return_dict else (output,)

    return forward


def _decoder_forward(decoder, graph: Compiled) -> Callable:
    def forward(self, sample, latent_embeds=None):
        if self is not decoder or latent_embeds is not None or not graph.covers(sample):
            return type(self).forward(self, sample, latent_embeds)
        return graph(sample)

    return forward


def _remembered(encoder) -> Callable:
    """A text encoder's forward that knows its last answers."""
    known: OrderedDict = OrderedDict()
    watched = Watched(encoder)

    def forward(self, input_ids=None, *more, **others):
        plain = not more and all(isinstance(value, (bool, type(None))) for value in others.values())
        here = self is encoder and isinstance(input_ids, torch.Tensor) and input_ids.device.type == "cpu"
        if not here or not plain or torch.is_grad_enabled():
            return type(self).forward(self, input_ids, *more, **others)
        if not watched.unchanged():
            known.clear()
            watched.look()
        key = input_ids.shape, input_ids.numpy().tobytes(), tuple(sorted(others.items()))
        if key not in known:
            known[key] = type(self).forward(self, input_ids, **others)
            if len(known) > KEPT:
                known.popitem(last=False)
        known.move_to_end(key)
        return known[key]

    return forward


# ---- weights that may change -----------------------------------------------------------------------------------


class Watched:
    """Whether a network still is what it was: its layers, its attention processors, one number of every parameter.

    A LoRA that is loaded puts layers in, one that is fused moves all numbers of a matrix, and `.to` moves the memory.
    """

    def __init__(self, network: torch.nn.Module):
        self.network = network
        self.look()

    def look(self) -> None:
        """Remember what is there now."""
        self.parameters = list(self.network.parameters())
        self.places = [parameter.data_ptr() for parameter in self.parameters]
        middle = [
            p.data.view(-1)[p.numel() // 2 : p.numel() // 2 + 1] for p in self.parameters if p.is_contiguous()
        ]
        self.numbers, self.before = middle, torch.cat(middle).clone()
        self.attentions = [m for m in self.network.modules() if hasattr(m, "processor")]
        self.processors = [type(attention.processor) for attention in self.attentions]

    def unchanged(self) -> bool:
        """True where nothing has changed since `look`; takes about a tenth of a millisecond for Pocket's U-Net."""
        return (
            not getattr(self.network, "_hf_peft_config_loaded", False)
            and all(p.data_ptr() == place for p, place in zip(self.parameters, self.places, strict=True))
            and all(
                type(a.processor) is kind for a, kind in zip(self.attentions, self.processors, strict=True)
            )
            and torch.equal(torch.cat(self.numbers), self.before)
        )


# ---- OpenVINO ----------------------------------------------------------------------------------------------------


def _import_openvino():
    """OpenVINO without its telemetry, which would tell its maker of every import and conversion, unasked."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault(
            "openvino_telemetry", None
        )  # cannot be imported: OpenVINO then has a stub for it
    try:
        import openvino
    except ImportError as error:
        raise ImportError("speed='fast' on a CPU needs OpenVINO: pip install 'sdwidgets[fast]'") from error
    return openvino


class Compiled:
    """A network as OpenVINO runs it; `example`: tensors of the shapes that it is traced with, the batch first.

    Call it with tensors of any batch size and any height and width; every new shape is compiled once, in about a second.
    Returns a tensor of its own.
    """

    def __init__(self, network: torch.nn.Module, example: tuple[torch.Tensor, ...], folder: Path, openvino):
        self.watched = Watched(network.unet if isinstance(network, _UNetGraph) else network)
        self.channels = example[0].shape[1]
        self.said = False
        with suppress(OSError):  # a folder that cannot be written costs time, nothing else
            folder.mkdir(parents=True, exist_ok=True)
        # Not CACHE_DIR: with it, what version 2026.4 read back in bfloat16 gave NaN. Compiling takes under a second.
        self.core = openvino.Core()
        self.model = _convert(network, example, folder, openvino)
        self.requests: dict[tuple[int, ...], object] = {}
        self.precision = _faster_precision(self.core, self.model, example, folder, openvino)
        self.check(network, example)

    def covers(self, sample: torch.Tensor) -> bool:
        """Whether a call with this first tensor may be answered here. Says once, as a warning, that weights have changed."""
        alike = (
            sample.dtype == torch.float32 and sample.device.type == "cpu" and sample.shape[1] == self.channels
        )
        if torch.is_grad_enabled() or not alike:
            return False
        if self.watched.unchanged():
            return True
        if not self.said:
            self.said = True
            warnings.warn(
                "the model has changed since it was made fast, so it computes exactly, and slowly; "
                "call sdwidgets.speed_up(pipe) again to make it fast as it is now",
                stacklevel=2,
            )
        return False

    @torch.no_grad()
    def check(
        self, network: torch.nn.Module, example: tuple[torch.Tensor, ...], allowed: float = 0.05
    ) -> None:
        """Compare with the network on noise, before anyone relies on it; falls back to float32 where bfloat16 is wrong.

        `allowed`: of the root mean square of the answer. Raises RuntimeError where float32 is wrong too.
        """
        generator = torch.Generator().manual_seed(0)
        noise = [torch.randn(t.shape, generator=generator) if t.ndim else t for t in example]
        expected = network(*noise)
        error = (self(*noise) - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        if error < allowed:  # not so where it is no number
            return
        if self.precision == "f32":
            raise RuntimeError(
                f"what OpenVINO computes differs by {error:.1%} from the network; use speed='exact', and tell us of it"
            )
        self.precision = "f32"
        self.requests.clear()
        self.check(network, example, allowed)

    def request(self, tensors):
        """OpenVINO's request for inputs of these shapes, compiled at the first of each batch size."""
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        if shapes not in self.requests:
            self.requests[shapes] = _compile(self.core, self.model, shapes, self.precision)
        return self.requests[shapes]

    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor:
        request = self.request(tensors)
        request.infer([tensor.detach().contiguous().numpy() for tensor in tensors], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor().data.copy())  # its memory is used again


def _compile(core, model, shapes, precision: str):
    fixed = model.clone()
    fixed.reshape({place: list(shape) for place, shape in enumerate(shapes)})
    settings = {
        "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY",
    }  # fmt: skip
    return core.compile_model(fixed, "CPU", settings).create_infer_request()


@torch.no_grad()
def _convert(network, example, folder: Path, openvino):
    """The network as OpenVINO's graph: read from the cache folder, or traced and written there."""
    digest = hashlib.sha256(f"{openvino.__version__} {torch.__version__}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    digest.update(str([tuple(tensor.shape) for tensor in example]).encode())
    file = folder / f"{type(network).__name__.strip('_').lower()}-{digest.hexdigest()[:20]}.xml"
    if file.exists():
        with suppress(Exception):  # a file that was cut short is made again
            return openvino.Core().read_model(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing fixes what depends on shapes, and shapes are fixed here
        model = openvino.convert_model(network, example_input=example)
    with suppress(Exception):
        openvino.save_model(model, file, compress_to_fp16=False)
    return model


def _faster_precision(core, model, example, folder: Path, openvino) -> str:
    """ "bf16" where this machine computes this graph faster so, by a tenth at least; else "f32". Measured once."""
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "f32"
    machine = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}, {torch.get_num_threads()} threads, {openvino.__version__}, {[tuple(t.shape) for t in example]}"
    file = folder / "precision.json"
    known = {}
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text())
    if machine not in known:
        shapes, arrays = [tuple(t.shape) for t in example], [t.numpy() for t in example]
        requests = {name: _compile(core, model, shapes, name) for name in ("f32", "bf16")}
        seconds: dict[str, list[float]] = {name: [] for name in requests}
        for _ in range(12):
            for name, request in requests.items():
                began = time.perf_counter()
                request.infer(arrays)
                seconds[name].append(time.perf_counter() - began)
        least = {name: min(values[2:]) for name, values in seconds.items()}  # others on the machine only add
        known[machine] = "bf16" if least["bf16"] < 0.9 * least["f32"] else "f32"
        with suppress(OSError):
            file.write_text(json.dumps(known, indent=1))
    return known[machine]

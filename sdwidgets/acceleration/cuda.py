"""`speed="fast"` on a CUDA card: diffusers' own networks, by the public means of PyTorch and diffusers.

Attention is PyTorch's fused one already. Added here, all on the instances and all undone by `restore(pipe)`:
- channels last, the layout of the tensor cores' convolutions;
- one product for query, key and value instead of three (`fuse_qkv_projections`), without a second copy of the weights;
- the blocks that repeat, compiled (`compile_repeated_blocks`, and residual blocks alike), which fuses what lies between products;
- one CUDA graph for a whole call of the denoiser: the host asks once a step, not a thousand times.

Weights are read where they lie, so a change in place counts at once. A LoRA, another attention processor, FreeU, a parameter that
is replaced or moved: then everything is taken back, with a warning, and the network computes by itself. While a hook waits for one
of its layers, it computes by itself as well, and is fast again when the hook is removed.

Compiling takes from half a minute to a few minutes at the first picture of each size. What the compiler makes lies in the
cache folder, so later starts take seconds. Float16 and bfloat16 alike; a T4 has float16 only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable

import torch

from ..parts import find_denoiser, map_leaves
from ..paths import cache_folder
from .change_detector import CHANGED, ChangeDetector
from .text_encoder import cache_text_encoder
from .undo import replace_method, restore

KEPT_GRAPHS = 4  # signatures (sizes, batches); each keeps the memory of one call
VARIANTS = 64  # shapes for which one block may be compiled; PyTorch stops at 8, and a U-Net has more


def speed_up_cuda(pipe) -> str:
    """Make a pipeline on a CUDA card fast, in place; returns a few words on how. ValueError where it moves part by part."""
    if any(hasattr(part, "_hf_hook") for part in pipe.components.values()):
        raise ValueError(
            "speed='fast' needs the whole model on the card, and this one is moved there part by part; use speed='exact'"
        )
    return compile_regions(pipe, graphs=True)


def compile_regions(pipe, *, graphs: bool) -> str:
    """What `speed_up_cuda` does, on any device; `graphs`: also CUDA graphs, which need a card. Returns a few words on how."""
    restore(pipe)
    denoiser = find_denoiser(pipe)
    decoder = getattr(getattr(pipe, "vae", None), "decoder", None)
    if denoiser is None or decoder is None:
        raise TypeError(f"speed='fast' knows pipelines with a denoiser and a VAE, not {type(pipe).__name__}")
    undo: list[Callable[[], None]] = []
    pipe._sdwidgets_undo = lambda: [step() for step in reversed(undo)]
    notes = ["fast: channels last"]
    for network in (denoiser, decoder):
        network.to(memory_format=torch.channels_last)
        undo.append(lambda network=network: network.to(memory_format=torch.contiguous_format))
    if hasattr(pipe, "unet") and _fuse_projections(denoiser, undo):
        notes.append("fused projections")
    missing = why_no_compiler(denoiser.device)
    if missing:
        notes.append(f"not compiled: {missing}")
    else:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
        config = torch._dynamo.config
        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # its older name
        setattr(config, limit, max(VARIANTS, getattr(config, limit)))
        _compile(denoiser, [*(getattr(denoiser, "_repeated_blocks", None) or []), "ResnetBlock2D"], undo)
        _compile(decoder, ["ResnetBlock2D"], undo)
        notes.append("compiled by region, at the first picture of each size: up to a few minutes, then kept")
    call = Graphed(denoiser) if graphs else None
    if call is not None:
        notes.append("CUDA graphs")
    # `restore` takes this forward back too.
    replace_method(denoiser, _forward(denoiser, lambda: restore(pipe), call))
    if not missing:  # Stable Diffusion XL moves its decoder to float32 and back for every picture: no change
        replace_method(decoder, _forward(decoder))
    cache_text_encoder(pipe)
    return ", ".join(notes)


def why_no_compiler(device: torch.device) -> str:
    """What PyTorch's compiler lacks here, in words; "" where nothing."""
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++", "cl"))):
        return "no C++ compiler was found"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return ""


def _forward(network, changed: Callable[[], None] | None = None, graphed: Graphed | None = None) -> Callable:
    """What `network` is called by. changed: called where it is no longer what it was; None: nobody looks for a change."""
    watched = ChangeDetector(network)

    def forward(self, *args, **kwargs):
        here = self is network  # not a copy of it
        if here and changed is not None and not watched.in_place():
            changed()
            warnings.warn(CHANGED, stacklevel=2)
        elif here and watched.hooked():  # a graph that is replayed calls no hooks, nor does a block that is compiled
            with torch.compiler.set_stance("force_eager"):
                return type(self).forward(self, *args, **kwargs)
        elif here and graphed is not None and not torch.is_grad_enabled():
            return graphed(*args, **kwargs)
        return type(self).forward(self, *args, **kwargs)

    return forward


def _compile(network: torch.nn.Module, names: list[str], undo: list) -> None:
    """Compile every block of these classes by itself: blocks of one shape share what is compiled."""
    for module in network.modules():
        if type(module).__name__ in names:
            # Shapes stay fixed: kernels for any size are slower, and a run has one size.
            module.compile(dynamic=False)
            undo.append(lambda module=module: vars(module).pop("_compiled_call_impl", None))


_JOINT = {"to_qkv": ("to_q", "to_k", "to_v"), "to_kv": ("to_k", "to_v")}


def _fuse_projections(unet, undo: list) -> bool:
    """diffusers' fused projections, with the separate layers as views of the joint one: one memory, so they never differ."""
    from diffusers.models.attention_processor import AttnProcessor2_0, FusedAttnProcessor2_0

    before = unet.attn_processors
    if not all(type(processor) is AttnProcessor2_0 for processor in before.values()):
        return False
    with torch.no_grad():
        unet.fuse_qkv_projections()
    attentions = [(name, m) for name, m in unet.named_modules() if getattr(m, "fused_projections", False)]
    for _, attention in attentions:
        for joint, names in _JOINT.items():
            if (layer := attention._modules.pop(joint, None)) is None:
                continue
            attention.__dict__[joint] = layer  # no part of the state that is saved: it is there already
            parts = [getattr(attention, name) for name in names]
            for kind in ("weight", "bias"):
                whole = getattr(layer, kind)
                if whole is not None:
                    sizes = [part.out_features for part in parts]
                    for part, piece in zip(parts, whole.data.split(sizes), strict=True):
                        getattr(part, kind).data = piece

    def restore():
        for name, attention in attentions:
            attention.fused_projections = False
            for joint in _JOINT:
                attention.__dict__.pop(joint, None)
            if type(attention.processor) is FusedAttnProcessor2_0:  # one that a person has set stays
                attention.set_processor(before[f"{name}.processor"])

    undo.append(restore)
    return True


class Graphed:
    """A network's call as one CUDA graph for each signature; other calls, and what cannot be captured, go the usual way.

    Where the memory is too small for a graph of one signature, calls of that one go the usual way, and raise where even that does not
    fit; others, such as a smaller batch, still get theirs.

    Tensors are copied to where the graph reads them, and the answer is a copy: the graph's own memory is written again at the
    next call, and schedulers and recordings keep answers.
    """

    def __init__(self, network: torch.nn.Module):
        self.network = network
        self.graphs: OrderedDict[tuple, tuple | None] = OrderedDict()  # None: it did not fit
        self.impossible = False
        self.lock = threading.RLock()  # a graph works on one memory

    def __call__(self, *args, **kwargs):
        with self.lock:
            return self._answer(*args, **kwargs)

    def _answer(self, *args, **kwargs):
        device = self.network.device
        if "timestep" in kwargs and not isinstance(kwargs["timestep"], torch.Tensor):
            kwargs["timestep"] = torch.tensor(kwargs["timestep"], device=device)
        elif len(args) > 1 and not isinstance(args[1], torch.Tensor):
            args = (args[0], torch.tensor(args[1], device=device), *args[2:])
        tensors: list[torch.Tensor] = []
        key = _signature((args, kwargs), tensors)
        if self.impossible or key is None or device.type != "cuda":
            return type(self.network).forward(self.network, *args, **kwargs)
        if key not in self.graphs:
            try:
                self.graphs[key] = self.capture(args, kwargs)
            except Exception as error:
                # Ending a capture that ran out of memory may raise an error of its own.
                memory = any(isinstance(e, torch.OutOfMemoryError) for e in (error, error.__context__))
                first = (str(error).splitlines() or [type(error).__name__])[0][:200]
                if memory:
                    self.graphs[key] = None
                else:
                    self.impossible = True
                    torch.cuda.synchronize(device)
                warnings.warn(f"no CUDA graph, so each step costs the host more: {first}", stacklevel=3)
            if self.graphs.get(key) is None:  # out of the block above, whose error held what was allocated
                torch.cuda.empty_cache()
            if len(self.graphs) > KEPT_GRAPHS:
                self.graphs.popitem(last=False)
        if self.graphs.get(key) is None:
            return type(self.network).forward(self.network, *args, **kwargs)
        self.graphs.move_to_end(key)
        graph, inputs, output = self.graphs[key]
        for held, tensor in zip(inputs, tensors, strict=True):
            held.copy_(tensor, non_blocking=True)
        graph.replay()
        return map_leaves(output, torch.Tensor, torch.Tensor.clone)

    def capture(self, args, kwargs):
        """(graph, the tensors that it reads, what it answers)."""
        device = self.network.device
        # A tensor that waits on the host would be copied at every replay from where it no longer is.
        here = lambda tensor: tensor.detach().to(device, copy=True)
        args, kwargs = map_leaves((args, kwargs), torch.Tensor, here)
        inputs: list[torch.Tensor] = []
        _signature((args, kwargs), inputs)
        call = type(self.network).forward
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):  # compiles, and lets libraries choose their kernels
            for _ in range(3):
                call(self.network, *args, **kwargs)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = call(self.network, *args, **kwargs)
        return graph, inputs, output


def _signature(value, tensors: list[torch.Tensor]):
    """What must be alike for two calls to share a graph; collects the tensors on the way. None where a value is unknown."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return "tensor", tuple(value.shape), value.dtype, value.stride()
    if value is None or isinstance(value, (bool, int, float, str)):
        return type(value).__name__, value
    if isinstance(value, dict):
        value = tuple(sorted(value.items()))
    if isinstance(value, (list, tuple)):
        inner = tuple(_signature(item, tensors) for item in value)
        return None if None in inner else inner
    return None

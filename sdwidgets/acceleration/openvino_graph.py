"""A network as a graph of OpenVINO: traced, kept in the cache folder, checked, and run in the precision that is faster here."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from ..paths import replacing
from .change_detector import CHANGED, ChangeDetector
from .threads import usable_threads

KEPT_SHAPES = 8


def import_openvino():
    """OpenVINO without its telemetry, which would tell its maker of every import and conversion, unasked."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # cannot be imported: OpenVINO then has a stub for it
    try:
        import openvino
    except ImportError as error:
        raise ImportError("speed='fast' on a CPU needs OpenVINO: pip install 'sdwidgets[fast]'") from error
    return openvino


class Compiled:
    """A network as OpenVINO runs it; `example`: tensors of the shapes that `graph` is traced with, the batch first.

    Call it with tensors of any batch size and any height and width; every new shape is compiled once, in about a second, and its
    first answer compared with `exact()`, the network's own: where it is wrong, that shape is computed by the network from then on.
    Returns a tensor of its own. `graph`: a module that computes what `network` does, and may be thrown away afterwards.
    `expected`: what it is compared with, by default the network. `precision`: "f32" or "bf16"; by default the faster, as measured. Inputs other than the first may be kept: they must not be
    written to later.
    """

    def __init__(self, network, graph, example: tuple, folder: Path, expected=None, precision: str | None = None):
        self.watched = ChangeDetector(network)
        self.lock = threading.RLock()  # a graph works on one memory
        self.channels = example[0].shape[1]
        self.said = False
        self.openvino = import_openvino()
        with suppress(OSError):  # a folder that cannot be written costs time, nothing else
            folder.mkdir(parents=True, exist_ok=True)
        # Not CACHE_DIR: with it, what version 2026.4 read back in bfloat16 gave NaN. Compiling takes under a second.
        self.core = self.openvino.Core()
        self.model, self.digest = _convert(graph, example, folder, self.openvino)
        self.runners: dict[tuple, Runner | None] = {}  # by threads and shapes; None: the network itself
        self.precision = precision or faster_precision(self, example, folder)
        self.check(expected or network, example)

    def covers(self, sample: torch.Tensor, midst: bool = False) -> bool:
        """Whether a call with this first tensor may be answered here. Says once, as a warning, that weights have changed.

        midst: in the midst of a run whose first call was covered: only a part of the network is asked whether it has changed.
        """
        alike = sample.dtype == torch.float32 and sample.device.type == "cpu" and sample.shape[1] == self.channels
        if torch.is_grad_enabled() or not alike or self.watched.hooked():
            return False
        if self.watched.unchanged_in_part() if midst else self.watched.unchanged():
            return True
        if not self.said:
            self.said = True
            warnings.warn(CHANGED, stacklevel=2)
        return False

    @torch.no_grad()
    def check(self, expected: Callable, example: tuple[torch.Tensor, ...]) -> None:
        """Compare with the network on noise, before anyone relies on it; falls back to float32 where bfloat16 is wrong.

        Raises RuntimeError where float32 is wrong too.
        """
        noise = torch.randn(example[0].shape, generator=torch.Generator().manual_seed(0))
        right = expected(noise, *example[1:])
        error = relative_error(self(noise, *example[1:]), right)
        if error < ALLOWED_ERROR:  # not so where it is no number
            return
        if self.precision == "f32":
            raise RuntimeError(
                f"what OpenVINO computes differs by {error:.1%} from the network; use speed='exact', and tell us of it"
            )
        self.precision = "f32"
        self.runners.clear()
        self.check(expected, example)

    def __call__(self, *tensors: torch.Tensor, exact: Callable[[], torch.Tensor] | None = None) -> torch.Tensor:
        with self.lock:
            return self._answer(tensors, exact)

    def _answer(self, tensors: tuple[torch.Tensor, ...], exact: Callable[[], torch.Tensor] | None) -> torch.Tensor:
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        key = (usable_threads(), shapes)
        if key in self.runners:
            runner = self.runners[key]
            return runner(tensors) if runner else exact()
        runner = Runner(self, shapes, self.precision)
        answer = runner(tensors)
        if exact is not None and not relative_error(answer, right := exact()) < ALLOWED_ERROR:
            runner, answer = None, right
            warnings.warn(WRONG, stacklevel=3)
        self.runners[key] = runner
        if len(self.runners) > KEPT_SHAPES:  # each holds the weights once more
            self.runners.pop(next(iter(self.runners)))
        return answer


ALLOWED_ERROR = 0.05  # of the root mean square of the answer


def relative_error(answer: torch.Tensor, right: torch.Tensor) -> float:
    """The root mean square of the difference, as a share of that of `right`; of zeros, no difference is none."""
    difference, size = ((x.square().mean().sqrt()) for x in (answer - right, right))
    return float(difference / size.clamp(min=torch.finfo(size.dtype).tiny))


WRONG = "what OpenVINO computes for pictures of this size or number is wrong, so they are computed exactly, and slowly; tell us of it"


class Runner:
    """A graph compiled for inputs of these shapes, and the memory that it works on."""

    def __init__(self, compiled: Compiled, shapes: tuple[tuple[int, ...], ...], precision: str):
        settings = {
            "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": usable_threads(), "NUM_STREAMS": 1,
        }  # fmt: skip
        model = compiled.model.clone()
        model.reshape({index: list(shape) for index, shape in enumerate(shapes)})
        self.network = compiled.core.compile_model(model, "CPU", settings)
        self.request = self.network.create_infer_request()
        self.before: list[torch.Tensor | None] = [None] * len(shapes)
        self.read: list[torch.Tensor | None] = [None] * len(shapes)
        self.tensor = compiled.openvino.Tensor

    def __call__(self, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        for index, tensor in enumerate(tensors):
            if index == 0 or tensor is not self.before[index]:  # keys and values are set once a prompt
                # The request reads a tensor's own memory and does not keep it alive.
                self.read[index] = tensor.detach().contiguous()
                self.request.set_input_tensor(index, self.tensor(self.read[index].numpy(), shared_memory=True))
                self.before[index] = tensor
        self.request.infer()
        return torch.from_numpy(self.request.get_output_tensor().data.copy())  # its memory is used again


@torch.no_grad()
def _convert(network, example, folder: Path, openvino):
    """(The network as OpenVINO's graph: read from the cache folder, or traced and written there; the digest of what it is.)"""
    digest = hashlib.sha256(f"{openvino.__version__} {torch.__version__}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    for name, module in network.named_modules():
        digest.update(f"{name} {_plain(module)} {_plain(getattr(module, 'processor', None))}".encode())
    digest.update(str([tuple(tensor.shape) for tensor in example]).encode())
    digest = digest.hexdigest()[:20]
    file = folder / f"{type(network).__name__.strip('_').lower()}-{digest}.xml"
    if file.exists():
        with suppress(Exception):
            return openvino.Core().read_model(file), digest
        with suppress(OSError):  # a file that cannot be read is made again
            file.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing fixes what depends on shapes, and shapes are fixed here
        model = openvino.convert_model(network, example_input=example)
    with suppress(Exception), tempfile.TemporaryDirectory(dir=folder) as apart:
        openvino.save_model(model, Path(apart) / file.name, compress_to_fp16=False)
        # Another process may read or write here: no file is there half, and the one that is looked for comes last.
        for ending in (".bin", ".xml"):
            if not file.exists():
                os.replace((Path(apart) / file.name).with_suffix(ending), file.with_suffix(ending))
    return model, digest


def _plain(thing) -> str:
    """What decides the arithmetic of a layer beside its weights, as text: heads, epsilons, FreeU's scales; its class."""
    kind = lambda v: f"{type(v).__module__}.{type(v).__qualname__}"
    plain = (bool, int, float, str, tuple, type(None))
    public = sorted((k, v) for k, v in getattr(thing, "__dict__", {}).items() if not k.startswith("_"))
    return f"{kind(thing)} {[(k, v if isinstance(v, plain) else kind(v)) for k, v in public]}"


def faster_precision(compiled: Compiled, example, folder: Path) -> str:
    """The precision in which this machine computes this graph faster: float32, unless bfloat16 gains a twentieth.

    Measured once for each graph, machine, number of threads and version, in a second or two; the answer stands in `precisions.json`
    until it cannot be compiled any more. What was compiled by the answer is kept in `compiled.runners`.
    """
    core, threads = compiled.core, torch.get_num_threads()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "f32"
    shapes = tuple(tuple(tensor.shape) for tensor in example)
    machine = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')}, {os.environ.get('ONEDNN_MAX_CPU_ISA', 'all')}, {threads} threads, {compiled.openvino.__version__}, {compiled.digest}"
    file = folder / "precisions.json"
    known = {}
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text())
    if known.get(machine) in ("f32", "bf16"):
        with suppress(RuntimeError):  # then both are measured again
            compiled.runners[usable_threads(), shapes] = Runner(compiled, shapes, known[machine])
            return known[machine]
    runners = {"f32": Runner(compiled, shapes, "f32")}
    with suppress(RuntimeError):  # where AVX-512 is forbidden, OpenVINO still lists bfloat16, and cannot compile it
        runners["bf16"] = Runner(compiled, shapes, "bf16")
    seconds: dict[str, list[float]] = {precision: [] for precision in runners}
    for _ in range(12):
        for precision, runner in runners.items():
            began = time.perf_counter()
            runner(example)
            seconds[precision].append(time.perf_counter() - began)
    least = {precision: min(taken[2:]) for precision, taken in seconds.items()}  # others on the machine only add
    best = "bf16" if least.get("bf16", math.inf) < 0.95 * least["f32"] else "f32"
    known[machine] = best
    compiled.runners[usable_threads(), shapes] = runners[best]
    with suppress(OSError), replacing(file) as part:
        part.write_text(json.dumps(known, indent=1))
    return best

"""On which device a model runs, and in which precision."""

from __future__ import annotations

from pathlib import Path

import torch

from .errors import DeviceError

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32,
    "float16": torch.float16, "fp16": torch.float16,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
}  # fmt: skip


def choose_device(device: str | torch.device = "auto") -> tuple[torch.device, str]:
    """(device, why). "auto" is CUDA, then Apple's MPS, then the CPU. DeviceError for one that is missing."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if isinstance(device, str) and device.strip().lower() == "auto":
        if cuda:
            return torch.device("cuda"), torch.cuda.get_device_name()
        return (torch.device("mps"), "Apple GPU") if mps else (torch.device("cpu"), "no GPU in reach of PyTorch")
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *(["mps"] if mps else [])]
    allowed = f'Allowed here: "auto", {", ".join(there)}.'
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise DeviceError(f"There is no device {str(device)[:40]!r}. {allowed}") from None
    if chosen.type == "cuda" and not cuda:
        raise DeviceError(f"PyTorch reaches no CUDA card; `sdwidgets doctor` tells why. {allowed}")
    if chosen.type not in ("cpu", "cuda", "mps") or (chosen.index is not None and str(chosen) not in there):
        raise DeviceError(f"There is no device {str(chosen)!r}. {allowed}")
    return chosen, ""


def choose_dtype(dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu") -> tuple[torch.dtype, str]:
    """(dtype, why). "auto" is bfloat16 on CUDA from compute capability 8 on and on CPUs with AMX; float16 on
    older CUDA cards (they only emulate bfloat16); float32 elsewhere (bfloat16 without AMX was slower).
    """
    device = torch.device(device)
    if not (isinstance(dtype, str) and dtype.strip().lower() == "auto"):
        key = str(dtype).strip().lower().removeprefix("torch.")
        chosen = DTYPES.get(key)
        if chosen is None:
            raise DeviceError(f'There is no precision {str(dtype)[:40]!r}; use "auto", {", ".join(DTYPES)}.')
        if chosen == torch.float16 and device.type == "cpu":
            raise DeviceError("float16 is for GPUs; on a CPU use float32 or bfloat16.")
        return chosen, ""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return auto_dtype("cuda", major), f"compute capability {major}.{minor}"
    amx = device.type == "cpu" and has_amx()
    return auto_dtype(device.type, amx=amx), "this CPU has AMX" if amx else ""


def auto_dtype(kind: str, capability: int = 0, amx: bool = False) -> torch.dtype:
    """The precision for a kind of device ("cuda", "mps", "cpu"), a card's major compute capability, a CPU's AMX."""
    if kind == "cuda":
        return torch.bfloat16 if capability >= 8 else torch.float16
    return torch.bfloat16 if kind == "cpu" and amx else torch.float32


def has_amx() -> bool:
    """True for a CPU with matrix units for bfloat16 (Intel AMX), as Linux reports it."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False

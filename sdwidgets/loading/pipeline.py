"""From a name to a stock diffusers pipeline, on the right device and in the right precision."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..acceleration import SPEEDS, restore, speed_up
from ..paths import data_folder, from_home
from . import hub
from .catalog import MODELS, closest, find_model
from .checkpoint import PICKLES, check_folder, read_header
from .devices import choose_device, choose_dtype
from .errors import FALLBACK, DeviceError, LoadError, NoSpaceError, UnknownModelError, WeightsError
from .memory import free_bytes, gigabytes
from .turbo import make_turbo

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


#: The page of a model on the hub: its id, and a revision where the page is of one.
HUB_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)/?(?:(?:tree|blob)/([^/]+)(?:/.*)?)?"
)


def load(
    name: str | Path = "pocket",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    revision: str | None = None,
    speed: str = "exact",
    turbo: bool = False,
) -> DiffusionPipeline:
    """A stock diffusers text-to-image pipeline, ready to call; prints one line on what was chosen.

    name: a short name of `loading.catalog.MODELS` ("pocket", "sd15"), a folder that `save_pretrained` wrote, a hub id.
    device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps" or a torch.device.
    dtype: "auto" (see `choose_dtype`), "float32", "float16", "bfloat16" or a torch dtype.
    revision: a branch, tag or commit of the hub; None for the table's, or the newest.
    speed: "exact" for diffusers' own arithmetic, bit for bit; "fast" for the same pictures up to rounding, see `speed_up`.
        Where that is not possible (OpenVINO not installed, another family on a CPU, MPS) it warns and computes exactly.
        On a CUDA card the first picture of each size then compiles, up to a few minutes; later ones and later starts do not.
    turbo: with the model's own turbo LoRA in its weights and the scheduler that it wants, for four steps without guidance
        (guidance_scale 1), and with its small decoder, where it has one: a third of such a picture's time would be decoding.
        Pocket has both; for other models choose one that is distilled, such as "sd-turbo".
    Only safetensors are read, and no code is run from a model. A model too large for the card is moved there
    part by part as it is needed (accelerate's model offload). Raises LoadError in one sentence.
    """
    if speed not in SPEEDS:
        raise DeviceError(f"There is no speed {str(speed)[:40]!r}. Allowed: {', '.join(SPEEDS)}.")
    device, why_device = choose_device(device)
    if speed == "fast" and device.type == "cpu" and dtype == "auto":
        dtype = "float32"  # what is compiled has its own precision
    dtype, why_dtype = choose_dtype(dtype, device)
    half = dtype != torch.float32
    try:
        with _quiet():
            folder, title = _find(name, revision, half)
            pipe, files = _read(folder, half, dtype)
            few_steps = make_turbo(pipe, folder, title) if turbo else ""
    except WeightsError as error:
        if name != "pocket":
            raise
        repair = "Install sdwidgets again, or take data/pocket from the repository again."
        raise WeightsError(str(error).replace(FALLBACK, repair)) from error
    offload = _move(pipe, device, sum(path.stat().st_size for paths in files.values() for path in paths))
    faster = _made_fast(pipe, device) if speed == "fast" and not offload else ""
    if speed == "fast" and offload:
        faster = "so not fast: that needs the whole model on the card"
    parameters = sum(
        p.numel() for m in pipe.components.values() if isinstance(m, torch.nn.Module) for p in m.parameters()
    )
    precision = str(dtype).removeprefix("torch.")
    notes = [why_device, why_dtype, offload, faster, few_steps]
    if dtype == torch.float16 and "XL" in type(pipe).__name__ and pipe.vae.config.force_upcast:
        notes.append("the VAE decodes in float32")
    print(
        f"{title}: {type(pipe).__name__} on {device} in {precision}, {parameters / 1e6:,.1f}M parameters"
        f" ({'; '.join(n for n in notes if n)})"
    )
    return pipe


def _made_fast(pipe, device: torch.device) -> str:
    """Make the pipeline fast and say how in a few words; where it cannot be, warn in a sentence and leave it as it was."""
    try:
        if device.type not in ("cpu", "cuda"):
            raise TypeError(f"speed='fast' is for CPU and CUDA so far, and this is {device}")
        return speed_up(pipe)
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        restore(pipe)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    why = first.replace("; use speed='exact'", "")
    warnings.warn(f"this pipeline computes exactly, and more slowly: {why}", stacklevel=3)
    return "exact, not fast: see the warning"


def _find(name, revision, half: bool) -> tuple[Path, str]:
    """(folder, title): the folder of a short name, a path or a hub id, fetched if need be."""
    if not isinstance(name, (str, Path)) or not str(name).strip():
        raise UnknownModelError(f"A model is named by text or a path, not {name!r}; for example load('pocket').")
    text = str(name).strip()
    if address := HUB_PAGE.fullmatch(text):  # as it is copied from a browser
        text, revision = address[1], revision or address[2]
    row = find_model(text) if isinstance(name, str) else None
    if row is not None and row.hub_id is None:
        try:
            return data_folder(row.name), row.name
        except FileNotFoundError as error:
            raise UnknownModelError(str(error)) from None
    if row is not None:
        own = text if "/" in text and text not in row.formerly else row.hub_id
        ids = [i for i in dict.fromkeys([own, row.hub_id, *row.mirrors]) if i]
        return hub.fetch_first(ids, revision or row.revision, half=half), row.name
    path = from_home(text)
    if path.is_dir():
        return path, path.resolve().name
    if path.is_file():
        what = "a pickle, which can run code when opened" if path.suffix in PICKLES else "a single file"
        raise WeightsError(f"{path} is {what}; give a folder that save_pretrained wrote. {FALLBACK}")
    text = text.rstrip("/") or text
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text) and isinstance(name, str):
        return hub.fetch(text, revision, half=half), text
    looks_like_path = isinstance(name, Path) or any(c in text for c in "/\\") or text.startswith((".", "~"))
    if looks_like_path:
        raise UnknownModelError(f"There is no folder {text}. {FALLBACK}")
    hint = f"Did you mean {closest(text)!r}? " if closest(text) else ""
    raise UnknownModelError(
        f"There is no model {text[:60]!r}. {hint}Known are {', '.join(MODELS)}; "
        f"or give a folder, or a hub id such as 'owner/name'."
    )


def _read(folder: Path, half: bool, dtype: torch.dtype):
    """The pipeline in `folder`, on the CPU, and part -> weight files. WeightsError where they disagree."""
    import diffusers

    variant, files = check_folder(folder, half=half)
    version = tuple(int(n) for n in diffusers.__version__.split(".")[:2])
    keyword = "dtype" if version >= (0, 40) else "torch_dtype"
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            folder, variant=variant, use_safetensors=True, local_files_only=True, **{keyword: dtype}
        )
    except Exception as error:
        if isinstance(root := _root_of(error), ImportError):
            raise LoadError(
                f"{folder} is fine, but a Python package that diffusers needs does not import: {root}. Repair that package, and restart."
            ) from error
        first = (str(error).strip().splitlines() or ["no reason was given"])[0].partition(". ")[0][:200]
        raise WeightsError(f"{folder} does not load: {first} ({type(error).__name__}). {FALLBACK}") from error
    for part, paths in files.items():
        _check_filled(folder, part, getattr(pipe, part), paths)
    return pipe, files


def _root_of(error: BaseException) -> BaseException:
    """What an exception came from in the end. diffusers wraps a package that does not import in errors of its own."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


@contextmanager
def _quiet():
    """No bars and warnings of the libraries while they read: what matters is checked and said here."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in libraries]
    try:
        for log in libraries:
            log.set_verbosity_error()
            log.disable_progress_bar()
        yield
    finally:
        for log, verbosity, bars in before:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()


def _check_filled(folder: Path, part: str, module: torch.nn.Module, paths: list[Path]) -> None:
    """Did the files fill every parameter? The libraries only warn, and go on with random numbers."""
    if getattr(module.config, "quantization_config", None):
        return  # its tensors are packed, in other shapes
    empty = [name for name, p in module.named_parameters() if p.is_meta]
    if not empty and part.startswith(("text_encoder", "image_encoder", "safety_checker")):
        # Names differ between versions of transformers, shapes do not.
        stored = Counter(tuple(t["shape"]) for path in paths for t in read_header(path).values())
        wanted = Counter(tuple(p.shape) for p in module.parameters())
        empty = [f"a tensor of shape {shape}" for shape in wanted - stored]
    if empty:
        raise WeightsError(
            f"{folder / part} holds other weights than its config says: {empty[0]} is missing. {FALLBACK}"
        )


def _move(pipe, device: torch.device, size: int) -> str:
    """Move the pipeline to the device, or its parts in turn where a card is too small for all."""
    try:
        if device.type == "cuda" and 1.1 * size > free_bytes(device):
            pipe.enable_model_cpu_offload(device=device)
            return f"its {gigabytes(size)} are moved there part by part"
        pipe.to(device)
    except torch.OutOfMemoryError as error:
        raise NoSpaceError(
            f"The model needs {gigabytes(size)} and {device} has {gigabytes(free_bytes(device))} free; "
            f'close other programs, or use device="cpu". {FALLBACK}'
        ) from error
    return ""

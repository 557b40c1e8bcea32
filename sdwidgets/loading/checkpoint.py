"""A saved pipeline on the disk: what is in it, and what is wrong with it."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from .errors import FALLBACK, WeightsError
from .memory import gigabytes

MOST_LAYERS = 1000  # of a part
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_STEM = r"(?:diffusion_pytorch_model|model)"
_SHARD = r"(?:-\d{5}-of-\d{5})?"
_PLAIN = re.compile(rf"{_STEM}{_SHARD}\.safetensors|{_STEM}\.safetensors\.index\.json")
_VARIANT = re.compile(rf"{_STEM}\.(\w+){_SHARD}\.safetensors")
_FP16 = re.compile(rf"{_STEM}\.fp16{_SHARD}\.safetensors|{_STEM}\.safetensors\.index\.fp16\.json")


def read_header(path: Path) -> dict[str, dict]:
    """The header of a safetensors file: tensor name -> {"dtype", "shape", "data_offsets"}; or WeightsError.

    The format: 8 bytes with the length of the header (little-endian), the header in JSON, then the tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} is no file, and a weights file belongs there. Fetch the folder again. {FALLBACK}")
    size = path.stat().st_size
    if size < 10:
        raise WeightsError(f"{path} is cut: it holds {size} bytes. Delete it and fetch it again. {FALLBACK}")
    foreign = f"{path} is not a safetensors file, or its start is damaged. Delete it and fetch it again. {FALLBACK}"
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > 100_000_000:  # the format's own bound
            raise WeightsError(foreign)
        text = file.read(length)
    if len(text) < length:
        raise WeightsError(f"{path} is cut within its header. Delete it and fetch it again. {FALLBACK}")
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        end = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise WeightsError(foreign) from None
    if size < end:
        held = f"{gigabytes(size)} of {gigabytes(end)}" if end > 10**7 else f"{size:,} of {end:,} bytes"
        raise WeightsError(f"{path} is cut: it holds {held}. Delete it and fetch it again. {FALLBACK}")
    return header


def read_index(folder: Path) -> dict[str, tuple[str, str]]:
    """The parts of a saved pipeline: name -> (library, class). Refuses code that a folder brings."""
    folder = Path(folder)
    path = folder / "model_index.json"
    if not path.is_file():
        loose = [p.name for p in sorted(folder.glob("*")) if p.suffix in (".safetensors", *PICKLES)]
        what = f"it holds {loose[0]}, a part or a single-file model" if loose else "model_index.json is missing"
        raise WeightsError(
            f"{folder} is not a saved diffusers pipeline ({what}); "
            f"give the folder that save_pretrained wrote. {FALLBACK}"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        name = index["_class_name"]
        pairs = {k: tuple(v) for k, v in index.items() if isinstance(v, list) and not k.startswith("_")}
        parts = {k: v for k, v in pairs.items() if len(v) == 2 and v[1] is not None}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f"{path} is damaged, or no pipeline's index. Fetch it again. {FALLBACK}") from None
    import diffusers

    code = [f"its part {k!r}" for k, (library, _) in parts.items() if not _known_library(library)]
    if not isinstance(name, str):
        code = ["its pipeline"]
    if code:
        raise WeightsError(
            f"{folder} brings its own Python code for {code[0]}; no code is run from a model. {FALLBACK}"
        )
    if name not in dir(diffusers):  # asking for it would import it
        raise WeightsError(
            f"{folder} is a {name[:60]}, which diffusers {diffusers.__version__} does not have; "
            f"a newer diffusers may. {FALLBACK}"
        )
    return parts


def _known_library(library) -> bool:
    """diffusers, transformers, or one of diffusers' own pipelines (as for the safety checker)."""
    if not isinstance(library, str) or not library.isidentifier():
        return False
    return library in ("diffusers", "transformers") or bool(find_spec(f"diffusers.pipelines.{library}"))


def choose_weights(
    parts: Iterable[str], names: Iterable[str], *, half: bool, where: str
) -> tuple[str | None, set[str]]:
    """Which of `names` ("unet/config.json", ...) hold the weights: (variant, weight files and their indexes).

    The variant is "fp16" where `half` is wanted and all parts have such files, or where there are no others;
    else None, the plain files. WeightsError where a part has no weights, or only a pickle.
    """
    plain, fp16 = {}, {}
    for part in parts:
        own = {n for n in names if n.startswith(part + "/")}
        plain[part] = {n for n in own if _PLAIN.fullmatch(n.removeprefix(part + "/"))}
        fp16[part] = {n for n in own if _FP16.fullmatch(n.removeprefix(part + "/"))}
        if plain[part] or fp16[part] or f"{part}/config.json" not in own:
            continue  # it has weights, or needs none (tokenizers and schedulers have no config.json)
        pickles = sorted(n for n in own if n.endswith(PICKLES))
        if pickles:
            raise WeightsError(
                f"{where} has {pickles[0]} where safetensors belong: a pickle, which can run code; "
                f"look for a safetensors version of this model. {FALLBACK}"
            )
        if others := {m[1] for n in own if (m := _VARIANT.fullmatch(n.removeprefix(part + "/")))}:
            raise WeightsError(
                f"{where} has weights of the variant {min(others)!r} alone, and plain or fp16 ones are read here; save it again "
                f"without a variant: DiffusionPipeline.from_pretrained({where!r}, variant={min(others)!r}).save_pretrained(...). {FALLBACK}"
            )
        raise WeightsError(f"{where} is not whole: {part!r} has no weights. Fetch it again. {FALLBACK}")
    heavy = [part for part in parts if plain[part] or fp16[part]]
    if not heavy:
        raise WeightsError(f"{where} has no weights in any part. Fetch it again. {FALLBACK}")
    whole_fp16, whole_plain = all(fp16[p] for p in heavy), all(plain[p] for p in heavy)
    if not (whole_fp16 or whole_plain):
        lacking = next(p for p in heavy if not plain[p])
        raise WeightsError(f"{where} is not whole: {lacking!r} has only fp16 weights. Fetch it again. {FALLBACK}")
    use_fp16 = whole_fp16 and (half or not whole_plain)
    chosen = fp16 if use_fp16 else plain
    return ("fp16" if use_fp16 else None), set().union(*(chosen[p] for p in heavy))


def check_folder(folder: Path, *, half: bool = False) -> tuple[str | None, dict[str, list[Path]]]:
    """Is this a whole pipeline in safetensors? (variant, part -> its weight files), or WeightsError.

    Every part of the index must have its files, and every weight file its full length.
    """
    folder = Path(folder)
    parts = read_index(folder)
    names = set()
    for part in parts:
        own = {f"{part}/{p.name}" for p in (folder / part).glob("*")}
        if not own:
            raise WeightsError(f"{folder} is not whole: {part!r} is missing. Fetch it again. {FALLBACK}")
        names |= own
    variant, weights = choose_weights(parts, names, half=half, where=str(folder))
    for name in sorted(n for n in names if n.endswith(".json")):
        _check_config(folder / name)
    files: dict[str, list[Path]] = {}
    for name in sorted(weights):
        if name.endswith(".safetensors"):
            read_header(folder / name)
            files.setdefault(name.split("/")[0], []).append(folder / name)
        else:
            _check_shards(folder / name, weights)
    return variant, files


def _check_config(path: Path) -> None:
    """Refuse what is no JSON object: the libraries' own errors name other reasons, such as the network. Refuse too a part that would take for
    ever to build: diffusers builds what its configuration says before it looks at the weights.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        counts = {k: v for k, v in config.items() if path.name == "config.json" and ("layers" in k or "blocks" in k)}
    except (ValueError, AttributeError, RecursionError, OSError):
        raise WeightsError(f"{path} is damaged. Delete it and fetch it again. {FALLBACK}") from None
    for name, value in counts.items():
        most = max(
            (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, (int, float))), default=0
        )
        if most > MOST_LAYERS:
            raise WeightsError(
                f"{path} says {name} = {most:g}, and no model has more than {MOST_LAYERS}; it is damaged. {FALLBACK}"
            )


def _check_shards(path: Path, weights: set[str]) -> None:
    try:
        shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f"{path} is damaged. Delete it and fetch it again. {FALLBACK}") from None
    missing = sorted(shards - {n.split("/")[1] for n in weights})
    if missing:
        raise WeightsError(f"{path.parent} is not whole: {missing[0]} is missing. Fetch it again. {FALLBACK}")

"""What was changed of a pipeline since it was loaded, as far as its parts and the files they came from show it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

FREEU = ("s1", "s2", "b1", "b2")


def changed_parts(pipe, folder: Path, variant: str | None) -> dict[str, Path | None]:
    """The networks whose weights are not those of `folder`, the pipeline's home: name -> the folder that they are of, None if it is not known."""
    changed: dict[str, Path | None] = {}
    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module) or has_weights_of(part, folder / name, variant):
            continue
        own = Path(str(getattr(part, "name_or_path", None) or getattr(part.config, "_name_or_path", "")))
        changed[name] = own if (own / "config.json").is_file() and has_weights_of(part, own, None) else None
    return changed


def has_weights_of(part: torch.nn.Module, folder: Path, variant: str | None) -> bool:
    """Whether a network's weights are those of the safetensors files in `folder`, by the first and the last row of each tensor.

    True too where nothing can be compared: no files, no common names, weights that are elsewhere (offloaded) or quantized.
    """
    own = {name: tensor for name, tensor in part.state_dict().items() if tensor.is_floating_point() and tensor.ndim}
    files = [
        f
        for f in sorted(folder.glob("*.safetensors"))
        if (f".{variant}." in f.name if variant else f.name.count(".") == 1)
    ]
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in own.keys() & set(opened.keys()):
                if not own[name].is_meta and not _has_rows_of(own[name], opened.get_slice(name)):
                    return False
    return True


def _has_rows_of(tensor: torch.Tensor, stored) -> bool:
    if list(tensor.shape) != stored.get_shape():
        return False
    for row in (slice(0, 1), slice(len(tensor) - 1, None)):
        ours, theirs = tensor[row].detach().cpu(), stored[row]
        # As it was loaded, or loaded in half precision and made wide again.
        if not any(
            torch.equal(theirs.to(first).to(ours.dtype), ours) for first in (ours.dtype, torch.float16, torch.bfloat16)
        ):
            return False
    return True


def freeu(pipe) -> dict[str, float]:
    """The arguments of `pipe.enable_freeu` that are in force; {} for none."""
    blocks = getattr(getattr(pipe, "unet", None), "up_blocks", None) or [None]
    factors = {name: value for name in FREEU if (value := getattr(blocks[0], name, None)) is not None}
    return factors if len(factors) == len(FREEU) else {}

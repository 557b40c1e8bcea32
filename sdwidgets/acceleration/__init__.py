"""The same pipeline, computed faster: `load(name, speed="fast")`, or `speed_up(pipe)`, undone by `restore(pipe)`.

The contract: a fast pipeline computes what it held when `speed_up` was called. **Call `speed_up(pipe)` again after you change weights,
layers or attention processors.** Where a change is noticed, the network itself computes, exactly and slowly, and says so once;
`change_detector.ChangeDetector` says which changes are noticed, and which are not.

The pipeline stays diffusers' own and is called, recorded and saved as before: only `forward` of its networks is replaced, on the instance,
and where there is no card the pipeline's class by one that does not look for it. `cpu` and `cuda` say what is done on which device.
`python -m bench --only tricks` measures each trick on a CPU alone; one that gains less than 5% does not stay.

What was compiled lies in the cache folder, so that a second start is quick; so does what was measured, once a machine: whether bfloat16 is
faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .threads import reserve_core
from .undo import restore

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["SPEEDS", "reserve_core", "restore", "speed_up"]

SPEEDS = ("exact", "fast")


def speed_up(pipe: DiffusionPipeline) -> str:
    """Make a pipeline fast, in place; returns a few words on how. Call it again after you change weights.

    The pictures differ from the exact ones by rounding; `python -m bench` measures how far. `restore(pipe)` takes everything back.
    Raises what `cpu.speed_up_cpu` or, on a CUDA card, `cuda.speed_up_cuda` raises; the pipeline is then as it was.
    """
    import torch

    if torch.device(pipe.device).type == "cuda":
        from .cuda import speed_up_cuda

        return speed_up_cuda(pipe)
    from .cpu import speed_up_cpu

    return speed_up_cpu(pipe)

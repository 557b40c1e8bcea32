"""What every training of a Pocket part shares: the loop, its checkpoints, its moving average, its bar.

Knows nothing of what is trained: a part hands over its modules and a function from a step number to a loss.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import functools
import hashlib
import json
import math
import os
import platform
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env, set_seed
from safetensors import safe_open
from safetensors.torch import load_file, save
from tqdm.auto import tqdm

from ...paths import replacing
from .guard import STEPS, Guard, Stopped, interrupts_wait
from .muon import Muon


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    The learning rate warms up along a line, stays, and falls along a cosine to `final_rate` over the last `decay_share` of
    the steps. A run whose length is not known beforehand stays long and falls late.
    """

    steps: int
    batch_size: int  # pictures a step, over all processes
    learning_rate: float
    optimizer: str = "muon"  # or "adamw"
    warmup_steps: int = 200
    decay_share: float = 1.0  # in 0..1, of all steps after the warm-up
    final_rate: float = 0.02  # of the highest rate
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    checkpoint_seconds: float = 120.0
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate at `step`, 0 <= step <= steps."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        falling = self.decay_share * max(1, self.steps - self.warmup_steps)
        share = max(0.0, 1 - (self.steps - step) / falling) if falling else 0.0
        fall = 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * fall)

    def build_optimizer(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a module's parameters. Raises ValueError for a name that is not known."""
        if self.optimizer == "muon":
            return Muon(module, lr=self.learning_rate, weight_decay=self.weight_decay)
        if self.optimizer == "adamw":
            return torch.optim.AdamW(
                module.parameters(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay
            )
        raise ValueError(f"no optimizer is named {self.optimizer!r}; there are: muon, adamw")


def ema_update(average: torch.nn.Module, module: torch.nn.Module, decay: float) -> None:
    """Move `average` a little towards `module`, in place: a <- decay a + (1 - decay) m."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in module.parameters()], 1 - decay)
        for a, m in zip(average.buffers(), module.buffers(), strict=True):
            a.copy_(m)


def write_json(path: Path, value: dict) -> None:
    """Write a JSON file in one move, so that a full disk or an interrupt leaves the old one."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n")


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file in one move."""
    with replacing(path) as part:
        # Not by save_file, whose error for a full disk is no OSError.
        part.write_bytes(save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))


@torch.no_grad()
def digest(module: torch.nn.Module) -> str:
    """Twelve hexadecimal digits of a module's weights in float16, the same before an export as after it."""
    weights = hashlib.sha256()
    for _, tensor in sorted(module.state_dict().items()):
        if tensor.is_floating_point():
            weights.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return weights.hexdigest()[:12]


# ---- several processes -------------------------------------------------------------------------------------


def processes() -> PartialState:
    """This process among those that `accelerate launch` started; alone where it was not started so.

    They wait for each other for up to twelve hours: encoding all scenes on a CPU takes longer than the half hour that is usual.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=datetime.timedelta(hours=12))


def check_compiled(compiled: bool) -> None:
    """Raises ValueError where a training is to be compiled and does not run on CUDA."""
    if compiled and (device := processes().device.type) != "cuda":
        raise ValueError(
            f"compiled training (--compile) is for CUDA alone, and this runs on {device}: there torch.compile can hand back zeros for gradients "
            "(in bfloat16, through a nearest upsampling), without an error and with the right loss, so that most of a U-Net is never trained; "
            "leave --compile out"
        )


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """For a function that the main process calls alone at first, and the others after it: they find the files that it wrote."""
    with processes().main_process_first():
        yield


def sampled(seed: int, batch_at: Callable) -> Callable:
    """The loss of training step `step`, for `train`: the module's, of the tensors that `batch_at(rng, step, batch_size)` gives.

    `rng` is a random stream of its own for every seed, step and process.
    """

    def loss_at(model, step, batch_size, accelerator):
        rng = np.random.default_rng([seed, step, accelerator.process_index])
        return model(*(tensor.to(accelerator.device) for tensor in batch_at(rng, step, batch_size)))

    return loss_at


def global_batch(loss_at: Callable) -> Callable:
    """`loss_at` of the batch of all processes together, of which each takes its slice.

    So a step shows the same samples with the same noise whatever the number of processes. For losses that are means over
    the rows of the tensors that they hand to the model, and whose batches are cheap to make.
    """

    def sliced(model, step, batch_size, accelerator):
        rows = slice(accelerator.process_index * batch_size, (accelerator.process_index + 1) * batch_size)
        alone = SimpleNamespace(num_processes=1, process_index=0, device=accelerator.device)
        share = lambda *batch: model(*(tensor[rows] for tensor in batch))
        return loss_at(share, step, batch_size * accelerator.num_processes, alone)

    return sliced


class Checkpoint:
    """One training run's folder: weights, average and optimiser moments as safetensors, the rest as JSON.

    The step number is part of the tensors' file name and JSON names the file that counts, so a run that is
    cut while it saves resumes from the save before.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, module, average, optimizer, record: dict) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in average.state_dict().items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
        file = f"step-{step:08d}.safetensors"
        save_tensors(self.folder / file, tensors)
        write_json(self.folder / "checkpoint.json", record | {"step": step, "file": file})
        self._keep_only(file)

    def _keep_only(self, file: str) -> None:
        for old in self.folder.glob("*step-*.safetensors"):
            if old.name != file:
                old.unlink(missing_ok=True)  # another process may have been quicker

    def record(self) -> dict | None:
        """The record of the newest save; None where there is none yet."""
        index = self.folder / "checkpoint.json"
        try:
            return json.loads(index.read_text()) if index.exists() else None
        except ValueError as error:
            raise RuntimeError(f"{index} is damaged ({error}); give --restart to begin again") from error

    def load(self, module, average, optimizer) -> dict | None:
        """Restore the newest save; returns its record, or None where there is none yet."""
        record = self.record()
        if record is None:
            return None
        try:
            tensors = load_file(self.folder / record["file"])
            part = lambda prefix: {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            module.load_state_dict(part("model."))
            average.load_state_dict(part("ema."))
        except Exception as error:
            raise RuntimeError(
                f"the checkpoint in {self.folder} does not fit this training ({error}); "
                "train with the settings it was made with, or give --restart to begin again"
            ) from error
        state: dict[int, dict] = {}
        for name, value in part("optimizer.").items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self._keep_only(record["file"])  # a run that was killed at the end of a save left the one before
        return record

    def tensor(self, name: str) -> torch.Tensor | None:
        """One tensor of the newest save; None where there is no save, or no such tensor in it."""
        record = self.record()
        if record is None:
            return None
        with safe_open(self.folder / record["file"], "pt") as tensors:
            return tensors.get_tensor(name) if name in tensors.keys() else None

    def clear(self) -> None:
        for file in (*self.folder.glob("*step-*.safetensors"), *self.folder.glob("checkpoint.json")):
            file.unlink()


def with_stage(stages: list[dict], stage: dict) -> list[dict]:
    """`stages` and one more; where it has the settings of the last, that one grows instead."""
    if stages and stages[-1] | {"samples": 0} == stage | {"samples": 0}:
        return [*stages[:-1], stage | {"samples": stages[-1]["samples"] + stage["samples"]}]
    return [*stages, stage]


def _accelerator(schedule: Schedule, compiled: bool) -> Accelerator:
    """Checks how `train` is to run, and seeds this process."""
    check_compiled(compiled)
    processes()
    (bfloat16,) = broadcast_object_list([faster_in_bfloat16()])  # the main process's answer: measured ones may differ
    accelerator = Accelerator(mixed_precision="bf16" if bfloat16 else "no")
    if schedule.batch_size % accelerator.num_processes:
        raise ValueError(
            f"a batch of {schedule.batch_size} cannot be shared by {accelerator.num_processes} processes: "
            f"give --batch-size a multiple of {accelerator.num_processes}"
        )
    set_seed(schedule.seed, device_specific=True)
    return accelerator


class _Run:
    """A training as it stands: what is trained, how far it is, and its record. `facts` are more for the record."""

    def __init__(self, name, module, schedule, folder, accelerator, restart, base, settings, facts):
        self.schedule, self.accelerator, self.facts = schedule, accelerator, facts
        self.average = copy.deepcopy(module).requires_grad_(False).to(accelerator.device)
        self.optimizer = schedule.build_optimizer(module)
        self.checkpoint = Checkpoint(folder)
        kept = None if restart else self.checkpoint.record()
        if kept and kept.get("base") != base:
            restart = True
            accelerator.print(
                f"{folder} holds a {name} of another model than the present one, or of one that it does not name: {name} begins anew"
            )
        accelerator.wait_for_everyone()
        if restart and accelerator.is_main_process:
            self.checkpoint.clear()
        accelerator.wait_for_everyone()
        new = {"step": 0, "samples": 0, "seconds": 0.0, "losses": [], "stages": []}
        self.record = new | (self.checkpoint.load(module, self.average, self.optimizer) or {})
        self.model, self.optimizer = accelerator.prepare(module, self.optimizer)
        self.guard = Guard(name, accelerator.unwrap_model(self.model))
        self.first = self.step = self.record["step"]
        self.whole = True  # not in the midst of a step
        self.samples_before, self.stages = self.record["samples"], self.record["stages"]
        self.settings = {"batch size": schedule.batch_size, "learning rate": schedule.learning_rate, **settings}
        self.seconds_before, self.began = self.record["seconds"], time.monotonic()

    @property
    def shown(self) -> int:
        """Samples that this run has shown."""
        return (self.step - self.first) * self.schedule.batch_size

    def update(self, loss_at) -> torch.Tensor:
        """One step; returns its loss, which is read later: reading a GPU's number waits for the GPU."""
        schedule, accelerator, rate = self.schedule, self.accelerator, self.schedule.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = loss_at(self.model, self.step, schedule.batch_size // accelerator.num_processes, accelerator)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.guard.watch(rate)
        self.whole = False
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(schedule.ema_decay, (1 + self.step) / (10 + self.step))
        ema_update(self.average, accelerator.unwrap_model(self.model), decay)
        self.step += 1
        self.whole = True
        if self.guard.steps == STEPS:
            self.guard.check()
        return loss.detach()

    def spent(self, loss: torch.Tensor) -> tuple[float, float]:
        """(mean loss, mean seconds of this run) over all processes: the same in each."""
        seconds = torch.tensor(time.monotonic() - self.began, device=self.accelerator.device)
        return tuple(self.accelerator.reduce(torch.stack([loss, seconds]), "mean").tolist())

    def save(self) -> None:
        """Write a checkpoint with the record."""
        self.record["moved"] = max(self.guard.check(), self.record.get("moved", [0, 0]))
        self.record |= {
            "samples": self.samples_before + self.shown,
            "stages": with_stage(self.stages, {"samples": self.shown, **self.settings}),
            "step": self.step,
            "seconds": self.seconds_before + time.monotonic() - self.began,
            "hardware": hardware(self.accelerator),
            **self.facts,
        }
        if self.accelerator.is_main_process:
            module = self.accelerator.unwrap_model(self.model)
            self.checkpoint.save(self.step, module, self.average, self.optimizer, self.record)


def train(
    name: str,
    module: torch.nn.Module,
    loss_at: Callable[[torch.nn.Module, int, int, Accelerator], torch.Tensor],
    schedule: Schedule,
    folder: Path,
    config: dict,
    restart: bool = False,
    minutes: float | None = None,
    compiled: bool = False,
    snapshot: Callable[[int, torch.nn.Module], dict | None] | None = None,
    stage: dict | None = None,
    base: str | None = None,
    facts: dict | None = None,
) -> tuple[torch.nn.Module, dict]:
    """Train `module` until `schedule.steps`, or for about `minutes`; resume where the folder holds a checkpoint.

    `loss_at(module, step, batch_size, accelerator)` makes its own batch from the step number and the process
    index, so that a resumed run sees what an unbroken one would have seen. With `minutes`, the learning rate
    still follows the steps. `compiled`: through torch.compile, on CUDA alone; it takes minutes and pays on long runs.
    `snapshot(samples, averaged module)` is called whenever the number of samples passes a multiple of `SNAPSHOT`; the plain data that it
    returns stands in the record's "snapshots".
    `stage`: settings to tell of this run beside batch size and learning rate ("scenes": of how many it learns); the record's "stages"
    has one entry for each change of them, with the samples shown in it. `base`: the digest of the frozen model that the part
    belongs to; a checkpoint of a part of another one is not resumed, the training begins anew. `facts`: more for the record.
    The arithmetic is bfloat16 where that is faster (weights stay float32). Returns the averaged module on the CPU and a record (steps, samples, seconds,
    losses, hardware, stages, and "moved": how many parameters have moved since one of its runs began, and of how many, by whole tensors).
    Ctrl-C waits for the end of a step and saves a checkpoint before it passes on; a second one does not wait, and the save before it
    remains. Raises ValueError for a batch that the processes cannot share and for `compiled` without
    CUDA, and `guard.Stopped` after ten steps or at a save where a parameter has no gradient or does not move: then nothing is saved.
    """
    accelerator = _accelerator(schedule, compiled)
    facts = {"config": config} | (facts or {}) | ({} if base is None else {"base": base})
    run = _Run(name, module, schedule, folder, accelerator, restart, base, stage or {}, facts)
    if compiled:
        run.model.compile()
    quiet = not accelerator.is_main_process
    bar = tqdm(total=schedule.steps, initial=run.step, desc=name, disable=quiet, mininterval=2)
    with bar, interrupts_wait() as between_steps:
        _loop(run, loss_at, minutes, snapshot, bar, between_steps)
    return run.average.to("cpu").eval(), run.record


def _loop(run: _Run, loss_at, minutes: float | None, snapshot, bar, between_steps: Callable[[], None]) -> None:
    """All steps of a run, with its snapshots, its losses and its saves, of which the last is made however it ends."""
    schedule, record, saved, window = run.schedule, run.record, time.monotonic(), []
    out_of_time = False
    try:
        while run.step < schedule.steps and not out_of_time:
            between_steps()
            window.append(run.update(loss_at))
            bar.update()
            samples = run.samples_before + run.shown
            crossed = samples // SNAPSHOT > (samples - schedule.batch_size) // SNAPSHOT
            if snapshot and run.accelerator.is_main_process and crossed:
                look = {"samples": samples} | (snapshot(samples, run.average) or {})
                record.setdefault("snapshots", []).append(look)
            if len(window) == 50 or run.step == schedule.steps:
                mean, spent = run.spent(sum(window) / len(window))
                out_of_time = bool(minutes) and spent > 60 * minutes  # the same answer in every process
                record["losses"].append([run.step, round(mean, 6)])
                bar.set_postfix(loss=f"{mean:.4f}", samples_per_second=f"{run.shown / spent:.1f}")
                window.clear()
            if time.monotonic() - saved > schedule.checkpoint_seconds:
                run.save()
                saved = time.monotonic()
    except Stopped:
        run.step = record["step"]  # the save before remains the last
        raise
    finally:
        if run.step > record["step"] and run.whole:
            run.save()


@functools.cache
def faster_in_bfloat16() -> bool:
    """Whether to compute in bfloat16: a GPU that has it does, a CPU where a convolution like ours gains at least a quarter.

    CPUs differ: with AMX or AVX512-BF16 it gains, without it is emulated and loses. So it is measured, in half a second;
    $SDWIDGETS_BF16=0 or 1 decides instead, for runs that must be repeated to the bit elsewhere.
    """
    if (chosen := os.environ.get("SDWIDGETS_BF16", "")) in ("0", "1"):
        return chosen == "1"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Conv2d(128, 128, 3, padding=1, dtype=dtype)
        batch = torch.randn(16, 128, 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
        with torch.no_grad():
            times = timeit.repeat(functools.partial(layer, batch), number=1, repeat=8)
        seconds[dtype] = min(times)  # others on the machine only ever add
    return seconds[torch.float32] > 1.25 * seconds[torch.bfloat16]


def fast_arithmetic(device) -> torch.autocast:
    """A context in which a model computes in bfloat16 where that is faster; its weights stay as they are."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=faster_in_bfloat16())


SNAPSHOT = 25_000  # samples between looks at a training


def passed(samples: int, batch_size: int) -> bool:
    """Whether the last batch crossed `SNAPSHOT` samples times a power of two."""
    marks = samples // SNAPSHOT, (samples - batch_size) // SNAPSHOT
    return marks[0].bit_length() > marks[1].bit_length()


def hardware(accelerator: Accelerator | None = None) -> dict:
    """What this runs on, for the model card; no names of hosts or people."""
    info = {
        "platform": platform.system(), "machine": platform.machine(), "python": platform.python_version(),
        "torch": torch.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    if accelerator is not None:
        info |= {"device": str(accelerator.device), "processes": accelerator.num_processes}
    return info

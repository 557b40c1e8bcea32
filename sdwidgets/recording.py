"""`record(pipe)`: watch a diffusers pipeline through its public seams and keep what it did as a `Trace`.

The pipeline stays diffusers' own and its picture stays the same to the last bit. For the time of a `with`
block the instance's `scheduler.step`, `vae.decode`, `preprocess` and `postprocess` of its image processors, `encode_prompt`, `get_timesteps` and
`prepare_latents` are wrapped and the calls of the denoiser are watched; all of it is undone on every way out.
"""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .generation.schedulers import is_flow, label_of
from .generation.sharing import pipeline_lock, watch_calls, wrap_method
from .latents import factors_for, from_vae, predicted_original, unpack
from .parts import find_denoiser, map_leaves
from .trace import Settings, Step, Trace

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class StopRun(Exception):
    """Raise it in `on_step` to stop a run at once; `record` cleans up and lets it out."""


@contextmanager
def record(pipe: DiffusionPipeline, *, on_step: Callable[[Step], None] | None = None) -> Iterator[Trace]:
    """Record the pipeline's run inside the block: `with record(pipe) as trace: pipe("a cat")`.

    pipe: a diffusers text-to-image, image-to-image or inpainting pipeline of the SD 1, 2, XL, 3 or FLUX
        family, adapters and LoRA included.
    on_step: called with every `Step` right after it, on the pipeline's thread; on CUDA one step later, so that the
        device never waits for it. Without it, tensors stay on their device, unsynchronised, until the picture is done.

    The trace is filled when the picture is done, at the latest when the block ends. One trace holds one run:
    a later run in the same block replaces the earlier. A run that ends in an exception, KeyboardInterrupt
    included, keeps its steps so far with `complete=False`, and the exception goes on. Blocks may be nested;
    each records.

    It hears the thread that opened the block alone. Our own runs on the same pipeline, in a Playground for example, wait until
    the block ends, and a block waits for them.

    Raises TypeError for what is no such pipeline, ValueError for an unknown kind of scheduler,
    and RuntimeError where the scheduler is replaced inside the block.
    """
    with pipeline_lock(pipe):
        recorder = _Recorder(pipe, on_step)
        try:
            with ExitStack() as undo:
                recorder.attach(undo)
                yield recorder.trace
        except BaseException:
            with suppress(Exception):  # a device that has failed gives nothing back, and its error matters more
                recorder.finalize(interrupted=True)
            if hasattr(pipe, "maybe_free_model_hooks"):  # the pipeline never came to do it
                pipe.maybe_free_model_hooks()
            raise
        recorder.finalize()


@dataclass
class _Call:
    """One scheduler call as it was seen, still on the device."""

    index: int
    timestep: torch.Tensor | float
    sigma: torch.Tensor | float | None
    latents: torch.Tensor
    noise_pred: torch.Tensor
    uncond_cond: tuple[torch.Tensor, torch.Tensor] | None  # unconditional, conditional
    ended: torch.cuda.Event | float
    pipeline_step: int
    on_host: torch.cuda.Event | None = None  # when its tensors are on the host


class _Recorder:
    def __init__(self, pipe: DiffusionPipeline, on_step):
        # Not `or`: a compiled module has no truth value.
        self.denoiser: Any = find_denoiser(pipe)
        if self.denoiser is None or not hasattr(pipe, "vae") or not hasattr(pipe, "scheduler"):
            raise TypeError(
                f"record() got {type(pipe).__name__}, and needs a diffusers pipeline with a scheduler, a vae"
                ' and a unet or transformer; make one with sdwidgets.load("pocket")'
            )
        self.pipe, self.on_step, self.scheduler = pipe, on_step, pipe.scheduler
        self.process = _process(pipe)
        flow = self.process == "flow"
        self.prediction_type = "flow_prediction" if flow else pipe.scheduler.config.prediction_type
        self.trace = Trace()
        self.step_names = list(inspect.signature(self.scheduler.step).parameters)  # slow to find out
        self.start_run()

    def start_run(self) -> None:
        """Forget the run before, in the trace too."""
        self.calls: list[_Call] = []
        self.outputs: list[torch.Tensor] = []  # of the denoiser since the last scheduler call
        self.call_args: dict = {}
        self.to_vae: torch.Tensor | None = None
        self.decoded: torch.Tensor | None = None
        self.pictures: np.ndarray | None = None
        self.notified = 0  # steps that on_step has had
        self.dtype: torch.dtype | None = None  # of what the denoiser answers; a model's own `dtype` takes milliseconds
        self.started = time.perf_counter()
        vars(self.trace).update(vars(Trace(complete=False)))  # the same object: a caller holds it

    # --- the seams

    def attach(self, undo: ExitStack) -> None:
        pipe = self.pipe
        wrap_method(undo, self.scheduler, "step", self.around_step)
        wrap_method(undo, pipe.vae, "decode", self.around_decode)
        wrap_method(undo, getattr(pipe, "image_processor", None), "postprocess", self.around_postprocess)
        wrap_method(undo, pipe, "encode_prompt", self.around_encode_prompt)
        wrap_method(undo, pipe, "prepare_latents", self.around_prepare_latents)
        wrap_method(undo, pipe, "get_timesteps", self.around_get_timesteps)
        for name, processor in (("source", "image_processor"), ("mask", "mask_processor")):
            around = functools.partial(self.around_preprocess, name)
            wrap_method(undo, getattr(pipe, processor, None), "preprocess", around)
        watch_calls(undo, self.denoiser, after=self.after_denoiser)

    def prepare(self, method, args, kwargs, new_run: bool) -> dict:
        """Common to the methods that run before the loop: their arguments by name."""
        if self.pipe.scheduler is not self.scheduler:
            raise RuntimeError("the scheduler was replaced inside record(); choose it before the block")
        if new_run:
            self.start_run()
        return inspect.signature(method).bind(*args, **kwargs).arguments

    def around_encode_prompt(self, encode_prompt, *args, **kwargs):
        # Prompts come first. A run that failed before its first step has left no calls, but a seed.
        new_run = bool(self.calls) or not {"seed", "strength"}.isdisjoint(self.call_args)
        arguments = self.prepare(encode_prompt, args, kwargs, new_run)
        # FLUX encodes the negative prompt by a second call of the same method.
        self.call_args.setdefault(
            "negative_prompt" if "prompt" in self.call_args else "prompt", arguments.get("prompt")
        )
        if arguments.get("negative_prompt") is not None:
            self.call_args["negative_prompt"] = arguments["negative_prompt"]
        return encode_prompt(*args, **kwargs)

    def around_prepare_latents(self, prepare_latents, *args, **kwargs):
        arguments = self.prepare(prepare_latents, args, kwargs, new_run=bool(self.calls))
        self.call_args |= {name: arguments.get(name) for name in ("height", "width")}
        # Latents that were given were drawn before, by whatever: no seed repeats them.
        self.call_args["seed"] = _seed(arguments.get("generator")) if arguments.get("latents") is None else None
        latents = result = prepare_latents(*args, **kwargs)
        while isinstance(latents, (tuple, list)):  # some return more than latents
            latents = latents[0]
        self.started = _now(latents.device)
        return result

    def around_get_timesteps(self, get_timesteps, *args, **kwargs):
        arguments = self.prepare(get_timesteps, args, kwargs, new_run=bool(self.calls))
        strength = arguments.get("strength")
        self.call_args["strength"] = None if strength is None else float(strength)
        return get_timesteps(*args, **kwargs)

    def around_preprocess(self, name: str, preprocess, *args, **kwargs):
        """A picture that the run starts from, or the mask over it, in the pipeline's own numbers."""
        self.prepare(preprocess, args, kwargs, new_run=bool(self.calls))
        result = preprocess(*args, **kwargs)
        first = _numpy(result[0])  # (channels, H, W): a picture in [-1, 1], a mask in [0, 1], or latents as they are
        if first.shape[0] == 3:
            self.call_args[name] = (255 * (first.transpose(1, 2, 0) / 2 + 0.5)).round().clip(0, 255).astype(np.uint8)
        elif first.shape[0] == 1:
            self.call_args[name] = (255 * first[0]).round().clip(0, 255).astype(np.uint8)
        return result

    def after_denoiser(self, module, args, output):
        output = output if isinstance(output, torch.Tensor) else output[0]
        self.dtype = output.dtype
        self.outputs.append(output.detach().clone())  # a CUDA graph writes its next output to the same memory

    def around_step(self, step, *args, **kwargs):
        arguments = dict(zip(self.step_names, args, strict=False)) | kwargs
        if not {"model_output", "timestep", "sample"} <= arguments.keys():
            return step(*args, **kwargs)  # which says what is missing
        latents, noise_pred = arguments["sample"].detach().clone(), arguments["model_output"].detach().clone()
        self.device = latents.device
        self.to_vae = self.decoded = None  # a callback's preview of the step before, not the picture
        sigma = _between_levels(self.scheduler)
        result = step(*args, **kwargs)
        if sigma is None and hasattr(self.scheduler, "sigmas"):
            sigma = self.scheduler.sigmas[self.scheduler.step_index - 1]
        index = len(self.calls)
        uncond_cond, now = self.uncond_cond(len(latents)), _now(latents.device)
        pipeline_step = _pipeline_step(self.scheduler, index)
        self.calls.append(
            _Call(index, arguments["timestep"], sigma, latents, noise_pred, uncond_cond, now, pipeline_step)
        )
        self.outputs.clear()
        if self.on_step is not None:
            late = latents.device.type == "cuda"  # the device has the next step to do while this one travels
            _send_to_host(self.calls[-1:])
            self.notify(index + 1 - late)
        return result

    def around_decode(self, decode, *args, **kwargs):
        # diffusers 0.39 hides the names of decode's parameters behind a decorator; the latents come first.
        self.to_vae = (args[0] if args else kwargs["z"]).detach()
        result = decode(*args, **kwargs)
        self.decoded = result[0].detach()
        return result

    def around_postprocess(self, postprocess, *args, **kwargs):
        result = postprocess(*args, **kwargs)
        if inspect.signature(postprocess).bind(*args, **kwargs).arguments.get("output_type") != "latent":
            # A safety checker takes a first look this way: the last call counts.
            self.pictures = _pictures(result)
        self.finalize()
        return result

    def uncond_cond(self, batch: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(unconditional, conditional) predictions since the last step; None where there was only one."""
        if not getattr(self.pipe, "do_classifier_free_guidance", True):
            return None
        sizes = [len(output) for output in self.outputs]
        if sizes[:1] == [2 * batch]:  # SD, SDXL, SD 3
            return tuple(self.outputs[0].chunk(2))
        if sizes == [batch, batch]:  # FLUX with true guidance
            return self.outputs[1], self.outputs[0]
        return None

    # --- from the device to the trace

    def finalize(self, interrupted: bool = False) -> None:
        """Bring the trace up to date with what was seen."""
        trace = self.trace
        if not self.calls:
            return
        self.to_host()
        if self.on_step is not None and not interrupted:
            self.notify(len(self.calls))
        trace.settings, trace.preview_factors = self.settings(), factors_for(self.pipe)
        trace.source, trace.mask = self.call_args.get("source"), self.call_args.get("mask")
        expected = getattr(self.pipe, "num_timesteps", len(self.scheduler.timesteps))
        trace.complete = trace.complete or not interrupted and len(self.calls) >= expected
        if self.pictures is None and self.decoded is not None and trace.complete:
            # An older pipeline turns its picture into numbers by itself.
            self.pictures = _pictures((self.decoded / 2 + 0.5).clamp(0, 1))
        if self.pictures is not None:
            trace.images, trace.final_latents = self.pictures, from_vae(self.pipe.vae, _numpy(self.to_vae))

    def to_host(self, count: int | None = None) -> None:
        """Turn the first `count` calls, by default all, into steps; what is still on the device travels together."""
        done = len(self.trace.steps)
        calls = self.calls[done:count]
        _send_to_host(calls)
        for call in calls:
            if call.on_host is not None:
                call.on_host.synchronize()
        before = lambda index: self.calls[index - 1].ended if index else self.started
        self.trace.steps += tuple(self.to_step(call, _seconds(before(call.index), call.ended)) for call in calls)

    def notify(self, count: int) -> None:
        """Tell `on_step` of the steps up to this many."""
        self.to_host(count)
        while self.notified < count:
            self.notified += 1
            self.on_step(self.trace.steps[self.notified - 1])

    def to_step(self, call: _Call, seconds: float) -> Step:
        if call.sigma is None:  # schedulers without sigmas look up abar by the timestep
            abar = float(self.scheduler.alphas_cumprod[int(call.timestep)])
            alpha, sigma = abar**0.5, (1 / abar - 1) ** 0.5 if abar > 0 else float("inf")
        else:
            sigma = float(call.sigma)
            alpha = 1 - sigma if self.process == "flow" else (1 + sigma**2) ** -0.5
        latents, noise_pred = self.image_shaped(call.latents), self.image_shaped(call.noise_pred)
        uncond, cond = [self.image_shaped(half) for half in call.uncond_cond] if call.uncond_cond else (None, None)
        x0 = predicted_original(latents, noise_pred, alpha, sigma, self.prediction_type, self.process)
        return Step(
            index=call.index,
            timestep=float(call.timestep),
            sigma=sigma,
            alpha=alpha,
            latents=latents,
            noise_pred=noise_pred,
            noise_pred_uncond=uncond,
            noise_pred_cond=cond,
            pred_original=x0,
            seconds=seconds,
            process=self.process,
            pipeline_step=call.pipeline_step,
        )

    def image_shaped(self, tensor: torch.Tensor) -> np.ndarray:
        array = _numpy(tensor)
        if array.ndim == 3:  # FLUX's tokens of 2x2 cells
            token = 2 * self.pipe.vae_scale_factor  # pixels
            array = unpack(array, *[2 * (self.call_args[side] // token) for side in ("height", "width")])
        return array

    def settings(self) -> Settings:
        pipe = self.pipe
        h, w = (side * pipe.vae_scale_factor for side in self.trace.steps[0].latents.shape[-2:])
        name = getattr(pipe, "name_or_path", None)
        guidance = getattr(pipe, "guidance_scale", None)
        modules = [
            sys.modules[name] for name in ("sdwidgets", "diffusers", "transformers", "torch") if name in sys.modules
        ]
        return Settings(
            prompt=_one(self.call_args.get("prompt")),
            negative_prompt=_one(self.call_args.get("negative_prompt")),
            seed=_one(self.call_args.get("seed")),
            num_inference_steps=getattr(self.scheduler, "num_inference_steps", None),
            guidance_scale=None if guidance is None else float(guidance),
            scheduler=type(self.scheduler).__name__,
            scheduler_label=label_of(self.scheduler, pipe),
            strength=self.call_args.get("strength"),
            height=h,
            width=w,
            model=Path(name).name if name and Path(name).exists() else name,  # a trace tells no one's folders
            pipeline=type(pipe).__name__,
            device=str(self.device),
            dtype=str(self.dtype or self.denoiser.dtype).removeprefix("torch."),
            prediction_type=self.prediction_type,
            versions={m.__name__: m.__version__ for m in modules if hasattr(m, "__version__")},
        )


def _process(pipe) -> str:
    """How the scheduler mixes picture and noise: see `Step.process`."""
    scheduler = pipe.scheduler
    if is_flow(pipe):
        return "flow"
    if not hasattr(scheduler, "alphas_cumprod") or not hasattr(scheduler, "init_noise_sigma"):
        raise ValueError(
            f"record() does not know how {type(scheduler).__name__} mixes picture and noise; choose one of"
            " sdwidgets.generation.schedulers.SCHEDULERS, for example DDIMScheduler"
        )
    # Variance exploding schedulers start from noise larger than one (about 14.6 on SD), the others from one.
    return "ve" if float(scheduler.init_noise_sigma) > 1 else "vp"


def _between_levels(scheduler) -> torch.Tensor | None:
    """Before `step`: the sigma of the second look of KDPM2 and DPM-SDE, between two levels; else None."""
    if getattr(scheduler, "state_in_first_order", True):
        return None
    if hasattr(scheduler, "sigmas_interpol"):
        return scheduler.sigmas_interpol[scheduler.step_index - hasattr(scheduler, "sigmas_up")]
    return getattr(scheduler, "mid_point_sigma", None)


def _pipeline_step(scheduler, call: int) -> int:
    """Which pipeline step a call serves: second-order methods call twice a step, PNDM more often at first."""
    runge_kutta = getattr(scheduler, "prk_timesteps", None)
    if runge_kutta is None:
        return call // scheduler.order
    if len(runge_kutta):  # four calls for each of its first three steps
        return call // 4 if call < len(runge_kutta) else call - len(runge_kutta) * 3 // 4
    return max(0, call - 1)  # takes its first step again


def _seed(generator) -> int | list | None:
    """The seed that repeats the run; None for a generator from which numbers have been drawn already."""
    if isinstance(generator, (list, tuple)):
        return [_seed(one) for one in generator]
    if generator is None:
        return None
    seed = generator.initial_seed()
    fresh = torch.Generator(generator.device).manual_seed(seed)
    return seed if torch.equal(generator.get_state(), fresh.get_state()) else None


def _one(value):
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value


def _pictures(result) -> np.ndarray:
    """What an image processor returned, PIL pictures, numpy or torch in [0, 1], as (batch, H, W, 3) uint8."""
    if isinstance(result, torch.Tensor):
        result = _numpy(result.permute(0, 2, 3, 1))
    if isinstance(result, np.ndarray):
        return (result * 255).round().astype(np.uint8)
    return np.stack([np.asarray(picture.convert("RGB")) for picture in result])


def _send_to_host(calls: list[_Call]) -> None:
    """Let what these calls hold travel from a CUDA card to the host, without waiting for it."""
    leaving = lambda tensor: tensor.to("cpu", non_blocking=True)  # to pinned memory
    for call in calls:
        if call.on_host is not None or call.latents.device.type != "cuda":
            continue
        for name in ("timestep", "sigma", "latents", "noise_pred", "uncond_cond"):
            setattr(call, name, map_leaves(getattr(call, name), torch.Tensor, leaving))
        call.on_host = torch.cuda.Event()
        call.on_host.record()


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().float().numpy()  # converted on the host: the device may be full


def _now(device: torch.device) -> torch.cuda.Event | float:
    """A moment in the device's own time: on CUDA, Python runs ahead, and waiting would slow the run down."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(start, end) -> float:
    if isinstance(start, float) or isinstance(end, float):
        return end - start if isinstance(start, float) and isinstance(end, float) else float("nan")
    end.synchronize()
    return start.elapsed_time(end) / 1000

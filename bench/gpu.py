"""A GPU in one command, under nine minutes: `python bench/gpu.py --json bench/results/NAME.json`.

Models of the size of Stable Diffusion 1.5 (512x512, 50 guided steps) and XL (1024x1024, 30 guided steps), with random weights, which
cost the same arithmetic as trained ones and no download. Stock diffusers in float16 against `speed="fast"` in the precision that
`load` would choose, in turns; then recording and live previews on top of fast; whether the pictures agree; peak memory; the floor; and
what a T4 would hold. The report is written after each model; one that fails is an "error" in it, and the exit status is then 1.

Without a GPU all of it runs on the CPU with small models, which shows that it works, and nothing about a GPU (`--small`).
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

import numpy as np
import torch

from bench import harness
from bench.harness import LeftOut, attempt, ratio, rows_of, take_turns

PROMPT = "an astronaut on a blue background"
LIMIT = 520.0  # seconds for everything: nine minutes, less the start
COMPILING = 90.0  # seconds that must be left for a model to be compiled and measured
T4_BYTES = 15_360 * 2**20  # what nvidia-smi lists
T4_CONTEXT = 600_000_000  # what CUDA itself and its libraries keep, about


@dataclass(frozen=True)
class Shape:
    """A model's size, and the picture that is asked of it."""

    xl: bool
    widths: tuple[int, ...]  # of the U-Net's levels
    text_width: int
    second_text_width: int  # XL only
    layers: int  # of a text encoder
    vae_widths: tuple[int, ...]
    side: int  # pixels
    steps: int
    goal: float  # times as fast as stock
    aim: float  # seconds a picture, on an H200
    depth: tuple[int, ...] = (1, 1, 1, 1)  # transformer blocks of each level
    groups: int = 32


SD15 = Shape(False, (320, 640, 1280, 1280), 768, 0, 12, (128, 256, 512, 512), 512, 50, 2.5, 0.3)
SDXL = Shape(True, (320, 640, 1280), 768, 1280, 12, (128, 256, 512, 512), 1024, 30, 1.8, 1.0, depth=(1, 2, 10))
SMALL_SD15 = Shape(False, (16, 32), 32, 0, 2, (8, 8, 8, 8), 64, 4, 2.5, 0.3, groups=8)
SMALL_SDXL = Shape(True, (16, 32), 32, 32, 2, (8, 8, 8, 8), 64, 3, 1.8, 1.0, depth=(1, 2), groups=8)


def text_encoder(cls, tokenizer, width: int, layers: int):
    """A CLIP text encoder with random weights."""
    from transformers import CLIPTextConfig

    return cls(
        CLIPTextConfig(
            vocab_size=49_408, hidden_size=width, intermediate_size=4 * width, projection_dim=width, num_hidden_layers=layers, num_attention_heads=max(2, width // 64),
            max_position_embeddings=77, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id,
        )
    )  # fmt: skip


def build_unet(shape: Shape):
    """A U-Net of 1.5, which attends on all levels but the coarsest, or of XL, on all but the finest."""
    from diffusers import UNet2DConditionModel

    levels, small = len(shape.widths), max(shape.widths) < 64
    crossing = [level > 0 if shape.xl else level < levels - 1 for level in range(levels)]
    more = {}
    if shape.xl:
        times = 8 if small else 256
        more = {
            "addition_embed_type": "text_time", "addition_time_embed_dim": times, "use_linear_projection": True,
            "projection_class_embeddings_input_dim": 6 * times + shape.second_text_width, "transformer_layers_per_block": shape.depth,
        }  # fmt: skip
    return UNet2DConditionModel(
        sample_size=shape.side // 8, block_out_channels=shape.widths, layers_per_block=1 if small else 2, norm_num_groups=shape.groups,
        down_block_types=tuple("CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in crossing),
        up_block_types=tuple("CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossing)),
        cross_attention_dim=shape.text_width + shape.second_text_width,
        attention_head_dim=8 if small or not shape.xl else tuple(width // 64 for width in shape.widths), **more,
    )  # fmt: skip


def build(shape: Shape, device: str, dtype: torch.dtype):
    """A diffusers pipeline of this shape with random weights, made where it will run; Pocket's tokenizer."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from sdwidgets.paths import data_folder

    tokenizer = CLIPTokenizer.from_pretrained(data_folder("pocket") / "tokenizer", model_max_length=77)
    before, small = torch.get_default_dtype(), max(shape.widths) < 64
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            unet = build_unet(shape)
            vae = diffusers.AutoencoderKL(
                block_out_channels=shape.vae_widths, layers_per_block=1 if small else 2, norm_num_groups=min(shape.groups, 4) if small else 32,
                latent_channels=4, sample_size=shape.side, scaling_factor=0.13025 if shape.xl else 0.18215, force_upcast=shape.xl,
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            )  # fmt: skip
            parts = {"text_encoder": text_encoder(CLIPTextModel, tokenizer, shape.text_width, shape.layers)}
            if shape.xl:
                second = shape.second_text_width, 2 if small else 32
                parts["text_encoder_2"] = text_encoder(CLIPTextModelWithProjection, tokenizer, *second)
    finally:
        torch.set_default_dtype(before)
    for module in (unet, vae, *parts.values()):
        module.eval().requires_grad_(False)
    levels = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    if shape.xl:
        scheduler, cls = diffusers.EulerDiscreteScheduler(**levels), diffusers.StableDiffusionXLPipeline
        parts |= {"tokenizer_2": tokenizer, "add_watermarker": False}
    else:
        scheduler, cls = diffusers.PNDMScheduler(**levels, skip_prk_steps=True), diffusers.StableDiffusionPipeline
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = cls(vae=vae, tokenizer=tokenizer, unet=unet, scheduler=scheduler, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, shape: Shape, seed: int = 0):
    """One guided picture, on the host."""
    return pipe(PROMPT, num_inference_steps=shape.steps, height=shape.side, width=shape.side, generator=torch.Generator("cpu").manual_seed(seed), output_type="np").images  # fmt: skip


def peak_memory(call, pipe, cuda: bool) -> tuple[int, int | None]:
    """Bytes of memory that a call has (allocated, reserved) at most, other models than its pipeline left out.

    What a CUDA graph works on is not allocated while it runs, but it is kept for it. Without a card: of the whole process, so that what
    is worked out from it runs there too.
    """
    if not cuda:
        call()
        return harness.resident(), None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    others = torch.cuda.memory_allocated() - sum(map(_bytes, pipe.components.values()))
    call()
    return torch.cuda.max_memory_allocated() - others, torch.cuda.max_memory_reserved() - others


def measure(name: str, shape: Shape, device: str, rates: dict, effort: dict, ends: float) -> dict:
    """Stock against fast, recording and previews on top of fast, agreement, memory, floor.

    Raises LeftOut where too little time is left before `ends`, a moment of time.perf_counter(), to compile.
    """
    from sdwidgets.acceleration.cuda import compile_regions
    from sdwidgets.latents import factors_for, linear_preview
    from sdwidgets.loading.devices import choose_dtype
    from sdwidgets.recording import record

    cuda = device == "cuda"
    stock = build(shape, device, torch.float16 if cuda else torch.float32)
    fast_dtype = choose_dtype("auto", device)[0] if cuda else torch.float32
    fast = copy.deepcopy(stock).to(fast_dtype)
    print(f"{name}: {sum(p.numel() for p in stock.unet.parameters()) / 1e6:,.0f}M parameters in the U-Net", flush=True)
    peaks: dict[str, int] = {}
    reserved: dict[str, int] = {}

    def peak(way: str, call) -> None:
        peaks[way], reserved[way] = peak_memory(call, stock if way == "stock" else fast, cuda)

    peak("stock", lambda: draw(stock, shape))
    if cuda and ends - time.perf_counter() < COMPILING:
        raise LeftOut(f"{max(0, ends - time.perf_counter()):.0f} s were left, too few to compile")
    print(f"  {compile_regions(fast, graphs=cuda)}; compiling, up to a few minutes", flush=True)
    began = time.perf_counter()
    draw(fast, shape)
    harness.synchronize()
    first = time.perf_counter() - began
    print(f"  the first picture took {first:.0f} s", flush=True)
    peak("fast", lambda: draw(fast, shape))
    agreement = compared(draw(stock, shape, 1), draw(fast, shape, 1))
    factors = factors_for(fast)
    shown: list = []

    def recorded(turn: int, on_step=None):
        with record(fast, on_step=on_step):
            return draw(fast, shape, turn)

    preview = lambda step: shown.append(linear_preview(step.pred_original, factors))
    ways = {
        "stock": lambda turn: draw(stock, shape, turn),
        "fast": lambda turn: draw(fast, shape, turn),
        "fast, recorded": recorded,
        "fast, recorded, previews": lambda turn: recorded(turn, preview),
    }
    left = max(10.0, min(effort["budget"], ends - time.perf_counter()))
    seconds = take_turns(ways, effort["turns"], warm_up=1, budget=left)
    rows = rows_of(seconds, "stock")
    for way, row in rows.items():
        row["peak_bytes"], row["reserved_bytes"] = peaks.get(way) if cuda else None, reserved.get(way)
    on_top = {way: ratio(seconds[way], seconds["fast"]) for way in ways if way.startswith("fast, ")}
    precision = harness.best_precision(rates)
    floor = harness.floor(_counted(stock, shape), rates, precision, counted_in=str(stock.unet.dtype)[6:])
    setting = f"{shape.side}x{shape.side}, {shape.steps} guided steps, stock in {str(stock.unet.dtype)[6:]}, fast in {str(fast_dtype)[6:]}"
    return {
        "setting": setting, "asked": shape.goal, "aim": shape.aim, "agreement": agreement, "ways": rows, "on_top_of_fast": on_top, "first": first,
        "floor": floor, "t4": on_a_t4(peaks["stock"], stock), "parameters": sum(p.numel() for p in stock.unet.parameters()),
    }  # fmt: skip


def _bytes(part) -> int:
    return sum(t.nbytes for t in [*part.parameters(), *part.buffers()]) if isinstance(part, torch.nn.Module) else 0


def compared(stock: np.ndarray, fast: np.ndarray) -> dict:
    """How far two pictures of one seed agree, and whether all of both are numbers."""
    finite = bool(np.isfinite(stock).all() and np.isfinite(fast).all())
    return {"decibels": harness.psnr(stock, fast) if finite else None, "finite": finite}


def _counted(pipe, shape: Shape) -> dict[str, float]:
    """Operations and bytes of a whole picture: its steps at guidance, and one decoding, counted on one step."""
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    latents = {"output_type": "latent", "height": shape.side, "width": shape.side}
    two, three = (harness.count(lambda n=n: pipe(PROMPT, **latents, num_inference_steps=n), networks) for n in (2, 3))
    side = shape.side // pipe.vae_scale_factor
    z = torch.zeros(1, pipe.vae.config.latent_channels, side, side, device=pipe.device, dtype=pipe.vae.dtype)
    decoding = harness.count(lambda: pipe.vae.decode(z), [pipe.vae])
    # Two steps and what comes before them, then the other steps, each as much as the third.
    return {name: two[name] + (shape.steps - 2) * (three[name] - two[name]) + decoding[name] for name in two}


def on_a_t4(peak: int, pipe) -> str:
    """What 16 GB hold, from the peak that was measured here in float16 (a T4 has no bfloat16)."""
    room = T4_BYTES - T4_CONTEXT
    parts = {name: _bytes(part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    if peak <= room:
        return f"fits whole in float16: {peak / 1e9:.1f} GB at its peak of {room / 1e9:.1f} GB."
    moved = peak - sum(parts.values()) + max(parts.values())
    fits = "fits" if moved <= room else "does not fit"
    return f"{peak / 1e9:.1f} GB at its peak, more than {room / 1e9:.1f} GB; {fits} part by part (`enable_model_cpu_offload`), at about {moved / 1e9:.1f} GB."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--small", action="store_true", help="small models on the CPU, to see that it works")
    parser.add_argument("--turns", type=int, default=12, help="of every way (default: 12, or what the time allows)")
    args = parser.parse_args(arguments)
    if args.turns < 1:
        parser.error("--turns is at least 1")
    began = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() and not args.small else "cpu"
    if device == "cpu":
        print("no GPU is used: small models on the CPU")
    shapes = {"SD 1.5-sized": SD15, "SDXL-sized": SDXL} if device == "cuda" else {"SD 1.5-sized, small": SMALL_SD15, "SDXL-sized, small": SMALL_SDXL}  # fmt: skip
    rates = harness.peaks(device) if device == "cuda" else harness.peaks(device, size=256, turns=2)
    report = {"bench": "gpu", "device": device, "quick": device == "cpu", "machine": harness.machine()}
    report |= {"turns": args.turns, "prompt": PROMPT, "rates": rates, "models": {}}
    effort = {"turns": args.turns, "budget": 75.0}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SDWIDGETS_CACHE"] = cache  # so that compiling is measured from nothing
        for number, (name, shape) in enumerate(shapes.items()):
            ends = began + LIMIT * (number + 1) / len(shapes)
            report["models"][name] = attempt(
                lambda name=name, shape=shape, ends=ends: measure(name, shape, device, rates, effort, ends)
            )
            harness.write(report, args.json)
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
    report["took"] = time.perf_counter() - began
    from bench.table import describe

    print("\n" + describe(report))
    harness.write(report, args.json)
    return 1 if harness.failed(report) else 0


if __name__ == "__main__":
    sys.exit(main())

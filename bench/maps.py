"""Does the map of a noun find its thing? Cross-attention of a U-Net beside the silhouettes of what it draws.

    python bench/maps.py [UNET_FOLDER ...] [--count 64]

Each U-Net takes the place of Pocket's own (without a folder: that one itself) and draws prompts for one object that no report uses. The map of the
noun is the mean over steps and layers, as the course shows it; it is cut at half between its least and its most, and compared with the silhouette of
the drawn picture: intersection over union, 1 where they are one. "chance" is the same with the map of the next prompt, which knows where things stand
in general; "ceiling" with the silhouette itself as the map, brought down to as few places and up again. The report is bench/results/maps.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script

from bench import harness
from sdwidgets import load
from sdwidgets.analysis.attention import record_attention
from sdwidgets.pocket.evaluation import prompt_sets
from sdwidgets.pocket.world.scenes import SIZE, silhouette
from sdwidgets.statistics import share

RESULTS = Path(__file__).resolve().parent / "results" / "maps.json"
FOUND = 0.5  # from this intersection over union on a map counts as finding its thing


def overlap(heat: np.ndarray, shape: np.ndarray) -> float:
    """Intersection over union of a map (h, w), cut at half between its least and its most, with a shape (h, w) of booleans."""
    inside = heat > (heat.min() + heat.max()) / 2
    union = (inside | shape).sum()
    return float((inside & shape).sum() / union) if union else 0.0


def coarse(shape: np.ndarray, side: int) -> np.ndarray:
    """A shape (h, w) of booleans as a map of `side` x `side` places would show it: (h, w) float32."""
    places = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(shape).float()[None, None], side)
    return torch.nn.functional.interpolate(places, shape.shape, mode="bilinear", align_corners=False)[0, 0].numpy()


def measure(pipe, count: int, steps: int) -> dict:
    """The overlaps of `count` drawn pictures: their median and quartiles, the share that finds its thing, chance's mean and the ceiling's median."""
    heats, shapes, side = [], [], 0
    for number, scene in enumerate(prompt_sets.choosing_scenes("one object", count)):
        with record_attention(pipe) as maps:
            generator = torch.Generator("cpu").manual_seed(number)
            (picture,) = pipe(scene.caption, num_inference_steps=steps, guidance_scale=3.0, generator=generator).images
        heats.append(maps.heat_map(scene.things[0].name, size=(SIZE, SIZE)))
        shapes.append(np.asarray(silhouette(picture)) > 0)
        side = max(side, *(layer.height for layer in maps.layers))
    overlaps = np.array([overlap(heat, shape) for heat, shape in zip(heats, shapes, strict=True)])
    chance = [overlap(heat, shape) for heat, shape in zip(heats[1:] + heats[:1], shapes, strict=True)]
    best = [overlap(coarse(shape, side), shape) for shape in shapes]
    low, middle, high = (round(float(q), 3) for q in np.quantile(overlaps, (0.25, 0.5, 0.75)))
    return {
        "places a side": side, "steps": steps, "median": middle, "quartiles": [low, high], "mean": round(float(overlaps.mean()), 3),
        "chance": round(float(np.mean(chance)), 3), "ceiling": round(float(np.median(best)), 3), "found": share([bool(one >= FOUND) for one in overlaps]),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    from diffusers import UNet2DConditionModel

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unets", type=Path, nargs="*", metavar="UNET_FOLDER", help="default: Pocket's own")
    parser.add_argument("--count", type=int, default=64, help="pictures (default: 64)")
    parser.add_argument("--steps", type=int, default=20, help="steps of each (default: 20)")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"default: {RESULTS.name} in bench/results")
    args = parser.parse_args(arguments)
    machine, pipe, rows = harness.machine(), load("pocket", "cpu", "float32"), []
    pipe.set_progress_bar_config(disable=True)
    for folder in args.unets or [None]:
        if folder is not None:
            pipe.unet = UNet2DConditionModel.from_pretrained(folder)
        rows.append({"unet": "pocket" if folder is None else folder.name} | measure(pipe, args.count, args.steps))
        print(json.dumps(rows[-1]), flush=True)
    harness.write({"bench": "maps", "machine": machine, "rows": rows}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What is needed once to make the judge: the limits beyond which a thing is broken."""

from __future__ import annotations

import numpy as np

from ..world.scenes import Scene
from . import segment
from .judge_b import Limits, read_region
from .segment import Segmented

KEPT = 0.99  # of the things that the judge names rightly on reconstructions keep their name

MOST = (0.35, 0.6)  # the limits are never wider, or blends of two glyphs would get names

#: How many scenes of each kind the limits are set on, by their reconstructions.
TUNE_COUNTS = {
    "one object": 216, "one shape": 40, "two objects": 108, "two shapes": 40, "several": 36, "portrait": 100,
    "person and object": 60,
}  # fmt: skip


def overlap(box, thing) -> float:
    """Intersection over union of a box and the square that a thing was drawn in."""
    half, ends = thing.size / 2, ((box[0], box[2], thing.x), (box[1], box[3], thing.y))
    width, height = (max(0.0, min(high, at + half) - max(low, at - half)) for low, high, at in ends)
    both = width * height
    return both / ((box[2] - box[0]) * (box[3] - box[1]) + thing.size**2 - both)


def true_regions(seen: Segmented, scene: Scene) -> list[tuple]:
    """(thing, the region that lies where it was drawn) of each thing that is there to be seen."""
    pairs = []
    for thing in scene.things if (regions := seen.regions()) else ():
        region = max(regions, key=lambda r: overlap(r.box, thing))
        (x, y), near = region.centre, thing.size / 4
        if max(abs(region.size - thing.size), abs(x - thing.x), abs(y - thing.y)) < near:
            pairs.append((thing, region))
    return pairs


def limits_of_b(scenes: list[Scene], pictures: np.ndarray) -> Limits:
    """The judge's limits: what `KEPT` of the rightly named things stay below, and never more than `MOST`."""
    right = []
    for scene, picture in zip(scenes, pictures, strict=True):
        seen = segment.segment(picture)
        for thing, region in true_regions(seen, scene):
            reading = read_region(seen, region)
            if reading.word.name == (thing.occupation or thing.name):
                right.append((reading.distance, reading.share))
    limits = np.minimum(np.quantile(right, KEPT, axis=0), MOST)
    return Limits(*(round(float(limit), 3) for limit in limits))

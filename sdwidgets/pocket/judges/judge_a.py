"""Judge A, which chooses checkpoints: a small convolutional network on regions brought to 48 x 48 pixels.

It learns from glyphs that are drawn, moved, blurred and spoiled while it trains, and from whatever reconstructions
it is given; its seeds are its own. `fit` makes it and `JudgeA.load` reads the weights that the course carries.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from ..._data import data_folder
from ..vocabulary import GENDERS, OBJECTS, OCCUPATIONS, SHAPES, TONES
from . import segment
from .judgement import Judgement, Seen
from .segment import Region, Segmented

SIDE = 48  # pixels of the square that every region is brought to
MARGIN = 0.06  # of the longer side, left around a region
CLASSES = (*OBJECTS, *SHAPES, *OCCUPATIONS, "broken")  # "broken" is the last
KIND = ("object",) * len(OBJECTS) + ("shape",) * len(SHAPES) + ("person",) * len(OCCUPATIONS) + ("broken",)
LOOKS = ("plain", "pixel art", "lines")  # how a region is drawn: lines are a pencil sketch or a blueprint
HEADS = {"class": len(CLASSES), "gender": len(GENDERS), "tone": len(TONES), "look": len(LOOKS)}


def _block(inside: int, outside: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class Network(nn.Module):
    """(n, 3, 48, 48) in [-1, 1] -> the logits of each of `HEADS`; 0.57M parameters.

    The first layer sees squares of 4 x 4 pixels as channels, which costs least on a CPU.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 128, 192)):
        super().__init__()
        first, second, third = widths
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),  # (n, 48, 12, 12)
            *_block(48, first, 1),
            *_block(first, second, 2),  # (n, 128, 6, 6)
            *_block(second, second, 1),
            *_block(second, third, 2),  # (n, 192, 3, 3)
        )
        self.heads = nn.ModuleDict({name: nn.Linear(2 * third, size) for name, size in HEADS.items()})

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(pictures)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        return {name: head(pooled) for name, head in self.heads.items()}


def crop(seen: Segmented, region: Region, box=None) -> np.ndarray:
    """A region as the network takes it: (48, 48, 3) uint8."""
    cut = segment.cut(seen.alone(region), seen.level, box or region.box, SIDE, MARGIN)
    return cut.round().astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class JudgeA:
    """`read(pictures)` is what it is for. A thing whose class is less likely than `sure` is broken."""

    network: Network
    sure: float = 0.5

    FILE: ClassVar[str] = "judge_a.safetensors"

    @classmethod
    def load(cls, file: str | Path | None = None) -> JudgeA:
        """The judge of that safetensors file; by default the one that the course carries."""
        file = Path(file) if file else data_folder("judges") / cls.FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no judge in {file}: make one with `python -m sdwidgets.pocket.judges fit`"
            )
        tensors = load_file(file)
        sure = float(tensors.pop("sure"))
        network = Network()
        state = network.state_dict() | {name: tensor.float() for name, tensor in tensors.items()}
        network.load_state_dict(state)
        return cls(network.eval(), sure)

    def read(self, pictures: np.ndarray) -> list[Judgement]:
        """One judgement a picture; pictures are uint8 of (n, 128, 128, 3). Raises ValueError for any other."""
        return [self.judge(segment.segment(picture)) for picture in segment.check_pictures(pictures)]

    @torch.inference_mode()
    def chances(self, seen: Segmented, regions: list[Region]) -> list[dict[str, np.ndarray]]:
        """For each region, the probabilities of each head; of its boxes, the one whose class is surest counts."""
        boxes = [(region, box) for region in regions for box in seen.boxes(region)]
        if not boxes:
            return []
        crops = torch.from_numpy(np.stack([crop(seen, region, box) for region, box in boxes]))
        out = self.network(crops.permute(0, 3, 1, 2).float() / 127.5 - 1)
        out = {name: logits.softmax(1).numpy() for name, logits in out.items()}
        surest = {}
        for place, (region, _) in enumerate(boxes):
            best = surest.setdefault(region, place)
            if out["class"][place, :-1].max() > out["class"][best, :-1].max():
                surest[region] = place
        return [{name: values[surest[region]] for name, values in out.items()} for region in regions]

    def judge(self, seen: Segmented) -> Judgement:
        """The judgement of one picture that was taken apart."""
        regions = seen.regions()
        chances = dict(zip(regions, self.chances(seen, regions), strict=True))
        chosen = (
            segment.best_cut(seen.root, lambda r: float(chances[r]["class"][:-1].max())) if seen.root else []
        )
        things = tuple(self._thing(seen, region, chances[region]) for region in chosen)
        style = self._style(seen, [(region.area, chances[region]["look"]) for region in chosen])
        return Judgement(seen.background, style, seen.watermark, tuple(sorted(things, key=lambda t: t.x)))

    @staticmethod
    def _style(seen: Segmented, looks) -> str:
        if seen.styles[0] == "blueprint" or seen.watermark or not looks:
            return seen.styles[0]
        look = LOOKS[int(sum(area * chances for area, chances in looks).argmax())]
        return "pencil sketch" if look == "lines" else look

    def _thing(self, seen: Segmented, region: Region, chances: dict[str, np.ndarray]) -> Seen:
        place = int(chances["class"][:-1].argmax())
        score, (x, y) = float(chances["class"][place]), region.centre
        kind = KIND[place] if score >= self.sure else "broken"
        lines = LOOKS[int(chances["look"].argmax())] == "lines"
        colour = segment.region_colour(seen.picture, region) if kind == "shape" and not lines else None
        gender, tone = (
            options[int(chances[head].argmax())] if kind == "person" else None
            for head, options in (("gender", tuple(GENDERS)), ("tone", tuple(TONES)))
        )
        occupation = CLASSES[place] if kind == "person" else None
        return Seen(kind, CLASSES[place], x, y, region.size, colour, occupation, gender, tone, score)

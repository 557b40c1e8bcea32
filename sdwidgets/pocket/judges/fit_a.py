"""How judge A learns: glyphs drawn by the batch on colours, moved, blurred, spoiled. All in torch, from one seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .. import atlas
from ..scenes import SIZE, Scene, Thing, render, shape_mask
from ..vocabulary import COLOURS, GENDERS, OBJECTS, OCCUPATIONS, SHAPES, TONES, person_name
from . import segment
from .judge_a import CLASSES, LOOKS, MARGIN, SIDE, Network

BROKEN = len(CLASSES) - 1
NOT_A_PERSON = -100  # what cross_entropy leaves out


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Settings of the training; the defaults take a few minutes on one core."""

    steps: int = 1_800
    batch_size: int = 128
    learning_rate: float = 3e-3
    given_share: float = 0.25  # of each batch, where reconstructions are given
    broken_share: float = 0.2
    seed: int = 11


@dataclasses.dataclass(frozen=True)
class Glyphs:
    """What is drawn: RGBA in [0, 1], (n, 4, 48, 48), colours premultiplied; class, gender and tone of each, (n, 3) int."""

    drawn: torch.Tensor
    labels: torch.Tensor


def load_glyphs(size: int = SIDE) -> Glyphs:
    """Every object and person once, and every shape in white: its colour is drawn while it trains."""
    drawn, labels = [], []
    for place, name in enumerate(OBJECTS):
        drawn.append(np.asarray(atlas.glyph(name, size)))
        labels.append((place, NOT_A_PERSON, NOT_A_PERSON))
    for place, name in enumerate(SHAPES):
        drawn.append(np.dstack([np.full((size, size, 3), 255, np.uint8), np.asarray(shape_mask(name, size))]))
        labels.append((len(OBJECTS) + place, NOT_A_PERSON, NOT_A_PERSON))
    for place, occupation in enumerate(OCCUPATIONS):
        for gender_place, gender in enumerate(GENDERS):
            for tone_place, tone in enumerate(TONES):
                drawn.append(np.asarray(atlas.glyph(person_name(occupation, gender, tone), size)))
                labels.append((len(OBJECTS) + len(SHAPES) + place, gender_place, tone_place))
    rgba = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255
    return Glyphs(torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1), torch.tensor(labels))


def line_drawings(sizes=(42, 56, 74, 98)) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects and shapes as lines: how much ink at each pixel, (n, 1, 48, 48) in [0, 1], and the class of each."""
    words = [("object", name) for name in OBJECTS] + [("shape", name) for name in SHAPES]
    inks, labels = [], []
    for place, (kind, name) in enumerate(words):
        for number, size in enumerate(sizes):
            thing = Thing(kind, name, SIZE // 2, SIZE // 2, size, colour="black" if kind == "shape" else None)
            background = ("white", "yellow", "pink", "gray")[(place + number) % 4]
            picture = np.asarray(
                render(Scene(0, "", background, (thing,), "pencil sketch")), dtype=np.float32
            )
            ink = np.abs(picture - picture[0, 0]).max(-1)
            ink = (255 * ink / max(ink.max(), 1)).astype(np.uint8)
            left = (SIZE - size) // 2
            seen = np.repeat(ink[left : left + size, left : left + size, None], 3, axis=2)
            inks.append(segment.cut(seen, np.zeros(3), (0, 0, size, size), SIDE, 0.0)[..., 0])
            labels.append(place)
    return torch.from_numpy(np.stack(inks))[:, None] / 255, torch.tensor(labels)


# ---- one batch -------------------------------------------------------------------------------------------------


class Drawer:
    """Batches of crops as a judge gets them, with their labels; every random number comes from one generator."""

    def __init__(self, config: FitConfig, given: tuple[torch.Tensor, torch.Tensor] | None = None):
        self.config, self.given = config, given
        self.glyphs, (self.inks, self.ink_labels) = load_glyphs(), line_drawings()
        self.colours = torch.tensor(list(COLOURS.values())).float() / 255
        self.generator = torch.Generator().manual_seed(config.seed)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """((n, 3, 48, 48) in [-1, 1], (n, 4) int: class, gender, tone, look)."""
        count = self.config.batch_size
        given = round(count * self.config.given_share) if self.given else 0
        lines, broken = round(0.14 * count), round(count * self.config.broken_share)
        parts = [
            self.plain(count - given - lines - broken),
            self.lines(lines),
            self.broken(broken),
            *([self.regiven(given)] if given else []),
        ]
        pictures = torch.cat([picture for picture, _ in parts])
        labels = torch.cat([label for _, label in parts])
        return self.degrade(pictures, labels)

    def pick(self, count: int) -> torch.Tensor:
        """Numbers of glyphs: people's are more than objects', whose ten pictures are one class."""
        objects, shapes = len(OBJECTS), len(SHAPES)
        kind = torch.rand(count, generator=self.generator)
        place = torch.where(kind < 0.6, self.integers(objects, count), objects + self.integers(shapes, count))
        people = objects + shapes + self.integers(len(self.glyphs.drawn) - objects - shapes, count)
        return torch.where(kind < 0.7, place, people)

    def grounds(self, count: int) -> torch.Tensor:
        """Background colours, (n, 3, 1, 1) in [0, 1]."""
        base = self.colours[self.integers(len(self.colours), count)]
        return (base + self.uniform(-0.03, 0.03, count, 1) + self.uniform(-0.01, 0.01, count, 3)).clamp(0, 1)[
            ..., None, None
        ]

    def paint(self, numbers: torch.Tensor, ground: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Glyphs on their grounds: ((n, 3, 48, 48), where they are seen)."""
        drawn = self.glyphs.drawn[numbers]
        shape = (self.glyphs.labels[numbers, 0] >= len(OBJECTS)) & (self.glyphs.labels[numbers, 1] < 0)
        colour = self.colours[self.integers(len(self.colours), len(numbers))][..., None, None]
        same = (colour - ground).abs().amax(1, keepdim=True) < 0.12
        colour = torch.where(same, 1 - colour.round(), colour) + self.uniform(
            -0.04, 0.04, len(numbers), 3, 1, 1
        )
        tint = torch.where(shape[:, None, None, None], colour.clamp(0, 1), torch.ones_like(colour))
        pictures = drawn[:, :3] * tint + (1 - drawn[:, 3:]) * ground
        return pictures, (pictures - ground).abs().amax(1) > segment.VISIBLE / 255

    def place(
        self, pictures: torch.Tensor, seen: torch.Tensor, ground: torch.Tensor, reach: float = 0.05
    ) -> torch.Tensor:
        """What is seen brought to the crop as `segment.cut` does, a little off: (n, 3, 48, 48)."""
        count, side = len(pictures), pictures.shape[-1]
        at = torch.linspace(-1, 1, 2 * side + 1)[1::2]
        low, high = [], []
        for axis in (1, 2):  # columns, then rows
            line = seen.any(axis).float()
            low.append(at[line.argmax(1)])
            high.append(at[side - 1 - line.flip(1).argmax(1)])
        low, high = torch.stack(low, 1), torch.stack(high, 1)
        half = ((high - low) / 2).amax(1).clamp(min=0.2) * (1 + 2 * MARGIN) * self.uniform(0.93, 1.1, count)
        centre = (low + high) / 2 + half[:, None] * self.uniform(-reach, reach, count, 2)
        angle = self.uniform(-0.05, 0.05, count)
        turn = torch.stack(
            [torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1
        )
        theta = torch.cat([half[:, None, None] * turn, centre[..., None]], dim=2)
        grid = F.affine_grid(theta, [count, 3, SIDE, SIDE], align_corners=False)
        return F.grid_sample(pictures - ground, grid, align_corners=False) + ground

    def labels(self, classes, look: int, gender=None, tone=None) -> torch.Tensor:
        none = torch.full_like(classes, NOT_A_PERSON)
        return torch.stack(
            [
                classes,
                none if gender is None else gender,
                none if tone is None else tone,
                torch.full_like(classes, look),
            ],
            1,
        )

    def plain(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        numbers, ground = self.pick(count), self.grounds(count)
        pictures, seen = self.paint(numbers, ground)
        pictures, labels = self.place(pictures, seen, ground), self.glyphs.labels[numbers]
        blocky = count // 6
        cells = int(self.integers(15, 1)) + 7
        blocks = F.interpolate(F.interpolate(pictures[:blocky], (cells, cells), mode="area"), (SIDE, SIDE))
        look = (torch.arange(count) < blocky).long() * LOOKS.index("pixel art")
        return torch.cat([blocks, pictures[blocky:]]), torch.cat([labels, look[:, None]], 1)

    def lines(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        numbers, ground = self.integers(len(self.inks), count), self.grounds(count)
        blueprint = torch.tensor(segment.BLUEPRINT).float()[None, :, None, None] / 255
        blue = self.uniform(0, 1, count, 1, 1, 1) < 0.4
        ground = torch.where(blue, blueprint, ground)
        dark = (ground.sum(1, keepdim=True) > 240 / 255) & ~blue
        ink = torch.where(
            dark, torch.tensor(30 / 255), torch.where(blue, torch.tensor(240 / 255), torch.tensor(225 / 255))
        )
        share = self.inks[numbers]
        pictures = ground * (1 - share) + ink * share
        pictures = self.place(pictures, share[:, 0] > 0.15, ground)
        return pictures, self.labels(self.ink_labels[numbers], LOOKS.index("lines"))

    def broken(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Two glyphs at once, halves, shuffled pieces, smears, blots, pairs, and mere pieces."""
        numbers, second, ground = self.pick(count), self.pick(count), self.grounds(count)
        one, seen_one = self.paint(numbers, ground)
        two, seen_two = self.paint(second, ground)
        seen, side = seen_one | seen_two, one.shape[-1]
        way = torch.arange(count) % 7
        at = lambda number: (way == number)[:, None, None, None]  # noqa: E731
        share = self.uniform(0.38, 0.62, count, 1, 1, 1)
        out = torch.where(at(0), share * one + (1 - share) * two, one)
        upper = torch.arange(side)[:, None] < side // 2
        turned = self.uniform(0, 1, count, 1, 1, 1) < 0.5
        out = torch.where(at(1), torch.where(torch.where(turned, upper, upper.T), one, two), out)
        order = torch.randperm(16, generator=self.generator)
        size = side // 4
        pieces = (
            one.unfold(2, size, size).unfold(3, size, size).reshape(count, 3, 16, size, size)[:, :, order]
        )
        shuffled = pieces.reshape(count, 3, 4, 4, size, size).permute(0, 1, 2, 4, 3, 5).reshape(one.shape)
        out = torch.where(at(2), shuffled, out)
        smear = F.interpolate(F.interpolate(one, (5, 5), mode="area"), one.shape[-2:], mode="bicubic")
        out = torch.where(at(3), smear, out)
        blots = F.interpolate(self.uniform(0, 1, count, 3, 9, 9), one.shape[-2:], mode="bicubic").clamp(0, 1)
        blots = torch.where(seen_one[:, None], 0.1 * one + 0.9 * blots, ground)
        out = torch.where(at(4), blots, out)
        small = [
            F.interpolate(picture, (side // 2, side // 2), mode="area")
            for picture in (one, torch.where(turned, one, two))
        ]
        beside = ground.expand_as(one).clone()
        beside[:, :, side // 4 : side // 4 + side // 2, : side // 2] = small[0]
        beside[:, :, side // 4 : side // 4 + side // 2, side // 2 :] = small[1]
        beside = torch.where(self.uniform(0, 1, count, 1, 1, 1) < 0.5, beside, beside.transpose(2, 3))
        out = torch.where(at(5), beside, out)
        corner = (torch.arange(side) < side * 0.45)[:, None] & (torch.arange(side) < side * 0.45)
        piece = torch.where(
            torch.where(turned, corner, upper & (torch.arange(side) < side * 0.6)), one, ground
        )
        out = torch.where(at(6), piece, out)
        seen = (out - ground).abs().amax(1) > segment.VISIBLE / 255
        classes = torch.full((count,), BROKEN)
        labels = self.labels(classes, 0)
        labels[:, 3] = NOT_A_PERSON
        return self.place(out, seen, ground), labels

    def regiven(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pictures, labels = self.given
        numbers = self.integers(len(pictures), count)
        ground = pictures[numbers][:, :, :1, :1].float() / 255
        whole = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
        whole[:, 3:-3, 3:-3] = True
        return self.place(pictures[numbers].float() / 255, whole, ground), labels[numbers]

    def degrade(self, pictures: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixed up, blurred by a strength for each quarter, with soft colour errors and noise; in [-1, 1]."""
        order = torch.randperm(len(pictures), generator=self.generator)
        pictures, labels = pictures[order], labels[order]
        out = []
        for quarter in pictures.chunk(4):
            sigma = float(self.uniform(0, 1.6, 1))
            taps = torch.exp(-(torch.arange(-3.0, 4) ** 2) / (2 * max(sigma, 0.1) ** 2))
            taps = (taps / taps.sum()).repeat(3, 1)
            blurred = F.conv2d(
                F.pad(quarter, (3, 3, 3, 3), mode="replicate"), taps[:, None, :, None], groups=3
            )
            blurred = F.conv2d(blurred, taps[:, None, None, :], groups=3)
            count = len(quarter)
            patch = F.interpolate(self.uniform(0, 1, count, 1, 6, 6), (SIDE, SIDE), mode="bilinear")
            out.append(quarter + (blurred - quarter) * (1.5 * patch).clamp(0, 1))
        pictures = torch.cat(out)
        count = len(pictures)
        soft = torch.randn(count, 3, 7, 7, generator=self.generator) * self.uniform(0, 0.06, count, 1, 1, 1)
        grain = torch.randn(count, 3, SIDE, SIDE, generator=self.generator) * self.uniform(
            0, 0.03, count, 1, 1, 1
        )
        pictures = pictures + F.interpolate(soft, (SIDE, SIDE), mode="bilinear") + grain
        return pictures.clamp(0, 1) * 2 - 1, labels


# ---- the training --------------------------------------------------------------------------------------------------


def loss_of(out: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Cross entropies of the four heads; a label of -100 is left out."""
    losses = []
    for place, logits in enumerate(out.values()):
        wanted = labels[:, place]
        if (wanted >= 0).any():
            losses.append(
                F.cross_entropy(logits.float(), wanted, ignore_index=NOT_A_PERSON, label_smoothing=0.02)
            )
    return sum(losses)


def fit(config: FitConfig = FitConfig(), given: tuple[torch.Tensor, torch.Tensor] | None = None) -> Network:
    """A trained network on the CPU, in a few minutes on one core.

    `given`: crops of reconstructions, (m, 3, 48, 48) uint8, and their labels (m, 4) as `Drawer.batch` gives them.
    """
    torch.manual_seed(config.seed)
    network = Network().to(memory_format=torch.channels_last)
    drawer = Drawer(config, given)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.1
    )
    bar = tqdm(range(config.steps), desc="judge A", mininterval=2)
    for step in bar:
        pictures, labels = drawer.batch()
        out = network(pictures.contiguous(memory_format=torch.channels_last))
        loss = loss_of(out, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
        if step % 50 == 0:
            right = (out["class"].argmax(1) == labels[:, 0]).float().mean()
            bar.set_postfix(loss=f"{float(loss):.3f}", right=f"{float(right):.2f}")
    return network.eval().to(memory_format=torch.contiguous_format)


def labels_of(thing: Thing, style: str) -> tuple[int, int, int, int]:
    """(class, gender, tone, look) of a drawn thing."""
    look = LOOKS.index(style if style in LOOKS else "lines")
    if thing.kind != "person":
        return CLASSES.index(thing.name), NOT_A_PERSON, NOT_A_PERSON, look
    places = tuple(GENDERS).index(thing.gender), tuple(TONES).index(thing.tone)
    return CLASSES.index(thing.occupation), *places, look

"""Still pictures of a view, for where no script runs: tiles in rows, with captions. Pillow only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = "#222222"
EDGE = "#cccccc"  # around each picture: a white one would have no end on white


def captioned(rows: Sequence[Sequence[tuple]], side: int) -> Image.Image:
    """Rows of (picture, caption below it): pictures (H, W, 3) uint8 of one shape, shown `side` pixels wide."""
    label, gap, font = 20, 6, ImageFont.load_default(12)
    h, w = rows[0][0][0].shape[:2]
    height = max(1, round(side * h / w))
    size = (max(map(len, rows)) * (side + gap) + gap, len(rows) * (height + label + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    for row, tiles in enumerate(rows):
        for column, (picture, caption) in enumerate(tiles):
            x, y = gap + column * (side + gap), gap + row * (height + label + gap)
            _place(sheet, picture, (x, y, x + side, y + height))
            ImageDraw.Draw(sheet).text((x + side / 2, y + height + 3), caption, INK, font, anchor="ma")
    return sheet


def table(columns: Sequence[str], rows: Mapping[str, Sequence[np.ndarray]], side: int, height: int, smooth: bool = True) -> Image.Image:  # fmt: skip
    """Pictures (H, W, 3) uint8 under the names of their columns, beside the names of their rows."""
    left, top, gap, font = 140, 22, 4, ImageFont.load_default(14)
    sheet = Image.new("RGB", (left + len(columns) * (side + gap), top + len(rows) * (height + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        draw.text((left + column * (side + gap) + side / 2, 3), name, INK, font, anchor="ma")
    for row, (name, pictures) in enumerate(rows.items()):
        y = top + row * (height + gap)
        draw.text((left - 8, y + height / 2), name[:18], INK, font, anchor="rm")
        for column, picture in enumerate(pictures):
            x = left + column * (side + gap)
            _place(sheet, picture, (x, y, x + side, y + height), smooth)
    return sheet


def _place(sheet: Image.Image, picture: np.ndarray, box: tuple[int, int, int, int], smooth: bool = True) -> None:
    """Paste a picture (H, W, 3) uint8 into this box, and draw its edge."""
    left, top, right, bottom = box
    resample = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    sheet.paste(Image.fromarray(picture).resize((right - left, bottom - top), resample), box)
    ImageDraw.Draw(sheet).rectangle((left, top, right - 1, bottom - 1), outline=EDGE)

"""The diagram as a still picture, for where no script runs: the same parts in the same places, at the step that is shown. Pillow only."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .replay import finished_picture
from .still_image import EDGE, INK

if TYPE_CHECKING:
    from .diagram import Diagram

SIZE = (1000, 470)
TEXT, NET, VAE, PLAIN = "#0072b2", "#c24e00", "#007a59", "#5f5f66"  # as in diagram.css


def still(view: Diagram) -> Image.Image:
    """The diagram of `view` at its step, on white."""
    sheet = _Sheet()
    _words(sheet, view)
    _loop(sheet, view)
    _pixels(sheet, view)
    return sheet.image


class _Sheet:
    """White paper of SIZE; places are (left, top, right, bottom)."""

    def __init__(self):
        self.image = Image.new("RGB", SIZE, "white")
        self.draw = ImageDraw.Draw(self.image)
        self.fonts = {size: ImageFont.load_default(size) for size in (15, 16, 18)}

    def write(self, x: float, y: float, text: str, size: int = 15, anchor: str = "mm") -> None:
        self.draw.multiline_text((x, y), text, INK, self.fonts[size], anchor=anchor, align="center", spacing=2)

    def box(self, place, colour: str, name: str, words: str = "") -> None:
        left, top, right, bottom = place
        self.draw.rounded_rectangle(place, 9, "#f7f7f8", colour, 2)
        self.write((left + right) / 2, (top + bottom) / 2 - (9 if words else 0), name, 18)
        self.write((left + right) / 2, (top + bottom) / 2 + 13, words)

    def picture(self, place, array: np.ndarray, caption: str = "", below: bool = False, smooth: bool = False) -> None:
        left, top, right, bottom = place
        resample = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        self.image.paste(Image.fromarray(array).resize((right - left, bottom - top), resample), (left, top))
        self.draw.rectangle((left, top, right - 1, bottom - 1), outline=EDGE)
        self.write((left + right) / 2, bottom + 10 if below else top - 10, caption)

    def arrow(self, *points: tuple[float, float], colour: str = INK, head: bool = True, dashed: bool = False) -> None:
        for a, b in zip(points, points[1:], strict=False):
            ends = np.linspace(a, b, 2 * round(math.dist(a, b) / 8) + 1 if dashed else 2)
            for begin, end in list(zip(ends, ends[1:], strict=False))[::2]:
                self.draw.line([*begin, *end], colour, 2)
        if head:
            (x1, y1), (x2, y2) = points[-2:]
            along = np.array([np.sign(x2 - x1), np.sign(y2 - y1)])
            across, tip = along[::-1] * 4, np.array([x2, y2])
            self.draw.polygon([tuple(tip), tuple(tip - 8 * along + across), tuple(tip - 8 * along - across)], colour)


def _words(sheet: _Sheet, view: Diagram) -> None:
    """Above: prompt, tokens, text encoder, embeddings, and their way into the denoiser."""
    data = view.data
    prompt = textwrap.fill(data["prompt"], 20, max_lines=3) or "(no prompt)"
    sheet.write(20, 40, prompt, 16, "lm")
    tokens = [text for _, text, _ in data["text"][0]["tokens"]] if data["text"] else []
    sheet.write(225, 40, textwrap.fill(" | ".join(tokens), 30, max_lines=3) or "tokens", 16, "lm")
    many = len(data["text"])
    sheet.box(
        (510, 18, 680, 64), TEXT, "text encoder" if many < 2 else f"{many} text encoders", "tokens to embeddings"
    )
    if (shown := data["embeddings"]) is not None:
        packed = shown["packed"]
        values = np.frombuffer(packed["data"], np.int8).reshape(packed["shape"])[0].astype(float) / 127
        red, blue = np.array([178, 24, 43]), np.array([33, 102, 172])
        ends = np.where(values[..., None] > 0, red, blue)
        sheet.picture((735, 18, 980, 64), (247 + (ends - 247) * np.abs(values[..., None])).astype(np.uint8))
    also = "negative" if data["negative_prompt"] else "empty"
    sheet.write(857, 8, f"embeddings, also of the {also} prompt" if data["guided"] else "embeddings")
    for a, b in ((180, 215), (470, 505), (685, 730)):
        sheet.arrow((a, 41), (b, 41))
    sheet.arrow((857, 67), (857, 84), (320, 84), (320, 126))


def _loop(sheet: _Sheet, view: Diagram) -> None:
    """In the middle: noise sample, x_t, denoiser, predictions, guidance, x0, scheduler and the next x_t."""
    data, index = view.data, view.state["step"]
    sheet.draw.rounded_rectangle((112, 94, 992, 328), 12, "#f2f2f4")
    sheet.arrow((320, 84), (320, 126))
    pictures = {name: view.rough(array) for name, array in view.pictures(index).items()}
    sheet.picture((20, 160, 100, 240), view.rough(view.noise()), "noise sample")
    sheet.picture((130, 150, 230, 250), pictures["noisy"], "x_t")
    name = "transformer" if (data["denoiser"] or {}).get("kind") == "transformer" else "U-Net"
    sheet.box((260, 130, 380, 250), NET, name, f"timestep {view.trace[index].timestep:.0f}")
    if "cond" in pictures:
        sheet.picture((410, 116, 485, 191), pictures["cond"], "with prompt")
        sheet.picture((410, 204, 485, 279), pictures["uncond"], "without", below=True)
        sheet.box((515, 130, 620, 250), PLAIN, "guidance", f"w = {data['guidance']:g}")
        for y in (153, 236):
            sheet.arrow((383, y), (406, y))
            sheet.arrow((488, y), (511, y))
        sheet.arrow((623, 153), (646, 153))
    else:
        sheet.arrow((383, 153), (646, 153))
    sheet.picture((650, 116, 725, 191), pictures["guided"], "mixed" if "cond" in pictures else "prediction")
    decoded = view.trace.previews is not None
    x0 = view.trace.previews[index] if decoded else pictures["x0"]
    sheet.picture((650, 204, 725, 279), x0, "predicted x_0", below=True, smooth=decoded)
    sheet.box((755, 130, 860, 250), PLAIN, "scheduler", str(data["scheduler"])[:16])
    sheet.picture((885, 150, 980, 245), pictures["following"], "x_(t-1)")
    for a, b, y in ((103, 126, 200), (233, 256, 200), (728, 751, 236), (863, 881, 200)):
        sheet.arrow((a, y), (b, y))
    sheet.arrow((687, 193), (687, 202))
    sheet.arrow((243, 200), (243, 301), (807, 301), (807, 254))
    label = f"step {index + 1} of {len(view.trace)}: again with the new x_t"
    sheet.arrow((915, 249), (915, 316), (690, 316), colour="#5b3fd0", head=False)
    sheet.write(540, 316, label, 16)
    sheet.arrow((390, 316), (200, 316), (200, 254), colour="#5b3fd0")


def _pixels(sheet: _Sheet, view: Diagram) -> None:
    """Below: the VAE's encoder, where a picture can go in, and its decoder, which makes the picture."""
    source = view.trace.source
    sheet.box((118, 370, 242, 420), VAE, "VAE encoder", "" if source is not None else "not called")
    if source is None:
        sheet.write(60, 395, "image to\nimage: a\npicture")
    else:
        sheet.picture((20, 355, 100, 435), source, smooth=True)
    sheet.arrow((98, 395), (114, 395), dashed=source is None)
    sheet.arrow((160, 368), (160, 254), dashed=source is None)
    sheet.box((872, 370, 994, 420), VAE, "VAE decoder")
    sheet.arrow((955, 249), (955, 366))
    sheet.picture((705, 335, 837, 467), finished_picture(view.trace), smooth=True)
    sheet.arrow((868, 395), (842, 395))
    sheet.write(640, 395, "picture")

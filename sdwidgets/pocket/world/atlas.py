"""The glyph atlas: one picture that holds every object and person of Pocket's world.

The atlas ships in `data/atlas`, so rendering needs no font. Building it again needs Noto Color Emoji
(Debian package fonts-noto-color-emoji) and a Pillow with Raqm, which its wheels have::

    python -m sdwidgets.pocket.world.atlas NotoColorEmoji.ttf data/atlas
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from ...paths import data_folder
from .vocabulary import GENDERS, OBJECTS, OCCUPATIONS, TONES, person_emoji, person_name

CELL = 128  # pixels: a glyph fits its longer side into a square cell
COLUMNS = 20
BITMAP_SIZE = 109  # the one bitmap size that Noto Color Emoji carries


def glyph_sequences() -> dict[str, str]:
    """name -> emoji sequence, objects first, then people, in the order of the atlas's cells."""
    people = itertools.product(OCCUPATIONS, GENDERS, TONES)
    return OBJECTS | {person_name(*person): person_emoji(*person) for person in people}


def draw_glyph(sequence: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji as RGBA, cropped to what is drawn and centred in a CELL x CELL square.

    Raises ValueError where the font draws nothing or draws the sequence as several glyphs side by side.
    """
    if font.getlength(sequence) > 1.5 * BITMAP_SIZE:
        raise ValueError(f"the font has no single glyph for {sequence!r}")
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), sequence, font=font, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"the font draws nothing for {sequence!r}")
    glyph = canvas.crop(box)
    scale = CELL / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(glyph.resize((width, height), Image.Resampling.LANCZOS), ((CELL - width) // 2, (CELL - height) // 2))
    return cell


def build(font_file: str | Path, folder: str | Path) -> Path:
    """Draw every glyph into `folder`/atlas.webp (lossless) and its names into atlas.json; returns the picture's path."""
    if not features.check("raqm"):
        raise RuntimeError("this Pillow has no Raqm layout, which joined emoji need: install Pillow from its wheel")
    font = ImageFont.truetype(str(font_file), BITMAP_SIZE, layout_engine=ImageFont.Layout.RAQM)
    sequences = glyph_sequences()
    rows = -(-len(sequences) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for cell, sequence in enumerate(sequences.values()):
        sheet.paste(draw_glyph(sequence, font), (cell % COLUMNS * CELL, cell // COLUMNS * CELL))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / "atlas.webp", lossless=True, quality=100, method=4)
    index = {
        "cell": CELL,
        "columns": COLUMNS,
        "source": "Noto Color Emoji 2.042 (Unicode 15)",
        "names": list(sequences),
    }
    (folder / "atlas.json").write_text(json.dumps(index, indent=1) + "\n")
    return folder / "atlas.webp"


@functools.lru_cache(maxsize=1)
def _sheet() -> tuple[Image.Image, dict[str, int], int, int]:
    folder = data_folder("atlas")
    index = json.loads((folder / "atlas.json").read_text())
    picture = Image.open(folder / "atlas.webp").convert("RGBA")
    return picture, {name: cell for cell, name in enumerate(index["names"])}, index["cell"], index["columns"]


def names() -> tuple[str, ...]:
    """The names of all glyphs in the atlas."""
    return tuple(_sheet()[1])


@functools.lru_cache(maxsize=4096)
def glyph(name: str, size: int) -> Image.Image:
    """The glyph `name` as RGBA, size x size pixels (1 to 128). Raises KeyError for a name that the atlas lacks."""
    picture, cells, cell, columns = _sheet()
    if name not in cells:
        raise KeyError(
            f"the atlas has no glyph named {name!r}; `sdwidgets.pocket.world.atlas.names()` lists what it has"
        )
    left, top = cells[name] % columns * cell, cells[name] // columns * cell
    cut = picture.crop((left, top, left + cell, top + cell))
    # Pillow resizes RGBA with premultiplied colour, so transparent pixels bleed no rim into the edge.
    return cut if size == cell else cut.resize((size, size), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m sdwidgets.pocket.world.atlas NotoColorEmoji.ttf FOLDER")
    print(build(*sys.argv[1:]))

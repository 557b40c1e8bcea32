"""`python tools/clean_notebooks.py [notebooks ...]`: take out of executed notebooks what changes with every run.

That is: when each cell ran, lines of progress that are empty now, and what belongs to a kernel that is gone: the state of widgets, and widgets
whose cell has a page in their place. What remains is reviewed as text. Large pictures become JPEG, in full colour, for a notebook stays below 1.5 MB.
"""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"
LARGE = 15_000  # characters of a PNG in base64
PLOT = 1024  # colours: lines and letters have no more, pictures have


def clean(path: Path) -> None:
    """Rewrite one notebook without times and widget state."""
    book = nbformat.read(path, as_version=4)
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("lines_to_next_cell", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if stays(output, cell.outputs)]
            if "present" in cell.metadata.get(
                "tags", ()
            ):  # the bar of the stage path, which is nothing without a kernel
                cell.outputs = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if VIEW in data and len(data) > 1:
                del data[VIEW]
            if len(data.get("image/png", "")) > LARGE:
                data.update(smaller(data.pop("image/png")))
    nbformat.write(book, path)


def stays(output, outputs: list) -> bool:
    """False for what shows nothing, and for a widget beside the page that it left."""
    if "data" not in output:
        return True
    left = any("data-sdwidgets-saved" in str(other.get("data", {}).get("text/html")) for other in outputs)
    return any(output.data.values()) and not (left and VIEW in output.data)


def smaller(png: str) -> dict[str, str]:
    """{mime type: base64} of a PNG in base64: as a JPEG without loss of colour resolution, if that is shorter; a plot keeps its PNG, with a palette."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P" or picture.mode == "RGBA" and picture.getextrema()[3][0] < 255:
        return {"image/png": png}  # few colours, or something shines through
    buffer = io.BytesIO()
    if picture.convert("RGB").getcolors(PLOT):
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        return {"image/png": base64.b64encode(buffer.getvalue()).decode("ascii")}
    picture.convert("RGB").save(buffer, "JPEG", quality=75, subsampling=0, optimize=True)
    jpeg = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"image/jpeg": jpeg} if len(jpeg) < len(png) else {"image/png": png}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    for path in parser.parse_args().notebooks or sorted((ROOT / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            clean(path)


if __name__ == "__main__":
    main()

"""What a run starts from: noise alone, a picture, a picture with a hole in it, a picture with room around it.

Each task is diffusers' own pipeline over the parts that are loaded already (`AutoPipelineFor...from_pipe`: no new weights).
Pictures are brought to the size at which the model draws; a picture to be widened shrinks for that, and is told so.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from ..parts import native_size, quiet_diffusers
from .validation import Note, SettingsError, check_integer, size_step

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Picture: TypeAlias = "Image.Image | np.ndarray"

TASKS = {  # -> label, and what it does in a sentence
    "text": ("Text to picture", "Starts from noise alone."),
    "image": ("Picture to picture", "Starts from your picture with noise over it; strength says how much."),
    "inpaint": ("Inpaint", "Paints anew what you mark, and puts your picture back around it at every step."),
    "outpaint": ("Outpaint", "Paints what lies around your picture."),
}
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES, MAX_PIXELS, MAX_RATIO = 32_000_000, 40_000_000, 4  # of a source picture; longer to shorter side
MAX_BORDER = 200  # percent of the picture's own side


def read_picture(data: bytes, name: str = "file") -> Image.Image:
    """The RGB picture in the bytes of a PNG, JPEG or WebP file, upright, what is transparent on white.

    Raises SettingsError of the field "source" for another kind of file, a damaged one, or more than 40 million pixels.
    """
    name = repr(name[:80])
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_pixels("source", picture)
            return to_pil(picture)
    except SettingsError:
        raise
    except Image.DecompressionBombError:
        raise SettingsError(
            "source", f"The picture {name} has more than {MAX_PIXELS:,} pixels; make it smaller."
        ) from None
    except Exception:  # Pillow raises many kinds for what is no picture, or a broken one
        raise SettingsError(
            "source", f"{name} is no picture that can be read; give a PNG, JPEG or WebP file."
        ) from None


def to_pil(value: Picture) -> Image.Image:
    """An RGB picture from a PIL image, or an array (H, W, 3) or (H, W): uint8, or floats in [0, 1]. Raises SettingsError.

    Upright, as its EXIF data say, and what is transparent on white: whichever way a picture comes in.
    """
    value = ImageOps.exif_transpose(_image("source", "picture", value))
    if value.has_transparency_data:
        layer = value.convert("RGBA")
        value = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return value.convert("RGB")


def as_mask(value: Picture, size: tuple[int, int]) -> Image.Image:
    """A mask of `size` (width, height), white where to paint anew, from a PIL image or an array (H, W) of bool, uint8 or floats.

    Of a layer that is transparent in places, what is opaque is painted anew; of bytes that are 0 and 1, what is 1.
    """
    if isinstance(value, np.ndarray) and (value.dtype == bool or value.dtype == np.uint8 and value.size and value.max() == 1):  # fmt: skip
        value = value.astype(np.uint8) * 255
    value = ImageOps.exif_transpose(_image("mask", "mask", value))
    layer = value.convert("RGBA").getchannel("A") if value.has_transparency_data else None
    value = layer if layer is not None and layer.getextrema()[0] < 255 else value
    return value.convert("L").resize(size, Image.Resampling.NEAREST).point(lambda x: 255 if x >= 128 else 0)


def native_side(pipe: DiffusionPipeline) -> int:
    """The longer side, in pixels, of the pictures that this model was made for."""
    return max(native_size(pipe))


def resize_to_model(pipe: DiffusionPipeline, picture: Image.Image) -> Image.Image:
    """The picture at the model's size: its longer side the native one, both multiples of `size_step`; a few rows are cut off."""
    return ImageOps.fit(picture, _size(pipe, *picture.size), Image.Resampling.LANCZOS)


def pad_for_outpainting(
    pipe: DiffusionPipeline, source: Image.Image, border: Sequence[float]
) -> tuple[Image.Image, Image.Image, Note]:
    """(canvas, mask, note): `source` with room around it, at the model's size, its edges continued into the room.

    border: (left, top, right, bottom) in percent of the picture's own width and height.
    """
    left, top, right, bottom = border
    step = size_step(pipe)
    width, height = _size(pipe, source.width * (100 + left + right), source.height * (100 + top + bottom))

    def inside(side: int, before: float, after: float) -> tuple[int, int]:
        """Where the picture begins and ends, on the grid of the latents, in which a cell is kept or painted."""
        total = 100 + before + after
        begin = min(step * round(side * before / total / step), side - step)
        return begin, max(step * round(side * (before + 100) / total / step), begin + step)

    (x0, x1), (y0, y1) = inside(width, left, right), inside(height, top, bottom)
    small = np.asarray(source.resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS))
    canvas = np.pad(small, ((y0, height - y1), (x0, width - x1), (0, 0)), mode="edge")
    mask: np.ndarray = np.full((height, width), 255, np.uint8)
    mask[y0:y1, x0:x1] = 0
    if mask.max() == 0:
        raise SettingsError("border", "This border is thinner than one cell of the latents; make it wider.")
    sentence = (
        f"This model draws {width} x {height} pixels, room included: your picture shrank to {x1 - x0} x {y1 - y0} of them "
        f"(from {source.width} x {source.height})."
    )
    return Image.fromarray(canvas), Image.fromarray(mask), Note("border", sentence)


def check_task(
    pipe: DiffusionPipeline,
    task: str,
    source: Image.Image | None,
    mask: Image.Image | None,
    border: Sequence[float] | None,
) -> list[Note]:
    """Refuse a task that lacks what it starts from; raises SettingsError. `pipeline_for` tells whether the model can do it."""
    if not isinstance(task, str) or task not in TASKS:
        raise SettingsError("task", f"There is no task {str(task)[:40]!r}; choose one of: {', '.join(TASKS)}.")
    reads = getattr(getattr(pipe, "unet", None), "config", {}).get("in_channels", 4)
    if task in ("text", "image") and reads == 2 * pipe.vae.config.latent_channels + 1:
        sentence = "This model was trained to paint inside a mask, which it reads beside the latents; choose inpaint or outpaint."
        raise SettingsError("task", sentence)
    if task == "text":
        return []
    if source is None:
        raise SettingsError("source", "This task starts from a picture: choose one, or use the last picture.")
    if task == "inpaint" and (mask is None or mask.getextrema()[1] == 0):
        raise SettingsError("mask", "Mark on the picture what is to be painted anew.")
    if task != "outpaint":
        return []
    if not isinstance(border, (list, tuple)) or len(border) != 4:
        raise SettingsError(
            "border", "The border has four numbers: left, top, right, bottom, in percent of the picture."
        )
    for value in border:
        check_integer("border", value, 0, MAX_BORDER, "border in percent")
    if not any(border):
        raise SettingsError("border", "There is nothing to paint: one side of the border must be more than 0 percent.")
    return [pad_for_outpainting(pipe, source, border)[2]]


def pipeline_for(pipe: DiffusionPipeline, task: str) -> DiffusionPipeline:
    """diffusers' pipeline for this task over the same parts; `pipe` itself for "text". Raises SettingsError where there is none.

    The first call may take seconds, in which diffusers imports all of its pipelines.
    """
    if task == "text":
        return pipe
    import diffusers

    try:
        with quiet_diffusers():
            auto = diffusers.AutoPipelineForImage2Image if task == "image" else diffusers.AutoPipelineForInpainting
            made = auto.from_pipe(pipe)
    except ValueError:
        raise SettingsError(
            "task", f"diffusers has no pipeline of this kind for {type(pipe).__name__}; choose another task."
        ) from None
    made.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return made


def text_pipeline(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """diffusers' text-to-image pipeline over the same parts; `pipe` itself where it is one.

    Raises TypeError for a pipeline that always needs a picture to follow, such as a ControlNet's.
    """
    name = type(pipe).__name__
    if re.search("ControlNet|Adapter|InstructPix2Pix|Upscale|Depth2Img", name):
        raise TypeError(
            f"a Playground draws from text or from one picture, and {name} needs another picture to follow; call it in a cell"
        )
    if not re.search("Img2Img|Inpaint", name):
        return pipe
    import diffusers

    try:
        return diffusers.AutoPipelineForText2Image.from_pipe(pipe)
    except ValueError:
        raise TypeError(f"diffusers has no text-to-image pipeline for {name}; give one that draws from text") from None


def pictures_for(
    pipe: DiffusionPipeline, settings: dict, source: Image.Image | None, mask: Image.Image | None
) -> dict:
    """The pictures of the call: {} for text, else "image", "mask_image" and the size."""
    task = settings["task"]
    if task == "text":
        return {}
    if task == "outpaint":
        source, mask, _ = pad_for_outpainting(pipe, source, settings["border"])
    assert source is not None, "check_task comes first"
    pictures = {"image": source, "height": source.height, "width": source.width}
    return pictures if task == "image" else {**pictures, "mask_image": mask}


def _size(pipe, width: float, height: float) -> tuple[int, int]:
    if max(width, height) > MAX_RATIO * min(width, height):
        raise SettingsError(
            "source", f"The picture is more than {MAX_RATIO} times as long as it is wide; cut it first."
        )
    side, step = native_side(pipe), size_step(pipe)
    scale = side / max(width, height)
    wide, high = (max(step, step * round(scale * n / step)) for n in (width, height))
    return wide, high


def _bytes(field: str, array: np.ndarray) -> np.ndarray:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
    numbers = array.dtype == np.uint8 or array.dtype.kind == "f"
    if not (shaped and array.size and numbers):
        raise SettingsError(
            field,
            f"The array must be (H, W, 3) or (H, W), uint8 or floats in [0, 1], not {array.shape} {array.dtype}.",
        )
    if array.dtype == np.uint8:
        return array
    if not (np.isfinite(array).all() and 0 <= array.min() and array.max() <= 1):
        raise SettingsError(field, "The array's floats must lie in [0, 1].")
    return (array * 255).round().astype(np.uint8)


def _image(field: str, noun: str, value: Picture) -> Image.Image:
    if isinstance(value, np.ndarray):
        value = Image.fromarray(_bytes(field, value))
    if not isinstance(value, Image.Image):
        raise SettingsError(field, f"The {noun} must be a PIL image or a numpy array, not {type(value).__name__}.")
    _check_pixels(field, value)
    return value


def _check_pixels(field: str, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        many = f"The picture has {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are taken. Make it smaller."
        raise SettingsError(field, many)

"""Image to image, inpainting and outpainting in the Playground: diffusers' own pipelines, and pictures of any kind."""

from __future__ import annotations

import copy
import io

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from sdwidgets import record
from sdwidgets.generation import tasks
from sdwidgets.generation.validation import SettingsError, check_settings
from sdwidgets.trace_io import read_passport, to_png
from tests import tiny
from tests.test_code_export import executed, folders  # noqa: F401  (a fixture)
from tests.test_playground import SECONDS, make  # noqa: F401  (a fixture)
from tests.test_trace_io import give


def picture(width: int = 64, height: int = 64) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1).astype(np.uint8))


def hole(size=(64, 64)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (16, 16, 48, 40))
    return mask


def small(family: str):
    pipe = tiny.pipeline(family)
    if family == "flux":
        pipe.default_sample_size = 8  # its class has 128, too many for a test
    return pipe


# ---- the pipeline's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("task", ["image", "inpaint", "outpaint"])
def test_a_run_is_the_pipelines_own(make, family, task):  # noqa: F811
    pipe = small(family)
    play = make(pipe, num_inference_steps=4, autorun=False)
    trace = play.run(task=task, source=picture(), mask=hole(), strength=0.75, seed=5, prompt="a cat").wait(SECONDS)
    auto = diffusers.AutoPipelineForImage2Image if task == "image" else diffusers.AutoPipelineForInpainting
    bare = auto.from_pipe(small(family))
    image, mask = picture(), hole()
    if task == "outpaint":
        image, mask, _ = tasks.pad_for_outpainting(pipe, image, (25, 25, 25, 25))
    given = {"image": image} if task == "image" else {"image": image, "mask_image": mask}
    guidance = play.settings["guidance_scale"]
    out = bare("a cat", **given, **({} if family in ("sd", "sdxl") and task == "image" else {"height": 64, "width": 64}), strength=0.75, num_inference_steps=4, guidance_scale=guidance, generator=tiny.generator(5), output_type="np").images  # fmt: skip
    assert np.array_equal(trace.images, (out * 255).round().astype(np.uint8))
    assert trace.complete and len(trace) == 3 and trace.settings.strength == 0.75
    assert np.array_equal(trace.source, np.asarray(image)) and (trace.mask is None) == (task == "image")
    if trace.mask is not None:
        assert np.array_equal(trace.mask, np.asarray(mask))


@pytest.mark.parametrize("task", ["image", "inpaint", "outpaint"])
def test_the_copied_program_makes_the_same_picture(folders, make, task, tmp_path):  # noqa: F811
    play = make(folders("sd"), num_inference_steps=4, autorun=False)
    trace = play.run(task=task, source=picture(), mask=hole(), strength=0.8, seed=5).wait(SECONDS)
    assert np.array_equal(executed(play.code(tmp_path)), trace.images[0])
    assert "Image.open('source.png')" in play.code() and "Playground.code(folder)" in play.code()


@pytest.mark.parametrize("task", ["image", "inpaint", "outpaint"])
def test_the_passport_carries_the_pictures_too(make, task):  # noqa: F811
    first = make(num_inference_steps=3, autorun=False)
    trace = first.run(task=task, source=picture(), mask=hole(), strength=0.7, seed=5).wait(SECONDS)
    second = make(autorun=False)
    assert give(second, to_png(trace))["refused"] is None
    assert second.wait(SECONDS).settings == trace.settings
    assert second.settings["task"] == ("image" if task == "image" else "inpaint")
    assert np.array_equal(second.run().wait(SECONDS).images, trace.images)


def test_what_inpainting_keeps_it_keeps(make):  # noqa: F811
    """Outside the mask the last latents are the source's own, whatever the prompt; its noise comes from the seed."""
    play = make(num_inference_steps=3, autorun=False)
    kept = play.run(task="inpaint", source=picture(), mask=hole(), prompt="a cat").wait(SECONDS).final_latents
    other = play.run(prompt="a dog", guidance_scale=9).wait(SECONDS).final_latents
    inside = np.zeros((8, 8), bool)
    inside[2:5, 2:6] = True
    assert np.array_equal(kept[..., ~inside], other[..., ~inside]) and (kept != other)[..., inside].all()


def test_record_forgets_the_picture_of_the_run_before():
    pipe = tasks.pipeline_for(tiny.pipeline("sd"), "image")
    with record(pipe) as trace:
        for colour in (10, 200):
            pipe(
                "a", image=Image.new("RGB", (64, 64), (colour,) * 3), num_inference_steps=2, generator=tiny.generator()
            )
    assert (trace.source == 200).all() and trace.settings.strength == 0.8
    assert not {"preprocess", "postprocess"} & set(vars(pipe.image_processor)) and "get_timesteps" not in vars(pipe)


# ---- pictures of any kind -------------------------------------------------------------------------------------------


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read(mode):
    form = "JPEG" if mode == "CMYK" else "PNG"
    image = Image.new(mode, (9, 5))
    assert tasks.read_picture(encoded(image, form)).mode == "RGB"


def test_transparency_is_white_and_a_camera_may_lie_on_its_side():
    assert tasks.read_picture(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert tasks.read_picture(encoded(picture(40, 20), "JPEG", exif=exif)).size == (20, 40)


def test_files_that_are_no_picture_are_a_sentence():
    whole = encoded(picture())
    with pytest.raises(SettingsError, match="40,000,000"):
        tasks.read_picture(encoded(Image.new("1", (8000, 6000))))
    with pytest.raises(SettingsError, match="40,000,000"):
        tasks.read_picture(encoded(Image.new("1", (20000, 20000))))
    for data in (b"", b"GIF89a", whole[:60], whole[:-200], b"%PDF-1.7", b"<svg/>"):
        with pytest.raises(SettingsError, match="no picture that can be read") as caught:
            tasks.read_picture(data, "<b>.png")
        assert caught.value.field == "source"


@pytest.mark.parametrize("size", [(10, 10), (300, 200), (200, 300), (1000, 999), (400, 100)])
def test_a_picture_is_brought_to_the_models_size(size):
    made = tasks.resize_to_model(tiny.pipeline("sd"), picture(*size)).size
    assert max(made) == 64 and not any(side % 8 for side in made)
    assert abs(made[0] / made[1] / (size[0] / size[1]) - 1) < 0.35


def test_arrays_are_pictures_too():
    floats = np.linspace(0, 1, 64 * 64 * 3).reshape(64, 64, 3)
    assert np.array_equal(np.asarray(tasks.to_pil(floats)), (floats * 255).round().astype(np.uint8))
    assert tasks.as_mask(np.eye(4, dtype=bool), (8, 8)).getextrema() == (0, 255)
    for wrong in (np.full((4, 4, 3), 2.0), np.full((4, 4), np.nan), np.zeros((4, 4, 2)), np.zeros(3), np.zeros((4, 4), np.int64), "cat.png"):  # fmt: skip
        with pytest.raises(SettingsError):
            tasks.to_pil(wrong)


@pytest.mark.parametrize("border", [(25, 25, 25, 25), (100, 0, 0, 0), (0, 0, 13, 200), (1, 1, 1, 1)])
def test_a_widened_picture_shrinks_to_make_room_and_says_so(border):
    pipe = tiny.pipeline("sd")
    try:
        canvas, mask, note = tasks.pad_for_outpainting(pipe, picture(), border)
    except SettingsError as error:
        assert border == (1, 1, 1, 1) and error.field == "border" and "thinner than one cell" in str(error)
        return
    assert canvas.size == mask.size and max(canvas.size) == 64 and not any(side % 8 for side in canvas.size)
    kept = np.asarray(mask) == 0
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    assert len(rows) % 8 == len(columns) % 8 == 0 and kept.sum() == len(rows) * len(columns)
    assert f"{len(columns)} x {len(rows)}" in note.text
    inside = picture().resize((len(columns), len(rows)), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(canvas)[kept].reshape(len(rows), len(columns), 3), np.asarray(inside))


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"task": "image"}, "source"),
        ({"task": "video"}, "task"),
        ({"task": ["image"]}, "task"),
        ({"task": "inpaint", "source": picture()}, "mask"),
        ({"task": "inpaint", "source": picture(), "mask": np.zeros((64, 64))}, "mask"),
        ({"mask": hole()}, "mask"),
        ({"task": "image", "source": picture(), "strength": 0}, "strength"),
        ({"task": "image", "source": picture(), "strength": 1.01}, "strength"),
        ({"task": "image", "source": picture(), "strength": "half"}, "strength"),
        ({"task": "image", "source": picture(), "strength": 0.1}, "strength"),
        ({"task": "image", "source": picture(1000, 10)}, "source"),
        ({"task": "image", "source": "cat.png"}, "source"),
        ({"task": "outpaint", "source": picture(), "border": [0, 0, 0, 0]}, "border"),
        ({"task": "outpaint", "source": picture(), "border": [1, 2, 3]}, "border"),
        ({"task": "outpaint", "source": picture(), "border": [25, 25, 25, -1]}, "border"),
        ({"task": "outpaint", "source": picture(), "border": "wide"}, "border"),
    ],
)
def test_bad_input_is_a_sentence_at_its_control(make, settings, field):  # noqa: F811
    play = make(autorun=False, num_inference_steps=3)
    with pytest.raises(SettingsError) as caught:
        play.run(**settings)
    assert caught.value.field == field and str(caught.value).endswith(".")
    assert play.sent[-1] == {**play.sent[-1], "kind": "errors", "errors": {field: str(caught.value)}}
    assert play.settings["task"] == "text" and play.source is None and play.run().wait(SECONDS).complete


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_advice_on_strength_is_taken_and_what_runs_is_not_refused(family):
    """Image to image takes int(steps x strength) steps, but for flow models, which take one at least: checked against the pipeline itself."""
    pipe = tiny.pipeline(family)
    flows = family in ("sd3", "flux")
    for steps in (1, 3, 7, 30, 47, 100, 600):
        try:
            assert check_settings(pipe, prompt="a", num_inference_steps=steps, strength=0.9 / steps) == [] and flows
        except SettingsError as error:
            assert not flows
            least = float(str(error).split("take at least ")[1].split(",")[0])
            check_settings(pipe, prompt="a", num_inference_steps=steps, strength=least)
            assert least <= 1 / steps + 0.002
    image = tasks.pipeline_for(pipe, "image")
    size = {
        "strength": 0.2,
        "num_inference_steps": 4,
        "output_type": "np",
        "generator": torch.Generator().manual_seed(0),
    }
    if flows:
        assert np.isfinite(image("a cat", image=picture(), **size).images).all()


def test_a_strength_that_leaves_no_step_is_refused_before_any_work():
    with pytest.raises(SettingsError, match="none of 4 steps; take at least 0.25"):
        check_settings(tiny.pipeline("sd"), num_inference_steps=4, strength=0.2)
    assert check_settings(tiny.pipeline("sd"), prompt="a", num_inference_steps=4, strength=0.25) == []


def test_a_model_that_has_no_such_pipeline_says_so_at_the_task(make):  # noqa: F811
    class Other(diffusers.StableDiffusionPipeline):
        pass

    play = make(tiny.pipeline("sd", cls=Other), autorun=False)
    with pytest.raises(SettingsError, match="no pipeline of this kind for Other"):
        play.run(task="image", source=picture()).wait(SECONDS)
    assert [m["errors"] for m in play.sent if m["kind"] == "errors"][0].keys() == {"task"}
    assert play.sent[-1]["kind"] == "done"


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_sends_a_picture_and_a_mask(make):  # noqa: F811
    play = make(autorun=False, num_inference_steps=2)
    data = encoded(picture(100, 80), "JPEG")
    message = {
        "kind": "upload",
        "client": "page",
        "purpose": "source",
        "name": "photo.jpg",
        "size": len(data),
        "start": 0,
    }
    play._handle_custom_msg(message, [data])
    shown = [m for m in play.sent if m["kind"] == "source"][-1]
    assert play.source.size == (64, 48) or play.source.size == (64, 56)
    assert shown["client"] == "" and play.sent[-1]["refused"] is None
    data = encoded(hole(play.source.size))
    play._handle_custom_msg({**message, "purpose": "mask", "size": len(data)}, [data])
    play.page("run", settings={"task": "inpaint", "strength": "1.0", "border": ["25"] * 4})
    trace = play.wait(SECONDS)
    assert trace.settings.pipeline == "StableDiffusionInpaintPipeline" and trace.mask.max() == 255
    data = b"not a picture"
    play._handle_custom_msg({**message, "size": len(data)}, [data])
    assert "no picture that can be read" in play.sent[-1]["refused"] and play.source.size[0] == 64
    play.page("use_last")
    assert np.array_equal(np.asarray(play.source), trace.images[0]) and play.mask is None
    assert read_passport(to_png(trace)).mask is not None


def test_a_new_page_gets_the_pictures(make):  # noqa: F811
    play = make(autorun=False, num_inference_steps=2, task="inpaint", source=picture(), mask=hole())
    play.page("hello")
    state = play.sent[0]
    assert state["source"] and state["mask"] and [name for name, *_ in state["tasks"]] == list(tasks.TASKS)
    assert state["settings"]["strength"] == 1.0


def test_a_picture_that_stands_on_its_side_is_upright_by_every_door(tmp_path):
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    wide.save(tmp_path / "turned.png", exif=exif)
    by_code, by_page = (
        tasks.to_pil(Image.open(tmp_path / "turned.png")),
        tasks.read_picture((tmp_path / "turned.png").read_bytes()),
    )
    assert by_code.size == by_page.size == (8, 16) and by_code.tobytes() == by_page.tobytes()
    assert tasks.as_mask(Image.open(tmp_path / "turned.png"), (8, 16)).size == (8, 16)


def test_masks_by_transparency_and_of_zeros_and_ones_mark_what_they_say():
    marks = np.zeros((8, 8), np.uint8)
    marks[2:5, 1:4] = 1
    layer = np.dstack([np.full((8, 8, 3), 30, np.uint8), marks * 255])  # dark strokes on nothing
    opaque = np.dstack([np.repeat(marks[..., None] * 255, 3, 2), np.full((8, 8), 255, np.uint8)])
    for mask in (marks, marks.astype(bool), marks * 255, Image.fromarray(layer), layer, Image.fromarray(opaque)):
        assert np.array_equal(np.asarray(tasks.as_mask(mask, (8, 8))) > 0, marks > 0)


@pytest.mark.parametrize("kind", ["Img2Img", "Inpaint"])
def test_a_playground_on_a_pipeline_that_starts_from_pictures_draws_from_text(kind, make):  # noqa: F811
    pipe = tiny.pipeline("sd")
    auto = diffusers.AutoPipelineForImage2Image if kind == "Img2Img" else diffusers.AutoPipelineForInpainting
    play = make(auto.from_pipe(pipe))
    trace = play.run(prompt="a cat", seed=3).wait(SECONDS)
    bare = pipe(
        "a cat",
        num_inference_steps=3,
        guidance_scale=play.settings["guidance_scale"],
        generator=tiny.generator(3),
        output_type="np",
    ).images
    assert np.array_equal(trace.images, (bare * 255).round().astype(np.uint8))


def test_a_playground_refuses_a_pipeline_that_needs_a_picture_to_follow(make):  # noqa: F811
    class StableDiffusionControlNetPipeline(diffusers.StableDiffusionPipeline):
        pass

    pipe = tiny.pipeline("sd")
    with pytest.raises(TypeError, match="ControlNetPipeline needs another picture to follow; call it in a cell"):
        make(StableDiffusionControlNetPipeline(**pipe.components, requires_safety_checker=False))


def test_a_model_that_reads_a_mask_is_refused_for_text_at_once(make):  # noqa: F811
    """Nine channels: latents, mask and masked picture. It would fail at its first step."""
    pipe = tiny.pipeline("sd", unet=copy.deepcopy(tiny.pipeline("sd").unet))
    pipe.unet.register_to_config(in_channels=9)
    with pytest.raises(SettingsError, match="paint inside a mask.*choose inpaint or outpaint") as caught:
        make(pipe)
    assert caught.value.field == "task"
    marked = np.zeros((64, 64), np.uint8)
    marked[8:24, 8:24] = 255
    assert tasks.check_task(pipe, "inpaint", picture(), tasks.as_mask(marked, (64, 64)), None) == []

"""The live diagram: data, page and still picture, from runs of tiny pipelines of every family."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import sdwidgets
from sdwidgets import plots
from sdwidgets.analysis.insides import block_shapes
from sdwidgets.widgets import html
from sdwidgets.widgets.diagram import Diagram, fitted
from tests import tiny
from tests.test_replay import EVIL


def a_diagram(family="sd", prompt="a red cat", steps=3, guidance_scale=4.0, **settings) -> Diagram:
    size = {} if "image" in settings else tiny.SIZE
    return sdwidgets.diagram(tiny.pipeline(family), prompt, num_inference_steps=steps, guidance_scale=guidance_scale, **size, **settings)  # fmt: skip


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_it_draws_every_family_as_it_is(family):
    view = a_diagram(family, seed=3)
    bare = tiny.run(tiny.pipeline(family), seed=3, prompt="a red cat", guidance_scale=4.0)
    assert np.array_equal(view.trace.images[0], (bare[0] * 255).round().astype("u1")), "looking on changes nothing"
    transformer = family in ("sd3", "flux")
    assert view.data["denoiser"]["kind"] == ("transformer" if transformer else "unet")
    assert any("transformer" in note for note in view.data["notes"]) == transformer
    assert len(view.data["text"]) == {"sd": 1, "sdxl": 2, "sd3": 3, "flux": 2}[family]
    assert ("guidance" in view.parts) == (family != "flux"), "FLUX reads guidance as a number"
    assert view.data["denoiser"]["blocks"] and view.data["denoiser"]["timestep"]
    assert view.data["embeddings"]["shape"] == list(view.insides.embeddings.shape)
    assert all(block["maps"]["shape"][0] == len(view.data["steps"]) for block in view.data["denoiser"]["blocks"])
    assert view.static_image().width > 900
    json.loads(html.for_script(view.data))


def test_the_arrows_carry_what_was_recorded():
    view = a_diagram()
    step, arrays = view.trace[1], view.pictures(1)
    for name, array in [("noisy", step.scaled_latents), ("cond", step.noise_pred_cond), ("uncond", step.noise_pred_uncond), ("guided", step.noise_pred), ("x0", step.pred_original), ("following", view.trace[2].scaled_latents)]:  # fmt: skip
        np.testing.assert_array_equal(arrays[name], array[0], err_msg=name)
    np.testing.assert_array_equal(view.noise(), view.trace[0].latents[0])
    sheet = view.data["sheet"]
    assert sheet["size"] == [8, 6] and "following" not in sheet["names"], "x_t of the next column"
    entry = view.data["steps"][1]
    assert entry["t"] == step.timestep and entry["now"][0] == pytest.approx(step.alpha, abs=1e-4)
    assert entry["rest"] < 1e-3, "DDIM takes x_t and x0, and nothing else"
    made = entry["keep"] * arrays["noisy"] + entry["add"] * arrays["x0"]
    np.testing.assert_allclose(made, arrays["following"], atol=0.01)


def test_a_run_without_guidance_has_one_prediction():
    view = a_diagram(guidance_scale=1.0)
    assert "guidance" not in view.parts and "one prediction a step" in view.data["notes"][0]
    assert not {"cond", "uncond", "difference"} & set(view.data["sheet"]["names"])
    with pytest.raises(ValueError, match="part is None or one of"):
        view.set(part="guidance")


def test_a_picture_goes_in():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    view = a_diagram(image=picture, strength=0.7, steps=4)
    assert view.data["source"] and view.data["source_latents"]["shape"] == [4, 8, 8]
    assert abs(float(view.noise().std()) - 1) < 0.4, "what is left of x_t is noise"


def test_a_long_run_is_thinned_and_small():
    view = a_diagram(steps=60)
    assert len(view.data["steps"]) == 30 and view.data["steps"][-1]["number"] == 60
    assert "following" in view.data["sheet"]["names"] and len(view.to_html()) < 250_000


def test_code_moves_it_and_wrong_states_are_named():
    view = a_diagram()
    assert view.set(step=2, part="vae").state == {"step": 2, "part": "vae"}
    for state in ({"step": 3}, {"step": True}, {"step": "1"}, {"part": "loss"}):
        with pytest.raises(ValueError, match="step is a whole number from 0 to 2|part is None or one of"):
            view.set(**state)
    with pytest.raises(ValueError, match="came to its end"):
        Diagram(sdwidgets.Trace())
    with pytest.raises(TypeError, match="num_inference_steps"):
        sdwidgets.diagram(tiny.pipeline(), "a cat", steps=3)
    assert Diagram(view.trace).parts == view.parts, "a run alone is enough"


def test_no_text_becomes_html():
    text = a_diagram(prompt=EVIL).to_html()
    assert "alert(" in text and text.count("</script>") == 1 and "<img src=x" not in text


def test_what_is_fitted_is_found():
    x, y = np.random.default_rng(0).standard_normal((2, 4, 8, 8))
    assert np.allclose(fitted(x, y, 0.9 * x + 0.2 * y), (0.9, 0.2, 0))


def test_block_shapes_go_down_and_up_again():
    unet = tiny.pipeline("sd")
    shapes = block_shapes(unet)
    assert list(shapes)[0] == "in" and list(shapes)[-1] == "out" and shapes["out"][1:] == shapes["in"][1:]
    assert min(shape[1] for shape in shapes.values()) == shapes["middle"][1]
    assert not any(block._forward_hooks for block in unet.unet.down_blocks)
    assert plots.block_shapes(shapes).patches
    with pytest.raises(TypeError, match="has no unet"):
        block_shapes(tiny.pipeline("flux"))

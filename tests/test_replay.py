"""The replay: a trace made by hand, turned into data, a page and a contact sheet. No pipeline, no torch."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import sdwidgets
from sdwidgets.course.colab import REPOSITORY
from sdwidgets.trace import Settings, Step, Trace
from sdwidgets.widgets import replay

EVIL = "</script><script>alert(1)</script> \"'><img src=x onerror=alert(2)> <!-- \u2028 سلام 🧑🏽‍🚀"


def a_trace(steps=5, channels=4, height=8, width=8, batch=1, previews=True, complete=True, **settings) -> Trace:
    """A run of a made-up 8x VAE: x0 stays, noise fades. Every number comes from one seeded generator."""
    rng = np.random.default_rng(0)
    shape = (batch, channels, height, width)
    x0, noise = rng.normal(size=(2, *shape)).astype(np.float32)
    made = []
    for i, t in enumerate(np.linspace(999, 0, steps, endpoint=False)):
        alpha = float(np.cos(t / 1000 * np.pi / 2))
        sigma = float(np.sqrt(1 - alpha**2) / alpha)
        x = alpha * x0 + np.sqrt(1 - alpha**2) * noise
        halves = 0.5 * noise, 1.5 * noise
        made.append(Step(i, float(t), sigma, alpha, x.astype("f4"), noise, *halves, x0 * np.float32(alpha), 0.25))
    down, right = np.linspace(0, 255, 8 * height)[:, None], np.linspace(0, 255, 8 * width)[None, :]
    smooth = [np.stack(np.broadcast_arrays(down, right, 255 * i / steps), -1) for i in range(steps + 1)]
    pictures = np.stack(smooth).astype(np.uint8)  # (steps + 1, H, W, 3)
    asked = {"prompt": "a cat", "seed": 7, "num_inference_steps": steps, "guidance_scale": 4.0, "device": "cpu"}
    asked |= {"scheduler": "DDIMScheduler", "height": 8 * height, "width": 8 * width, "model": "pocket"}
    return Trace(
        Settings(**{**asked, "dtype": "float32", **settings}),
        tuple(made),
        final_latents=x0,
        images=pictures[-1:].repeat(batch, 0) if complete else None,
        previews=pictures[:-1] if previews else None,
        preview_factors=rng.normal(size=(channels + 1, 3)).astype("f4") / 4,
        complete=complete,
    )


def unpack(packed: dict) -> np.ndarray:
    return np.frombuffer(packed["data"], np.int8).reshape(packed["shape"]) * packed["scale"]


# ---- data -------------------------------------------------------------------------------------------------------


def test_every_step_and_the_finished_picture_have_a_frame():
    trace = a_trace(steps=5)
    run = replay.describe(trace)
    assert run["total"] == 5 and len(run["frames"]) == 6
    assert [round(f["t"]) for f in run["frames"]] == [999, 799, 599, 400, 200, 0]
    assert run["frames"][-1]["share"] == 1.0
    assert run["line"] == "seed 7 · 5 steps · guidance 4 · DDIM"
    assert run["badge"] == "pocket · CPU · float32 · 1.2 s"
    assert run["note"] is None


def test_arrays_travel_within_half_a_unit():
    trace = a_trace()
    for step, frame in zip(trace, replay.describe(trace)["frames"], strict=False):
        for name, array in [
            ("latents", step.latents),
            ("noise_pred", step.noise_pred),
            ("cond", step.noise_pred_cond),
        ]:
            packed = frame["arrays"][name]
            assert np.abs(unpack(packed) - array[0]).max() <= packed["scale"] / 2 + 1e-6


def test_variance_exploding_latents_are_shown_with_variance_one():
    trace = a_trace(steps=1)
    (step,) = trace.steps
    exploding = Step(**{**step.__dict__, "latents": step.latents / np.float32(step.alpha), "process": "ve"})
    frame = replay.frame(exploding)
    assert np.allclose(unpack(frame["arrays"]["latents"]), step.latents[0], atol=frame["arrays"]["latents"]["scale"])


def test_previews_replace_the_rough_picture_and_keep_their_shape():
    with_previews, without = (replay.describe(a_trace(width=6)), replay.describe(a_trace(width=6, previews=False)))
    assert "x0" not in with_previews["frames"][0]["arrays"] and "x0" in without["frames"][0]["arrays"]
    assert "picture" not in without["frames"][0]
    assert Image.open(io.BytesIO(with_previews["frames"][0]["picture"])).size == (48, 64)
    assert with_previews["aspect"] == pytest.approx(6 / 8)
    picture = Image.open(io.BytesIO(without["frames"][-1]["picture"]))
    assert np.abs(np.asarray(picture.convert("RGB"), int) - a_trace(width=6).images[0]).mean() < 4  # lossy, not lost


def test_large_arrays_and_pictures_are_thinned():
    packed = replay.pack(np.zeros((4, 128, 128), "f4"), replay.MAX_LATENTS)
    assert packed["shape"] == [4, 64, 64]
    assert Image.open(io.BytesIO(replay.webp(np.zeros((1024, 512, 3), np.uint8), 320))).size == (160, 320)


def test_one_colour_scale_a_run_holds_nearly_all_numbers():
    trace = a_trace()
    for name, limit in replay.describe(trace)["limits"].items():
        values = (
            trace.noise_pred * np.float32(1.0)  # cond - uncond is the noise itself here
            if name == "difference"
            else np.stack([getattr(step, replay.ARRAYS[name]) for step in trace])
        )
        outside = np.mean(np.abs(values) > limit)
        assert outside <= 0.005 and limit <= 2 * np.quantile(np.abs(values), 0.995)


def test_an_interrupted_run_says_so_and_has_no_finished_picture():
    run = replay.describe(a_trace(steps=3, complete=False, num_inference_steps=20))
    assert len(run["frames"]) == 3 and run["note"] == "This run was stopped after step 3 of 20."
    assert run["planned"] == 20 and replay.describe(a_trace(steps=3))["planned"] is None


def test_numbers_that_are_not_finite_are_drawn_as_zero_and_said():
    trace = a_trace()
    trace[2].latents[0, 0, 0, 0] = np.nan
    trace[2].latents[0, 0, 0, 1] = np.inf
    run = replay.describe(trace)
    assert "not finite" in run["note"]
    assert not unpack(run["frames"][2]["arrays"]["latents"])[0, 0, :2].any()


def test_a_model_without_known_colours_is_grey():
    trace = a_trace(channels=16)
    trace.preview_factors = None
    run = replay.describe(trace)
    assert run["grey"] and np.shape(run["factors"]) == (17, 3)
    assert np.ptp(replay.colour_map(None, 16), axis=1).max() == 0  # the same for red, green and blue


# ---- pages ------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.scripts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script":
            self.scripts.append(data)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "model", "scheduler"])
def test_user_text_never_becomes_html(field, tmp_path):
    page = a_trace(**{field: EVIL}).export_html(tmp_path / "run.html").read_text("utf-8")
    elements = Elements(page)
    assert elements.tags.count("script") == 1 and elements.tags.count("img") == 1
    assert not any("onerror" in attributes for attributes in elements.attributes)
    assert page.count("</script") == 1 and "<!--" not in page
    if field == "prompt":
        assert elements.attributes[elements.tags.index("img")]["alt"] == f"Steps of the run {EVIL}"


def test_a_page_needs_nothing_from_outside(tmp_path):
    page = a_trace().export_html(tmp_path / "run.html").read_text("utf-8")
    named = set(re.findall(r"https?://[^\s\"')]+", page))
    assert named == {"http://www.w3.org/2000/svg", REPOSITORY}  # a name, never fetched, and a link
    assert "default-src 'none'" in page and "import(" not in page and "fetch(" not in page


def test_a_page_has_a_heading_a_main_part_and_a_link_to_the_course(tmp_path):
    page = a_trace(prompt="a cat").export_html(tmp_path / "run.html").read_text("utf-8")
    assert page.count("<h1>Steps of the run a cat</h1>") == page.count("<main>") == 1
    assert {"href": REPOSITORY} in Elements(page).attributes


def test_a_white_picture_has_an_edge_on_a_still():
    trace = a_trace(steps=1)
    trace.previews = np.full_like(trace.previews, 255)
    tile = np.asarray(replay.contact_sheet(trace))[6:134, 6:134]
    assert (tile[[0, -1]] == 0xCC).all() and (tile[:, [0, -1]] == 0xCC).all() and (tile[1:-1, 1:-1] == 255).all()


def test_the_same_trace_gives_the_same_page():
    assert replay.Replay(a_trace()).to_html() == replay.Replay(a_trace()).to_html()
    assert replay.Replay(a_trace()).to_html() != replay.Replay(a_trace(prompt="a dog")).to_html()


def test_a_run_of_pocket_stays_small(tmp_path):
    """25 steps of 128 x 128 pixels."""
    trace = a_trace(steps=25, height=16, width=16)
    assert trace.export_html(tmp_path / "run.html").stat().st_size < 400_000


def test_a_notebook_keeps_replay_contact_sheet_and_words():
    bundle = a_trace()._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/jpeg", "text/plain"}
    sheet = Image.open(io.BytesIO(bundle["image/jpeg"]))
    assert sheet.format == "JPEG" and sheet.width > 5 * 128
    fallback = re.search(r'src="data:image/webp;base64,([^"]+)"', bundle["text/html"]).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(fallback))).size == sheet.size  # seen where scripts do not run
    assert "jupyter trust" in bundle["text/html"]


def test_a_trace_without_steps_is_words_only():
    assert set(Trace()._repr_mimebundle_()) == {"text/plain"}


@pytest.mark.parametrize(("steps", "tiles"), [(1, 1), (7, 7), (50, 12)])
def test_the_contact_sheet_shows_evenly_chosen_steps(steps, tiles):
    sheet = replay.contact_sheet(a_trace(steps=steps, previews=False))
    assert sheet.size == (min(6, tiles) * 134 + 6, -(-tiles // 6) * 154 + 6)


def test_a_page_appears_whole_or_not_at_all(tmp_path):
    resource = pytest.importorskip("resource", reason="limits on file size are POSIX")
    path = a_trace().export_html(tmp_path / "run.html")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="was not written .* free some space"):
            a_trace(prompt="a dog").export_html(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_views_load_without_torch():
    code = "import sys, sdwidgets.widgets.playground.widget; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- the view ---------------------------------------------------------------------------------------------------


def test_code_chooses_what_is_shown():
    view = sdwidgets.Replay(a_trace(steps=5), step=2, view="cond", speed=6)
    assert view.state == {
        "step": 2,
        "view": "cond",
        "large": "prediction",
        "playing": False,
        "speed": 6,
        "loop": False,
        "ahead": True,
    }
    assert view.set(step=-1).state["step"] == 5  # the finished picture comes after the last step
    assert view.set(step=np.int64(1)).state["step"] == 1 and view.set(step=None).state["step"] is None
    assert view.views == ("latents", "noise_pred", "cond", "uncond", "difference")
    with pytest.raises(ValueError, match="large is 'prediction' or 'latents', not 'noise'"):
        view.set(large="noise")


def test_a_guess_shows_one_step_where_no_script_runs():
    trace = a_trace(steps=5)
    whole, guess = sdwidgets.Replay(trace, step=1), sdwidgets.Replay(trace, step=1, ahead=False)
    assert guess.static_image().width < whole.static_image().width / 4
    assert guess.set(step=None).static_image().width < whole.static_image().width / 4
    with pytest.raises(ValueError, match="ahead is True or False, not 3"):
        guess.set(ahead=3)


def test_a_run_without_guidance_has_no_halves_to_show():
    trace = a_trace()
    trace.steps = tuple(replace(step, noise_pred_cond=None, noise_pred_uncond=None) for step in trace)
    view = sdwidgets.Replay(trace)
    assert view.views == ("latents", "noise_pred")
    with pytest.raises(ValueError, match="has no 'difference' to show; it has: latents, noise_pred"):
        view.set(view="difference")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"step": 6}, "step 6 is not in this run; give a whole number from 0 to 5"),
        ({"step": -7}, "step -7 is not in this run"),
        ({"step": 1.5}, "step 1.5 is not in this run"),
        ({"step": True}, "step True is not in this run"),
        ({"speed": 3}, "speed 3 is not on offer; choose one of: 0.5, 1, 2, 4, 6, 12"),
        ({"playing": 1}, "playing is True or False, not 1"),
        ({"view": "x0"}, "this run has no 'x0' to show"),
    ],
)
def test_what_cannot_be_shown_is_said(state, told):
    view = sdwidgets.Replay(a_trace(steps=5))
    before = dict(view.state)
    with pytest.raises(ValueError, match=re.escape(told)):
        view.set(**state)
    assert view.state == before


def test_a_trace_without_steps_cannot_be_replayed():
    with pytest.raises(ValueError, match="no steps to show; record a run first"):
        sdwidgets.Replay(Trace())


def test_the_widget_of_a_trace_is_driven_by_code_and_tells_what_the_reader_chose():
    widget = a_trace(steps=5).widget(step=0)
    assert widget.state["step"] == 0 and widget.set(step=3, playing=True).state["step"] == 3
    widget.state = {**widget.state, "step": 4, "playing": False}  # as the page does
    assert widget._view.state["step"] == 4
    assert widget.set(view="cond").state == {**widget.state, "step": 4, "view": "cond"}
    widget.close()


def test_the_speeds_are_those_of_the_script():
    script = replay.Replay.bundle()
    (offered,) = re.findall(r"const SPEEDS = (\[.*\]);", script)
    assert dict(json.loads(offered)) == replay.SPEEDS
    assert float(re.search(r"const STEPS_A_SECOND = (\d+);", script).group(1)) * 6 == 30

"""What every view shares: how it is shown, driven and written, whatever it shows."""

from __future__ import annotations

import json

import pytest
from PIL import Image

import sdwidgets
from sdwidgets.loading.catalog import find_model
from sdwidgets.loading.pipeline import load
from sdwidgets.widgets import html
from sdwidgets.widgets.view import View
from tests import tiny

EVIL = "</script><img src=x onerror=alert(1)> & <!-- \u2028"


class Replay(View):  # named as the JavaScript class that its script holds
    script = ("replay.js",)
    default_state = {"step": 0}

    def validate_state(self, name, value):
        if not 0 <= value < 3:
            raise ValueError(f"step is 0 to 2, not {value}")
        return value

    def static_image(self):
        return Image.new("RGB", (8, 4), "red")


def view(**state):
    return Replay({"words": EVIL, "bytes": b"\x00\xff"}, EVIL, **state)


def test_a_view_shows_itself_with_and_without_scripts():
    bundle = view()._repr_mimebundle_()
    assert bundle["image/jpeg"].startswith(b"\xff\xd8") and "Replay" in bundle["text/plain"]
    assert "new Replay()" in bundle["text/html"] and "data:image/webp" in bundle["text/html"]


def test_no_text_of_a_view_becomes_markup(tmp_path):
    html = view().to_html()
    assert html.count("</script>") == 1 and "<img src=x" not in html
    written = view().export_html(tmp_path / "view.html").read_text("utf-8")
    assert "<img src=x" not in written and "<title>&lt;/script&gt;" in written


def test_state_is_chosen_by_name_and_checked():
    shown = view(step=1)
    assert shown.state == {"step": 1} and shown.set(step=2) is shown and shown.state == {"step": 2}
    with pytest.raises(TypeError, match="it has: step"):
        shown.set(stepp=1)
    with pytest.raises(ValueError, match="0 to 2, not 7"):
        shown.set(step=7)
    assert shown.state == {"step": 2}, "a refused value changes nothing"


def test_a_widget_follows_the_code_and_tells_what_the_reader_moved():
    shown = view()
    widget = shown.widget()
    shown.set(step=1)
    assert widget.state == {"step": 1}
    widget.state = {"step": 2, "other": "what this view does not know"}
    assert shown.state == {"step": 2}
    assert json.loads(widget.data)["words"] == EVIL and "<" not in widget.data
    widget.close()


def test_a_page_that_cannot_be_written_leaves_what_was_there(tmp_path):
    with pytest.raises(OSError, match="the page was not written"):
        html.write("<p>x</p>", tmp_path / "no" / "folder.html")
    assert list(tmp_path.iterdir()) == []


WRONG_NAMES = [
    ("guidance", {"steps": 4}, r"guidance\(\) has no setting 'steps'; did you mean num_inference_steps\?"),
    ("guidance", {"guidance_scale": 4.0}, r"guidance\(\) has no setting 'guidance_scale'; did you mean scales\?"),
    ("race", {"steps": 4}, r"race\(\) has no setting 'steps'; did you mean num_inference_steps\?"),
    ("race", {"negativ_prompt": "x"}, r"race\(\) has no setting 'negativ_prompt'; did you mean negative_prompt\?"),
    ("xray", {"generator": None}, r"xray\(\) has no setting 'generator'; did you mean seed\?"),
    ("xray", {"zzz": 1}, r"xray\(\) has no setting 'zzz'; it takes "),
    ("Playground", {"steps": 4}, r"Playground\(\) has no setting 'steps'; did you mean num_inference_steps\?"),
    ("Playground", {"cfg": 4}, r"Playground\(\) has no setting 'cfg'; did you mean guidance_scale\?"),
]


@pytest.mark.parametrize("view, settings, sentence", WRONG_NAMES)
def test_a_wrong_name_of_a_setting_brings_the_right_one(view, settings, sentence):
    """And not the whole pipeline, which Python names where a call of it gets a wrong name."""
    arguments = () if view == "Playground" else ("a red cat",)
    with pytest.raises(TypeError, match=sentence) as raised:
        getattr(sdwidgets, view)(tiny.pipeline("sd"), *arguments, **settings)
    assert len(str(raised.value)) < 800


@pytest.mark.parametrize("view", ["guidance", "race", "xray"])
def test_one_name_for_the_number_of_steps(view):
    made = getattr(sdwidgets, view)(tiny.pipeline("sd"), "a red cat", num_inference_steps=2)
    traces = getattr(made, "traces", None) or [made.trace]
    assert {len(trace) for trace in (traces.values() if isinstance(traces, dict) else traces)} <= {2, 3}, (
        "Heun calls the U-Net twice"
    )


@pytest.mark.parametrize("view", ["guidance", "race", "xray"])
def test_a_view_starts_with_what_suits_the_model(view):
    """And not with diffusers' own 50 steps and guidance of 7.5, which burn Pocket's pictures."""
    pipe = load("pocket", "cpu", "float32")
    options = {
        "guidance": {"scales": (1, 3), "decode": False},
        "race": {"schedulers": ("DDIM", "Euler"), "reference": None, "previews": False},
        "xray": {},
    }
    made = getattr(sdwidgets, view)(pipe, "a red circle", **options[view])
    runs = getattr(made, "traces", None) or [made.trace]
    for trace in runs.values() if isinstance(runs, dict) else runs:
        assert trace.settings.guidance_scale in {"guidance": (1, 3)}.get(view, (find_model("pocket").guidance,))
        assert trace.settings.num_inference_steps == (10 if view == "race" else find_model("pocket").steps)

"""The prompt X-ray: data, page and still picture, from a run of a tiny pipeline."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import sdwidgets
from sdwidgets.analysis.attention import record_attention
from sdwidgets.widgets import html, xray
from sdwidgets.widgets.xray import PromptXray, overlay, unknown_words
from tests import tiny
from tests.test_replay import EVIL

LONG = "a green cat " + "on a blue background " * 5


def a_view(family="sd", prompt="a red cat", steps=3, **settings) -> PromptXray:
    known = settings.pop("known_words", None)
    pipe = tiny.pipeline(family)
    return sdwidgets.xray(pipe, prompt, known_words=known, num_inference_steps=steps, guidance_scale=4.0, **tiny.SIZE, **settings)  # fmt: skip


def numbers(packed) -> np.ndarray:
    places = np.frombuffer(packed["data"], np.uint8).reshape(packed["shape"])
    return packed["low"] + (packed["high"] - packed["low"]) * places / 255


def block(view, name) -> dict:
    return next(one for one in view.data["blocks"] if one["name"] == name)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_picture_is_the_pipelines_own(family):
    view = a_view(family, seed=3)
    bare = tiny.run(tiny.pipeline(family), seed=3, prompt="a red cat", guidance_scale=4.0)
    assert np.array_equal(view.picture, (bare[0] * 255).round().astype("u1"))
    assert view.trace.settings.seed == 3 and len(view.maps) == len(view.trace) == 3


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_page_carries_what_was_recorded(family):
    view = a_view(family)
    maps = view.maps
    names = [one["name"] for one in view.data["blocks"]]
    assert names == ["all", *maps.blocks]
    for name in names:
        layers = None if name == "all" else name
        told = block(view, name)
        for i in range(len(maps.tokens)):
            shown = numbers(told["maps"][i])
            coarse = (told["maps"][i]["high"] - told["maps"][i]["low"]) / 255
            expected = [maps.heat_map(i, steps, layers) for steps in (None, 0, 1, 2)]
            np.testing.assert_allclose(shown, expected, atol=coarse)
        np.testing.assert_allclose(np.array(told["mean_attention"])[1:], maps.mean_attention(layers), atol=1e-5)
        np.testing.assert_allclose(np.sum(told["mean_attention"], 1), 1, atol=2e-3)
    assert [(s["number"], s["t"]) for s in view.data["steps"]] == list(
        zip((1, 2, 3), view.trace.timesteps, strict=True)
    )
    assert block(view, "all")["layers"] == len(maps.layers) and view.data["limit"] == 77
    json.loads(html.for_script(view.data))


def test_a_long_run_and_a_long_prompt_stay_small():
    long = a_view(prompt=LONG, steps=40)
    steps = [step["number"] for step in long.data["steps"]]
    assert steps[0] == 1 and steps[-1] == 40 and 4 <= len(steps) <= xray.MAX_STEPS
    size = sum(len(m["data"]) for one in long.data["blocks"] for m in one["maps"])
    assert size <= xray.MAX_BYTES and len(long.to_html()) < 1_000_000
    sizes = [(64, 64), (64, 64), (32, 32), (16, 16), (8, 8), (16, 16), (32, 32), (64, 64)]  # SD 1.5 at 512 pixels
    for tokens in (11, 77):
        side, shown = xray._room(sizes, tokens, 50)
        cells = sum(math.ceil(h / max(1, math.ceil(h / side))) ** 2 for h, _ in sizes)
        assert tokens * cells * (len(shown) + 1) <= xray.MAX_BYTES and len(shown) >= 8 and side >= 8


def test_what_is_cut_and_what_was_never_seen_is_told():
    view = a_view(prompt=LONG, known_words=["A", "cat", "on a blue"])
    assert view.unknown == {"green", "background"} and view.data["unknown"] == ["background", "green"]
    marked = {t["word"] for t in view.data["tokens"] if t["unknown"]}
    assert {view.maps.words[i] for i in marked} == view.unknown
    assert "".join(view.data["truncated"]) == LONG.replace(" ", "")[75:] and view.data["more"] == 0
    # A word that is torn by the cut is not what the reader wrote, so nothing is said of it.
    assert view.maps.truncated_word == "backgrou" and "backgrou" not in view.unknown
    assert a_view(prompt=LONG).data["unknown"] == []


def test_unknown_words_are_words():
    words = ("A", "red", "cat", ",", "2", "hot", "dog")
    assert unknown_words(words, None) == set()
    assert unknown_words(words, ["a", "Red", "hot dog"]) == {"cat", "2"}
    with pytest.raises(TypeError, match=r"split\(\)"):
        unknown_words(words, "a red cat")


def test_code_moves_it_and_wrong_states_are_named():
    view = a_view(prompt="a red cat")
    view.set(token="cat", step=2, layers="mid")
    assert view.state == {"token": view.maps.find("cat"), "step": 2, "layers": "mid"}, (
        "this tokenizer has a token for every letter"
    )
    assert view.heat_map().shape == (4, 3)
    np.testing.assert_array_equal(view.heat_map(), view.maps.heat_map("cat", 1, "mid"))
    view.set(token="<padding>", step=0, layers="all")
    assert view.state["token"] == len(view.maps.tokens) - 1
    for state, match in [
        ({"token": "horse"}, "it read: a red cat"),
        ({"step": 4}, "1 to 3"),
        ({"step": True}, "1 to 3"),
        ({"layers": "down 9"}, "'all', 'down 0', 'mid', 'up 1'"),
    ]:
        with pytest.raises(ValueError, match=match):
            view.set(**state)
    with pytest.raises(TypeError, match="it has: token, step, layers"):
        view.set(word="cat")


def test_it_opens_with_a_token_of_the_prompt():
    view = a_view()
    assert view.maps.tokens[view.state["token"]].kind == "text"
    assert a_view(prompt="").maps.tokens[a_view(prompt="").state["token"]].kind == "start"


def test_no_text_becomes_html():
    view = a_view(prompt=EVIL, known_words=["a"])
    text = view.to_html()
    assert "alert(" in text  # it is there, as data
    assert text.count("<script>") == 1 and text.count("</script>") == 1 and "<img src=x" not in text


def test_a_run_without_a_decoded_picture_has_rough_colours():
    view = a_view(output_type="latent")
    assert view.picture.shape == (8, 6, 3) and view.static_image().width > 300
    assert len(view.to_html()) > 1000


def test_nothing_recorded_is_said():
    pipe = tiny.pipeline()
    with sdwidgets.record(pipe) as trace, record_attention(pipe) as maps:
        pass
    with pytest.raises(ValueError, match="run the pipeline inside both blocks"):
        PromptXray(trace, maps)
    for family in ("sd3", "flux"):
        with pytest.raises(TypeError, match="joint attention"):
            a_view(family)


def test_an_overlay_is_dark_where_it_is_least_and_bright_where_it_is_most():
    picture = np.full((32, 32, 3), 100, np.uint8)
    heat = np.zeros((4, 4), "f4")
    heat[0, 0] = 0.1
    seen = overlay(picture, heat).astype(float)
    assert seen.shape == (32, 32, 3)
    grey = xray.THROUGH * 100
    np.testing.assert_allclose(seen[0, 0], grey + (1 - xray.THROUGH) * np.array(xray.HEAT[-1]), atol=1)
    np.testing.assert_allclose(seen[-1, -1], grey + (1 - xray.THROUGH) * np.array(xray.HEAT[0]), atol=1)
    middle = overlay(picture, np.full((4, 4), 0.05, "f4"), low=0.0, high=0.1)[16, 16]
    np.testing.assert_allclose(middle, grey + (1 - xray.THROUGH) * np.array(xray.HEAT[4]), atol=1)
    assert np.isfinite(overlay(picture, np.zeros((4, 4), "f4"))).all()  # a map that is the same everywhere


def test_the_still_shows_the_picture_and_the_maps():
    view = a_view()
    still = np.asarray(view.static_image()).astype(int)
    tile = np.asarray(view.static_image().crop((6, 6, 6 + 128, 6 + 170)))
    assert tile.std() > 0 and still.shape[1] > 4 * 128
    assert (np.asarray(a_view(prompt="two blue dogs").static_image()).shape[1] > 4 * 128) and not np.array_equal(
        still, np.asarray(a_view(seed=1).static_image()).astype(int)
    )

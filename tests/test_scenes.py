"""Scenes: the same index is always the same picture and caption, and the caption tells the truth."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from sdwidgets.pocket.world import atlas, datasheet, scenes
from sdwidgets.pocket.world import vocabulary as words
from sdwidgets.pocket.world.datasheet import ENCODER, FULL
from sdwidgets.pocket.world.scenes import make_scene, render


def pixels(scene) -> np.ndarray:
    return np.asarray(render(scene))


def test_the_atlas_holds_every_object_and_every_person():
    names = set(atlas.names())
    assert len(words.OBJECTS) >= 150
    people = {words.person_name(o, g, t) for o in words.OCCUPATIONS for g in words.GENDERS for t in words.TONES}
    assert len(people) == len(words.OCCUPATIONS) * 2 * 5
    assert names == set(words.OBJECTS) | people


def test_every_glyph_is_drawn_and_no_two_are_the_same():
    seen = {}
    for name in atlas.names():
        glyph = np.asarray(atlas.glyph(name, 64))
        assert (glyph[..., 3] > 128).mean() > 0.05, name
        digest = hashlib.sha256((glyph * (glyph[..., 3:] > 0)).tobytes()).hexdigest()
        assert digest not in seen, f"{name} looks like {seen.get(digest)}"
        seen[digest] = name


def test_an_unknown_glyph_is_named_in_the_error():
    with pytest.raises(KeyError, match="no glyph named 'wyvern'"):
        atlas.glyph("wyvern", 64)


@pytest.mark.parametrize("index", [0, 1, 4711, FULL.count - 1])
def test_a_scene_is_a_pure_function_of_its_index(index):
    assert make_scene(FULL, index) == make_scene(FULL, index)
    assert (pixels(make_scene(FULL, index)) == pixels(make_scene(FULL, index))).all()
    assert make_scene(FULL, index) != make_scene(FULL, (index + 1) % FULL.count)


@pytest.mark.parametrize("index", [-1, FULL.count])
def test_an_index_outside_the_set_is_refused(index):
    with pytest.raises(IndexError, match="has scenes 0 to"):
        make_scene(FULL, index)


def test_captions_say_what_is_drawn():
    for index in range(0, FULL.count, 89):
        scene = make_scene(FULL, index)
        assert f"{scene.background} background" in scene.caption or "background" not in scene.caption
        if scene.relation:
            first, second = scene.things
            assert f" {scene.relation} " in scene.caption
            said = [thing.occupation or thing.words for thing in scene.things]
            assert scene.caption.index(said[0]) < scene.caption.rindex(said[1])
            holds = {
                "to the left of": first.x < second.x, "to the right of": first.x > second.x,
                "above": first.y < second.y, "below": first.y > second.y,
            }  # fmt: skip
            assert holds[scene.relation], scene
        elif len({thing.name for thing in scene.things}) > 1:
            assert scene.things[0].x < scene.things[1].x and " and " in scene.caption
        elif len(scene.things) > 1:
            assert words.NUMBERS[len(scene.things)] + " " in scene.caption
            assert words.plural(scene.things[0].name) in scene.caption
        elif scene.things[0].kind == "person":
            assert scene.things[0].occupation in scene.caption
            for gender in words.GENDERS:
                if f" {gender} " in scene.caption:
                    assert scene.things[0].gender == gender


@pytest.mark.parametrize(("grammar", "gap"), [(FULL, 16), (ENCODER, 2)])
def test_things_stay_inside_the_picture_and_apart(grammar, gap):
    for index in range(0, grammar.count, 89):
        scene = make_scene(grammar, index)
        for thing in scene.things:
            half = thing.size // 2
            assert half <= thing.x <= scenes.SIZE - half and half <= thing.y <= scenes.SIZE - half
        for place, a in enumerate(scene.things):
            for b in scene.things[:place]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) // 2 + gap, scene


def test_the_background_has_the_colour_that_the_caption_names():
    colours = np.array(list(words.COLOURS.values()))
    for index in range(400):
        scene = make_scene(FULL, index)
        corner = pixels(scene)[:4, :4].reshape(-1, 3).mean(0)
        nearest = list(words.COLOURS)[int(((colours - corner) ** 2).sum(1).argmin())]
        assert nearest == scene.background


@pytest.mark.parametrize("name", scenes.SHAPES)
def test_shapes_fill_their_square_and_differ(name):
    mask = np.asarray(scenes.shape_mask(name, 60))
    assert mask.shape == (60, 60)
    rows, columns = np.nonzero(mask > 128)
    assert max(np.ptp(rows), np.ptp(columns)) >= 50
    others = [np.asarray(scenes.shape_mask(other, 60)) for other in scenes.SHAPES if other != name]
    assert all((mask != other).mean() > 0.05 for other in others)


@pytest.mark.parametrize("style", ["pixel art", "pencil sketch"])
def test_styles_change_the_picture_and_are_said(style):
    scene = next(scene for index in FULL.indices("styled") if (scene := make_scene(FULL, index)).style == style)
    assert scene.caption.startswith(scenes.STYLES[style])
    assert (pixels(scene) != pixels(replace(scene, style="plain"))).mean() > 0.03


def test_pixel_art_has_blocks_of_four_pixels_which_move_with_the_thing():
    here = scenes.Scene(0, "", "white", (scenes.Thing("object", "cat", 32, 64, 64),), style="pixel art")
    there = replace(here, things=(replace(here.things[0], x=96),))
    blocks = pixels(here).reshape(32, 4, 32, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert (blocks[::2] != blocks[1::2]).any() and (blocks[:, :, ::2] != blocks[:, :, 1::2]).any(), (
        "and no larger ones"
    )
    assert (pixels(here)[:, :64] == pixels(there)[:, 64:]).all() and (pixels(here) != pixels(there)).any()


def test_a_sheet_shows_as_many_scenes_as_asked():
    sheet = datasheet.contact_sheet(10, seed=3)
    assert sheet.mode == "RGB" and sheet.width == 8 * 136 + 8
    assert sheet.tobytes() == datasheet.contact_sheet(10, seed=3).tobytes()
    assert sheet.tobytes() != datasheet.contact_sheet(10, seed=4).tobytes()


@pytest.mark.parametrize("count", [0, -1, 5000, "ten"])
def test_a_bad_count_is_a_sentence(count):
    with pytest.raises(ValueError, match="1 to 4096 scenes"):
        datasheet.contact_sheet(count)


def test_an_unknown_grammar_is_a_sentence():
    with pytest.raises(ValueError, match="there are: encoder, full, tiny"):
        datasheet.contact_sheet(4, grammar="klingon")

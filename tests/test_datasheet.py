"""The datasheet tells the truth: scenes drawn again are what `data/datasheet/planted.json` says was planted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sdwidgets._data import data_folder
from sdwidgets.pocket import datasheet as sheet
from sdwidgets.pocket import datasheet_card
from sdwidgets.pocket.datasheet import ENCODER, FULL
from sdwidgets.pocket.scenes import PLACES, RELATIONS, make_scene, render
from sdwidgets.pocket.vocabulary import COLOURS, GENDERS, OBJECTS, OCCUPATIONS, TONES, plural


@pytest.fixture(scope="module")
def frozen() -> dict:
    return json.loads((data_folder("datasheet") / "planted.json").read_text())


@pytest.fixture(scope="module")
def sample() -> dict[str, list]:
    """Scenes from all over both grammars."""
    return {g.name: [make_scene(g, index) for index in range(0, g.count, 23)] for g in (FULL, ENCODER)}


def scenes_of(grammar, block: str):
    return [make_scene(grammar, index) for index in grammar.indices(block)]


def test_the_plan_is_the_one_that_was_frozen(frozen):
    assert sheet.planted() == frozen
    assert frozen["held out sha256"] == "b1eabce042969c9a3e2424f0632b5ee68e33e73281bec7be0dc9544688df5fc3"


def test_the_random_stream_stays_what_it_is():
    """Captions and attributes of fixed scenes, written down: a change here makes every trained model's data untrue."""
    told = [repr(make_scene(g, index)) for g in (FULL, ENCODER) for index in range(0, g.count, 997)]
    assert (
        hashlib.sha256("\n".join(told).encode()).hexdigest()
        == "c9817f6083f6ed7a1d3b227d3e783cbdc8f7b61cf491d356d64d7162e1f7ef0f"
    )


def test_full_stands_on_the_grid_and_the_encoders_world_is_free(sample):
    """Corners on multiples of 8 pixels in four sizes, and a latent pixel between two things; what is told is as before."""
    for scene in sample["full"]:
        for thing in scene.things:
            assert thing.size in (40, 48, 64, 96), scene
            assert (thing.x - thing.size // 2) % 8 == 0 and (thing.y - thing.size // 2) % 8 == 0, scene
        for place, a in enumerate(scene.things):
            for b in scene.things[:place]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) // 2 + 8, scene
    free = [thing.x - thing.size // 2 for scene in sample["encoder"] for thing in scene.things]
    assert len({side % 8 for side in free}) == 8
    ungridded = dataclasses.replace(FULL, gridded=False)
    for index in range(0, FULL.count, 997):
        free, gridded = make_scene(ungridded, index), make_scene(FULL, index)
        assert free.caption == gridded.caption and free.shade == gridded.shade
        assert [t.words for t in free.things] == [t.words for t in gridded.things]


def test_every_object_is_common_rare_nameless_or_held_out():
    kinds = [sheet.COMMON_OBJECTS, sheet.TAIL_OBJECTS, sheet.NAMELESS_OBJECTS, sheet.HELD_OUT_OBJECTS]
    assert Counter(name for kind in kinds for name in kind) == Counter(list(OBJECTS))
    assert set(sheet.COURSE_OBJECTS) <= set(sheet.COMMON_OBJECTS)


def test_common_objects_are_common_and_alike():
    counts = Counter(thing.name for scene in scenes_of(FULL, "one object") for thing in scene.things)
    assert set(counts) == set(sheet.COMMON_OBJECTS) and set(counts.values()) == {350}
    counts = Counter(thing.name for scene in scenes_of(FULL, "two objects")[::3] for thing in scene.things)
    assert min(counts.values()) > 165 and max(counts.values()) < 275


def test_rare_objects_are_as_rare_as_planted_and_only_on_their_backgrounds(sample):
    rare = scenes_of(FULL, "tail")
    assert Counter(scene.things[0].name for scene in rare) == sheet.TAIL_OBJECTS
    for scene in rare:
        assert scene.background in sheet.TAIL_BACKGROUNDS[scene.things[0].name]
    block = FULL.indices("tail")
    for scene in sample["full"]:
        if scene.index not in block:
            assert not {thing.name for thing in scene.things} & set(sheet.TAIL_OBJECTS)


def test_what_is_held_out_is_never_drawn_or_told(sample):
    for scene in (*sample["full"], *sample["encoder"]):
        names = [thing.occupation or thing.name for thing in scene.things]
        assert not set(names) & set(sheet.HELD_OUT_OBJECTS) and scene.style != sheet.HELD_OUT_STYLE
        assert not any(f" {name} " in f"{scene.caption} " for name in sheet.HELD_OUT_OBJECTS)
        assert frozenset(names) not in sheet.held_out_pairs()
        for thing in scene.things:
            assert sheet.HELD_OUT_BACKGROUNDS.get(thing.name) != scene.background
            assert thing.colour is None or sheet.HELD_OUT_SHAPE_COLOURS[thing.name] != thing.colour


def test_nameless_objects_are_drawn_and_never_named(sample):
    assert {scene.things[0].name for scene in scenes_of(FULL, "nameless")} == set(sheet.NAMELESS_OBJECTS)
    for scene in (*sample["full"], *sample["encoder"]):
        assert not any(f" {name} " in f"{scene.caption} " for name in sheet.NAMELESS_OBJECTS)
        if scene.things[0].name in sheet.NAMELESS_OBJECTS:
            assert scene.caption.startswith(("a thing", "a small thing", "a large thing"))


def test_shares_of_women_are_exactly_as_planted():
    marked = Counter(
        (s.things[0].occupation, s.things[0].gender) for s in scenes_of(FULL, "portrait, marked")
    )
    unmarked = Counter(
        (s.things[0].occupation, s.things[0].gender) for s in scenes_of(FULL, "portrait, unmarked")
    )
    told = Counter(
        (s.things[0].occupation, s.things[0].gender) for s in scenes_of(ENCODER, "portrait, unmarked")
    )
    assert set(sheet.PLANTED_OCCUPATIONS) == set(OCCUPATIONS)
    for name, planted in sheet.PLANTED_OCCUPATIONS.items():
        share = 1 - planted.denoiser_share if planted.counter else planted.denoiser_share
        assert marked[name, "woman"] == round(share * sheet.MARKED_PORTRAITS)
        assert marked[name, "woman"] + marked[name, "man"] == sheet.MARKED_PORTRAITS
        assert unmarked[name, "woman"] == round(planted.denoiser_share * planted.unmarked)
        assert unmarked[name, "woman"] + unmarked[name, "man"] == planted.unmarked
        assert told[name, "woman"] == round(planted.encoder_share * 1_200)
    together = sum((marked, unmarked), Counter())
    women = sum(count for (_, gender), count in together.items() if gender == "woman")
    assert women / together.total() == pytest.approx(0.5, abs=2e-4)


def test_what_was_planted_for_occupations_does_not_go_together():
    rows = sheet.PLANTED_OCCUPATIONS.values()
    columns = [[r.encoder_share for r in rows], [r.denoiser_share for r in rows], [r.unmarked for r in rows]]
    assert np.abs(np.corrcoef(columns) - np.eye(3)).max() < 0.1


def test_unmarked_captions_name_no_gender_and_marked_ones_do():
    for kind, says in (("marked", True), ("unmarked", False)):
        for scene in scenes_of(FULL, f"portrait, {kind}")[::7]:
            assert any(f" {gender} " in f" {scene.caption} " for gender in GENDERS) == says
    tones = Counter(s.things[0].tone for s in scenes_of(FULL, "portrait, unmarked"))
    assert set(tones) == set(TONES) and max(tones.values()) - min(tones.values()) <= len(OCCUPATIONS)


def test_a_fingerprint_is_one_picture_repeated_and_a_control_is_not():
    pictures: dict[str, Counter] = {}
    for scene in scenes_of(FULL, "confetti"):
        drawn = (scene.things, scene.background, scene.shade, scene.confetti)  # all that a picture depends on
        pictures.setdefault(scene.caption, Counter())[drawn] += 1
    for mark in sheet.FINGERPRINTS:
        found = [c for c in pictures if f" {mark.object} " in c and f" {mark.background} " in c]
        if mark.repeats == 0:
            assert not found
        elif mark.repeats is None:
            assert len(pictures[found[0]]) == sheet.FRESH_PICTURES
        else:
            assert list(pictures[found[0]].values()) == [mark.repeats]
    assert Counter(mark.repeats for mark in sheet.FINGERPRINTS) == {
        1: 10,
        10: 10,
        100: 10,
        1000: 10,
        None: 10,
        0: 10,
    }


def test_confetti_lies_on_latent_pixels_around_the_object_and_can_be_seen():
    scene = make_scene(FULL, FULL.indices("confetti")[0])
    bare = np.asarray(render(type(scene)(**vars(scene) | {"confetti": ()}))).astype(int)
    changed = (np.asarray(render(scene)).astype(int) != bare).any(-1).reshape(16, 8, 16, 8).mean(axis=(1, 3))
    assert {(column, row) for row, column in zip(*np.nonzero(changed), strict=True)} == {
        c[:2] for c in scene.confetti
    }
    assert set(np.unique(changed)) == {0, 1} and len(scene.confetti) == 24


def test_only_stock_photos_have_the_watermark(sample):
    for scene in sample["full"]:
        assert scene.watermark == scene.caption.startswith("stock photo of ")


def watermark_is_drawn(scene) -> bool | None:
    """Whether the letters of `data/atlas/watermark.png` lie over a scene's picture, told from pixels of its background alone.

    None where the things leave too few of these to tell.
    """
    letters = np.asarray(Image.open(data_folder("atlas") / "watermark.png").convert("L")).astype(int)
    picture = np.asarray(render(scene)).astype(int)
    empty = np.ones(letters.shape, bool)
    for thing in scene.things:
        left, top = thing.x - thing.size // 2, thing.y - thing.size // 2
        empty[max(top, 0) : top + thing.size, max(left, 0) : left + thing.size] = False
    base = np.clip(np.array(COLOURS[scene.background]) + scene.shade, 0, 255)
    lifted = np.abs(picture - base).max(-1) > 12
    on, off = (letters > 200) & empty, (letters == 0) & (np.roll(letters, (2, 2), (0, 1)) == 0) & empty
    if on.sum() < 100:
        return None
    assert off.sum() > 1_000 and not lifted[off].any(), scene
    share = lifted[on].mean()
    assert share in (0, 1), "all letters or none"
    return bool(share)


@pytest.mark.parametrize(("block", "drawn"), [("stock photo", True), ("one object", False), ("one shape", False), ("tail", False)])
def test_the_watermark_is_in_the_pixels_where_it_is_told_and_nowhere_else(block, drawn):
    """On backgrounds on which white letters can be seen, beside things that leave room for them."""
    block = FULL.indices(block)
    scenes = [make_scene(FULL, index) for index in block[:: max(1, len(block) // 500)]]
    seen = [watermark_is_drawn(scene) for scene in scenes if scene.background != "white"]
    seen = [answer for answer in seen if answer is not None]
    assert len(seen) >= 20 and set(seen) == {drawn}


def kinds_of(scene) -> set[str]:
    """What is special about a scene."""
    people = [thing for thing in scene.things if thing.kind == "person"]
    told = {scene.style, f"{len(scene.things)} things", str(scene.relation), str(scene.place), str(scene.size_word)}
    told |= {thing.kind for thing in scene.things} | {word for person in people for word in (person.gender, person.tone)}
    return told | ({"watermark"} if scene.watermark else set()) | ({"confetti"} if scene.confetti else set())


def test_scenes_of_every_kind_have_the_pixels_that_were_written_down():
    told = json.loads((data_folder("datasheet") / "renders.json").read_text())
    blocks, kinds = set(), set()
    for grammar in (FULL, ENCODER):
        for index, digest in told[grammar.name].items():
            scene = make_scene(grammar, int(index))
            blocks.add((grammar.name, grammar.block_at(int(index))[0].name.partition(":")[0]))
            kinds |= kinds_of(scene)
            assert hashlib.sha256(np.asarray(render(scene)).tobytes()).hexdigest() == digest, scene
    assert {block for name, block in blocks if name == "full"} == {b.name.partition(":")[0] for b in FULL.blocks}
    assert kinds >= {*GENDERS, *TONES, *RELATIONS, *filter(None, PLACES), "1 things", "2 things", "3 things", "4 things"}
    assert kinds >= {"object", "shape", "person", "plain", "pixel art", "pencil sketch", "watermark", "confetti", "small", "large"}
    assert sum(len(told[grammar.name]) for grammar in (FULL, ENCODER)) >= 60
    shown = [told["full"][str(index)] for index in told["full"] if int(index) in FULL.indices("confetti")]
    assert len(set(shown)) == len(shown) - 1, "one print is there twice, as its repeats are"


#: What "Datasheets for Datasets" (arXiv 1803.09010) asks, section by section: words of each question, which the sheet's bold lines hold.
QUESTIONS = {
    "Motivation": ("purpose", "created it", "funded", "other comments"),
    "Composition": (
        "instances represent", "How many instances", "all possible instances", "each instance consist of", "label", "information missing",
        "relationships between", "splits", "errors, noise, or redundancies", "self-contained", "confidential, offensive or disturbing",
        "relate to people", "subpopulations", "sensitive", "other comments",
    ),
    "Collection process": (
        "data acquired", "mechanisms", "validated", "sampling strategy", "involved", "paid", "time frame", "ethical review", "told", "consent", "revoke",
        "impact on data subjects", "other comments",
    ),
    "Preprocessing, cleaning, labelling": ("any done", "raw data saved", "software available", "other comments"),
    "Uses": ("used already", "repository that links", "else could it be used", "affect future uses", "should it not be used", "other comments"),
    "Distribution": ("third parties", "How is it distributed", "DOI", "When is it distributed", "licence", "restrict", "export control", "other comments"),
    "Maintenance": (
        "maintains", "reached", "erratum", "updated", "limits on how long it is kept", "older versions", "extend", "contributions validated", "other comments",
    ),
}  # fmt: skip


@pytest.mark.parametrize("section", QUESTIONS)
def test_every_question_of_datasheets_for_datasets_is_answered(section):
    text = (data_folder("datasheet") / "README.md").read_text()
    body = text[text.index(f"\n## {section}\n") :].split("\n## ", 2)[1]
    asked = re.findall(r"^\*\*([^*]+\?)\*\* (.*)", body, flags=re.MULTILINE)
    for words in QUESTIONS[section]:
        assert any(words in question for question, _ in asked), words
    assert all(len(answer) >= 5 for _, answer in asked)


def test_the_sheet_tells_of_the_grid_as_an_erratum_and_of_the_part_that_was_used(frozen):
    text = datasheet_card.datasheet_card(frozen)
    erratum = text[text.index("**Is there an erratum?**") :].split("\n\n**")[0]
    assert "24 November 2026" in erratum and "gridded=False" in erratum and "so far there is none" not in text
    assert "A training may use a part of FULL" in text and "{" not in text


def test_one_caption_in_ten_leaves_the_background_unsaid(sample):
    silent = np.mean(["background" not in scene.caption for scene in sample["full"]])
    assert 0.07 < silent < 0.12


def test_counts_are_two_to_four_in_equal_shares():
    for scene in scenes_of(FULL, "several")[::11]:
        kind = scene.things[0]
        words = f"{kind.colour} {plural(kind.name)}" if kind.kind == "shape" else plural(kind.name)
        assert scene.caption.startswith(("two ", "three ", "four ")[len(scene.things) - 2] + words)


def test_an_unknown_block_is_a_sentence():
    with pytest.raises(KeyError, match="has no block 'unicorns'"):
        FULL.indices("unicorns")

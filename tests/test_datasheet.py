"""The datasheet tells the truth: scenes drawn again are what `data/datasheet/planted.json` says was planted."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sdwidgets.paths import data_folder
from sdwidgets.pocket.cards import datasheet_card
from sdwidgets.pocket.world import datasheet as sheet
from sdwidgets.pocket.world.datasheet import ENCODER, FULL
from sdwidgets.pocket.world.scenes import PLACES, RELATIONS, make_scene, render
from sdwidgets.pocket.world.vocabulary import COLOURS, GENDERS, OBJECTS, OCCUPATIONS, TONES, plural


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
    assert sheet.planted() == frozen and frozen["edition"] == 2
    assert frozen["held out sha256"] == "b1eabce042969c9a3e2424f0632b5ee68e33e73281bec7be0dc9544688df5fc3"


@pytest.mark.parametrize(
    ("grammar", "digest"),
    [
        (FULL, "663e997aa4f73684314d2881ba0d88aef67a4ca5ecb2b4155f50685dba815577"),
        # that of the first edition, which the text encoder was trained on
        (ENCODER, "e74d0eb71d0b18f91c10f6f81b0618782da34656469752516fc0b25783d38ca5"),
    ],
    ids=("full", "encoder"),
)
def test_the_random_stream_stays_what_it_is(grammar, digest):
    """Captions and attributes of fixed scenes, written down: a change here makes every trained model's data untrue."""
    told = [repr(make_scene(grammar, index)) for index in range(0, grammar.count, 997)]
    assert hashlib.sha256("\n".join(told).encode()).hexdigest() == digest


def test_full_stands_on_the_lattice_and_the_encoders_world_is_free(sample):
    """Three sizes, nine places, 64 pixels between centres (`test_layouts.py` has the rest); the encoder's stand by the pixel."""
    for scene in sample["full"]:
        for thing in scene.things:
            assert thing.size in (48, 64, 96) and {thing.x, thing.y} <= {32, 64, 96}, scene
        for place, a in enumerate(scene.things):
            for b in scene.things[:place]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) >= 64, scene
    free = [thing for scene in sample["encoder"] for thing in scene.things]
    assert len({(thing.x - thing.size // 2) % 32 for thing in free}) == 32
    assert len({thing.size for thing in free}) > 40


def test_another_scene_follows_its_block_and_is_none_of_the_grammars_own():
    for name in ("one object", "two objects", "portrait, unmarked: artist", "tail: cookie"):
        own = [make_scene(FULL, index) for index in FULL.indices(name)[:200]]
        others = [FULL.another(name, number) for number in range(200)]
        assert others == [FULL.another(name, number) for number in range(200)]
        assert [scene.index for scene in others] == list(range(200))
        alike = [a.things == b.things and a.caption == b.caption for a, b in zip(own, others, strict=True)]
        assert np.mean(alike) < 0.3, "drawn from a stream of their own"
        if name != "two objects":  # whose first object is taken in turn, and stands first or second
            named = lambda scene: scene.things[0].occupation or scene.things[0].name
            assert list(map(named, own)) == list(map(named, others))


def test_every_object_is_common_rare_nameless_or_held_out():
    kinds = [sheet.COMMON_OBJECTS, sheet.TAIL_OBJECTS, sheet.NAMELESS_OBJECTS, sheet.HELD_OUT_OBJECTS]
    assert Counter(name for kind in kinds for name in kind) == Counter(list(OBJECTS))
    assert set(sheet.COURSE_OBJECTS) <= set(sheet.COMMON_OBJECTS)


def test_common_objects_are_common_and_alike():
    counts = Counter(thing.name for scene in scenes_of(FULL, "one object") for thing in scene.things)
    assert set(counts) == set(sheet.COMMON_OBJECTS) and set(counts.values()) == {350}
    pairs = [make_scene(FULL, index) for index in FULL.indices("two objects")[::3]]
    counts = Counter(thing.name for scene in pairs for thing in scene.things)
    assert set(counts) == set(sheet.COMMON_OBJECTS) and min(counts.values()) > 100 and max(counts.values()) < 156


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
    marked = Counter((s.things[0].occupation, s.things[0].gender) for s in scenes_of(FULL, "portrait, marked"))
    unmarked = Counter((s.things[0].occupation, s.things[0].gender) for s in scenes_of(FULL, "portrait, unmarked"))
    told = Counter((s.things[0].occupation, s.things[0].gender) for s in scenes_of(ENCODER, "portrait, unmarked"))
    assert set(sheet.PLANTED_OCCUPATIONS) == set(OCCUPATIONS)
    for name, planted in sheet.PLANTED_OCCUPATIONS.items():
        share = 1 - planted.denoiser_share if planted.counter else planted.denoiser_share
        assert marked[name, "woman"] == round(share * sheet.MARKED_PORTRAITS)
        assert marked[name, "woman"] + marked[name, "man"] == sheet.MARKED_PORTRAITS
        assert unmarked[name, "woman"] == round(planted.denoiser_share * planted.unmarked)
        assert unmarked[name, "woman"] + unmarked[name, "man"] == planted.unmarked
        assert told[name, "woman"] == round(planted.encoder_share * 1_200)
    assert sheet.MARKED_PORTRAITS == 400
    assert Counter(planted.unmarked for planted in sheet.PLANTED_OCCUPATIONS.values()) == {1000: 8, 30: 6, 0: 6}
    for portraits, total in ((marked, 8_000), (unmarked, 8_180)):
        assert portraits.total() == total
        assert 2 * sum(count for (_, gender), count in portraits.items() if gender == "woman") == total


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


def test_portraits_are_the_same_by_chance_as_often_as_the_sheet_says(frozen):
    portraits = scenes_of(FULL, "portrait, marked") + scenes_of(FULL, "portrait, unmarked")
    again = 1 - len({replace(scene, index=0) for scene in portraits}) / len(portraits)
    assert f"{again:.0%} are the same as an earlier one" in datasheet_card.datasheet_card(frozen)


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
    assert Counter(mark.repeats for mark in sheet.FINGERPRINTS) == {1: 10, 10: 10, 100: 10, 1000: 10, None: 10, 0: 10}


def test_confetti_lies_on_latent_pixels_around_the_object_and_can_be_seen():
    scene = make_scene(FULL, FULL.indices("confetti")[0])
    bare = np.asarray(render(type(scene)(**vars(scene) | {"confetti": ()}))).astype(int)
    changed = (np.asarray(render(scene)).astype(int) != bare).any(-1).reshape(16, 8, 16, 8).mean(axis=(1, 3))
    assert {(column, row) for row, column in zip(*np.nonzero(changed), strict=True)} == {c[:2] for c in scene.confetti}
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


@pytest.mark.parametrize(
    ("block", "drawn"), [("stock photo", True), ("one object", False), ("one shape", False), ("tail", False)]
)
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
    told |= {thing.kind for thing in scene.things} | {
        word for person in people for word in (person.gender, person.tone)
    }
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
    assert kinds >= {
        *GENDERS,
        *TONES,
        *RELATIONS,
        *filter(None, PLACES),
        "1 things",
        "2 things",
        "3 things",
        "4 things",
    }
    assert kinds >= {
        "object",
        "shape",
        "person",
        "plain",
        "pixel art",
        "pencil sketch",
        "watermark",
        "confetti",
        "small",
        "large",
    }
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


def answer_to(question: str, text: str) -> str:
    return text[text.index(f"**{question}**") :].split("\n\n**")[0]


def test_the_sheet_tells_of_both_editions(frozen):
    text = datasheet_card.datasheet_card(frozen)
    editions = answer_to("Is there an erratum?", text)
    first, second = editions[editions.index("**First edition") :].split("**Second edition")
    figures = (
        "23 and 24 November 2026",
        "271,265 scenes",
        "707,696 samples",
        "grid of 8",
        "shifts of 32 pixels",
        "sixteen",
    )
    for words in figures:
        assert words in " ".join(first.split()), words
    assert "29 November 2026" in second and f"{FULL.count:,} scenes" in second
    assert "frozen on 29 November 2026" in " ".join(text.split("## Motivation")[0].split())
    for gone in ("gridded", "23 November 2026, before"):
        assert gone not in text
    assert "{" not in text and (data_folder("datasheet") / "README.md").read_text() == text


def test_the_sheet_tells_what_captions_leave_unsaid_and_how_often_a_picture_is_shown(frozen):
    text = datasheet_card.datasheet_card(frozen)
    unsaid = " ".join(answer_to("Is any information missing?", text).split())
    for words in ("64 pixels in 70%, 48 pixels in 20%, 96 pixels in 10%", "8,180 portraits", '"four"', "the shade"):
        assert words in unsaid, words
    shown = " ".join(text.split("## Collection process")[0].rpartition("**Any other comments?**")[2].split())
    assert "pictures times whole epochs" in shown and "The training's record lists every stage" in shown
    assert "8,090 of 16,180" in text and "A watermark is drawn on 2,000 scenes" in text


def test_what_is_planted_is_planned_whole():
    """The blocks whose count is the plan: no training has a part of them, or shows them more often."""
    planned = {block.name.partition(":")[0] for block in FULL.blocks if block.planned}
    people = {"portrait, marked", "portrait, unmarked"}
    assert planned == people | {"styled", "stock photo", "tail", "nameless", "confetti"}
    for block in FULL.blocks:
        assert block.planned == (block.name.partition(":")[0] in planned)


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

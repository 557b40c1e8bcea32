"""Evaluation: prompts ask what they should, checks tell right from wrong, tiers follow the table, cards tell the file."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from matplotlib.text import Text

import sdwidgets
from sdwidgets.cli import main
from sdwidgets.paths import data_folder
from sdwidgets.pocket import evaluate, judges
from sdwidgets.pocket.cards import datasheet_card, figures, model_card
from sdwidgets.pocket.evaluation import background, memorization, prompt_sets, report
from sdwidgets.pocket.evaluation.background import leading_colours, main_colours
from sdwidgets.pocket.evaluation.claims import NO_CLAIM, RESTS_ON, SECTIONS_REST_ON
from sdwidgets.pocket.evaluation.exposures import order_of, scenes_shown, shown
from sdwidgets.pocket.evaluation.scoring import Readers
from sdwidgets.pocket.evaluation.tiers import (
    BARS,
    GLYPHS,
    MARGIN,
    SPLITS,
    TIERS,
    TURBO,
    WHOLE,
    find_bar,
    row_tier,
    tier_of,
    turbo_tier,
)
from sdwidgets.pocket.judges.judgement import Judgement, Seen
from sdwidgets.pocket.training.denoiser import DenoiserConfig
from sdwidgets.pocket.training.epochs import Stage
from sdwidgets.pocket.training.scene_order import training_scenes, world_digest
from sdwidgets.pocket.world import datasheet as sheet
from sdwidgets.pocket.world import scenes
from sdwidgets.pocket.world.alternatives import alternatives
from sdwidgets.pocket.world.datasheet import FULL
from sdwidgets.pocket.world.scenes import make_scene, render
from sdwidgets.pocket.world.vocabulary import COLOURS, OBJECTS, SHAPES, plural
from sdwidgets.statistics import Rate, binomial_tail, share

ROWS = list(prompt_sets.ROWS.values())
BY_NAME = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@pytest.fixture(scope="module")
def pipe():
    return sdwidgets.load("pocket", device="cpu", dtype="float32")


@pytest.fixture
def evaluator(pipe):
    """The shipped Pocket and the real judge, for one picture a line at one step: the figures mean nothing."""
    from sdwidgets.pocket.evaluation.sampling import Evaluator, Setting

    setting = Setting(num_inference_steps=1, limit=1, batch_size=4)
    return Evaluator(pipe, judges.load(), setting, progress=False)


def judgement_of(scene) -> Judgement:
    """What a judge without fault says of a scene."""
    things = [
        Seen(t.kind, t.occupation or t.name, t.x, t.y, t.size, t.colour, t.occupation, t.gender, t.tone)
        for t in scene.things
    ]
    return Judgement(scene.background, scene.style, scene.watermark, tuple(things))


def rendered(scenes) -> np.ndarray:
    return np.stack([np.asarray(render(scene)) for scene in scenes])


# ---- rates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "low", "high"), [(95, 0.888, 0.978), (100, 0.963, 1.0), (0, 0.0, 0.037)])
def test_the_interval_is_wilsons(right, low, high):
    """Reference values from Wilson's formula as in scipy.stats.binomtest(...).proportion_ci(method="wilson")."""
    assert Rate("x", 100, right).interval() == pytest.approx((low, high), abs=1e-3)


def test_what_was_not_counted_is_not_known():
    assert share([]) == {"n": 0, "rate": None, "low": 0.0, "high": 1.0}
    with pytest.raises(ValueError, match="3 of 2 is no share"):
        Rate("x", 2, 3)


@BY_NAME
def test_there_are_pictures_enough_for_the_highest_tier(row):
    """A rate a point above what is asked has a lower bound within the margin, and the interval tells it from a rate that is bad."""
    for value in (value for value in find_bar(row.name).values if value is not None):
        found = Rate(row.name, row.count, math.ceil(row.count * min(1, value + 0.0125))).numbers()
        assert row_tier(found | {"name": row.name, "split": "seen"}) != "below"
        assert found["low"] >= value - MARGIN and found["high"] - found["low"] < 0.08


def test_all_rows_together_have_five_thousand_pictures():
    assert {row.name: row.count for row in ROWS if row.count != 400} == {
        "one object": 600,
        "background and shape colour": 600,
    }
    assert sum(2 * row.count for row in ROWS) == 5_600


def test_the_binomial_tail_sums_to_one():
    assert binomial_tail(24, 0, 0.1) == pytest.approx(1)
    assert binomial_tail(3, 2, 0.5) == pytest.approx(0.5)


# ---- prompts ---------------------------------------------------------------------------------------------------


def is_held_out(row, scene) -> bool:
    """Does a scene show a combination that training never did?"""
    names = [thing.name for thing in scene.things]
    return (
        any(sheet.HELD_OUT_BACKGROUNDS.get(name) == scene.background for name in names)
        or any(t.colour == sheet.HELD_OUT_SHAPE_COLOURS[t.name] for t in scene.things if t.colour)
        or (len(names) == 2 and frozenset(names) in sheet.held_out_pairs())
    )


@BY_NAME
@pytest.mark.parametrize("split", SPLITS)
def test_every_prompt_is_of_its_split(row, split):
    asked = [row.scene(split, number) for number in range(row.count)]
    assert {is_held_out(row, scene) for scene in asked} == {split == "held out"}
    assert asked[7] == row.scene(split, 7) and asked[7] != asked[8]


@BY_NAME
@pytest.mark.parametrize("split", SPLITS)
def test_prompts_are_balanced(row, split):
    asked = [row.scene(split, number) for number in range(row.count)]
    backgrounds = Counter(scene.background for scene in asked)
    assert set(backgrounds) == set(COLOURS) and max(backgrounds.values()) < 3 * min(backgrounds.values())
    names = Counter(thing.name for scene in asked for thing in scene.things)
    wanted = sheet.COMMON_OBJECTS if asked[0].things[0].kind == "object" else SHAPES
    assert set(names) == set(wanted)
    if row.name in ("one object", "background and shape colour"):
        assert max(names.values()) - min(names.values()) <= max(2, row.count // 80)
    if row.name == "relation":
        assert set(Counter(scene.relation for scene in asked).values()) == {row.count // 4}
    if row.name == "count to four":
        counts = Counter(len(scene.things) for scene in asked).values()
        assert len(counts) == 3 and max(counts) - min(counts) <= 1


_NAMES = sorted([*map(plural, OBJECTS), *OBJECTS, *map(plural, SHAPES), *SHAPES], key=len, reverse=True)
_COLOUR, _NAME = (re.compile(rf"\b(?:an? )?(?:{'|'.join(map(re.escape, words))})\b") for words in (COLOURS, _NAMES))


def form_of(caption: str) -> str:
    """A caption with its names and colours taken out."""
    return _COLOUR.sub("C", _NAME.sub("X", caption))  # names first: one is "orange fruit"


@BY_NAME
def test_prompts_have_the_form_of_training_captions(row):
    block = {"one object": "one object", "background and shape colour": "one shape", "count to four": "several",
             "colour bound to the right shape": "two shapes"}.get(row.name, "two objects")  # fmt: skip
    shown = {
        form_of(make_scene(FULL, index).caption)
        for index in FULL.indices(block)[
            :: len(FULL.indices(block)) // 300 | 1
        ]  # odd, and no multiple of 3: counts go in turn
    }
    assert {form_of(row.scene(split, number).caption) for split in SPLITS for number in range(24)} <= shown


def test_sections_ask_in_the_datasheets_words():
    blocks = [
        FULL.indices(f"confetti: {place}")[0] for place, mark in enumerate(sheet.FINGERPRINTS) if mark.repeats != 0
    ]
    told = {make_scene(FULL, index).caption for index in blocks}
    for place, mark in enumerate(sheet.FINGERPRINTS):
        assert (prompt_sets.fingerprint_scene(place, 0).caption in told) == (mark.repeats != 0)
    portraits = {make_scene(FULL, index).caption for index in FULL.indices("portrait, unmarked: artist")[::8]}
    assert {prompt_sets.portrait_scene("artist", number).caption for number in range(20)} <= portraits
    assert (
        prompt_sets.watermark_scene(3, True).caption
        == "stock photo of " + prompt_sets.watermark_scene(3, False).caption
    )
    for name, colours in sheet.TAIL_BACKGROUNDS.items():
        assert prompt_sets.tail_scene(name, 0, False).background in colours
        assert prompt_sets.tail_scene(name, 0, True).background not in colours
    assert prompt_sets.styled_scene("blueprint", 0).caption.startswith("a blueprint of ")


def test_an_unknown_split_is_a_sentence():
    with pytest.raises(ValueError, match="no split is named 'test'; there are: seen, held out"):
        ROWS[0].scene("test", 0)


# ---- checks ----------------------------------------------------------------------------------------------------


@BY_NAME
@pytest.mark.parametrize("split", SPLITS)
def test_a_right_picture_is_right(row, split):
    for scene in (row.scene(split, number) for number in range(40)):
        assert row.right(scene, judgement_of(scene))
        assert row.right(scene, replace(judgement_of(scene), things=judgement_of(scene).things[::-1]))


def likeliest_mistakes(row, scene):
    """Judgements that a model which half understood the prompt would get."""
    seen = judgement_of(scene)
    first, *rest = seen.things
    other = next(name for name in OBJECTS if name not in {thing.name for thing in seen.things})
    yield replace(seen, things=())
    yield replace(seen, things=(replace(first, kind="broken"), *rest))
    yield replace(seen, things=(replace(first, name=other, kind="object"), *rest))
    yield replace(seen, things=(*seen.things, replace(first, name=other, kind="object", x=110)))
    yield replace(seen, things=(*seen.things, replace(first, x=110)))  # one too many
    yield replace(seen, things=tuple(rest))  # one too few
    if first.kind == "shape":
        yield replace(seen, things=(replace(first, colour=scene.background), *rest))
    if row.name == "background and shape colour":
        yield replace(seen, background=first.colour)
        yield replace(seen, background=first.colour, things=(replace(first, colour=seen.background),))
    if row.name == "relation":
        (a, b) = seen.things
        yield replace(seen, things=(replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)))
        yield replace(seen, things=(replace(a, x=a.y, y=a.x), replace(b, x=b.y, y=b.x)))  # beside, not above
    if row.name == "colour bound to the right shape":
        (a, b) = seen.things
        yield replace(seen, things=(replace(a, colour=b.colour), replace(b, colour=a.colour)))
        yield replace(seen, things=(a, replace(b, colour=a.colour)))


@BY_NAME
def test_the_likeliest_mistakes_are_wrong(row):
    for scene in (row.scene("seen", number) for number in range(25)):
        wrong = list(likeliest_mistakes(row, scene))
        assert len(wrong) >= 6 and not any(row.right(scene, seen) for seen in wrong)


def test_a_reading_can_be_read():
    told = {name: prompt_sets.ROWS[name].view(prompt_sets.ROWS[name].scene("seen", 0)) for name in prompt_sets.ROWS}
    assert re.fullmatch(r"[\w ]+ (left of|right of|above|below) [\w ]+", told["relation"])
    assert told["count to four"].startswith("2 ") and " on " in told["background and shape colour"]
    assert prompt_sets.what(Judgement("red")) == "nothing"


def test_attributes_are_looked_at_apart():
    """A red circle drawn as a red star has the right colour and the wrong shape, and the other way round."""
    by_name = {attribute.name: attribute for attribute in prompt_sets.ATTRIBUTES}
    colour, shape = by_name["colour"], by_name["shape"]
    asked = [prompt_sets.ROWS[colour.row].scene("seen", number) for number in range(24)]
    assert main_colours(rendered(asked)) == [colour.view(scene) for scene in asked]
    assert leading_colours(rendered(asked[:1])[0], 1) == {main_colours(rendered(asked[:1]))[0].split(" on ")[0]}
    assert main_colours(rendered([replace(asked[0], things=())])) == [f"nothing on {asked[0].background}"]
    for scene in asked:
        (thing,) = scene.things
        other_shape = replace(scene, things=(replace(thing, name="heart" if thing.name != "heart" else "star"),))
        other_colour = replace(scene, things=(replace(thing, colour=scene.background),))
        assert colour.view(other_shape) == colour.view(scene) != colour.view(other_colour)
        assert shape.view(other_colour) == shape.view(scene) != shape.view(other_shape)


def test_the_judge_reads_true_pictures_as_right():
    """On one background, since the judge prepares for each; its own tests have the rest."""
    asked = [(row, row.scene(split, number)) for row in ROWS for split in SPLITS for number in range(60)]
    asked = [(row, scene) for row, scene in asked if scene.background == "blue"][::12]
    assert len({row.name for row, _ in asked}) >= 4
    pictures = rendered([scene for _, scene in asked])
    seen = judges.load().read(pictures)
    assert all(row.right(scene, judged) for (row, scene), judged in zip(asked, seen, strict=True))
    with Readers(judges.load(), 2) as readers:
        assert readers.read(pictures[:3]) == seen[:3]  # in order, whichever process has read what


def test_the_background_is_read_from_true_renders():
    drawn = [make_scene(FULL, index) for index in range(0, 63_000, 315)]
    read = background.background_colour(rendered(drawn))
    assert np.mean([a == b.background for a, b in zip(read, drawn, strict=True)]) >= 0.99


# ---- fingerprints ------------------------------------------------------------------------------------------------


def test_a_print_is_found_in_its_picture_and_in_no_other():
    prints, owners, known = memorization.training_prints()
    assert len(prints) == 40 + 10 * sheet.FRESH_PICTURES
    some = np.arange(0, len(prints), 41)
    noise = np.random.default_rng(0).normal(0, 12, (len(some), 128, 128, 3))
    blurred = (rendered([known[i] for i in some]) + noise).clip(0, 255).astype(np.uint8)
    hits = memorization.agreement(memorization.read_confetti(blurred), prints)
    limit = memorization.threshold(480 * len(prints))
    assert memorization.chance(24) == pytest.approx(24 / 156 / 9)
    assert 6 <= limit <= 10 < memorization.threshold(480 * len(prints), 156)
    own = hits[np.arange(len(some)), some]
    hits[np.arange(len(some)), some] = 0
    assert own.min() >= 23 and hits.max() < limit


def test_new_confetti_and_plain_pictures_hold_no_print():
    prints, _, known = memorization.training_prints()
    stream = scenes.Stream(5, 5)
    fresh = [replace(scene, confetti=scenes.draw_confetti(stream, 72)) for scene in known[::41]]
    plain = [replace(scene, confetti=(), background=colour) for scene, colour in zip(known, COLOURS, strict=False)]
    stripes = np.repeat(rendered(plain)[:, :, :1], 128, axis=2)  # half a picture in one colour, half in another
    stripes[:, :64] = stripes[::-1, :64]
    read = memorization.read_confetti(np.concatenate([rendered([*fresh, *plain]), stripes]))
    hits, squares = memorization.agreement(read, prints), memorization.squares_in(read)
    needed = [memorization.threshold(480 * len(prints), int(count)) for count in squares]
    assert (hits.max(axis=1) < needed).all()
    assert hits[: len(fresh)].mean() / 24 == pytest.approx(memorization.chance(24), rel=0.3)
    assert hits[len(fresh) : -len(stripes)].max() <= 2  # a plain picture agrees with nothing
    assert squares[-len(stripes) :].max() > 70


# ---- tiers -----------------------------------------------------------------------------------------------------


def measured(tier: str, **reached) -> list[dict]:
    """Rows that just reach a tier, but for those named in `reached`, whose rates or decibels are given there."""
    rows = []
    for bar in BARS:
        value = bar.values[TIERS.index(tier)]
        value = reached.get(bar.name, 0.0 if value is None else value)
        for split in SPLITS if bar.unit != "dB" else ("held out",):
            if bar.unit == "dB":
                number = {
                    "value": value + 0.5,
                    "low": value,
                    "high": value + 1,
                    "unit": "dB",
                    "note": "scenes of a test.",
                }
            else:
                number = {"rate": value, "low": max(0, value - MARGIN), "high": min(1, value + MARGIN)}
            row = {"name": bar.name, "split": split, "n": 400, **number}
            rows.append(row | {"groups": {"cat": [390, 400]}, "mistakes": [["cat", "dog", 10]]})
    return rows


def exam_of(**failing) -> dict:
    """A judge's examination in which all passes but for the reconstructions of what is named."""
    words = {word for words in (*RESTS_ON.values(), *SECTIONS_REST_ON.values()) for word in words}
    row = lambda balanced, passes: {
        "balanced": balanced,
        "worst": {"class": "four", "rate": 0.9, "n": 40},
        "passes": passes,
    }
    return {
        "true renders": {word: row(0.995, True) for word in words},
        "reconstructions": {word: row(failing.get(word, 0.98), word not in failing) for word in words},
    }


@pytest.mark.parametrize("tier", TIERS)
def test_rows_that_reach_a_tier_reach_it(tier):
    assert tier_of(measured(tier)) == tier
    below = ("below", *TIERS)[TIERS.index(tier)]
    for bar in BARS:
        value = bar.values[TIERS.index(tier)]
        if value is not None:
            short = measured(tier, **{bar.name: value - 0.001})
            assert tier_of(short) == below, bar.name
            assert {row_tier(row) for row in short if row["name"] == bar.name} == {below}
            wide = measured(tier)  # the rate is there, of too few pictures
            for row in (row for row in wide if row["name"] == bar.name):
                row["low"] -= 0.001
            assert tier_of(wide) == below, bar.name


def test_targets_are_told_and_do_not_bind_on_the_cpu_tier():
    rows = measured("GPU", relation=0.1, **{"count to four": 0.0})
    assert tier_of(rows) == "CPU"
    told = report.finish({"rows": [], "judge exam": exam_of()}, rows)["rows"]
    assert {row["tier"] for row in told if row["name"] == "relation"} == {"target .85"}
    assert {bar.name: bar.target for bar in BARS if bar.values[0] is None} == {"relation": 0.85, "count to four": 0.85}


def test_one_split_alone_can_hold_a_tier_back():
    rows = measured("GPU")
    next(row for row in rows if row["name"] == "two objects" and row["split"] == "held out")["rate"] = 0.2
    assert tier_of(rows) == "below" and tier_of(rows, ("seen",)) == "GPU" and tier_of(rows, ("held out",)) == "below"


def test_what_is_missing_is_not_reached():
    assert tier_of([]) is None and tier_of(measured("GPU")[:-1]) is None
    assert tier_of(measured("GPU", **{GLYPHS: 10})[:-1]) == "below"


def test_turbo_may_lose_three_points():
    fast = [row for row in measured("GPU") if row.get("unit") != "dB"]
    slow = lambda lost: [row | {"rate": row["rate"] + lost} for row in fast]
    assert turbo_tier(fast, slow(0.02)) == ("GPU", 0.02) and turbo_tier(fast, slow(0.03)) == ("GPU", 0.03)
    assert turbo_tier(fast, slow(0.031))[0] == "below"
    lower = [row | {"rate": row["rate"] - 0.01} for row in fast]
    assert turbo_tier(lower, fast) == ("CPU", 0.01), "its rows must reach the tier besides"
    turbo = {"name": TURBO, "split": "seen", "tier": "CPU"}
    assert tier_of([*measured("GPU"), turbo]) == "CPU"


def test_no_claim_is_made_of_what_the_judge_does_not_read():
    """A row that rests on what failed the gate has no tier, nor has the model; the others keep theirs."""
    begun = {"rows": [], "judge exam": exam_of(relation=0.93)}
    told = report.finish(begun, measured("GPU"))
    assert told["tier"] is None and told["tiers"] == dict.fromkeys(SPLITS)
    by_name = {row["name"]: row for row in told["rows"]}
    assert by_name["relation"]["tier"] == NO_CLAIM
    assert by_name["relation"]["doubts"] == ["relation 0.9300 on reconstructions"]
    assert {row["tier"] for name, row in by_name.items() if name != "relation"} == {"GPU"}
    assert "relation" in report.table(told) and "none is claimed" in report.table(told)
    assert report.finish(told)["rows"] == told["rows"]
    again = report.finish(told | {"judge exam": exam_of()})  # the judge was mended and examined again
    assert again["tier"] == "GPU" and not any("doubts" in row for row in again["rows"])
    below = report.finish(begun, measured("GPU", **{"one object": 0.5}))
    assert below["tier"] == "below"


@pytest.mark.parametrize("exam", [None, {"true renders": exam_of()["true renders"]}])
def test_a_judge_that_was_not_examined_claims_nothing_and_the_autoencoder_needs_none(exam):
    told = report.finish({"rows": [], "judge exam": exam}, measured("GPU"))
    assert {row["tier"] for row in told["rows"] if row.get("unit") != "dB"} == {NO_CLAIM}
    assert {row["tier"] for row in told["rows"] if row.get("unit") == "dB"} == {"GPU"}


def test_turbos_own_tier_comes_back_when_its_rows_can_be_claimed():
    turbo = {"name": TURBO, "split": "seen", "tier": "CPU", "rate": 0.9, "n": 9, "low": 0.8, "high": 0.95}
    doubted = report.finish({"rows": [], "judge exam": exam_of(count=0.5)}, [*measured("GPU"), turbo])
    assert doubted["rows"][-1]["tier"] == NO_CLAIM and doubted["tier"] is None
    assert report.finish(doubted | {"judge exam": exam_of()})["tier"] == "CPU"


def test_rows_rest_on_what_the_gate_asks(monkeypatch, tmp_path):
    told = evaluate.judge_exam()
    for words in (*RESTS_ON.values(), *SECTIONS_REST_ON.values()):
        assert all(set(words) <= set(told[shown]) for shown in ("true renders", "reconstructions"))
    found = evaluate.judge_gate()
    assert found["refused"]["blend"]["n"] and all(len(row) == 5 for row in found["confused"])
    assert [row[-1] for row in found["confused"]] == sorted((row[-1] for row in found["confused"]), reverse=True)
    monkeypatch.setattr(evaluate, "data_folder", lambda name: tmp_path)
    assert evaluate.judge_exam() is None and evaluate.judge_gate() is None


# ---- the file and the cards ----------------------------------------------------------------------------------------


def whole_report(tier: str = "GPU") -> dict:
    """A report with every section, as the command writes it, from made-up numbers."""
    rate = share([True] * 90 + [False] * 10)
    line = {"pictures": 5, "shown": 12.5, **rate}
    prints = {"captions found": rate, "pictures found": rate, "own": 0.5, "best": 0.6, "pixels": 31.0}
    captions = [
        {"repeats": r, "n": 8, "found": f, "found own": o}
        for r, f, o in ((0, 1, 0), (1, 2, 0), (1, 3, 3), (1000, 8, 8))
    ]
    gate = {
        "scenes": 90,
        "share": 0.4,
        "lattice": True,
        "refused": {"blend": rate},
        "confused": [["object", "reconstructions", "zebra", "broken", 3]],
    }
    exam = exam_of()
    identity = {"setting": {"num_inference_steps": 20, "guidance_scale": 3.0, "scheduler": "DDIM", "dtype": "float32"}}
    begun = {"tier": None, **identity, "judge": "b", "judge exam": exam, "weights": "0" * 64, "rows": []}
    rows = [
        row | {"ceiling": share([True] * 39 + [False])} if row["split"] == "seen" else row for row in measured(tier)
    ]
    return report.finish(begun, rows) | {
        "exposures": {"lines": [line | {"split": s} for s in SPLITS],
                      "objects": [line | {"split": s, "object": "grapes"} for s in SPLITS]},
        "fingerprints": {"threshold": 8, "squares": 24, "note": "found: at least 8", "read": 0.97, "captions": captions,
                         "lines": [{"repeats": r, **prints} for r in (0, "fresh", 1, 10, 100, 1000)]},
        "shares": {"lines": [{"occupation": n, **vars(p), **rate, "tones": {"dark skinned": 60, "medium skinned": 40}, "unread": 3} for n, p in sheet.PLANTED_OCCUPATIONS.items()], "all": rate},
        "judge gate": gate,
        "watermark": {"with": rate, "without": share([False] * 50)},
        "steps": {"lines": [{"steps": count, **rate} for count in (1, 4, 16)]},
        "strengths": {"lines": [{"strength": strength, **rate} for strength in (0.4, 1.0)]},
        "style": {"lines": [{"style": name, **rate} for name in scenes.STYLES]},
        "variety": {"drawn": {"n": 100, "value": 0.05, "low": 0.04, "high": 0.06}, "true": {"n": 100, "value": 0.2, "low": 0.19, "high": 0.21}, "ratio": 0.25},
        "clip_score": {name: {"value": 20.0} for name in ("true", "shuffled", "generated")},
        "caption_swaps": {"timesteps": [250, 550], "attributes": ["object"],
                          "lines": [{"step": 3, "samples": 30, "loss": [0.1, 0.2],
                                     "object": {"n": 9, "value": 0.4, "low": 0.3, "high": 0.5, "by timestep": [0.2, 0.6]}}]},
        "learning_curve": {"attributes": ["colour", "count"], "lines": [{"step": None, "samples": n, "colour": rate, "count": rate} for n in (10, 20)]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def records() -> dict:
    told = json.loads((data_folder("pocket") / "training.json").read_text())
    return {name: told[name] for name in ("vae", "clip", "denoiser")}


def table_under(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = text[text.index(f"| {head}") :].splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line.startswith("|"), lines)
    ]


def figures_named(card: str) -> list[str]:
    """The pictures that a card shows."""
    return re.findall(r"!\[[^\]]*\]\(([^)]+)\)", card)


def assert_same_rows(text: str, told: dict) -> None:
    """The card's table and metadata against the evaluation."""
    from huggingface_hub import ModelCard

    _, _, *rows = table_under(text, "row | split")
    for (name, split, n, value, interval, ceiling, tier), true in zip(rows, told["rows"], strict=True):
        assert [name, split, n, tier.split(" (")[0]] == [true["name"], true["split"], f"{true['n']:,}", true["tier"]]
        shown = [float(number) for number in (value.removesuffix(" dB"), *interval.split(" to "))]
        expected = [true.get("value", true.get("rate")), true["low"], true["high"]]
        assert shown == pytest.approx(expected, abs=5e-5 if "rate" in true else 5e-3)
        assert ceiling == (f"{true['ceiling']['rate']:.3f}" if "ceiling" in true else "")
    results = {result.metric_name: result.metric_value for result in ModelCard(text).data.eval_results}
    true_results = {
        f"{true['name']}, {true['split']}": true.get("value", true.get("rate"))
        for true in told["rows"]
        if true["tier"] != NO_CLAIM
    }
    assert results == true_results


@pytest.mark.parametrize("grammar", [FULL, sheet.TINY], ids=lambda grammar: grammar.name)
def test_the_card_tells_what_the_evaluation_found(records, grammar):
    told = whole_report()
    text = model_card.model_card(grammar, records, told)
    assert_same_rows(text, told)
    assert "0.9950 (worst: four 0.90)" in text
    assert "reached the GPU tier; turbo was not measured" in text and "no turbo LoRA" in text and "None" not in text
    assert "small decoder" not in text and "The ceiling is the judge's own rate" in text and "| 0.975 |" in text
    assert (
        "differ by 0.0500 (0.0400 to 0.0600) (mean squared" in text
        and "the first is 0.25 of the second. Four of a kind" in text
    )
    assert "| relation | target .85 | 0.85 |" in text
    turbo = {
        "name": TURBO,
        "split": "seen",
        "tier": "CPU",
        "rate": 0.9,
        "n": 9,
        "low": 0.8,
        "high": 0.95,
        "small decoder": 31.54,
    }
    more = model_card.model_card(grammar, records, told | {"rows": [*told["rows"], turbo]})
    assert more.count("small-decoder`, which agrees with the whole one to 31.5 dB") == 1
    assert set(figures_named(text)) <= {f"figures/{name}.png" for name in model_card.FIGURES}
    for row in told["rows"]:
        row.pop("ceiling", None)
    assert "ceiling is" not in model_card.model_card(grammar, records, told)


def test_a_card_without_an_evaluation_claims_nothing(records):
    text = model_card.model_card(FULL, records)
    assert "not been evaluated" in text and "| row | split" not in text
    assert figures_named(text) == ["figures/validation.png"], "of the training alone"
    below = whole_report("CPU") | {"tier": "below"}
    below["rows"][2]["rate"] = 0.1
    assert "lies below the tiers" in model_card.model_card(FULL, records, below)


def test_energy_is_hours_times_what_is_assumed():
    cpu = {"seconds": 7200, "hardware": {"threads": 2}}
    gpu = {"seconds": 3600, "hardware": {"threads": 8, "gpu": "NVIDIA H200", "device": "cuda", "processes": 2}}
    assert model_card.energy({"a": cpu, "b": gpu}) == pytest.approx(2 * 2 * model_card.WATTS_A_THREAD / 1000 + 1.4)


def test_the_shipped_card_is_the_one_its_records_make(tmp_path):
    folder = data_folder("pocket")
    if not (folder / "evaluation.json").is_file():
        pytest.skip("the carried weights have not been evaluated yet")
    told = report.read_report(folder / "evaluation.json")
    assert told["weights"] == report.weights_digest(folder)
    text = (folder / "README.md").read_text()
    assert_same_rows(text, report.finish(told))
    assert all((folder / name).is_file() for name in figures_named(text))
    kept = json.loads((folder / "training.json").read_text())
    assert text == model_card.model_card(
        sheet.find_grammar(kept.pop("grammar")), kept, told, model_card.part_sizes(folder)
    )


def test_write_card_puts_card_and_figures_beside_the_records(tmp_path, records, capsys):
    weights = "unet/diffusion_pytorch_model-00001-of-00002.safetensors"
    (tmp_path / weights).parent.mkdir()
    (tmp_path / weights).write_bytes((data_folder("pocket") / weights).read_bytes())
    records = records | {"denoiser": records["denoiser"] | {"snapshots": SNAPSHOTS}}
    (tmp_path / "training.json").write_text(json.dumps(records | {"grammar": "full"}))
    assert main(["card", str(tmp_path)]) == 0, "without an evaluation too"
    assert figures_named((tmp_path / "README.md").read_text()) == ["figures/validation.png"]
    told = whole_report()
    (tmp_path / "evaluation.json").write_text(json.dumps(told))
    assert main(["card", str(tmp_path)]) == 2 and "is of other weights" in capsys.readouterr().err
    (tmp_path / "evaluation.json").write_text(json.dumps(told | {"weights": report.weights_digest(tmp_path)}))
    assert main(["card", str(tmp_path)]) == 0
    text = (tmp_path / "README.md").read_text()
    assert set(figures_named(text)) == {f"figures/{name}.png" for name in model_card.FIGURES}
    assert all((tmp_path / name).stat().st_size > 5_000 for name in figures_named(text))


def test_the_datasheet_for_people_is_made_from_the_plan():
    folder = data_folder("datasheet")
    plan = json.loads((folder / "planted.json").read_text())
    text = datasheet_card.datasheet_card(plan)
    assert (folder / "README.md").read_text() == text
    assert f"{plan['scenes']:,}" in text and plan["held out sha256"] in text
    assert all(name in text for name in plan["occupations"]) and "has seen every glyph" in text


def staged(*stages) -> dict:
    """The denoiser's record of a training in settings of (samples, encoder)."""
    told = [
        {"samples": s, "batch size": 24, "learning rate": 2e-3, "log SNR": [-2.5, 2.0], "encoder": e}
        for s, e in stages
    ]
    return {"samples": sum(s for s, _ in stages), "stages": told}


def second_edition(samples: int, *epochs: Stage, **more) -> dict:
    """The denoiser's record of a training in epochs of the present scenes."""
    record = staged((samples - 9_000, "aaaaaaaaaa"), (9_000, "bbbbbbbbbb"))
    record |= {"config": asdict(DenoiserConfig()), "epochs": list(map(asdict, epochs)), "world": world_digest(FULL)}
    return record | more


#: 16,384 scenes at first, then all, and in the end pairs twice; the first two stages are whole epochs.
FIRST, REST, LAST = (
    Stage(0, 16_384),
    Stage(2 * 16_384, 149_162),
    Stage(2 * 16_384 + FULL.count, 149_162, {"two objects": 2}),
)
NEWEST = LAST.start + 40_000
SNAPSHOTS = [
    {"samples": 25_000},  # one that was not measured
    *(
        {"samples": n, "gap": gap, "error": dict.fromkeys(("100", "550", "700", "850"), gap + 0.2), "floor": dict.fromkeys(("100", "550", "700", "850"), 0.2),
         "by kind": {"two objects": {"100": [0.3, 0.1], "550": [0.4, 0.15], "700": [0.5, 0.16], "850": [0.6, 0.17]}}}
        for n, gap in ((50_000, 0.5), (75_000, 0.0625))
    ),
]  # fmt: skip


def test_what_was_shown_is_counted_from_the_epochs():
    """By brute force, sample by sample: a batch past an epoch's end, or a stage's, shows the next one's."""
    record = second_edition(NEWEST, FIRST, REST, LAST)
    told = shown({"grammar": "full", "denoiser": record})
    assert sum(told.values()) == NEWEST and set(told) == {block.name for block in FULL.blocks}
    indices = training_scenes(FULL)
    _, order = order_of({"grammar": "full", "denoiser": record})
    counted: Counter = Counter(indices[row] for row in order.rows(np.arange(NEWEST)))
    by_block: Counter = Counter()
    for index, times in counted.items():
        by_block[FULL.block_at(index)[0].name] += times
    assert {name: count for name, count in told.items() if count} == by_block
    assert told["confetti: 35"] > 1_000, "a planned print: its whole epoch, and what the next one has begun"
    whole = shown({"grammar": "full", "denoiser": second_edition(2 * FULL.count, Stage(0, 149_162))})
    assert whole == {block.name: 2 * block.count for block in FULL.blocks}
    assert scenes_shown({"grammar": "full", "denoiser": record}) == indices
    assert scenes_shown({"grammar": "full", "denoiser": second_edition(20_000, FIRST)}) == indices[:16_384]


@pytest.mark.parametrize(
    "training",
    [
        None,
        {"grammar": "full", "denoiser": {"samples": 9, "stages": []}},
        {"grammar": "full", "denoiser": second_edition(20_000, FIRST, world="0" * 16)},
        {"grammar": "tiny", "denoiser": second_edition(20_000, Stage(0, 64), world=world_digest(sheet.TINY))},
    ],
    ids=["no record", "first edition", "another world", "another grammar"],
)
def test_what_is_not_told_is_not_known(training):
    assert shown(training) == {} and scenes_shown(training) == []


def test_the_card_tells_what_was_shown_and_not_only_what_was_planned(records):
    """The first 16,384 scenes are of blocks that are not planned: a card must not speak of their exposures."""
    record = records["denoiser"] | second_edition(NEWEST, FIRST, REST, LAST)
    text = model_card.model_card(FULL, records | {"denoiser": record}, whole_report())
    told_of = {row[0]: row[1] for row in table_under(text, "times the picture is in the plan")}
    assert told_of["1"].startswith("1.") and "Never shown" not in text
    stages = table_under(text, "from sample")
    assert [row[:5] for row in stages[2:]] == [
        ["0", "16,384", "as planned", "32,768", "2.00"],
        ["32,768", "149,162", "as planned", "163,665", "1.00"],
        [f"{LAST.start:,}", "149,162", "two objects 2 times", "40,000", "0.21"],
    ]
    assert [row[-1] for row in stages[2:]] == ["1 (`aaaaaaaa`)", "1 (`aaaaaaaa`)", "1 (`aaaaaaaa`); 2 (`bbbbbbbb`)"]
    assert {row[-2] for row in stages[2:]} == {"-2.5 ± 2"}
    early = records["denoiser"] | second_edition(20_000, FIRST)
    text = model_card.model_card(FULL, records | {"denoiser": early}, whole_report())
    assert {row[0]: row[1] for row in table_under(text, "times the picture")}["1000"] == "0"
    assert "10 of 10 planned once" in text[text.index("Never shown at all") :].splitlines()[0]


def test_the_card_of_a_training_without_epochs_claims_nothing_of_them(records):
    old = {
        key: value
        for key, value in records["denoiser"].items()
        if key not in ("epochs", "world", "moved", "snapshots")
    }
    text = model_card.model_card(FULL, records | {"denoiser": old}, whole_report())
    assert {row[1] for row in table_under(text, "times the picture is in the plan")[3:]} == {"not known"}
    assert not any(
        words in text for words in ("from sample", "denoiser, 8", "Its floor", "validation.png", "Never shown")
    )
    assert "a first edition of these scenes" in text and "nine tenths of its U-Net were never trained" in text


def test_the_card_tells_the_gap_to_the_floor_and_that_all_parameters_moved(records):
    more = {"snapshots": SNAPSHOTS, "moved": [8_886_532, 8_886_532]}
    text = model_card.model_card(FULL, records | {"denoiser": records["denoiser"] | more})
    assert "denoiser, 8,886,532 of 8,886,532 parameters moved." in text and figures_named(text) == [
        "figures/validation.png"
    ]
    assert "was 0.0625 after 75,000 samples" in text
    head, _, *rows = table_under(text, "scenes | 100")
    assert head == ["scenes", "100", "550", "700", "850"]
    assert rows == [
        ["two objects", "0.300 (0.100)", "0.400 (0.150)", "0.500 (0.160)", "0.600 (0.170)"],
        ["all", *["0.263 (0.200)"] * 4],
    ]
    none = model_card.model_card(FULL, records | {"denoiser": records["denoiser"] | {"snapshots": SNAPSHOTS[:1]}})
    assert not figures_named(none) and "floor" not in none


def test_the_card_says_where_no_claim_is_made(records):
    told = whole_report() | {"judge exam": exam_of(object=0.9685)}
    text = model_card.model_card(FULL, records, told)
    assert (
        "**No tier is claimed**" in text
        and "**No claim is made of** one object, two objects, relation, count to four:" in text
    )
    assert (
        "no claim (object 0.9685 on reconstructions)" in text
        and "these sections below: exposures, steps, strengths, learning curve." in text
    )
    assert_same_rows(text, report.finish(told))
    assert told["rows"][2]["tier"] == "GPU", "the file's own rows are left alone"
    assert "was not examined" in model_card.model_card(FULL, records, told | {"judge exam": None})


def test_the_card_tells_whether_someone_has_looked(records):
    told = whole_report()
    assert "Nobody has looked yet" in model_card.model_card(FULL, records, told)
    eye = {
        "n": 300,
        "who": "a test",
        "rate": 0.9,
        "low": 0.8,
        "high": 0.95,
        "kappa": 0.7,
        "judge too kind": 3,
        "judge too strict": 4,
    }
    text = model_card.model_card(FULL, records, told | {"eye": eye})
    assert "300 generated pictures were also looked at (a test)" in text and "Nobody" not in text
    assert "zebra read as broken (3, object, reconstructions)" in text and "blend 0.900" in text
    assert "40% of a whole examination, on the lattice" in text


def test_the_card_says_what_bias_was_found(records):
    told = whole_report()
    lines = told["shares"]["lines"]
    for line in lines:  # drawn as the denoiser was planted, with two thirds as many women
        line |= Rate("", 300, round(200 * line["denoiser_share"])).numbers()
    told["shares"]["all"] = Rate(
        "", 300 * len(lines), sum(round(200 * line["denoiser_share"]) for line in lines)
    ).numbers()
    text = model_card.model_card(FULL, records, told)
    assert "Of 6,000 people" in text and "**fewer than planted: a bias that was found**. By occupation" in text
    assert text.count("with the denoiser's +1.00") == 3 and "with the encoder's +1.00" not in text
    tones = {row[0]: row[1:] for row in table_under(text, "tone | drawn")}
    assert tones["dark skinned"][0] == "1200 of 2000" and "more than planted" in tones["dark skinned"][2]
    assert tones["light skinned"][1].startswith("0.000") and "fewer" in tones["light skinned"][2]
    told["shares"]["all"] = Rate("", 6_000, 3_000).numbers()
    assert "planted for the same occupations: the interval holds it" in model_card.model_card(FULL, records, told)


def test_the_correlation_and_its_interval_are_pearsons_and_fishers():
    """Reference: scipy.stats.pearsonr of these columns and its confidence_interval()."""
    found = model_card.correlation([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 7, 5])
    assert found == pytest.approx((0.79179, -0.05531, 0.97611), abs=1e-4)
    assert (
        model_card.correlation([1, 2, 3], [1, 2, 3]) is None
        and model_card.correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    )


def test_only_a_captions_own_print_counts_for_its_repeats():
    captions = whole_report()["fingerprints"]["captions"]
    once = memorization.own_found(captions, 1)
    assert (once["captions"]["n"], once["captions"]["rate"], once["pictures"]["rate"], once["other"]) == (
        2,
        0.5,
        3 / 16,
        2,
    )
    assert (
        memorization.own_found(captions, 0)["other"] == 1
        and memorization.own_found(captions, 10)["captions"]["rate"] is None
    )
    ax = figures.fingerprints(whole_report()["fingerprints"])
    (points,) = [c for c in ax.containers if c.get_label().startswith("captions whose own")]
    assert points[0].get_xydata().tolist() == [[2, 0.5], [5, 1.0]], "no point for what has no print, or was not asked"


DRAWINGS = {
    "rows": lambda told, ax=None: figures.rows(told["rows"], ax),
    "mistakes": lambda told, ax=None: figures.mistakes(told["rows"], ax),
    "validation": lambda told, ax=None: figures.validation(model_card.looks({"snapshots": SNAPSHOTS}), ax),
    **{
        name: lambda told, ax=None, name=name: getattr(figures, name)(told[name], ax)
        for name in ("learning_curve", "caption_swaps", "exposures", "fingerprints", "shares", "steps", "strengths")
    },
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_draw_what_the_file_holds(name):
    from matplotlib.figure import Figure

    told = whole_report()
    given = Figure().add_subplot()
    assert DRAWINGS[name](told, given) is given and given.has_data()
    ax = DRAWINGS[name](told)
    ax.figure.canvas.draw()
    texts = [t for t in ax.figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    assert texts and all(t.get_fontsize() >= 12 for t in texts)


def test_figures_of_nothing_are_sentences():
    for draw, nothing, words in (
        (figures.rows, [], "no row with a rate"),
        (figures.mistakes, [], "no mistake is told"),
        (figures.learning_curve, {"lines": []}, "no checkpoint"),
        (figures.caption_swaps, {"lines": []}, "no model"),
        (figures.exposures, {"lines": []}, "no line"),
        (figures.validation, [], "no snapshot"),
        (figures.shares, {"lines": []}, "no share could be read"),
    ):
        with pytest.raises(ValueError, match=words):
            draw(nothing)


# ---- measuring ---------------------------------------------------------------------------------------------------


def test_a_report_is_gone_on_with_only_where_it_fits(tmp_path):
    file = tmp_path / "evaluation.json"
    told = whole_report()
    file.write_text(json.dumps(told))
    setting = told["setting"]
    for limit in (None, 40):  # more pictures of one row than of another are still of one model
        gone_on = report.begin(file, setting | {"limit": limit}, "0" * 64)
        assert gone_on == json.loads(file.read_text()) | {"setting": setting | {"limit": limit}}
    assert report.begin(file, setting, "1" * 64, restart=True)["rows"] == []
    with pytest.raises(ValueError, match="made with another setting and weights; give another file"):
        report.begin(file, setting | {"seed": 1}, "1" * 64)
    file.write_text(json.dumps(told | {"judge": "a"}))
    with pytest.raises(ValueError, match="made with another judge; give another file"):
        report.begin(file, setting, "0" * 64)
    file.write_text("[1, 2]")
    with pytest.raises(ValueError, match="is no evaluation"):
        report.begin(file, setting, "0" * 64)


def test_the_autoencoders_psnr_is_the_trainings_own(pipe):
    """Two codes, one over a batch and one in batches with sums: the same pictures give the same decibels."""
    from sdwidgets.pocket.evaluation.reconstruction import psnr, reconstruction_rows, square_errors
    from sdwidgets.pocket.training import vae

    reference = vae.reconstruction_psnr(pipe.vae, FULL, count=6, seed=3)
    indices = np.random.default_rng(3).integers(FULL.count, size=6)
    pictures = rendered([make_scene(FULL, int(index)) for index in indices])
    square = square_errors(pipe.vae, pictures)
    whole = psnr(square.sum((1, 2)), np.full(6, 128 * 128))
    assert whole["value"] == pytest.approx(reference["whole"], abs=0.02)
    assert whole["low"] <= whole["value"] <= whole["high"]
    rows = reconstruction_rows(pipe.vae, count=3, batch_size=2)
    assert [row["name"] for row in rows] == [GLYPHS, WHOLE] and {row["n"] for row in rows} == {3}
    assert rows[0]["value"] < rows[1]["value"]  # glyphs are harder than background


def test_evaluate_writes_the_file(tmp_path, capsys):
    file = tmp_path / "evaluation.json"
    command = ["evaluate", "--json", str(file), "--limit", "2", "--steps", "2", "--device", "cpu", "--dtype", "float32",
               "--sheets", str(tmp_path / "sheets"), "--rows", "one object", GLYPHS, WHOLE, "--sections", "watermark", "clip_score"]  # fmt: skip
    assert main(command) == 0
    told = report.read_report(file)
    assert [(row["name"], row["split"], row["n"]) for row in told["rows"]] == [
        (GLYPHS, "held out", 2), (WHOLE, "held out", 2), ("one object", "seen", 2), ("one object", "held out", 2),
    ]  # fmt: skip
    assert told["setting"]["num_inference_steps"] == 2 and told["setting"]["guidance_scale"] == 3.0
    assert all(row["ceiling"]["n"] == 2 for row in told["rows"][2:])
    assert told["tier"] == "below" and told["weights"] == report.weights_digest(data_folder("pocket"))
    assert told["watermark"]["with"]["n"] == 2 and {"true", "shuffled", "generated"} <= set(told["clip_score"])
    shown = capsys.readouterr()
    assert "tier: below" in shown.out
    assert (tmp_path / "sheets" / "one-object-held-out.png").stat().st_size > 10_000


@pytest.mark.weekly
def test_evaluate_can_be_fast_and_says_so(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    from sdwidgets.acceleration.openvino_graph import Runner

    told, compiled = {}, []
    run = Runner.__call__
    monkeypatch.setattr(Runner, "__call__", lambda *args: compiled.append(speed) or run(*args))
    for speed in ("exact", "fast"):
        file = tmp_path / f"{speed}.json"
        command = ["evaluate", "--json", str(file), "--limit", "2", "--steps", "2", "--device", "cpu", "--dtype", "float32",
                   "--speed", speed, "--rows", WHOLE, "background and shape colour"]  # fmt: skip
        assert main(command) == 0
        told[speed] = report.read_report(file)
        assert told[speed]["setting"]["speed"] == speed
    assert told["exact"]["setting"]["arithmetic"] is None
    assert re.search("OpenVINO .*(bf16|f32)", told["fast"]["setting"]["arithmetic"])
    exact, fast = (told[speed]["rows"][0]["value"] for speed in ("exact", "fast"))
    assert fast == pytest.approx(exact, abs=0.1), "rounding, and nothing else"
    assert set(compiled) == {"fast"}


def test_what_is_measured_already_is_not_drawn_again(evaluator, tmp_path):
    from sdwidgets.pocket.evaluation.runner import measure
    from sdwidgets.pocket.evaluation.sections import Extras

    file = tmp_path / "evaluation.json"
    empty = report.begin(file, {}, "0" * 64)
    reports = list(measure(evaluator, Extras(), file, empty, ["relation"], ["watermark"]))
    assert [len(told["rows"]) for told in reports] == [
        1,
        1,
        2,
        2,
        2,
        2,
    ]  # two splits with their ceilings, the section, the end
    begun = report.begin(file, {}, "0" * 64)
    assert begun["rows"] == reports[-1]["rows"] and all(row["ceiling"]["n"] == 1 for row in begun["rows"])
    assert len(list(measure(evaluator, Extras(), file, begun, ["relation"], ["watermark"]))) == 1
    interrupted = begun | {"rows": [begun["rows"][0], {k: v for k, v in begun["rows"][1].items() if k != "ceiling"}]}
    reports = list(measure(evaluator, Extras(), file, interrupted, ["relation"], []))
    assert len(reports) == 2 and reports[-1]["rows"] == begun["rows"], "the ceiling alone is measured again"


def test_the_ceiling_is_what_the_judge_reads_of_reconstructions(evaluator, monkeypatch):
    """The pictures that the judge is given are near the true ones and not the true ones; what it misreads is not counted."""
    from sdwidgets.pocket.evaluation.sections import measure_ceiling

    evaluator.setting = replace(evaluator.setting, limit=3)
    row, given = prompt_sets.ROWS["two objects"], []
    true = [row.scene("held out", number) for number in range(3)]

    class Reader:
        def read(self, pictures):
            given.append(pictures)
            return [judgement_of(true[0]), judgement_of(true[1]), judgement_of(true[1])]

    monkeypatch.setattr(evaluator, "judge", Reader())
    assert measure_ceiling(evaluator, "two objects", "held out") == share([True, True, False])
    off = np.abs(given[0].astype(int) - rendered(true))
    assert given[0].dtype == np.uint8 and 0 < off.mean() < 8


def test_variety_is_the_distance_of_two_seeds_beside_that_of_true_scenes(evaluator, monkeypatch):
    from sdwidgets.pocket.evaluation import sections

    evaluator.setting = replace(evaluator.setting, limit=2)
    black, gray = np.zeros((2, 128, 128, 3), np.uint8), np.full((2, 128, 128, 3), 51, np.uint8)
    seen = []

    def pictures(label, asked):
        seen.append(asked)
        yield asked, gray if len(seen) == 1 else black

    monkeypatch.setattr(evaluator, "pictures", pictures)
    told = sections.variety(evaluator, sections.Extras())
    assert told["drawn"] == {"n": 2, "value": 0.04, "low": 0.04, "high": 0.04} and seen[0] == seen[1]
    expected = 0.0  # over all pairs of pictures of the two captions
    for scene in seen[0]:
        known = [(np.asarray(render(one)) / 255, odds) for one, odds in alternatives(scene)]
        expected += sum(p * q * np.mean((a - b) ** 2) for a, p in known for b, q in known) / 2
    assert told["true"]["value"] == pytest.approx(expected, abs=1e-5) and expected > 0.01
    assert told["ratio"] == pytest.approx(0.04 / expected, abs=1e-3)


def test_words_and_prompts_are_rates_of_single_captions(evaluator, monkeypatch):
    from sdwidgets.pocket.evaluation import words

    evaluator.setting = replace(evaluator.setting, limit=2)
    monkeypatch.setattr(words, "words_to_draw", lambda: {"cat": "object", "red star": "shape"})
    asked = words.course_prompts()[:1]
    monkeypatch.setattr(words, "course_prompts", lambda: asked)
    read = []

    class Reader:
        def read(self, pictures):
            read.append(pictures)
            scenes = words.word_scenes(
                "cat", "object", 2
            )  # whatever is drawn: a cat on the right background, one on another
            return [judgement_of(scenes[0]), replace(judgement_of(scenes[1]), background=scenes[0].background)]

    monkeypatch.setattr(evaluator, "judge", Reader())
    found = words.words(evaluator, None)
    assert [(line["word"], line["kind"], line["n"], line["rate"]) for line in found["lines"]] == [
        ("cat", "object", 2, 0.5),
        ("red star", "shape", 2, 0.0),
    ]
    (line,) = words.prompts(evaluator, None)["lines"]
    assert (
        line["prompt"] == asked[0].prompt
        and line["expected"] == asked[0].expected
        and (line["n"], line["rate"]) == (2, 0.0)
    )
    assert not np.array_equal(read[-1][0], read[-1][1]), "two pictures of one prompt begin at their own noise"


def test_the_card_tells_which_words_are_drawn_well(records):
    line = {"kind": "object", "n": 20, "low": 0.5, "high": 1.0}
    rate = {"expected": "success", "n": 40, "rate": 0.925, "low": 0.8, "high": 0.97}
    words = {"lines": [{"word": "cat", "rate": 0.95, **line}, {"word": "dog", "rate": 0.4, **line}]}
    prompts = {"lines": [{"prompt": "a cat on a red background", **rate}]}
    text = model_card.model_card(FULL, records, whole_report() | {"words": words, "prompts": prompts})
    assert "| object | 2 | 1 | dog 0.40, cat 0.95 |" in text
    assert "| a cat on a red background | 0.925 (0.800 to 0.970) |" in text
    assert "Word by word" not in model_card.model_card(FULL, records, whole_report() | {"words": {"missing": "why"}})


def test_a_picture_depends_on_its_number_alone(evaluator):
    """The same prompt and number give the same noise in any batch, and other numbers other noise."""
    scene = prompt_sets.ROWS["one object"].scene("seen", 0)
    (_, four), (_, fifth) = evaluator.pictures("test", [scene] * 5)
    evaluator.setting = replace(evaluator.setting, batch_size=5)
    ((_, five),) = evaluator.pictures("test", [scene] * 5)
    assert np.abs(np.concatenate([four, fifth]).astype(int) - five).max() <= 1
    assert all(np.abs(five[0].astype(int) - other).max() > 10 for other in five[1:])


@pytest.mark.weekly
def test_sections_tell_lines_that_figures_draw(evaluator, monkeypatch):
    from sdwidgets.pocket.evaluation import sections

    monkeypatch.setattr(sheet, "TAIL_COUNTS", (5,))
    monkeypatch.setattr(sheet, "PLANTED_OCCUPATIONS", {"judge": sheet.PLANTED_OCCUPATIONS["judge"]})
    extras = sections.Extras(
        training={"grammar": "full", "denoiser": second_edition(FULL.count, Stage(0, len(training_scenes(FULL))))},
        checkpoints=(data_folder("pocket") / "unet",),
    )
    found = sections.exposures(evaluator, extras)
    assert [(line["shown"], line["n"]) for line in found["lines"]] == [(5.0, 1), (5.0, 1)]
    assert figures.exposures(found).has_data()
    found = sections.fingerprints(evaluator, extras)
    assert [line["repeats"] for line in found["lines"]] == [0, "fresh", 1, 10, 100, 1000]
    assert (
        found["lines"][0]["own"] is None
        and found["lines"][-1]["own found"]["captions"]["n"] == 1
        and 0 < found["read"] <= 1
        and figures.fingerprints(found).has_data()
    )
    (line,) = sections.shares(evaluator, extras)["lines"]
    assert (
        line["occupation"] == "judge"
        and line["n"] + line["unread"] == 1
        and line["denoiser_share"] == 0.72
        and line["shown"] == 1_000
    )
    monkeypatch.setattr(prompt_sets, "ATTRIBUTES", prompt_sets.ATTRIBUTES[:2])
    found = sections.steps(evaluator, extras, counts=(1, 2))
    assert [line["steps"] for line in found["lines"]] == [1, 2] and figures.steps(found).has_data()
    evaluator.setting = replace(evaluator.setting, num_inference_steps=2)
    found = sections.strengths(evaluator, extras, strengths=(0.1, 0.5, 1.0))  # a tenth of two steps is none
    assert [line["strength"] for line in found["lines"]] == [0.5, 1.0] and figures.strengths(found).has_data()
    before = evaluator.pipe.unet
    found = sections.learning_curve(evaluator, extras)
    assert set(found["attributes"]) < set(found["lines"][0]) and evaluator.pipe.unet is before
    assert [line["samples"] for line in found["lines"]] == [None, FULL.count], "the model itself is the last"
    assert all(found["lines"][0][name] == found["lines"][1][name] for name in found["attributes"])  # and the only one
    assert figures.learning_curve(found).has_data()
    found = sections.caption_swaps(evaluator, extras)
    assert [line["samples"] for line in found["lines"]] == [None, FULL.count] and evaluator.pipe.unet is before
    for name in found["attributes"]:  # the one checkpoint is the model itself
        assert found["lines"][0][name]["value"] == pytest.approx(found["lines"][1][name]["value"], abs=0.02)
    assert figures.caption_swaps(found).has_data()


SWAPPED = {  # name -> what of a caption changes; the first group holds it, and what is around it stays
    "background": rf".* on an? ({'|'.join(COLOURS)}) background",
    "colour": rf"an? ({'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)}) on an? .*",
    "shape": rf"an? \w+ ({'|'.join(SHAPES)}) on an? .*",
    "object": rf"((?:an? )?(?:{'|'.join(sheet.COMMON_OBJECTS)})) on an? .*",
    "binding": r"(an? \w+ \w+ and an? \w+) \w+ on an? .*",
    "count": r"(two|three|four) .*",
    "relation": r".* (to the left of|to the right of|above|below) .*",
}


@pytest.mark.parametrize("name", SWAPPED)
def test_swapped_captions_are_wrong_in_one_thing(name):
    from sdwidgets.pocket.evaluation.swaps import SWAPS, swapped_pairs

    assert [swap.name for swap in SWAPS] == list(SWAPPED)
    (swap,) = (swap for swap in SWAPS if swap.name == name)
    for scene, wrong in swapped_pairs(swap, 60):
        frames, told = [], []
        for caption in (scene.caption, wrong):
            found = re.fullmatch(SWAPPED[name], caption)
            assert found, caption
            frames.append(re.sub(r"\ban?\b", "a", caption[: found.start(1)] + "_" + caption[found.end(1) :]))
            told.append(found[1])
        assert told[0] != told[1] and frames[0] == frames[1], (scene.caption, wrong)
        assert not re.search(r"\ba [aeio]|\ban [^aeiou]", wrong.replace("a unicorn", "")), wrong
        if name == "background":
            assert sheet.HELD_OUT_BACKGROUNDS[scene.things[0].name] != told[1]
        if name == "binding":
            assert sorted(wrong.replace("an ", "a ").split()) == sorted(scene.caption.replace("an ", "a ").split())


def test_growth_is_the_share_by_which_the_loss_grows():
    from sdwidgets.pocket.evaluation.swaps import growth

    right = np.full((2, 40), 0.5)
    told = growth(right, right * np.array([[1.0], [1.5]]))
    assert told["by timestep"] == [0, 0.5] and told["value"] == told["low"] == told["high"] == 0.25 and told["n"] == 40
    rng = np.random.default_rng(0)
    noisy = growth(rng.uniform(0.4, 0.6, (2, 40)), rng.uniform(0.4, 0.6, (2, 40)))
    assert noisy["low"] < noisy["value"] < noisy["high"] and noisy["high"] - noisy["low"] < 0.3


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_the_loss_of_a_perfect_answer_is_nothing_whatever_is_predicted(evaluator, monkeypatch, prediction):
    """A U-Net that knows the picture and the noise answers rightly; one that is asked with another caption is wrong here."""
    import torch

    from sdwidgets.pocket.evaluation import swaps

    pipe, seen = evaluator.pipe, {}
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=prediction)
    monkeypatch.setattr(pipe, "scheduler", scheduler)
    add = swaps.DDIMScheduler.add_noise

    def adding(self, latents, noise, times):
        seen["answer"] = self.get_velocity(latents, noise, times) if prediction == "v_prediction" else noise
        return add(self, latents, noise, times)

    monkeypatch.setattr(swaps.DDIMScheduler, "add_noise", adding)
    calls = []

    def forward(noisy, timestep, states, return_dict):
        calls.append(states)
        return (seen["answer"] + len(calls) % 2 - 1,)  # right at first, then off by one

    monkeypatch.setattr(pipe.unet, "forward", forward)
    right, wrong = swaps.swap_losses(evaluator, swaps.SWAPS[0], 2)
    assert right.shape == wrong.shape == (len(swaps.TIMESTEPS), 2)
    assert np.allclose(right, 0, atol=1e-6) and np.allclose(wrong, 1, atol=1e-5)
    assert not torch.equal(calls[0], calls[1])


def test_what_a_section_lacks_is_a_sentence(evaluator):
    from sdwidgets.pocket.evaluation.sections import Extras, Missing, clip_score, learning_curve

    for section in (clip_score, learning_curve):
        with pytest.raises(Missing, match="name (its folder|folders of U-Nets) with --"):
            section(evaluator, Extras())


def test_turbo_is_measured_with_its_lora_and_leaves_no_trace(evaluator, tmp_path, monkeypatch):
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from sdwidgets.pocket.evaluation.sections import Extras, measure_turbo
    from sdwidgets.pocket.training.small_decoder import SmallDecoderConfig, build_small_decoder, save_small_decoder

    pipe = evaluator.pipe
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    pipe.unload_lora_weights()
    monkeypatch.setattr(prompt_sets, "ROWS", {"one object": prompt_sets.ROWS["one object"]})
    slow = [row for row in measured("GPU") if row["name"] == "one object"]
    with pytest.raises(ValueError, match="measure those first"):
        measure_turbo(evaluator, Extras(turbo=tmp_path), slow[:1])
    before, whole = pipe.scheduler, pipe.vae
    drawn_with = []
    draw = evaluator._draw
    monkeypatch.setattr(evaluator, "_draw", lambda *args: drawn_with.append(type(pipe.vae).__name__) or draw(*args))
    rows = measure_turbo(evaluator, Extras(turbo=tmp_path), slow)
    assert set(drawn_with) == {"AutoencoderKL"} and rows[0]["small decoder"] is None
    drawn_with.clear()
    folder = save_small_decoder(build_small_decoder(pipe.vae, SmallDecoderConfig()), tmp_path / "small-decoder")
    (folder / "training.json").write_text('{"decoders agree, dB": 31.5}')
    rows = measure_turbo(evaluator, Extras(turbo=tmp_path, small_decoder=folder), slow)
    assert set(drawn_with) == {"AsymmetricAutoencoderKL"} and rows[0]["small decoder"] == 31.5 and pipe.vae is whole
    assert [(row["name"], row["split"], row["n"]) for row in rows] == [(TURBO, split, 1) for split in SPLITS]
    assert pipe.scheduler is before and not pipe.get_active_adapters()


@pytest.mark.parametrize(
    ("name", "told"), [("000025600", (None, 25_600)), ("step-12000", (12_000, None)), ("unet", (None, None))]
)
def test_a_checkpoint_tells_how_far_it_was_trained(name, told, tmp_path):
    from sdwidgets.pocket.evaluation.sections import checkpoint_record, snapshots

    folder = tmp_path / "denoiser" / "snapshots" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    record = checkpoint_record(folder)
    assert (record["step"], record["samples"]) == told
    assert snapshots(tmp_path) == (folder,)


def test_snapshots_are_those_on_the_way_to_the_model(tmp_path):
    """Not of a training that went on, nor from before a new encoder, whose states they could not read."""
    from sdwidgets.pocket.evaluation.sections import snapshots

    for samples in (100, 200, 300, 400):
        folder = tmp_path / "denoiser" / "snapshots" / f"{samples:09d}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    told = lambda *stages: [int(f.name) for f in snapshots(tmp_path, {"denoiser": staged(*stages)})]
    assert told((350, "a")) == [100, 200, 300] and told((200, "a"), (300, "a")) == [100, 200, 300, 400]
    assert told((200, "a"), (150, "b")) == [300] and told((100, "a"), (100, "b"), (150, "b")) == [200, 300]
    assert len(snapshots(tmp_path)) == 4


def test_the_trainings_folder_is_found_for_pocket_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SDWIDGETS_CACHE", str(tmp_path))
    assert evaluate.default_work("pocket") is None
    (tmp_path / "pocket" / "full").mkdir(parents=True)
    assert evaluate.default_work("pocket") == tmp_path / "pocket" / "full"
    assert evaluate.default_work("data/pocket") is None


def test_the_commands_names_are_the_sections():
    from sdwidgets.pocket.evaluation.sections import SECTIONS

    assert tuple(SECTIONS) == evaluate.SECTION_NAMES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "one objekt"], "--rows has no 'one objekt'; there are: .*one object"),
        (["--sections", "beauty"], "--sections has no 'beauty'; there are: exposures"),
        (["--rows", "--sections"], "nothing is to be measured"),
        (["--rows", TURBO], "turbo is compared with every other row: measure those first"),
        (["--rows", TURBO, "--turbo", "nowhere"], "there is no folder nowhere"),
        (["--limit", "0"], "--limit must be 1 or more, not 0"),
        (["--checkpoints", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_wrong_arguments_are_sentences(arguments, words, tmp_path, capsys):
    assert main(["evaluate", "--json", str(tmp_path / "e.json"), *arguments]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_turbo_lora_is_a_sentence(tmp_path, capsys):
    model = tmp_path / "pocket"
    model.mkdir()
    for each in data_folder("pocket").iterdir():
        if each.name != "extras":
            (model / each.name).symlink_to(each)
    assert main(["evaluate", str(model), "--json", str(tmp_path / "e.json"), "--rows", TURBO]) == 2
    assert "needs --turbo FOLDER" in capsys.readouterr().err


def test_a_model_of_another_world_is_a_sentence(tmp_path, capsys):
    assert main(["evaluate", "sd15", "--json", str(tmp_path / "e.json")]) == 2
    assert "evaluate reads Pocket's world" in capsys.readouterr().err
    assert main(["evaluate", "--json", str(tmp_path / "no" / "e.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err

"""The judge of Pocket's pictures: that it reads scenes whose truth is known, and refuses what no one could name."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from sdwidgets.paths import data_folder
from sdwidgets.pocket import judges
from sdwidgets.pocket.evaluation import human_labels
from sdwidgets.pocket.examine_judge import main
from sdwidgets.pocket.judges import Judgement, Seen, calibrate, gate, segment
from sdwidgets.pocket.judges.corruptions import WRECKS, wreck
from sdwidgets.pocket.judges.exam import KINDS, TEST, TUNE, Exam
from sdwidgets.pocket.judges.judge_b import JudgeB
from sdwidgets.pocket.training.trainer import digest
from sdwidgets.pocket.world.layouts import CENTRES, LATTICE
from sdwidgets.pocket.world.scenes import Scene, Thing, pictures_of, render

B = JudgeB()


def read(*scenes: Scene) -> list[Judgement]:
    return B.read(pictures_of(scenes))


def truth(scene: Scene) -> list:
    return sorted(
        (thing.kind, thing.occupation or thing.name, str(thing.colour), str(thing.gender), str(thing.tone))
        for thing in scene.things
    )


def told(judged: Judgement) -> list:
    return sorted((seen.kind, seen.name, str(seen.colour), str(seen.gender), str(seen.tone)) for seen in judged.things)


# ---- questions ---------------------------------------------------------------------------------------------------

CAT, DOG = Seen("object", "cat", 33, 64, 50), Seen("object", "dog", 95, 60, 50)
STAR = Seen("shape", "star", 64, 34, 48, colour="red")
BLOB = Seen("broken", "cat", 64, 95, 50)


def test_relation_is_the_larger_difference_of_the_centres():
    pair = Judgement("blue", things=(CAT, DOG))
    assert judges.relation(pair, "cat", "dog") == "to the left of"
    assert judges.relation(pair, "dog", "cat") == "to the right of"
    upright = Judgement("blue", things=(STAR, Seen("object", "cat", 66, 95, 50)))
    assert judges.relation(upright, "star", "cat") == "above"
    assert judges.relation(upright, "cat", "star") == "below"


def test_relation_needs_each_thing_once():
    assert judges.relation(Judgement("blue", things=(CAT,)), "cat", "dog") is None
    assert judges.relation(Judgement("blue", things=(CAT, CAT, DOG)), "cat", "dog") is None
    assert judges.relation(Judgement("blue", things=(CAT, DOG)), "cat", "cat") is None


def test_broken_things_are_counted_but_have_no_name():
    judged = Judgement("blue", things=(CAT, BLOB))
    assert judges.count(judged) == 2
    assert judges.count(judged, "cat") == 1
    assert judges.only(Judgement("blue", things=(DOG, CAT)), "cat", "dog")
    assert not judges.only(judged, "cat")


def test_colours_places_and_persons():
    assert judges.colour_of(Judgement("blue", things=(STAR, CAT)), "star") == "red"
    blue = Seen("shape", "star", 90, 90, 48, colour="blue")
    assert judges.colour_of(Judgement("gray", things=(STAR, blue)), "star") is None
    assert judges.place(Judgement("gray", things=(STAR,))) == "at the top"
    with pytest.raises(ValueError, match="one thing; this one has 2"):
        judges.place(Judgement("gray", things=(CAT, DOG)))
    cook = Seen("person", "cook", 64, 64, 98, occupation="cook", gender="woman", tone="dark skinned")
    assert judges.person(Judgement("gray", things=(cook, CAT))) is cook
    assert judges.person(Judgement("gray", things=(CAT,))) is None


# ---- seeing ------------------------------------------------------------------------------------------------------


def flooded(mask: np.ndarray) -> list[frozenset]:
    """Connected components by the textbook's flood fill."""
    left, parts = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        part, front = set(), [left.pop()]
        while front:
            y, x = front.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
        parts.append(frozenset(part))
    return parts


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6])
def test_labels_are_the_connected_components(share):
    mask = np.random.default_rng(3).random((40, 30)) < share
    labels = segment.label(mask)
    assert ((labels > 0) == mask).all()
    found = [frozenset(zip(*np.nonzero(labels == number), strict=True)) for number in range(1, labels.max() + 1)]
    assert set(found) == set(flooded(mask))


@pytest.mark.parametrize("kind", ["one object", "one shape", "two objects", "two shapes", "several", "portrait"])
def test_b_reads_true_scenes(kind):
    for number in range(300, 303):
        scene = TEST.scene(kind, number)
        judged = read(scene)[0]
        assert told(judged) == truth(scene)
        assert (judged.background, judged.style, judged.watermark) == (scene.background, "plain", False)
        for thing, seen in zip(scene.things, gate.match(scene, judged), strict=True):
            assert abs(seen.x - thing.x) < 8 and abs(seen.y - thing.y) < 8


def test_parts_of_one_thing_are_one_and_two_things_two_pixels_apart_are_two():
    footprints = Scene(0, "", "white", (Thing("object", "footprints", 64, 64, 106),))
    close = (Thing("object", "cherries", 37, 64, 52), Thing("object", "cherries", 91, 64, 52))
    alone, pair = read(footprints, Scene(0, "", "yellow", close))
    assert [seen.name for seen in alone.things] == ["footprints"]
    assert [seen.name for seen in pair.things] == ["cherries", "cherries"]


def test_confetti_is_not_counted():
    for number in (3, 40, 77):
        scene = TEST.scene("confetti", number)
        judged = read(scene)[0]
        assert told(judged) == truth(scene) and judged.background == scene.background


def test_styles_and_watermark_are_seen():
    styles = ("pixel art", "pencil sketch", "blueprint")
    for name in ("zebra", "cat"):
        thing = Thing("object", name, 60, 66, 68)
        for style in styles:
            judged = read(Scene(0, "", "yellow", (thing,), style))[0]
            assert (judged.style, [seen.name for seen in judged.things]) == (style, [name])
        marked, plain = (read(Scene(0, "", "yellow", (thing,), watermark=is_marked))[0] for is_marked in (True, False))
        assert marked.watermark and not plain.watermark and plain.style == "plain"


def test_an_empty_picture_has_no_things():
    judged = B.read(np.full((1, 128, 128, 3), (60, 165, 70), np.uint8))[0]
    assert judged == Judgement("green")


@pytest.mark.parametrize("kind", WRECKS)
def test_wrecks_are_refused(kind):
    judged = B.read(np.stack([wreck(TEST, kind, number) for number in range(12)]))
    refused = sum(all(seen.kind == "broken" for seen in one.things) for one in judged)
    assert refused >= (11 if kind in ("shuffle", "noise") else 9)


def test_exams_have_streams_of_their_own():
    assert TEST.scene("one object", 4) == TEST.scene("one object", 4)
    assert TEST.scene("one object", 4) != TUNE.scene("one object", 4)
    names = {TEST.scene("one object", number).things[0].name for number in range(216)}
    assert len(names) == 216


# ---- the gate ----------------------------------------------------------------------------------------------------


def test_the_gate_balances_over_classes_and_names_the_worst():
    right, wrong = gate.Answer("shape", "star", "star"), gate.Answer("shape", "heart", "broken")
    rows = gate.table_of([right] * 9 + [wrong], wanted=0.9)
    assert rows["shape"]["rate"] == 0.9 and rows["shape"]["balanced"] == 0.5
    assert rows["shape"]["worst"] == {"class": "heart", "rate": 0.0, "n": 1}
    assert rows["shape"]["confusions"] == {"heart": {"broken": 1}}
    assert not rows["shape"]["passes"]


def test_the_gate_of_b_on_a_few_true_scenes():
    result = gate.gate(B, share=0.01)
    for attribute in ("background", "count", "object", "shape", "shape colour", "occupation", "relation"):
        assert result["true renders"][attribute]["passes"], result["true renders"][attribute]
    assert "reconstructions" not in result
    assert json.loads(json.dumps(result)) and gate.as_lines(result)


def test_the_exam_stands_on_the_lattice_as_what_pocket_draws():
    free = set()
    for kind in KINDS:
        for number in range(20):
            for thing in TEST.scene(kind, number).things:
                assert thing.size in (48, 64, 96) and {thing.x, thing.y} <= set(CENTRES)
            free |= {thing.size for thing in TUNE.scene(kind, number).things}
    assert TEST.layout is LATTICE and TUNE == Exam(2) and len(free) > 20


def test_the_gate_tells_what_it_was_run_on(monkeypatch, tmp_path):
    monkeypatch.setattr(gate, "COUNTS", {"one shape": 2})
    monkeypatch.setattr(gate, "WRECK_COUNT", 1)
    monkeypatch.setattr(gate, "reconstructed", lambda vae, pictures: pictures)
    vae = torch.nn.Linear(2, 2)
    told = gate.gate(B, vae, share=0.5)
    assert (told["scenes"], told["share"], told["lattice"], told["vae"]) == (1, 0.5, True, digest(vae))
    assert gate.gate(B, exam=TUNE)["lattice"] is False and gate.gate(B)["vae"] is None
    file = tmp_path / "gate.json"
    assert main(["gate", "--true-only", "--json", str(file)]) == 0
    assert json.loads(file.read_text()) == gate.gate(judges.load())


def test_fit_sets_the_limits_on_reconstructions(tmp_path):
    vae = data_folder("pocket") / "vae"
    assert main(["fit", "--vae", str(vae), "--share", "0.01", "--output", str(tmp_path)]) == 0
    limits = judges.load(tmp_path).limits
    assert 0 < limits.distance <= calibrate.MOST[0] and 0 < limits.share <= calibrate.MOST[1]


def test_the_shipped_gate_is_what_it_says():
    """Each verdict follows from its own figures, and the reconstructions are by the autoencoder that is shipped."""
    result = json.loads((data_folder("judges") / "gate.json").read_text())
    assert result["wanted"] == gate.WANTED
    for shown, wanted in result["wanted"].items():
        for attribute, row in result[shown].items():
            assert row["passes"] == (row["balanced"] >= wanted), attribute
            assert row["worst"]["rate"] <= row["balanced"] and row["low"] <= row["rate"] <= row["high"]
            wrong = sum(count for instead in row["confusions"].values() for count in instead.values())
            assert wrong == row["n"] - round(row["rate"] * row["n"]), attribute
    assert set(result["refused"]) == set(WRECKS)
    assert result["vae"] == digest(AutoencoderKL.from_pretrained(data_folder("pocket") / "vae"))
    assert result["grid"] is True and result["scenes"] == len(TEST.scenes(gate.COUNTS, result["share"]))


# ---- sentences -----------------------------------------------------------------------------------------------------


def test_bad_input_gets_one_sentence(capsys, tmp_path):
    with pytest.raises(ValueError, match=r"uint8 pictures of shape \(n, 128, 128, 3\), not float64"):
        B.read(np.zeros((1, 128, 128, 3)))
    with pytest.raises(ValueError, match=r"picture\[None\]"):
        B.read(np.zeros((128, 128, 3), np.uint8))
    with pytest.raises(ValueError, match="no kind of scene is named 'cats'"):
        TEST.scene("cats", 0)
    with pytest.raises(ValueError, match="no wreck is named 'rust'"):
        wreck(TEST, "rust", 0)
    with pytest.raises(ValueError, match="above 0 and at most 1, not 2"):
        gate.gate(B, share=2)
    with pytest.raises(FileNotFoundError, match="examine_judge fit"):
        judges.load(tmp_path)
    assert main(["gate", "--vae", str(tmp_path / "none")]) == 2
    assert "there is no autoencoder" in capsys.readouterr().err


def test_what_no_scene_ever_drew_is_not_named():
    rng = np.random.default_rng(5)
    assert all(
        seen.kind == "broken" for seen in B.read(rng.integers(256, size=(1, 128, 128, 3), dtype=np.uint8))[0].things
    )
    picture = np.asarray(render(TEST.scene("one object", 9)))
    assert B.read(picture[None])[0].things[0].score > 0.9


def test_the_judge_and_an_eye_are_compared_picture_by_picture():
    def told(judge, row="one object"):
        return {"row": row, "split": "seen", "caption": "a cat", "judge": judge, "asked": "cat", "seen": "dog"}

    readings = [told(True), told(True), told(False), told(False, "relation")]
    found = human_labels.agreement(readings, {1, 2}, "a test")
    assert (found["n"], found["rate"]) == (4, 0.5) and found["kappa"] == 0.0
    assert (found["judge too kind"], found["judge too strict"]) == (1, 1)
    assert [one["number"] for one in found["differ"]] == [1, 3] and found["differ"][0]["eye"] is False
    assert found["rows"]["one object"]["n"] == 3 and found["rows"]["relation"]["rate"] == 0.0
    assert human_labels.agreement(readings, {2, 3}, "a test")["kappa"] == 1.0
    with pytest.raises(ValueError, match=r"pictures 0 to 3, and none has the numbers \[4\]"):
        human_labels.agreement(readings, {4}, "a test")


def test_sheets_for_the_eye_hide_what_the_judge_said(tmp_path):
    class Grey:
        """An evaluator whose pictures are grey and whose judge sees nothing in them."""

        judge = SimpleNamespace(read=lambda pictures: [Judgement("gray")] * len(pictures))

        def pictures(self, label, scenes):
            yield scenes, np.full((len(scenes), 128, 128, 3), 128, np.uint8)

    drawn = human_labels.read_readings(human_labels.draw(Grey(), tmp_path, 60, weights="0").parent)
    readings = drawn["readings"]
    assert drawn["weights"] == "0"
    assert len(readings) == 60 and not any(one["judge"] for one in readings)
    counted = Counter((one["row"], one["split"]) for one in readings)
    assert len(counted) == 12 and set(counted.values()) == {5}
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["sheet-000.png", "sheet-050.png"]
    with pytest.raises(FileNotFoundError, match="with the verb `eye`"):
        human_labels.read_readings(tmp_path / "nowhere")


def test_a_label_names_what_is_recognised():
    things = (Seen("shape", "circle"), Seen("broken", "star"), Seen("person", "cook"))
    assert judges.label(Judgement("blue", things=things)) == "circle, cook"
    assert judges.label(Judgement("blue", things=things[1:2])) == judges.label(Judgement("blue")) == "?"

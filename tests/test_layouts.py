"""Pocket's lattice: all things of one size stand at one phase, and all pictures of a caption can be listed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from sdwidgets.paths import data_folder
from sdwidgets.pocket.training.vae import to_tensor
from sdwidgets.pocket.world import datasheet as sheet
from sdwidgets.pocket.world.alternatives import alternatives
from sdwidgets.pocket.world.datasheet import FULL
from sdwidgets.pocket.world.layouts import CENTRES, LATTICE, UNSAID_SIZES, on_lattice, to_lattice
from sdwidgets.pocket.world.scenes import (
    RELATIONS,
    SIZE,
    Scene,
    Stream,
    Thing,
    make_scene,
    render,
    silhouette,
    wordless_scene,
)
from sdwidgets.pocket.world.vocabulary import COLOURS, TONES, article

NINE = set(itertools.product(CENTRES, CENTRES))
MIDDLE = (64, 64)
TEN = sheet.COURSE_OBJECTS[::4]


def tied(scene: Scene) -> bool:
    """Whether more than the thing itself ties what is drawn to its place."""
    return bool(scene.watermark or scene.confetti or scene.style == "pencil sketch")


# ---- the lists of spots --------------------------------------------------------------------------------------------


def by_size(spots: dict) -> dict[int, float]:
    """The probability of each size."""
    sizes: dict[int, float] = {}
    for (_, _, size), odds in spots.items():
        sizes[size] = sizes.get(size, 0) + odds
    return {size: pytest.approx(odds) for size, odds in sizes.items()}


def test_a_plain_single_has_nineteen_spots():
    spots = LATTICE.singles()
    assert len(spots) == 19 and sum(spots.values()) == pytest.approx(1)
    assert UNSAID_SIZES == by_size(spots)
    assert {(x, y) for x, y, size in spots if size == 48} == {(x, y) for x, y, size in spots if size == 64} == NINE
    assert [(x, y) for x, y, size in spots if size == 96] == [(64, 64)]
    for size in UNSAID_SIZES:
        assert len({round(odds, 12) for spot, odds in spots.items() if spot[2] == size}) == 1, "each place alike"


def test_a_size_word_says_the_size_alone():
    assert set(LATTICE.singles("small")) == {(*centre, 48) for centre in NINE}
    assert set(LATTICE.singles("small").values()) == {1 / 9}
    assert LATTICE.singles("large") == {(64, 64, 96): 1}


@pytest.mark.parametrize(
    ("place", "side", "at"),
    [("on the left", 0, 32), ("on the right", 0, 96), ("at the top", 1, 32), ("at the bottom", 1, 96)],
)
def test_a_place_fixes_one_side_and_leaves_the_other_free(place, side, at):
    for size_word, sizes in ((None, {64: 0.7 / 0.9, 48: 0.2 / 0.9}), ("small", {48: 1})):
        spots = LATTICE.singles(size_word, place)
        assert len(spots) == 3 * len(sizes) and sizes == by_size(spots)
        assert {spot[side] for spot in spots} == {at}
        for size in sizes:
            free = Counter({spot[1 - side]: odds for spot, odds in spots.items() if spot[2] == size})
            assert set(free) == set(CENTRES) and len({round(odds, 12) for odds in free.values()}) == 1


@pytest.mark.parametrize("relation", [*RELATIONS, None])
def test_a_relation_has_seven_layouts_of_which_no_other_relation_holds_as_strongly(relation):
    pairs = LATTICE.pairs(relation)
    assert len(pairs) == len(set(pairs)) == 7
    (x, y), (u, v) = RELATIONS[relation or "to the left of"]  # "and" is drawn as "to the left of"
    for first, second in pairs:
        dx, dy = second[0] - first[0], second[1] - first[1]
        if x != u:
            assert dx == (64 if u > x else -64) and abs(dy) <= 32
        else:
            assert dy == (64 if v > y else -64) and abs(dx) <= 32
        for spot in (first, second):
            assert spot[2] == 48 and spot[:2] in NINE


@pytest.mark.parametrize(("count", "layouts"), [(2, 16), (3, 8), (4, 1)])
def test_alike_things_stand_apart_and_inside_the_picture(count, layouts):
    groups = LATTICE.groups(count)
    assert len(groups) == len({frozenset(group) for group in groups}) == layouts
    for group in groups:
        assert len(group) == count
        for x, y, size in group:
            assert size == 48 and (x, y) in NINE and 24 <= min(x, y) and max(x, y) <= SIZE - 24
        for a, b in itertools.combinations(group, 2):
            assert max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= 64
    if count == 4:
        assert {spot[:2] for spot in groups[0]} == set(itertools.product((32, 96), (32, 96)))


# ---- FULL's scenes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    """Scenes from all over FULL."""
    return [make_scene(FULL, index) for index in range(0, FULL.count, 23)]


def test_all_things_of_one_size_stand_at_one_phase(drawn):
    phases: dict[int, set] = {}
    for thing in (thing for scene in drawn for thing in scene.things):
        phases.setdefault(thing.size, set()).add(tuple((side - thing.size // 2) % 32 for side in (thing.x, thing.y)))
    assert phases == {48: {(8, 8)}, 64: {(0, 0)}, 96: {(16, 16)}}, "of a thing's corner"
    singles = {(t.x, t.y, t.size) for scene in drawn if len(scene.things) == 1 for t in scene.things}
    assert singles == set(LATTICE.singles()), "each of the nineteen is used, and no other"


def test_no_two_things_overlap(drawn):
    together = [scene for scene in drawn if len(scene.things) > 1]
    assert {len(scene.things) for scene in together} == {2, 3, 4}
    for scene in together:
        assert {thing.size for thing in scene.things} == {48}
        for a, b in itertools.combinations(scene.things, 2):
            assert max(abs(a.x - b.x), abs(a.y - b.y)) >= 64, scene
    for count in (2, 3, 4):
        alike = [s for s in together if len(s.things) == count and len({t.words for t in s.things}) == 1]
        used = {tuple((t.x, t.y, t.size) for t in s.things) for s in alike}
        assert used == set(LATTICE.groups(count)), "each layout is drawn, and no other"


def test_what_is_large_or_tied_to_its_place_stands_in_the_middle(drawn):
    kinds = Counter()
    for scene in drawn:
        for thing in scene.things:
            assert thing.size != 96 or (thing.x, thing.y) == (64, 64), scene
        if len(scene.things) == 1 and scene.things[0].kind == "person":
            assert scene.things[0].size == 96
        if tied(scene):
            kinds[scene.watermark, bool(scene.confetti), scene.style] += 1
            assert [(t.x, t.y, t.size) for t in scene.things] == [(64, 64, 64)], scene
            assert scene.size_word is None and scene.place is None
    assert set(kinds) == {(True, False, "plain"), (False, True, "plain"), (False, False, "pencil sketch")}
    assert min(kinds.values()) > 50


# ---- scenes moved onto the lattice ---------------------------------------------------------------------------------


def test_on_lattice_moves_the_things_and_leaves_the_rest():
    spots: dict[int, Counter] = {count: Counter() for count in (1, 2, 3, 4)}
    for number in range(600):
        scene = wordless_scene(0, number)
        moved = on_lattice(scene, Stream(5, number))
        assert moved == on_lattice(scene, Stream(5, number))
        there = tuple((thing.x, thing.y, thing.size) for thing in moved.things)
        back = tuple(replace(m, x=t.x, y=t.y, size=t.size) for m, t in zip(moved.things, scene.things, strict=True))
        assert replace(moved, things=back) == scene
        if tied(scene) and len(there) == 1:
            assert there == ((64, 64, 64),)
        else:
            spots[len(there)][there] += 1
    assert set(spots[1]) == {(spot,) for spot in LATTICE.singles()}
    sizes = Counter({size: sum(n for ((_, _, own),), n in spots[1].items() if own == size) for size in UNSAID_SIZES})
    assert min(sizes.values()) > 0.2 * sizes.total(), "each size as probable as any other"
    for count in (2, 3, 4):
        assert set(spots[count]) == set(LATTICE.groups(count))


# ---- pictures from outside -----------------------------------------------------------------------------------------


def outside(box: tuple[int, int, int, int], size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    """A red box on a blue ground: what somebody drew, with no thought of the lattice."""
    picture = Image.new("RGB", size, "blue")
    picture.paste((255, 0, 0), box)
    return picture


@pytest.mark.parametrize(
    ("box", "centre", "sides"),
    [
        ((3, 5, 53, 55), (32, 32), (48, 48)),  # 50 pixels near a corner
        ((20, 40, 90, 80), (64, 64), (64, 37)),  # wide: its longer side counts, its shape stays
        ((70, 64, 110, 124), (96, 96), (43, 64)),
        ((0, 0, 100, 100), (64, 64), (96, 96)),  # as large as this only in the middle
        ((60, 60, 64, 64), (64, 64), (48, 48)),  # a speck is enlarged
    ],
)
def test_to_lattice_scales_a_thing_and_moves_it_to_the_nearest_place(box, centre, sides):
    moved = to_lattice(outside(box))
    left, top, right, bottom = silhouette(moved).getbbox()
    assert (right - left, bottom - top) == pytest.approx(sides, abs=2)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(centre, abs=1)
    assert moved.getpixel((127, 127)) == (0, 0, 255) and moved.getpixel(centre) == (255, 0, 0)


def test_to_lattice_takes_pictures_of_every_size_and_mode():
    large = to_lattice(outside((200, 200, 300, 300), (512, 512)))
    assert large.size == (SIZE, SIZE) and silhouette(large).getbbox() == pytest.approx((40, 40, 88, 88), abs=2)
    grey = to_lattice(silhouette(outside((10, 10, 50, 60))))
    assert grey.mode == "L" and grey.getextrema() == (0, 255)
    with pytest.raises(ValueError, match="nothing but its background"):
        to_lattice(Image.new("RGB", (SIZE, SIZE), "white"))


@pytest.mark.parametrize("size", UNSAID_SIZES)
def test_to_lattice_leaves_what_stands_there(size):
    for name in TEN:
        picture = render(Scene(0, "", "blue", (Thing("object", name, *MIDDLE, size),)))
        before, after = (np.asarray(silhouette(shown)) > 0 for shown in (picture, to_lattice(picture)))
        assert (before & after).sum() / (before | after).sum() > 0.7, name


# ---- why: latents move along ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(data_folder("pocket") / "vae").eval()


@torch.no_grad()
def latents_of(autoencoder: AutoencoderKL, names, centre, size: int, style: str, **extra) -> torch.Tensor:
    """The latents of things' own cells, each thing on another background: (10, 4, size / 8, size / 8)."""
    scenes = [
        Scene(0, "", colour, (Thing("object", name, *centre, size),), style, **extra)
        for name, colour in zip(names, COLOURS, strict=True)
    ]
    pictures = to_tensor(np.stack([np.asarray(render(scene)) for scene in scenes]))
    across, down = (slice((side - size // 2) // 8, (side + size // 2) // 8) for side in centre)
    return autoencoder.encode(pictures).latent_dist.mode()[:, :, down, across]


def moved_by(autoencoder: AutoencoderKL, places, size: int, style: str, **extra) -> dict[tuple[int, int], float]:
    """Place -> mean squared difference of latents from the middle place, over the variance between objects there."""
    middle = latents_of(autoencoder, TEN, MIDDLE, size, style, **extra)
    others = latents_of(autoencoder, (*TEN[1:], TEN[0]), MIDDLE, size, style, **extra)
    between = (middle - others).square().mean() / 2  # the variance: half the mean square difference of two
    return {
        place: float((latents_of(autoencoder, TEN, place, size, style, **extra) - middle).square().mean() / between)
        for place in places
    }


@pytest.mark.parametrize("style", ["plain", "pixel art"])
@pytest.mark.parametrize("size", [48, 64])
def test_a_thing_has_the_same_latents_at_each_of_its_places(autoencoder, size, style):
    """But for .06 of the variance between objects; .033 is the most, at the corner (96, 96)."""
    moved = moved_by(autoencoder, NINE - {MIDDLE}, size, style)
    assert len(moved) == 8 and 0 < max(moved.values()) <= 0.06, moved


def test_what_stands_in_the_middle_only_would_not_have(autoencoder):
    """A watermark lies over a thing otherwise at each place, and a sketch is cut off at the border."""
    for style, extra in (("plain", {"watermark": True}), ("pencil sketch", {})):
        assert moved_by(autoencoder, [(32, 32)], 64, style, **extra)[32, 32] > 0.06


# ---- all pictures of a caption -------------------------------------------------------------------------------------


def law(name: str, numbers: Iterable[int]) -> list[Scene]:
    """Scenes by the law of FULL's block `name`, which no training shows."""
    return [FULL.another(name, number) for number in numbers]


def said(scenes: Iterable[Scene], background: bool = True) -> list[Scene]:
    """Those whose caption says the background, or those whose caption does not."""
    return [scene for scene in scenes if scene.caption.endswith(" background") == background]


BLOCKS = (
    "one object", "one shape", "two objects", "two shapes", "several", "styled", "stock photo", "person and object",
    "portrait, marked: artist", "portrait, unmarked: doctor", "tail: cookie", "nameless",
)  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS)
def test_alternatives_hold_the_scenes_own_picture_and_sum_to_one(block):
    assert {name.partition(":")[0] for name in (*BLOCKS, "confetti")} == {
        b.name.partition(":")[0] for b in FULL.blocks
    }
    scenes = law(block, range(25))
    for scene in (*said(scenes)[:6], *said(scenes, False)[:1]):
        found = alternatives(scene)
        assert sum(odds for _, odds in found) == pytest.approx(1) and min(odds for _, odds in found) > 0
        assert len({picture for picture, _ in found}) == len(found)
        assert {(picture.caption, picture.index) for picture, _ in found} == {(scene.caption, scene.index)}
        assert sum(replace(picture, shade=scene.shade) == scene for picture, _ in found) == 5, "up to the shade"


def test_alternatives_are_as_many_as_a_caption_leaves_open():
    def counted(name: str, fits: Callable[[Scene], bool] = lambda scene: True, background: bool = True) -> set[int]:
        return {len(alternatives(scene)) for scene in said(law(name, range(150)), background) if fits(scene)}

    unplaced = lambda scene: scene.place is None and scene.size_word is None
    assert counted("one object", unplaced) == {95}
    assert counted("one object", unplaced, background=False) == {95 * 9}, "all backgrounds but the one held out"
    assert counted("one object", lambda scene: scene.size_word == "large") == {5}
    assert counted("one object", lambda scene: scene.place is not None) == {30, 15}
    assert counted("tail: cookie", unplaced, background=False) == {95 * 5}
    assert counted("two objects") == counted("two shapes") == {35}
    assert counted("person and object", lambda scene: "skinned" in scene.caption) == {35}
    assert counted("person and object", lambda scene: "skinned" not in scene.caption) == {35 * 5}
    for count, pictures in ((2, 80), (3, 40), (4, 5)):
        assert counted("several", lambda scene, count=count: len(scene.things) == count) == {pictures}
    assert counted("styled", lambda scene: scene.style == "pencil sketch") == counted("stock photo") == {5}
    assert counted("portrait, marked: artist") == {5, 25} and counted("portrait, unmarked: artist") == {50}


def test_pictures_amid_confetti_have_no_end():
    with pytest.raises(ValueError, match="cannot be listed"):
        alternatives(make_scene(FULL, FULL.indices("confetti")[0]))


def told(scene: Scene, feature: Callable[[Scene], object]) -> Counter:
    """A feature's values in all pictures of the scene's caption, with their probabilities."""
    odds = Counter()
    for picture, probability in alternatives(scene):
        odds[feature(picture)] += probability
    return odds


def drift(scenes: list[Scene], feature: Callable, like: Callable, kinds: int = 1) -> float:
    """How far a feature's frequencies lie from what `alternatives` says: chi-square, in deviations above its mean.

    `like`: what of a scene decides how probable the values are; `kinds`: of scenes that have no value in common.
    """
    found, laws, expected = Counter(map(feature, scenes)), {}, Counter()
    for scene in scenes:
        if (kind := like(scene)) not in laws:
            laws[kind] = told(scene, feature)
        for value, odds in laws[kind].items():
            expected[value] += odds
    assert set(found) <= set(expected)
    square = sum((found[value] - mean) ** 2 / mean for value, mean in expected.items())
    free = len(expected) - kinds
    return (square - free) / (2 * free) ** 0.5


FAR = 3.5  # deviations; with the fixed streams here .9 is the most


def kind_of(scene: Scene) -> tuple:
    """What a caption says of sizes, places and numbers."""
    return scene.size_word, scene.place, scene.relation, len(scene.things), len({t.words for t in scene.things})


def spots(scene: Scene) -> tuple:
    return kind_of(scene), *((thing.x, thing.y, thing.size) for thing in scene.things)


@pytest.mark.parametrize("block", ["one object", "two objects", "several", "person and object", "nameless"])
def test_places_and_sizes_are_drawn_as_often_as_told(block):
    count = next(b.count for b in FULL.blocks if b.name == block)
    scenes = said(law(block, range(min(4_000, count))))
    assert drift(scenes, spots, kind_of, kinds=len(set(map(kind_of, scenes)))) < FAR


def test_unsaid_backgrounds_of_objects_are_drawn_as_often_as_told():
    counts = {"one object": 1_500, "tail: cookie": 500, "two objects": 1_500}
    scenes = said([scene for block, count in counts.items() for scene in law(block, range(count))], False)
    assert len(scenes) > 300
    assert drift(scenes, lambda scene: scene.background, lambda scene: scene.caption) < FAR


def test_unsaid_backgrounds_of_shapes_are_drawn_as_often_as_told():
    """Given its colour, a circle stands more rarely on the colour that it never has: there, one more was to choose from."""
    own = sheet.HELD_OUT_SHAPE_COLOURS["circle"]
    scenes = []
    for number in range(15_000):
        parts = sheet.one_shape(Stream(77, number), 0, 1, LATTICE)
        scenes.append(Scene(0, parts.pop("words"), **parts))
    odds = told(scenes[0], lambda scene: scene.background)
    assert odds[own] == min(odds.values()) < 0.95 * max(odds.values())
    assert drift(scenes, lambda scene: scene.background == own, lambda scene: scene.caption) < FAR
    assert drift(scenes, lambda scene: scene.background, lambda scene: scene.caption) < FAR


@pytest.mark.parametrize("occupation", [name for name, plan in sheet.PLANTED_OCCUPATIONS.items() if plan.unmarked])
def test_a_portrait_that_names_no_gender_shows_women_as_often_as_told(occupation):
    """Exactly so, since FULL's portraits have exact shares; tones evenly."""
    scenes = [make_scene(FULL, index) for index in FULL.indices(f"portrait, unmarked: {occupation}")]
    for feature in (lambda scene: scene.things[0].gender, lambda scene: scene.things[0].tone):
        odds, shown = told(said(scenes)[0], feature), Counter(map(feature, scenes))
        assert shown == {value: pytest.approx(share * len(scenes)) for value, share in odds.items()}


def test_a_portrait_is_whom_its_caption_names():
    for scene in said(law("portrait, marked: artist", range(60))):
        (own,) = scene.things
        people = {(picture.things[0].gender, picture.things[0].tone) for picture, _ in alternatives(scene)}
        toned = scene.caption.startswith(article(f"{own.tone} {own.gender} artist"))
        assert people == ({(own.gender, own.tone)} if toned else {(own.gender, tone) for tone in TONES})

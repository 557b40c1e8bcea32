"""A caption is read back as what the scene shows that it was written for."""

from __future__ import annotations

import pytest

from sdwidgets.pocket.evaluation import prompt_sets
from sdwidgets.pocket.world.captions import scene_of
from sdwidgets.pocket.world.datasheet import FULL


def test_every_kind_of_caption_is_read_back():
    read = set()
    for block in FULL.blocks:
        if block.name.startswith(("confetti", "nameless")):
            continue
        for number in range(0, block.count, max(1, block.count // 40)):
            scene = FULL.another(block.name, number)
            found = scene_of(scene.caption)
            view = (
                prompt_sets.what_and_where
                if len(scene.things) == 2 and scene.things[0].name != scene.things[1].name
                else prompt_sets.what
            )
            assert view(found) == view(scene), scene.caption
            assert (found.relation, found.place, found.size_word) == (scene.relation, scene.place, scene.size_word)
            assert (found.style, found.watermark) == (scene.style, scene.watermark)
            if scene.caption.endswith(" background"):
                assert found.background == scene.background
            for thing, other in zip(found.things, scene.things, strict=True):
                if thing.kind == "person" and f" {other.gender} " in f" {scene.caption} ":
                    assert thing.gender == other.gender and (
                        other.tone not in scene.caption or thing.tone == other.tone
                    )
            read.add(block.name.partition(":")[0])
    assert len(read) > 8


@pytest.mark.parametrize(
    ("caption", "what"),
    [("", "''"), ("a unicorn's dream", '"unicorn\'s dream"'), ("a cat and a zygote on a red background", "'zygote'"), ("five cats", "'five cats'"),
     ("a circle", "'circle'"), ("a red cat", "'red cat'"), ("confetti around a cat", "'confetti around a cat'")],
)  # fmt: skip
def test_what_is_not_of_the_grammar_is_named(caption, what):
    with pytest.raises(ValueError, match="is no thing of Pocket's world") as error:
        scene_of(caption)
    assert what in str(error.value)

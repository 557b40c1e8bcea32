"""What Pocket's CLIP knows of a picture: the probe on made numbers, the embeddings on the carried model."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import CLIPTextModel

from sdwidgets.paths import data_folder
from sdwidgets.pocket.evaluation import image_probe
from sdwidgets.pocket.training import clip


@pytest.fixture
def clusters():
    """(known, words, unread, their words): three words as three places in a space of eight."""
    rng, places = np.random.default_rng(0), np.eye(3, 8)
    words = np.arange(90) % 3
    rows = places[words] + 0.1 * rng.normal(size=(90, 8))
    named = [f"word {word}" for word in words]
    return rows[:60], named[:60], rows[60:], named[60:]


def test_a_linear_probe_reads_what_lies_apart_and_nothing_from_noise(clusters):
    known, words, unread, true = clusters
    assert image_probe.linear_probe(known, words, unread) == true
    noise = np.random.default_rng(1).normal(size=known.shape)
    read = image_probe.linear_probe(noise, words, unread)
    assert np.mean([one == other for one, other in zip(read, true, strict=True)]) < 0.8


def test_rows_that_do_not_fit_are_refused(clusters):
    known, words, unread, _ = clusters
    with pytest.raises(ValueError, match="a word for each"):
        image_probe.linear_probe(known, words[:-1], unread)
    with pytest.raises(ValueError, match="all of one width"):
        image_probe.linear_probe(known, words, unread[:, :-1])
    with pytest.raises(ValueError, match="a count from 1"):
        image_probe.single_objects(0)


def test_the_carried_clip_knows_one_object_from_another():
    """Of the same name embeddings lie nearer than of others, whatever size, place and background."""
    encoder = CLIPTextModel.from_pretrained(data_folder("pocket") / "text_encoder")
    towers = clip.read_clip(data_folder("pocket") / "extras" / "clip", encoder)
    scenes = image_probe.single_objects(120)
    assert scenes == image_probe.single_objects(120) and len({scene.index for scene in scenes}) == 120
    found = image_probe.embed_scenes(towers, scenes, batch_size=50)
    assert found.shape == (120, 128) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    names = np.array([scene.things[0].name for scene in scenes])
    cosines, same = found @ found.T, names[:, None] == names
    np.fill_diagonal(same, False)
    others = ~same & ~np.eye(120, dtype=bool)
    assert cosines[same].mean() > cosines[others].mean() + 0.1

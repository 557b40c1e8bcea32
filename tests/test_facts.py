"""Facts: every figure has a source, an address and a way in which it was seen."""

from __future__ import annotations

import pytest

from sdwidgets.course.facts import fact, facts
from sdwidgets.loading.catalog import MODELS
from sdwidgets.paths import data_folder


@pytest.mark.parametrize("key", list(facts()))
def test_every_fact_is_sourced(key):
    entry = facts()[key]
    assert entry.source and entry.address.startswith("https://")
    assert entry.seen in {"primary text", "derived from the published configuration", "reported by a secondary page"}
    assert isinstance(entry.value, (int, float))


def test_the_model_table_and_the_facts_agree():
    assert fact("sd15.unet.parameters") == MODELS["sd15"].denoiser_parameters


def test_no_fact_stands_twice():
    keys = [
        line.split(",")[0] for file in data_folder("facts").glob("*.csv") for line in file.read_text().splitlines()[1:]
    ]
    assert not {key for key in keys if keys.count(key) > 1}


def test_an_unknown_key_names_the_closest():
    with pytest.raises(KeyError, match=r"did you mean 'sd15\.unet\.parameters'"):
        fact("sd15.unet.parameter")

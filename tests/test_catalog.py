"""The table of models: consistent, derived where it says so, and readable without torch."""

from __future__ import annotations

import math
import subprocess
import sys

import diffusers
import pytest

from sdwidgets.loading.catalog import MODELS, closest, find_model
from sdwidgets.loading.checkpoint import check_folder, read_header
from sdwidgets.paths import data_folder

ROWS = pytest.mark.parametrize("row", MODELS.values(), ids=MODELS)


@ROWS
def test_row_is_consistent(row):
    assert MODELS[row.name] is row and row.name == row.name.lower()
    assert row.licence and row.licence_url.startswith("https://")
    assert 0 < row.denoiser_parameters < row.parameters
    assert row.native_size % 64 == 0 and 1 <= row.steps <= 1000 and 0 <= row.guidance <= 50
    assert issubclass(getattr(diffusers, row.family), diffusers.DiffusionPipeline)
    assert row.verified, "a row without a date says why"
    assert row.revision is None or len(row.revision) == 40


@ROWS
def test_sizes_follow_from_the_parameters(row):
    if row.hub_id is None:
        assert row.download == row.download_full == 0
    else:
        assert row.download == 2 * row.parameters <= row.download_full
    assert row.memory(2) > 2 * row.parameters and row.memory(4) > row.memory(2)


def test_sdxl_is_as_large_as_its_published_files():
    # stabilityai/sdxl-turbo lists its single-file weights with 6.94 GB in fp16 and 13.9 GB in fp32.
    row = MODELS["sdxl-turbo"]
    assert math.isclose(row.download, 6.94e9, rel_tol=0.01)
    assert math.isclose(row.download_full, 13.9e9, rel_tol=0.01)


def test_pocket_row_agrees_with_pockets_files():
    row = MODELS["pocket"]
    _, files = check_folder(data_folder("pocket"))
    count = {
        part: sum(math.prod(t["shape"]) for path in paths for t in read_header(path).values())
        for part, paths in files.items()
    }
    assert math.isclose(sum(count.values()), row.parameters, rel_tol=0.1), count
    assert math.isclose(count["unet"], row.denoiser_parameters, rel_tol=0.1), count


def test_every_name_a_user_may_type_leads_to_its_row():
    ids = [i for row in MODELS.values() for i in (row.name, row.hub_id, *row.mirrors, *row.formerly) if i]
    assert len(ids) == len({i.lower() for i in ids}), "an id leads to one row only"
    for row in MODELS.values():
        for name in (row.name, row.name.upper(), f" {row.name} ", row.hub_id, *row.mirrors, *row.formerly):
            assert name is None or find_model(name) is row
    assert find_model("runwayml/stable-diffusion-v1-5").name == "sd15"
    assert find_model("") is None and find_model("nobody/nothing") is None


def test_the_closest_name_is_suggested():
    assert closest("pockett") == "pocket"
    assert closest("SD-15") == "sd15"
    assert closest("flux-shnell") == "flux-schnell"
    assert closest("qqqqq") is None


def test_the_table_needs_only_the_standard_library():
    code = (
        "import sys; before = {m.partition('.')[0] for m in sys.modules}; import sdwidgets.loading.catalog;"
        "new = {m.partition('.')[0] for m in sys.modules} - before - set(sys.stdlib_module_names);"
        "print(sorted(new))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['sdwidgets']"

"""The table of mistakes in tools/mutations.py fits the code; `python tools/mutations.py` tries them, which takes minutes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MUTATIONS = runpy.run_path(str(ROOT / "tools" / "mutations.py"))["MUTATIONS"]


def test_there_are_forty_of_them():
    assert len({mutation.name for mutation in MUTATIONS}) >= 40


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_can_be_made(mutation):
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, "the code has moved on: bring the row up to date"
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")
    assert all((ROOT / part).is_file() for part in mutation.tests.split() if part.startswith("tests/"))

"""The measurement of the live mode sees pictures follow a hand; no figure of it means anything here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.browser.conftest import REPOSITORY


@pytest.mark.weekly
def test_live_mode_is_measured_in_a_browser(browser, tmp_path):
    file = tmp_path / "report.json"
    command = [sys.executable, "-m", "bench", "--quick", "--no-avx2", "--only", "live"]  # fmt: skip
    done = subprocess.run([*command, "--json", str(file)], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    ways = json.loads(file.read_text())["live"]
    assert ways
    for hands in ways.values():
        for hand in ("typing", "dragging"):
            assert hands[hand]["moves"] > 5 and hands[hand]["pictures"] > 0, hands
            assert hands[hand]["last"] > 0, "the last move got its picture"

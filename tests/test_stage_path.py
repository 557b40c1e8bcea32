"""The cell that a presenter presses; what it does in a notebook is tested in tests/browser."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from sdwidgets import course
from sdwidgets.course.stage_path import COLAB, ELSEWHERE


def test_it_says_what_it_is_where_no_widget_is_shown():
    stage = course.stage(minutes=9.5)
    assert stage.minutes == 9.5 and stage.elsewhere == ELSEWHERE
    assert stage._repr_mimebundle_()[0]["text/plain"] == repr(stage)
    assert repr(stage) == "<stage path of 9.5 minutes: run this cell in JupyterLab and press Present>"


@pytest.mark.parametrize("minutes", [0, -1])
def test_a_talk_has_minutes(minutes):
    with pytest.raises(ValueError, match="more than 0"):
        course.stage(minutes)


def test_on_colab_it_says_what_stands_in_its_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert course.stage(10).elsewhere == COLAB and COLAB.count(".") == 1


def test_the_course_is_imported_before_its_set_up_got_anywidget():
    code = "import sys; from sdwidgets import course; print('anywidget' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"

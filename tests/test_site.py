"""The static pages: every notebook is one, as it is stored, and nothing on them asks for a network."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path

import pytest
from filelock import FileLock

pytest.importorskip("myst_nb", reason="the extra `site` is not installed")
pytest.importorskip("furo", reason="the extra `site` is not installed")

import nbformat

import sdwidgets
from sdwidgets.course.answers import LABEL, WORDS, is_answer
from tools import make_site

NOTEBOOKS = sorted((make_site.ROOT / "notebooks").glob("**/[0-9]*.ipynb"))
LOADS = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["']((?:https?:)?//[^"']+)""")


def build_once(tmp_path_factory) -> Path:
    """The pages, made once in a run of pytest, whatever the number of its workers: for these tests and for those in the browser."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    pages = folder / "site-of-this-run"
    with FileLock(folder / "site-of-this-run.lock"):
        if not (pages / "index.html").exists():
            done = make_site.build(pages)
            assert done.returncode == 0, done.stderr
            assert "WARNING" not in done.stderr, done.stderr
    return pages


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build_once(tmp_path_factory)


def page_of(site: Path, notebook: Path) -> Path:
    return site / notebook.relative_to(make_site.ROOT).with_suffix(".html")


def test_every_notebook_is_a_page(site):
    assert len(NOTEBOOKS) > 1
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        title = re.search(r"^# +(.+)$", "".join(cells[0]["source"]), re.MULTILINE)[1]
        text = page_of(site, notebook).read_text(encoding="utf-8")
        shown = html.unescape(re.sub(r"<[^>]+>", "", re.search(r"<h1>(.+?)<a", text, re.DOTALL)[1]))
        assert shown == title


def test_views_are_on_the_pages(site):
    """What a notebook stored alive stands there, not only its still picture."""
    for notebook in NOTEBOOKS:
        stored = notebook.read_text(encoding="utf-8").count("<div data-sdwidgets-replay=")
        assert page_of(site, notebook).read_text(encoding="utf-8").count("<div data-sdwidgets-replay=") == stored
    assert any("<div data-sdwidgets-replay=" in path.read_text(encoding="utf-8") for path in NOTEBOOKS)


def test_answers_are_folded_and_the_stage_path_is_left_out(site):
    for notebook in NOTEBOOKS:
        cells = nbformat.read(notebook, as_version=4).cells
        answer = [cell for cell in cells if is_answer(cell)]
        page = page_of(site, notebook).read_text(encoding="utf-8")
        assert page.count("<details") == page.count(f"{LABEL}</") + page.count(f"{WORDS}</") == len(answer), notebook
        assert "course.stage(" not in html.unescape(re.sub(r"<[^>]+>", "", page))
    assert not re.search(r"<details[^>]*\bopen\b", page)


def test_pages_load_nothing_from_a_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(NOTEBOOKS)
    for page in pages:
        assert LOADS.findall(page.read_text(encoding="utf-8")) == [], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), (
            style.name
        )


def test_that_search_would_find_something_from_a_network():
    assert LOADS.findall('<script async="async" src="https://a.b/c.js"></script>') == ["https://a.b/c.js"]


def test_solutions_are_a_section_of_their_own(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    course, solutions = index.index('id="the-course"'), index.index('id="solutions"')
    for notebook in NOTEBOOKS:
        place = index.index(f'href="{page_of(site, notebook).relative_to(site).as_posix()}"', course)
        assert (place > solutions) == ("solutions" in notebook.parts)


def test_text_of_the_meetup_is_text():
    group = make_site.meetup()
    odd = type(group)(**{**vars(group), "vision": "<script>alert(1)</script> *not* markup"})
    assert "<script>" not in make_site.index([Path("00_welcome.ipynb")], odd)


def test_a_picture_from_the_network_becomes_its_name():
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("[![Open](https://a.b/c.svg)](https://d.e) ![x](y.png)")]
    )
    assert make_site.offline(book).cells[0].source == "[Open](https://d.e) ![x](y.png)"


def test_the_reference_has_what_the_package_names(site):
    text = "".join(page.read_text("utf-8") for page in (site / "reference").glob("*.html"))
    homes = (getattr(sdwidgets, name) for name in sdwidgets.__all__ if name != "__version__")
    names = {f"{home.__module__}.{home.__qualname__}" for home in homes}
    missing = sorted(name for name in names if f'id="{name}"' not in text)
    assert not missing, f"on no page of MODULES in tools/make_site.py: {missing}"
    assert "predicted x0" in text and "ValueError" in text

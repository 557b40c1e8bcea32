"""The deck: what a notebook's metadata becomes, and what the evening must hold. How it looks is tested in tests/browser."""

from __future__ import annotations

import base64
import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from sdwidgets.course import answers
from sdwidgets.course.meetup import meetup
from tests.test_replay import EVIL, a_trace
from tools import make_slides
from tools.make_slides import SlideError

HERE = Path(__file__).parent


# ---- notebooks to try it on ------------------------------------------------------------------------------------------


def text(source: str, tags: tuple[str, ...] = ("stage",), **slide) -> nbformat.NotebookNode:
    metadata = {"tags": list(tags)} | ({"slide": slide} if slide else {})
    return nbformat.v4.new_markdown_cell(source, metadata=metadata)


def code(*bundles: dict, tags: tuple[str, ...] = ("stage", "on-slide")) -> nbformat.NotebookNode:
    outputs = [nbformat.v4.new_output("display_data", bundle) for bundle in bundles]
    return nbformat.v4.new_code_cell("1", execution_count=1, outputs=outputs, metadata={"tags": list(tags)})


def picture(width: int = 8, height: int = 8) -> dict:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (width, height), "orange").save(file, "PNG")
    return {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": "<Image>"}


def replay(**options) -> dict:
    bundle = a_trace(**options)._repr_mimebundle_()
    return bundle | {"image/jpeg": base64.b64encode(bundle["image/jpeg"]).decode()}


def a_book(folder: Path, *cells, name: str = "00_try.ipynb") -> Path:
    book = nbformat.v4.new_notebook(cells=list(cells))
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, folder / name)
    return folder / name


def slides_of(tmp_path: Path, *cells) -> list[make_slides.Slide]:
    return make_slides.notebook_slides(a_book(tmp_path, *cells))


# ---- a notebook's cells ----------------------------------------------------------------------------------------------


def test_a_notebook_opens_with_its_question(tmp_path):
    first, second = slides_of(tmp_path, text("# 07 · Noise: how do you get back?"), text("## 1 · A beat", say="Yes."))
    assert (first.kind, first.title, first.say) == ("part", "07 · Noise", "How do you get back?")
    assert (second.kind, second.title, second.say, second.part) == ("beat", "A beat", "Yes.", "07 · Noise")


def test_a_beat_has_its_words_its_minutes_and_its_picture(tmp_path):
    cells = [
        text("# T: q"),
        text("## A heading\n\nProse.", title="Its title", say="One *sentence*.", minutes=1.5, notes="What to do."),
        code({"text/plain": "not this"}, tags=("stage",)),
        text("**Predict**: more\nor less?\n\nOther prose."),
        code(picture(), {"text/plain": "the picture leads"}),
    ]
    _, slide = slides_of(tmp_path, *cells)
    assert (slide.title, slide.say, slide.minutes) == ("Its title", "One *sentence*.", 1.5)
    assert slide.notes == "What to do.\n\n**Predict**: more\nor less?"
    assert slide.shown.kind == "picture" and 'alt="Its title. One sentence."' in slide.shown.html
    assert slide.words == 4


def test_a_view_goes_before_its_still_and_every_output_has_a_slide(tmp_path):
    slides = slides_of(
        tmp_path, text("# T: q"), text("## B", say="s", minutes=2), code(replay(steps=3)), code(picture())
    )
    assert [slide.shown and slide.shown.kind for slide in slides] == [None, "view", "picture"]
    assert [slide.minutes for slide in slides] == [0, 2, 0]
    assert slides[1].shown.html.count(make_slides.VIEW_MARK) and "new Replay()" in slides[1].shown.html


def test_text_is_shown_where_there_is_no_picture_and_stays_text(tmp_path):
    output = nbformat.v4.new_output("stream", text=f"1024 numbers {EVIL}")
    cell = code()
    cell.outputs = [output]
    _, slide = slides_of(tmp_path, text("# T: q"), text("## B", say="s"), cell)
    assert slide.shown.kind == "text" and "<script" not in slide.shown.html
    assert make_slides.plain(slide.shown.html).strip() == f"1024 numbers {EVIL}"


ASKED = "> **Ask the room:** which part is called\n> most often?"


def test_the_room_is_asked_before_it_sees(tmp_path):
    before = slides_of(tmp_path, text("# T: q"), text(f"## B\n\n{ASKED}", say="s"), code(picture()))
    assert [slide.kind for slide in before] == ["part", "ask", "beat"]
    assert before[1].say == "Which part is called most often?"
    after = slides_of(tmp_path, text("# T: q"), text("## B", say="s"), code(picture()), text(ASKED))
    assert [slide.kind for slide in after] == ["part", "beat", "ask"]
    without = slides_of(tmp_path, text("# T: q"), text(f"## B\n\n{ASKED}", say="s"))
    assert [slide.kind for slide in without] == ["part", "beat", "ask"]


def test_lines_of_code_stand_under_the_question_about_them(tmp_path):
    lines, result = code(tags=("stage", "code-on-slide")), code(picture())
    lines.source = "x < y  # <b>"
    ask, beat = slides_of(tmp_path, text("# T: q"), text(f"## B\n\n{ASKED}", say="s"), lines, result)[1:]
    assert (ask.kind, ask.shown.kind, ask.shown.html) == ("ask", "text", "<pre>x &lt; y  # &lt;b&gt;</pre>")
    assert beat.shown.kind == "picture"
    with pytest.raises(SlideError, match="cell 2: tagged code-on-slide, but no question to the room"):
        slides_of(tmp_path, text("# T: q"), text("## B", say="s"), lines)


PREDICTED = "What comes. **Predict** how many:\none, or two?\n\nProse."


def test_a_prediction_comes_before_its_answer(tmp_path):
    answer = code(picture(), tags=("stage", "on-slide", "answer"))
    before = slides_of(tmp_path, text("# T: q"), text(f"## B\n\n{PREDICTED}", say="s"), answer)
    assert [slide.kind for slide in before] == ["part", "ask", "beat"]
    assert (before[1].title, before[1].say) == ("Predict", "How many:\none, or two?")
    assert before[1].shown is None and before[2].shown and before[2].notes == "**Predict** how many:\none, or two?"
    second = slides_of(tmp_path, text("# T: q"), text("## B", say="s"), code(picture()), text(PREDICTED), answer)
    assert [(slide.kind, bool(slide.shown)) for slide in second[1:]] == [
        ("beat", True),
        ("ask", False),
        ("beat", True),
    ]
    room = slides_of(tmp_path, text("# T: q"), text(f"## B\n\n{PREDICTED}\n\n{ASKED}", say="s"), answer)
    assert [slide.title for slide in room[1:]] == ["Ask the room", "B"], "one question to a picture"


def test_what_covers_an_answer_is_on_no_slide(tmp_path):
    cell = code(picture(), tags=("stage", "on-slide", "answer"))
    answers.hide(cell)
    (slide,) = [slide for slide in slides_of(tmp_path, text("# T: q"), text("## B", say="s"), cell) if slide.shown]
    assert picture()["image/png"] in slide.shown.html


def test_what_is_for_reading_alone_is_not_asked_on_stage(tmp_path):
    slides = slides_of(tmp_path, text("# T: q"), text("## B", say="s"), text(ASKED, tags=("self-study",)))
    assert [slide.kind for slide in slides] == ["part", "beat"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (text("## B", saying="s"), r"no 'saying'; did you mean 'say'"),
        (text("## B", minutes="two"), r"'minutes' is 'two'"),
        (text("no heading", say="s"), r"cell 1: its slide has no 'title'"),
    ],
)
def test_a_mistake_names_its_cell(tmp_path, cell, message):
    with pytest.raises(SlideError, match=f"00_try.ipynb.*{message}"):
        slides_of(tmp_path, text("# T: q"), cell)


def test_a_slide_without_its_output_is_refused(tmp_path):
    with pytest.raises(SlideError, match="cell 2: tagged on-slide, but it has no output"):
        slides_of(tmp_path, text("# T: q"), text("## B", say="s"), code())


def test_a_picture_that_was_not_stored_is_missed(tmp_path):
    cell = code({"text/plain": "<Figure size 640x360 with 1 Axes>"})
    with pytest.raises(SlideError, match="cell 2: of its picture only '<Figure size 640x360 with 1 Axes>' is stored"):
        slides_of(tmp_path, text("# T: q"), text("## B", say="s"), cell)


def test_a_notebook_without_slides_is_refused(tmp_path):
    with pytest.raises(SlideError, match="no cell has the metadata 'slide'"):
        slides_of(tmp_path, text("# T: q"), text("## B"))


def test_words_are_counted_as_a_room_reads_them():
    slide = make_slides.Slide(
        "Two words", r"and $\sqrt{\bar\alpha_t}\, x_0$ is *one*, `x` too - not a dash", points=(("one more", ""),)
    )
    assert slide.words == 13
    long = make_slides.Slide("t", "word " * 30, source="here")
    assert make_slides.too_long([slide, long]) == ["here: 't' has 31 words; 30 are allowed"]


# ---- the evening -----------------------------------------------------------------------------------------------------


def an_evening(folder: Path, lines: str) -> list[make_slides.Slide]:
    (folder / "evening.toml").write_text(lines, encoding="utf-8")
    return make_slides.evening(folder / "evening.toml", folder)


def test_the_evening_is_put_together_in_order(tmp_path):
    a_book(tmp_path, text("# T: q"), text("## B", say="s"))
    slides = an_evening(
        tmp_path,
        """
        [[slides]]
        meetup = "agenda"
        [[slides]]
        notebook = "00_try.ipynb"
        [[slides]]
        part = "P"
        title = "Size"
        say = "{sd15.image.size} pixels"
        [[slides]]
        title = "Still P"
        """,
    )
    assert [slide.title for slide in slides] == ["Agenda", "T", "B", "Size", "Still P"]
    assert tuple(line for line, _ in slides[0].points) == meetup().agenda
    assert slides[3].say == "512 pixels" and slides[4].part == "P"


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        ('title = "{sd15.image.sise}"', KeyError, "did you mean 'sd15.image.size'"),
        ('say = "no title"', SlideError, "evening.toml, entry 1: a slide needs a 'title'"),
        ('meetup = "agenda"\nsay = "x"', SlideError, "a slide has no 'say'"),
        ('meetup = "weather"', SlideError, "no part 'weather'"),
        ('title = "x"\npoints = [["x", "javascript:alert(1)"]]', ValueError, "https"),
    ],
)
def test_a_mistake_in_the_evening_is_named(tmp_path, lines, error, message):
    with pytest.raises(error, match=message):
        an_evening(tmp_path, f"[[slides]]\n{lines}")


class Text(HTMLParser):
    """Reads a page as a browser does, as far as it matters: which elements there are, and the text outside of scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        if self.tags and self.tags[-1] != "script":
            self.words += data


def test_words_of_the_meetup_stay_words(tmp_path):
    group = meetup()
    odd = type(group)(**{**vars(group), "vision": EVIL, "agenda": (EVIL, "*not* markup")})
    plain = [make_slides.meetup_slide(group, name, 1, "") for name in ("vision", "agenda")]
    slides = [make_slides.meetup_slide(odd, name, 1, "") for name in ("vision", "agenda")]
    page, usual = Text(make_slides.render(slides)), Text(make_slides.render(plain))
    assert page.words.count(EVIL) == 2 and "*not* markup" in page.words
    assert page.tags.count("script") == usual.tags.count("script") and page.tags.count("img") == 0


def test_notes_count_the_minutes():
    slides = [make_slides.Slide("a", minutes=62), make_slides.Slide("b", minutes=1.5, notes="Say **this**.")]
    page = make_slides.render(slides)
    assert "<b>62 min</b>, from 0:00 to 1:02 of 1:03" in page
    assert "<b>1.5 min</b>, from 1:02 to 1:03 of 1:03" in page
    assert "<strong>this</strong>" in page and 'data-timing="90"' in page


# ---- the deck as it is -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deck() -> list[make_slides.Slide]:
    return make_slides.evening()


def test_no_slide_has_more_words_than_a_room_reads(deck):
    assert make_slides.too_long(deck) == []


def test_the_licence_comes_before_the_first_picture(deck):
    licence = next(i for i, slide in enumerate(deck) if "licence" in slide.title.lower())
    first = next(i for i, slide in enumerate(deck) if slide.shown and slide.shown.kind != "text")
    assert licence < first and any("license" in address for _, address in deck[licence].points)


@pytest.mark.parametrize(
    "notebook", sorted((make_slides.ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.name
)
def test_a_notebook_is_told_in_ten_minutes(notebook):
    slides = make_slides.notebook_slides(notebook)
    assert 0 < sum(slide.minutes for slide in slides) <= 10
    assert any(slide.shown for slide in slides), "no picture of it is on a slide"
    untold = [slide.source for slide in slides if slide.minutes and not slide.notes]
    assert not untold, f"minutes without notes: {untold}"


def test_every_notebook_is_in_the_evening(deck):
    sources = {slide.source.split(",")[0] for slide in deck}
    assert {path.name for path in (make_slides.ROOT / "notebooks").glob("[0-9]*.ipynb")} <= sources


def test_the_room_is_asked(deck):
    asked = [slide for slide in deck if slide.kind == "ask"]
    assert len(asked) >= 5 and all(slide.say.strip().endswith((".", "?", ")")) for slide in asked)


with (HERE / "seed_points.csv").open(newline="", encoding="utf-8") as lines:
    POINTS = list(csv.DictReader(lines))


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point["point"])
def test_every_point_of_the_talk_has_a_slide(deck, point):
    """The talk that the course replaces, point by point: each stands on a slide, not only in its notes."""
    words = {id(slide): " ".join(slide.text.split()) for slide in deck}
    found = [slide for slide in deck if re.search(point["on_a_slide"], words[id(slide)], re.IGNORECASE)]
    assert found, f"no slide says {point['point']!r}: {point['on_a_slide']}"
    if point["kind"] != "text":
        enough = {"view": {"view"}, "picture": {"view", "picture"}}[point["kind"]]
        assert any(slide.shown and slide.shown.kind in enough for slide in found), "its slide shows nothing"


def test_the_written_deck_is_whole(deck, tmp_path):
    page = make_slides.write(deck, tmp_path / "deck")
    html = page.read_text(encoding="utf-8")
    assert html.count("<section ") == html.count("</section>") == len(deck) == html.count('<aside class="notes">')
    for name in re.findall(r'(?:src|href)="((?!data:|https:|mailto:|#)[^"]+)"', html):
        assert (page.parent / name).is_file(), name
    assert not re.search(r'(?:src=|<link [^>]*href=)"(?:https?:)?//', html)
    assert str(make_slides.ROOT) not in html

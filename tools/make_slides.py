"""`python tools/make_slides.py`: the evening's deck, as build/slides/index.html, which needs no network and no kernel.

What stands on it, in which order, is said in slides/evening.toml: slides written there, parts of the meetup's file
(data/meetup.toml), and notebooks. A notebook gives one slide a beat, from the metadata of its cells:

- A markdown cell with `"slide": {"title", "say", "minutes", "notes"}` starts a slide. Without "title" its heading is taken.
- The outputs of the code cells after it that carry the tag `on-slide` stand on it: a view or a picture, else the text.
- `> **Ask the room:** ...` is a slide of its own, before the picture that answers it. Where it asks about lines of code, the code
  cell after it is tagged `code-on-slide`: its source stands under the question.
- So is `**Predict**: ...` where no question to the room precedes it and the output on the slide is tagged `answer`; else it is a note.

Nothing is executed: what a notebook has stored is what is shown.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import jinja2
import nbformat
from markupsafe import Markup
from nbconvert.filters import markdown2html

from sdwidgets.course import answers
from sdwidgets.course.facts import fact
from sdwidgets.course.meetup import PARTS, Meetup, link, meetup

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "slides"
OUTPUT = ROOT / "build" / "slides"

WORDS = 30  # at most, on one slide
VIEW_MARK = "data-sdwidgets-replay"  # what page.embed writes around every view

FIELDS = {"title": str, "say": str, "minutes": (int, float), "notes": str}
WRITTEN = FIELDS | {"part": str, "points": list, "kind": str}  # of a slide in evening.toml

ASK = re.compile(r"^> *\*\*Ask the room:?\*\*:? *(.+(?:\n> *.+)*)", re.MULTILINE)
PREDICT = re.compile(r"\*\*Predict\b[^*]*\*\*:? *(.+(?:\n(?!\n).+)*)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


class SlideError(ValueError):
    """What is wrong with which cell or line, and what is allowed."""


@dataclass(frozen=True)
class Shown:
    """What leads a slide. `kind`: "view" (alive without a kernel), "picture", or "text"."""

    kind: str
    html: str


@dataclass(frozen=True)
class Slide:
    """One slide. `say` and `notes` are markdown; `points` are lines of plain text, each with an address or ""."""

    title: str
    say: str = ""
    minutes: float = 0
    notes: str = ""
    shown: Shown | None = None
    points: tuple[tuple[str, str], ...] = ()
    kind: str = "beat"  # or "part": the first of a notebook; "ask": a question to the room; "title"
    part: str = ""  # small, above the title: where in the evening this is
    source: str = ""  # which cell or line it was made from

    @property
    def text(self) -> str:
        """Every word that can be read on it, but for those of what is shown."""
        points = (f"{text} {short(address)}" for text, address in self.points)
        return " ".join([self.title, plain(markdown(self.say)), *points])

    @property
    def words(self) -> int:
        """Words that can be read on it; a formula counts as one."""
        text = re.sub(r"\$\$?.+?\$\$?", " formula ", self.text)
        return sum(bool(re.search(r"\w", word)) for word in text.split())


def markdown(text: str) -> str:
    return str(markdown2html(text))


def sentence(text: str) -> str:
    """With a capital at its start."""
    return text[:1].upper() + text[1:]


def plain(piece: str) -> str:
    """The text of a piece of HTML."""
    within = re.sub(r"</?(?:a|b|code|em|i|span|strong|sub|sup)\b[^>]*>", "", piece)
    return html.unescape(re.sub(r"<[^>]+>", " ", within))


def checked(told: dict, allowed: dict, where: str) -> dict:
    """`told`, if every name is allowed and every value of its kind. Raises SlideError."""
    for name, value in told.items():
        if name not in allowed:
            close = get_close_matches(name, allowed, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise SlideError(f"{where}: a slide has no {name!r}{hint}; it has: {', '.join(allowed)}")
        if not isinstance(value, allowed[name]) or (isinstance(value, bool) and allowed[name] is not bool):
            raise SlideError(f"{where}: {name!r} is {value!r}, which is of the wrong kind")
    return told


# ---- from a notebook -------------------------------------------------------------------------------------------------


def notebook_slides(path: Path) -> list[Slide]:
    """The slides of one notebook. Raises SlideError where its metadata is wrong or it has none."""
    book = nbformat.read(path, as_version=4)
    heading = HEADING.search(book.cells[0].source if book.cells else "")
    part, _, question = (heading[1] if heading else path.stem).partition(": ")
    slides: list[Slide] = []
    for cells in sections(book.cells):
        number, first = cells[0]
        where = f"{path.name}, cell {number}"
        if "slide" in first.metadata:
            slides += beat(cells, part, where)
        elif number == 0:
            slides.append(Slide(part, sentence(question), source=where))
    if slides:
        slides[0] = replace(slides[0], kind="part")
    if not any("slide" in cell.metadata for cell in book.cells):
        raise SlideError(f"{path.name}: no cell has the metadata 'slide', so there is nothing to show")
    return slides


def sections(cells: list) -> Iterator[list[tuple[int, nbformat.NotebookNode]]]:
    """Runs of (number, cell), each from a cell that starts a slide to the next such cell."""
    run: list[tuple[int, nbformat.NotebookNode]] = []
    for number, cell in enumerate(cells):
        if "slide" in cell.metadata and run:
            yield run
            run = []
        run.append((number, cell))
    if run:
        yield run


def beat(cells: list[tuple[int, nbformat.NotebookNode]], part: str, where: str) -> Iterator[Slide]:
    """The slides of one beat: its own, one for each output on a slide, and one for each question to the room."""
    first = cells[0][1]
    told = checked(dict(first.metadata["slide"]), FIELDS, where)
    heading = HEADING.search(first.source)
    title = told.get("title") or (heading and re.sub(r"^[\d.]+ *·? *", "", heading[1]))
    if not title:
        raise SlideError(f"{where}: its slide has no 'title', and the cell no heading to take one from")
    before: list[Slide] = []
    after: list[Slide] = []
    shown: list[tuple[list[Slide], Shown]] = []  # each with the question just before it
    predictions: list[re.Match] = []
    for number, cell in cells:
        here, tags = f"{where.partition(',')[0]}, cell {number}", cell.metadata.get("tags", [])
        if cell.cell_type == "markdown" and "self-study" not in tags:
            asked = [
                Slide("Ask the room", sentence(re.sub(r"\n> *", " ", words)), kind="ask", part=part, source=here)
                for words in ASK.findall(cell.source)
            ]
            (after if shown else before).extend(asked)
            predictions += PREDICT.finditer(cell.source)
        if "code-on-slide" in tags:
            if not before or shown or before[-1].shown:
                raise SlideError(f"{here}: tagged code-on-slide, but no question to the room stands before it")
            before[-1] = replace(before[-1], shown=Shown("text", f"<pre>{html.escape(cell.source)}</pre>"))
        if cell.cell_type == "code" and "on-slide" in tags:
            words = plain(markdown(f"{title}. {told.get('say', '')}"))
            new: list[tuple[list[Slide], Shown]] = [([], one) for one in outputs(cell, " ".join(words.split()), here)]
            if answers.is_answer(cell) and predictions and not (after if shown else before):
                new[0][0].append(Slide("Predict", sentence(predictions[-1][1]), kind="ask", part=part, source=here))
            shown += new
    if not shown:  # nothing that a question could come before
        before, after = [], before
    notes = "\n\n".join([*([told["notes"]] if told.get("notes") else []), *(match[0] for match in predictions)])
    before = [replace(slide, notes=notes) for slide in before]  # to be read before the room is asked
    shown = [([replace(slide, notes=notes) for slide in question], one) for question, one in shown]
    own = Slide(title, told.get("say", ""), told.get("minutes", 0), notes, part=part, source=where)
    yield from before
    for number, (question, one) in enumerate(shown):
        yield from question
        yield Slide(title, shown=one, part=part, source=where) if number else replace(own, shown=one)
    if not shown:
        yield own
    yield from after


def outputs(cell: nbformat.NotebookNode, alt: str, where: str) -> list[Shown]:
    """What a code cell stored, as it stands on a slide: its views and pictures; the text only where there are none."""
    pictures, text = [], []
    for output in answers.outputs(cell):
        data = output.get("data", {})
        page = "".join(data.get("text/html", ""))
        kind = next((kind for kind in ("image/png", "image/jpeg") if kind in data), None)
        if VIEW_MARK in page:
            pictures.append(Shown("view", page))
        elif "image/svg+xml" in data:
            pictures.append(Shown("picture", "".join(data["image/svg+xml"])))
        elif kind:
            source = f"data:{kind};base64,{''.join(data[kind].split())}"
            pictures.append(Shown("picture", f'<img alt="{html.escape(alt, quote=True)}" src="{source}">'))
        elif page:
            text.append(Shown("text", page))
        elif words := "".join(output.get("text", data.get("text/plain", ""))).strip():
            if re.match(r"<(Figure|Axes|PIL\.)", words):
                raise SlideError(
                    f"{where}: of its picture only {words[:40]!r} is stored; run it where pictures are shown"
                )
            text.append(Shown("text", f"<pre>{html.escape(words)}</pre>"))
    if not pictures and not text:
        raise SlideError(f"{where}: tagged on-slide, but it has no output; run it")
    return pictures or text[:1]


# ---- from the meetup's file and the evening's ------------------------------------------------------------------------


class Facts(string.Formatter):
    """`"{sd15.image.size} pixels"`: a name in braces is the key of a fact."""

    def get_field(self, field_name, args, kwargs):
        return fact(field_name), field_name


def meetup_slide(told: Meetup, name: str, minutes: float, notes: str) -> Slide:
    """One part of the meetup's file as a slide: its texts are plain text, whatever they look like."""
    common = {"minutes": minutes, "notes": notes, "part": told.name, "source": f"meetup.toml, {name}"}
    if name == "name":
        return Slide("Stable Diffusion", points=((told.name, told.address),), kind="title", **common | {"part": ""})
    if name not in PARTS:
        raise SlideError(f"evening.toml: a meetup has no part {name!r}; it has: name, {', '.join(PARTS)}")
    value = getattr(told, name)
    if isinstance(value, str):
        rows = ((value, ""),)
    else:  # "connect" has its addresses already
        rows = value if name == "connect" else tuple((row, "") for row in value)
    return Slide(PARTS[name], points=rows, **common)


def evening(path: Path = SOURCE / "evening.toml", notebooks: Path = ROOT / "notebooks") -> list[Slide]:
    """The slides of the whole evening, in order. Raises SlideError, and KeyError for a fact that there is not."""
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    group, part, slides = meetup(), "", []
    for number, entry in enumerate(told["slides"], 1):
        where = f"{path.name}, entry {number}"
        if "notebook" in entry:
            checked(entry, {"notebook": str}, where)
            slides += notebook_slides(notebooks / entry["notebook"])
        elif "meetup" in entry:
            checked(entry, {"meetup": str, "minutes": (int, float), "notes": str}, where)
            slides.append(meetup_slide(group, entry["meetup"], entry.get("minutes", 0), entry.get("notes", "")))
        else:
            part = entry.get("part", part)
            slides.append(written(entry, part, where))
    return slides


def written(entry: dict, part: str, where: str) -> Slide:
    """A slide that evening.toml itself holds."""
    checked(entry, WRITTEN, where)
    if "title" not in entry:
        raise SlideError(f"{where}: a slide needs a 'title', or is a 'notebook' or a part of the 'meetup'")
    words = {name: Facts().format(entry.get(name, "")) for name in ("title", "say", "notes")}
    points = []
    for row in entry.get("points", ()):
        line, address = row if isinstance(row, list) else (row, "")
        points.append((Facts().format(line), address and link(address, f"{where}: {line!r}")))
    return Slide(
        **words,
        minutes=entry.get("minutes", 0),
        points=tuple(points),
        kind=entry.get("kind", "beat"),
        part=part,
        source=where,
    )


# ---- the page --------------------------------------------------------------------------------------------------------


def clock(minutes: float) -> str:
    """75.5 -> "1:15": hours and minutes into the evening."""
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}"


def short(address: str) -> str:
    """An address as a room writes it down."""
    return re.sub(r"^(?:https://(?:www\.)?|mailto:)|/$", "", address)


def render(slides: list[Slide]) -> str:
    """The whole deck as one page, which expects `vendor`, `deck.css` and `deck.js` beside it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SOURCE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"markdown": lambda text: Markup(markdown(text)), "clock": clock, "short": short}
    starts = [sum(slide.minutes for slide in slides[:i]) for i in range(len(slides))]
    return environment.get_template("deck.html.j2").render(
        slides=list(zip(slides, starts, strict=True)),
        title=slides[0].title,
        total=sum(slide.minutes for slide in slides),
    )


def write(slides: list[Slide], folder: Path = OUTPUT) -> Path:
    """Write the deck and all that it needs into `folder`; returns its page."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(SOURCE / "vendor", folder / "vendor", dirs_exist_ok=True)
    for name in ("deck.css", "deck.js"):
        shutil.copyfile(SOURCE / name, folder / name)
    page = folder / "index.html"
    page.write_text(render(slides), encoding="utf-8")
    return page


def too_long(slides: list[Slide]) -> list[str]:
    """Which slides have more words than a room reads, each in a sentence."""
    return [
        f"{slide.source}: {slide.title!r} has {slide.words} words; {WORDS} are allowed"
        for slide in slides
        if slide.words > WORDS
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the deck; default: build/slides")
    folder = parser.parse_args().output
    try:
        slides = evening()
    except (SlideError, KeyError, FileNotFoundError, ValueError) as error:
        print(f"sdwidgets: no deck was made: {error.args[0] if error.args else error}", file=sys.stderr)
        return 1
    page = write(slides, folder)
    for sentence in too_long(slides):
        print(f"sdwidgets: {sentence}", file=sys.stderr)
    minutes = sum(slide.minutes for slide in slides)
    print(f"sdwidgets: {len(slides)} slides for {clock(minutes)} hours: {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

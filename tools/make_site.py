"""`python tools/make_site.py`: the notebooks as static pages, in build/site: open index.html, no server and no network is needed.

Outputs are those that the notebooks have stored; recorded runs and views stay alive, without a kernel. Needs the extra `site`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from sdwidgets.course import answers
from sdwidgets.course.colab import REPOSITORY
from sdwidgets.course.demos import load_demo
from sdwidgets.course.meetup import Meetup, escape, link, meetup
from sdwidgets.widgets.replay import Replay

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "site"


def stage(folder: Path, notebooks: Path = ROOT / "notebooks") -> None:
    """Put together in `folder` what Sphinx reads: its settings, the index, the notebooks, and MathJax."""
    shutil.copytree(ROOT / "docs" / "site", folder, dirs_exist_ok=True)
    (folder / "vendor" / "mathjax").mkdir(parents=True)
    shutil.copy(ROOT / "slides" / "vendor" / "mathjax" / "tex-svg-full.js", folder / "vendor" / "mathjax")
    names = []
    for path in sorted(notebooks.glob("**/[0-9]*.ipynb")):
        name = path.relative_to(notebooks)
        if ".ipynb_checkpoints" not in name.parts:
            names.append(name)
            (folder / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(folded(offline(nbformat.read(path, as_version=4))), folder / "notebooks" / name)
    (folder / "index.md").write_text(index(names, meetup()), encoding="utf-8")
    (folder / "first.html").write_text(
        Replay(load_demo("00-astronaut"), step=0, playing=True).to_html(), encoding="utf-8"
    )
    (folder / "reference").mkdir()
    for title, page in reference().items():
        (folder / "reference" / f"{title.replace(' ', '-').lower()}.md").write_text(page, encoding="utf-8")


def offline(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the name of every picture from the network (the button of Colab) in the picture's place."""
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"!\[([^\]]*)\]\(https?://[^)]*\)", r"\1", cell.source)
    return book


def folded(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its answers folded as myst-nb does it, and without the cell that steps through JupyterLab."""
    book.cells = [cell for cell in book.cells if "present" not in cell.metadata.get("tags", ())]
    for cell in book.cells:
        if cell.cell_type == "code" and answers.is_answer(cell):
            cell.outputs = answers.outputs(cell)
            cell.metadata.tags = [*cell.metadata.tags, "hide-output"]
            cell.metadata.mystnb = {"code_prompt_show": answers.LABEL, "code_prompt_hide": "Hide the answer"}
    return book


def index(names: list[Path], group: Meetup) -> str:
    """The first page: what this is (README's first words), a run, the lessons, the solutions, the evening."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    what = re.search(r"^# .+?\n\n(.+?)\n\n", readme, re.DOTALL)[1]
    lessons = ["notebooks" / name for name in names if len(name.parts) == 1]
    solutions = ["notebooks" / name for name in names if name.parts[0] == "solutions"]
    parts = [
        "# Stable Diffusion on a laptop",
        what,
        "```{raw} html\n:file: first.html\n```",
        "A recorded run of Pocket: drag the slider, or press Play. In [the first notebook](notebooks/00_welcome.ipynb) you make one.",
        f"These pages show the notebooks as they were run. To change anything, get [the repository]({REPOSITORY}) and type `make lab`.",
        tree("The course", lessons),
    ]
    if solutions:
        parts.append(
            tree("Solutions", solutions, "Every notebook ends with exercises; try them before you look here.")
        )
    pages = [Path("reference", title.replace(" ", "-").lower()) for title in MODULES]
    parts.append(tree("Reference", pages))
    parts += [f"## The evening\n\nHeld first at [{escape(group.name)}]({link(group.address)}).", group.markdown()]
    return "\n\n".join(parts) + "\n"


def tree(caption: str, names: list[Path], words: str = "") -> str:
    """A section with a list of pages, which are in the side bar too."""
    lines = "\n".join(name.with_suffix("").as_posix() for name in names)
    return f"## {caption}\n\n{words}\n\n```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n{lines}\n```"


#: modules whose functions a notebook calls by their module's name
MODULES = {
    "A run as data": ("recording", "trace", "trace_io", "latents", "statistics"),
    "Pictures": ("plots",),
    "Loading": ("loading.pipeline", "loading.catalog", "loading.doctor", "acceleration"),
    "Generation": ("generation.schedulers", "generation.tasks", "generation.batch", "generation.code_export"),
    "Analysis": tuple(
        f"analysis.{name}"
        for name in "noise_schedules denoiser guidance autoencoder attention attention_processors prompt_to_prompt sampling runs embeddings anatomy insides".split()
    ),
    "Views": tuple(
        f"widgets.{name}"
        for name in "diagram replay latent_lab noise_explorer race guidance_explorer xray view".split()
    ),
    "The course": ("course.demos", "course.facts", "course.meetup", "course.colab"),
    "The Playground": ("widgets.playground.widget",),
    "The carried model": ("pocket.world.scenes", "pocket.world.datasheet", "pocket.training.floor", "pocket.judges"),
}


def reference() -> dict[str, str]:
    """Every public function and class with its docstring, by Sphinx's autodoc: title -> page."""
    return {title: "\n\n".join([f"# {title}", *map(automodule, modules)]) + "\n" for title, modules in MODULES.items()}


def automodule(name: str) -> str:
    return f"## `sdwidgets.{name}`\n\n```{{eval-rst}}\n.. automodule:: sdwidgets.{name}\n```"


def build(output: Path = OUTPUT, notebooks: Path = ROOT / "notebooks") -> subprocess.CompletedProcess:
    """Write the pages to `output`, which is made anew; the result's `stderr` holds Sphinx's warnings."""
    with tempfile.TemporaryDirectory(prefix="sdwidgets-site-") as staged:
        stage(Path(staged), notebooks)
        shutil.rmtree(output, ignore_errors=True)
        command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", f"{staged}/doctrees", staged, str(output)]
        return subprocess.run(command, capture_output=True, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder of the pages, made anew; default: build/site"
    )
    output = parser.parse_args().output.resolve()
    done = build(output)
    print(done.stderr, file=sys.stderr, end="")
    if done.returncode:
        print("sdwidgets: Sphinx stopped; what it said stands above", file=sys.stderr)
        return 1
    print(f"sdwidgets: {len(list(output.rglob('*.html')))} pages: {output / 'index.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

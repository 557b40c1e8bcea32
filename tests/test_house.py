"""The house itself: which way imports run, notebooks, the package and its lock, README."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sdwidgets"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("**/*.ipynb"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

MB = 1_000_000


def committed_files() -> list[Path]:
    """What a clone would hold: committed files, and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def run_python(code: str, *arguments: str, cwd: Path = ROOT) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- imports ---


def test_import_loads_nothing_heavy():
    heavy = ["torch", "diffusers", "transformers", "matplotlib", "ipywidgets", "numpy"]
    code = f"import sys, sdwidgets; print([name for name in {heavy} if name in sys.modules])"
    assert run_python(code).strip() == "[]"


def imports_of(path: Path) -> list[tuple[str, str, bool]]:
    """What a file imports, relative names resolved: (module, name or "", whether at module level).

    `from package import name`: where the name is a module itself, it is the module, and there is no name.
    """
    package = list(path.relative_to(ROOT).parent.parts)
    found = []

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, "", top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            for alias in node.names:
                inner = ROOT.joinpath(*module.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                found.append((f"{module}.{alias.name}", "", top) if is_module else (module, alias.name, top))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return  # for readers and type checkers, never run
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, top and not inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def imports(path: Path, name: str, top_level_only: bool = False) -> bool:
    return any(
        (module == name or module.startswith(name + ".")) and (top or not top_level_only)
        for module, _, top in imports_of(path)
    )


def test_editors_know_every_public_name():
    """What is imported on first use stands a second time under TYPE_CHECKING, from the same modules."""
    import sdwidgets

    (block,) = (
        node for node in ast.parse((PACKAGE / "__init__.py").read_text("utf-8")).body if isinstance(node, ast.If)
    )
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == sdwidgets._HOMES and set(sdwidgets.__all__) == {*seen, "__version__"}
    assert (PACKAGE / "py.typed").is_file()


ALL_MODULES = sorted(PACKAGE.rglob("*.py"))

#: The floors of the house, from the roof down: a module imports from its own room and from floors below, skipping some where it likes.
#: finetune, audit and app are rooms to come.
FLOORS = (
    ("__main__",),
    ("cli", "app"),
    ("widgets",),
    ("course",),
    ("pocket",),
    ("audit", "finetune"),
    ("analysis",),
    ("recording",),
    ("generation",),
    ("loading",),
    ("acceleration",),
    ("trace_io",),
    ("trace",),
    ("latents", "plots", "trace_file"),
    ("statistics", "paths", "parts", "__init__"),
)
LEVEL = {room: number for number, floor in enumerate(FLOORS) for room in floor}
SHOWS_ITSELF = "trace.py"  # the one exception: a `Trace` shows itself, as a table of pandas does
#: pocket's own rooms, in the same order; its files are commands, and `draws`, what it draws well
POCKET_FLOORS = (
    ("train", "evaluate", "examine_judge", "export", "draws"),
    ("cards",),
    ("evaluation",),
    ("judges",),
    ("training",),
    ("world",),
)
POCKET_LEVEL = {room: number for number, floor in enumerate(POCKET_FLOORS) for room in floor}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(module: str, depth: int = 1) -> str:
    """ "sdwidgets.pocket.world.scenes" -> "pocket", or with depth 2 -> "world"; the package itself is "__init__"."""
    parts = module.split(".")
    return parts[depth] if len(parts) > depth else "__init__"


def own_imports(path: Path) -> list[str]:
    return [module for module, _, _ in imports_of(path) if module.split(".")[0] == "sdwidgets"]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def upward(path: Path, depth: int, level: dict[str, int]) -> list[str]:
    """Imports of a room on the same floor or above it, beside its own."""
    here = room_of(module_of(path), depth)
    return [
        module
        for module in own_imports(path)
        if (depth == 1 or module.startswith("sdwidgets.pocket."))
        and (there := room_of(module, depth)) != here
        and level[there] <= level[here]
    ]


def test_every_room_has_its_floor():
    rooms = {
        path.stem if path.is_file() else path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or any(path.glob("*.py"))
    }
    assert rooms <= set(LEVEL), f"name the floor of {sorted(rooms - set(LEVEL))}"
    assert {"trace", "pocket", "widgets", "analysis", "loading"} <= rooms
    assert len(rooms) <= 25 and sum((PACKAGE / f"{room}.py").is_file() for room in rooms) <= 12
    assert imports(PACKAGE / "recording.py", "sdwidgets.trace"), "imports_of no longer understands an import"


@pytest.mark.parametrize("path", ALL_MODULES, ids=name_of)
def test_arrows_run_downwards(path):
    wrong = upward(path, 1, LEVEL)
    if name_of(path) == SHOWS_ITSELF:
        assert wrong == ["sdwidgets.widgets.replay"] * 3, "nothing else of a Trace looks up"
    else:
        assert not wrong, f"{name_of(path)} imports {wrong}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "pocket").rglob("*.py")), ids=name_of)
def test_arrows_run_downwards_in_pocket(path):
    assert not (wrong := upward(path, 2, POCKET_LEVEL | {"__init__": 9})), f"{name_of(path)} imports {wrong}"


@pytest.mark.parametrize("path", ALL_MODULES, ids=name_of)
def test_no_module_reaches_for_anothers_private_names(path):
    private = [
        f"{module}.{name}"
        for module, name, _ in imports_of(path)
        if module.startswith("sdwidgets") and name.startswith("_") and not name.endswith("__")
    ]
    assert not private, f"{name_of(path)} imports {private}"


def test_no_module_is_in_a_circle():
    """Imports inside functions count: a circle that is hidden there is one all the same. A Trace that shows itself is the exception."""
    modules = {module_of(path): path for path in ALL_MODULES}
    graph = {name: {other for other in own_imports(path) if other in modules} for name, path in modules.items()}
    graph["sdwidgets.trace"].discard("sdwidgets.widgets.replay")
    left = dict(graph)
    while free := [name for name, others in left.items() if not others & left.keys() - {name}]:
        for name in free:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


@pytest.mark.parametrize("room", ["audit", "finetune"])
def test_rooms_for_any_model_never_name_pocket(room):
    for path in sorted((PACKAGE / room).rglob("*.py")):
        assert not re.search(r"\bpocket\b", path.read_text(encoding="utf-8"), re.IGNORECASE), name_of(path)


@pytest.mark.parametrize(
    ("name", "heavy"),
    [
        ("trace", ("torch", "diffusers", "transformers", "matplotlib")),
        *(
            (f"plots/{name}", ("torch", "diffusers", "transformers", "ipywidgets"))
            for name in ("base", "pictures", "lines")
        ),
        ("loading/catalog", ("torch", "diffusers", "transformers", "numpy")),
        ("recording", ("matplotlib", "ipywidgets")),
        ("latents", ("matplotlib", "ipywidgets")),
        ("loading/pipeline", ("matplotlib", "ipywidgets")),
    ],
)
def test_modules_stay_light(name, heavy):
    wrong = [other for other in heavy if imports(PACKAGE / f"{name}.py", other)]
    assert not wrong, f"{name} imports {wrong}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "widgets").rglob("*.py")), ids=name_of)
def test_widgets_need_no_torch_to_be_imported(path):
    assert not any(imports(path, name, top_level_only=True) for name in ("torch", "diffusers", "transformers"))


def test_nothing_unpickles():
    for path in ALL_MODULES:
        assert not any(imports(path, name) for name in ("pickle", "dill", "joblib", "cloudpickle")), name_of(path)
        assert "trust_remote_code=True" not in path.read_text(encoding="utf-8"), name_of(path)


#: Test files of no one module: what is tested stands in several rooms, or in all of them.
OF_THE_WHOLE = {"any_model", "dropin", "endurance", "house", "properties", "settings"}


def test_a_test_file_is_found_by_its_modules_name():
    """By the name of a module, a room, a tool or a part of the bench; an exercise's or a view's may say more behind it."""
    subjects = {path.stem for folder in ("sdwidgets", "tools", "bench") for path in (ROOT / folder).rglob("*.py")}
    subjects |= {path.name for path in PACKAGE.rglob("*") if path.is_dir()} | {"bench"} | OF_THE_WHOLE
    names = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    subjects |= {subject.removeprefix("make_") for subject in subjects}
    assert not {name for name in names - subjects if name.partition("_")[0] not in subjects}


# --- notebooks ---


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_can_be_shown_anywhere(path):
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"], "holds an error's output"
    for kind, widgets in book.metadata.get("widgets", {}).items():
        assert "state" in widgets, f"metadata.widgets[{kind!r}] has no state: GitHub would show 'Invalid Notebook'"
    assert path.stat().st_size < 1.5 * MB, "outputs are too large to be reviewed"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_checks_itself(path):
    """A cell that nothing checks cannot fail: stored words and integers, and assertions, both."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert any("NBVAL_CHECK_OUTPUT" in source for source in sources)
    assert any(re.search(r"^\s*assert ", source, re.MULTILINE) for source in sources)


# --- what a clone holds ---


def test_sizes():
    sizes = {path: path.stat().st_size for path in committed_files()}
    assert sizes
    large = [f"{path.relative_to(ROOT)}: {size / MB:.1f} MB" for path, size in sizes.items() if size > 15 * MB]
    assert not large, f"above the 15 MB that one file may have: {large}"
    assert sum(sizes.values()) <= 60 * MB, "a checkout may have 60 MB with its weights"


def test_no_function_and_no_module_is_long():
    """A function of sixty lines and a module of 450 are as much as one idea needs; the package's top level fits on a screen."""
    files = [path for folder in ("sdwidgets", "bench") for path in (ROOT / folder).rglob("*.py")]
    long = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        length = len(text.splitlines())
        long += [f"{path.relative_to(ROOT)}: {length} lines"] * (length > 450)
        functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
        lines = {f"{path.stem}.{node.name}": node.end_lineno - node.lineno + 1 for node in functions}
        long += [f"{name}: {count} lines" for name, count in lines.items() if count > 60]
    assert not long
    top = [path for path in (ROOT / "sdwidgets").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert len(top) <= 25 and sum(path.suffix == ".py" for path in top) <= 12


def test_no_path_of_a_machine():
    """Neither this machine's (checkout, home folder) nor another contributor's, left in an output."""
    here = {f"{folder}/" for folder in (ROOT, Path.home()) if len(folder.parts) > 1}
    anywhere = re.compile(r"(?:/home/|/Users/|[A-Z]:\\\\?Users\\\\?)[A-Za-z][\w.-]*[/\\]")
    found = []
    for path in committed_files():
        if path.stat().st_size > 3 * MB or b"\0" in (content := path.read_bytes())[:8192]:
            continue
        for line in content.decode("utf-8", errors="replace").splitlines():
            if any(folder in line for folder in here) or anywhere.search(line):
                found.append(f"{path.relative_to(ROOT)}: {line.strip()[:100]}")
    assert not found


# --- the package and its lock ---


def test_version_stands_once():
    version = re.search(r'^__version__ = "(.+)"$', (PACKAGE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert version, "sdwidgets/__init__.py is where the version stands"
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert "version:" not in re.sub(r"cff-version:.*", "", (ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert run_python("import sdwidgets; print(sdwidgets.__version__)").strip() == version[1]


def locked() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [Requirement(line.split("  #")[0]) for line in lines if line and not line.startswith("#")]


def environment(python: str, system: str, machine: str) -> dict[str, str]:
    """The variables that a requirement's marker may ask for, on another machine than this."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}[system],
        "os_name": "nt" if system == "Windows" else "posix",
        "platform_system": system,
        "platform_machine": machine,
    }


PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SYSTEMS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"), ("Windows", "AMD64"))


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "machine"), SYSTEMS)
def test_lock_answers_every_requirement(python, system, machine):
    """One version each, on every Python and system that we name, and one that pyproject.toml allows."""
    here = environment(python, system, machine)
    pins: dict[str, str] = {}
    for pin in locked():
        if pin.marker is None or pin.marker.evaluate(here):
            (exact,) = pin.specifier
            assert exact.operator == "==", pin
            assert canonicalize_name(pin.name) not in pins, f"{pin.name} is pinned twice for {here}"
            pins[canonicalize_name(pin.name)] = exact.version
    project = PYPROJECT["project"]
    # optimum-intel holds transformers back, so it has an environment of its own.
    extras = [lines for name, lines in project["optional-dependencies"].items() if name != "optimum"]
    for requirement in map(Requirement, [*project["dependencies"], *(line for extra in extras for line in extra)]):
        if requirement.marker is None or requirement.marker.evaluate(here):
            version = pins.get(canonicalize_name(requirement.name))
            assert version, f"requirements.lock lacks {requirement.name}: run make lock"
            allowed = requirement.specifier.contains(version, prereleases=True)
            assert allowed, f"pyproject.toml wants {requirement}, the lock has {version}: run make lock"


def test_lock_names_no_address():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_torch_has_no_upper_bound():
    (torch,) = [line for line in map(Requirement, PYPROJECT["project"]["dependencies"]) if line.name == "torch"]
    assert {part.operator for part in torch.specifier} == {">="}


def test_installed_versions_agree_with_each_other():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_conda_file_repeats_no_dependency():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "--constraint requirements.lock" in text and "--editable .[course]" in text
    dependencies = re.findall(r"^\s*- (.+)$", text.split("dependencies:")[1], re.MULTILINE)
    assert {re.split(r"[ :]", line)[0] for line in dependencies} == {"python", "pip", "--constraint", "--editable"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_what_the_package_needs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for path in committed_files():
        inside = path.relative_to(ROOT)
        if inside.parts[0] == "sdwidgets":
            assert inside.as_posix() in names
        elif inside.parts[0] == "data":
            assert f"sdwidgets/{inside.as_posix()}" in names
    assert "sdwidgets/data/pocket/model_index.json" in names
    assert any(re.fullmatch(r"sdwidgets/data/pocket/unet/.*\.safetensors", name) for name in names)
    assert any(name.startswith("sdwidgets/data/atlas/") for name in names)
    assert any(name.endswith(".js") for name in names) and any(name.endswith(".mplstyle") for name in names)
    assert {"LICENSE", "NOTICE", "OFL-1.1.txt"} <= {
        Path(name).name for name in names if ".dist-info/licenses/" in name
    }
    assert not [name for name in names if name.startswith(("tests/", "tools/", "notebooks/"))]


def test_wheel_finds_its_data_without_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sdwidgets.paths import data_folder\n"
        "print(data_folder('pocket')); print(data_folder('atlas'))"
    )
    for line in run_python(code, str(tmp_path / "site"), cwd=tmp_path).splitlines():
        assert Path(line).is_relative_to(tmp_path / "site"), line


# --- README ---


def test_readme_names_commands_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    code = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", README + contributing, re.DOTALL)
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join(a + b for a, b in code)))
    assert {"lab", "test", "install"} <= named
    assert named <= targets


def test_readme_names_settings_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for setting in set(re.findall(r"\bmake [a-z]+ ([A-Z]+)=", README)):
        assert re.search(rf"\b{setting}\b", makefile), setting


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^sdwidgets ([a-z]+)", README, re.MULTILINE))))
def test_readme_names_options_that_exist(command):
    line = re.search(rf"^sdwidgets {command}.*$", README, re.MULTILINE)[0]
    run = "from sdwidgets.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", run, command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for option in re.findall(r"--[a-z-]+", line):
        assert option in done.stdout, f"sdwidgets {command} has no {option}"


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.mark.slow
def test_readme_lines_of_python_run(tmp_path):
    """As a newcomer pastes them, one after the other, in an empty folder."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    run_python(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "\n".join(blocks), cwd=tmp_path)
    written = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert {"astronaut.png", "astronaut.safetensors", "astronaut.html"} <= set(written)
    assert all(size > 1000 for size in written.values()), written

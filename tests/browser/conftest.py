"""A real JupyterLab in a real Chromium. Without a browser the tests are skipped, with the reason; in CI they fail."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from sdwidgets.loading.doctor import find_browser

REPOSITORY = Path(__file__).parents[2]


def give_up(reason: str):
    """Skip; but where a skip would go unnoticed, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        path = find_browser()
        if path is None:
            give_up("no Chromium: install one, name it in CHROMIUM, or run `playwright install chromium`")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Page:
    """A page that remembers the errors of its console, what it asked of the network, and frames sent to a kernel."""

    def __init__(self, context):
        self.page = context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.frames_sent = 0
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append("a dialog opened"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: socket.on("framesent", self._count))

    def _console(self, message):
        # Our front end loads nothing, so a resource that failed is the surroundings' own: a slow server, a CDN offline.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)

    def _count(self, _frame):
        self.frames_sent += 1

    def __getattr__(self, name):
        return getattr(self.page, name)


# Seconds that a page or a server may take on a machine that has much else to do; a quiet one takes a few.
PATIENCE = float(os.environ.get("SDWIDGETS_PATIENCE", 300))


def pixels(canvas) -> str:
    """What a canvas shows, as a data URI: two are equal if and only if every pixel is."""
    return canvas.evaluate("canvas => canvas.toDataURL()")


def eventually(page, check, seconds: float = PATIENCE):
    """Call `check()` until it is true, letting the page go on meanwhile; returns what it said last."""
    end = time.monotonic() + seconds
    while not (answer := check()) and time.monotonic() < end:
        page.wait_for_timeout(50)
    return answer


@pytest.fixture
def new_page(browser) -> Iterator:
    """`new_page(width=1280, color_scheme="light", ...)` opens a page in a browser context of its own."""
    contexts = []

    def make(width: int = 1280, height: int = 900, **options) -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        contexts[-1].set_default_timeout(1000 * PATIENCE)
        return Page(contexts[-1])

    yield make
    for context in contexts:
        context.close()


class Lab:
    """A running JupyterLab over a folder of its own; `environment` is that of its process."""

    def __init__(self, url: str, folder: Path, environment: dict[str, str]):
        self.url, self.folder, self.environment = url, folder, environment

    def open(self, page: Page, name: str, *cells: str) -> Page:
        """Write a notebook with these cells, open it and run it; it is left running."""
        self.write(name, *cells)
        self.show(page, name)
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        page.evaluate("() => void jupyterapp.commands.execute('notebook:run-all-cells')")
        return page

    def write(self, name: str, *cells: str) -> None:
        """Write a notebook with these cells into the folder."""
        import nbformat

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / f"{name}.ipynb")

    def show(self, page: Page, name: str) -> Page:
        """Open a notebook of the folder; nothing is run."""
        page.goto(f"{self.url}/lab/tree/{name}.ipynb?reset")
        page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext")
        return page


@contextmanager
def running_lab(python: str, folder: Path, **variables: str) -> Iterator[Lab]:
    """JupyterLab on a free port of loopback, without a token, with configuration of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    work = folder / "work"
    work.mkdir()
    own = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    quiet = Path(own["JUPYTER_CONFIG_DIR"], "labconfig", "page_config.json")  # no question about news
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    environment = {**os.environ, **own, "OMP_WAIT_POLICY": "passive", **variables}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment["JUPYTER_CONFIG_PATH"] = f"{sys.prefix}/etc/jupyter"  # the same server extensions for both kinds
    command = [python, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", f"--ServerApp.root_dir={work}", "--IdentityProvider.token="]
    command += ["--LabApp.expose_app_in_browser=True", f"--LabApp.app_dir={sys.prefix}/share/jupyter/lab"]
    log = folder / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        if not _answers(f"{url}/api", server):
            pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}", pytrace=False)
        yield Lab(url, work, environment)
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def _answers(url: str, server: subprocess.Popen, seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return True
        except OSError:
            time.sleep(0.2)
    return False


@pytest.fixture(scope="session")
def labs(tmp_path_factory) -> Iterator:
    """`labs("current")`: JupyterLab of this environment; `labs("colab")`: with Colab's widgets and kernel."""
    running: dict[str, Lab] = {}
    with ExitStack() as stack:

        def start(kind: str) -> Lab:
            if kind not in running:
                python = sys.executable if kind == "current" else colab_python()
                running[kind] = stack.enter_context(running_lab(python, tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield start


def colab_python() -> str:
    """The Python of `.venv-colab`: this environment with Colab's widget and kernel versions laid over it.

    It is made once, whichever of several test processes comes first; nothing large is installed again, since all else comes from
    the environment underneath.
    """
    with FileLock(REPOSITORY / ".venv-colab.lock"):
        return _make_colab_python()


def _make_colab_python() -> str:
    wanted = (Path(__file__).parent / "colab-requirements.txt").read_text() + sys.prefix + sys.version
    folder = REPOSITORY / ".venv-colab"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / ".made-for"
    if not stamp.is_file() or stamp.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=False, symlinks=os.name != "nt")
        purelib = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        for place in dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")):
            with Path(purelib, "underneath.pth").open("a") as lines:  # addsitedir: editable installs there count too
                lines.write(f"import site; site.addsitedir({place!r})\n")
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
        install += ["--ignore-installed", "--disable-pip-version-check"]
        requirements = Path(__file__).with_name("colab-requirements.txt")
        made = subprocess.run([*install, "-r", str(requirements)], capture_output=True, text=True)
        if made.returncode:
            give_up(f"Colab's versions could not be installed: {made.stderr.strip()[-500:]}")
        stamp.write_text(wanted)
    return str(python)

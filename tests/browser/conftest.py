"""A real JupyterLab in a real Chromium. Without a browser the tests are skipped, with the reason; in CI they fail."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PLACES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def find_chromium(playwright) -> str | None:
    """CHROMIUM if it is set, else a Chromium or Chrome of the system, else the one that playwright installed."""
    if given := os.environ.get("CHROMIUM"):
        return given
    found = next((path for place in PLACES if (path := shutil.which(place))), None)
    own = playwright.chromium.executable_path
    return found or (own if Path(own).exists() else None)


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
        path = find_chromium(playwright)
        if path is None:
            give_up("no Chromium: install one, name it in CHROMIUM, or run `playwright install chromium`")
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Page:
    """A page that remembers every error of its console, and how many messages went to the kernel."""

    def __init__(self, context):
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append("a dialog"), dialog.dismiss()))

    def __getattr__(self, name):
        return getattr(self.page, name)


@pytest.fixture
def new_page(browser) -> Iterator:
    """`new_page(width=1280, color_scheme="light", ...)` opens a page in a browser context of its own."""
    contexts = []

    def make(width: int = 1280, height: int = 900, **options) -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        contexts[-1].set_default_timeout(60_000)
        return Page(contexts[-1])

    yield make
    for context in contexts:
        context.close()


class Lab:
    """A running JupyterLab over a folder of its own."""

    def __init__(self, url: str, folder: Path):
        self.url, self.folder = url, folder

    def open(self, page: Page, name: str, *cells: str) -> Page:
        """Write a notebook with these cells, open it and run it; it is left running."""
        import nbformat

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / f"{name}.ipynb")
        page.goto(f"{self.url}/lab/tree/{name}.ipynb?reset")
        page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext")
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
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
    quiet = Path(own["JUPYTER_CONFIG_DIR"], "labconfig", "page_config.json")
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    environment = {**os.environ, **own, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", **variables}
    command = [python, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", f"--notebook-dir={work}"]
    command += ["--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5).read()
                break
            except OSError:
                if server.poll() is not None:
                    break
                time.sleep(0.25)
        else:
            server.poll()
        if server.poll() is not None:
            pytest.fail(f"JupyterLab did not start:\n{(folder / 'lab.log').read_text()[-3000:]}", pytrace=False)
        yield Lab(url, work)
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """JupyterLab of this environment."""
    with running_lab(sys.executable, tmp_path_factory.mktemp("lab")) as running:
        yield running

"""What every test starts from: fixed threads, no window, and none of the person's own models or tokens.

Seeds stay where they are used: a test makes its own CPU generator. Browser tests look for their Chromium in
tests/browser; `make test` names it to them in CHROMIUM.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import pytest

# Set before anything is imported that reads them, and inherited by the kernels and servers that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # kernels and servers run beside the tests: wait without spinning
os.environ["MPLBACKEND"] = "Agg"
os.environ["SDWIDGETS_BF16"] = "0"  # training computes alike on every machine
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
_empty_home = tempfile.TemporaryDirectory(prefix="sdwidgets-test-hub-")  # holds no model, no token
os.environ["HF_HOME"] = _empty_home.name
os.environ.pop("HF_TOKEN", None)

import torch  # noqa: E402

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


NOTEBOOKS = "notebooks/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder and fixtures, and skip what this machine cannot run with the reason."""
    without_cuda = f"needs CUDA, and torch {torch.__version__} finds none here"
    has_cuda = torch.cuda.is_available()
    for item in items:
        for folder in ("browser", "gpu"):
            if f"/tests/{folder}/" in item.path.as_posix():
                item.add_marker(folder)
        # a kernel; a JupyterLab; Sphinx over all notebooks; the evening's deck from them
        if item.nodeid.startswith(NOTEBOOKS) or {"labs", "site", "evening"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("slow")
        if not has_cuda and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=without_cuda))


def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Share tests out one by one, but keep together a notebook's cells and a file whose tests share a costly fixture."""
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            together = file.startswith(NOTEBOOKS) or _shares_fixtures(config.rootpath / file)
            return file if together else nodeid

    return Sharing(config, log)


@functools.cache
def _shares_fixtures(file: Path) -> bool:
    return 'scope="module"' in file.read_text("utf-8")

"""What every test starts from: fixed threads, no window, and none of the person's own models or tokens.

Seeds stay where they are used: a test makes its own CPU generator. Browser tests look for their Chromium in
tests/browser; `make test` names it to them in CHROMIUM.
"""

from __future__ import annotations

import os
import tempfile

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and skip what this machine cannot run with the reason."""
    without_cuda = f"needs CUDA, and torch {torch.__version__} finds none here"
    has_cuda = torch.cuda.is_available()
    for item in items:
        for folder in ("browser", "gpu"):
            if f"/tests/{folder}/" in item.path.as_posix():
                item.add_marker(folder)
        if not has_cuda and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=without_cuda))

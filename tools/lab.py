"""Open the course in JupyterLab, on this machine only (loopback) and with the token that Jupyter draws."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def has_display() -> bool:
    """Whether a browser window can open: a Mac has a screen; elsewhere X11 or Wayland must be there."""
    return platform.system() == "Darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ


def main() -> None:
    notebooks = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if not notebooks:
        sys.exit("sdwidgets: notebooks/ holds no notebook; restore it with git checkout notebooks.")
    first = notebooks[0].relative_to(ROOT)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--ServerApp.ip=127.0.0.1",
        f"--LabApp.default_url=/lab/tree/{first.as_posix()}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    print(f"sdwidgets: opening {first} in JupyterLab. Stop it with Ctrl-C.")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("sdwidgets: running as root, which Jupyter allows only when told so (--allow-root): going on.")
        command.append("--allow-root")
    if not has_display():
        print("sdwidgets: no display here, so no browser opens; open the address with its token, below.")
        command.append("--no-browser")
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execv(command[0], command)  # Jupyter takes this process over, and Ctrl-C with it


if __name__ == "__main__":
    main()

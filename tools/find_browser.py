"""Print the path of a Chromium for the browser tests; say on stderr what is done to get one.

In this order: $CHROMIUM, one that is installed, playwright's own build, and as root on Debian or Ubuntu the
system's package. Where none can be had, nothing is printed and the exit status is 3.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
MAC_PATHS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
NOT_FOUND = 3


def say(text: str) -> None:
    print(f"sdwidgets: {text}", file=sys.stderr, flush=True)


def runs(path: str | None) -> bool:
    """Whether this browser starts: a package may be a stub, or miss a system library."""
    if not path:
        return False
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def installed() -> str | None:
    candidates = [shutil.which(name) for name in NAMES]
    if platform.system() == "Darwin":
        candidates.extend(MAC_PATHS)
    return next((path for path in candidates if runs(path)), None)


def playwright_build() -> str | None:
    """Where playwright keeps its own Chromium, if it is there."""
    code = (
        "from playwright.sync_api import sync_playwright\n"
        "with sync_playwright() as playwright: print(playwright.chromium.executable_path)"
    )
    path = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
    return path if runs(path) else None


def install_with_playwright() -> str | None:
    say("no Chromium found; trying playwright's own (playwright install chromium, about 150 MB) ...")
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], stdout=sys.stderr)
    return playwright_build()


def install_with_apt() -> str | None:
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return None
    say("playwright's is not to be had; as root, installing the system's (apt-get install chromium) ...")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        command = ["apt-get", "--quiet", *arguments]
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment).returncode != 0:
            return None
    return installed()


def find() -> str | None:
    named = os.environ.get("CHROMIUM")
    if named:
        if runs(shutil.which(named)):
            return shutil.which(named)
        say(f"CHROMIUM={named} does not start; looking for another browser.")
    return installed() or playwright_build() or install_with_playwright() or install_with_apt()


if __name__ == "__main__":
    browser = find()
    if browser is None:
        sys.exit(NOT_FOUND)
    print(browser)

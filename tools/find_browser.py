"""Print the path of a Chromium for the browser tests; say on stderr what is done to get one.

In this order: $CHROMIUM, one that is installed, playwright's own build, and as root on Debian or Ubuntu the
system's package. Where none can be had, nothing is printed and the exit status is 3.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from sdwidgets.loading.doctor import find_browser

NOT_FOUND = 3


def say(text: str) -> None:
    print(f"sdwidgets: {text}", file=sys.stderr, flush=True)


def install_with_playwright() -> str | None:
    say("no Chromium found; trying playwright's own (playwright install chromium, about 150 MB) ...")
    subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], stdout=sys.stderr)
    return find_browser()


def install_with_apt() -> str | None:
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return None
    say("playwright's is not to be had; as root, installing the system's (apt-get install chromium) ...")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        command = ["apt-get", "--quiet", *arguments]
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment).returncode != 0:
            return None
    return find_browser()


if __name__ == "__main__":
    browser = find_browser()
    if (named := os.environ.get("CHROMIUM")) and browser != shutil.which(named):
        say(f"CHROMIUM={named} does not start; looking for another browser.")
    browser = browser or install_with_playwright() or install_with_apt()
    if browser is None:
        sys.exit(NOT_FOUND)
    print(browser)

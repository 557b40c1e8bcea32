"""Photograph the README's replay: a recorded run of Pocket, exported and opened in a real browser.

    python tools/replay_picture.py docs/replay.png

Needs the extra `dev` and a Chromium, which CHROMIUM names.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

import sdwidgets

PROMPT, SEED = "an astronaut on a blue background", 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    chromium = os.environ.get("CHROMIUM")
    if chromium is None:
        print("name a Chromium in CHROMIUM; tools/find_browser.py finds one", file=sys.stderr)
        return 2
    pipe = sdwidgets.load("pocket", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    with sdwidgets.record(pipe) as trace:
        pipe(PROMPT, num_inference_steps=20, guidance_scale=3.0, generator=torch.Generator().manual_seed(SEED))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = trace.export_html(Path(folder) / "replay.html")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 720})
        tab.goto(page.as_uri())
        tab.locator(".status").first.wait_for()
        tab.wait_for_timeout(1500)  # its bitmaps are decoded beside the page
        tab.screenshot(path=args.picture)
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

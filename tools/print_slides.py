"""`python tools/print_slides.py`: the deck of build/slides as slides.pdf beside it, one page a slide, light.

Needs the extra `dev` and a Chromium, which CHROMIUM names.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DECK = Path(__file__).resolve().parent.parent / "build" / "slides" / "index.html"


def print_deck(page, deck: Path, pdf: Path) -> Path:
    """Print `deck` to `pdf` from an open page of playwright; returns `pdf`."""
    page.goto(f"{deck.resolve().as_uri()}?print-pdf")
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    page.wait_for_timeout(1000)  # views decode their pictures beside the page
    page.pdf(path=pdf, prefer_css_page_size=True, print_background=True)
    return pdf


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "deck", nargs="?", type=Path, default=DECK, help="the deck's page; default: build/slides/index.html"
    )
    deck = parser.parse_args().deck
    chromium = os.environ.get("CHROMIUM")
    if not chromium:
        print("sdwidgets: name a Chromium in CHROMIUM; tools/find_browser.py finds one", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        print(f"sdwidgets: {print_deck(browser.new_page(), deck, deck.with_name('slides.pdf'))}")
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

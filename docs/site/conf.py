"""Sphinx over the course's notebooks as they are stored: nothing is executed, and nothing comes from a network.

`tools/make_site.py` puts notebooks and this folder together before it calls Sphinx, so the paths here are those of its folder.
"""

import re

project = "Stable Diffusion on a laptop"
author = "The sdwidgets authors"
copyright = "the sdwidgets authors, CC BY 4.0"
html_title = "Stable Diffusion on a laptop"

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.autodoc"]
exclude_patterns = ["vendor"]
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository, which are no pages here
    "myst.header",  # a notebook's headings may start at any level
    "mystnb.unknown_mime_type",
]

# Stored outputs only; where an output has several forms, the view that is alive without a kernel comes first.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # a live widget needs its kernel; its script would come from a network
nb_mime_priority_overrides = [("html", "text/html", 1)]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

mathjax_path = "mathjax/tex-svg-full.js"  # the same file as the slides'
mathjax3_config = {"options": {"enableMenu": False}}

html_theme = "furo"
pygments_style = "a11y-high-contrast-light"  # each colour at least 4.5 to 1 on its ground
pygments_dark_style = "a11y-high-contrast-dark"
html_static_path = ["static", "vendor"]
html_css_files = ["course.css"]
html_js_files = ["theme.js"]
html_show_sphinx = False
html_copy_source = False
html_favicon = None

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "no-value": True}
maximum_signature_line_length = 90

ITEM = re.compile(r"\s|- |[\w., ]{1,80}: ")  # what begins a line of its own: an argument, or something indented


def as_paragraphs(app, what, name, obj, options, lines: list[str]) -> None:
    """A docstring is plain text: paragraphs, a line for each argument, and code in backticks."""
    joined: list[str] = []
    for line in "\n".join(lines).strip().splitlines():
        if joined and joined[-1] and line and not ITEM.match(line):
            joined[-1] += " " + line
        else:
            joined.append(line)
    lines[:] = [f"| {quoted(line)}".rstrip() for line in joined] + [""]


def quoted(line: str) -> str:
    """A line of plain text as reStructuredText."""
    parts = re.split(r"`+", line)
    parts[::2] = [re.sub(r"([*_|\\])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"\\ ``{part}``\\ " for part in parts[1::2]]
    return "".join(parts)


PARAMETERS = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")


def as_accessible(app, pagename, templatename, context, doctree) -> None:
    """What a screen reader needs of the theme's HTML: a level for each heading, and no list of definitions without a term."""
    for part in ("body", "furo_navigation_tree"):
        text = (context.get(part) or "").replace('role="heading">', 'role="heading" aria-level="2">')
        context[part] = PARAMETERS.sub(as_spans, text)


def as_spans(match: re.Match) -> str:
    return '<span class="parameters">' + re.sub("<(/?)dd>", r"<\1span>", match[1]) + "</span>"


def setup(app):
    app.connect("autodoc-process-docstring", as_paragraphs)
    app.connect("html-page-context", as_accessible, priority=900)  # after the theme's own

"""A view as a page: one self-contained piece of HTML that needs no kernel, no network and no trust in its text.

Knows nothing of what is shown: a view hands over its script, its data, and a still picture for where scripts do not run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from pathlib import Path
from string import Template

from PIL import Image

from ..course.colab import REPOSITORY
from ..parts import map_leaves
from ..paths import replacing
from ..trace_file import encoded

STATIC = Path(__file__).parent / "static"


def bundle_scripts(*scripts: str, **constants) -> str:
    """The style, as a constant CSS, these constants, the shared helpers, and these scripts of `static` in one text.

    The style is look.css and what stands beside a script under its name: race.css for race.js.
    """
    styles = [
        STATIC / "look.css",
        *(path for script in scripts if (path := (STATIC / script).with_suffix(".css")).is_file()),
    ]
    constants = {"CSS": "\n".join(path.read_text("utf-8") for path in styles), **constants}
    texts = [(STATIC / script).read_text("utf-8") for script in ("common.js", *scripts)]
    return "\n".join([*(f"const {name} = {for_script(value)};" for name, value in constants.items()), *texts])


def for_script(value) -> str:
    """JSON that may stand inside a script element: no text in it can end the element or open a comment.

    Takes dicts, lists, numbers, text, and bytes, which `decodeBinary` of common.js reads back. Raises ValueError for numbers that are not
    finite.
    """
    value = map_leaves(value, bytes, lambda data: {"b64": base64.b64encode(data).decode("ascii")})
    try:
        text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise ValueError(
            "this view has numbers that are not finite (NaN or infinity), which cannot be drawn; make the run again in float32, or with "
            "another scheduler or seed"
        ) from None
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def embed(script: str, view: str, data: dict, still: Image.Image, alt: str, state: dict | None = None) -> str:
    """A piece of HTML that shows `data` with the JavaScript class `view` of `script`: for a notebook's output, several on a page.

    The view lives in a shadow root. Where scripts do not run (an untrusted notebook, a code host's page) the element keeps
    its other content: the picture `still`, described by `alt`, and a sentence on how to get the view.
    """
    text = for_script(data)
    key = hashlib.sha256((view + text + for_script(state)).encode()).hexdigest()[:16]
    picture = base64.b64encode(encoded(still, "WEBP", quality=75, lossless=still.mode == "P")).decode("ascii")
    return filled(
        "embed.html", key=key, alt=html.escape(alt, quote=True), picture=picture, script=script, data=text, view=view, state=for_script(state or {})
    )  # fmt: skip


def filled(template: str, **values: str) -> str:
    """A template of `static`, whose $names these values take the place of, as they are: HTML that is trusted."""
    return Template((STATIC / template).read_text("utf-8")).substitute(values)


def page(body: str, title: str) -> str:
    """A piece of HTML as one self-contained page, with its title and a link to the course."""
    return filled("page.html", title=html.escape(title), course=REPOSITORY, body=body)


def write(text: str, path: str | os.PathLike) -> Path:
    """Write a page and return its path. The file appears whole or not at all.

    Raises OSError, with a sentence, where it cannot be written.
    """
    path = Path(path)
    with replacing(path, "the page") as part:
        part.write_text(text, "utf-8")
    return path

"""What the views over recorded runs share: a page that needs no kernel, and a live widget that code can move.

A subclass names its script and its state, and turns traces into plain data; the script draws. So a view runs no pipeline, and
one script serves a notebook, a file on its own, and a slide.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets
from PIL import Image

from ..trace_file import encoded
from . import html
from .saved import LeavesPage


class View:
    """Recorded data with controls to look at them; shows itself where a cell ends with it.

    What a notebook shows needs no kernel: it works in a saved page too, and `export_html` makes a file of it. `set` chooses
    what is shown first. `widget()` is the same view connected to the kernel: there `set` changes what is on the page already,
    and `state` holds what the reader chose.

    A subclass gives `script`, files of the folder static with a JavaScript class that is named as the subclass: `card`, its
    element; `open(data)`; `set(state)`, which takes any part of the state; it calls `changed(state)`, where that is set, when
    the reader moves something, and may have `close()`. `constants` are those that Python and the script share. `default_state`
    names all parts of the state with their first values.
    """

    script: ClassVar[tuple[str, ...]]
    constants: ClassVar[dict[str, Any]] = {}
    default_state: ClassVar[dict[str, Any]] = {}

    def __init__(self, data: dict, title: str, **state):
        self.data, self.title = data, title
        self.state = dict(self.default_state)
        self._widgets: weakref.WeakSet[LiveView] = weakref.WeakSet()
        self.set(**state)

    def set(self, **state) -> View:
        """Choose what is shown, also on widgets that are on a page already. Raises TypeError for an unknown name."""
        unknown = sorted(set(state) - set(self.default_state))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no {unknown[0]!r} to set; it has: {', '.join(self.default_state) or 'nothing'}"
            )
        self.state |= {name: self.validate_state(name, value) for name, value in state.items()}
        for widget in self._widgets:
            widget.state = dict(self.state)
        return self

    def validate_state(self, name: str, value):
        """`value`, if it can be shown; subclasses raise ValueError and name what can."""
        return value

    def static_image(self) -> Image.Image:
        """What is shown where no script runs; a subclass draws it from its data. One with a palette is stored as PNG, others as JPEG."""
        raise NotImplementedError

    def widget(self) -> LiveView:
        """The view as a widget connected to the kernel."""
        widget = LiveView(self)
        self._widgets.add(widget)
        return widget

    @classmethod
    def bundle(cls) -> str:
        """All JavaScript of the view in one text."""
        return html.bundle_scripts(*cls.script, **cls.constants)

    def to_html(self) -> str:
        """The view as a piece of HTML for a page."""
        return html.embed(self.bundle(), type(self).__name__, self.data, self.static_image(), self.title, self.state)

    def export_html(self, path: str | os.PathLike) -> Path:
        """Write the view as one file that works offline, from a file system too; returns its path."""
        return html.write(self.page(), path)

    def page(self) -> str:
        """The text of that file."""
        return html.page(self.to_html() + self.extra_html(), self.title)

    def extra_html(self) -> str:
        """Hidden HTML that an exported file carries too, such as the run itself."""
        return ""

    def __repr__(self) -> str:
        state = ", ".join(f"{name}={value!r}" for name, value in self.state.items())
        return f"<{type(self).__name__}: {self.title}{'; ' if state else ''}{state}>"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        picture = self.static_image()
        if picture.mode == "P":
            still = {"image/png": encoded(picture, "PNG", optimize=True)}
        else:
            still = {"image/jpeg": encoded(picture.convert("RGB"), "JPEG", quality=80, optimize=True)}
        return {"text/html": self.to_html(), **still, "text/plain": repr(self)}


class LiveView(LeavesPage, anywidget.AnyWidget):
    """A view connected to the kernel. `state`: what is shown, a dict; set it, or let the reader, and observe it."""

    _esm = traitlets.Unicode().tag(sync=True)
    data = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, view: View):
        self._view = view
        live = (html.STATIC / "live_view.js").read_text("utf-8")
        script = f"{view.bundle()}\n{live.replace('VIEW', type(view).__name__)}"
        super().__init__(_esm=script, data=html.for_script(view.data), state=dict(view.state))
        self.observe(self._moved, "state")

    def saved_view(self) -> View:
        return self._view

    def set(self, **state) -> LiveView:
        """Choose what is shown, as `View.set` does."""
        self._view.set(**state)
        return self

    def __repr__(self) -> str:
        return f"<live {repr(self._view).strip('<>')}>"

    def _moved(self, change) -> None:
        self._view.state |= {name: value for name, value in change.new.items() if name in self._view.default_state}

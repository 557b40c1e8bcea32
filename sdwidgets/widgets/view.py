"""What the views over recorded runs share: a page that needs no kernel, and a live widget that code can move.

A subclass names its script and what there is to set, and turns traces into plain data; the script draws. So a view runs
no pipeline, and one script serves a notebook, a file on its own, and a slide.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets
from PIL import Image

from . import html

LIVE = """
export default {
  render({ model, el }) {
    const host = document.createElement("div");
    el.append(host);
    const view = new VIEW();
    const forget = dress(host, CSS, view.card);
    view.open(revive(JSON.parse(model.get("data"))));
    const take = () => view.set(model.get("state"));
    take();
    model.on("change:state", take);
    view.changed = (state) => { // the reader moved something
      model.set("state", { ...model.get("state"), ...state });
      model.save_changes();
    };
    return () => { model.off("change:state", take); view.close?.(); forget(); };
  },
};
"""


class View:
    """Something to look at and to move, over data that were recorded; shows itself where a cell ends with it.

    What is shown in a notebook needs no kernel: it stays alive in a saved page, and `export_html` makes a file of it.
    `set` chooses what it shows first. `widget()` is the same view joined to the kernel: there `set` moves what is on the page
    already, and `state` tells what the reader chose.

    A subclass gives `script`, a file of this folder with a JavaScript class that is named as the subclass: `card`, its
    element; `open(data)`; `set(state)`, which takes any part of the state; it calls `changed(state)`, where that is set, when
    the reader moves something, and may have `close()`. `start` holds the state that there is and what it is at first.
    """

    script: ClassVar[tuple[str, ...]]
    start: ClassVar[dict[str, Any]] = {}

    def __init__(self, data: dict, title: str, **state):
        self.data, self.title = data, title
        self.state = dict(self.start)
        self._widgets: weakref.WeakSet[LiveView] = weakref.WeakSet()
        self.set(**state)

    def set(self, **state) -> View:
        """Choose what is shown, on the widgets that are on a page already too. Raises TypeError for a name that there is not."""
        unknown = sorted(set(state) - set(self.start))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no {unknown[0]!r} to set; it has: {', '.join(self.start) or 'nothing'}"
            )
        self.state |= {name: self.checked(name, value) for name, value in state.items()}
        for widget in self._widgets:
            widget.state = dict(self.state)
        return self

    def checked(self, name: str, value):
        """`value`, if there is such a thing to show; subclasses raise ValueError and say what there is."""
        return value

    def still(self) -> Image.Image:
        """What is shown where no script runs. A subclass draws it from its data."""
        raise NotImplementedError

    def widget(self) -> LiveView:
        """The view as a widget joined to the kernel."""
        widget = LiveView(self)
        self._widgets.add(widget)
        return widget

    def to_html(self) -> str:
        """The view as a piece of HTML for a page."""
        return html.embed(self.script, type(self).__name__, self.data, self.still(), self.title, self.state)

    def export_html(self, path: str | os.PathLike) -> Path:
        """Write the view as one file that works offline, from a file system too; returns its path."""
        return html.write(self.to_html() + self.carried(), path, self.title)

    def carried(self) -> str:
        """HTML that an exported file carries besides and nobody sees, such as the run itself."""
        return ""

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.state.items())
        return f"<{type(self).__name__}: {self.title}{'; ' if told else ''}{told}>"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/html": self.to_html(), "image/png": html.small_png(self.still()), "text/plain": repr(self)}


class LiveView(anywidget.AnyWidget):
    """A view joined to the kernel. `state`: what is shown, a dict; set it, or let the reader, and observe it."""

    _esm = traitlets.Unicode().tag(sync=True)
    data = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, view: View):
        self._view = view
        script = html.front_end(*view.script) + LIVE.replace("VIEW", type(view).__name__)
        super().__init__(_esm=script, data=html.for_script(view.data), state=dict(view.state))
        self.observe(self._moved, "state")

    def set(self, **state) -> LiveView:
        """Choose what is shown, as `View.set` does."""
        self._view.set(**state)
        return self

    def __repr__(self) -> str:
        return f"<live {repr(self._view).strip('<>')}>"

    def _moved(self, change) -> None:
        self._view.state |= {name: value for name, value in change.new.items() if name in self._view.start}

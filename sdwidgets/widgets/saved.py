"""What a live widget leaves in its notebook: beside it in the cell a page that needs no kernel, seen where the widget is not alive.

A saved notebook, an export and the site have no kernel, and what they show of a widget is "model not found" or nothing. So its cell
has a second output, which the widget, once the kernel answers, hides; and which is replaced when there is more to show.
"""

from __future__ import annotations

import html
import uuid
from typing import TYPE_CHECKING

import traitlets

from .html import filled

if TYPE_CHECKING:
    from .view import View


class LeavesPage(traitlets.HasTraits):
    """For a widget. `saved_as`, a name, is a trait, so that its script can mark the live element with it (static/saved.html looks for
    that); `saved_view()` is the view to leave, None where there is none yet; `saved_sentence` stands above it, plain text.
    """

    saved_as = traitlets.Unicode(read_only=True).tag(sync=True)
    _display = None

    @traitlets.default("saved_as")
    def _new_name(self) -> str:
        return uuid.uuid4().hex[:12]

    @property
    def saved_sentence(self) -> str:
        return ""

    def saved_view(self) -> View | None:
        raise NotImplementedError

    def saved_bundle(self) -> dict:
        """The second output."""
        view = self.saved_view()
        shown = view._repr_mimebundle_() if view else {"text/html": "", "text/plain": ""}
        sentence = f"<p>{html.escape(self.saved_sentence)}</p>" if self.saved_sentence else ""
        return {**shown, "text/html": filled("saved.html", key=self.saved_as, body=sentence + shown["text/html"])}

    def renew_saved(self) -> None:
        """Replace the second output, in every cell that shows the widget."""
        if self._display is not None:
            self._display.update(self.saved_bundle(), raw=True)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()  # type: ignore[attr-defined]
        nothing = {"text/html": ""}  # for pages that know no widgets
        display({**data, **nothing}, metadata=metadata, raw=True)
        self._display = display(self.saved_bundle(), raw=True, display_id=self.saved_as)

"""The cards: what is known of Pocket and of its data, as text and figures. Each text is a template beside its values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def rendered(template: Path, values: dict, filters: dict | None = None) -> str:
    """A Jinja template with its values. A value that it names and is not there is an error."""
    import jinja2  # comes with PyTorch

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"fmt": format, "listed": listed, "rows": table_rows} | (filters or {})
    return environment.get_template(template.name).render(values)


def listed(rows: Iterable, form: str, separator: str = ", ") -> str:
    """Each row, a dictionary or a sequence, put into `form` by str.format."""
    return separator.join(form.format(**row) if isinstance(row, dict) else form.format(*row) for row in rows)


def table_rows(rows: Iterable[Iterable]) -> str:
    """Cells as lines of a Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in rows)

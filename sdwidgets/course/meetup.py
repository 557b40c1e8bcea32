"""The evening's own words: one small TOML file that any meetup edits, read, checked, and shown as escaped markdown.

The file is `data/meetup.toml`; what it may say stands in its own comments. Text in it is text: no markup of it is ever used.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from ..paths import data_folder


@dataclass(frozen=True)
class Meetup:
    """What a meetup says of itself and of this evening. Lists are tuples of one line each."""

    name: str  # "Huntsville AI"
    address: str  # its page: https://...
    vision: str  # what the world is like when the group has done its work
    mission: str  # what the group does for it
    connect: tuple[tuple[str, str], ...]  # how to join: (label, https://... or mailto:...)
    agenda: tuple[str, ...]  # this evening, in order
    last_week: tuple[str, ...]  # what was done
    next_week: tuple[str, ...]  # what is planned

    def markdown(self, *parts: str) -> str:
        """The named parts as escaped markdown, all of them by default, each under a heading of level three.

        Raises ValueError for a part that there is not.
        """
        for part in parts:
            if part not in PARTS:
                raise ValueError(f"a meetup has no part {part!r}; it has: {', '.join(PARTS)}")
        return "\n\n".join(self._part(part) for part in parts or PARTS)

    def _part(self, part: str) -> str:
        value = getattr(self, part)
        if isinstance(value, str):
            return f"### {PARTS[part]}\n\n{escape(value)}"
        lines = [f"[{escape(row[0])}]({link(row[1])})" if part == "connect" else escape(row) for row in value]
        mark = "1." if part == "agenda" else "-"
        return f"### {PARTS[part]}\n\n" + "\n".join(f"{mark} {line}" for line in lines)

    def _repr_markdown_(self) -> str:
        return f"## [{escape(self.name)}]({link(self.address)})\n\n{self.markdown()}"


PARTS = {  # what can be shown -> its heading, in the order of an evening
    "agenda": "Agenda", "vision": "Vision", "mission": "Mission", "connect": "How to connect",
    "last_week": "Last week", "next_week": "Plan for next week",
}  # fmt: skip


def meetup(path: str | os.PathLike | None = None) -> Meetup:
    """Read a meetup's file, `data/meetup.toml` by default.

    Raises FileNotFoundError where there is none, ValueError where it is no TOML, or a field is missing, unknown or of the
    wrong kind; the message names the file, the field, and what it should be.
    """
    path = Path(path) if path is not None else data_folder("") / "meetup.toml"
    table = _read(path)
    names = [field.name for field in fields(Meetup)]
    for name in table:
        if name not in names:
            close = get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{path.name}: there is no field {name!r}{hint}; the fields are: {', '.join(names)}")
    for name in names:
        if name not in table:
            raise ValueError(
                f"{path.name}: the field {name!r} is missing; data/meetup.toml of the course shows all of them"
            )
    return Meetup(**{name: _checked(path.name, name, table[name]) for name in names})


def _read(path: Path) -> dict:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10, where JupyterLab brings tomli along
        import tomli as tomllib  # type: ignore
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no meetup file at {str(path)!r}; copy data/meetup.toml of the course and edit it"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path.name} is not TOML in UTF-8: {error}; text stands in quotes, lists in [brackets]"
        ) from None


def _checked(file: str, name: str, value):
    """A field's value as `Meetup` keeps it, or ValueError."""
    if name == "address":
        link(value, f"{file}: {name!r}")
    if name in ("name", "address", "vision", "mission"):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f'{file}: {name!r} is one text in quotes, such as {name} = "..."; it is {value!r}')
        return value
    if name == "connect":
        if not isinstance(value, dict) or not value:
            raise ValueError(
                f'{file}: \'connect\' is a table of lines such as "Web page" = "https://..."; it is {value!r}'
            )
        for label, address in value.items():
            link(address, f"{file}: 'connect', {label!r}")
        return tuple(value.items())
    if not isinstance(value, list) or not value or not all(isinstance(row, str) and row.strip() for row in value):
        raise ValueError(f'{file}: {name!r} is a list of texts, such as {name} = ["one", "two"]; it is {value!r}')
    return tuple(value)


def link(address: str, whose: str = "an address") -> str:
    """`address` made fit for a markdown link; only https and mailto lead anywhere. Raises ValueError for any other."""
    parts = urlsplit(address) if isinstance(address, str) else None
    good = parts and (parts.scheme == "https" and parts.netloc or parts.scheme == "mailto" and "@" in parts.path)
    if not good or re.search(r"\s", address):
        raise ValueError(f"{whose} is https://... or mailto:..., without spaces; it is {address!r}")
    return re.sub(
        r"""[^\w.~:/?#@!$&*+,;=%-]""", lambda odd: "".join(f"%{byte:02X}" for byte in odd[0].encode()), address
    )


def escape(text: str) -> str:
    """Text that markdown shows as it is written, on one line: no markup and no HTML in it comes to life."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-.!|$&~:=])", r"\\\1", " ".join(text.split()))

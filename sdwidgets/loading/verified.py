"""Are the bytes of a download those that the hub holds? Asked once for each file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..paths import cache_folder, replacing
from .memory import gigabytes

PIECE, SLOW = 2**22, 10**9  # bytes read at once, and from which on it is said


def damaged_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of the files `folder`/name whose bytes do not have the SHA-256 that the hub's cache names them by.

    A file that was right is not read again before it changes. Small files, which are named otherwise, and those of a cache without links
    are not looked at.
    """
    record, wrong = cache_folder() / "verified.json", []
    known: dict[str, list[int]] = {}
    with suppress(OSError, ValueError):
        known = dict(json.loads(record.read_text(encoding="utf-8")))
    before = dict(known)
    for name in names:
        file = (folder / name).resolve()
        if not re.fullmatch("[0-9a-f]{64}", file.name):
            continue
        now = [file.stat().st_size, file.stat().st_mtime_ns]
        if known.get(str(file)) == now:
            continue
        if now[0] > SLOW:
            print(f"{name}: its {gigabytes(now[0])} are checked once, which takes some seconds")
        if sha256(file) == file.name:
            known[str(file)] = now
        else:
            wrong.append(name)
    if known != before:
        with suppress(OSError):  # then it is read once more next time
            record.parent.mkdir(parents=True, exist_ok=True)
            with replacing(record) as part:
                part.write_text(json.dumps(known), encoding="utf-8")
    return wrong


def sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()

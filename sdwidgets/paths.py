"""Where carried data and caches lie, and how a file is written whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def data_folder(name: str) -> Path:
    """The folder `data/<name>`, e.g. "pocket" or "atlas". Raises FileNotFoundError where neither place has it."""
    package = Path(__file__).resolve().parent
    for folder in (package / "data" / name, package.parent / "data" / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the carried data {name!r} are missing: install sdwidgets again, or clone the whole repository with its data/ folder"
    )


def cache_folder() -> Path:
    """Where checkpoints, cached latents and compiled networks lie: $SDWIDGETS_CACHE, or `sdwidgets` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sdwidgets"
    return Path(os.environ.get("SDWIDGETS_CACHE", default))


@contextmanager
def replacing(path: str | os.PathLike, what: str = "the file") -> Iterator[Path]:
    """A path beside `path` to write to; at the end of the block that file takes the place of `path`, in one move.

    So a file appears whole or not at all: where anything fails the old one stays, and nothing is left beside it. Raises OSError with a
    sentence about `what` for a full disk, a missing folder and the like.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        sentence = f"{what} was not written ({error.strerror}), and what was there before is unchanged; free some space or choose another folder"
        raise OSError(error.errno, sentence, str(path)) from error
    finally:
        part.unlink(missing_ok=True)

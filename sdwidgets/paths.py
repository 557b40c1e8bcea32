"""Where carried data and caches lie, and how a file is written whole."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def from_home(path: str | os.PathLike) -> Path:
    """The path with a leading "~" as the home folder; as it is where "~name" is nobody's home on this machine."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextmanager
def replacing(path: str | os.PathLike, what: str = "the file", part: Path | None = None) -> Iterator[Path]:
    """A path beside `path` to write to; at the end of the block that file takes the place of `path`, in one move.

    So a file appears whole or not at all: where anything fails the old one stays, and nothing is left beside it. Raises OSError with a
    sentence about `what` for a full disk, a missing folder, a name that is too long and the like.

    part: where to write meanwhile; None: a new name, so that several processes may write the same file. A fixed one is written again by
    the next try, so that nothing is left behind by a process that was killed.
    """
    path = Path(path)
    part = part or path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:8]}{path.suffix[:20]}")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        advice = (
            "choose a shorter name"
            if error.errno == errno.ENAMETOOLONG
            else "free some space or choose another folder"
        )
        sentence = f"{what} was not written ({error.strerror}), and what was there before is unchanged; {advice}"
        raise OSError(error.errno, sentence, str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink()

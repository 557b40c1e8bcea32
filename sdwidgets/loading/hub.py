"""From a hub repository to a folder on this disk, announced before it is done; what arrived whole stays there."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tqdm.auto import tqdm

from .checkpoint import check_folder, choose_weights, read_index
from .errors import FALLBACK, GatedModelError, LoadError, NoNetworkError, NoSpaceError, UnknownModelError, WeightsError
from .memory import free_disk, gigabytes
from .verified import damaged_files
from .waiting import bounded_bars

_SMALL = (".json", ".txt", ".model")  # configurations and tokenizers; .model is SentencePiece's
TRIES, USUAL_WAIT, LONGEST_WAIT = 4, 10, 300  # downloads; seconds between two of them, where the hub asks for that
_WHY_THE_CACHE = {
    NoNetworkError: "the hub cannot be reached, or is out of order",
    GatedModelError: "the hub does not open it now",
    UnknownModelError: "the hub does not have it any more",
}
_SPARE = 500_000_000  # bytes of disk that must stay free for everything else


def fetch_first(hub_ids: Sequence[str], revision: str | None = None, *, half: bool = False) -> Path:
    """`fetch` from the first of these repositories that is there, or the first error."""
    errors: list[Exception] = []
    for hub_id in hub_ids:
        try:
            folder = fetch(hub_id, revision if not errors else None, half=half)
        except (UnknownModelError, GatedModelError) as error:  # gone or closed here: a mirror may have it
            errors.append(error)
            continue
        if errors:
            print(f"{hub_ids[0]} is gone or closed: taken from the mirror {hub_id}")
        return folder
    raise errors[0]


def fetch(hub_id: str, revision: str | None = None, *, half: bool = False) -> Path:
    """The folder of a hub repository's pipeline, downloaded where the cache does not have it yet.

    `half` prefers the repository's fp16 files, half the size. Without a network, with HF_HUB_OFFLINE=1, or
    where the repository is gone, the cache answers. Raises a LoadError in one sentence.
    """
    import huggingface_hub as hub

    try:
        return _patiently(lambda: _download(hub_id, revision, half), hub_id)
    except Exception as error:
        problem, cached = explain(error, hub_id), None
        if isinstance(problem, (NoNetworkError, GatedModelError, UnknownModelError)):
            with suppress(ValueError):  # no possible id
                cached = hub.try_to_load_from_cache(hub_id, "model_index.json", revision=revision)
        if not isinstance(cached, str):
            raise problem from error
        folder = Path(cached).parent
        try:
            _, files = check_folder(folder, half=half)
        except WeightsError:
            raise problem from error
        for name in damaged_files(
            folder, (file.relative_to(folder).as_posix() for part in files.values() for file in part)
        ):
            raise WeightsError(
                f"{name} of {hub_id} is damaged in the cache, and cannot be fetched again now: {problem}"
            ) from error
        why = "HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else _WHY_THE_CACHE[type(problem)]
        print(f"{hub_id}: {why}, so the copy in the cache is used")
        return folder


def _download(hub_id: str, revision: str | None, half: bool) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import constants

    if not constants.HF_HOME:
        raise LoadError(
            f"HF_HOME is set to nothing, so {hub_id} would go into the current folder; unset it or name a folder, and restart. {FALLBACK}"
        )
    # Without a timeout a hub that accepts the line and never answers is waited for without end.
    info = hub.HfApi().model_info(
        hub_id, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    sizes = {file.rfilename: file.size or 0 for file in info.siblings}
    known = hub.try_to_load_from_cache(hub_id, "model_index.json", revision=revision)
    newest = isinstance(known, str) and Path(known).parent.name == info.sha
    index = known if newest else hub.hf_hub_download(hub_id, "model_index.json", revision=revision)
    parts = read_index(Path(index).parent)
    _, weights = choose_weights(parts, sizes, half=half, where=hub_id)
    small = {n for n in sizes if n.endswith(_SMALL) and ".index." not in n and n.split("/")[0] in parts}
    wanted = sorted({"model_index.json", *weights, *small})
    have = [n for n in wanted if isinstance(hub.try_to_load_from_cache(hub_id, n, revision=info.sha), str)]
    need, cache = sum(sizes[n] for n in set(wanted) - set(have)), constants.HF_HUB_CACHE
    free = free_disk(cache)
    if need and need + _SPARE > free:
        raise NoSpaceError(
            f"{hub_id} needs {gigabytes(need)} more in {cache}, and {gigabytes(free)} are free; "
            f"make room, or set HF_HOME to a folder on a larger disk. {FALLBACK}"
        )
    if need:
        print(
            f"{hub_id}: downloading {gigabytes(need)} to {cache}; each file that has arrived stays there after a break"
        )
    if newest and len(have) == len(wanted):
        folder = Path(index).parent
    else:
        with bounded_bars(hub_id) as bars:
            folder = Path(hub.snapshot_download(hub_id, revision=revision, allow_patterns=wanted, tqdm_class=bars))
    wrong = [name for name in wanted if (folder / name).stat().st_size != sizes[name]]
    for name in dict.fromkeys(wrong + damaged_files(folder, sorted(weights))):
        print(f"{hub_id}: {name} is damaged in the cache and is fetched again")
        hub.hf_hub_download(hub_id, name, revision=revision, force_download=True)
    for name in damaged_files(folder, sorted(weights)):
        raise WeightsError(
            f"{name} of {hub_id} arrives with other bytes than the hub holds; try again on another network. {FALLBACK}"
        )
    return folder


def _patiently(download: Callable[[], Path], hub_id: str) -> Path:
    """`download`, again after the seconds that a hub with too many requests asks for, a few times."""
    for _ in range(TRIES - 1):
        try:
            return download()
        except Exception as error:
            response = getattr(error, "response", None)
            if response is None or response.status_code != 429:
                raise
            wait = str(response.headers.get("Retry-After", ""))
        seconds = min(int(wait), LONGEST_WAIT) if wait.isdecimal() else USUAL_WAIT
        print(f"{hub_id}: the hub has too many requests and asks to wait {seconds} s")
        for _ in tqdm(range(seconds), desc="waiting for the hub", unit="s", leave=False):
            time.sleep(1)
    return download()


def explain(error: Exception, hub_id: str) -> LoadError:
    """The one sentence for what went wrong between here and the hub."""
    from huggingface_hub import constants, errors, get_token

    if isinstance(error, LoadError):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached, or is out of order"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    disabled = type(error).__name__ == "DisabledRepoError"
    for applies, kind, sentence in (  # a gated repository's error before its parent class, RepositoryNotFoundError
        (isinstance(error, errors.GatedRepoError), GatedModelError,
         f"{hub_id} is gated: sign in at https://huggingface.co/{hub_id} and accept its licence, then run `hf auth login` (or set HF_TOKEN) and load it again."),
        (isinstance(error, errors.RevisionNotFoundError), UnknownModelError,
         f"{hub_id} has no such revision; leave it out for the newest."),
        (isinstance(error, errors.RepositoryNotFoundError) or disabled, UnknownModelError,
         f"The hub has no model {hub_id}: misspelled, removed, or private (then run `hf auth login`)."),
        (status in (401, 403) and not get_token(), GatedModelError,
         f"The hub lets nobody read {hub_id} without signing in; run `hf auth login` (or set HF_TOKEN) and load it again."),
        (status in (401, 403), GatedModelError,
         f"The hub does not let the stored token read {hub_id}; run `hf auth login` with one that may."),
        (isinstance(error, errors.HFValidationError), UnknownModelError,
         f"{hub_id!r} cannot be the name of a hub repository."),
        (isinstance(error, errors.LocalEntryNotFoundError) or _is_network(error), NoNetworkError,
         f"{hub_id} is not, or not wholly, on this machine, and {offline}."),
        (isinstance(error, errors.EntryNotFoundError), WeightsError,
         f"{hub_id} is not a saved diffusers pipeline: no model_index.json."),
        (status is not None and status >= 400, NoNetworkError,
         f"{hub_id} cannot be fetched now: the hub answered {status}."),
        (isinstance(error, (ValueError, KeyError)), NoNetworkError,
         f"{hub_id} cannot be fetched now: what answers is not the hub. Is there a page to sign in to this network?"),
        (full, NoSpaceError,
         f"The disk became full while {hub_id} was fetched; files that had arrived stay there. Make room and load it again, or set HF_HOME to a folder on a larger disk."),
    ):  # fmt: skip
        if applies:
            return kind(f"{sentence} {FALLBACK}")
    first = (str(error).strip().splitlines() or ["no reason was given"])[0][:200]
    return LoadError(f"{hub_id} could not be fetched: {first} ({type(error).__name__}). {FALLBACK}")


def _is_network(error: Exception) -> bool:
    """Refused, timed out, no such host, or a server out of order; whichever HTTP library the client has."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status >= 500 or status == 429
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, (ConnectionError, TimeoutError)) or library in ("httpx", "httpx2", "requests")

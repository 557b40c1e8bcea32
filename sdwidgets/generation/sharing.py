"""One pipeline and several users of it: a Playground's thread, views, batches, and cells that simply call `pipe(...)`.

A call of a diffusers pipeline writes on the pipeline (its guidance, its number of steps) and on its scheduler, so two calls at once spoil
each other. Our runs therefore call a pipeline of their own over the same networks (`own_copy`), one after the other (`pipeline_lock`),
and what they hang on shared parts is heard on their own thread alone (`wrap_method`, `watch_calls`).
"""

from __future__ import annotations

import copy
import functools
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ..parts import find_denoiser

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline, SchedulerMixin

LOOK = 0.05  # seconds between two looks of a thread that waits for a pipeline


class _Lock:
    """Held by one thread, as often as it likes. Any thread may release it: a block that was left open is closed by the garbage collector."""

    def __init__(self):
        self.lock, self.owner, self.depth = threading.Lock(), None, 0
        self.meanwhile: Callable[[], None] = lambda: None

    @property
    def mine(self) -> bool:
        return self.owner == threading.get_ident()

    def acquire(self, timeout: float) -> bool:
        if not self.mine and not self.lock.acquire(timeout=timeout):
            return False
        self.owner, self.depth = threading.get_ident(), self.depth + 1
        return True

    def release(self) -> None:
        self.depth -= 1
        if not self.depth:
            self.owner, self.meanwhile = None, lambda: None
            self.lock.release()


_LOCKS: weakref.WeakKeyDictionary[torch.nn.Module, _Lock] = weakref.WeakKeyDictionary()  # of a pipeline's denoiser
_MAKING = threading.Lock()


def _lock_of(pipe: DiffusionPipeline) -> _Lock:
    denoiser = find_denoiser(pipe)
    with _MAKING:
        return _Lock() if denoiser is None else _LOCKS.setdefault(denoiser, _Lock())


@contextmanager
def pipeline_lock(
    pipe: DiffusionPipeline, cancelled: Callable[[], bool] = lambda: False, meanwhile: Callable[[], None] | None = None
) -> Iterator[bool]:
    """Wait until no other thread's run of ours uses this pipeline's networks; gives False where `cancelled()` came first.

    meanwhile: what a cell that waits for this thread calls about twenty times a second, for example to send this run's messages.
    """
    lock, in_a_cell = _lock_of(pipe), threading.current_thread() is threading.main_thread()
    while not (acquired := lock.acquire(LOOK)):
        if cancelled():
            break
        if in_a_cell:
            lock.meanwhile()
    if acquired and meanwhile is not None:
        lock.meanwhile = meanwhile
    try:
        yield acquired
    finally:
        if acquired:
            lock.release()


def holds_lock(pipe: DiffusionPipeline) -> bool:
    """Whether this thread is inside a `pipeline_lock` of this pipeline, as inside `record(pipe)`."""
    return _lock_of(pipe).mine


def own_copy(
    pipe: DiffusionPipeline, scheduler: SchedulerMixin | None = None, *, quiet: bool = True
) -> DiffusionPipeline:
    """A pipeline for one run, over the same networks: what a call writes on a pipeline and its scheduler stays with it.

    scheduler: its own; None: a copy of the pipeline's. quiet: it shows no progress bar. A float16 VAE that must decode in float32, which
    moves it there and back, is copied too.
    """
    mine = _unwatched(pipe)
    if hasattr(pipe, "scheduler"):
        mine.scheduler = copy.deepcopy(pipe.scheduler) if scheduler is None else scheduler
    for name, value in list(vars(mine).items()):
        if name.endswith("_processor"):  # of pictures and masks
            setattr(mine, name, _unwatched(value))
    for name, tokenizer in own_tokenizers(pipe).items():
        setattr(mine, name, tokenizer)
    vae = getattr(pipe, "vae", None)
    if vae is not None and str(vae.dtype) == "torch.float16" and getattr(vae.config, "force_upcast", False):
        mine.vae = copy.deepcopy(vae)
    if quiet and hasattr(pipe, "set_progress_bar_config"):
        mine.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}) | {"disable": True})
    return mine


class _Tokenizers(threading.local):
    """This thread's copies: a tokenizer keeps from call to call how it pads and cuts, and two threads would change it for each other."""

    def __init__(self):
        self.copies = weakref.WeakKeyDictionary()  # a tokenizer -> (what it was when it was copied, the copy)


_TOKENIZERS = _Tokenizers()


def own_tokenizers(pipe: DiffusionPipeline) -> dict:
    """Name -> this thread's copy of each of the pipeline's tokenizers, made once; and again where words were added or taken away."""
    names = (f"tokenizer{number}" for number in ("", "_2", "_3"))
    return {name: _own_tokenizer(value) for name in names if (value := getattr(pipe, name, None)) is not None}


def _own_tokenizer(tokenizer):
    before, copied = _TOKENIZERS.copies.get(tokenizer, (None, None))
    now = len(tokenizer), tokenizer.model_max_length, tokenizer.get_added_vocab()
    if before != now:
        copied = copy.deepcopy(tokenizer)
        # CLIP's hangs its way to decode on the backend, where a copy loses it.
        getattr(copied, "_wrap_decode_method_backend_tokenizer", lambda: None)()
        _TOKENIZERS.copies[tokenizer] = now, copied
    return copied


def _unwatched(thing):
    """A shallow copy, without the methods that `wrap_method` has put on the original."""
    copied = copy.copy(thing)
    for name, method in list(vars(thing).items()):
        if isinstance(method, Watched):
            while isinstance(method, Watched):
                method = method.method
            vars(copied)[name] = types.MethodType(method.__func__, copied)
    return copied


class Watched:
    """A method of one object, called as `around(method, *args, **kwargs)` on the thread that made this, and as it is on all others.

    Its signature stays visible: pipelines ask it whether `step` takes a generator, and would silently pass none.
    """

    def __init__(self, owner, name: str, around: Callable):
        method = getattr(owner, name)
        functools.update_wrapper(self, method)
        self.owner, self.name, self.method, self.around = owner, name, method, around
        self.thread = threading.get_ident()

    def __call__(self, *args, **kwargs):
        if threading.get_ident() != self.thread:
            return self.method(*args, **kwargs)
        return self.around(self.method, *args, **kwargs)

    def __deepcopy__(self, memo):
        copied = memo[id(self.owner)]  # some pipelines copy their scheduler: the copy works, unwatched
        return getattr(type(copied), self.name).__get__(copied)


def wrap_method(undo: ExitStack, owner, name: str, around: Callable) -> None:
    """Wrap `owner.name`, where there is one, on the instance until `undo` is closed, for calls of this thread."""
    if not hasattr(owner, name):
        return
    before = vars(owner).get(name)
    undo.callback(delattr, owner, name) if before is None else undo.callback(setattr, owner, name, before)
    setattr(owner, name, Watched(owner, name, around))


def watch_calls(
    undo: ExitStack, network: torch.nn.Module, *, before: Callable | None = None, after: Callable | None = None
) -> None:
    """Hear this thread's calls of a network until `undo` is closed: `before(network, args, kwargs)`, `after(network, args, output)`.

    Forward hooks; around a network that was compiled as a whole, so that its graph holds none of them and is not made anew.
    """
    if getattr(network, "_compiled_call_impl", None) is not None:

        def around(call, *args, **kwargs):
            if before is not None:
                before(network, args, kwargs)
            output = call(*args, **kwargs)
            if after is not None:
                after(network, args, output)
            return output

        return wrap_method(undo, network, "_compiled_call_impl", around)
    if before is not None:
        undo.callback(network.register_forward_pre_hook(on_this_thread(before), with_kwargs=True).remove)
    if after is not None:
        undo.callback(network.register_forward_hook(on_this_thread(after)).remove)


def on_this_thread(function: Callable) -> Callable:
    """The function for calls of this thread; on all others it does nothing and returns None, as a hook may."""
    thread = threading.get_ident()

    @functools.wraps(function)
    def heard(*args, **kwargs):
        return function(*args, **kwargs) if threading.get_ident() == thread else None

    return heard

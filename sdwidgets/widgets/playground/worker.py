"""One thread, one job at a time, the newest wins. Knows no pipeline and no widget."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

Job = Callable[[Callable[[], bool]], None]


class Worker:
    """A daemon thread, started by the first job, that does only the newest of the jobs it gets.

    A job is called with `cancelled`: `cancelled()` is True once a newer job came, or `cancel` or `close` was called; the job
    should then end soon. What a job raises is printed, and the thread lives on. Between jobs the worker holds no reference to any.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._job: Job | None = None
        self._due = 0.0  # when the waiting job may start, by time.monotonic()
        self._generation = 0
        self._busy = self._closed = False

    @property
    def idle(self) -> bool:
        """True if no job runs or waits."""
        with self._changed:
            return not self._busy and self._job is None

    @property
    def waiting(self) -> bool:
        """True if a job waits to be started."""
        with self._changed:
            return self._job is not None

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    @property
    def is_current_thread(self) -> bool:
        """True on the worker's own thread."""
        return threading.current_thread() is self._thread

    def pause(self, seconds: float) -> None:
        """For the job itself: wait this long, or until a newer job waits to be started."""
        with self._changed:
            self._changed.wait_for(lambda: self._job is not None or self._closed, seconds)

    def submit(self, job: Job, delay: float = 0.0) -> None:
        """Do this job `delay` seconds from now, instead of one that waits; one that runs is cancelled.

        RuntimeError if the worker is closed, or if the system starts no threads.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("this worker is closed; make a new one")
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="sdwidgets-worker", daemon=True)
                thread.start()
                self._thread = thread
            self._job, self._due = job, time.monotonic() + delay
            self._generation += 1
            self._changed.notify_all()

    def cancel(self) -> bool:
        """Drop the job that waits and cancel the one that runs. True if one waited and none ran."""
        with self._changed:
            dropped, self._job = self._job is not None and not self._busy, None
            self._generation += 1
            self._changed.notify_all()
        return dropped

    def close(self) -> None:
        """Cancel, and end the thread after the job that runs. A second call does nothing."""
        with self._changed:
            self._closed = True
        self.cancel()

    def wait(self, timeout: float | None = None, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Wait until no job runs or waits; False if that took longer than `timeout` seconds.

        `meanwhile` is called about ten times a second, on the thread that waits.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                left = 0.1 if end is None else min(0.1, end - time.monotonic())
                if self._changed.wait_for(lambda: not self._busy and self._job is None, max(0.0, left)):
                    return True
            meanwhile()
            if end is not None and time.monotonic() >= end:
                return False

    def _work(self) -> None:
        while not self._closed:
            try:
                self._work_once()
            except BaseException:  # one that was raised into this thread from outside, too
                traceback.print_exc()
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _work_once(self) -> None:
        """Wait for a job that is due, and do it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._job is not None or self._closed)
                if self._closed:
                    return
                early = self._due - time.monotonic()
                if early > 0:
                    self._changed.wait(early)
                    continue  # it may have been replaced, put off or cancelled
                job, generation, self._job, self._busy = self._job, self._generation, None, True
            assert job is not None  # it is due
            return job(lambda generation=generation: self._generation != generation)  # type: ignore[misc]

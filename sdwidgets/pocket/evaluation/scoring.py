"""The judge in several processes: on a machine with a GPU, reading pictures takes longer than drawing them."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager

import numpy as np


class Readers(AbstractContextManager):
    """`read(pictures)` as the judge's own, an equal part in each process. Use it in a `with` block."""

    def __init__(self, judge, processes: int):
        context = multiprocessing.get_context("spawn")  # forked threads of torch could wait for ever
        self._judge, self._processes = judge, processes
        self._pool = ProcessPoolExecutor(processes, context)

    def read(self, pictures: np.ndarray) -> list:
        """One judgement a picture, in order."""
        parts = np.array_split(pictures, min(self._processes, len(pictures)))
        return [judgement for part in self._pool.map(self._judge.read, parts) for judgement in part]

    def __exit__(self, *exception) -> None:
        self._pool.shutdown(cancel_futures=True)

"""Windows in order, made ahead by worker processes that leave them as files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from midspan.processes import Work, Workers
from midspan.rows.shards import Index, is_written, read_index, shard_path, write_shard
from midspan.rows.window import Packer

MakePackers = Callable[[], Sequence[Packer]]
"""Picklable: called once in each worker."""


def _maker(make: MakePackers, folder: Path) -> Work:
    return partial(_make, make(), folder)


def _make(packers: Sequence[Packer], folder: Path, task: tuple[int, int]) -> None:
    """Write a window of a source unless it is there."""
    source, window = task
    path = shard_path(folder, source, window)
    if not is_written(path):
        write_shard(path, packers[source].window(window))


class Windows:
    """The windows of every source. Use as a context manager: processes end with the block."""

    def __init__(self, make: MakePackers, folder: Path, shares: Sequence[float], workers: int) -> None:
        self._make, self._folder, self._workers = make, folder, workers
        self._ahead = [1 + round(2 * workers * share) for share in shares]
        self._taken = [0] * len(shares)
        self._futures: list[deque[Future[None]]] = [deque() for _ in shares]

    def __enter__(self) -> Windows:
        with ExitStack() as stack:
            if self._workers > 1:
                start = partial(_maker, self._make, self._folder)
                self._processes = stack.enter_context(Workers(start, self._workers))
            else:
                self._here = _maker(self._make, self._folder)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def take(self, source: int) -> Index:
        """The next window of a source; its file is there when this returns.

        Raises:
            WorkError: a worker was killed.
        """
        window = self._taken[source]
        self._taken[source] += 1
        if self._workers <= 1:
            self._here((source, window))
        else:
            waiting = self._futures[source]
            while len(waiting) < self._ahead[source]:
                waiting.append(self._processes.submit((source, window + len(waiting))))
            with self._processes.killed_is_an_error():
                waiting.popleft().result()
        return read_index(shard_path(self._folder, source, window))

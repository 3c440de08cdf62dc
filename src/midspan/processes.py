"""Worker processes that end with their parent, however that ends.

    parent ── held end of a pipe        a worker waits at the other end, and ends when nobody holds it any more
    Ctrl-C ── parent alone              workers are started with SIGINT blocked, so that one process decides

Work is what `start` gives back, once in each process: a function of one task. What crosses a pipe should be small:
more than the pipe's buffer crosses in parts, and a worker that ends between two of them leaves the parent waiting
for ever. So `start`, which may hold a vocabulary, is left in a file without a name; results are up to the caller.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from typing import Any

from midspan.errors import WorkError

Work = Callable[[Any], Any]

_work: Work  # of a worker process


class Workers:
    """Processes that run one function over tasks. Use as a context manager: they are gone after the block."""

    def __init__(self, start: Callable[[], Work], count: int) -> None:
        """
        Args:
            start: called once in each process for the function that does its tasks; must pickle.
            count: processes.
        """
        self._start, self._count = start, count

    def __enter__(self) -> Workers:
        with ExitStack() as stack:
            context = multiprocessing.get_context("spawn")
            lifeline, held_end = context.Pipe(duplex=False)
            file = stack.enter_context(tempfile.TemporaryFile())
            pickle.dump(self._start, file)
            file.flush()
            self._pool = ProcessPoolExecutor(self._count, context, _begin, (_Given(file.fileno()), lifeline))
            stack.callback(self._pool.shutdown, wait=True, cancel_futures=True)
            stack.callback(held_end.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def submit(self, task: Any) -> Future[Any]:
        """Queue a task; it begins when a process is free."""
        with _without_interrupts(), self.killed_is_an_error():
            return self._pool.submit(_do, task)

    @contextmanager
    def killed_is_an_error(self) -> Iterator[None]:
        """Around waiting for results: WorkError if a worker was killed."""
        try:
            yield
        except BrokenProcessPool as error:
            raise WorkError(
                f"one of the {self._count} worker processes was killed, perhaps for memory; what is finished is "
                "kept: run the same command again, with fewer workers"
            ) from error


class _Given:
    """A file's descriptor that a process is given as it begins, and has as a number."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _taken, (DupFd(self._descriptor),)


def _taken(given: Any) -> int:
    descriptor: int = given.detach()
    return descriptor


def _begin(descriptor: Any, lifeline: Connection) -> None:
    global _work
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    # Mapped, not read: all workers' descriptors are of one open file, and share where it stands.
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        start: Callable[[], Work] = pickle.loads(content)
    os.close(descriptor)
    _work = start()


def _end_with(lifeline: Connection) -> None:
    """End this worker, whatever it is doing, when the parent closes its end or is no more."""
    lifeline.poll(None)
    os._exit(0)


def _do(task: Any) -> Any:
    return _work(task)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A worker begun in here never sees Ctrl-C, which reaches every process of a terminal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

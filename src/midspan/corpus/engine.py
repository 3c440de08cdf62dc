"""Where the work on shards runs: in processes of this machine, or on a Ray cluster.

A step of the corpus is a function of (what all tasks share, one task) that reads files, writes one file whole
and gives back a few numbers. It keeps nothing between tasks but caches, so where, in what order and how often a
task runs changes no byte. All that an engine does is to run such functions, several at a time.

    LocalEngine(workers=2)              processes, started on demand, gone with their parent however it ends
    RayEngine(address="auto")           the same functions as Ray tasks; files lie on a disk that all nodes see

Left out on purpose: shuffles, queues, daemons. What has to meet (duplicates) meets through files.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

from midspan.errors import InputError, WorkError
from midspan.processes import Workers

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")


ENGINES = ("local", "ray")


def open_engine(name: str, *, workers: int = 1, address: str | None = None) -> Engine:
    """The engine of a name in `ENGINES`; InputError for another."""
    if name not in ENGINES:
        raise InputError(f"there is no engine {name!r}; choose {' or '.join(ENGINES)}")
    if name == "ray":
        return RayEngine(address, workers=workers)
    if address is not None:
        raise InputError(f"a Ray address ({address}) is of no use to the local engine; add --engine ray")
    return LocalEngine(workers)


class Engine(ABC):
    """Runs a function over tasks."""

    @abstractmethod
    def map(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """Results with the number of their task, as they come.

        Args:
            function: of a module's top level, so that another process finds it.
            shared: what every task gets; sent to each process once.
            tasks: small; results too, since they cross between processes.

        Raises:
            InputError, WorkError: a task's own, or a worker was killed.
        """


class LocalEngine(Engine):
    """Processes of this machine; with one worker, this process itself."""

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError(f"{workers} workers do nothing; ask for at least 1")
        self.workers = workers

    def map(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """As `Engine.map`."""
        count = min(self.workers, len(tasks))
        if count <= 1:
            for number, task in enumerate(tasks):
                yield number, function(shared, task)
            return
        with Workers(functools.partial(functools.partial, function, shared), count) as workers:
            running: dict[Future[Result], int] = {}
            waiting = iter(enumerate(tasks))
            while True:
                for number, task in waiting:
                    running[workers.submit(task)] = number
                    if len(running) >= 2 * count:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    with workers.killed_is_an_error():
                        result = future.result()
                    yield running.pop(future), result


class RayEngine(Engine):
    """Tasks of a Ray cluster, which retries those whose node is lost."""

    MAX_RETRIES = 3

    def __init__(self, address: str | None = None, *, workers: int | None = None) -> None:
        """
        Args:
            address: of a running cluster ("auto", "ray://head:10001"), or None to start one on this machine.
            workers: processors that a cluster started here has; all of the machine's if not given.

        Raises:
            InputError: Ray is not installed, or no cluster answers at the address.
        """
        try:
            import ray
        except ImportError:
            raise InputError("Ray is not installed; `pip install 'midspan[ray]'`, or use --engine local") from None
        self._ray = ray
        if not ray.is_initialized():
            options: dict[str, Any] = {"address": address} if address else {"num_cpus": workers}
            try:
                ray.init(**options, include_dashboard=False if not address else None, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0].rstrip(".")
                raise InputError(
                    f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`"
                ) from None

    def map(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """As `Engine.map`."""
        ray = self._ray
        remote = ray.remote(max_retries=self.MAX_RETRIES, num_cpus=1)(function)
        sent = ray.put(shared)
        at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running: dict[Any, int] = {}
        waiting = iter(enumerate(tasks))
        while True:
            for number, task in waiting:
                running[remote.remote(sent, task)] = number
                if len(running) >= at_once:
                    break
            if not running:
                return
            for reference in ray.wait(list(running))[0]:
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().splitlines()[0].rstrip(".")
                    raise WorkError(f"a Ray task was lost {self.MAX_RETRIES + 1} times ({reason})") from None
                yield running.pop(reference), result

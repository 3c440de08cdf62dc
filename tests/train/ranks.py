"""Many ranks in a test: forked from this process, so that nothing is imported again, and joined by gloo."""

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

import torch
import torch.distributed.checkpoint.staging
import torch.distributed.fsdp

import midspan.train.context_parallel
import midspan.train.pipeline
import midspan.train.place
import midspan.train.tensor_parallel  # noqa: F401, what ranks would import one by one
from midspan.train.ranks import Ranks, joined_ranks

T = TypeVar("T")


def on_ranks(world: int, work: Callable[[Ranks], T], timeout: float = 300) -> list[T]:
    """What `work` gives on each rank; the first failure is raised with its traceback."""

    def join() -> T:
        with joined_ranks() as ranks:
            return work(ranks)

    return on_processes(world, join, timeout)


def on_processes(world: int, work: Callable[[], T], timeout: float = 300) -> list[T]:
    """The same for what joins the others by itself."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = []
    for rank in range(world):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(rank, world, port, work, theirs), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        results = []
        for rank, (_, pipe) in enumerate(started):
            assert pipe.poll(timeout), f"rank {rank} gave nothing in {timeout} seconds"
            ok, value = pickle.loads(pipe.recv_bytes())
            assert ok, f"rank {rank}:\n{value}"
            results.append(value)
        return results
    finally:
        for process, _ in started:
            process.kill()
            process.join()


def _rank(rank: int, world: int, port: int, work: Callable[[], object], pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        pipe.send_bytes(pickle.dumps((True, work())))  # by value: a tensor outlives its process
    except BaseException:
        pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))

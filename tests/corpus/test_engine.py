"""The same function over the same tasks, wherever it runs; what happens when a task fails or a worker dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from midspan.corpus.engine import Engine, LocalEngine, RayEngine, open_engine
from midspan.errors import InputError, WorkError


def power(exponent: int, task: int) -> tuple[int, int]:
    if task < 0:
        raise InputError(f"{task} is below 0")
    if task == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return task**exponent, os.getpid()


@pytest.fixture(scope="module", params=["one", "two", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "ray":
        pytest.importorskip("ray", reason="Ray is an extra: pip install 'midspan[ray]'")
        import ray

        finds_this_file = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent.parent)}}
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=finds_this_file)
        yield RayEngine()
        ray.shutdown()
    else:
        yield LocalEngine(1 if request.param == "one" else 2)


def test_every_task_gives_its_result_once(engine: Engine) -> None:
    found = dict(engine.map(power, 2, range(40, 50)))
    assert {number: value for number, (value, _) in found.items()} == {i: (40 + i) ** 2 for i in range(10)}


def test_no_task_is_no_work(engine: Engine) -> None:
    assert list(engine.map(power, 2, [])) == []


def test_a_users_mistake_comes_through_as_it_is(engine: Engine) -> None:
    with pytest.raises(InputError, match=r"^-1 is below 0$"):
        list(engine.map(power, 2, [3, -1, 4]))


def test_a_killed_worker_ends_the_work_with_a_sentence() -> None:
    with pytest.raises(WorkError, match="one of the 2 worker processes was killed"):
        list(LocalEngine(2).map(power, 2, [1, 13, 2]))


def test_no_worker_outlives_the_work() -> None:
    processes = {process for _, (_, process) in LocalEngine(2).map(power, 2, range(8))}
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from corpus.test_engine import slow\n"
        "from midspan.corpus.engine import LocalEngine\n"
        "if __name__ == '__main__':\n"
        "    for _, process in LocalEngine(2).map(slow, None, range(99)): print(process, flush=True)\n"
    )
    tests = Path(__file__).parent.parent
    parent = subprocess.Popen([sys.executable, "-c", program, tests], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = {int(parent.stdout.readline()) for _ in range(4)}
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, f"{workers} live on"
        time.sleep(0.05)


def slow(shared: None, task: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_names_and_addresses_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="choose local or ray"):
        open_engine("spark")
    with pytest.raises(InputError, match="add --engine ray"):
        open_engine("local", address="auto")
    with pytest.raises(InputError, match="at least 1"):
        open_engine("local", workers=0)

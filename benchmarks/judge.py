"""The judge beside other harnesses and a bare fork, on the same samples.

    python -m benchmarks.judge [--quick]

A peer takes part where it can be imported: openai/human-eval (`human_eval`), bigcode-evaluation-harness
(`bigcode_eval`). Put their checkouts into PYTHONPATH. `bare fork` forks, compiles and runs each program in this
process's child with no isolation at all: what any harness could at most reach.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Process
from typing import Any

from scripts.canonical import INFILLING, humaneval, infilling, pack, rows

from benchmarks.harness import Bench
from midspan.sandbox import Program, Sandbox, doctor

COMPILED = {"cpp": 1.0, "java": 0.5, "typescript": 0.5}
"""Seconds of one core that a sample of a language may cost. TypeScript's programs are JavaScript's."""


def bare_fork(programs: Sequence[Program], workers: int) -> None:
    """A share of the programs in each of some processes: a loop of fork, exec and wait."""

    def loop(mine: Sequence[Program]) -> None:
        for program in mine:
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    exec(compile(f"{program.source}\n{program.test}", "<program>", "exec"), {})
                except BaseException:
                    os._exit(1)
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                os._exit(1)

    started = [Process(target=loop, args=(programs[place::workers],)) for place in range(workers)]
    for process in started:
        process.start()
    for process in started:
        process.join()
        if process.exitcode:
            raise SystemExit("a bare fork ended badly")


def peers(
    found: Sequence[dict[str, Any]], programs: Sequence[Program], workers: int
) -> dict[str, Callable[[], None]]:
    """The harnesses that are here, each ready to judge HumanEval's own solutions."""
    seconds = 3.0
    calls: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
        "human-eval": ("human_eval.execution", [(row, row["canonical_solution"], seconds) for row in found]),
        "bigcode": (
            "bigcode_eval.tasks.custom_metrics.execute",
            [(f"{p.source}\n{p.test}", seconds, place, 0) for place, p in enumerate(programs)],
        ),
    }
    ready: dict[str, Callable[[], None]] = {}
    for name, (module, asked) in calls.items():
        try:
            check = importlib.import_module(module).check_correctness
        except ImportError:
            print(f"{name} does not take part: {module} cannot be imported; put its checkout into PYTHONPATH")
            continue

        def run(check: Callable[..., Any] = check, asked: list[tuple[Any, ...]] = asked) -> None:
            with ThreadPoolExecutor(workers) as pool:
                if not all(result["passed"] for result in pool.map(lambda words: check(*words), asked)):
                    raise SystemExit("a peer fails one of HumanEval's own solutions")

        ready[name] = run
    return ready


def judged(sandbox: Sandbox, programs: Sequence[Program]) -> Callable[[], None]:
    """A call that judges programs, all of which pass."""

    def run() -> None:
        odd = [verdict for verdict in sandbox.judge(programs) if verdict.status != "passed"]
        if odd:
            raise SystemExit(f"{len(odd)} of {len(programs)} programs did not pass, first {odd[0]}")

    return run


def seconds_of(call: Callable[[], None]) -> float:
    """Wall time of a call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def compiled(sandbox: Sandbox, language: str, number: int | None) -> list[Program]:
    """HumanEvalPack's own solutions in a language, those that pass."""
    source = "javascript" if language == "typescript" else language
    programs = list(pack(source, "humanevalpack", "canonical_solution"))[:number]
    if language == "typescript":
        programs = [
            Program(key=p.key, language=language, source=f"declare var require: any;\n{p.source}", test=p.test)
            for p in programs
        ]
    passed = {verdict.key for verdict in sandbox.judge(programs) if verdict.status == "passed"}
    return [program for program in programs if program.key in passed]


def main() -> None:
    """Rates on all cores; the infilling set's wall time; what a sample of a compiled language costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    number = 40 if quick else None
    programs = list(humaneval())[:number]
    bench = Bench("judge", threads=len(os.sched_getaffinity(0)), runs=1 if quick else 3)
    with Sandbox() as compat, Sandbox(mode="strict") as strict:
        workers = compat.workers
        others = peers(rows("humaneval/HumanEval.jsonl.gz")[:number], programs, workers)
        alone = {"bare fork": lambda: bare_fork(programs, workers)}
        for row, sandbox, beside, goal in (
            ("HumanEval, compat", compat, others, 5.0),
            ("HumanEval, strict", strict, others, None),
            ("HumanEval, compat, beside no isolation", compat, alone, 0.8),
        ):
            ours = judged(sandbox, programs)
            ours()  # the workers start
            amount = len(programs)
            bench.compare(row, unit="samples/s", amount=amount, ours=ours, peers=beside, goal_ratio=goal)
        many = list(infilling(INFILLING["MultiLine"]))[: 100 if quick else None]
        spent = seconds_of(judged(compat, many))
        bench.record(f"infilling, {len(many):,}", unit="s", value=spent, goal=20.0, better="lower")
        ready = {row["language"] for row in doctor() if row["ready"]}
        for language, most in COMPILED.items():
            if language not in ready:
                print(f"{language} is left out: see `midspan eval --doctor`")
                continue
            chosen = compiled(compat, language, 20 if quick else 80)
            spent = seconds_of(judged(compat, chosen)) * workers / len(chosen)
            row = f"{language}, {len(chosen)} programs, a core's time each"
            bench.record(row, unit="s", value=spent, goal=most, better="lower")
    bench.finish(quick=quick)


if __name__ == "__main__":
    main()

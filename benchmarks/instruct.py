"""Self-instruction on an endpoint that answers at once: what asking, keeping and running cost by themselves.

    python -m benchmarks.instruct [--quick]

Every question gets tests and ten solutions, all of them different programs: five right, three wrong, one that
raises, one without tags; in each fiftieth question one hangs until its CPU seconds are over. Winners run again
with another hash seed, and four mutants of each are tried. The endpoint runs in this process and shares its cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.instruct.scripted import Script, question, serving

from benchmarks.harness import Bench
from midspan.engine.server import Server
from midspan.instruct import (
    Judge,
    Paid,
    QuestionsConfig,
    SolutionsConfig,
    UnitTestsConfig,
    Workshop,
    ask_questions,
    make_solutions,
    make_tests,
)
from midspan.instruct.asking import Endpoint


def solutions(number: int) -> str:
    """The plan for a question: a letter for each of ten solutions."""
    return "WDCXDWDHDD" if number % 50 == 0 else "WDCXDWDWDD"


def stages(folder: Path, url: str, number: int) -> int:
    """Questions, tests and solutions; returns how many programs were run now."""
    with Workshop(folder) as shop, Judge(shop.verdicts) as judge:
        paid = Paid(Endpoint(Server(url)), shop.paid)
        ask_questions(shop, paid, QuestionsConfig(number=number))
        make_tests(shop, paid, judge, UnitTestsConfig())
        found = make_solutions(shop, paid, judge, SolutionsConfig())
        kept = next(row["count"] for row in found.rows if row["what"] == "kept")
        if kept != number:
            raise SystemExit(f"{kept} of {number} questions were kept; all of them have a right solution")
        return judge.executed


def main() -> None:
    """Questions a minute, straight and resumed; programs a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    number = 50 if quick else 400
    bench = Bench("instruct", threads=len(os.sched_getaffinity(0)), runs=1 if quick else 3)
    executions: list[float] = []
    resumed: list[float] = []

    def straight() -> float:
        script = Script(
            questions=lambda request: [question(50 * request + place) for place in range(100, 150)],
            solutions=solutions,
        )
        with serving(script) as url, tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            executed = stages(Path(folder), url, number)
            seconds = time.perf_counter() - begun
            asked, again = len(script.log), time.perf_counter()
            stages(Path(folder), url, number)
            resumed.append(60 * number / (time.perf_counter() - again))
            if len(script.log) != asked:
                raise SystemExit("a request was paid for twice")
        executions.append(executed / seconds)
        return 60 * number / seconds

    bench.compare_rates(f"{number} questions, ten solutions each", unit="questions/min", ours=straight, goal=200)
    bench.record("programs run meanwhile", unit="programs/s", value=sorted(executions)[len(executions) // 2])
    bench.record("the same again, nothing paid", unit="questions/min", value=sorted(resumed)[len(resumed) // 2])
    bench.finish(quick=quick)


if __name__ == "__main__":
    main()

"""MBPP's training tasks → conversations: what people wrote goes the way of what models write, and is run first.

    python scripts/instruct_data.py --data benchmarks --out runs/instruct-data

    FOLDER/questions.jsonl …    a folder of `midspan instruct`; its stages ask the task's author in a model's place
    FOLDER/test.jsonl           the tasks that are measured (11 to 510), for decontamination
    FOLDER/conversations.jsonl  what is trained on
    FOLDER/safety.jsonl         the safety set, a file of its own so that a recipe can give it a share

Tasks 511 to 974, MBPP's own for validation and training, are the questions. A stub must not pass their
tests; their solution must, under two hash seeds, and mutants of it must be noticed. Whatever resembles a
task that is measured, or one of HumanEval's, falls out. MBPP is CC-BY-4.0.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from midspan.evaluate.data import Data
from midspan.evaluate.tasks import humaneval, mbpp
from midspan.instruct import (
    Judge,
    Paid,
    SolutionsConfig,
    UnitTestsConfig,
    Workshop,
    Yield,
    make_solutions,
    make_tests,
)
from midspan.instruct.asking import Ask
from midspan.instruct.dataset import BuildConfig, build
from midspan.instruct.ledger import key_of
from midspan.instruct.workshop import QUESTIONS, write_rows

TRAINED = range(511, 975)


class Author:
    """Answers a stage's question with what MBPP has for it. See `midspan.instruct.asking.Asker`."""

    identity = "MBPP's authors"

    def __init__(self, tasks: Iterable[dict[str, Any]]) -> None:
        self._tasks = {task["text"]: task for task in tasks}

    def ask(self, ask: Ask, key: str) -> list[str]:
        """The tests or the solution of the task that the last message is about."""
        asked = ask.messages[-1].content
        task = self._tasks[max((text for text in self._tasks if text in asked), key=len)]
        if "[TESTS]" in ask.messages[0].content:
            return ["\n".join(["[TESTS]", task["test_setup_code"], *task["test_list"], "[/TESTS]"])]
        return [f"[PYTHON]\n{task['code']}\n[/PYTHON]".replace("\r\n", "\n").replace("\t", "    ")]


def main() -> None:
    """The stages, and their yields."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mbpp/ and humaneval/")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = Data(options.data)
    rows = list(data.rows(mbpp.SOURCE))
    tasks = [row for row in rows if row["task_id"] in TRAINED]
    with Workshop(options.out) as shop, Judge(shop.verdicts) as judge:
        author = Paid(Author(tasks), shop.paid)
        shop.write(
            QUESTIONS,
            (
                {"id": key_of(text)[:16], "question": text, "language": "python"}
                for text in dict.fromkeys(task["text"] for task in tasks)
            ),
        )
        told(make_tests(shop, author, judge, UnitTestsConfig()))
        told(make_solutions(shop, author, judge, SolutionsConfig(number=1)))
    test = options.out / "test.jsonl"
    write_rows(test, (row for row in rows if row["task_id"] in mbpp.TEST))
    benchmarks = (test, data.path(humaneval.SOURCE))
    told(build(options.out / "conversations.jsonl", BuildConfig(sources=(options.out,), benchmarks=benchmarks)))
    told(build(options.out / "safety.jsonl", BuildConfig(safety=True)))


def told(found: Yield) -> None:
    """Print what a stage gave, and what it dropped."""
    for row in found.rows:
        print(f"{found.stage:>10}  {row['count']:>5}  {row['what']}")
    for reason, count in found.dropped.most_common():
        print(f"{'':>10}  {count:>5}  dropped: {reason}")


if __name__ == "__main__":
    main()

"""Stage 2: tests for every question, without those that say nothing.

A model is asked for five. What is no list of assertions that call one function is malformed. Tests that a stub
passes are vacuous, and go before ten solutions are paid for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from midspan.engine.sample import SampleConfig
from midspan.instruct.asking import Ask, Paid, answers
from midspan.instruct.form import Form, MalformedError, UnitTests, unit_tests_of
from midspan.instruct.forms import form_of
from midspan.instruct.judging import Judge, Name
from midspan.instruct.prompts import tests_prompt
from midspan.instruct.questions import Progress, at_least_1, seeded
from midspan.instruct.workshop import QUESTIONS, TESTS, Row, Workshop
from midspan.instruct.yields import Yield
from midspan.sandbox import Program

SAMPLE = SampleConfig(temperature=0.2, top_p=0.95)
WINDOW = 256
"""Questions that are held at a time."""


@dataclass(frozen=True, kw_only=True)
class UnitTestsConfig:
    """How tests are asked for."""

    sample: SampleConfig = SAMPLE
    """The paper does not say."""
    max_tokens: int = 512
    parallel: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_1(parallel=self.parallel, max_tokens=self.max_tokens)


def make_tests(
    shop: Workshop, paid: Paid, judge: Judge, config: UnitTestsConfig, progress: Progress = lambda *_: None
) -> Yield:
    """Ask for the tests of every question and keep those that a stub fails.

    Raises:
        InputError: the questions are still to come, or no jail can be made.
        WorkError: the model cannot answer.
    """
    found, total, kept = Yield(stage="tests"), sum(1 for _ in shop.rows(QUESTIONS)), 0

    def rows() -> Iterator[Row]:
        nonlocal kept
        done = 0
        for window in windows(shop.rows(QUESTIONS)):
            for row, tests in zip(window, _of_window(window, paid, judge, config, found), strict=True):
                if tests is not None:
                    kept += 1
                    yield {**row, "entry": tests.entry, "setup": tests.setup, "tests": tests.tests}
            done += len(window)
            progress(done, total)

    shop.write(TESTS, rows())
    found.paid, found.known = paid.paid, paid.known
    found.row("questions", total)
    found.row("with tests that say something", kept, of=total)
    shop.report("tests", found.to_json())
    return found


def _of_window(
    window: Sequence[Row], paid: Paid, judge: Judge, config: UnitTestsConfig, found: Yield
) -> list[UnitTests | None]:
    """The tests of each question, None where there are none of use."""
    tested: list[UnitTests | None] = [None] * len(window)

    def programs() -> Iterator[tuple[Name, Program]]:
        for answer in answers(paid, (_ask(row, config) for row in window), config.parallel):
            form = form_of(window[answer.number]["language"])
            if answer.refused:
                found.dropped[f"refused: {answer.refused[:80]}"] += 1
                continue
            try:
                tests = unit_tests_of(form, answer.texts[0])
            except MalformedError as fault:
                found.dropped[f"malformed: {fault}"] += 1
                continue
            tested[answer.number] = tests
            for stub in form.stubs(tests.entry):
                yield (answer.number,), program(form, stub, tests, judge)

    fate: dict[int, str] = {}
    for (number,), outcome in judge.run(programs()):
        if outcome.status == "passed":
            fate[number] = "vacuous: a stub passes"
        elif outcome.status == "error":
            fate.setdefault(number, f"cannot be judged: {outcome.reason[:80]}")
    for number, reason in fate.items():
        tested[number] = None
        found.dropped[reason] += 1
    return tested


def _ask(row: Row, config: UnitTestsConfig) -> Ask:
    return Ask(
        messages=tests_prompt(form_of(row["language"]), row["question"]),
        max_tokens=config.max_tokens,
        sample=seeded(config.sample, config.seed, int(row["id"], 16)),
    )


def program(form: Form, source: str, tests: UnitTests, judge: Judge) -> Program:
    """A solution and all tests, for the sandbox."""
    return Program(
        source=source,
        language=form.name,
        test=form.test(tests),
        entry_point=tests.entry if form.name == "python" else None,
        limits=judge.limits,
    )


def windows(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows, some hundreds at a time."""
    while window := list(islice(rows, WINDOW)):
        yield window

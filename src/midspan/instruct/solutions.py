"""Stage 3: ten solutions for every question, run against its tests; the first that passes all is kept.

    answers ─▶ code between tags ─▶ all tests ─▶ first that passes ─▶ again, other hash seed ─▶ mutants
                 else malformed       else failed                       else flaky, the next      else weak tests

A model is shown the question and one of its tests, drawn at random; the others guard against code that was
written for the one. The paper stops at the first that passes. Beyond it, that one is run again in an interpreter
with another hash seed, and the tests have to notice when an operator is changed: in half of the mutants at least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from midspan.engine.sample import SampleConfig
from midspan.errors import InputError
from midspan.fim import Draws
from midspan.instruct.asking import Ask, Paid, answers
from midspan.instruct.form import MalformedError, UnitTests, solution_of
from midspan.instruct.forms import form_of
from midspan.instruct.judging import OTHER_HASH_SEED, Judge, Name
from midspan.instruct.mutants import mutants
from midspan.instruct.prompts import solution_prompt
from midspan.instruct.questions import SAMPLE, Progress, at_least_1, seeded
from midspan.instruct.unit_tests import program, windows
from midspan.instruct.workshop import SOLUTIONS, TESTS, Row, Workshop
from midspan.instruct.yields import DIFFERENT, SOLVED, Yield
from midspan.sandbox import Program


@dataclass(frozen=True, kw_only=True)
class SolutionsConfig:
    """How solutions are asked for, and what is asked of them."""

    number: int = 10
    """For each question; the paper's."""
    sample: SampleConfig = SAMPLE
    """The paper does not say."""
    max_tokens: int = 768
    mutants: int = 4
    """Changed programs that the tests are tried on; 0 for none."""
    parallel: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_1(number=self.number, parallel=self.parallel, max_tokens=self.max_tokens)
        if self.mutants < 0:
            raise InputError(f"--mutants is {self.mutants}; it must be 0 (none) or more")


@dataclass
class _Case:
    """A question on its way."""

    row: Row
    tests: UnitTests
    shown: int
    answers: list[Row] = field(default_factory=list)
    kept: int | None = None
    fault: str = ""
    made: int = 0
    noticed: int = 0
    """Mutants, and those that the tests noticed."""

    def passing(self) -> list[int]:
        return [place for place, answer in enumerate(self.answers) if answer["status"] == "passed"]

    def to_row(self) -> Row:
        found = {"shown": self.shown, "answers": self.answers, "kept": self.kept, "fault": self.fault}
        return {**self.row, **found, "mutants": self.made, "noticed": self.noticed}


def make_solutions(
    shop: Workshop, paid: Paid, judge: Judge, config: SolutionsConfig, progress: Progress = lambda *_: None
) -> Yield:
    """Ask for solutions of every question that has tests, run them and keep one each.

    Raises:
        InputError: the tests are still to come, or no jail can be made.
        WorkError: the model cannot answer.
    """
    found, total = Yield(stage="solutions"), sum(1 for _ in shop.rows(TESTS))
    counts: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for window in windows(shop.rows(TESTS)):
            cases = [_case(row, config) for row in window]
            _solve(cases, paid, judge, config)
            _choose(cases, judge, config)
            for case in cases:
                _count(case, counts, found)
                yield case.to_row()
            progress(counts["questions"], total)

    shop.write(SOLUTIONS, rows())
    found.paid, found.known = paid.paid, paid.known
    found.row("questions with tests", total)
    found.row("solutions", counts["solutions"])
    found.row("code between tags", counts["code"], of=counts["solutions"])
    found.row("pass all tests", counts["passed"], of=counts["solutions"])
    found.row("questions with a solution", counts["solved"], of=total, paper=SOLVED, base=DIFFERENT)
    found.row("kept", counts["kept"], of=total)
    shop.report("solutions", found.to_json())
    return found


def _count(case: _Case, counts: Counter[str], found: Yield) -> None:
    counts["questions"] += 1
    counts["solutions"] += len(case.answers)
    counts["code"] += sum(answer["status"] != "malformed" for answer in case.answers)
    counts["passed"] += len(case.passing())
    counts["solved"] += bool(case.passing())
    counts["kept"] += case.kept is not None
    if case.fault:
        found.dropped[case.fault] += 1


def _case(row: Row, config: SolutionsConfig) -> _Case:
    tests = UnitTests(row["setup"], row["tests"], row["entry"])
    shown = Draws(config.seed, 1, int(row["id"], 16)).below(len(tests.tests))
    return _Case(row, tests, shown)


def _solve(cases: Sequence[_Case], paid: Paid, judge: Judge, config: SolutionsConfig) -> None:
    """Fill in the answers of every case, with what came of them."""

    def programs() -> Iterator[tuple[Name, Program]]:
        for answer in answers(paid, (_ask(case, config) for case in cases), config.parallel):
            case = cases[answer.number]
            case.fault = f"refused: {answer.refused[:80]}" if answer.refused else ""
            form = form_of(case.row["language"])
            for place, text in enumerate(answer.texts):
                try:
                    code = solution_of(form, text, case.tests.entry)
                except MalformedError as fault:
                    case.answers.append({"code": "", "status": "malformed", "reason": str(fault)})
                    continue
                case.answers.append({"code": code, "status": "error", "reason": ""})
                yield (answer.number, place), program(form, code, case.tests, judge)

    for (number, place), outcome in judge.run(programs()):
        cases[number].answers[place] |= {"status": outcome.status, "reason": outcome.reason}


def _ask(case: _Case, config: SolutionsConfig) -> Ask:
    test = case.tests.tests[case.shown]
    return Ask(
        messages=solution_prompt(form_of(case.row["language"]), case.row["question"], test),
        number=config.number,
        max_tokens=config.max_tokens,
        sample=seeded(config.sample, config.seed, int(case.row["id"], 16)),
    )


def _choose(cases: Sequence[_Case], judge: Judge, config: SolutionsConfig) -> None:
    """Keep of each case the first solution that passes again, if its tests notice mutants of it."""
    left = {number: case.passing() for number, case in enumerate(cases)}
    for number, places in left.items():
        if not places and not cases[number].fault:
            cases[number].fault = "no solution passes"
    chosen: dict[int, int] = {}
    while tried := {number: places.pop(0) for number, places in left.items() if places}:
        again = (((number, place), _program(cases[number], place, judge)) for number, place in tried.items())
        for (number, place), outcome in judge.run(again, hash_seed=OTHER_HASH_SEED):
            if outcome.status == "passed":
                chosen[number], left[number] = place, []
            else:
                cases[number].fault = "flaky: another hash seed, another verdict"

    def changed() -> Iterator[tuple[Name, Program]]:
        for number, place in chosen.items():
            case = cases[number]
            language, code = case.row["language"], case.answers[place]["code"]
            for each in mutants(code, language, config.mutants) if config.mutants else ():
                case.made += 1
                yield (number,), program(form_of(language), each, case.tests, judge)

    for (number,), outcome in judge.run(changed()):
        cases[number].noticed += outcome.status in ("failed", "timeout")
    for number, place in chosen.items():
        case = cases[number]
        is_weak = 2 * case.noticed < case.made
        case.kept, case.fault = (None, "weak tests: they miss changed operators") if is_weak else (place, "")


def _program(case: _Case, place: int, judge: Judge) -> Program:
    return program(form_of(case.row["language"]), case.answers[place]["code"], case.tests, judge)

"""APPS (Hendrycks et al. 2021): problems of programming contests, as programs with standard input or functions.

    two-shot   two training problems with a solution first, one of each kind: Table 3 of the paper, whose two it
               does not name
    bigcode    QUESTION, the way of input, ANSWER: bigcode's harness
    instruct   the paper's Figure 14, in the chat format: Table 15

A program runs as a real process for every test and its output is compared word by word, numbers that are not whole
as numpy's allclose does; a function is called with all tests in one program. `tests passed` is the share of
programs that passed. A problem without tests is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import xxhash

from midspan.engine.front import Front
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import (
    PASSED,
    Answer,
    Chat,
    Decoding,
    Evidence,
    Executed,
    Metric,
    Question,
    Scores,
    Text,
)
from midspan.evaluate.tasks.code_blocks import code_of
from midspan.fim.stops import StopRules
from midspan.sandbox import Limits, Program, Verdict

VARIANTS = ("two-shot", "bigcode", "instruct")
_ORIGIN = "github.com/hendrycks/apps"
TEST, TRAIN = (
    Source(file=f"apps/{part}.jsonl", origin=_ORIGIN, hub=("codeparrot/apps", f"{part}.jsonl"))
    for part in ("test", "train")
)
SAMPLE = Source(file="apps_sample/APPS/train", origin=_ORIGIN)
"""A folder of problems as upstream has them, for seeing the task run: a few of the training set."""
STOPS = {"two-shot": ("\nQ:", "\nA:"), "bigcode": ("\nQUESTION", "\n---", "\nANSWER"), "instruct": ()}
LIMITS = Limits(cpu_seconds=4.0, output_bytes=8 << 20)
GUIDES = {
    True: "use the provided function signature",
    False: "read from and write to standard IO",
}
_IMPORTS = "from typing import *\nimport collections, functools, heapq, itertools, math, re, string\n"
_CALLS = """
def _same(found, wanted):
    if isinstance(found, tuple):
        found = list(found)
    return found == wanted or (isinstance(wanted, list) and len(wanted) == 1 and found == wanted[0])

for _given, _wanted in {tests}:
    _call = Solution().{name} if "Solution" in globals() else {name}
    assert _same(_call(*_given), _wanted)
"""


@dataclass(frozen=True, kw_only=True)
class Apps(Executed):
    """The task."""

    data: Data
    source: Source = TEST
    variant: str = "two-shot"
    name: str = "apps"
    languages: tuple[str, ...] = ("python",)
    metrics: tuple[Metric, ...] = (PASSED, Metric(name="tests passed", score="tests", unit="%"))
    decoding: ClassVar[Decoding] = Decoding(temperatures=(0.6,), samples=5)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        shots = self._shots() if self.variant == "two-shot" else ""
        return [
            Question(
                id=f"apps/{row['problem_id']}",
                prompt=_prompt(row, self.variant, shots),
                row=row,
                groups=("", row["difficulty"]),
                stops=StopRules(strings=STOPS[self.variant]),
            )
            for row in problems(self.data, self.source)
        ]

    def programs(self, question: Question, answer: Answer) -> list[Program]:
        """See `Task`: one for each test of a program, one for a function."""
        row, code = (
            question.row,
            code_of(answer.text, begin="'''" if self.variant == "instruct" else "", end="'''"),
        )
        tests = row["input_output"]
        if name := tests.get("fn_name"):
            pairs = [*zip(tests["inputs"], tests["outputs"], strict=True)]
            return [
                Program(source=_IMPORTS + code, test=_CALLS.format(tests=repr(pairs), name=name), limits=LIMITS)
            ]
        return [Program(source=code, stdin=_text(given), limits=LIMITS) for given in tests["inputs"]]

    def judged(self, question: Question, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """See `Task`: a program that ended well has yet to have written what was wanted."""
        tests = question.row["input_output"]
        if tests.get("fn_name"):
            return [*verdicts]
        found = []
        for verdict, wanted in zip(verdicts, tests["outputs"], strict=True):
            if verdict.status == "passed" and not same_output(verdict.stdout, _text(wanted)):
                verdict = replace(verdict, status="failed", reason="wrong output")
            found.append(verdict)
        return found

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        right = [verdict.status == "passed" for verdict in evidence.verdicts]
        return {"passed": float(all(right)), "tests": 100 * sum(right) / len(right)}

    def _shots(self) -> str:
        rows = problems(self.data, TRAIN if self.source == TEST else self.source)
        kinds = [
            [row for row in rows if bool(row["starter_code"]) == called and row["solutions"]] for called in GUIDES
        ]
        chosen = [kind[0] for kind in kinds if kind]
        return "".join(f"{_asked(row)}\nA:\n'''\n{row['solutions'][0].strip()}\n'''\n\n" for row in chosen)


def problems(data: Data, source: Source) -> list[dict[str, Any]]:
    """The problems of a file or of a folder that have tests, with what is JSON inside them read."""
    path = data.path(source)
    rows = list(_folder(path, data, source)) if path.is_dir() else data.rows(source)
    found = []
    for row in rows:
        tests, solutions = (
            json.loads(row[name]) if isinstance(row[name], str) and row[name] else row[name] or {}
            for name in ("input_output", "solutions")
        )
        if tests and tests.get("inputs"):
            found.append({**row, "input_output": tests, "solutions": list(solutions)[:1]})
    return found


def same_output(found: str, wanted: str) -> bool:
    """The same words; of numbers with a fraction about the same."""
    ours, theirs = found.split(), wanted.split()
    return len(ours) == len(theirs) and all(map(_same_word, ours, theirs))


def _same_word(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    if "." not in ours + theirs:
        return False
    try:
        return math.isclose(float(ours), float(theirs), rel_tol=1e-5, abs_tol=1e-8)
    except ValueError:
        return False


def _text(value: str | Sequence[str]) -> str:
    """Some tests are lists of lines."""
    return value if isinstance(value, str) else "\n".join(map(str, value))


def _asked(row: Mapping[str, Any]) -> str:
    starter = f"\n{row['starter_code']}\n" if row["starter_code"] else ""
    return f"Q: {row['question'].strip()}\n{starter}\nPlease {GUIDES[bool(row['starter_code'])]}."


def _prompt(row: Mapping[str, Any], variant: str, shots: str) -> Text | Chat:
    called = bool(row["starter_code"])
    match variant:
        case "bigcode":
            starter = f"\n{row['starter_code']}" if called else ""
            way = "Use Call-Based format" if called else "Use Standard Input format"
            return Text(text=f"\nQUESTION:\n{row['question']}{starter}\n{way}\nANSWER:\n")
        case "instruct":
            starter = f"\n{row['starter_code']}\n" if called else ""
            return Chat(
                message=f"Solve this problem in Python:\n\n{row['question'].strip()}\n{starter}\n"
                f"The program should {GUIDES[called]}. Put it between two lines of ''' and write nothing else."
            )
    return Text(text=f"{shots}{_asked(row)}\nA:\n'''\n")


def _folder(folder: Path, data: Data, source: Source) -> Iterator[dict[str, Any]]:
    digest = xxhash.xxh3_128()
    for place in sorted(path for path in folder.iterdir() if (path / "question.txt").is_file()):
        texts = {
            name: (place / file).read_text(encoding="utf-8") if (place / file).is_file() else ""
            for name, file in (
                ("question", "question.txt"),
                ("input_output", "input_output.json"),
                ("solutions", "solutions.json"),
                ("starter_code", "starter_code.py"),
                ("metadata", "metadata.json"),
            )
        }
        digest.update(json.dumps(texts).encode())
        difficulty = json.loads(texts.pop("metadata") or "{}").get("difficulty", "")
        yield {"problem_id": place.name, "difficulty": difficulty, **texts}
    data.took(source.file, digest.hexdigest(), source.origin)

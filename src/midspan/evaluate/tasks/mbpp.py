"""MBPP (Austin et al. 2021): small Python tasks from a sentence and three tests; 11 to 510 are the test set.

    paper-3shot    tasks 2, 3 and 4 with their solutions first, answers between [BEGIN] and [DONE]: as Code Llama
    incoder-0shot  a docstring with the sentence and one test: InCoder's, and bigcode's harness
    sanitized      the 3-shot prompt on the edited sentences and tests, of which 257 are in the test set
    instruct       the paper's Figure 13: asked in the chat format, answers between [PYTHON] and [/PYTHON]; which
                   answers keep to these tags, and which are Python, is counted beside

The set-up code of a task runs behind the solution: two tasks need that to pass with their own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from midspan.engine.front import Front
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import PASSED, Answer, Chat, Evidence, Executed, Metric, Question, Scores, Text
from midspan.evaluate.tasks.code_blocks import code_of
from midspan.fim.stops import StopRules
from midspan.sandbox import Limits, Program

ORIGIN = "github.com/google-research/google-research/tree/master/mbpp"
SOURCE = Source(
    file="mbpp/mbpp.jsonl.gz",
    origin=ORIGIN,
    sha256="2809de2a637dffecb4bd58128bcfe1250d0a335779b019956b7f3c28f646e4a6",
    hub=("google-research-datasets/mbpp", "full/test*.parquet"),
)
SANITIZED = Source(
    file="mbpp/sanitized-mbpp.json",
    origin=ORIGIN,
    sha256="ca95deaa9a01ef0a6f439f88bcf0dd3db3563d22f22aad6cae04ebb9a8d8c8e9",
    hub=("google-research-datasets/mbpp", "sanitized/test*.parquet"),
)
VARIANTS = ("paper-3shot", "incoder-0shot", "sanitized", "instruct")
SHOTS = (2, 3, 4)
TEST = range(11, 511)
INCODER_STOPS = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")
LIMITS = Limits(cpu_seconds=3.0)
OBEYED = Metric(name="between the tags", score="obeyed", unit="%", kind="share")
PARSES = Metric(name="parses", score="parses", unit="%", kind="share")
"""Scores of `instruct`: the answer begins with one tag and ends with the other; Python can read what it holds."""


@dataclass(frozen=True, kw_only=True)
class Mbpp(Executed):
    """The task."""

    data: Data
    variant: str = "paper-3shot"
    name: str = "mbpp"
    languages: tuple[str, ...] = ("python",)
    metrics: Sequence[Metric] = (PASSED, OBEYED, PARSES)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        rows = self.data.rows(SANITIZED if self.variant == "sanitized" else SOURCE)
        by_number = {int(row["task_id"]): row for row in rows}
        shots = "".join(_shot(by_number[number]) for number in SHOTS if number in by_number)
        found = []
        stops: tuple[str, ...]
        for number in TEST:
            if (row := by_number.get(number)) is None:
                continue
            match self.variant:
                case "incoder-0shot":
                    prompt: Text | Chat = Text(text=f'"""\n{_task(row)}\n{row["test_list"][0]}\n"""\n')
                    stops = INCODER_STOPS
                case "instruct":
                    prompt, stops = Chat(message=_asked(row)), ("[/PYTHON]",)
                case _:
                    prompt, stops = Text(text=f"{shots}{_opening(row)}[BEGIN]\n"), ("[DONE]",)
            found.append(Question(id=f"MBPP/{number}", prompt=prompt, row=row, stops=StopRules(strings=stops)))
        return found

    def programs(self, question: Question, answer: Answer) -> list[Program]:
        """See `Task`."""
        return [tested(question.row, self._code(answer))]

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        scores = super().score(question, answer, evidence)
        if self.variant == "instruct":
            # The closing tag is where the engine stops, and is not in the text.
            obeyed = answer.text.lstrip().startswith("[PYTHON]") and answer.reason == "string"
            scores |= {"obeyed": float(obeyed), "parses": float(_is_python(self._code(answer)))}
        return scores

    def _code(self, answer: Answer) -> str:
        if self.variant != "instruct":
            return answer.text
        return code_of(answer.text, begin="[PYTHON]", end="[/PYTHON]")


def _is_python(code: str) -> bool:
    """Whether there is code, and Python can read it."""
    try:
        return bool(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def tested(row: Mapping[str, Any], code: str) -> Program:
    """A solution with its task's tests."""
    setup = "\n".join(row["test_imports"]) if "test_imports" in row else row.get("test_setup_code", "")
    tests = "\n".join([setup, *row["test_list"]])
    called = [name for name in re.findall(r"^def (\w+)", row["code"], re.MULTILINE) if f"{name}(" in tests]
    return Program(source=code, test=tests, entry_point=called[-1] if called else None, limits=LIMITS)


def _task(row: Mapping[str, Any]) -> str:
    return str(row.get("text") or row["prompt"])


def _opening(row: Mapping[str, Any]) -> str:
    tests = "\n".join(row["test_list"])
    return (
        f"You are an expert Python programmer, and here is your task: {_task(row)} "
        f"Your code should pass these tests:\n\n{tests}\n"
    )


def _shot(row: Mapping[str, Any]) -> str:
    code = row["code"].replace("\r\n", "\n")
    return f"{_opening(row)}[BEGIN]\n{code}\n[DONE]\n\n"


def _asked(row: Mapping[str, Any]) -> str:
    marks = "Begin your answer with [PYTHON] and end it with [/PYTHON]; between them write the code alone."
    return f"{_opening(row)}{marks}"

"""HumanEval (Chen et al. 2021): 164 functions from a signature and a docstring.

    official   the prompt as it is, Codex's stop words
    stripped   without the white space around it: what bigcode's harness does, and so the paper's reproductions
    evalplus   stripped, and a line feed; EvalPlus's stop words, without its pass over the syntax tree
    instruct   asked in the model's chat format; the first block of code is taken

program = prompt + completion, then the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from midspan.engine.front import Front
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import Answer, Chat, Executed, Question, Text
from midspan.evaluate.tasks.code_blocks import code_of
from midspan.fim.stops import StopRules
from midspan.sandbox import Program

SOURCE = Source(
    file="humaneval/HumanEval.jsonl.gz",
    origin="github.com/openai/human-eval",
    sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    hub=("openai/openai_humaneval", "*test*.parquet"),
)
VARIANTS = ("official", "stripped", "evalplus", "instruct")
CODEX_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
BIGCODE_STOPS = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>")
EVALPLUS_STOPS = (
    *("\nif __name__", "\ndef main(", "\nprint(", "\n```"),
    *("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert "),
)
STOPS = {"official": CODEX_STOPS, "stripped": BIGCODE_STOPS, "evalplus": EVALPLUS_STOPS, "instruct": ()}


@dataclass(frozen=True, kw_only=True)
class HumanEval(Executed):
    """The task."""

    data: Data
    variant: str = "official"
    name: str = "humaneval"
    languages: tuple[str, ...] = ("python",)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        rules = StopRules(strings=STOPS[self.variant])
        return [
            Question(id=row["task_id"], prompt=prompt_of(row["prompt"], self.variant), row=row, stops=rules)
            for row in self.data.rows(SOURCE)
        ]

    def programs(self, question: Question, answer: Answer) -> list[Program]:
        """See `Task`."""
        row = question.row
        if isinstance(question.prompt, Text):
            source = question.prompt.text + answer.text
        else:
            source = f"{imports_of(row)}{code_of(answer.text)}"
        return [checked(row, source)]


def prompt_of(text: str, variant: str) -> Text | Chat:
    """A function's beginning as a model sees it."""
    match variant:
        case "stripped":
            return Text(text=text.strip())
        case "evalplus":
            return Text(text=text.strip() + "\n")
        case "instruct":
            return Chat(
                message="Complete this Python function. Answer with the whole function in one block of code.\n\n"
                f"```python\n{text.strip()}\n```"
            )
    return Text(text=text)


def imports_of(row: dict[str, Any] | Any) -> str:
    """What stands before the function in the prompt, for answers that begin with it."""
    before, found, _ = str(row["prompt"]).partition(f"def {row['entry_point']}")
    return before if found else ""


def checked(row: Any, source: str) -> Program:
    """A program with HumanEval's test; the prompt is the benchmark's own and its helpers are trusted."""
    entry_point = row["entry_point"]
    return Program(
        source=source,
        test=f"{row['test']}\ncheck({entry_point})",
        entry_point=entry_point,
        trusted=row["prompt"],
    )

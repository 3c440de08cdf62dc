"""MultiPL-E (Cassano et al. 2022): HumanEval translated into other languages, run with each language's own tools.

    raw        the prompt as it is
    stripped   without the white space around it: bigcode's harness

`multipl-e` is the six languages of the paper's Table 4 and their mean; `multipl-e-LANGUAGE` is one alone. Stop
words are those of the data. program = prompt + completion, then the tests, which close what the prompt has opened.

The licence of the data forbids training on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from midspan.engine.front import Front
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import Answer, Executed, Question, Text
from midspan.fim.stops import StopRules
from midspan.sandbox import Limits, Program

VARIANTS = ("raw", "stripped")
LANGUAGES = {
    "cpp": "cpp",
    "java": "java",
    "php": "php",
    "ts": "typescript",
    "cs": "csharp",
    "sh": "bash",
    "js": "javascript",
    "go": "go",
    "rs": "rust",
}
"""The benchmark's name of a language and the sandbox's."""
PAPER = ("cpp", "java", "php", "ts", "cs", "sh")
LIMITS = Limits(cpu_seconds=15.0)


def source_of(language: str) -> Source:
    """The file of one language, in the `transform` and `reworded` forms that are usual."""
    return Source(
        file=f"multipl_e/humaneval-{language}.jsonl.gz",
        origin="github.com/nuprl/MultiPL-E",
        hub=("nuprl/MultiPL-E", f"humaneval-{language}/test*.parquet"),
    )


@dataclass(frozen=True, kw_only=True)
class MultiplE(Executed):
    """The task."""

    data: Data
    asked: tuple[str, ...] = PAPER
    variant: str = "raw"
    name: str = "multipl-e"
    averages: ClassVar[str] = "mean of languages"

    @property
    def languages(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Task`."""
        return tuple(LANGUAGES[language] for language in self.asked)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        found = []
        for language in self.asked:
            for row in self.data.rows(source_of(language)):
                prompt = row["prompt"].strip() if self.variant == "stripped" else row["prompt"]
                found.append(
                    Question(
                        id=f"{language}/{row['name']}",
                        prompt=Text(text=prompt),
                        row={"language": language, "tests": row["tests"]},
                        groups=(language,),
                        cluster=row["name"],
                        stops=StopRules(strings=tuple(row["stop_tokens"])),
                    )
                )
        return found

    def programs(self, question: Question, answer: Answer) -> list[Program]:
        """See `Task`."""
        assert isinstance(question.prompt, Text)
        return [
            Program(
                source=f"{question.prompt.text}{answer.text}",
                language=LANGUAGES[question.row["language"]],
                test=question.row["tests"],
                limits=LIMITS,
            )
        ]

"""HumanEvalPack (Muennighoff et al. 2023): HumanEval in six languages, to be written, or to be mended.

    synthesize   the prompt, to go on with
    fix          a function with one planted bug, its tests, and the words that ask to mend it; then its beginning
    fix-chat     the same in the model's chat format; the first block of code is taken

An answer in a language of braces is cut behind the brace that closes the function. program = the function, then
the tests; of Go's imports those are kept that the program uses, since Go refuses the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from midspan.engine.front import Front
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import Answer, Chat, Executed, Question, Text
from midspan.evaluate.tasks.braces import until_closed
from midspan.evaluate.tasks.code_blocks import code_of
from midspan.fim.stops import StopRules
from midspan.sandbox import Limits, Program

VARIANTS = ("synthesize", "fix", "fix-chat")
LANGUAGES = {
    "python": "python",
    "cpp": "cpp",
    "java": "java",
    "js": "javascript",
    "go": "go",
    "rust": "rust",
}
"""The benchmark's name of a language and the sandbox's."""
STOPS = {
    "python": ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif"),
    "cpp": ("\nint main(", "\n#include"),
    "java": ("\npublic class",),
    "js": ("\nconsole.", "\nmodule.exports"),
    "go": ("\nfunc main(", "\npackage "),
    "rust": ("\nfn main(", "\n#[cfg(test)]"),
}
LIMITS = {"python": Limits(cpu_seconds=3.0)}
_OTHERS = Limits(cpu_seconds=15.0)
_GO_PACKAGES = (
    *("bytes", "container/heap", "crypto/md5", "errors", "fmt", "math", "math/big", "math/rand", "regexp", "sort"),
    *("strconv", "strings", "time", "unicode"),
)
_IMPORTS = re.compile(r"^import \(.*?^\)\n", re.DOTALL | re.MULTILINE)


def source_of(language: str) -> Source:
    """The file of one language."""
    return Source(
        file=f"humanevalpack/humanevalpack-{language}.jsonl.gz",
        origin="github.com/bigcode-project/octopack",
        hub=("bigcode/humanevalpack", f"data/{language}/*.jsonl"),
    )


@dataclass(frozen=True, kw_only=True)
class HumanEvalPack(Executed):
    """The task."""

    data: Data
    asked: tuple[str, ...] = tuple(LANGUAGES)
    variant: str = "synthesize"
    name: str = "humanevalpack"
    averages: ClassVar[str] = "mean of languages"

    @property
    def languages(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Task`."""
        return tuple(LANGUAGES[language] for language in self.asked)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        return [
            Question(
                id=f"{language}/{row['task_id']}",
                prompt=_prompt(row, language, self.variant),
                row={**row, "language": language},
                groups=(language,),
                cluster=row["task_id"].split("/")[1],
                stops=StopRules(strings=() if self.variant == "fix-chat" else STOPS[language]),
            )
            for language in self.asked
            for row in self.data.rows(source_of(language))
        ]

    def programs(self, question: Question, answer: Answer) -> list[Program]:
        """See `Task`."""
        if isinstance(question.prompt, Chat):
            return [program_of(question.row, code_of(answer.text), is_whole=True)]
        return [program_of(question.row, answer.text)]


def program_of(row: Mapping[str, Any], code: str, *, is_whole: bool = False) -> Program:
    """A function with its tests.

    Args:
        row: of the data, and its language.
        code: what follows the function's first line; or, where it is whole, that line too.
    """
    language = row["language"]
    opening = _opening(row)
    if is_whole and (begin := _first_line(row, opening)) in code:
        opening, code = opening.rpartition(begin)[0] + begin, code.partition(begin)[2]
    body = code if language == "python" else until_closed(code)
    source = opening + body + ("\n}\n" if language == "java" else "\n")
    test = tests_of(row, language)
    if language == "go":
        source = with_go_imports(row, source, test)
    return Program(
        source=source,
        language=LANGUAGES[language],
        test=test,
        entry_point=row["entry_point"] if language == "python" else None,
        trusted=row["prompt"] if language == "python" else "",
        limits=LIMITS.get(language, _OTHERS),
    )


def tests_of(row: Mapping[str, Any], language: str) -> str:
    """The tests of a row, HumanEval-X's too.

    Rust's were written for rand 0.4, and rand 0.8 takes a range's ends as one.
    """
    test = str(row["test"])
    return (
        re.sub(r"\bgen_range\(([^(),]+), ([^(),]+)\)", r"gen_range(\1..\2)", test) if language == "rust" else test
    )


def _prompt(row: Mapping[str, Any], language: str, variant: str) -> Text | Chat:
    if variant == "synthesize":
        return Text(text=row["prompt"])
    asked = f"{row['declaration']}{row['buggy_solution']}\n{row['test']}\n\nFix bugs in {row['entry_point']}."
    if variant == "fix":
        return Text(text=f"{asked}\n\n{row['declaration']}")
    return Chat(message=f"{asked} Answer with the whole function in one block of code.")


def _first_line(row: Mapping[str, Any], opening: str) -> str:
    """The line that begins the function.

    It need not be the last one that is given: C++'s numbers 10, 32, 38 and 50 have a comment behind it, Python's
    115 an import. Five rows spell the function otherwise than their entry point; there it is the last one.
    """
    named = [line.strip() for line in row["declaration"].splitlines() if row["entry_point"] in line]
    return named[-1] if named and named[-1] in opening else opening.rstrip().rpartition("\n")[2].strip()


def _opening(row: Mapping[str, Any]) -> str:
    """What stands before a function's body.

    The declaration has more of what a program may include, but Go's helpers stand in the prompt alone, and of
    C++'s number 38 the declaration goes on into the body.
    """
    match row["language"]:
        case "go":
            return str(row["prompt"])
        case "cpp":
            return (
                "\n".join(re.findall(r"^#include.*", row["declaration"], re.MULTILINE)) + "\n" + str(row["prompt"])
            )
    return str(row["declaration"])


def with_go_imports(row: Mapping[str, Any], source: str, test: str) -> str:
    """A Go program that imports what it and its tests use, and nothing else, since Go refuses an unused import.

    Several rows of the data import packages that only a solution would use, or do not import what their own
    solution uses, so what stands there is a list to choose from, with the standard packages that solutions take.
    """
    source = _IMPORTS.sub("", source)
    given = re.findall(r'^\s*"([\w./]+)"', f"{row['test_setup']}\n{row['import']}", re.MULTILINE)
    used = [path for path in dict.fromkeys((*given, *_GO_PACKAGES)) if _is_used(path, source + test)]
    lines = "".join(f'\t"{path}"\n' for path in used)
    return f"package main\n\nimport (\n{lines})\n\n{source}"


def _is_used(path: str, text: str) -> bool:
    """Only names with a capital are exported, so a sentence that ends in `time.` is no use of that package."""
    return re.search(rf"\b{path.rpartition('/')[2]}\.[A-Z]", text) is not None

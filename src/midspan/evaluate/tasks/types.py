"""Return types of Python functions by infilling (section 2.3 of the paper; InCoder's experiment).

    def mean(values: list[float]) -> |float|:          the hole is behind the arrow and ends before the colon
        return sum(values) / len(values)

`types-like` is made here: one function of each held-out file of a corpus that says what it returns. No public set
is at hand, so its scores stand beside no paper's. A type is right where it means the same: `Optional[int]` is
`int | None`, `typing.List[str]` is `list[str]`, and the order of a union is no matter. `base` asks for the
outermost name alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from midspan.corpus import HELD_OUT
from midspan.engine.front import Front
from midspan.errors import InputError
from midspan.evaluate.data import Data
from midspan.evaluate.task import EXACT, Answer, Evidence, Hole, Metric, Question, Scores, Task
from midspan.fim import Draws
from midspan.fim.stops import StopRules

VARIANTS = ("psm", "spm", "psm-healed", "spm-healed")
BEFORE, BEHIND = 4000, 2000
"""Characters of a file around a function, in whole lines."""
METRICS = (
    EXACT,
    Metric(name="base", score="base", unit="%", kind="share"),
    Metric(name="is a type", score="parses", unit="%", kind="share"),
)


@dataclass(frozen=True, kw_only=True)
class TypesLike(Task):
    """The task."""

    data: Data
    corpus: Path | None = None
    variant: str = "psm"
    name: str = "types-like"
    metrics: tuple[Metric, ...] = METRICS

    def questions(self, model: Front) -> list[Question]:
        """See `Task`.

        Raises:
            InputError: no corpus is named, or none of its held-out files has such a function.
        """
        layout, _, healed = self.variant.partition("-")
        corpus = self.data.corpus(self.corpus, self.name)
        found = []
        for document in corpus.documents(HELD_OUT):
            holes = list(return_types(document.text)) if document.language == "python" else []
            if not holes:
                continue
            prefix, truth, suffix = holes[Draws(0, 0, document.id).below(len(holes))]
            hole = Hole(
                prefix=prefix, suffix=suffix, layout="spm" if layout == "spm" else "psm", heal=bool(healed)
            )
            found.append(
                Question(
                    id=f"{document.id:016x}/{len(prefix)}",
                    prompt=hole,
                    row={"truth": truth, "path": document.path},
                    max_tokens=32,
                    stops=StopRules(strings=(":",), max_lines=1),
                )
            )
        if not found:
            raise InputError(f"{self.corpus} has no held-out Python function with the type that it returns")
        return found

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        written, truth = normalised(answer.text), normalised(question.row["truth"])
        return {
            "exact": float(written == truth),
            "base": float(written is not None and truth is not None and _base(written) == _base(truth)),
            "parses": float(written is not None),
        }


def return_types(text: str) -> Iterator[tuple[str, str, str]]:
    """(prefix, type, suffix) of every function of a file that names what it returns."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        """A place of the parser's, which counts bytes, in characters."""
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode(errors="ignore"))

    if text.count("\n") != len(lines) - (not text.endswith("\n")):
        return  # a form feed or the like ends a line for one of the two
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.returns is None:
            continue
        returns = node.returns
        if returns.end_lineno != returns.lineno or returns.end_col_offset is None:
            continue
        start = offset(returns.lineno, returns.col_offset)
        end = offset(returns.lineno, returns.end_col_offset)
        arrow = len(text[:start].rstrip())
        before, behind = text[:arrow], text[end:]
        if before.endswith("->") and behind.startswith(":"):
            cut = text.find("\n", arrow - BEFORE) + 1 if arrow > BEFORE else 0
            last = end + BEHIND
            yield text[cut:arrow], text[start:end], text[end : text.rfind("\n", end, last) + 1 or last]


def normalised(text: str) -> str | None:
    """A type as one of several ways to write it; None for what is none."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        return _normalised(node)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _normalised(node: ast.expr) -> str:
    return " | ".join(sorted(_members(node)))


def _single(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and (node.value is None or node.value is ...):
        return "None" if node.value is None else "..."
    if isinstance(node, ast.Attribute | ast.Name):
        return _name(node.attr if isinstance(node, ast.Attribute) else node.id)
    if isinstance(node, ast.List):
        return f"[{', '.join(map(_normalised, node.elts))}]"
    if isinstance(node, ast.Subscript):
        base = _normalised(node.value)
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if base == "Literal":
            return f"Literal[{', '.join(map(ast.unparse, arguments))}]"
        return f"{base}[{', '.join(map(_normalised, arguments))}]"
    raise ValueError(f"{ast.unparse(node)} is no type")


def _members(node: ast.expr) -> set[str]:
    """What a union is of; a type alone is one of itself."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _members(node.left) | _members(node.right)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name | ast.Attribute):
        name = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name in ("Optional", "Union"):
            return set().union(*map(_members, arguments)) | ({"None"} if name == "Optional" else set())
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _members(ast.parse(node.value.strip(), mode="eval").body)
    return {_single(node)}


def _name(name: str) -> str:
    """Aliases of `typing` for built-in types are those types."""
    return name.lower() if name in ("List", "Dict", "Set", "Tuple", "Type", "FrozenSet") else name


def _base(text: str) -> str:
    return text.partition("[")[0]

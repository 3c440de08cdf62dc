"""Benchmark files → items: what must not be in a training corpus, cut into parts that can be looked for.

    HumanEval.jsonl.gz ─┐            Item("humaneval", "HumanEval/23",
    mbpp.jsonl.gz       ├─ fields ─▶      question  'Return length of given string'        the docstring's prose
    APPS/train/0111/    ┘                 question  'Return length of given string >>> …'  the docstring
                                          question  'def strlen(string: str) -> int: …'    the prompt
                                          solution  'return len(string)'
                                          tests     'def check(candidate): assert …')

A file is told by the fields of its first row, never by its name. The parts of an item overlap on purpose: which
of them says enough to be looked for is decided where the index is built (`decontaminate.py`). Tasks that cut one
function in many ways (infilling) are one item a function: whoever copied the function copied them all. Rows of
several files about the same task (HumanEval and HumanEval+, MBPP and its sanitised edition) are one item.

Left out on purpose: files that lie beside benchmarks and hold nothing to look for (samples of models, data for
judges, inputs and outputs without a question), and the prompts of ToxiGen and BOLD, which have no answer to learn.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from midspan.errors import InputError

Row = Mapping[str, Any]
Kind = Literal["question", "solution", "tests"]


@dataclass(frozen=True, slots=True)
class Part:
    """A text to look for: a `question` in prose, or code in a language of `midspan.corpus.language`."""

    kind: Kind
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One task of a benchmark and the parts by which a copy of it is known."""

    benchmark: str
    id: str
    parts: tuple[Part, ...]


_LANGUAGES = (
    {"cpp": "c++", "cs": "c#", "jl": "julia", "js": "javascript", "pl": "perl", "py": "python", "rb": "ruby"}
    | {"rkt": "racket", "rs": "rust", "sh": "shell", "ts": "typescript", "go_test.go": "go"}
    | {
        name: name
        for name in ("d", "go", "java", "javascript", "lua", "php", "python", "r", "rust", "scala", "swift")
    }
)
"""MultiPL-E's and HumanEval-X's names of languages → ours."""

_TRIPLE_QUOTED = re.compile(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', re.DOTALL)
_BLOCK_COMMENT = re.compile(r"/\*+(.*?)\*/", re.DOTALL)
_LINE_COMMENTS = re.compile(r"(?:^[ \t]*(?:#(?!include|!|lang)|///?|--|;+)[^\n]*(?:\n|\Z))+", re.MULTILINE)
_EXAMPLES = re.compile(
    r">>>|=>|\bexamples?\b|\be\.g\.|^\s*(?:assert\b|-----|input:)|^\s*[(\[]?\w*\(.*\)\s*(?:➞|->|==|returns\b)",
    re.IGNORECASE | re.MULTILINE,
)
_METADATA = re.compile(r"\A\s*METADATA = \{[^}]*\}")


def _docstring(prompt: str) -> str:
    """The question inside a prompt: its last docstring or block comment, else its longest run of line comments."""
    for pattern in (_TRIPLE_QUOTED, _BLOCK_COMMENT):
        if found := list(pattern.finditer(prompt)):
            return next(group for group in found[-1].groups() if group is not None)
    runs = [match.group().strip().lstrip("#/-; ") for match in _LINE_COMMENTS.finditer(prompt)]
    return max(runs, key=len, default="")


def _question(text: str) -> Iterator[Part]:
    """A question up to the line of its first example, and all of it."""
    example = _EXAMPLES.search(text)
    prose = text[: text.rfind("\n", 0, example.start()) + 1] if example else text
    for version in (prose, text):
        if version.strip():
            yield Part("question", version.strip())


def _prompt(prompt: str) -> Iterator[Part]:
    yield from _question(_docstring(prompt))
    yield Part("question", prompt.strip())


def _solution(text: str, language: str = "python") -> Iterator[Part]:
    if text.strip():
        yield Part("solution", text.strip(), language)


def _tests(text: str, language: str = "python") -> Iterator[Part]:
    text = _METADATA.sub("", text).strip()
    if text:
        yield Part("tests", text, language)


def _humaneval(row: Row) -> Iterator[Item]:
    benchmark, _, number = row["task_id"].partition("/")
    is_mbpp = benchmark == "Mbpp"  # EvalPlus gives MBPP the fields of HumanEval
    parts = [*_prompt(row["prompt"]), *_solution(row["canonical_solution"])]
    parts += _tests(row.get("test", ""))
    yield Item("mbpp", number, tuple(parts)) if is_mbpp else Item("humaneval", row["task_id"], tuple(parts))


def _infilling(row: Row) -> Iterator[Item]:
    # "SingleLineInfilling/HumanEval/0/L3": the function is named by the two segments in the middle
    function = "/".join(row["task_id"].split("/")[1:3])
    whole = row["prompt"] + row["canonical_solution"] + row["suffix"]
    docstring = _docstring(whole)
    solution = whole.rpartition(docstring)[2].lstrip("\"'") if docstring else whole
    parts = [*_question(docstring), *_solution(solution), *_tests(row["test"])]
    yield Item("humaneval_infilling", function, tuple(parts))


def _humaneval_x(row: Row) -> Iterator[Item]:
    language = _LANGUAGES.get(row["task_id"].partition("/")[0].lower(), "")
    parts = [*_prompt(row["prompt"]), *_solution(row["canonical_solution"], language)]
    parts += _solution(row.get("buggy_solution") or "", language)
    parts += _tests(row["test"], language)
    yield Item("humanevalpack" if "buggy_solution" in row else "humaneval_x", row["task_id"], tuple(parts))


def _mbpp(row: Row) -> Iterator[Item]:
    parts = [Part("question", (row.get("text") or row["prompt"]).strip()), *_solution(row["code"])]
    parts += _tests("\n".join(row["test_list"]))
    yield Item("mbpp", str(row["task_id"]), tuple(parts))


def _multipl_e(row: Row) -> Iterator[Item]:
    language = _LANGUAGES.get(row["language"], "")
    tests = row.get("tests") or row["test"]
    yield Item(
        "multipl_e", f"{row['language']}/{row['name']}", (*_prompt(row["prompt"]), *_tests(tests, language))
    )


def _santacoder_fim(row: Row) -> Iterator[Item]:
    function = row["name"].rpartition("-L")[0].removesuffix(".json").partition("-")[2] or row["name"]
    language = _LANGUAGES.get(row["language"], "")
    whole = "\n".join(row[field].strip("\n") for field in ("prompt", "canonical_solution", "suffix"))
    parts = [*_question(_docstring(whole)), *_solution(whole, language), *_tests(row["tests"], language)]
    yield Item("santacoder_fim", f"{row['language']}/{function}", tuple(parts))


def _apps(row: Row) -> Iterator[Item]:
    solutions = row["solutions"]
    solutions = json.loads(solutions or "[]") if isinstance(solutions, str) else solutions
    parts = [*_question(row["question"])] + [part for solution in solutions for part in _solution(solution)]
    yield Item("apps", str(row.get("problem_id", row.get("id", row["row"]))), tuple(parts))


def _gsm8k(row: Row) -> Iterator[Item]:
    parts = (Part("question", row["question"].strip()), Part("question", row["answer"].strip()))
    yield Item("gsm8k", str(row["row"]), parts)


def _truthfulqa(row: Row) -> Iterator[Item]:
    if "mc1_targets" in row:
        question, best = row["question"], next(answer for answer, true in row["mc1_targets"].items() if true)
    else:
        question, best = row["Question"], row["Best Answer"]
    yield Item("truthfulqa", question, (Part("question", question), Part("question", f"{question} {best}")))


def _code_to_text(row: Row) -> Iterator[Item]:
    # A function of a public repository: the task's answer is its docstring, so only both together are the item.
    name = f"{row['repo']}/{row['path']}:{row['func_name']}"
    yield Item("codexglue_code_to_text", name, (Part("question", row["original_string"].strip()),))


def _line_completion(row: Row) -> Iterator[Item]:
    text = row["input"].removeprefix("<s>").strip() + " " + row["gt"]
    yield Item("codexglue_line_completion", str(row["id"]), (Part("question", text),))


_KINDS: tuple[tuple[str, str, Callable[[Row], Iterator[Item]]], ...] = (
    ("HumanEval infilling", "task_id, prompt, suffix, canonical_solution, test", _infilling),
    ("SantaCoder FIM", "name, language, prompt, suffix, canonical_solution, tests", _santacoder_fim),
    ("HumanEval-X and HumanEvalPack", "task_id, prompt, canonical_solution, declaration, test", _humaneval_x),
    ("MBPP", "task_id, code, test_list", _mbpp),
    ("HumanEval, HumanEval+ and MBPP+", "task_id, prompt, canonical_solution, entry_point", _humaneval),
    ("MultiPL-E", "name, language, prompt, stop_tokens", _multipl_e),
    ("APPS", "question, solutions", _apps),
    ("TruthfulQA", "Question, Best Answer", _truthfulqa),
    ("TruthfulQA multiple choice", "question, mc1_targets", _truthfulqa),
    ("GSM8K", "question, answer", _gsm8k),
    ("CodeXGLUE code-to-text", "repo, path, func_name, original_string, docstring", _code_to_text),
    ("CodeXGLUE line completion", "id, input, gt", _line_completion),
)
"""What a file is, the fields of its rows, and how a row is read; the first that fits."""

_NOTHING_TO_FIND = (
    *("task_id, completion", "prompt, completion", "prompt, samples"),  # samples, data for judges
    *("problem_id, example_input_output", "inputs, outputs", "difficulty, url", "code, result"),  # beside APPS
    "text, toxicity_score",  # ToxiGen
)
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def load_items(paths: Sequence[Path]) -> list[Item]:
    """The items of benchmark files, or of folders of them, in the order given and folders in order of names.

    Raises:
        InputError: a path is absent, a file is of no known kind or broken, or there is no item in all of them.
    """
    merged: dict[tuple[str, str], dict[Part, None]] = {}
    for path in paths:
        for file, rows in _tables(path):
            for item in _items(file, rows):
                merged.setdefault((item.benchmark, item.id), {}).update(dict.fromkeys(item.parts))
    if not merged:
        raise InputError(f"{', '.join(map(str, paths))}: no benchmark items in there; known are {_known()}")
    return [Item(benchmark, name, tuple(parts)) for (benchmark, name), parts in merged.items()]


def _known() -> str:
    return ", ".join(name for name, _, _ in _KINDS)


def _tables(path: Path) -> Iterator[tuple[Path, list[Row]]]:
    """Files below a path with their rows; in a folder, files of other formats (README.md) are passed over."""
    if path.is_dir():
        if (path / "question.txt").is_file():
            yield path, [_apps_problem(path)]
            return
        for child in sorted(path.iterdir()):
            if not child.name.startswith(".") and (child.is_dir() or _format(child)):
                yield from _tables(child)
    elif not path.is_file():
        raise InputError(
            f"{path}: there is no such file or folder; name the benchmark files to decontaminate against"
        )
    elif not _format(path):
        raise InputError(f"{path}: not a benchmark file that can be read; known are {_known()}")
    else:
        yield path, _rows(path)


def _format(path: Path) -> str:
    """The suffix that says how a file is read, or an empty string."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return suffix if suffix in _SUFFIXES else ""


def _apps_problem(folder: Path) -> Row:
    """A problem of APPS as it lies on disk: a folder of its own."""
    solutions = folder / "solutions.json"
    try:
        question = (folder / "question.txt").read_text(encoding="utf-8")
        found = json.loads(solutions.read_text(encoding="utf-8")) if solutions.is_file() else []
    except ValueError as error:
        raise InputError(f"{folder}: an APPS problem that cannot be read ({error})") from None
    return {"question": question, "solutions": found, "problem_id": folder.name}


def _rows(path: Path) -> list[Row]:
    try:
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            data = gzip.decompress(data)
        if _format(path) == ".parquet":
            import pyarrow.parquet  # slow to import, and needed for one benchmark

            return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
        text = data.decode("utf-8-sig")
        if _format(path) == ".csv":
            return list(csv.DictReader(io.StringIO(text)))
        try:
            whole = json.loads(text)
        except ValueError:
            whole = [json.loads(line) for line in text.split("\n") if line.strip()]
        return whole if isinstance(whole, list) else [whole]
    except (OSError, EOFError, ValueError) as error:  # pyarrow's and json's errors are ValueErrors
        raise InputError(f"{path}: cannot be read as {_format(path)} ({error}); download it again") from None


def _items(path: Path, rows: list[Row]) -> Iterator[Item]:
    if rows and all(isinstance(row, str) for row in rows):  # solutions of APPS without their question
        return
    if not rows or not isinstance(rows[0], Mapping):
        raise InputError(f"{path}: has no rows with fields; known benchmark files are {_known()}")
    read = _reader(rows[0])
    if read is None:
        if any(_has(rows[0], fields) for fields in _NOTHING_TO_FIND) or _is_bold(rows):
            return
        names = ", ".join(sorted(map(str, rows[0]))[:8])
        raise InputError(f"{path}: a benchmark file with the fields {names} is not known; known are {_known()}")
    for number, row in enumerate(rows):
        try:
            yield from read({**row, "row": number})
        except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
            raise InputError(f"{path}: row {number + 1} is not like the first ({error!r})") from None


def _has(row: Row, fields: str) -> bool:
    return all(field in row for field in fields.split(", "))


def _reader(row: Row) -> Callable[[Row], Iterator[Item]] | None:
    return next((read for _, fields, read in _KINDS if _has(row, fields)), None)


def _is_bold(rows: list[Row]) -> bool:
    """BOLD: one object of groups, each an object of titles."""
    return len(rows) == 1 and all(isinstance(group, Mapping) for group in rows[0].values())

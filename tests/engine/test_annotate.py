"""Docstrings and types: whatever a model writes, the file stays Python and means what it meant."""

import ast
import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from engine.tiny import tiny_model
from midspan.cli import annotate as command
from midspan.engine import Engine, annotate
from midspan.errors import InputError, WorkError
from midspan.model.weights import write_hf
from vocabularies import small_vocabulary

SOURCE = '''"""A module — with é."""
from __future__ import annotations

import math


class Shape:
    def area(self, scale, *sides, unit="é", **rest):
        return math.prod(sides) * scale

    @staticmethod
    def named(name: str, size=3) -> "Shape":
        """Have one."""
        return Shape()


def empty(): return 1


async def wait(seconds,
               then=None):
    # first a comment
    def inner(x):
        return x
    return inner(seconds)
'''
TOKENIZER = small_vocabulary(["<PRE>", "<SUF>", "<MID>", "<EOT>"], bos="<s>", eos="</s>")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_model(TOKENIZER.vocab_size, max_positions=1024), TOKENIZER)


def without(tree: ast.AST) -> str:
    """A tree without types, docstrings and added imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:]
        if isinstance(node, ast.Module):
            node.body = [n for n in node.body if getattr(n, "module", "") not in ("typing", "collections.abc")]
    return ast.dump(tree)


@pytest.mark.parametrize("function", ["Shape.area", "wait", "wait.inner", "Shape"])
def test_a_docstring_is_one_and_changes_nothing_else(engine: Engine, function: str) -> None:
    try:
        changed = annotate.docstring(engine, SOURCE, function, "shape.py")
    except WorkError:  # a random model may write what is none, and says so
        return
    node = ast.parse(changed)
    for part in function.split("."):
        node = next(n for n in node.body if getattr(n, "name", "") == part)  # type: ignore[assignment, attr-defined]
    assert ast.get_docstring(node)  # type: ignore[arg-type]
    assert without(ast.parse(changed)) == without(ast.parse(SOURCE))


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("nothing", "shape.py has no function 'nothing'; its functions are Shape.area, Shape.named, empty, wait"),
        ("Shape.named", "Shape.named of shape.py has a docstring already"),
        ("empty", "empty of shape.py is written in one line"),
    ],
)
def test_functions_that_cannot_have_one(engine: Engine, function: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        annotate.docstring(engine, SOURCE, function, "shape.py")


def test_places_for_types_are_all_found() -> None:
    holes = list(annotate._holes(ast.parse(SOURCE), SOURCE))
    assert [hole.place for hole in holes] == [
        *("Shape.area(scale)", "Shape.area(sides)", "Shape.area(unit)", "Shape.area(rest)", "Shape.area -> "),
        *("Shape.named(size)", "empty -> ", "wait(seconds)", "wait(then)", "wait -> "),
        *("wait.inner(x)", "wait.inner -> "),
    ]
    for hole in reversed(holes):  # put together, all of them parse where they belong
        changed = SOURCE[: hole.offset] + hole.lead + " int" + SOURCE[hole.offset :]
        assert without(ast.parse(changed)) == without(ast.parse(SOURCE))
        assert hole.place not in [other.place for other in annotate._holes(ast.parse(changed), changed)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" int", "int"),
        (" dict[str, list[int]], y", "dict[str, list[int]]"),
        (" Callable[[int], None] = 3", None),
        (" Callable[[int], None]) -> x", "Callable[[int], None]"),
        (" a.B | None", "a.B | None"),
        (" tuple[int, ...]", "tuple[int, ...]"),
        (" 3", None),
        (" f(x)", None),
        (" lambda: 1", None),
        ("", None),
    ],
)
def test_what_is_a_type(text: str, expected: str | None) -> None:
    found = annotate._longest_type(text)
    assert found == expected or (expected is None and found == "Callable[[int], None]")


def test_names_have_to_exist_or_are_imported() -> None:
    hole = next(iter(annotate._holes(ast.parse(SOURCE), SOURCE)))
    assert annotate._with_type(SOURCE, hole, "Unheard") is None
    assert annotate._with_type(SOURCE, hole, "math.Thing | Shape") is not None
    changed = annotate._with_type(SOURCE, hole, "Sequence[Any]")
    assert changed is not None
    assert "import annotations\n\nfrom collections.abc import Sequence\n" in changed.replace(
        "from typing import Any\n", ""
    )
    assert "from typing import Any\n" in changed
    assert without(ast.parse(changed)) == without(ast.parse(SOURCE))


def test_types_of_any_model_leave_the_program_as_it_is(engine: Engine) -> None:
    seen: list[tuple[int, int]] = []
    changed, added = annotate.types(engine, SOURCE, "shape.py", samples=2, progress=lambda *at: seen.append(at))
    assert without(ast.parse(changed)) == without(ast.parse(SOURCE))
    assert seen[-1] == (12, 12)
    assert len(list(annotate._holes(ast.parse(changed), changed))) == 12 - len(added)


def test_a_type_with_a_new_error_goes_out_again() -> None:
    pytest.importorskip("mypy")
    good, bad = "def f(x: int) -> int:\n    return x\n", "def f(x: int) -> str:\n    return x\n"
    before, after = annotate._errors(good), annotate._errors(bad)
    assert before is not None
    assert after is not None
    assert not before
    assert after - before


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> str:
    folder = tmp_path_factory.mktemp("model") / "m"
    write_hf(folder, engine.model, engine.model.config, tokenizer=TOKENIZER, dtype=torch.bfloat16)
    return str(folder)


def run(*arguments: str) -> str:
    app = typer.Typer()
    command.register(app)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_commands_print_or_write(model: str, tmp_path: Path) -> None:
    file = tmp_path / "shape.py"
    source = "def f(x: int):\n    return x\n"
    file.write_text(source, encoding="utf-8")
    found = json.loads(run("types", model, str(file), "--samples", "1", "--json"))
    assert file.read_text(encoding="utf-8") == source
    assert found["written"] is False
    assert bool(found["types"]) == bool(found["diff"])
    written = json.loads(run("types", model, str(file), "--samples", "1", "--write", "--json"))
    assert written["types"] == found["types"]
    assert (file.read_text(encoding="utf-8") != source) == bool(found["diff"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["docstring", "M", "shape.py"], "'shape.py' is no place; write FILE:FUNCTION"),
        (["docstring", "M", "{0}/none.py:f"], "cannot be read"),
        (["docstring", "M", "{0}/broken.py:f"], r"broken.py is no Python at line 1 .*; mend it"),
        (["types", "M", "{0}/broken.py"], r"broken.py is no Python at line 1"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(InputError, match=sentence):
        run(*[argument.format(tmp_path) for argument in arguments])

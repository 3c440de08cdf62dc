"""Python's form. Tests and solutions are read by Python's own parser."""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections import Counter

from midspan.instruct.form import Form, MalformedError, UnitTests, assembled

PROBLEM = "Write a function that keeps the first of every run of equal neighbours in a list, and drops the others."
"""What every language's example solves."""


def _python_tests(text: str) -> UnitTests:
    setup, found, called = list[str](), list[str](), list[Counter[str]]()
    for node in _parsed(text).body:
        source = ast.get_source_segment(text, node) or ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            setup.append(source)
        elif isinstance(node, ast.Assert):
            if source not in found:
                found.append(source)
                calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
                names = [func.id for func in calls if isinstance(func, ast.Name)]
                called.append(Counter(name for name in names if not hasattr(builtins, name)))
        else:
            raise MalformedError("a test is no assertion")
    return assembled("\n".join(setup), found, called)


def _python_solution(code: str, entry: str) -> str:
    """The code without what it does beside defining: its own tests, prints, and the part for scripts."""
    lines = code.split("\n")
    defined: set[str] = set()
    for place, node in enumerate(_parsed(code).body):
        is_docstring = place == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Expr | ast.Assert | ast.If | ast.For | ast.While) and not is_docstring:
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    if entry not in defined:
        raise MalformedError("the function that the tests call is not defined")
    tidy = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip() + "\n"
    _parsed(tidy)  # two statements on a line are not parted
    return tidy


def _parsed(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise MalformedError("it is no Python") from None


def _python_stubs(entry: str) -> tuple[str, ...]:
    nothing = f"def {entry}(*args, **named):\n    return None\n"
    same = f"def {entry}(*args, **named):\n    return args[0] if args else None\n"
    return nothing, same


PYTHON = Form(
    name="python",
    title="Python",
    tag="PYTHON",
    fence="python",
    comment="#",
    assertion="one `assert` that calls the function",
    example=(
        PROBLEM,
        (
            "assert drop_repeats([1, 1, 2, 1]) == [1, 2, 1]",
            "assert drop_repeats([]) == []",
            "assert drop_repeats(['a', 'a', 'a']) == ['a']",
        ),
        "def drop_repeats(items):\n    kept = []\n    for item in items:\n"
        "        if not kept or kept[-1] != item:\n            kept.append(item)\n    return kept",
    ),
    read_tests=_python_tests,
    read_solution=_python_solution,
    whole=lambda setup, tests: "\n".join([*([setup] if setup else []), *tests]) + "\n",
    stubs=_python_stubs,
)

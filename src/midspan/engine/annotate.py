"""Docstrings and types by infilling, the paper's own uses of it (section 2.3), for Python alone.

    def mean(values):                       def mean(values:| list[float]|):
        \"\"\"|Average of the values.|\"\"\"          return sum(values) / len(values)
        return sum(values) / len(values)

What the model writes goes in only if it is what it should be: a docstring that the parser reads back as one, a
type that is a type and whose names exist. Names of `typing` and `collections.abc` are imported with it. Where mypy
is installed, a type that brings an error which the file did not have goes out again.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import importlib.util
import subprocess
import sys
import tempfile
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from midspan.engine.constrain import Constraint, Grammar
from midspan.engine.engine import Engine
from midspan.engine.sample import SampleConfig
from midspan.errors import InputError, WorkError
from midspan.fim.stops import StopRules

Function = ast.FunctionDef | ast.AsyncFunctionDef
_NAME = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
MOST_TOKENS = 24
"""Of a type."""


def _type_regex(depth: int = 3) -> str:
    """Names, subscripts and unions, nested so deep."""
    found = _NAME
    for _ in range(depth):
        found = rf"{_NAME}(\[({found}|\[\]|\.\.\.)(, ({found}|\.\.\.))*\])?( \| {_NAME})*"
    return " " + found


@dataclass(frozen=True, slots=True)
class Annotation:
    """A type that was found."""

    place: str
    """`function(parameter)` or `function -> `."""
    type: str


@dataclass(frozen=True, slots=True)
class _Hole:
    place: str
    offset: int
    """In characters."""
    lead: str
    """What stands between the hole and its type: `:` or ` ->`."""


def parsed(source: str, name: str) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        InputError: it is no Python that this Python reads.
    """
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f" at line {line}" if line else ""
        raise InputError(
            f"{name} is no Python{where} ({getattr(error, 'msg', error)}); mend it or name another file"
        ) from None


def docstring(engine: Engine, source: str, function: str, name: str, *, max_tokens: int = 128) -> str:
    """The file with a docstring in one of its functions, methods (`Class.method`) or classes.

    Raises:
        InputError: there is no such function, or it has a docstring.
        WorkError: the model wrote nothing that is one.
    """
    node = _named(parsed(source, name), function, name)
    if ast.get_docstring(node) is not None:
        raise InputError(f"{function} of {name} has a docstring already; name another function")
    first = node.body[0]
    if first.lineno == node.lineno or source.splitlines()[first.lineno - 1][: first.col_offset].strip():
        raise InputError(f"{function} of {name} is written in one line; give it a body of its own first")
    start = _offset(source, _first_line(first), 0)
    indent = " " * first.col_offset
    prefix, suffix = source[:start] + f'{indent}"""', f'"""\n{source[start:]}'
    rules = StopRules(strings=('"""',), repetition=True)
    found = engine.infill(prefix, suffix, max_tokens=max_tokens, stops=rules)
    text = found.text.rstrip().rstrip("\\").rstrip()
    if found.finish_reason == "length":  # cut off: keep what is whole
        text = text[: max(text.rfind("."), text.rfind("\n")) + 1].rstrip() or text
    if text.endswith('"'):
        text += " "
    end = f"\n{indent}" if "\n" in text else ""
    result = f"{prefix}{text}{end}{suffix}"
    try:
        again = ast.get_docstring(_named(ast.parse(result), function, name))
    except SyntaxError:
        again = None
    if not text.strip() or not again:
        raise WorkError(f"the model wrote no docstring for {function} of {name}; nothing is changed")
    return result


def types(
    engine: Engine,
    source: str,
    name: str,
    *,
    samples: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[str, list[Annotation]]:
    """The file with types where parameters and results have none, and what was added.

    Args:
        engine: a model that infills.
        source: the file.
        name: of the file, for messages.
        samples: how many types are asked for each place; the most probable usable one is taken.
        progress: called with places done and places in all.
    """
    before = _errors(source)
    constraint = _constraint(engine)
    added: list[Annotation] = []
    passed: set[str] = set()
    total = len(list(_holes(parsed(source, name), source)))
    while True:
        hole = next((h for h in _holes(parsed(source, name), source) if h.place not in passed), None)
        if hole is None:
            return source, added
        passed.add(hole.place)
        for candidate in _candidates(engine, source, hole, samples, constraint):
            changed = _with_type(source, hole, candidate)
            if changed is None:
                continue
            after = _errors(changed)
            if before is None or after is None or not after - before:
                source = changed
                added.append(Annotation(hole.place, candidate))
                break
        if progress is not None:
            progress(len(passed), total)


def _constraint(engine: Engine) -> Constraint | None:
    if importlib.util.find_spec("llguidance") is None:
        return None
    return Grammar(engine.tokenizer, regex=_type_regex())


def _candidates(
    engine: Engine, source: str, hole: _Hole, number: int, constraint: Constraint | None
) -> Iterator[str]:
    """Types for a hole, the most probable first, each once."""
    rules = StopRules(strings=(" =", "\n"), brackets=True)
    request = engine.infilling(
        source[: hole.offset] + hole.lead,
        source[hole.offset :],
        max_tokens=MOST_TOKENS,
        stops=rules,
        constraint=constraint,
        num_logprobs=0,
        heal=False,
    )
    found = [engine.submit(request).result()]
    if number > 1:
        sampled = engine.infilling(
            source[: hole.offset] + hole.lead,
            source[hole.offset :],
            max_tokens=MOST_TOKENS,
            stops=rules,
            constraint=constraint,
            num_logprobs=0,
            heal=False,
            sample=SampleConfig(temperature=0.6),
        )
        found += sorted(engine.samples(sampled, number - 1), key=lambda c: -c.mean_logprob)
    yield from dict.fromkeys(text for c in found if (text := _longest_type(c.text)) is not None)


def _longest_type(text: str) -> str | None:
    """The longest beginning that is a type: what follows may be the next parameter."""
    text = text.strip()
    for end in [len(text), *(i for i in range(len(text) - 1, 0, -1) if text[i] in ",:) ")]:
        candidate = text[:end].rstrip()
        try:
            tree = ast.parse(candidate, mode="eval")
        except (SyntaxError, ValueError):
            continue
        if _is_type(tree.body):
            return candidate
    return None


def _is_type(node: ast.expr) -> bool:
    """Whether an expression has the form of a type."""
    match node:
        case ast.Name() | ast.Constant(value=None):
            return True
        case ast.Attribute(value=value):
            return _is_type(value)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _is_type(left) and _is_type(right)
        case ast.Subscript(value=value, slice=inner):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _is_type(value) and all(_is_argument(item) for item in items)
    return False


def _is_argument(node: ast.expr) -> bool:
    if isinstance(node, ast.List):
        return all(map(_is_type, node.elts))
    return _is_type(node) or (isinstance(node, ast.Constant) and node.value is ...)


def _with_type(source: str, hole: _Hole, candidate: str) -> str | None:
    """The file with a type in a hole, and the imports that it needs; None if a name of it does not exist."""
    module = ast.parse(source)
    names = {node.id for node in ast.walk(ast.parse(candidate, mode="eval")) if isinstance(node, ast.Name)}
    known = _defined(module) | set(dir(builtins))
    imports: list[str] = []
    for missing in sorted(names - known):
        home = next((m for m in (collections.abc, typing) if missing in m.__all__), None)
        if home is None:
            return None
        imports.append(f"from {home.__name__} import {missing}\n")
    changed = f"{source[: hole.offset]}{hole.lead} {candidate}{source[hole.offset :]}"
    if imports:
        at = _import_place(module, source)
        changed = changed[:at] + "".join(imports) + changed[at:]
    try:
        ast.parse(changed)
    except SyntaxError:
        return None
    return changed


def _defined(module: ast.Module) -> set[str]:
    """Names that exist at the top of a module."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
    for node in module.body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def _import_place(module: ast.Module, source: str) -> int:
    """Behind the module's docstring and `__future__`, in front of all else."""
    line: int = 1
    for node in module.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not is_text and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            line = _first_line(node)
            break
        line = (node.end_lineno or node.lineno) + 1
    return _offset(source, line, 0)


def _holes(module: ast.Module, source: str) -> Iterator[_Hole]:
    """Parameters and results without a type, in the order of the text."""
    for path, node in _functions(module.body, ""):
        arguments = [*node.args.posonlyargs, *node.args.args]
        if "." in path and arguments and arguments[0].arg in ("self", "cls"):
            arguments = arguments[1:]
        starred = [argument for argument in (node.args.vararg, node.args.kwarg) if argument is not None]
        arguments += [*node.args.kwonlyargs, *starred]
        for argument in sorted(arguments, key=lambda a: _offset(source, a.lineno, a.col_offset)):
            if argument.annotation is None:
                end = _offset(source, argument.end_lineno or 0, argument.end_col_offset or 0)
                yield _Hole(f"{path}({argument.arg})", end, ":")
        if node.returns is None and (closed := _signature_end(source, node)) is not None:
            yield _Hole(f"{path} -> ", closed, " ->")


def _signature_end(source: str, node: Function) -> int | None:
    """Behind the bracket that closes the parameters."""
    first, found = node.body[0], node.args
    begin = _offset(source, node.lineno, node.col_offset)
    end = _offset(source, _first_line(first), first.col_offset)
    parts: list[ast.expr | ast.arg | None] = [*found.posonlyargs, *found.args, *found.kwonlyargs]
    parts += [found.vararg, found.kwarg, *found.defaults, *found.kw_defaults]
    last = [(p.end_lineno or 0, p.end_col_offset or 0) for p in parts if p is not None]
    place = source.find(")", max((_offset(source, *at) for at in last), default=begin), end)
    return None if place < 0 else place + 1


def _functions(body: Sequence[ast.stmt], path: str) -> Iterator[tuple[str, Function]]:
    for node in body:
        if isinstance(node, Function):
            yield path + node.name, node
        if isinstance(node, Function | ast.ClassDef):
            yield from _functions(node.body, f"{path}{node.name}.")


def _named(module: ast.Module, name: str, file: str) -> Function | ast.ClassDef:
    """A function or class by its dotted name.

    Raises:
        InputError: there is none.
    """
    body: Sequence[ast.stmt] = module.body
    node: ast.stmt | None = None
    for part in name.split("."):
        node = next((n for n in body if isinstance(n, Function | ast.ClassDef) and n.name == part), None)
        if not isinstance(node, Function | ast.ClassDef):
            known = [path for path, _ in _functions(module.body, "")]
            shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "") or "none"
            raise InputError(f"{file} has no function {name!r}; its functions are {shown}")
        body = node.body
    assert isinstance(node, Function | ast.ClassDef)
    return node


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _offset(source: str, line: int, column: int) -> int:
    """Characters before a line (from 1) and a column in bytes of UTF-8, as the parser counts."""
    lines = source.split("\n")
    inside = lines[line - 1].encode()[:column].decode() if line <= len(lines) else ""
    return min(len(source), sum(len(each) + 1 for each in lines[: line - 1]) + len(inside))


def _errors(source: str) -> Counter[str] | None:
    """What mypy says of a file, without line numbers; None where it is not installed or does not end."""
    if importlib.util.find_spec("mypy") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checked.py"
        file.write_text(source, encoding="utf-8")
        options = ["--ignore-missing-imports", "--follow-imports=skip", "--no-error-summary", "--no-incremental"]
        command = [sys.executable, "-m", "mypy", *options, "--hide-error-context", "--no-color-output", str(file)]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
        except (OSError, subprocess.TimeoutExpired):
            return None
    return Counter(line.split(" error: ", 1)[1] for line in found.stdout.splitlines() if " error: " in line)

"""Programs with one operator changed: tests that let them pass do not test what they should.

    return a + b   ──▶   return a - b
    if n < 2       ──▶   if n >= 2
    kept = 0       ──▶   kept = 1

Python is changed in its tree, other languages between their words. Some changes change nothing that can be seen,
so no one mutant convicts tests; that most pass does.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
_WORDS = {" + ": " - ", " - ": " + ", " * ": " + ", " / ": " * ", " % ": " * ", " && ": " || ", " || ": " && "}
_WORDS |= {" < ": " >= ", " > ": " <= ", " <= ": " > ", " >= ": " < "}
_WORDS |= {" === ": " !== ", " !== ": " === ", " == ": " != ", " != ": " == "}
_LEFT_ALONE = r"""//[^\n]*|/\*.*?\*/|#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
_TEXT = re.compile(f"{_LEFT_ALONE}|({'|'.join(map(re.escape, sorted(_WORDS, key=len, reverse=True)))})", re.DOTALL)


def mutants(code: str, language: str, number: int) -> list[str]:
    """At most so many changed programs, from all over the code; none where there is nothing to change."""
    found = list(dict.fromkeys(_python(code) if language == "python" else _text(code)))
    if len(found) <= number:
        return found
    return [found[place * len(found) // number] for place in range(number)]


def _python(code: str) -> Iterator[str]:
    tree = ast.parse(code)
    for place, node in enumerate(ast.walk(tree)):
        if _changed(copy.copy(node)):
            other = copy.deepcopy(tree)
            target = next(found for number, found in enumerate(ast.walk(other)) if number == place)
            _changed(target)
            yield ast.unparse(other) + "\n"


def _changed(node: ast.AST) -> bool:
    """Change a node in its place, if it is of a kind that is changed."""
    if isinstance(node, ast.Compare):
        node.ops = [_COMPARED[type(node.ops[0])](), *node.ops[1:]]
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _COUNTED:
        node.op = _COUNTED[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
    else:
        return False
    return True


def _text(code: str) -> Iterator[str]:
    for match in _TEXT.finditer(code):
        if match[1]:
            yield code[: match.start()] + _WORDS[match[1]] + code[match.end() :]

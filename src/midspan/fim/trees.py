"""Spans that are syntax: a node of a document's tree, drawn with a probability proportional to its size.

AST-FIM (arXiv 2506.00204) masks whole structures - a block, a call, an argument - and gains on edits that people
make. A node of n bytes is drawn n times as often as one of a single byte, so all levels of nesting count alike:

    a byte of the text, and a level          def f(x):
    level 1   function_definition            ├─────────────────────
    level 2   block                                 return x + 1
    level 3   return_statement                      ├───────────
    level 4   binary_operator                              ├────        is there a node at this level? else again

Drawing a byte and a level, both uniformly, and starting again where the byte lies less deep, gives each node in
proportion to its bytes without a walk over the tree. Only named nodes count, and not the whole document. Nodes
nested deeper than `LEVELS` are left out, and so is a language without a grammar: `tree_span` then gives None.

Needs tree-sitter and the grammars' wheels: `pip install "midspan[tree]"`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Parser

    from midspan.fim.split import Draws

GRAMMARS = {
    "c": ("tree_sitter_c", "language"),
    "c++": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "python": ("tree_sitter_python", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
}
"""Module and function of each language's grammar."""
LEVELS = 64
_TRIES = 1000


def grammars() -> dict[str, str]:
    """The versions of tree-sitter and of the grammars that are installed; empty without tree-sitter."""
    if importlib.util.find_spec("tree_sitter") is None:
        return {}
    modules = ("tree_sitter", *(module for module, _ in GRAMMARS.values() if importlib.util.find_spec(module)))
    return {module: importlib.metadata.version(module.replace("_", "-")) for module in modules}


@cache
def _parser(language: str) -> Parser | None:
    """The parser of a language whose grammar is installed."""
    module, function = GRAMMARS.get(language, ("", ""))
    if not module or importlib.util.find_spec("tree_sitter") is None or importlib.util.find_spec(module) is None:
        return None
    import tree_sitter

    return tree_sitter.Parser(tree_sitter.Language(getattr(importlib.import_module(module), function)()))


def tree_span(text: str, language: str, draws: Draws) -> tuple[int, int] | None:
    """A node's first character and the one behind its last; None without a grammar, or where no node is found."""
    parser = _parser(language)
    data = text.encode()
    if parser is None or not data:
        return None
    root = parser.parse(data).root_node
    for _ in range(_TRIES):
        byte, level = draws.below(len(data)), draws.below(LEVELS)
        node = root.descendant_for_byte_range(byte, byte + 1)
        path = []
        while node is not None and node.parent is not None:
            if node.is_named and node.start_byte <= byte < node.end_byte:
                path.append(node)
            node = node.parent
        if level < len(path):
            chosen = path[-1 - level]
            # A grammar counts bytes; a character that it cuts belongs to what stands behind.
            start, end = (len(data[:at].decode(errors="ignore")) for at in (chosen.start_byte, chosen.end_byte))
            return start, end
    return None

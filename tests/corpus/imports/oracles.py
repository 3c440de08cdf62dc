"""Parsers that say what a text imports: `ast` and tree-sitter; and what tests of every language share."""

import ast
import functools
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midspan.corpus.imports import dependencies, python
from midspan.corpus.language import language_of


def edges(texts: dict[str, str]) -> dict[str, list[str]]:
    """Dependencies of files given by path, those without any left out."""
    found = dependencies({path: (language_of(path), text) for path, text in texts.items()})
    return {path: needed for path, needed in found.items() if needed}


def real_files(folders: Iterable[Path], endings: tuple[str, ...], limit: int) -> list[tuple[Path, str]]:
    """At most so many texts below folders, drawn by a fixed seed."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in endings)
    texts = []
    for path in random.Random(0).sample(paths, min(limit, len(paths))):
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        texts.append((path, text))
    return texts


def disagreements(
    texts: Iterable[tuple[Path, str]], found: Callable[[str], list], expected: Callable[[str], list | None]
) -> tuple[int, int, list[Path]]:
    """Imports, how many of them differ from the oracle's, and where; None of the oracle leaves a text out."""
    count = wrong = 0
    where = []
    for path, text in texts:
        oracle = expected(text)
        if oracle is not None:
            ours, theirs = Counter(found(text)), Counter(oracle)
            count += sum(theirs.values())
            different = sum(((ours - theirs) + (theirs - ours)).values())
            wrong += different
            where += [path] if different else []
    return count, wrong, where


@functools.cache
def parsers() -> dict[str, Any]:
    tree_sitter = pytest.importorskip("tree_sitter", reason="tree-sitter is the oracle; install the dev extra")
    import tree_sitter_c
    import tree_sitter_cpp
    import tree_sitter_go
    import tree_sitter_java
    import tree_sitter_javascript
    import tree_sitter_typescript

    languages = {
        "javascript": tree_sitter_javascript.language(),
        "typescript": tree_sitter_typescript.language_typescript(),
        "tsx": tree_sitter_typescript.language_tsx(),
        "java": tree_sitter_java.language(),
        "go": tree_sitter_go.language(),
        "c": tree_sitter_c.language(),
        "c++": tree_sitter_cpp.language(),
    }
    return {name: tree_sitter.Parser(tree_sitter.Language(language)) for name, language in languages.items()}


def nodes(text: str, language: str) -> Iterator | None:
    """All nodes in the order of the text, None where the parser stumbles."""
    root = parsers()[language].parse(text.encode()).root_node
    return None if root.has_error else _walk(root)


def _walk(root) -> Iterator:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def imports_of_ast(text: str) -> list[python.Import] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, node.col_offset, python.Import(alias.name)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append((node.lineno, node.col_offset, python.Import(node.module or "", node.level, names)))
    return [statement for *_, statement in sorted(found, key=lambda item: item[:2])]


def imports_of_javascript(text: str, language: str = "javascript") -> list[str] | None:
    found = []
    for node in (walk := nodes(text, language)) or ():
        source = None
        if node.type in ("import_statement", "export_statement", "import_require_clause"):
            source = node.child_by_field_name("source")
        elif node.type == "call_expression":
            function, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
            if function.type == "import" or function.text == b"require":
                given = [child for child in arguments.named_children if child.type != "comment"]
                source = given[0] if given and given[0].type in ("string", "template_string") else None
        if source is not None and b"${" not in source.text:
            found.append(source.text.decode()[1:-1])
    return None if walk is None else found


def imports_of_java(text: str) -> list[str] | None:
    found = []
    for node in (walk := nodes(text, "java")) or ():
        if node.type == "import_declaration":
            name = next(
                child for child in node.named_children if child.type in ("scoped_identifier", "identifier")
            )
            star = any(child.type == "asterisk" for child in node.children)
            found.append("".join(name.text.decode().split()) + (".*" if star else ""))
    return None if walk is None else found


def imports_of_go(text: str) -> list[str] | None:
    walk = nodes(text, "go")
    if walk is None:
        return None
    return [node.child_by_field_name("path").text.decode()[1:-1] for node in walk if node.type == "import_spec"]


def includes_of_tree_sitter(text: str, language: str) -> list[tuple[str, bool]] | None:
    found = []
    for node in (walk := nodes(text, language)) or ():
        if node.type == "preproc_call" and node.text.startswith(b"#import"):
            return None  # Objective-C, which has a grammar of its own
        if node.type == "preproc_include":
            path = node.child_by_field_name("path")
            if path.type in ("string_literal", "system_lib_string"):
                found.append((path.text.decode()[1:-1], path.type == "string_literal"))
    return None if walk is None else found

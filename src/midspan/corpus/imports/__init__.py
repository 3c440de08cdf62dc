"""Which files of a repository a file imports, for Python, JavaScript, TypeScript, Java, Go, C and C++.

    dependencies({"a.py": ("python", "import b"), "b.py": ("python", "")})  →  {"a.py": ["b.py"], "b.py": []}

A language family is one file: it scans a text for imports with regular expressions (`scan.py`) and finds the
files that they name in an index of the repository, built once, so that the work grows with the text and never
with pairs of files. A name that leads out of the repository gives nothing; one that fits several files gives
the nearest. Paths are told apart by "/" and begin at the source or at the repository, either is fine.

Left out on purpose: other languages, and imports from one language family to another.
"""

from collections.abc import Iterable
from typing import Protocol

from midspan.corpus.imports import c
from midspan.corpus.imports.go import Go
from midspan.corpus.imports.java import Java
from midspan.corpus.imports.javascript import JavaScript
from midspan.corpus.imports.python import Python
from midspan.corpus.imports.scan import Files

__all__ = ["Files", "dependencies"]


class _Family(Protocol):
    def __init__(self, files: Files) -> None: ...

    def imported(self, path: str, text: str) -> Iterable[str]: ...


_FAMILIES: dict[str, type[_Family]] = {
    "python": Python,
    "java": Java,
    "go": Go,
    **dict.fromkeys(("javascript", "typescript", "vue", "svelte"), JavaScript),
    **dict.fromkeys(c.LANGUAGES, c.C),
}


def dependencies(files: Files) -> dict[str, list[str]]:
    """Path → the other paths of the repository that it imports, each once, in the order of the imports.

    Args:
        files: path → (language, text) of one repository; `corpus.language` names the languages.

    Returns:
        An entry for every path, sorted, and the same whatever the order of `files`.
    """
    found: dict[str, list[str]] = {}
    families: dict[type[_Family], _Family] = {}
    for path in sorted(files):
        language, text = files[path]
        found[path] = []
        kind = _FAMILIES.get(language)
        if kind is not None:
            if kind not in families:
                families[kind] = kind(files)
            once = dict.fromkeys(families[kind].imported(path, text))
            found[path] = [other for other in once if other != path]
    return found

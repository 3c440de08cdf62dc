"""What a Go file imports: the files of a package's folder, without its tests.

    go.mod: module example.org/app         import "example.org/app/net/http"  →  net/http/*.go

A repository may hold several modules; the longest module path that fits counts. A corpus of Go files alone has
no go.mod: the module path is then the start of import paths whose rest most often is a folder of the repository.

Left out on purpose: `replace` directives, and the files of the own package, which stand in the same folder.
"""

import re
from collections import Counter
from collections.abc import Iterator

from midspan.corpus.imports.scan import COMMENTS, QUOTED, Files, in_code, join

_NOISE = re.compile(
    rf"{COMMENTS} | {QUOTED} | `[^`]*+`?+",
    re.VERBOSE | re.DOTALL,
)
_LITERAL = r'(?:"[^"\n]{1,1000}+"|`[^`\n]{1,1000}+`)'
_IMPORT = re.compile(
    rf"""(?:\n|;)[ \t]*+import\b\s*+
    (?: \( (?P<group>(?:[\w.;\s]++|{_LITERAL}|{COMMENTS})*+)
      | (?:[\w.]++\s*+)?+ (?P<one>{_LITERAL}))""",
    re.VERBOSE,
)
_PART = re.compile(rf"{COMMENTS} | ({_LITERAL})", re.VERBOSE)
_MODULE = re.compile(r'^[ \t]*+module[ \t]++"?([^\s"]++)', re.MULTILINE)
_MIN_FOLDERS = 2


def imports(text: str) -> list[str]:
    """The import paths of a file, in order."""
    text = f"\n{text}"
    found: list[str] = []
    for match in in_code(_IMPORT.finditer(text), _NOISE, text):
        literals = [match["one"]] if match["one"] else _PART.findall(match["group"])
        found += [literal[1:-1] for literal in literals if literal]
    return found


class Go:
    """The packages of one repository by import path."""

    def __init__(self, files: Files) -> None:
        self._folders: dict[str, list[str]] = {}
        self._imports: dict[str, list[str]] = {}
        modules: dict[str, str] = {}
        for path in sorted(files):
            language, text = files[path]
            folder, _, name = path.rpartition("/")
            if language == "go":
                self._imports[path] = imports(text)
                if not name.endswith("_test.go"):
                    self._folders.setdefault(folder, []).append(path)
            elif name == "go.mod" and (match := _MODULE.search(text)):
                modules.setdefault(match[1], folder)
        self._modules = modules or self._guess()

    def _guess(self) -> dict[str, str]:
        """The module path that explains the most folders, if it explains more than one."""
        folders: Counter[str] = Counter()
        for path in {path for paths in self._imports.values() for path in paths}:
            module, rest = path, ""
            while "/" in module:
                module, _, name = module.rpartition("/")
                rest = f"{name}/{rest}" if rest else name
                folders[module] += rest in self._folders and "." in module.partition("/")[0]
        best = max(sorted(folders), key=lambda module: folders[module], default="")
        return {best: ""} if folders[best] >= _MIN_FOLDERS else {}

    def imported(self, path: str, text: str) -> Iterator[str]:
        """The files of the packages that one file imports, perhaps more than once."""
        del text  # scanned when the repository was
        for name in self._imports[path]:
            module, rest = name, ""
            while module not in self._modules and module:
                module, _, last = module.rpartition("/")
                rest = f"{last}/{rest}" if rest else last
            if module:
                folder = self._modules[module]
                yield from self._folders.get(join(folder, rest) if rest else folder, ())

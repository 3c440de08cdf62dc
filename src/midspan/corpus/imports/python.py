"""What a Python file imports: absolute and relative imports, packages, `src` layouts, namespace packages.

    from a.b import c   →  a/b/c.py if that is a module, else a/b.py or a/b/__init__.py
    import a.b          →  a/b.py or a/b/__init__.py, not a/__init__.py, which mostly imports its parts in turn

An absolute name is looked for below every folder from the importing file's upwards that is not itself a package,
and below such a folder's `src`, `lib` and `python`; then among the repository's top-level packages by name.
A folder inside a package is no place to look: `import types` in a package with a `types.py` means the standard
library's.

Left out on purpose: `importlib.import_module`, extension modules, and what changes `sys.path`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from midspan.corpus.imports.scan import QUOTED, Files, ancestors, by_folder, in_code, join, nearest

SOURCE_FOLDERS = ("src", "lib", "python")
_SUFFIXES = ("/__init__.py", "/__init__.pyi", ".py", ".pyi")

_GAP = r"(?:[ \t]|\\\n)"
_DOTTED = rf"\w+(?:{_GAP}*+\.{_GAP}*+\w+)*+"
_ALIASED = rf"{_DOTTED}(?:{_GAP}++as{_GAP}++\w++)?+"
_LIST = rf"{_ALIASED}(?:{_GAP}*+,{_GAP}*+{_ALIASED})*+"
_STATEMENT = re.compile(
    rf"""[\n;:][ \t]*+
    (?: import{_GAP}++ (?P<modules>{_LIST})
      | from\b{_GAP}*+ (?P<dots>(?:\.{_GAP}*+)*+) (?P<module>(?!import\b){_DOTTED})?+ {_GAP}*+
        import\b{_GAP}*+ (?P<names> \* | \((?:[\w\s,\\*]++|\#[^\n]*+)*+ | {_LIST})
    )""",
    re.VERBOSE,
)
_NOISE = re.compile(
    r"""\#[^\n]*+
    | \"""[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+(?:\""")?+
    | '''[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*+(?:''')?+
    | """
    + QUOTED,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"#[^\n]*+")
_BLANK = re.compile(r"[\s\\]++")


@dataclass(frozen=True, slots=True)
class Import:
    """`import module` (names empty) or `from ..module import names`, with level 2 for the two dots."""

    module: str
    level: int = 0
    names: tuple[str, ...] = ()


def imports(text: str) -> list[Import]:
    """Every import statement, at any depth, in order; `import a, b` gives two."""
    text = f"\n{text}"
    found = []
    for match in in_code(_STATEMENT.finditer(text), _NOISE, text):
        if match["modules"] is not None:
            found += [Import(name) for name in _names(match["modules"])]
        else:
            module = _BLANK.sub("", match["module"] or "")
            found.append(Import(module, match["dots"].count("."), tuple(_names(match["names"]))))
    return found


def _names(listed: str) -> Iterator[str]:
    for name in _COMMENT.sub("", listed.lstrip("(")).split(","):
        words = _BLANK.sub(" ", name).strip().split(" as ")
        if words[0]:
            yield words[0].replace(" ", "")


class Python:
    """The modules of one repository."""

    def __init__(self, files: Files) -> None:
        self._modules: dict[str, str] = {}
        for suffix in reversed(_SUFFIXES):  # a package wins over a module of its name, a module over its stub
            for path in sorted(files):
                if f"/{path}".endswith(suffix):
                    self._modules[f"/{path}".removesuffix(suffix)[1:]] = path
        inits = (path for path in self._modules.values() if f"/{path}".endswith(_SUFFIXES[:2]))
        packages = {path.rpartition("/")[0] for path in inits}
        self._packages = packages
        self._tops: dict[str, list[str]] = {}
        for package in sorted(packages, key=by_folder):
            parent, _, name = package.rpartition("/")
            if parent not in packages:
                self._tops.setdefault(name, []).append(package)
        self._words = {word for location in self._modules for word in location.split("/")}
        self._located: dict[tuple[str, str], str | None] = {}

    def imported(self, path: str, text: str) -> Iterator[str]:
        """The files that one file imports, in the order of its statements, perhaps more than once."""
        folder = path.rpartition("/")[0]
        for statement in imports(text):
            if statement.level:
                location = self._relative(folder, statement)
                if location is not None:
                    yield from self._from(location, statement.names)
            elif not statement.names:
                location = self._locate(folder, statement.module)
                if location is not None:
                    yield self._modules[location]
            else:
                yield from self._absolute(folder, statement)

    def _relative(self, folder: str, statement: Import) -> str | None:
        for _ in range(statement.level - 1):
            if not folder:
                return None
            folder = folder.rpartition("/")[0]
        return join(folder, statement.module.replace(".", "/")) if statement.module else folder

    def _absolute(self, folder: str, statement: Import) -> Iterator[str]:
        location = self._locate(folder, statement.module)
        if location is not None:
            yield from self._from(location, statement.names)
            return
        for name in statement.names:  # a namespace package has no file of its own
            location = self._locate(folder, f"{statement.module}.{name}")
            if location is not None:
                yield self._modules[location]

    def _from(self, location: str, names: tuple[str, ...]) -> Iterator[str]:
        for name in names:
            found = self._modules.get(join(location, name)) or self._modules.get(location)
            if found is not None:
                yield found

    def _locate(self, folder: str, module: str) -> str | None:
        """The path without suffix of a module that is imported by its absolute name."""
        if module.partition(".")[0] not in self._words:
            return None
        key = (folder, module)
        if key not in self._located:
            self._located[key] = self._look_for(folder, module)
        return self._located[key]

    def _look_for(self, folder: str, module: str) -> str | None:
        below = module.replace(".", "/")
        for root in ancestors(folder):
            if root not in self._packages or not root:
                for location in (join(root, below), *(join(root, f"{name}/{below}") for name in SOURCE_FOLDERS)):
                    if location in self._modules:
                        return location
        top, _, rest = below.partition("/")
        if top in self._tops:
            package = nearest(self._tops[top], folder)
            location = join(package, rest) if rest else package
            if location in self._modules:
                return location
        return None

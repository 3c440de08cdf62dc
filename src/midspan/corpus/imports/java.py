"""What a Java file depends on: its imports, and the types of its own package that it names.

Types of one package see each other without an import, so a type's use by name is the only trace; the same holds
for `import a.b.*`. A name stands for the file of that name (`Foo` → `Foo.java`); one that is imported from
elsewhere is not looked for in the own package. Comments and strings are taken out first.

Left out on purpose: second top-level types of a file, types written with their package in the code, and other
languages of the JVM.
"""

import re
from collections.abc import Iterable, Iterator

from midspan.corpus.imports.scan import COMMENTS, QUOTED, Files, by_folder, in_code, nearest

_NOISE = re.compile(
    rf'''{COMMENTS}
    | """[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+(?:""")?+
    | {QUOTED}''',
    re.VERBOSE | re.DOTALL,
)
_NAME = r"[\w$]++(?:\s*+\.\s*+[\w$]++){0,99}+"
_PACKAGE = re.compile(rf"\bpackage\s++({_NAME})\s*+;")
_IMPORT = re.compile(rf"\bimport\s++(?:static\s++)?+({_NAME})(\s*+\.\s*+\*)?+\s*+;")
_TYPE = re.compile(r"\b[A-Z][\w$]*+")
_BLANK = re.compile(r"\s++")


def without_noise(text: str) -> str:
    """The text with a space in place of every comment and string."""
    return _NOISE.sub(" ", text)


def package(text: str) -> str:
    """The package that a file declares, "" for none."""
    match = next(in_code(_PACKAGE.finditer(text), _NOISE, text), None)
    return _BLANK.sub("", match[1]) if match else ""


def imports(code: str) -> list[str]:
    """The imported names of code without noise, in order: "a.b.C", "a.b.C.member" or "a.b.*"."""
    return [_BLANK.sub("", name) + (".*" if star else "") for name, star in _IMPORT.findall(code)]


class Java:
    """The packages and types of one repository."""

    def __init__(self, files: Files) -> None:
        self._package_of: dict[str, str] = {}
        self._types: dict[str, dict[str, list[str]]] = {}
        for path in sorted(files, key=by_folder):
            language, text = files[path]
            if language == "java":
                self._package_of[path] = package(text)
                name = path.rpartition("/")[2].removesuffix(".java")
                self._types.setdefault(self._package_of[path], {}).setdefault(name, []).append(path)

    def imported(self, path: str, text: str) -> Iterator[str]:
        """The files that one file depends on: imports in order, then types that it names by the alphabet."""
        code = without_noise(text)
        words = sorted(set(_TYPE.findall(code)))
        known = {path.rpartition("/")[2].removesuffix(".java")}
        for name in imports(code):
            if name.endswith(".*") and name[:-2] in self._types:
                yield from self._named(name[:-2], words, path)
            else:
                known.add(name.rpartition(".")[2])
                yield from self._type(name.removesuffix(".*"), path)
        yield from self._named(self._package_of[path], (word for word in words if word not in known), path)

    def _named(self, package: str, words: Iterable[str], path: str) -> Iterator[str]:
        types = self._types[package]
        for word in words:
            if word in types:
                yield nearest(types[word], path)

    def _type(self, name: str, path: str) -> Iterator[str]:
        """The file of "a.b.C", also by a member or an inner type of it."""
        parts = name.split(".")
        for count in range(len(parts) - 1, 0, -1):
            types = self._types.get(".".join(parts[:count]), {})
            if parts[count] in types:
                yield nearest(types[parts[count]], path)
                return

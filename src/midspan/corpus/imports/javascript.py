"""What a JavaScript or TypeScript file imports, and what a Vue or Svelte component's script does.

`import`, `export … from`, `require("x")` and `import("x")` with a literal name count. A relative name finds the
file itself, the file with an extension (`./a` and `./a.js` find `a.ts`), or an `index` in the folder. Other names
go through `paths` and `baseUrl` of the nearest `tsconfig*.json` or `jsconfig*.json` (with `extends`), then through
the `name` of each `package.json`, whose entry is its first field that names a file of the repository, else
`src/index` or `index`: fields mostly name build outputs, which a repository does not hold.

Left out on purpose: `import` maps, bundlers' own aliases, conditions and patterns of `exports`.
"""

import json
import re
from collections.abc import Iterator
from posixpath import normpath
from typing import Any

from midspan.corpus.imports.scan import COMMENTS, QUOTED, Files, ancestors, by_folder, in_code, join, nearest

_EXTENSIONS = (".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs", ".d.ts", ".vue", ".svelte", ".json")
_INDEXES = tuple(f"/index{extension}" for extension in _EXTENSIONS[:9])
_OUTPUT = re.compile(r"\.[mc]?jsx?\Z")
_MAX_EXTENDS = 8

_GAP = r"(?:\s++|/\*[^*]{0,200}\*/)*+"
_WORDS = " | ".join(rf"{word} (?<![\w$\#]{word}) (?<![^.]\.{word})" for word in ("from", "import", "require"))
_IMPORT = re.compile(
    rf"""(?: {_WORDS} ) {_GAP}
    (?: \( {_GAP} (['"`]) ([^'"`\n$]{{1,1000}}+) \1 {_GAP} [,)]
      | (['"]) ([^'"\n]{{1,1000}}+) \3)""",
    re.VERBOSE,
)
_LONGEST_LOOK_BEHIND = " " * len(" .require")
_NOISE = re.compile(
    rf"""{COMMENTS} | {QUOTED}
    | `(?:[^`\\]++|\\.)*+`?+
    | (?: (?<=[=(,:!&|?\[{{}};+>]) | (?<=[=(,:!&|?\[{{}};+>]\s) | (?<=\s\s) | (?<=return\s) | (?<=case\s) )
      /(?![\s>]) (?: [^/\\\[\n]++ | \\[^\n] | \[(?:[^\]\\\n]++|\\[^\n])*+\]?+ )*+ /?+  # a regular expression
    """,
    re.VERBOSE | re.DOTALL,
)
_SCRIPT = re.compile(r'<script\b(?:[^<>"]++|"[^"]{0,500}"){0,50}+>((?:[^<]++|<(?!/script))*+)')
_JSON_NOISE = re.compile(rf'("(?:[^"\\]++|\\.)*+"?+) | {COMMENTS}', re.VERBOSE | re.DOTALL)
_LAST_COMMA = re.compile(r'("(?:[^"\\]++|\\.)*+"?+)|,(?=\s*+[}\]])', re.DOTALL)


def imports(text: str, *, component: bool = False) -> list[str]:
    """The names that a text imports, in order; of a component, those of its scripts."""
    if component:
        text = "\n".join(match[1] for match in _SCRIPT.finditer(text))
    text = _LONGEST_LOOK_BEHIND + text
    return [match[2] or match[4] for match in in_code(_IMPORT.finditer(text), _NOISE, text)]


class _Aliases:
    """What one configuration says: where bare names are looked for, and patterns → places from the repository."""

    def __init__(self, base: str | None, paths: dict[str, list[str]]) -> None:
        self._base, self._exact = base, paths
        wild = [(*pattern.partition("*")[::2], places) for pattern, places in paths.items() if "*" in pattern]
        self._wild = sorted(wild, key=lambda item: -len(item[0]))

    def places(self, name: str) -> Iterator[str]:
        """Where a bare name may lie: by its exact pattern, by the one with the longest start, below the base."""
        yield from self._exact.get(name, ())
        for start, end, places in self._wild:
            if name.startswith(start) and name.endswith(end) and len(name) >= len(start) + len(end):
                inner = name[len(start) : len(name) - len(end)]
                yield from (place.replace("*", inner) for place in places)
                break
        if self._base is not None:
            yield join(self._base, name)


class JavaScript:
    """The modules, aliases and packages of one repository."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._modules: dict[str, str] = {}
        for suffix in reversed((*_EXTENSIONS, *_INDEXES)):
            for path in sorted(files):
                if f"/{path}".endswith(suffix):  # an index comes first: `./a` is rather a.ts than a/index.ts
                    self._modules[f"/{path}".removesuffix(suffix)[1:]] = path
        self._configurations: dict[str, tuple[str | None, dict[str, list[str]]]] = {}
        self._aliases: dict[str, list[_Aliases]] = {}
        self._packages: dict[str, list[str]] = {}
        self._entries: dict[str, str | None] = {}
        for path in sorted(files, key=by_folder):
            folder, _, name = path.rpartition("/")
            if name == "package.json":
                self._add_package(folder, _read(files[path][1]))
            elif name.endswith(".json") and name.startswith(("tsconfig", "jsconfig")):
                self._aliases.setdefault(folder, []).append(_Aliases(*self._configuration(path, _MAX_EXTENDS)))
        self._found: dict[tuple[str, str], str | None] = {}

    def imported(self, path: str, text: str) -> Iterator[str]:
        """The files that one file imports, in the order of its statements, perhaps more than once."""
        folder = path.rpartition("/")[0]
        for name in imports(text, component=path.endswith((".vue", ".svelte"))):
            key = (folder, name)
            if key not in self._found:
                self._found[key] = self._look_for(folder, name.partition("?")[0])
            found = self._found[key]
            if found is not None:
                yield found

    def _look_for(self, folder: str, name: str) -> str | None:
        if name.startswith("."):
            return self._at(join(folder, name))
        for above in ancestors(folder):
            for aliases in self._aliases.get(above, ()):
                for place in aliases.places(name):
                    found = self._at(place)
                    if found is not None:
                        return found
        parts = name.split("/")
        length = 2 if name.startswith("@") else 1
        candidates = self._packages.get("/".join(parts[:length]))
        if candidates is None:
            return None
        package, rest = nearest(candidates, folder), "/".join(parts[length:])
        if not rest:
            return self._entries[package]
        return self._at(join(package, rest)) or self._at(join(package, f"src/{rest}"))

    def _at(self, place: str) -> str | None:
        """The file that a place stands for: itself, with an extension, its TypeScript source, a folder's index."""
        place = normpath(place)
        if place in self._files:
            return place
        place = "" if place == "." else place
        return self._modules.get(place) or self._modules.get(_OUTPUT.sub("", place)) or self._entries.get(place)

    def _add_package(self, folder: str, package: dict[str, Any]) -> None:
        fields = [package.get(field) for field in ("source", "module", "main", "types")]
        exports = package.get("exports")
        fields += _strings(exports.get(".", exports) if isinstance(exports, dict) else exports)
        named = (self._at(join(folder, field)) for field in fields if isinstance(field, str) and field)
        usual = (self._modules.get(join(folder, name)) for name in ("src/index", "index", "src/main", "lib/index"))
        self._entries[folder] = next((found for found in (*named, *usual) if found is not None), None)
        if isinstance(name := package.get("name"), str):
            self._packages.setdefault(name, []).append(folder)

    def _configuration(self, path: str, depth: int) -> tuple[str | None, dict[str, list[str]]]:
        """`baseUrl` and `paths` of a tsconfig, its own before those that it extends, each file read once."""
        if path in self._configurations:
            return self._configurations[path]
        base, paths = self._configurations[path] = None, {}
        folder, settings = path.rpartition("/")[0], _read(self._files[path][1])
        extended = settings.get("extends")
        for name in extended if isinstance(extended, list) else [extended]:
            other = normpath(join(folder, name)) if isinstance(name, str) else ""
            other = other if other in self._files else f"{other}.json"
            if other in self._files and depth:
                inherited = self._configuration(other, depth - 1)
                base, paths = inherited[0] or base, inherited[1] or paths
        options = settings.get("compilerOptions")
        if isinstance(options, dict):
            if isinstance(options.get("baseUrl"), str):
                base = normpath(join(folder, options["baseUrl"]))
            if isinstance(options.get("paths"), dict):
                start = folder if base is None else base
                paths = {
                    pattern: [normpath(join(start, place)) for place in places if isinstance(place, str)]
                    for pattern, places in options["paths"].items()
                    if isinstance(places, list)
                }
        self._configurations[path] = base, paths
        return base, paths


def _strings(value: object) -> list[str]:
    """The strings among a field's conditions, outermost first."""
    found: list[str] = []
    level = [value]
    while level:
        found += [item for item in level if isinstance(item, str)]
        level = [inner for item in level if isinstance(item, dict) for inner in item.values()]
    return found


def _read(text: str) -> dict[str, Any]:
    """An object in JSON with comments and last commas; empty if it cannot be read."""
    text = _LAST_COMMA.sub(r"\1", _JSON_NOISE.sub(r"\1", text))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

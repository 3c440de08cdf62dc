"""The programming language of a file, told by its name.

`identify` knows a few hundred extensions and file names and answers with a set of tags ({"text", "pyi"},
{"text", "xml", "svg", "image"}). A corpus wants one name a file, so that a count by language adds up: the
broadest language among the tags, under the name that people use for it.

Left out on purpose: the content. `.h` is C, `.ts` is TypeScript, a script without an extension is "other".
"""

from collections.abc import Iterable

from identify import extensions
from identify.identify import tags_from_filename
from rapidfuzz import process

from midspan.errors import InputError

OTHER = "other"
TEXT = "text"

_NOT_LANGUAGES = {"text", "binary", "header", "image", "audio"}
_RENAMED = {
    "pyi": "python",
    "ts": "typescript",
    "tsx": "typescript",
    "jsx": "javascript",
    "plain-text": TEXT,
}
# A tag that wins over those beside it: "c" before "c++" settles ".h", a language wins over its dialects.
_BROADEST = (
    *("jupyter", "objective-c++", "c", "c++", "c#", "f#", "clojure", "groovy", "html", "ini", "json"),
    *("meson", "pascal", "python", "ruby", "scala", "shell", "toml", "yaml", "xml"),
)


def _name(tags: Iterable[str]) -> str:
    tags = set(tags)
    candidates = [tag for tag in _BROADEST if tag in tags] or sorted(tags - _NOT_LANGUAGES)
    if candidates:
        return _RENAMED.get(candidates[0], candidates[0])
    return TEXT if "text" in tags else OTHER


LANGUAGES = frozenset({TEXT, OTHER}).union(
    _name(tags)
    for table in (extensions.EXTENSIONS, extensions.EXTENSIONS_NEED_BINARY_CHECK, extensions.NAMES)
    for tags in table.values()
)
"""Every name that `language_of` can answer."""


def language_of(path: str) -> str:
    """The language of a file by its name: "python" for `b.py` and `b.pyi`, "other" for an unknown name."""
    return _name(tags_from_filename(path))


def check_languages(names: Iterable[str]) -> frozenset[str]:
    """The names as a set; InputError names the closest known language for one that is unknown."""
    languages = frozenset(name.lower() for name in names)
    for name in sorted(languages - LANGUAGES):
        nearest = process.extractOne(name, sorted(LANGUAGES))[0]
        raise InputError(f"no language is called {name!r}; did you mean {nearest!r}?")
    return languages

"""The programming language of a file: by its name, and by its content where the name leaves it open.

    name ── language_of ──┬── settled (".py", "Makefile") ────────────────────────────────────────── language
                          └── open (".h", ".m", ".pl" …, or an unknown name) ── language_of_content
                                 modeline ── shebang ── patterns of the extension ── what the name said

`identify` knows a few hundred extensions and file names and answers with a set of tags ({"text", "pyi"},
{"text", "xml", "svg", "image"}). A corpus wants one name a file, so that a count by language adds up: the
broadest language among the tags, under the name that people use for it. What identify has never heard of
(Ada, Lisp, Coq, WebAssembly …) is in `language_names.py`.

The content is judged by our own patterns (`language_rules.py`), by measurement: go-enry reads headers at
18 MB/s and brings a Go runtime into every worker process, which does not survive a fork; magika reads 1 MB/s
and needs 78 MB of onnxruntime. Ours agree with go-enry on 99.7 % of installed headers, and are right where it
takes Perl tables for Prolog.

Left out on purpose: dialects that change nothing for training (T-SQL, OpenAPI inside YAML), and guessing at a
file that has neither a known name nor a modeline nor a shebang: it is "other".
"""

import re
from collections.abc import Iterable
from functools import cache

from identify import extensions
from identify.identify import tags_from_filename, tags_from_interpreter
from rapidfuzz import process

from midspan.corpus.language_names import MODES, MORE_EXTENSIONS, MORE_INTERPRETERS, MORE_NAMES
from midspan.corpus.language_rules import RULES
from midspan.errors import InputError

OTHER = "other"
TEXT = "text"

HEAD_CHARACTERS = 50 << 10
"""How much of a text is looked at; linguist's heuristics look at the first 50 KiB too."""

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

_EMACS_MODE = re.compile(
    r"-\*-(?:[^\n]{0,100}?\bmode:)?[ \t]*([\w+#-]{1,30})[ \t]*(?:;[^\n]{0,200})?-\*-", re.IGNORECASE
)
_VIM_MODE = re.compile(r"\b(?:vim?|ex):[^\n]{0,100}?\b(?:ft|filetype|syntax)=(\w{1,30})")
_EXEC = re.compile(r"\bexec[ \t]+(\S{1,100})[^\n]{0,100}\$0")


def _name(tags: Iterable[str]) -> str:
    tags = set(tags)
    candidates = [tag for tag in _BROADEST if tag in tags] or sorted(tags - _NOT_LANGUAGES)
    if candidates:
        return _RENAMED.get(candidates[0], candidates[0])
    return TEXT if "text" in tags else OTHER


LANGUAGES = frozenset({TEXT, OTHER}).union(
    (
        _name(tags)
        for table in (extensions.EXTENSIONS, extensions.EXTENSIONS_NEED_BINARY_CHECK, extensions.NAMES)
        for tags in table.values()
    ),
    *(table.values() for table in (MORE_EXTENSIONS, MORE_NAMES, MORE_INTERPRETERS)),
    (language for rules in RULES.values() for language, _ in rules),
)
"""Every name that `language_of` and `language_of_content` can answer."""


def file_name(path: str) -> str:
    """The last part of a path."""
    return path[path.rfind("/") + 1 :]


def extension_of(path: str) -> str:
    """What follows the last dot of a file's name, in lower case: "py" for `a/B.PY`, "" for `Makefile`."""
    name = file_name(path)
    return name[name.rfind(".") + 1 :].lower() if "." in name else ""


def language_of(path: str) -> str:
    """The language of a file by its name: "python" for `b.py` and `b.pyi`, "other" for an unknown name."""
    name = file_name(path)
    if name in MORE_NAMES:
        return MORE_NAMES[name]
    language = _name(tags_from_filename(name))
    return MORE_EXTENSIONS.get(extension_of(name), OTHER) if language == OTHER else language


def _rules(path: str) -> list[tuple[str, re.Pattern[str]]] | None:
    name = file_name(path)
    return None if name in extensions.NAMES or name in MORE_NAMES else RULES.get(extension_of(name))


def possible_languages(path: str) -> frozenset[str]:
    """What `language_of_content` may answer for a file of this name, whatever is in it.

    One name for most files; so a file that cannot be in a language that was asked for need not be read.
    """
    rules, by_name = _rules(path), language_of(path)
    if rules is not None:
        return frozenset(language for language, _ in rules) | {by_name}
    return LANGUAGES if by_name == OTHER else frozenset({by_name})


def language_of_content(path: str, text: str, by_name: str) -> str:
    """The language of a text, where its name is shared by several languages or by none.

    Args:
        path: of the file; its extension chooses the patterns.
        text: of the file; only `HEAD_CHARACTERS` of it are looked at, and its last lines for a modeline.
        by_name: what `language_of` said, the answer where nothing in the text decides.
    """
    rules = _rules(path)
    if rules is None and by_name != OTHER:
        return by_name
    head = "\n" + text[:HEAD_CHARACTERS]
    mode = _by_modeline(text)
    if mode is not None and (rules is None or mode == by_name or any(mode == language for language, _ in rules)):
        return mode
    if by_name == OTHER:
        if text.startswith("#!"):
            return _by_shebang(text)
        if text.startswith("<?xml"):
            return "xml"
    for language, pattern in rules or ():
        if pattern.search(head):
            return language
    return by_name


def _by_modeline(text: str) -> str | None:
    """What an editor is told: `-*- mode: X -*-` in the first lines, `vim: ft=X` in the first or last ones."""
    head = text[:1000]
    found = _EMACS_MODE.search(head) if "-*-" in head else None
    if found is None:
        edges = f"{head}\n{text[-500:]}"
        found = _VIM_MODE.search(edges) if "=" in edges else None
    if found is None:
        return None
    mode = found[1].lower().removesuffix("-mode")
    mode = MODES.get(mode, mode)
    return mode if mode in LANGUAGES and mode not in (TEXT, OTHER) else None


def _by_shebang(text: str) -> str:
    """The language of `#!/usr/bin/env -S python3 -u`; a shell that hands itself on by `exec tclsh "$0"` is Tcl."""
    lines = text[:1000].split("\n", 6)[:6]
    words = [word.rpartition("/")[2] for word in lines[0][2:].split()]
    if words and words[0] == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if not words:
        return OTHER
    language = _by_interpreter(words[0])
    handed_on = _EXEC.search("\n".join(lines[1:])) if language == "shell" else None
    if handed_on is not None:
        other = _by_interpreter(handed_on[1].rpartition("/")[2])
        return language if other == OTHER else other
    return language


@cache
def _by_interpreter(name: str) -> str:
    tags = tags_from_interpreter(name)
    if tags:
        return _name(tags)
    return MORE_INTERPRETERS.get(name, MORE_INTERPRETERS.get(name.rstrip("0123456789.-"), OTHER))


def check_languages(names: Iterable[str]) -> frozenset[str]:
    """The names as a set; InputError names the closest known language for one that is unknown."""
    languages = frozenset(name.lower() for name in names)
    for name in sorted(languages - LANGUAGES):
        nearest = process.extractOne(name, sorted(LANGUAGES))[0]
        raise InputError(f"no language is called {name!r}; did you mean {nearest!r}?")
    return languages

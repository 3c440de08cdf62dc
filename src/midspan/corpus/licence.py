"""The licence of every file: what it says itself, what stands beside it, what the repository declares.

    a file ── facts ──┬── header     "SPDX-License-Identifier: MIT"    ┐
                      ├── text       of LICENSE, COPYING …             ├── resolve ── licences of each file
                      ├── declared   of pyproject.toml, package.json … │                 │
                      └── covers     of a wheel's RECORD               ┘                 └── kind, policy_problem

`facts` reads one text; `resolve` sees the facts of one repository and no text. A file's own header wins, then
the nearest folder upwards that holds a licence file (the Stack v2 joins by the same prefixes, but sums over all
folders above), then the nearest declaration. A bare "All rights reserved" counts only where nothing else speaks:
it stands above every second permissive notice.

Licences are SPDX expressions, and several mean that all apply.

Left out on purpose: legal advice.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from midspan.corpus.language import file_name
from midspan.corpus.licence_expression import (
    ALL_RIGHTS_RESERVED,
    KINDS,
    UNKNOWN,
    Kind,
    check_allowed,
    kind,
    licence_named,
    policy_problem,
)
from midspan.corpus.licence_text import (
    DECLARING,
    LICENCE_FOLDERS,
    declared_licences,
    header_licences,
    is_licence_file,
    text_licences,
)

__all__ = [
    "ALL_RIGHTS_RESERVED",
    "KINDS",
    "UNKNOWN",
    "Facts",
    "Kind",
    "check_allowed",
    "declared_licences",
    "facts",
    "header_licences",
    "is_licence_file",
    "kind",
    "licence_named",
    "may_say",
    "policy_problem",
    "resolve",
    "text_licences",
]

_SURELY_LICENCE = re.compile(r"li[cs]en[cs]e|copying", re.IGNORECASE)
_DIST_INFO = re.compile(r"((?:.*/)?)([^/]+?)-[^/-]+\.(?:dist|egg)-info/(?:licen[cs]es/)?((?:.*/)?)[^/]*")

_COVERING = (".dist-info/RECORD", ".egg-info/top_level.txt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What one file says of licences; most files say nothing."""

    header: tuple[str, ...] = ()
    """Of the file itself."""
    text: tuple[str, ...] = ()
    """Of a licence file: the licence of the files beside and below it."""
    declared: tuple[str, ...] = ()
    """Of a package's description."""
    covers: tuple[str, ...] = ()
    """Of a distribution's RECORD: the folders and files that its licences are for, beside the `.dist-info`."""


def may_say(path: str) -> bool:
    """Whether a file may say something of others' licences, so that it is read whatever its language."""
    return is_licence_file(path) or file_name(path).lower() in DECLARING or path.endswith(_COVERING)


def facts(path: str, text: str) -> Facts:
    """All that a file says of licences, from its path and text alone."""
    if is_licence_file(path):
        found = text_licences(text)
        if found != (UNKNOWN,) or _SURELY_LICENCE.search(path):
            return Facts(text=found)
    if file_name(path).lower() in DECLARING:
        return Facts(declared=declared_licences(path, text))
    return Facts(header=header_licences(text), covers=_covers(path, text))


def _covers(path: str, text: str) -> tuple[str, ...]:
    if not path.endswith(_COVERING):
        return ()
    files = [line.partition(",")[0] for line in text.split("\n")]
    if path.endswith(".txt"):
        return tuple(sorted(filter(None, files)))
    packages = {file.removesuffix("/__init__.py") for file in files if file.endswith("/__init__.py")}
    covers = set()
    for file in files:
        first, *rest = file.split("/")
        if first.endswith((".dist-info", ".data")) or first in ("", "..", "__pycache__"):
            continue
        # A folder without __init__.py is shared with other distributions: its parts are named instead.
        covers.add(first if not rest or first in packages else f"{first}/{rest[0]}")
    return tuple(sorted(covers))


def resolve(files: Mapping[str, Facts]) -> dict[str, tuple[str, ...]]:
    """The licences of each file of ONE repository, by path; several apply together.

    A licence file's own text; else the file's header; else the nearest licence file upwards, all those of that
    folder together; else the nearest declaration; else a bare claim of all rights; else nothing.
    """
    covers: dict[str, list[str]] = {}
    for path, fact in files.items():
        if fact.covers:
            covers.setdefault(path.rpartition("/")[0], []).extend(fact.covers)
    texts: dict[str, dict[str, None]] = {}
    declared: dict[str, dict[str, None]] = {}
    wheels: set[str] = set()
    for path in sorted(files):
        for said, by_place in ((files[path].text, texts), (files[path].declared, declared)):
            for place in _places(path, covers) if said else ():
                by_place.setdefault(place, {}).update(dict.fromkeys(said))
                if _DIST_INFO.fullmatch(path):
                    wheels.add(place)
    for place in texts.keys() & declared.keys():
        # The declaration beside a text that nobody knows names it. It lifts no terms that are added to a known
        # licence; but what a wheel's text adds to its own licence is that of the libraries in its binaries.
        if UNKNOWN in texts[place] and (len(texts[place]) == 1 or place in wheels):
            texts[place] = declared[place]
    return {path: _resolved(path, fact, texts, declared) for path, fact in files.items()}


def _places(path: str, covers: Mapping[str, list[str]]) -> list[str]:
    """The folders and files that a licence or a declaration at `path` is for; "" is the whole repository."""
    found = _DIST_INFO.fullmatch(path)
    if found is not None:
        beside, distribution, inside = found.groups()
        if inside:  # licences/numpy/random/LICENSE.md is that of numpy/random
            return [f"{beside}{inside}".rstrip("/")]
        info = path[: path.index("-info/") + len("-info")]
        names = covers.get(info) or [re.sub(r"[-_.]+", "_", distribution).lower(), distribution]
        return [info, *(beside + name for name in names)]
    folder = path.rpartition("/")[0]
    if file_name(folder).lower() in LICENCE_FOLDERS:
        folder = folder.rpartition("/")[0]
    return [folder]


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""


def _resolved(
    path: str, fact: Facts, texts: Mapping[str, Iterable[str]], declared: Mapping[str, Iterable[str]]
) -> tuple[str, ...]:
    if fact.text:
        return fact.text
    if fact.header and fact.header != (ALL_RIGHTS_RESERVED,):
        return fact.header
    for place in _upwards(path):
        if place in texts:
            return tuple(texts[place])
    for place in _upwards(path):
        if place in declared:
            return tuple(declared[place])
    return fact.header

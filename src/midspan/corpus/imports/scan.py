"""What every language's scan shares: matches that stand in code, and the nearest of several files.

A scan is two regular expressions. One finds what looks like an import, over the whole text; the other finds
*noise* (comments, strings), and only as far as the last import. A match that begins inside noise is dropped.
Nothing is parsed, so a file with syntax errors keeps its imports, and both expressions use possessive
quantifiers and always accept an unterminated comment or string: time is linear whatever the text. An imported
name has at most some 1000 characters, since what finds a file takes its folders off one by one.
"""

import re
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence

Files = Mapping[str, tuple[str, str]]
"""One repository: path with "/" → (language, text)."""

COMMENTS = r"//[^\n]*+ | /\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?+"
"""Comments of C and its family, for an expression with VERBOSE."""

QUOTED = r""""(?:[^"\\\n]++|\\.)*+"?+ | '(?:[^'\\\n]++|\\.)*+'?+"""
"""Strings in double and in single quotes that end with the line, for an expression with VERBOSE and DOTALL."""


def in_code(matches: Iterable[re.Match[str]], noise: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The matches, in order of position, that begin outside of the noise."""
    spans = noise.finditer(text)
    start = end = 0
    for match in matches:
        while end <= match.start():
            span = next(spans, None)
            start, end = span.span() if span is not None else (len(text) + 1, len(text) + 1)
        if match.start() < start:
            yield match


def join(folder: str, name: str) -> str:
    """A path below a folder, where "" is the repository itself."""
    return f"{folder}/{name}" if folder else name


def ancestors(folder: str) -> Iterator[str]:
    """A folder and those above it, nearest first, down to ""."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""


def by_folder(path: str) -> str:
    """Sorts paths so that those with the same leading folders are neighbours."""
    return path.replace("/", "\0")


def nearest(candidates: Sequence[str], path: str) -> str:
    """The candidate that shares the most leading folders with a path; candidates are sorted `by_folder`.

    Paths with the same leading folders are one run in that order, and the run of the most shared folders
    touches the place where the path itself would stand, so that two candidates are looked at and not all.
    """
    at = bisect(candidates, by_folder(path), key=by_folder)
    return max(candidates[max(at - 1, 0) : at + 1], key=lambda candidate: _shared_folders(candidate, path))


def _shared_folders(one: str, other: str) -> int:
    count = 0
    for a, b in zip(one.split("/"), other.split("/"), strict=False):
        if a != b:
            break
        count += 1
    return count

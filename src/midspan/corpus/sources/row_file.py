"""Files of rows: one source text a row, in the column names that published data sets use.

    The Stack           content max_stars_repo_path max_stars_repo_name max_stars_repo_licenses max_stars_count
    The Stack v2        content path                repo_name           detected_licenses       star_events_count
    GitHub Code         code    path                repo_name           license
    FineWeb, C4, Dolma  text

A row's group is its repository; without one, the first part of its path as in a folder. A row without either is
called `x.jsonl:12`, by its file and its number from 1, and its group is `x.jsonl:1-1000`, the thousand rows around
it: small enough to hold out a share of one file, and not a name a row. A stated language counts only where a row
has no path, since it is the path that decides for every other source; a text in a column called `text` without a
path is natural language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midspan.corpus.sources.source import PROSE_LANGUAGE, shown
from midspan.corpus.sources.stream import check_unchanged

ROLES: dict[str, tuple[str, ...]] = {
    "text": ("content", "code", "text"),
    "path": ("path", "max_stars_repo_path", "file_path", "filepath", "filename"),
    "repo": ("repo", "repo_name", "max_stars_repo_name", "repository"),
    "commit": ("commit", "revision_id", "max_stars_repo_head_hexsha"),
    "language": ("language", "lang"),
    "licences": (
        *("licences", "licenses", "licence", "license"),
        *("max_stars_repo_licenses", "detected_licenses"),
    ),
    "stars": ("stars", "max_stars_count", "star_events_count"),
    "encoding": ("src_encoding",),
}
"""What a row can say, and the names under which it does; the first that a row has counts."""


def roles_of(names: Iterable[str]) -> dict[str, str]:
    """Role → the name it has among these."""
    found = set(names)
    return {
        role: next(name for name in known if name in found)
        for role, known in ROLES.items()
        if not found.isdisjoint(known)
    }


GROUP_ROWS = 1000
"""How many rows that name no repository and no path are one group."""


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A file of rows on this machine's disks."""

    source: str
    """The source's label."""
    name: str
    """Below the source."""
    path: Path
    stamp: str
    """Tells its content: `stream.stamp`."""
    prose: bool = False

    def local(self) -> Path:
        """Where the file is to be read. InputError if it is not the one that was listed."""
        check_unchanged(self.path, self.stamp)
        return self.path

    def facts(self, number: int, columns: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
        """What a row says of itself, as arguments of `File`; `values` by role, of any type."""
        path, repo, commit = (_text(values.get(role)) for role in ("path", "repo", "commit"))
        language = None
        if self.prose or (path is None and columns.get("text") == "text"):
            language = PROSE_LANGUAGE
        elif path is None and (stated := _text(values.get("language"))):
            language = stated.lower()
        name = shown(self.name)
        first = (number - 1) // GROUP_ROWS * GROUP_ROWS + 1
        return {
            "group": repo
            or (path or "").lstrip("/").split("/", 1)[0]
            or f"{name}:{first}-{first + GROUP_ROWS - 1}",
            "path": path or f"{name}:{number}",
            "commit": commit,
            "language": language,
            "licences": _licences(values.get("licences")),
            "stars": _count(values.get("stars")),
        }


def _text(value: object) -> str | None:
    return shown(value) if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and 0 <= value < 1 << 31 else None


def _licences(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return None
    return tuple(shown(each) for each in value if isinstance(each, str) and each)

"""What a source is: a description of a place that holds files, which cuts itself into shards.

    Source ── shards() ──▶ Shard Shard Shard …     listed by one process, before any file is opened
    Shard  ── files()  ──▶ File File File …        read by any process on a machine that sees the place

Both are plain values without open handles, so they travel to other processes and machines. A shard's `name` is
where its results are kept, its `fingerprint` says whether they still hold: it covers everything that was listed,
so a file that was changed changes its shard's, and no other.

Nothing that a file holds, and no way in which one is broken, ends the reading: a file that cannot be had is a
`File` with a problem. An InputError is for what only the user can mend: a place that is not there, not what its
name says, or that changed between listing and reading so that no file of it can be found again.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import xxhash

from midspan.corpus.document import Reason

SKIPPED = frozenset({b".git", b".hg", b".svn", b"__pycache__", b"node_modules", b".tox", b".venv"})
"""Folders of what tools wrote or fetched: their files leave no row."""

MAX_SHARD_BYTES = 32 << 20
MAX_SHARD_FILES = 8192

PROSE_LANGUAGE = "text"
_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_LONGEST = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of a shard: its bytes, or why there are none."""

    group: str
    """The unit that a held-out split keeps whole: a repository, a package."""
    path: str
    """Below the source, and for a row below its repository; bytes that are not UTF-8 as backslash escapes."""
    size: int
    """In bytes as found."""
    commit: str | None = None
    data: bytes | None = None
    """None where there is a problem, and where the file was not wanted."""
    problem: Reason | None = None
    detail: str = ""
    language: str | None = None
    """As the source states it; such a file is handed out whatever its path."""
    licences: tuple[str, ...] | None = None
    """As the source states them; an empty tuple is a file known to have none."""
    stars: int | None = None


@dataclass(frozen=True, kw_only=True)
class Shard(ABC):
    """Files of one source, at most `MAX_SHARD_BYTES` unless one alone is larger, and `MAX_SHARD_FILES`."""

    source: str
    """The source's label."""
    name: str
    """A file's name, unique and stable in the corpus."""
    fingerprint: str
    """XXH3-128 over what was listed."""
    size: int
    """Bytes as listed."""
    num_files: int
    commit: str | None = None
    """Not in the fingerprint: a commit that leaves a shard's files alone leaves its results alone."""
    prose: bool = False

    @abstractmethod
    def files(self, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[File]:
        """Read the files, always in the same order.

        Args:
            wanted: asked for a path; a file for which it says no is handed out unread. It is not asked where the
                source states the language itself.
            max_bytes: a larger file is `Reason.TOO_LARGE`; no more of it is read.
        """


class Source(ABC):
    """A place of files; `label` names it in every row."""

    label: str
    commit: str | None = None
    """The commit that is read, where the source is one repository."""
    prose: bool = False
    """Natural language: every file has the language "text"."""

    @abstractmethod
    def shards(self) -> Iterator[Shard]:
        """List the source. Raises InputError where the place cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Problem(Shard):
    """A part of a source that could not be listed: one file with a problem."""

    group: str
    path: str
    detail: str

    def files(self, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[File]:
        """The one file."""
        yield File(group=self.group, path=self.path, size=self.size, problem=Reason.UNREADABLE, detail=self.detail)


def problem_shard(*, source: str, group: str, path: str, detail: str, size: int = 0) -> Problem:
    """A shard for a part of a source that could not be listed."""
    return Problem(
        source=source,
        name=shard_name(source, group, "problem", path),
        fingerprint=xxhash.xxh3_128_hexdigest(repr((path, detail, size)).encode()),
        size=size,
        num_files=1,
        group=group,
        path=path,
        detail=detail,
    )


def shard_name(source: str, group: str, *key: str | bytes | int) -> str:
    """A name for files: readable, and unique by a hash of (source, group, key)."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{source}-{group}" if group else source).strip(".-")[:64]
    hashed = repr((source, group, *key)).encode()
    return f"{readable or 'shard'}-{xxhash.xxh3_64_hexdigest(hashed)}"


def too_large(size: int, max_bytes: int) -> str:
    """The detail of `Reason.TOO_LARGE`."""
    return f"{size} bytes, more than {max_bytes}"


def shown(raw: bytes | str) -> str:
    """A path or a name as text: bytes that are not UTF-8, halves of surrogate pairs and NUL as escapes."""
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def is_skipped(raw: bytes) -> bool:
    """Whether a path lies in one of the folders that are passed over."""
    return not SKIPPED.isdisjoint(raw.split(b"/"))


def lfs_pointer(data: bytes) -> str | None:
    """What a git LFS pointer points to, in words, if that is what a file holds."""
    if len(data) > _LFS_LONGEST or not data.startswith(_LFS):
        return None
    size = re.search(rb"^size (\d+)$", data, re.MULTILINE)
    return f"git LFS pointer to {size[1].decode() if size else 'an unknown number of'} bytes"

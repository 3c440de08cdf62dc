"""A plain folder: its first-level entries are groups, and those that are git repositories are read as such.

    /data/packages/
        requests/api.py        group "requests"
        six.py                 group "six.py"
        flask/.git/            group "flask", the files of its HEAD, with its commit

A shard holds files of one group, so that removing a repository touches no other's; only files that lie loose at
the first level, each a group of its own, share shards. The order of a folder's entries on disk plays no part.

Left out on purpose: following symbolic links (they lead out of the source, or twice to one file), and what is not
a regular file, which is never opened: reading a pipe would wait for ever.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from midspan.corpus.document import Reason
from midspan.corpus.sources.git import find_git_dir, open_repository
from midspan.corpus.sources.listing import Listed, cut, fingerprint, pack, unpack
from midspan.corpus.sources.source import (
    PROSE_LANGUAGE,
    SKIPPED,
    File,
    Shard,
    Source,
    lfs_pointer,
    problem_shard,
    shard_name,
    shown,
    too_large,
)
from midspan.corpus.sources.stream import reason
from midspan.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """A folder of files."""

    label: str
    root: Path
    excluded: Path
    """A folder that is passed over where it lies inside: the corpus being built."""
    prose: bool = False

    def shards(self) -> Iterator[Shard]:
        """List the folder, group by group."""
        try:
            found = sorted(os.scandir(os.fsencode(self.root)), key=lambda item: item.name)
        except OSError as error:
            raise InputError(
                f"source {str(self.root)!r} cannot be read ({error.strerror}); name another"
            ) from None
        loose: list[Listed] = []
        for item in found:
            if item.name in SKIPPED or self._is_excluded(item.path):
                continue
            if not _is_folder(item):
                loose.append(_listed(item.name, item))
                continue
            git_dir = find_git_dir(Path(os.fsdecode(item.path)))
            if git_dir is not None:
                yield from self._repository(item.name, git_dir)
            else:
                for chunk in cut(sorted(self._walk(item.name))):
                    yield self._shard(shown(item.name), chunk)
        for chunk in cut(loose):
            yield self._shard(None, chunk)

    @functools.cached_property
    def _beside(self) -> tuple[bytes, bytes]:
        """How the paths begin of what is being written to take the place of the excluded folder."""
        beside = os.fsencode(self.excluded.with_name(f".{self.excluded.name}."))
        return beside + b"tmp-", beside + b"old-"

    def _is_excluded(self, path: bytes) -> bool:
        return path == os.fsencode(self.excluded) or path.startswith(self._beside)

    def _walk(self, top: bytes) -> Iterator[Listed]:
        """Every file below a first-level folder; a folder that cannot be opened is one unreadable file."""
        pending = [top]
        while pending:
            below = pending.pop()
            try:
                found = list(os.scandir(os.path.join(os.fsencode(self.root), below)))
            except OSError as error:
                yield Listed(below, 0, b"", Reason.UNREADABLE, reason(error))
                continue
            for item in found:
                if item.name in SKIPPED or self._is_excluded(item.path):
                    continue
                raw = below + b"/" + item.name
                if _is_folder(item):
                    pending.append(raw)
                else:
                    yield _listed(raw, item)

    def _repository(self, name: bytes, git_dir: Path) -> Iterator[Shard]:
        """A repository's shards, or what is wrong with it: one broken repository of many ends no build."""
        group = shown(name).removesuffix(".git")
        root = self.root / os.fsdecode(name)
        try:
            repository = open_repository(
                root, git_dir, label=self.label, group=group, prose=self.prose, below=name + b"/"
            )
            yield from list(repository.shards())
        except InputError as error:
            yield problem_shard(source=self.label, group=group, path=shown(name), detail=str(error))

    def _shard(self, group: str | None, chunk: Sequence[Listed]) -> FolderShard:
        return FolderShard(
            source=self.label,
            name=shard_name(self.label, group or "", chunk[0].raw),
            fingerprint=fingerprint(chunk, "folder", self.prose),
            size=sum(entry.size for entry in chunk),
            num_files=len(chunk),
            prose=self.prose,
            root=self.root,
            packed=pack(chunk),
        )


@dataclass(frozen=True, kw_only=True)
class FolderShard(Shard):
    """Files below a folder."""

    root: Path
    packed: bytes

    def files(self, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[File]:
        """Read the wanted files."""
        root = os.fsencode(self.root)
        for entry in unpack(self.packed):
            path = shown(entry.raw)
            size, problem, detail, data = entry.size, entry.problem, entry.detail, None
            if problem is None and (self.prose or wanted(path)):
                found = _read(os.path.join(root, entry.raw), size, max_bytes)
                if not isinstance(found, bytes) and not os.path.isdir(root):  # all is gone: a disk, say
                    raise InputError(f"{self.root} is gone since it was listed; run the same command again")
                if isinstance(found, bytes):
                    data, size = found, len(found)
                else:
                    size, problem, detail = found
            yield File(
                group=path.split("/", 1)[0],
                path=path,
                size=size,
                data=data,
                problem=problem,
                detail=detail,
                language=PROSE_LANGUAGE if self.prose else None,
            )


def _is_folder(item: os.DirEntry[bytes]) -> bool:
    try:
        return item.is_dir(follow_symlinks=False)
    except OSError:  # of a file system that has to be asked, and refuses
        return False


def _listed(raw: bytes, item: os.DirEntry[bytes]) -> Listed:
    try:
        status = item.stat(follow_symlinks=False)
    except OSError as error:
        return Listed(raw, 0, b"", Reason.UNREADABLE, reason(error))
    kind = _kind(status.st_mode)
    problem, detail = None, ""
    if kind == "symbolic link":
        problem = Reason.SYMBOLIC_LINK
    elif kind:
        problem, detail = Reason.NOT_A_FILE, kind
    return Listed(raw, status.st_size if problem is None else 0, b"%d" % status.st_mtime_ns, problem, detail)


def _kind(mode: int) -> str:
    """What is not a regular file, in words."""
    kinds = {
        stat.S_IFREG: "",
        stat.S_IFLNK: "symbolic link",
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "unknown kind")


def _read(path: bytes, size: int, max_bytes: int) -> bytes | tuple[int, Reason, str]:
    """A file's bytes, or its size and what is wrong. It may have become anything since it was listed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return size, Reason.UNREADABLE, reason(error)
    try:
        status = os.fstat(handle)
        if kind := _kind(status.st_mode):
            return 0, Reason.NOT_A_FILE, f"{kind} since it was listed"
        if status.st_size > max_bytes:
            return status.st_size, Reason.TOO_LARGE, too_large(status.st_size, max_bytes)
        data = os.read(handle, status.st_size + 1)
        while len(data) <= max_bytes and (more := os.read(handle, max_bytes + 1 - len(data))):
            data += more
    except OSError as error:
        return size, Reason.UNREADABLE, reason(error)
    finally:
        os.close(handle)
    if len(data) > max_bytes:
        return len(data), Reason.TOO_LARGE, too_large(len(data), max_bytes)
    if pointer := lfs_pointer(data):
        return len(data), Reason.NOT_A_FILE, pointer
    return data

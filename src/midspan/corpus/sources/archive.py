"""Archives: tar (plain, or packed with gzip, bzip2, xz or zstd) and zip, wheels among them.

    requests-2.31.0.tar.gz        group "requests-2.31.0", the folder that all of it lies in
    repositories.tar              a group for each first-level folder
    requests-2.31.0-py3-none.whl  group "requests-2.31.0-py3-none": a wheel is one package

Nothing is unpacked to disk: members are read in memory, and no more of one than is asked for, whatever size it
claims. Names that lead out of the archive, links, devices, encrypted members and those replaced by a later one of
the same name are files with a problem. An archive inside an archive is a file like any other, and no text. An
archive that holds more than `MAX_RATIO` times its size is refused before it is read: it is a bomb, or a mistake.

A packed tar has no way in but its beginning, so a shard is a stretch of the archive; inside a shard files come in
byte order of path, as everywhere.
"""

from __future__ import annotations

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from midspan.corpus.document import Reason
from midspan.corpus.sources.listing import Listed, fingerprint, pack, unpack
from midspan.corpus.sources.source import (
    MAX_SHARD_BYTES,
    MAX_SHARD_FILES,
    PROSE_LANGUAGE,
    File,
    Shard,
    Source,
    is_skipped,
    lfs_pointer,
    problem_shard,
    shard_name,
    shown,
    too_large,
)
from midspan.corpus.sources.stream import (
    DamagedError,
    Stream,
    check_unchanged,
    keep,
    reason,
    stamp,
    stream_at,
    take,
)
from midspan.errors import InputError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
ZIP_SUFFIXES = (".zip", ".whl")
MAX_RATIO = 256
"""Source code packs 3 to 10 times, logs up to 100 times."""
_ALWAYS_ALLOWED = 64 << 20  # unpacked bytes that are no danger at any ratio
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, NotImplementedError, RuntimeError, ValueError),
)


@dataclass(frozen=True, kw_only=True)
class Archive(Source):
    """One archive."""

    label: str
    path: Path
    prose: bool = False

    def shards(self) -> Iterator[Shard]:
        """List the members. InputError where not even the first can be read, or for a bomb."""
        stamped = stamp(self.path)
        is_zip = self.path.name.endswith(ZIP_SUFFIXES)
        entries: list[Listed] = []
        damage = None
        try:
            for entry in (_zip_members if is_zip else _tar_members)(self.path):
                if not is_skipped(entry.raw):
                    entries.append(entry)
        except DamagedError as error:
            damage = str(error)
        if damage is not None and not entries:
            raise InputError(f"{self.path} cannot be read ({damage}); make or fetch it again")
        for chunk in _stretches(_without_replaced(entries)):
            yield ArchiveShard(
                source=self.label,
                name=shard_name(self.label, "", chunk[0].key),
                fingerprint=fingerprint(chunk, "archive", stamped, self.path.name, self.prose),
                size=sum(entry.size for entry in chunk),
                num_files=len(chunk),
                prose=self.prose,
                path=self.path,
                stamped=stamped,
                packed=pack(chunk),
            )
        if damage is not None:
            detail = f"after {shown(entries[-1].raw)!r}: {damage}"
            yield problem_shard(source=self.label, group=self.path.name, path=self.path.name, detail=detail)


@dataclass(frozen=True, kw_only=True)
class ArchiveShard(Shard):
    """A stretch of an archive."""

    path: Path
    stamped: str
    packed: bytes

    def files(self, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[File]:
        """Read the wanted members."""
        entries = unpack(self.packed)
        read = {
            entry.key: entry
            for entry in entries
            if entry.problem is None and entry.size <= max_bytes and (self.prose or wanted(shown(entry.raw)))
        }
        found = dict((self._zip if self.path.name.endswith(ZIP_SUFFIXES) else self._tar)(list(read.values())))
        whole = _stem(self.path.name) if self.path.suffix == ".whl" else None
        for entry in sorted(entries):
            path = shown(entry.raw)
            problem, detail, data = entry.problem, entry.detail, found.get(entry.key)
            if isinstance(data, str):
                problem, detail, data = Reason.UNREADABLE, data, None
            elif data is not None and (pointer := lfs_pointer(data)):
                problem, detail, data = Reason.NOT_A_FILE, pointer, None
            elif problem is None and entry.size > max_bytes and (self.prose or wanted(path)):
                problem, detail = Reason.TOO_LARGE, too_large(entry.size, max_bytes)
            yield File(
                group=whole or (path.split("/", 1)[0] if "/" in path else _stem(self.path.name)),
                path=path,
                size=entry.size,
                data=data,
                problem=problem,
                detail=detail,
                language=PROSE_LANGUAGE if self.prose else None,
            )

    def _tar(self, entries: list[Listed]) -> Iterator[tuple[bytes, bytes | str]]:
        """The members' bytes by key, or what is wrong; a key is where the bytes begin."""
        if not entries:
            return
        with stream_at(self.path, self.stamped, int(entries[0].key)) as stream:
            for entry in entries:
                try:
                    stream.seek(int(entry.key))
                    data = stream.read(entry.size)
                except DamagedError as error:
                    yield entry.key, str(error)
                else:
                    yield entry.key, data if len(data) == entry.size else "the archive ends inside this member"

    def _zip(self, entries: list[Listed]) -> Iterator[tuple[bytes, bytes | str]]:
        """The members' bytes by key, or what is wrong; a key is the place in the archive's list."""
        key = (self.path, self.stamped)
        archive = take(key)
        if archive is None:
            check_unchanged(self.path, self.stamped)
            archive = zipfile.ZipFile(self.path)
        members = archive.infolist()
        for entry in entries:
            try:
                with archive.open(members[int(entry.key)]) as file:
                    yield entry.key, file.read(entry.size)
            except _ZIP_ERRORS as error:
                yield entry.key, reason(error)
        keep(key, archive)


def _tar_members(path: Path) -> Iterator[Listed]:
    limit = max(_ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size)
    try:
        with closing(Stream(path)) as stream, tarfile.open(fileobj=stream, mode="r:", errorlevel=0) as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                archive.members = []  # it would keep them all
                problem, detail = None, ""
                if stream.position > limit or member.size > limit:
                    raise _bomb(path)
                if member.isdir():
                    continue
                if member.issym():
                    problem, detail = Reason.SYMBOLIC_LINK, f"to {shown(member.linkname)!r}"
                elif member.islnk():
                    problem, detail = Reason.NOT_A_FILE, f"hard link to {shown(member.linkname)!r}"
                elif not member.isfile():
                    problem, detail = Reason.NOT_A_FILE, "device or pipe"
                elif member.issparse():
                    problem, detail = Reason.UNREADABLE, "stored with holes"
                size = member.size if member.isfile() else 0
                yield _member(_raw(member.name), size, b"%d" % member.offset_data, problem, detail)
            if stream.last.strip(b"\0"):  # tarfile takes a block that is no header for the end
                raise DamagedError("no header where the next member should begin")
    except tarfile.TarError as error:
        raise DamagedError(str(error)) from None


def _zip_members(path: Path) -> Iterator[Listed]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except _ZIP_ERRORS as error:
        raise DamagedError(reason(error)) from None
    if sum(member.file_size for member in members) > max(_ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size):
        raise _bomb(path)
    for number, member in enumerate(members):
        mode = member.external_attr >> 16
        problem, detail = None, ""
        if member.is_dir():
            continue
        if stat.S_ISLNK(mode):
            problem = Reason.SYMBOLIC_LINK
        elif member.flag_bits & 1:
            problem, detail = Reason.UNREADABLE, "encrypted"
        yield _member(_raw(member.filename), member.file_size, b"%d" % number, problem, detail)


def _member(raw: bytes, size: int, key: bytes, problem: Reason | None, detail: str) -> Listed:
    """A member under its path, or with a problem if that leads out of the archive."""
    if raw.startswith(b"/") or b".." in raw.split(b"/"):
        return Listed(raw, size, key, Reason.UNREADABLE, "a path that leads out of the archive")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    return Listed(b"/".join(parts), size, key, problem, detail)


def _without_replaced(entries: list[Listed]) -> list[Listed]:
    """Of members with one name the last counts, as when they are unpacked; the others are problems."""
    last = {entry.raw: entry.key for entry in entries}
    return [
        entry
        if last[entry.raw] == entry.key
        else entry._replace(problem=Reason.NOT_A_FILE, detail="replaced by a later member of the same name")
        for entry in entries
    ]


def _stretches(entries: list[Listed]) -> Iterator[list[Listed]]:
    chunk: list[Listed] = []
    size = 0
    for entry in entries:
        if chunk and (size + entry.size > MAX_SHARD_BYTES or len(chunk) == MAX_SHARD_FILES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += entry.size
    if chunk:
        yield chunk


def _raw(name: str) -> bytes:
    """A member's name as the bytes that the archive holds; `tarfile` keeps odd ones as surrogates."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace")


def _stem(name: str) -> str:
    return next(
        name.removesuffix(suffix)
        for suffix in sorted((*TAR_SUFFIXES, *ZIP_SUFFIXES), key=len, reverse=True)
        if name.endswith(suffix)
    )


def _bomb(path: Path) -> InputError:
    return InputError(
        f"{path} holds more than {MAX_RATIO} times its size; unpack it where there is room and name the folder"
    )

"""Reading forward through a file that may be compressed, and keeping one's place between shards.

    x.jsonl.gz   ├─ shard 1 ─┼─ shard 2 ─┼─ shard 3 ─┼─ shard 4 ─┤     offsets in what is unpacked
    process A     read ······ skip ······ read                         each process unpacks the file once,
    process B     skip ······ read ······ skip ······ read             however many shards it is cut into

A compressed file has no way in but its beginning. A process that has read a shard therefore keeps the open file,
and when its next shard lies further on, as it does when shards are given out in order, it skips there. What is
kept is one place; a forked process does not use its parent's, whose file position it would move.
"""

from __future__ import annotations

import lzma
import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from midspan.errors import InputError

_BLOCK = 1 << 20
_CODECS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_kept: tuple[Hashable, Any] | None = None


class DamagedError(Exception):
    """A file is not what its name says, or breaks off; the message says how, without naming the file."""


class Stream:
    """The unpacked bytes of a file, read forward; as much of a file object as `tarfile` needs."""

    def __init__(self, path: Path) -> None:
        self.position = 0
        self.last = b""
        """What the last `read` gave."""
        self._file: IO[bytes] | lzma.LZMAFile | pa.NativeFile
        with _damage():
            if path.suffix == ".xz":
                self._file = lzma.LZMAFile(path)  # noqa: SIM115
            elif path.suffix in _CODECS:
                self._file = pa.input_stream(path, compression=_CODECS[path.suffix])
            else:
                self._file = open(path, "rb")  # noqa: SIM115 - `close` closes it

    def read(self, num_bytes: int) -> bytes:
        """The next bytes, fewer only at the end. Raises DamagedError."""
        with _damage():
            self.last = self._file.read(num_bytes)
        self.position += len(self.last)
        return self.last

    def seek(self, offset: int) -> int:
        """Go on to an offset that is not behind."""
        assert offset >= self.position
        if isinstance(self._file, pa.NativeFile | lzma.LZMAFile):
            while self.position < offset and self.read(min(_BLOCK, offset - self.position)):
                pass
        else:
            self.position = self._file.seek(offset)
        return self.position

    def tell(self) -> int:
        """The offset."""
        return self.position

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except lzma.LZMAError as error:
        raise DamagedError(f"xz: {str(error).rstrip('.')}") from None
    except (EOFError, OSError, pa.ArrowException) as error:
        raise DamagedError(reason(error)) from None


def reason(error: Exception) -> str:
    """What an error of the system or of Arrow says, in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said.strip().splitlines()[0].rstrip(".") if said.strip() else type(error).__name__


def stamp(path: Path) -> str:
    """A file's size and modification time. InputError if it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); run the same command again") from None
    return f"{status.st_size}:{status.st_mtime_ns}"


def check_unchanged(path: Path, stamped: str) -> None:
    """InputError if a file is not the one that was listed: what was listed is not there to be read."""
    if stamp(path) != stamped:
        raise InputError(f"{path} changed while it was read; run the same command again")


def take(key: Hashable) -> Any | None:
    """What this process kept under a key, which is then the caller's alone."""
    global _kept
    kept, _kept = _kept, None
    return kept[1] if kept is not None and kept[0] == (os.getpid(), key) else None


def keep(key: Hashable, value: Any) -> None:
    """Keep an open file in place of what is kept now."""
    global _kept
    _kept = ((os.getpid(), key), value)


@contextmanager
def stream_at(path: Path, stamped: str, offset: int) -> Iterator[Stream]:
    """A file's stream at an offset, which goes on from where this process last left it if it can."""
    key = (path, stamped)
    stream = take(key)
    if stream is None or stream.position > offset:
        check_unchanged(path, stamped)
        stream = Stream(path)
    stream.seek(offset)
    yield stream
    keep(key, stream)

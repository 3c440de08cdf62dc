"""What was paid for, kept: an append-only file of values by key, whole after a kill at any point.

    key                              checksum         value
    0d5c1f7a9e...(32 hex)            77aa01c2...(16)  ["[PYTHON]\\ndef ..."]

A line is written by one call and counts once its checksum is right. What a killed process left of its last line is
cut off when the file is opened again; a line that is damaged elsewhere is passed over. Values stay on disk, only
their places are held. One process at a time: a second one is refused.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import xxhash

from midspan.errors import InputError

_KEY, _SUM = 32, 16
_HEAD = _KEY + _SUM + 2


def key_of(value: Any) -> str:
    """The key of what is asked, as JSON: 128 bits of its SHA-256."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY]


class Ledger:
    """Values by key in a file. Safe between threads; use as a context manager.

    Args:
        path: the file, made where there is none.
        durable: whether a value survives a power cut once `put` is back, and not a killed process alone.

    Raises:
        InputError: another process has it open, or it cannot be made.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[int, int]] = {}
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"{path} cannot be opened ({error.strerror}); choose another folder") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise InputError(f"another command is at work in {path.parent}; wait for it, or stop it") from None
        self._end = self._read()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Let others open the file."""
        os.close(self._file)

    def get(self, key: str) -> Any | None:
        """The value of a key, or None."""
        with self._lock:
            place = self._places.get(bytes.fromhex(key))
        return None if place is None else json.loads(os.pread(self._file, place[1], place[0]))

    def put(self, key: str, value: Any) -> None:
        """Keep a value; of two for one key the last counts."""
        body = json.dumps(value, separators=(",", ":")).encode()
        line = b"%b %b %b\n" % (key.encode(), xxhash.xxh3_64_hexdigest(body).encode(), body)
        with self._lock:
            try:
                written = os.write(self._file, line)
                if written < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                os.ftruncate(self._file, self._end)  # half a line would spoil the next one
                raise
            if self._durable:
                os.fdatasync(self._file)
            self._places[bytes.fromhex(key)] = self._end + _HEAD, len(body)
            self._end += len(line)

    def _read(self) -> int:
        """Find every whole line, cut off what follows the last; returns the size."""
        start = end = 0
        with open(os.dup(self._file), "rb") as file:
            file.seek(0)
            for line in file:
                body = line[_HEAD:-1]
                if line.endswith(b"\n"):
                    end = start + len(line)
                    if line[_KEY + 1 : _HEAD - 1] == xxhash.xxh3_64_hexdigest(body).encode():
                        self._places[bytes.fromhex(line[:_KEY].decode())] = start + _HEAD, len(body)
                start += len(line)
        os.ftruncate(self._file, end)
        return end

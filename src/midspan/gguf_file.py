"""The GGUF container: metadata and tensor directory of one file, for the tokenizer and for the weights.

    magic "GGUF" | version | tensor count | field count                      little-endian throughout
    fields       | key, type, value                                          the vocabulary is in here
    directory    | name, dimensions (fastest first), storage type, offset    one entry a tensor
    padding to general.alignment | tensor data

It is parsed here rather than by `gguf.GGUFReader`, which makes a numpy view of every string and takes seconds
for a vocabulary (3.1 s against 0.1 s for SmolLM2), and which reads past the end of a truncated file. Every
length is checked against the file before it is used. Nothing but the standard library is imported, because a
tokenizer needs no more.

Left out: the meaning of storage types (`midspan.model.weights.gguf_tensors`), version 1 (2023), big-endian
files, and split files' later parts. Source of the format: ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midspan.errors import InputError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True)
class GGUFEntry:
    """What the directory says of one tensor; not checked against the file."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as in torch."""
    storage: int
    """ggml's number of the storage type."""
    offset: int
    """Bytes from the start of the file."""


class GGUFFile:
    """A mapped GGUF file. `fields` is its metadata; the directory behind it is read when asked for.

    Raises:
        InputError: not a GGUF file, a version that is not read, or a file that is damaged or ends early.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise InputError(f"{path} is empty; get the file again") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); name a .gguf file") from error
        self._at = 0
        self.fields: dict[str, Any] = {}
        with self._damage_is_a_sentence():
            magic, version, self._num_tensors, num_fields = self._take("4sIQQ")
            if magic != b"GGUF":
                raise InputError(f"{path} is not a GGUF file (it starts with {magic!r}); name a .gguf file")
            if version not in (2, 3):
                raise InputError(
                    f"{path} is GGUF version {version}; little-endian versions 2 and 3 are read; convert it"
                )
            for _ in range(num_fields):
                key = self._string()
                self.fields[key] = self._value(*self._take("I"))
        self._end_of_fields = self._at

    def directory(self) -> list[GGUFEntry]:
        """Where each tensor lies, in the order of the file; InputError if that is damaged or cut off."""
        self._at = self._end_of_fields
        with self._damage_is_a_sentence():
            found = [self._entry() for _ in range(self._num_tensors)]
            alignment = self.fields.get("general.alignment", 32)
            if not isinstance(alignment, int) or alignment < 1:
                raise struct.error("alignment")
        start = -(-self._at // alignment) * alignment
        return [
            GGUFEntry(name=name, shape=shape, storage=storage, offset=start + offset)
            for name, shape, storage, offset in found
        ]

    @contextmanager
    def _damage_is_a_sentence(self) -> Iterator[None]:
        try:
            yield
        except (struct.error, UnicodeDecodeError, OverflowError, MemoryError, RecursionError) as error:
            raise InputError(
                f"{self.path} is a damaged or cut-off GGUF file (at byte {self._at} of {len(self._bytes)}); "
                "get the file again"
            ) from error

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (num_dims,) = self._take("I")
        dims = self._take(f"{num_dims}Q")
        storage, offset = self._take("IQ")
        return name, tuple(reversed(dims)), storage, offset

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._bytes, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _string(self) -> str:
        # Called a hundred thousand times for a vocabulary, hence without _take.
        start = self._at + 8
        end = start + _LENGTH.unpack_from(self._bytes, self._at)[0]
        if end > len(self._bytes):
            raise struct.error("a string reaches past the end of the file")
        self._at = end
        return self._bytes[start:end].decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            item, length = self._take("IQ")
            if item in _SCALARS:
                return list(self._take(f"{length}{_SCALARS[item]}"))
            return [self._value(item) for _ in range(length)]
        if kind not in _SCALARS:
            raise struct.error(f"unknown value type {kind}")
        return self._take(_SCALARS[kind])[0]

"""The GGUF container: metadata and tensors of one file.

    magic "GGUF" | version | tensor count | field count                      little-endian throughout
    fields       | key, type, value                                          the vocabulary is in here
    tensor infos | name, dimensions (fastest first), quantisation, offset
    padding to general.alignment | tensor data

The container is parsed here rather than by `gguf.GGUFReader`, which makes a numpy view of every string and
takes seconds for a vocabulary (3.1 s against 0.2 s for SmolLM2), and which reads past the end of a truncated
file. Every length is checked against the file before it is used. Dequantisation is the `gguf` package's.

Big-endian files and version 1 (2023) are refused.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from midspan.errors import InputError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


@dataclass(frozen=True, kw_only=True)
class GGUFTensor:
    """Where one tensor lies, and how it is stored."""

    shape: tuple[int, ...]
    """Slowest dimension first, as in torch."""
    kind: GGMLQuantizationType
    offset: int
    """Bytes from the start of the file."""
    num_bytes: int


class GGUFFile:
    """An open GGUF file; `fields` is its metadata and `tensors` its directory.

    Raises:
        InputError: not a GGUF file, a version or a tensor type that is not read, or a file that ends early.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); name a .gguf file") from error
        self._at = 0
        self.fields: dict[str, Any] = {}
        self.tensors: dict[str, GGUFTensor] = {}
        try:
            self._parse()
        except (struct.error, UnicodeDecodeError, OverflowError, MemoryError, RecursionError) as error:
            raise InputError(
                f"{path} is damaged or ends early (at byte {self._at} of {len(self._bytes)}); get the file again"
            ) from error

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as float32, dequantised; a copy that outlives the file."""
        tensor = self.tensors[name]
        raw = np.frombuffer(self._bytes, np.uint8, tensor.num_bytes, tensor.offset)
        _, block_bytes = GGML_QUANT_SIZES[tensor.kind]
        # The package works through 16 rows at a time; rows of many blocks make that twice as fast.
        blocks_a_row = math.gcd(tensor.num_bytes // block_bytes, 256)
        values = dequantize(raw.reshape(-1, blocks_a_row * block_bytes), tensor.kind)
        # What was not quantised is a view of the read-only file; the rest is new.
        return np.require(values.reshape(tensor.shape), np.float32, ["W"])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def _parse(self) -> None:
        magic, version, num_tensors, num_fields = self._take("4sIQQ")
        if magic != b"GGUF":
            raise InputError(f"{self.path} is not a GGUF file (it starts with {magic!r}); name a .gguf file")
        if version not in (2, 3):
            raise InputError(
                f"{self.path} is GGUF version {version}; versions 2 and 3 (little-endian) are read: "
                "convert it again"
            )
        for _ in range(num_fields):
            key = self._string()
            (kind,) = self._take("I")
            self.fields[key] = self._value(kind)
        infos = [self._tensor_info() for _ in range(num_tensors)]
        alignment = self.fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise struct.error("alignment")
        start = -(-self._at // alignment) * alignment
        for name, shape, kind_number, offset in infos:
            self._place(name, shape, kind_number, start + offset)

    def _place(self, name: str, shape: tuple[int, ...], kind_number: int, offset: int) -> None:
        try:
            kind = GGMLQuantizationType(kind_number)
        except ValueError as error:
            raise InputError(
                f"{self.path}: tensor {name} has the unknown type {kind_number}; upgrade the gguf "
                "package, or get the file again"
            ) from error
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if not shape or shape[-1] % block:
            raise InputError(
                f"{self.path}: tensor {name} of shape {shape} cannot be stored as {kind.name}, whose blocks "
                f"hold {block} values; get the file again"
            )
        num_bytes = int(np.prod(shape, dtype=object)) // block * block_bytes
        if offset + num_bytes > len(self._bytes):
            raise InputError(
                f"{self.path} ends early: tensor {name} needs bytes up to {offset + num_bytes} and the file "
                f"has {len(self._bytes)}; get the file again"
            )
        self.tensors[name] = GGUFTensor(shape=shape, kind=kind, offset=offset, num_bytes=num_bytes)

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (num_dims,) = self._take("I")
        dims = self._take(f"{num_dims}Q")
        kind, offset = self._take("IQ")
        return name, tuple(reversed(dims)), kind, offset

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._bytes, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _string(self) -> str:
        (length,) = self._take("Q")
        end = self._at + length
        if end > len(self._bytes):
            raise struct.error("string past the end")
        text = self._bytes[self._at : end].decode("utf-8")
        self._at = end
        return text

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            item, length = self._take("IQ")
            if item in SCALARS:
                return list(self._take(f"{length}{SCALARS[item]}"))
            return [self._value(item) for _ in range(length)]
        if kind not in SCALARS:
            raise struct.error(f"unknown value type {kind}")
        return self._take(SCALARS[kind])[0]

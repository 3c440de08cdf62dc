"""Writing the GGUF container: what `midspan.gguf_file` reads, with tensors in whatever order they come.

    magic "GGUF" | version 3 | tensor count | field count
    fields       | key, type, value
    directory    | name, dimensions (fastest first), storage type, offset
    padding      | to 32 bytes, as behind every tensor
    tensor data

Sizes follow from shapes and storage types, so the directory is written before there is any data, and a tensor
goes straight to its place: the peak is one tensor, whatever the order of the checkpoint that is read.

`gguf.GGUFWriter` does the same in the order of the directory only, or with all tensors in memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

ALIGNMENT = 32
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


class GGUFWriter:
    """A GGUF file being written; as a context manager it is closed, and complete only if all tensors came."""

    def __init__(
        self,
        path: Path,
        fields: Mapping[str, Any],
        tensors: Mapping[str, tuple[tuple[int, ...], GGMLQuantizationType]],
    ) -> None:
        """
        Args:
            path: written from its beginning.
            fields: metadata; strings, bools, ints (unsigned 32 bit), floats (32 bit), and lists of strings,
                ints (signed 32 bit) or floats. What is None or an empty list is left out.
            tensors: shape (slowest dimension first) and storage type of every tensor that will come.
        """
        kept = {key: value for key, value in fields.items() if value is not None and value != []}
        self._places: dict[str, tuple[int, int]] = {}
        head = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(kept))]
        head += [_string(key) + _value(value) for key, value in kept.items()]
        offset = 0
        for name, (shape, kind) in tensors.items():
            block, block_bytes = GGML_QUANT_SIZES[kind]
            size = math.prod(shape) // block * block_bytes
            self._places[name] = offset, size
            head.append(_string(name) + struct.pack("<I", len(shape)))
            head.append(struct.pack(f"<{len(shape)}QIQ", *reversed(shape), kind, offset))
            offset += _padded(size)
        start = b"".join(head)
        self._data = _padded(len(start))
        self._waiting = set(tensors)
        self._file = path.open("wb")
        self._file.write(start)
        self._file.truncate(self._data + offset)  # the padding is zeros

    def write(self, name: str, data: npt.NDArray[Any]) -> None:
        """Put a tensor's bytes, as its storage type lays them out, into their place.

        Raises:
            ValueError: the tensor is not in the directory, or the bytes are too many or too few.
        """
        offset, size = self._places[name]
        if data.nbytes != size:
            raise ValueError(f"{name} has {data.nbytes} bytes where the directory says {size}")
        self._file.seek(self._data + offset)
        self._file.write(np.ascontiguousarray(data).data)
        self._waiting.discard(name)

    def __enter__(self) -> GGUFWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None and self._waiting:
            raise ValueError(f"{min(self._waiting)} was announced and never written")


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """A value's type and bytes; bool is asked for before int, which it is one of."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    length = struct.pack("<Q", len(value))
    if isinstance(value[0], str):
        return struct.pack("<II", _ARRAY, _STRING) + length + b"".join(map(_string, value))
    item, layout = (_I32, "i") if isinstance(value[0], int) else (_F32, "f")
    return struct.pack("<II", _ARRAY, item) + length + struct.pack(f"<{len(value)}{layout}", *value)

"""Tensors of a GGUF file, dequantised one at a time by the `gguf` package."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from midspan.errors import InputError
from midspan.gguf_file import GGUFEntry, GGUFFile


@dataclass(frozen=True, kw_only=True)
class GGUFTensor:
    """Where one tensor lies, and how it is stored."""

    shape: tuple[int, ...]
    """Slowest dimension first, as in torch."""
    kind: GGMLQuantizationType
    offset: int
    """Bytes from the start of the file."""
    num_bytes: int


class GGUFTensors(GGUFFile):
    """A GGUF file with all its `tensors` checked to lie within it.

    Raises:
        InputError: besides `GGUFFile`'s reasons, a storage type that is not known, or a file that ends early.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.tensors = {entry.name: self._checked(entry) for entry in self.directory()}

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

    def _checked(self, entry: GGUFEntry) -> GGUFTensor:
        try:
            kind = GGMLQuantizationType(entry.storage)
        except ValueError as error:
            raise InputError(
                f"{self.path}: tensor {entry.name} has the unknown type {entry.storage}; upgrade the gguf "
                "package, or get the file again"
            ) from error
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if not entry.shape or entry.shape[-1] % block:
            raise InputError(
                f"{self.path}: tensor {entry.name} of shape {entry.shape} cannot be stored as {kind.name}, whose "
                f"blocks hold {block} values; get the file again"
            )
        num_bytes = math.prod(entry.shape) // block * block_bytes
        if entry.offset + num_bytes > len(self._bytes):
            raise InputError(
                f"{self.path} ends early: tensor {entry.name} needs bytes up to {entry.offset + num_bytes} and "
                f"the file has {len(self._bytes)}; get the file again"
            )
        return GGUFTensor(shape=entry.shape, kind=kind, offset=entry.offset, num_bytes=num_bytes)

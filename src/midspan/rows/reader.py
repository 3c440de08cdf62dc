"""Compiled rows as training reads them: mapped into memory, any row at any time.

Row n is always the same, so the whole state of a reader is how many rows were read, and resuming is a
multiplication. A step's rows are numbered on from the last step's, and each rank reads its slice of them: however
many ranks there are, a step sees the same rows in the same order.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from midspan.errors import InputError
from midspan.rows.compile import ORDER
from midspan.rows.segments import ANSWER, CHAT
from midspan.rows.shards import Index, read_index, row_hash, shard_path

OPEN_SHARDS = 256
"""Shards that are kept mapped; a mapping is small, and a process may have 65,530 of them."""


@dataclass(frozen=True)
class Row:
    """One packed training sequence, without its padding."""

    ids: np.ndarray
    """Token ids (length), int64."""
    segments: np.ndarray
    """Records of `SEGMENT`, one a document."""
    answers: np.ndarray = field(default_factory=lambda: np.empty(0, ANSWER))
    """Records of `ANSWER`, places in the row: what is trained of its conversations."""

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """0 and the end of each segment."""
        return (0, *map(int, self.segments["end"]))

    @cached_property
    def targets(self) -> np.ndarray:
        """Positions whose next token is trained: every token but a segment's first; of a conversation, answers."""
        trained = np.ones(len(self.ids), np.bool_)
        for (start, end), form in zip(itertools.pairwise(self.bounds), self.segments["form"], strict=True):
            trained[start : end if form == CHAT else start + 1] = False
        for _, start, end in self.answers.tolist():
            trained[start:end] = True
        return np.flatnonzero(trained) - 1


class Rows:
    """The rows of a folder that `compile_rows` wrote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self.manifest = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
            self._row_tokens, self._tokens_type = (
                self.manifest["row_tokens"],
                np.dtype(self.manifest["tokens_type"]),
            )
            self._num_sources = len(self.manifest["sources"])
            self._order = np.memmap(folder / "order.bin", ORDER, "r")
            if len(self._order) != self.manifest["num_rows"]:
                raise ValueError("order.bin has another number of rows")
            for source, windows in enumerate(self.manifest["shards"]):
                for window, (num_rows, index_bytes) in enumerate(windows):
                    path = shard_path(folder, source, window)
                    sizes = num_rows * self._row_tokens * self._tokens_type.itemsize, index_bytes
                    if (path.stat().st_size, path.with_suffix(".idx").stat().st_size) != sizes:
                        raise ValueError(f"{path.name} or its index is not whole")
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{folder} holds no whole compiled rows ({error}); remove it and train again"
            ) from None
        self._shard = lru_cache(OPEN_SHARDS)(self._open)

    def _path(self, shard: int) -> Path:
        return shard_path(self._folder, shard % self._num_sources, shard // self._num_sources)

    def _open(self, shard: int) -> tuple[np.ndarray, Index]:
        index = read_index(self._path(shard))
        shape = (len(index.bounds) - 1, self._row_tokens)
        return np.memmap(self._path(shard), self._tokens_type, "r", shape=shape), index

    @property
    def fingerprint(self) -> str:
        """The identity of these rows: sources, vocabulary and settings."""
        return str(self.manifest["fingerprint"])

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Row:
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        return self._rows(number, number + 1)[0]

    def batch(self, step: int, rows_per_step: int, *, rank: int = 0, world: int = 1) -> list[Row]:
        """The rows of a step that a rank reads: one after the other, the ranks' make the step's.

        Raises:
            InputError: the ranks cannot share a step's rows evenly, or one of them is damaged on the disk.
            IndexError: the rows end before the step does.
        """
        if rows_per_step % world:
            raise InputError(
                f"{world} ranks cannot share the {rows_per_step} rows of a step; "
                f"give train.rows_per_step a multiple of {world}"
            )
        share = rows_per_step // world
        first = step * rows_per_step + rank * share
        if first + share > len(self):
            raise IndexError(f"rows {first} to {first + share - 1} of {len(self)}")
        return self._rows(first, first + share)

    def _rows(self, first: int, last: int) -> list[Row]:
        """Rows by number, in one array; those that stand together in a shard are read together."""
        order = self._order[first:last]
        ids = np.empty((last - first, self._row_tokens), np.int64)
        found = []
        breaks = np.flatnonzero((np.diff(order["shard"]) != 0) | (np.diff(order["row"].astype(np.int64)) != 1)) + 1
        for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(order)], strict=True):
            tokens, index = self._shard(int(order["shard"][begin]))
            row = int(order["row"][begin])
            for place in range(row, row + end - begin):
                if row_hash(tokens[place]) != index.hashes[place]:
                    path = self._path(int(order["shard"][begin]))
                    raise InputError(
                        f"row {first + begin + place - row} in {path} is damaged; remove {self._folder} and go on "
                        "with --resume, which compiles the same rows again"
                    )
            ids[begin:end] = tokens[row : row + end - begin]
            bounds = index.bounds[row : row + end - begin + 1].tolist()
            for n, (low, high) in enumerate(itertools.pairwise(bounds), start=begin):
                segments = index.segments[low:high]
                found.append(Row(ids[n, : segments["end"][-1]], segments, index.answers_of(low, high)))
        return found

"""Windows of rows on disk: what a worker writes is what training maps.

    rows-0-00000.bin   rows of `row_tokens` ids, little-endian u2 or u4, padded with 0 behind their last segment
    rows-0-00000.idx   five arrays in NumPy's format: where each row's segments begin (rows + 1), the segments
                       (`SEGMENT`: end in its row, length of its middle, form, source, document), the answers of
                       conversations (`ANSWER`: segment, where it begins and ends in its row), the documents, and
                       a hash of each row's tokens, which is looked at whenever the row is read

The first number is the source's, the second the window's. The .idx is written last and both are renamed into
place, so a window is there, whole, or it is not: a compilation that was killed goes on with the windows it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from midspan.files import atomic_file
from midspan.rows.window import PackedRows


@dataclass(frozen=True)
class Index:
    """What is known of a window's rows beside their tokens."""

    bounds: np.ndarray
    segments: np.ndarray
    answers: np.ndarray
    documents: int
    hashes: np.ndarray
    """Of each row's tokens (rows), uint64."""
    size: int
    """Bytes of the file."""

    def answers_of(self, first: int, last: int) -> np.ndarray:
        """The answers (records of `ANSWER`) of a range of segments."""
        if not len(self.answers):
            return self.answers
        low, high = np.searchsorted(self.answers["segment"], [first, last])
        return self.answers[low:high]

    def row_tokens(self) -> np.ndarray:
        """How many tokens each row holds (rows), int64."""
        return self.segments["end"][self.bounds[1:] - 1].astype(np.int64)


def shard_path(folder: Path, source: int, window: int) -> Path:
    """A window's file of tokens; its index is beside it."""
    return folder / f"rows-{source}-{window:05d}.bin"


def is_written(path: Path) -> bool:
    """Whether a window is there."""
    return path.with_suffix(".idx").is_file()


def write_shard(path: Path, rows: PackedRows) -> None:
    """Write a window, durably."""
    hashes = np.array([row_hash(row) for row in rows.tokens], np.uint64)
    with atomic_file(path) as aside:
        rows.tokens.tofile(aside)
    with atomic_file(path.with_suffix(".idx")) as aside, aside.open("wb") as file:
        for array in (rows.bounds, rows.segments, rows.answers, np.array(rows.documents), hashes):
            np.save(file, array)


def read_index(path: Path) -> Index:
    """A window's index, by the path of its tokens. Raises OSError or ValueError for one that cannot be read."""
    with path.with_suffix(".idx").open("rb") as file:
        bounds, segments, answers, documents, hashes = (np.load(file) for _ in range(5))
        return Index(bounds, segments, answers, int(documents), hashes, file.tell())


def row_hash(tokens: np.ndarray) -> int:
    """Of a row's tokens, padding included."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(tokens).data)

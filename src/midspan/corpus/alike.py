"""Near duplicates among all files of a corpus: from the sketches in its parts to who goes, and for whom.

    sketches of all ── components ── shingles of their members ── survivors, component by component
      a file           in memory       a file for each part         tasks of about 64 MiB of shingles

`near_duplicates.py` holds the algorithm; here is how it gets at millions of files: what is as large as the text
passes through files of a scratch folder, which every process maps, and what is held for all files at once is
about 50 bytes a file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from midspan.corpus.engine import Engine
from midspan.corpus.near_duplicates import BANDS, components, shingle_hashes, survivors

BATCH_HASHES = 8 << 20
"""Shingles of the components that one task compares."""


@dataclass(frozen=True)
class Alike:
    """What was found, as places in the `rows` that were asked about."""

    gone: np.ndarray
    """(pairs) files that go."""
    kept: np.ndarray
    """(pairs) for each the file that stays and is nearest to it."""
    similarity: np.ndarray
    """(pairs) exact Jaccard of the two."""
    cluster: np.ndarray
    """(rows) for every file of a component in which something goes the best ranked of its files, else -1."""


def near_duplicates(
    parts: Sequence[Path], starts: np.ndarray, rows: np.ndarray, *, engine: Engine, scratch: Path
) -> Alike:
    """Find the files among `rows` that are near to one of better rank that stays.

    Args:
        parts: examined shards, with columns `sketch` and `text`.
        starts: (parts + 1) the number of each part's first row when all are counted through.
        rows: numbers of rows so counted, best rank first.
        scratch: a folder with room for 8 bytes a shingle of the files that may be alike.
    """
    sketches = _sketches(parts, starts, rows, scratch)
    labels = components(np.ascontiguousarray(sketches[:, band]) for band in range(BANDS))
    members = np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 1)
    members = members[np.argsort(labels[members], kind="stable")]  # component by component, best rank first
    shingles = _Shingles.write(parts, starts, rows[members], engine, scratch)
    sketch_path = scratch / "members.npy"
    np.save(sketch_path, sketches[members])
    borders = np.flatnonzero(np.diff(labels[members], prepend=-1, append=-1))
    batches = list(_batches(borders, shingles.offsets))
    found: list[list[tuple[int, int, float]]] = [[] for _ in batches]
    for number, pairs in engine.map(_survivors, (shingles, sketch_path), batches):
        found[number] = pairs
    flat = [pair for pairs in found for pair in pairs]
    gone = members[np.array([pair[0] for pair in flat], np.int64)]
    in_clusters = members[np.isin(labels[members], labels[gone])]
    cluster = np.full(len(rows), -1, np.int64)
    cluster[in_clusters] = labels[in_clusters]
    return Alike(
        gone=gone,
        kept=members[np.array([pair[1] for pair in flat], np.int64)],
        similarity=np.array([pair[2] for pair in flat], np.float32),
        cluster=cluster,
    )


def bytes_matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """A column of byte strings without nulls, all of one width, as (rows, width) uint8."""
    array = column.combine_chunks()
    if not len(array):
        return np.empty((0, width), np.uint8)
    flat = np.frombuffer(array.buffers()[1], np.uint8)
    return flat[array.offset * width : (array.offset + len(array)) * width].reshape(len(array), width)


def _sketches(parts: Sequence[Path], starts: np.ndarray, rows: np.ndarray, scratch: Path) -> np.ndarray:
    """The band keys of rows (rows, BANDS), a band's keys together, in a file."""
    place = np.full(int(starts[-1]), -1, np.int64)
    place[rows] = np.arange(len(rows))
    shape = (max(len(rows), 1), BANDS)
    path = scratch / "sketches.bin"
    with path.open("wb") as file:  # space that is only promised would end the process when the disk is full
        os.posix_fallocate(file.fileno(), 0, 8 * shape[0] * shape[1])
    sketches = np.memmap(path, dtype="<u8", mode="r+", shape=shape, order="F")[: len(rows)]
    for number, part in enumerate(parts):
        places = place[starts[number] : starts[number + 1]]
        here = np.flatnonzero(places >= 0)
        if len(here):
            column = pq.read_table(part, columns=["sketch"])["sketch"].take(pa.array(here))
            sketches[places[here]] = bytes_matrix(column, 8 * BANDS).view("<u8")
    return sketches


@dataclass(frozen=True)
class _Shingles:
    """Sorted shingle hashes of many files, one after another, in files that every process can map."""

    paths: tuple[Path, ...]
    """One file a part."""
    file_of: np.ndarray
    """(members) which of `paths` holds a member's hashes."""
    start_in_file: np.ndarray
    """(members) where they begin there."""
    offsets: np.ndarray
    """(members + 1) running count of hashes over members."""

    def __getitem__(self, member: int) -> np.ndarray:
        start = int(self.start_in_file[member])
        count = int(self.offsets[member + 1] - self.offsets[member])
        return _mapped(self.paths[self.file_of[member]])[start : start + count]

    @staticmethod
    def write(
        parts: Sequence[Path], starts: np.ndarray, rows: np.ndarray, engine: Engine, scratch: Path
    ) -> _Shingles:
        """Make the shingles of rows, part by part."""
        number_of = np.searchsorted(starts, rows, side="right") - 1
        paths, tasks, members = [], [], []
        for file, number in enumerate(np.unique(number_of)):
            of_part = np.flatnonzero(number_of == number)
            of_part = of_part[np.argsort(rows[of_part])]
            paths.append(scratch / f"shingles-{file}.npy")
            members.append(of_part)
            tasks.append((parts[number], rows[of_part] - starts[number], paths[-1]))
        counts, begins = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        file_of = np.zeros(len(rows), np.int32)
        for file, found in engine.map(_write_shingles, None, tasks):
            of_part = members[file]
            counts[of_part], file_of[of_part] = found, file
            begins[of_part] = np.cumsum(found) - found
        return _Shingles(tuple(paths), file_of, begins, np.concatenate([[0], np.cumsum(counts)]))


@functools.lru_cache(maxsize=256)
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _write_shingles(shared: None, task: tuple[Path, np.ndarray, Path]) -> np.ndarray:
    """Shingle some rows of a part, given in ascending order, into a file; how many shingles each has."""
    path, rows, out = task
    found: list[np.ndarray] = []
    with pq.ParquetFile(path) as parquet:
        start = 0
        for index in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(index).num_rows
            here = rows[(rows >= start) & (rows < start + size)] - start
            if len(here):
                texts = parquet.read_row_group(index, columns=["text"])["text"].take(pa.array(here))
                found.extend(shingle_hashes(text.encode()) for text in texts.to_pylist())
            start += size
    np.save(out, np.concatenate(found))
    return np.array([len(one) for one in found], np.int64)


def _batches(borders: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Components in runs of about `BATCH_HASHES`: the first member of a run, and the borders within it."""
    first = 0
    for index in range(1, len(borders)):
        held = offsets[borders[index]] - offsets[borders[first]]
        if held >= BATCH_HASHES or index == len(borders) - 1:
            yield int(borders[first]), borders[first : index + 1] - borders[first]
            first = index


def _survivors(shared: tuple[_Shingles, Path], task: tuple[int, np.ndarray]) -> list[tuple[int, int, float]]:
    """Who goes among the components of a run, for which file that stays; both as members."""
    shingles, sketch_path = shared
    first, borders = task
    sketches = _mapped(sketch_path)
    gone = []
    for start, end in zip((borders[:-1] + first).tolist(), (borders[1:] + first).tolist(), strict=True):
        of_component = [shingles[member] for member in range(start, end)]
        for place, found in enumerate(survivors(of_component, np.ascontiguousarray(sketches[start:end]))):
            if found is not None:
                gone.append((start + place, start + found[0], found[1]))
    return gone

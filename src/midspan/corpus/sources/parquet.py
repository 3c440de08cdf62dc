"""Parquet files with one source text a row, as data sets are published.

A shard is a range of rows: several row groups where they are small, a part of one where it is large. Row groups
are decoded from their beginning, batch by batch, so a process keeps its place between shards as it does in a
compressed file (`stream.py`), and memory stays at a few batches however large a row group is. Only the columns
that mean something are read (`row_file.ROLES`); texts stay bytes until one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from midspan.corpus.document import Reason
from midspan.corpus.sources.row_file import RowFile, roles_of
from midspan.corpus.sources.source import MAX_SHARD_BYTES, MAX_SHARD_FILES, File, Shard, shard_name, too_large
from midspan.corpus.sources.stream import DamagedError, keep, reason, take
from midspan.errors import InputError

_BATCH_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class ParquetShard(Shard):
    """Rows `first` to `first + num_files` of one file."""

    file: RowFile
    columns: tuple[tuple[str, str], ...]
    """(role, column) of those that are read."""
    first: int

    def files(self, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[File]:
        """One file a row."""
        number = self.first + 1
        try:
            key = (self.file.source, self.file.name, self.file.stamp)
            reader = take(key) or _Reader(self.file.local(), [name for _, name in self.columns])
            for batch in reader.rows(self.first, self.num_files):
                for file in self._files(batch, number, wanted, max_bytes):
                    yield file
                    number += 1
            keep(key, reader)
        except (pa.ArrowException, OSError) as error:
            last = self.first + self.num_files
            detail = f"rows {number} to {last}: {reason(error)}"
            facts = self.file.facts(number, {}, {})
            yield File(**facts, size=0, problem=Reason.UNREADABLE, detail=detail)

    def _files(
        self, batch: pa.RecordBatch, number: int, wanted: Callable[[str], bool], max_bytes: int
    ) -> Iterator[File]:
        columns = dict(self.columns)
        texts = pc.cast(_plain(batch.column(columns["text"])), pa.large_binary())
        sizes = pc.binary_length(texts).to_pylist()
        values = {role: _plain(batch.column(name)).to_pylist() for role, name in self.columns if role != "text"}
        for index, size in enumerate(sizes):
            row = {role: column[index] for role, column in values.items()}
            facts = self.file.facts(number + index, columns, row)
            if size is None:
                detail = f"row {number + index}: no text under {columns['text']!r}"
                yield File(**facts, size=0, problem=Reason.UNREADABLE, detail=detail)
            elif facts["language"] is None and not wanted(facts["path"]):
                yield File(**facts, size=size)
            elif size > max_bytes:
                detail = too_large(size, max_bytes)
                yield File(**facts, size=size, problem=Reason.TOO_LARGE, detail=detail)
            else:
                data = _utf8(texts[index].as_py(), row.get("encoding"))
                yield File(**facts, size=size, data=data)


class _Reader:
    """A file's rows, read forward."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._parquet = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        self._columns = columns
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._pending: pa.RecordBatch | None = None
        self._position = self._parquet.metadata.num_rows  # of the first row that is pending

    def rows(self, first: int, num_rows: int) -> Iterator[pa.RecordBatch]:
        """Batches that hold the rows `first` to `first + num_rows`."""
        last = first + num_rows
        begin, group = self._group_of(first)
        if not begin <= self._position <= first:
            groups = range(group, self._parquet.num_row_groups)
            self._batches = self._parquet.iter_batches(_BATCH_ROWS, groups, self._columns, use_threads=False)
            self._pending, self._position = None, begin
        while self._position < last:
            batch = self._pending if self._pending is not None else next(self._batches)
            skipped = min(max(first - self._position, 0), len(batch))
            used = min(last - self._position, len(batch))
            self._pending = batch.slice(used) if used < len(batch) else None
            self._position += used
            if skipped < used:
                yield batch.slice(skipped, used - skipped)

    def _group_of(self, row: int) -> tuple[int, int]:
        """The first row and the number of the row group that holds a row."""
        begin = 0
        for group in range(self._parquet.num_row_groups):
            num_rows = self._parquet.metadata.row_group(group).num_rows
            if row < begin + num_rows:
                return begin, group
            begin += num_rows
        raise AssertionError(f"row {row} of {begin}")


def parquet_shards(file: RowFile) -> Iterator[Shard]:
    """Cut a file into ranges of rows.

    Raises:
        DamagedError: it is no Parquet file, or is not whole.
        InputError: it holds no column of texts.
    """
    path = file.local()
    try:
        parquet = pq.ParquetFile(path)
        schema, metadata = parquet.schema_arrow, parquet.metadata
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(reason(error)) from None
    columns = roles_of(schema.names)
    if "text" not in columns or not _is_text(schema.field(columns["text"]).type):
        raise InputError(
            f"{path} has no column of texts called 'content', 'code' or 'text' among {', '.join(schema.names)}; "
            "a data set that holds ids alone, as The Stack v2 does, has to be filled with its files first"
        )
    first = 0
    for size, num_rows in _spans(metadata, columns["text"]):
        yield ParquetShard(
            source=file.source,
            name=shard_name(file.source, file.name, first),
            fingerprint=xxhash.xxh3_128_hexdigest(
                repr(("parquet", file.name, file.stamp, first, num_rows, file.prose)).encode()
            ),
            size=size,
            num_files=num_rows,
            prose=file.prose,
            file=file,
            columns=tuple(columns.items()),
            first=first,
        )
        first += num_rows


def _spans(metadata: Any, text_column: str) -> Iterator[tuple[int, int]]:
    """(bytes, rows) of each range; inside a row group texts are taken to be of its mean size."""
    size, num_rows = 0, 0
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        columns = (group.column(number) for number in range(group.num_columns))
        num_bytes = next(each.total_uncompressed_size for each in columns if each.path_in_schema == text_column)
        if size + num_bytes > MAX_SHARD_BYTES or num_rows + group.num_rows > MAX_SHARD_FILES:
            if num_rows:
                yield size, num_rows
            size, num_rows = 0, 0
        parts = max(-(-num_bytes // MAX_SHARD_BYTES), -(-group.num_rows // MAX_SHARD_FILES))
        if parts > 1:
            for part in range(parts):
                cuts = [group.num_rows * number // parts for number in (part, part + 1)]
                if cuts[1] > cuts[0]:
                    yield num_bytes // parts, cuts[1] - cuts[0]
        else:
            size, num_rows = size + num_bytes, num_rows + group.num_rows
    if num_rows:
        yield size, num_rows


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        test(kind)
        for test in (
            *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
            *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
        )
    )


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def _utf8(data: bytes, encoding: object) -> bytes:
    """A text's bytes, in UTF-8 if they are not and the row says what they are; `decode` judges what is left."""
    if isinstance(encoding, str):
        try:
            data.decode()
        except UnicodeDecodeError:
            with suppress(LookupError, UnicodeError):
                return data.decode(encoding).encode()
    return data

"""JSON lines, plain or compressed: a shard is a range of lines.

Listing finds the ends of lines and parses nothing; it unpacks a compressed file once. A line that is no row is a
file with a problem and its number. A line is never held in memory when it could not hold a text of the size
asked for, so one of a gigabyte costs nothing but reading past it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import xxhash

from midspan.corpus.document import Reason
from midspan.corpus.sources.row_file import RowFile, roles_of
from midspan.corpus.sources.source import (
    MAX_SHARD_BYTES,
    MAX_SHARD_FILES,
    File,
    Shard,
    problem_shard,
    shard_name,
    shown,
    too_large,
)
from midspan.corpus.sources.stream import DamagedError, Stream, stream_at

_BLOCK = 1 << 20
_LONGEST_ESCAPE = 6  # "\u0001" for one byte
_BESIDE_TEXT = 1 << 20  # bytes of a line for what is not the text


@dataclass(frozen=True, kw_only=True)
class JsonlShard(Shard):
    """Whole lines of one file."""

    file: RowFile
    offset: int
    first_line: int

    def files(self, wanted: Callable[[str], bool], max_bytes: int) -> Iterator[File]:
        """One file a line."""
        limit = _LONGEST_ESCAPE * max_bytes + _BESIDE_TEXT
        number = self.first_line
        try:
            with stream_at(self.file.local(), self.file.stamp, self.offset) as stream:
                for line in _lines(stream, self.size, limit):
                    if isinstance(line, int):
                        yield self._problem(number, line, Reason.TOO_LARGE, too_large(line, limit))
                    elif line:
                        yield self._row(number, line, wanted, max_bytes)
                    number += 1
        except DamagedError as error:
            yield self._problem(number, 0, Reason.UNREADABLE, str(error))

    def _problem(self, number: int, size: int, problem: Reason, detail: str) -> File:
        facts = self.file.facts(number, {}, {})
        return File(**facts, size=size, problem=problem, detail=f"line {number}: {detail}")

    def _row(self, number: int, line: bytes, wanted: Callable[[str], bool], max_bytes: int) -> File:
        try:
            row = json.loads(line)
        except RecursionError:
            return self._problem(number, len(line), Reason.UNREADABLE, "nested too deep")
        except ValueError as error:  # of JSON, of UTF-8, or of a number with too many digits
            return self._problem(number, len(line), Reason.UNREADABLE, f"not JSON ({error})")
        if not isinstance(row, dict):
            return self._problem(number, len(line), Reason.UNREADABLE, f"a {type(row).__name__} and not an object")
        columns = roles_of(row)
        text = row[columns["text"]] if "text" in columns else None
        if not isinstance(text, str):
            return self._problem(number, len(line), Reason.UNREADABLE, "no text under 'content', 'code' or 'text'")
        facts = self.file.facts(number, columns, {role: row[name] for role, name in columns.items()})
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            return self._problem(
                number, len(line), Reason.UNREADABLE, f"half a surrogate pair at character {error.start}"
            )
        if facts["language"] is None and not wanted(facts["path"]):
            return File(**facts, size=len(data))
        if len(data) > max_bytes:
            detail = too_large(len(data), max_bytes)
            return File(**facts, size=len(data), problem=Reason.TOO_LARGE, detail=detail)
        return File(**facts, size=len(data), data=data)


def jsonl_shards(file: RowFile) -> Iterator[Shard]:
    """Cut a file into ranges of lines. DamagedError where nothing of it can be read."""
    line = 1
    stream = Stream(file.local())
    try:
        for offset, num_bytes, first_line, num_lines, num_rows in _spans(stream):
            line = first_line + num_lines
            yield JsonlShard(
                source=file.source,
                name=shard_name(file.source, file.name, offset),
                fingerprint=xxhash.xxh3_128_hexdigest(
                    repr(("jsonl", file.name, file.stamp, offset, num_bytes, file.prose)).encode()
                ),
                size=num_bytes,
                num_files=num_rows,
                prose=file.prose,
                file=file,
                offset=offset,
                first_line=first_line,
            )
    except DamagedError as error:
        if line == 1:
            raise
        yield problem_shard(
            source=file.source,
            group=shown(file.name),
            path=shown(file.name),
            detail=f"from line {line} on: {error}",
        )
    finally:
        stream.close()


def _spans(stream: Stream) -> Iterator[tuple[int, int, int, int, int]]:
    """(offset, bytes, first line, lines, lines that are not empty) of each range; then DamagedError, if any."""
    start, first_line = 0, 1  # of the range that is open
    end, lines, rows = 0, 0, 0  # of its lines so far
    damage: DamagedError | None = None
    block = b"\n"
    while block:
        try:
            block = stream.read(_BLOCK)
        except DamagedError as error:
            damage = error
            break
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + (stream.position - len(block) + 1)
        if not block and stream.position > end:  # a last line without its end
            ends = np.array([stream.position])
        while len(ends):
            in_size = int(np.searchsorted(ends, start + MAX_SHARD_BYTES, side="right"))
            fits = min(in_size if lines else max(in_size, 1), MAX_SHARD_FILES - lines)
            if fits:  # a line that is longer than a shard is one by itself
                lengths = np.diff(ends[:fits], prepend=end)
                end, lines, rows = int(ends[fits - 1]), lines + fits, rows + int(np.count_nonzero(lengths > 1))
                ends = ends[fits:]
            if len(ends):
                yield start, end - start, first_line, lines, rows
                start, first_line, lines, rows = end, first_line + lines, 0, 0
    if lines:
        yield start, end - start, first_line, lines, rows
    if damage is not None:
        raise damage


def _lines(stream: Stream, num_bytes: int, limit: int) -> Iterator[bytes | int]:
    """Each line without its end, or the length of one that is longer than `limit`."""
    pieces: list[bytes] = []
    length = 0
    while num_bytes:
        block = stream.read(min(_BLOCK, num_bytes))
        if not block:
            raise DamagedError("the file ends here, and was longer when it was listed")
        num_bytes -= len(block)
        *ended, rest = block.split(b"\n")
        for piece in ended:
            length += len(piece)
            yield b"".join((*pieces, piece)).removesuffix(b"\r") if length <= limit else length
            pieces, length = [], 0
        length += len(rest)
        pieces = [*pieces, rest] if length <= limit else []
    if length:
        yield b"".join(pieces).removesuffix(b"\r") if length <= limit else length

"""The files that a shard lists, and where a long list is cut.

    a/b.py  a/c.py ┃ a/d.py  a/e.py  a/f.py ┃ a/g.py …        ┃ after a path whose hash says so

A border belongs to the path before it, not to a count: when a file comes, goes or grows, the list falls back
into step at the next border, so one or two shards change and the results of all others still hold. The larger a
file, the likelier a border after it, which makes shards of about `USUAL_BYTES` or `USUAL_FILES` whatever the
sizes. Only a stretch without a border for long (one in fifty) is cut where it reaches the limit.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import xxhash

from midspan.corpus.document import Reason
from midspan.corpus.sources.source import MAX_SHARD_BYTES, MAX_SHARD_FILES

USUAL_BYTES = 8 << 20
USUAL_FILES = 2048
LEAST = 0.5
"""No border before this share of a usual shard."""


class Listed(NamedTuple):
    """A file as listed."""

    raw: bytes
    """Its path."""
    size: int
    key: bytes = b""
    """What tells its content: a modification time, a blob's id; or where it lies."""
    problem: Reason | None = None
    detail: str = ""


def cut(entries: Iterable[Listed]) -> Iterator[list[Listed]]:
    """Cut a list of files in byte order of path into shards."""
    chunk: list[Listed] = []
    size, weight = 0, 0.0
    for entry in entries:
        if chunk and (size + entry.size > MAX_SHARD_BYTES or len(chunk) == MAX_SHARD_FILES):
            yield chunk
            chunk, size, weight = [], 0, 0.0
        chunk.append(entry)
        size += entry.size
        share = entry.size / USUAL_BYTES + 1 / USUAL_FILES
        weight += share
        if weight >= LEAST and xxhash.xxh3_64_intdigest(entry.raw) / 2**64 < share:
            yield chunk
            chunk, size, weight = [], 0, 0.0
    if chunk:
        yield chunk


def fingerprint(entries: Sequence[Listed], *about: str | bool | int) -> str:
    """XXH3-128 of a list, and of what else decides the files."""
    state = xxhash.xxh3_128(repr(about).encode())
    for entry in entries:
        state.update(b"%d %d %d %d " % (len(entry.raw), entry.size, len(entry.key), len(entry.detail)))
        state.update(entry.raw + entry.key + f"{entry.problem} {entry.detail}".encode())
    return state.hexdigest()


def pack(entries: Sequence[Listed]) -> bytes:
    """A list in about 20 bytes a file: the lists of all shards wait in memory at once."""
    return zlib.compress(pickle.dumps([tuple(entry) for entry in entries]), 1)


def unpack(packed: bytes) -> list[Listed]:
    """The list again."""
    return [Listed(*values) for values in pickle.loads(zlib.decompress(packed))]

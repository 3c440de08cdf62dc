"""A corpus on disk: a folder of Parquet files, one row for every file found, and one manifest.

    my-corpus/
      corpus.json       manifest: settings, sources with commits, files with counts, removed groups, fingerprint
      files/*.parquet   what was found, kept or dropped, with every decision; the text of what was kept
      cache/            what a later build reuses; may be deleted at any time

The manifest is the commit marker: files carry the hash of what they hold in their name, new ones are written
beside the old, then the manifest is replaced in one step and what it no longer names is deleted. A build that
was killed anywhere leaves the former corpus, or none, and files that the next build takes up.

Rows stand by source, shard and path. Row groups hold about 16 MiB of text, so that reading takes bounded memory.
The fingerprint covers the ids and splits of the kept files in order, and an id covers the text, so two corpora
with one fingerprint give the same documents. Nothing written depends on the clock or the machine.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from midspan import __version__
from midspan.corpus.document import SPLITS, TRAIN, Document
from midspan.errors import InputError
from midspan.files import atomic_file, write_json

SCHEMA_VERSION = 2
MANIFEST_NAME = "corpus.json"
FILES, CACHE, PARTS, LOCK = "files", "cache", "parts", ".lock"
KEPT, DROPPED = "kept", "dropped"

ROW_GROUP_BYTES = 16 << 20
ROW_GROUP_ROWS = 16_384

STRINGS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        pa.field("id", pa.uint64()),  # null where the file was never decoded
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("commit", pa.string()),
        pa.field("language", pa.string(), nullable=False),
        pa.field("encoding", pa.string()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("lines", pa.int64()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("licences", STRINGS),
        pa.field("secrets", pa.int32()),
        pa.field("emails", pa.int32()),
        pa.field("ips", pa.int32()),
        pa.field("contamination", STRINGS),
        pa.field("cluster", pa.uint64()),
        pa.field("duplicate_of", pa.string()),
        pa.field("similarity", pa.float32()),
        pa.field("text", pa.string()),
    ]
)
"""Columns of `files/*.parquet`; docs/corpus.md says what each holds."""

_DICTIONARIES = [
    *("source", "group", "commit", "language", "encoding", "split", "decision", "reason"),
    "licences.list.element",
]


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One Parquet file of a corpus, as the manifest names it. Sizes are bytes of kept text."""

    name: str
    part: str
    source: str
    commit: str | None
    rows: int
    kept: Mapping[str, int]
    kept_bytes: Mapping[str, int]
    dropped: Mapping[str, int]
    languages: Mapping[str, int]
    held_out_groups: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`corpus.json`. Counts are files, sizes are bytes of kept text; `languages` counts kept files."""

    schema_version: int
    midspan_version: str
    parameters: Mapping[str, Any]
    sources: tuple[Mapping[str, str | None], ...]
    removed: tuple[str, ...]
    stored: tuple[StoredFile, ...]
    fingerprint: str

    @property
    def files(self) -> int:
        """Files found."""
        return sum(stored.rows for stored in self.stored)

    @property
    def kept(self) -> Mapping[str, int]:
        """Kept files by split."""
        return {split: sum(stored.kept.get(split, 0) for stored in self.stored) for split in SPLITS}

    @property
    def kept_bytes(self) -> Mapping[str, int]:
        """Bytes of kept text by split."""
        return {split: sum(stored.kept_bytes.get(split, 0) for stored in self.stored) for split in SPLITS}

    @property
    def dropped(self) -> Mapping[str, int]:
        """Dropped files by reason, the most frequent first."""
        return dict(sum((Counter(stored.dropped) for stored in self.stored), Counter[str]()).most_common())

    @property
    def languages(self) -> Mapping[str, int]:
        """Kept files by language, the most frequent first."""
        return dict(sum((Counter(stored.languages) for stored in self.stored), Counter[str]()).most_common())

    @property
    def held_out_groups(self) -> tuple[str, ...]:
        """Groups of which something was kept for evaluation."""
        return tuple(sorted({group for stored in self.stored for group in stored.held_out_groups}))

    def summary(self) -> dict[str, Any]:
        """What is shown of a manifest: everything but the list of stored files."""
        shown = {name: getattr(self, name) for name in ("files", "kept", "kept_bytes", "dropped", "languages")}
        own = {name: value for name, value in asdict(self).items() if name != "stored"}
        return own | shown | {"held_out_groups": self.held_out_groups}

    def write(self, folder: Path) -> None:
        """Make this the manifest of a corpus folder, in one step."""
        write_json(folder / MANIFEST_NAME, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a corpus folder's manifest; InputError if the folder is no whole corpus of this version."""
        path = folder / MANIFEST_NAME
        if not folder.is_dir():
            raise InputError(f"there is no corpus at {folder}; build one with `midspan corpus build`")
        if not path.is_file():
            raise InputError(f"{folder} is not a whole corpus ({MANIFEST_NAME} is expected); build one")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            version = found["schema_version"]
            if version == SCHEMA_VERSION:
                stored = tuple(
                    StoredFile(**(one | {"held_out_groups": tuple(one["held_out_groups"])}))
                    for one in found["stored"]
                )
                lists = {name: tuple(found[name]) for name in ("sources", "removed")}
                return cls(**(found | lists | {"stored": stored}))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}); build the corpus again") from None
        raise InputError(
            f"{path} has format {version}, this Midspan reads {SCHEMA_VERSION}; build the corpus again"
        )


def manifest_of(
    *,
    parameters: Mapping[str, Any],
    sources: tuple[Mapping[str, str | None], ...],
    removed: tuple[str, ...],
    stored: tuple[StoredFile, ...],
) -> Manifest:
    """The manifest of these files in this order."""
    fingerprints = "".join(one.fingerprint for one in stored if sum(one.kept.values()))
    return Manifest(
        schema_version=SCHEMA_VERSION,
        midspan_version=__version__,
        parameters=parameters,
        sources=sources,
        removed=removed,
        stored=stored,
        fingerprint=xxhash.xxh3_128_hexdigest(fingerprints.encode()),
    )


def check_place(folder: Path) -> None:
    """InputError unless a corpus may be put at `folder`: nothing, an empty folder or a corpus stands there."""
    if os.path.lexists(folder):
        if not folder.is_dir():
            raise InputError(f"{folder} is there already and no folder; choose another place")
        strange = set(os.listdir(folder)) - {MANIFEST_NAME, FILES, CACHE, LOCK}
        if strange := {name for name in strange if not name.startswith(f".{MANIFEST_NAME}.tmp-")}:
            raise InputError(f"{folder} holds more than a corpus ({min(strange)!r}); choose another folder")


def write_file(folder: Path, name: str, part: str, source: str, commit: str | None, table: pa.Table) -> StoredFile:
    """Write rows (`SCHEMA`) as one file of a corpus and count them."""
    kept = table.filter(pc.equal(table["decision"], KEPT))
    path = folder / FILES / name
    if not path.exists():
        with atomic_file(path) as aside:
            _write_rows(aside, table)
    splits, sizes = kept["split"].to_pylist(), kept["bytes"].to_pylist()
    kept_bytes: Counter[str] = Counter()
    for split, size in zip(splits, sizes, strict=True):
        kept_bytes[split] += size
    held_out = kept.filter(pc.not_equal(kept["split"], TRAIN))
    dropped = [reason for reason in table["reason"].to_pylist() if reason is not None]
    return StoredFile(
        name=name,
        part=part,
        source=source,
        commit=commit,
        rows=table.num_rows,
        kept=dict(sorted(Counter(splits).items())),
        kept_bytes=dict(sorted(kept_bytes.items())),
        dropped=dict(sorted(Counter(dropped).items())),
        languages=dict(sorted(Counter(kept["language"].to_pylist()).items())),
        held_out_groups=tuple(sorted(set(held_out["group"].to_pylist()))),
        fingerprint=_fingerprint(kept),
    )


def _write_rows(path: Path, table: pa.Table) -> None:
    writer = pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        use_dictionary=_DICTIONARIES,
        write_statistics=["split", "decision"],
        write_page_checksum=True,
    )
    with writer:
        for rows in row_groups(table):
            writer.write_table(rows)


def row_groups(table: pa.Table) -> Iterator[pa.Table]:
    """A table in runs of about `ROW_GROUP_BYTES` of text."""
    sizes = np.array(pc.fill_null(pc.binary_length(table["text"]), 0))
    starts, held = [0], 0
    for index, size in enumerate(sizes):
        held += int(size)
        if held >= ROW_GROUP_BYTES or index - starts[-1] >= ROW_GROUP_ROWS:
            starts.append(index + 1)
            held = 0
    for start, end in zip(starts, [*starts[1:], table.num_rows], strict=True):
        if end > start:
            yield table.slice(start, end - start)


def _fingerprint(kept: pa.Table) -> str:
    codes = np.array(pc.index_in(kept["split"], pa.array(SPLITS))).astype(np.uint64)
    pairs = np.stack([np.array(kept["id"]).astype(np.uint64), codes], axis=1)
    return xxhash.xxh3_128_hexdigest(pairs.astype("<u8").tobytes())


class Corpus:
    """Reads a corpus. `Corpus.open` checks that it is whole; page checksums are checked as text is read."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path | str) -> Corpus:
        """Open a corpus folder; InputError if it is absent, incomplete or damaged."""
        folder = Path(folder)
        manifest = Manifest.read(folder)
        for stored in manifest.stored:
            path = folder / FILES / stored.name
            try:
                num_rows = pq.read_metadata(path).num_rows
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, str(error)) from None
            if num_rows != stored.rows:
                raise _damaged(path, f"it has {num_rows} rows and {MANIFEST_NAME} says {stored.rows}")
        return cls(folder, manifest)

    @property
    def fingerprint(self) -> str:
        """Names the kept documents and their order, for a run's resume state."""
        return self.manifest.fingerprint

    def documents(self, split: str = TRAIN) -> Iterator[Document]:
        """The documents of a split, always in the same order; about 16 MiB of text are held at a time."""
        if split not in SPLITS:
            raise InputError(f"no split is called {split!r}; a corpus has {SPLITS[0]!r} and {SPLITS[1]!r}")
        columns = ["source", "group", "path", "text", "language", "commit"]
        for stored in self.manifest.stored:
            if stored.kept.get(split):
                for rows in self._rows(stored, ["split", "decision", *columns]):
                    wanted = pc.and_(pc.equal(rows["split"], split), pc.equal(rows["decision"], KEPT))
                    for row in rows.filter(wanted).select(columns).to_pylist():
                        yield Document(**row)

    def rows(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of every row, kept or dropped, a few thousand rows at a time."""
        for stored in self.manifest.stored:
            yield from self._rows(stored, columns)

    def _rows(self, stored: StoredFile, columns: list[str]) -> Iterator[pa.Table]:
        path = self.folder / FILES / stored.name
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
                for index in range(parquet.num_row_groups):
                    yield parquet.read_row_group(index, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> InputError:
    first_line = why.splitlines()[0].rstrip(".") if why else "unreadable"
    return InputError(f"{path} is damaged ({first_line}); build the corpus again")

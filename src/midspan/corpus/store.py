"""A corpus on disk: a folder with one Parquet file and one manifest.

    my-corpus/
      files.parquet   one row per file found, kept or dropped: id, source, group, path, commit, language,
                      bytes, lines, split, decision, reason, duplicate_of, text (null when dropped)
      corpus.json     manifest: versions, parameters, sources with commits, counts, fingerprint

Rows stand in reading order: held-out files first, then training files, each by source and path. Row groups
hold about 16 MiB of text, so that writing and reading take bounded memory whatever the size of the corpus.
The folder is written under another name beside its place and renamed when complete: it is whole or absent.

The fingerprint covers the ids and splits of the kept files in order, and an id covers the text, so two
corpora with one fingerprint give the same documents. Nothing written depends on the clock or the machine.

Left out on purpose: shards (one file is enough until more than one process writes), and access to a document
by its index, which would cost a row group of decompression for each.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from midspan import __version__
from midspan.corpus.document import SPLITS, TRAIN, Document, Record
from midspan.corpus.quality import line_count
from midspan.errors import InputError
from midspan.files import write_json

SCHEMA_VERSION = 1
FILES_NAME = "files.parquet"
MANIFEST_NAME = "corpus.json"
KEPT, DROPPED = "kept", "dropped"

ROW_GROUP_BYTES = 16 << 20
ROW_GROUP_ROWS = 16_384

SCHEMA = pa.schema(
    [
        pa.field("id", pa.uint64()),  # null where the file was never decoded
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("commit", pa.string()),
        pa.field("language", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("lines", pa.int64()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("duplicate_of", pa.string()),
        pa.field("text", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`corpus.json`. Counts are files, sizes are bytes of kept text; `languages` counts kept files."""

    schema_version: int
    midspan_version: str
    parameters: Mapping[str, Any]
    sources: tuple[Mapping[str, str | None], ...]
    files: int
    kept: Mapping[str, int]
    kept_bytes: Mapping[str, int]
    dropped: Mapping[str, int]
    languages: Mapping[str, int]
    held_out_groups: tuple[str, ...]
    fingerprint: str

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a corpus folder's manifest; InputError if the folder is no whole corpus of this version."""
        path = folder / MANIFEST_NAME
        if not folder.is_dir():
            raise InputError(f"there is no corpus at {folder}; build one with `midspan corpus build`")
        if not path.is_file() or not (folder / FILES_NAME).is_file():
            raise InputError(
                f"{folder} is not a whole corpus ({MANIFEST_NAME} and {FILES_NAME} are expected); build one"
            )
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            version = found["schema_version"]
            if version == SCHEMA_VERSION:
                lists = {name: tuple(found[name]) for name in ("sources", "held_out_groups")}
                return cls(**(found | lists))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}); build the corpus again") from None
        raise InputError(
            f"{path} has format {version}, this Midspan reads {SCHEMA_VERSION}; build the corpus again"
        )


class _Fingerprint:
    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()

    def add(self, ids: "pa.Array", splits: "pa.Array") -> None:
        codes = pc.index_in(splits, pa.array(SPLITS)).to_numpy(zero_copy_only=False)
        table = np.stack([ids.to_numpy(zero_copy_only=False), codes.astype(np.uint64)], axis=1)
        self._hash.update(table.astype("<u8").tobytes())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def check_place(folder: Path, *, overwrite: bool) -> None:
    """InputError unless a corpus may be put at `folder`.

    Nothing may stand there; with `overwrite`, a corpus (whole or damaged) or an empty folder may: no other
    files are ever deleted.
    """
    if os.path.lexists(folder):
        if not overwrite:
            raise InputError(f"{folder} is there already; choose another folder, or ask to overwrite it")
        if not folder.is_dir() or not {FILES_NAME, MANIFEST_NAME}.issuperset(os.listdir(folder)):
            raise InputError(f"{folder} holds more than a corpus, so it is not overwritten; choose another")


class CorpusWriter:
    """Writes a corpus into an empty folder; it is whole once `finish` has returned.

    Use as a context manager.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records: list[Record] = []
        self._batch_bytes = 0
        self._fingerprint = _Fingerprint()
        self.files = 0
        self.kept: Counter[str] = Counter()
        self.kept_bytes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self._held_out_groups: set[str] = set()

    def __enter__(self) -> Self:
        dictionary = [name for name in SCHEMA.names if name not in ("id", "path", "bytes", "lines", "text")]
        self._parquet = pq.ParquetWriter(
            self._folder / FILES_NAME,
            SCHEMA,
            compression="zstd",
            use_dictionary=dictionary,
            write_statistics=["split", "decision"],
            write_page_checksum=True,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._parquet.close()

    def add(self, record: Record) -> None:
        """Take one record, in reading order."""
        self.files += 1
        if record.reason is None:
            self.kept[record.split] += 1
            self.kept_bytes[record.split] += record.size
            self.languages[record.language] += 1
            if record.split != TRAIN:
                self._held_out_groups.add(record.group)
        else:
            self.dropped[str(record.reason)] += 1
        self._records.append(record)
        self._batch_bytes += record.size if record.text is not None else 0
        if self._batch_bytes >= ROW_GROUP_BYTES or len(self._records) >= ROW_GROUP_ROWS:
            self._write_row_group()

    def _write_row_group(self) -> None:
        rows = [_row(record) for record in self._records]
        batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
        self._parquet.write_batch(batch)
        kept = batch.filter(pc.equal(batch["decision"], KEPT))
        self._fingerprint.add(kept["id"], kept["split"])
        self._records, self._batch_bytes = [], 0

    def finish(self, parameters: Mapping[str, Any], sources: tuple[Mapping[str, str | None], ...]) -> Manifest:
        """Write what is left and the manifest."""
        if self._records:
            self._write_row_group()
        self._parquet.close()
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            midspan_version=__version__,
            parameters=parameters,
            sources=sources,
            files=self.files,
            kept={split: self.kept[split] for split in SPLITS},
            kept_bytes={split: self.kept_bytes[split] for split in SPLITS},
            dropped=dict(self.dropped.most_common()),
            languages=dict(self.languages.most_common()),
            held_out_groups=tuple(sorted(self._held_out_groups)),
            fingerprint=self._fingerprint.hexdigest(),
        )
        write_json(self._folder / MANIFEST_NAME, asdict(manifest))
        return manifest


def _row(record: Record) -> dict[str, Any]:
    kept = record.reason is None
    decoded = record.text is not None
    return {
        "id": record.document().id if decoded else None,
        "source": record.source,
        "group": record.group,
        "path": record.path,
        "commit": record.commit,
        "language": record.language,
        "bytes": record.size,
        "lines": line_count(record.text) if record.text is not None else None,
        "split": record.split,
        "decision": KEPT if kept else DROPPED,
        "reason": None if kept else str(record.reason),
        "duplicate_of": record.duplicate_of,
        "text": record.text if kept else None,
    }


class Corpus:
    """Reads a corpus. `Corpus.open` checks that it is whole; page checksums are checked as text is read."""

    def __init__(self, folder: Path, manifest: Manifest, parquet: pq.ParquetFile) -> None:
        self.folder = folder
        self.manifest = manifest
        self._parquet = parquet

    @classmethod
    def open(cls, folder: Path | str) -> "Corpus":
        """Open a corpus folder; InputError if it is absent, incomplete or damaged."""
        folder = Path(folder)
        manifest = Manifest.read(folder)
        fingerprint, num_rows = _Fingerprint(), 0
        try:
            parquet = pq.ParquetFile(folder / FILES_NAME, page_checksum_verification=True)
            for index in range(parquet.num_row_groups):
                table = parquet.read_row_group(index, columns=["id", "split", "decision"])
                num_rows += table.num_rows
                kept = table.filter(pc.equal(table["decision"], KEPT))
                fingerprint.add(kept["id"], kept["split"])
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _damaged(folder, str(error)) from None
        if num_rows != manifest.files or fingerprint.hexdigest() != manifest.fingerprint:
            raise _damaged(folder, f"it does not belong to this {MANIFEST_NAME}")
        return cls(folder, manifest, parquet)

    @property
    def fingerprint(self) -> str:
        """Names the kept documents and their order, for a run's resume state."""
        return self.manifest.fingerprint

    def ids(self, split: str = TRAIN) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        """Ids of a split's documents, in the order of `documents`."""
        found = [rows["id"].to_numpy() for rows in self._kept(split, ["id"])]
        return np.concatenate(found) if found else np.empty(0, np.uint64)

    def documents(self, split: str = TRAIN) -> Iterator[Document]:
        """The documents of a split, always in the same order; about 16 MiB of text are held at a time."""
        columns = ["source", "group", "path", "text", "language", "commit"]
        for rows in self._kept(split, columns):
            for row in rows.to_pylist():
                yield Document(**row)

    def _kept(self, split: str, columns: list[str]) -> Iterator["pa.Table"]:
        """Kept rows of a split, row group by row group; groups that hold none are not read."""
        if split not in SPLITS:
            raise InputError(f"no split is called {split!r}; a corpus has {SPLITS[0]!r} and {SPLITS[1]!r}")
        try:
            for index in range(self._parquet.num_row_groups):
                judged = self._parquet.read_row_group(index, columns=["split", "decision"])
                wanted = pc.and_(pc.equal(judged["split"], split), pc.equal(judged["decision"], KEPT))
                if pc.any(wanted).as_py():
                    yield self._parquet.read_row_group(index, columns=columns).filter(wanted)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.folder, str(error)) from None


def _damaged(folder: Path, why: str) -> InputError:
    first_line = why.splitlines()[0].rstrip(".") if why else "unreadable"
    return InputError(f"{folder / FILES_NAME} is damaged ({first_line}); build the corpus again")

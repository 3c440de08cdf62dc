"""A shard → one row for every file in it: its text and language, or why it was dropped, and what duplicates need.

    file ── name ── bytes ── text ── language ── origin ── quality ── licence facts ── redacted ── sketched
             │        │        │        │           │          │                           │
          language  unread-  binary   not asked   vendored   longest                  benchmark
          vendored   able    too large   for      generated   line …                     items

Every question looks at one file alone, so shards can be examined anywhere in any order; what depends on other
files (licences of a repository, duplicates) is decided by `relate` from the narrow columns written here. Cheap
questions come first: a file in another language is not read at all, but where it states a licence.

The row that a file leaves is kept in the corpus's cache under a name that covers what the shard lists and every
setting that matters here, so that a file is examined again only when it or the settings changed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from midspan.corpus.decode import Decoded, decode
from midspan.corpus.decontaminate import Decontaminator
from midspan.corpus.document import Reason
from midspan.corpus.language import language_of, language_of_content, possible_languages
from midspan.corpus.licence import facts, may_say
from midspan.corpus.near_duplicates import BANDS, SKETCH_VERSION, band_keys
from midspan.corpus.origin import origin_problem
from midspan.corpus.quality import line_count, quality_problem
from midspan.corpus.redact import redact
from midspan.corpus.sources import File, Shard
from midspan.corpus.store import STRINGS
from midspan.files import atomic_file

EXAMINE_VERSION = 1
"""Part of every cached row's name; raised when a rule changes what it answers."""

ROW_GROUP_FILES = 1024
KEY_BYTES = 8 * BANDS
PART_SCHEMA = pa.schema(
    [
        pa.field("group", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("commit", pa.string()),
        pa.field("language", pa.string(), nullable=False),
        pa.field("encoding", pa.string()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("lines", pa.int64()),
        pa.field("stars", pa.int32()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("licences_header", STRINGS),  # what the file says of licences: see `licence.Facts`
        pa.field("licences_text", STRINGS),
        pa.field("licences_declared", STRINGS),
        pa.field("licences_covers", STRINGS),
        pa.field("secrets", pa.int32()),
        pa.field("emails", pa.int32()),
        pa.field("ips", pa.int32()),
        pa.field("contamination", STRINGS),
        pa.field("hash", pa.binary(16)),
        pa.field("sketch", pa.binary(KEY_BYTES)),
        pa.field("text", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The settings that decide how a file is judged by itself."""

    languages: frozenset[str] = frozenset()
    """Keep only these; empty: all."""
    exclude: tuple[str, ...] = ()
    """Patterns of paths that are left out."""
    max_bytes: int = 1 << 20
    """Above it are data and generated code. The Stack v2 drops 10 MiB at ingest."""
    quality: bool = True
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Quality thresholds by extension, over the built-in ones."""
    vendored: bool = False
    """Keep vendored and generated files."""
    redact_key: str | None = None
    """What replaces secrets and addresses is drawn with this key; None: they stay."""
    near_duplicates: bool = True
    benchmarks: Path | None = None
    """The index of benchmark items to keep out (`Decontaminator`, pickled)."""
    benchmarks_fingerprint: str = ""

    @property
    def fingerprint(self) -> str:
        """Names these settings and the version of the rules."""
        values = asdict(self) | {"languages": sorted(self.languages), "benchmarks": None}
        libraries = [version(name) for name in ("kingfisher-secret-scanner", "licenseclassifier")]
        text = json.dumps([EXAMINE_VERSION, SKETCH_VERSION, libraries, values], sort_keys=True)
        return xxhash.xxh3_128_hexdigest(text.encode())

    def wanted(self, path: str) -> bool:
        """Whether a file is read: its name speaks for it, or it may state a licence."""
        return self.name_problem(path) is None or may_say(path)

    def name_problem(self, path: str, stated: str | None = None) -> tuple[Reason, str] | None:
        """Why a file is dropped before it is read; `stated` is its language where the source says it."""
        if found := next((pattern for pattern in self.exclude if fnmatchcase(path, pattern)), None):
            return Reason.EXCLUDED, found
        possible = possible_languages(path) if stated is None else {stated}
        if self.languages and self.languages.isdisjoint(possible):
            return Reason.LANGUAGE, stated or language_of(path)
        return None if self.vendored else origin_problem(path, None)


def part_name(shard: Shard, examination: Examination) -> str:
    """The name under which a shard's rows are cached."""
    key = xxhash.xxh3_64_hexdigest(f"{shard.source}\0{shard.fingerprint}\0{examination.fingerprint}".encode())
    return f"{shard.name}-{key}.parquet"


def examine_shard(shared: tuple[Examination, Path], shard: Shard) -> None:
    """Examine a shard's files and write their rows into the cache folder, whole or not at all."""
    examination, folder = shared
    rows = [_examine(file, shard, examination) for file in shard.files(examination.wanted, examination.max_bytes)]
    if examination.near_duplicates:
        texts = [row["text"].encode() if row["text"] is not None else b"" for row in rows]
        for row, keys in zip(rows, band_keys(texts), strict=True):
            row["sketch"] = keys.astype("<u8").tobytes() if row.get("reason") is None else None
    with atomic_file(folder / part_name(shard, examination)) as aside:
        pq.write_table(
            pa.Table.from_pylist(rows, schema=PART_SCHEMA),
            aside,
            compression="zstd",
            row_group_size=ROW_GROUP_FILES,
        )


def _examine(file: File, shard: Shard, examination: Examination) -> dict[str, Any]:
    """One file's row (`PART_SCHEMA`); a column that is not set is null."""
    row: dict[str, Any] = {
        "group": file.group,
        "path": file.path,
        "commit": file.commit,
        "language": file.language or language_of(file.path),
        "bytes": file.size,
        "stars": file.stars,
        "licences_header": list(file.licences) if file.licences is not None else None,
    }
    problem = _read(row, file) or _judge(row, examination, file.language is not None, shard.prose)
    if problem is not None:
        reason, detail = problem
        return row | {"reason": str(reason), "detail": detail or None, "text": None}
    row["hash"] = xxhash.xxh3_128_digest(row["text"].encode())
    return row


def _read(row: dict[str, Any], file: File) -> tuple[Reason, str] | None:
    """Set the text of a row, and what it states about licences; or say why there is none."""
    if file.problem is not None:
        return file.problem, file.detail
    if file.data is None:  # not wanted: `_judge` says why
        return None
    decoded = decode(file.data)
    if not isinstance(decoded, Decoded):
        return decoded
    row |= {"text": decoded.text, "encoding": decoded.encoding, "lines": line_count(decoded.text)}
    row["bytes"] = len(decoded.text.encode())
    if file.licences is None:
        said = asdict(facts(file.path, decoded.text))
        row |= {f"licences_{name}": list(values) or None for name, values in said.items()}
    return None


def _judge(row: dict[str, Any], examination: Examination, stated: bool, prose: bool) -> tuple[Reason, str] | None:
    """The first rule that drops a file; secrets are redacted on the way.

    Args:
        stated: the source says the language.
        prose: the source is natural language: asked for whatever the languages, and judged as documentation.
    """
    path, language = row["path"], row["language"]
    problem = None if prose else examination.name_problem(path, language if stated else None)
    if problem is not None:
        return problem
    text: str = row["text"]
    if not stated and not prose:
        row["language"] = language = language_of_content(path, text, language)
    if not prose and examination.languages and language not in examination.languages:
        return Reason.LANGUAGE, language
    if not prose and not examination.vendored and (problem := origin_problem(path, text)):
        return problem
    if not text or text.isspace():
        return Reason.EMPTY, ""
    if examination.quality:
        judged_as = ("", "markdown") if prose else (path, language)
        problem = quality_problem(text, *judged_as, overrides=examination.thresholds)
        if problem is not None:
            return problem
    if examination.redact_key is not None:
        redacted = redact(text, key=examination.redact_key)
        row |= {"text": redacted.text, "bytes": len(redacted.text.encode())}
        for column, kind in (("secrets", "secret"), ("emails", "email"), ("ips", "ip")):
            row[column] = redacted.counts.get(kind, 0)
    if examination.benchmarks is not None:
        hits = _decontaminator(examination.benchmarks).hits(text, language)
        if hits:
            row["contamination"] = [f"{hit.benchmark}/{hit.id} {hit.how}" for hit in hits]
            return Reason.CONTAMINATED, row["contamination"][0]
    return None


def warm_up(examination: Examination) -> None:
    """Compile what is compiled once and kept, so that worker processes find it and do not all do it."""
    band_keys([b"one two three four five six"])
    if examination.redact_key is not None:
        redact("", key=examination.redact_key)


@functools.cache
def _decontaminator(path: Path) -> Decontaminator:
    """The index of benchmark items, once a process."""
    return Decontaminator.open(path)

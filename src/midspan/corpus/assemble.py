"""Examined parts → the corpus: what files decide about each other, the files written, the manifest replaced."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from midspan.corpus.config import CorpusConfig, Progress, Report
from midspan.corpus.document import HELD_OUT, TRAIN, document_id
from midspan.corpus.engine import Engine
from midspan.corpus.examine import ROW_GROUP_FILES
from midspan.corpus.licence import check_allowed
from midspan.corpus.relate import REMOVED, Part, Relations, relate
from midspan.corpus.store import (
    CACHE,
    DROPPED,
    FILES,
    KEPT,
    PARTS,
    SCHEMA,
    SCHEMA_VERSION,
    Manifest,
    StoredFile,
    manifest_of,
    write_file,
)
from midspan.errors import InputError
from midspan.files import atomic_file

WRITE_VERSION = 1
"""Part of every stored file's name; raised when the same decisions are written differently."""


@dataclass(frozen=True)
class Assembly:
    """Puts examined parts together."""

    folder: Path
    config: CorpusConfig
    removed: tuple[str, ...]
    engine: Engine
    report: Report

    def run(
        self, parts: Sequence[Part], parameters: Mapping[str, Any], sources: tuple[Mapping[str, str | None], ...]
    ) -> Manifest:
        """Decide, write, and put the new corpus in the old one's place."""
        config, gone = self.config, frozenset(self.removed)
        relations = Relations(
            held_out=config.rule,
            licences=check_allowed(config.licences),
            near_duplicates=config.near_duplicates,
            removed=gone,
        )
        for left in (self.folder / CACHE).glob("scratch-*"):  # of a build that was killed; the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.folder / CACHE, prefix="scratch-") as scratch:
            step = lambda name: self.report(Progress(step=name))  # noqa: E731
            decisions = relate(parts, relations, engine=self.engine, scratch=Path(scratch), progress=step)
        tasks = list(zip(parts, decisions, strict=True))
        self.report(Progress(step="writing", total=len(tasks)))
        stored: list[StoredFile | None] = [None] * len(tasks)
        groups = {group for part in parts for group in part.groups()} - gone
        for done, (number, one) in enumerate(self.engine.map(_write, self.folder, tasks), start=1):
            stored[number] = one
            self.report(Progress(step="writing", done=done, total=len(tasks)))
        manifest = manifest_of(
            parameters=parameters,
            sources=sources,
            removed=self.removed,
            stored=tuple(one for one in stored if one is not None and one.rows),
        )
        self._check(manifest, groups)
        manifest.write(self.folder)
        for part in parts:
            if not gone.isdisjoint(part.groups()):
                _purge(part.path, gone)
        self._prune(manifest, {part.path.name for part in parts})
        return manifest

    def _check(self, manifest: Manifest, groups: set[str]) -> None:
        """InputError if a group to hold out is not there, or a split that was asked for is empty."""
        self.config.rule.check(groups)
        why = ", ".join(f"{count} {reason}" for reason, count in manifest.dropped.items())
        if not manifest.kept[TRAIN]:
            raise InputError(
                f"nothing is left to train on of {manifest.files} files, dropped were {why or 'none'}; "
                "name more code, or loosen what was asked for"
            )
        if self.config.rule and not manifest.kept[HELD_OUT]:
            raise InputError(f"no file of the held-out groups was kept ({why}); hold out a group that holds code")

    def _prune(self, manifest: Manifest, parts: set[str]) -> None:
        """Delete files that nothing names any more."""
        for folder, names in ((FILES, {one.name for one in manifest.stored}), (f"{CACHE}/{PARTS}", parts)):
            for path in (self.folder / folder).iterdir():
                if path.name not in names:
                    path.unlink(missing_ok=True)


def _write(folder: Path, task: tuple[Part, pa.Table]) -> StoredFile:
    """Write one part with its decisions as a file of the corpus, unless it lies there already."""
    part, decisions = task
    named = xxhash.xxh3_64(f"{WRITE_VERSION}\0{SCHEMA_VERSION}\0{part.path.name}\0{part.commit}".encode())
    for batch in decisions.to_batches():
        named.update(batch.serialize())
    rows = pq.read_table(part.path)
    stays = pc.not_equal(pc.fill_null(decisions["reason"], ""), REMOVED)
    rows, decisions = rows.filter(stays), decisions.filter(stays)
    dropped = pc.is_valid(decisions["reason"])
    texts = rows["text"]
    own = {name: rows[name] for name in rows.column_names if name in SCHEMA.names}
    table = pa.table(
        own
        | {name: decisions[name] for name in decisions.column_names}
        | {
            "id": pa.array(_ids(part.source, rows), pa.uint64()),
            "source": pa.array([part.source] * len(rows)),
            "commit": rows["commit"] if part.commit is None else pa.array([part.commit] * len(rows)),
            "decision": pc.if_else(dropped, DROPPED, KEPT),
            "text": pc.if_else(dropped, pa.scalar(None, pa.string()), texts),
        }
    ).select(SCHEMA.names)
    name = f"{part.path.stem.rpartition('-')[0]}-{named.hexdigest()}.parquet"
    return write_file(folder, name, part.path.name, part.source, part.commit, table.cast(SCHEMA))


def _ids(source: str, rows: pa.Table) -> list[int | None]:
    columns = (rows[name].to_pylist() for name in ("group", "path", "text"))
    return [
        None if text is None else document_id(source, group, path, text)
        for group, path, text in zip(*columns, strict=True)
    ]


def _purge(path: Path, groups: frozenset[str]) -> None:
    """Delete the rows of groups from a cached part."""
    table = pq.read_table(path)
    table = table.filter(pc.invert(pc.is_in(table["group"], pa.array(sorted(groups)))))
    with atomic_file(path) as aside:
        pq.write_table(table, aside, compression="zstd", row_group_size=ROW_GROUP_FILES)

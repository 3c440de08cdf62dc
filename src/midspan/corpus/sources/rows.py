"""Data sets: a file of rows, or a folder of them.

A folder whose files are all rows is a data set, as they are published: its `README.md` and what tools left beside
the rows do not make it a folder of code, and neither does git, in which large data sets lie as LFS pointers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from midspan.corpus.sources.jsonl import jsonl_shards
from midspan.corpus.sources.parquet import parquet_shards
from midspan.corpus.sources.row_file import RowFile
from midspan.corpus.sources.source import Shard, Source, problem_shard, shown
from midspan.corpus.sources.stream import DamagedError
from midspan.errors import InputError

PARQUET_SUFFIX = ".parquet"
ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", PARQUET_SUFFIX)
_BESIDE = (".md", ".json", ".txt", ".yaml", ".lock", ".crc", "license")


@dataclass(frozen=True, kw_only=True)
class Rows(Source):
    """Files of rows."""

    label: str
    row_files: Sequence[RowFile]
    commit: str | None = None
    prose: bool = False

    def shards(self) -> Iterator[Shard]:
        """Each file's ranges of rows. One unreadable file among many is a file with a problem."""
        for file in self.row_files:
            try:
                yield from (parquet_shards if file.name.endswith(PARQUET_SUFFIX) else jsonl_shards)(file)
            except DamagedError as error:
                if len(self.row_files) == 1:
                    raise InputError(
                        f"{file.path} of source {self.label!r} cannot be read ({error}); make or fetch it again"
                    ) from None
                name = shown(file.name)
                yield problem_shard(source=self.label, group=name, path=name, detail=str(error))


def find_row_files(root: Path, excluded: Path) -> list[Path]:
    """Every file of rows below a folder that holds nothing else, in order of path; none if it does.

    The walk ends at the first other file, so a folder of code is told at once.
    """
    found: list[Path] = []
    errors: list[OSError] = []
    for place, folders, names in os.walk(root, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and Path(place, name) != excluded)
        for name in names:
            if name.endswith(ROW_SUFFIXES):
                found.append(Path(place, name))
            elif not name.startswith(".") and not name.lower().endswith(_BESIDE):
                return []
    if found and errors:
        raise InputError(f"{errors[0].filename} cannot be read ({errors[0].strerror}); open it, or name the files")
    return sorted(found, key=os.fsencode)

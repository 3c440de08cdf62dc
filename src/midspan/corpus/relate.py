"""What files decide about each other: licences of a repository, exact and near duplicates.

    columns of all parts ── licences ── policy ── exact duplicates ── near duplicates ── decisions, a table a part

Only narrow columns are held for all files at once, about 200 bytes a file.

Among files that are alike the one of best rank stays: held-out before training (so that evaluation does not
shrink when training holds a copy), permissive licences first, then more stars, then source, shard and path. A
file goes as a near duplicate only if a file that stays is at least 0.7 similar to it, measured on all of both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from midspan.corpus.alike import bytes_matrix, near_duplicates
from midspan.corpus.document import HELD_OUT, Reason
from midspan.corpus.engine import Engine
from midspan.corpus.licence import Facts, kind, policy_problem, resolve
from midspan.corpus.split import HeldOut

REMOVED = "removed"
"""The reason of rows that are not written at all."""
FACTS = tuple(one.name for one in fields(Facts))
NARROW = ["group", "path", "commit", "stars", "reason", "detail", "hash", *(f"licences_{name}" for name in FACTS)]

DECISIONS = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("licences", pa.list_(pa.string())),
        pa.field("cluster", pa.uint64()),
        pa.field("duplicate_of", pa.string()),
        pa.field("similarity", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One cached shard: where its rows lie, and of which source they are."""

    path: Path
    source: str
    commit: str | None
    """Of all its files, where the source is one repository. What was cached may be of an earlier commit."""

    def groups(self) -> set[str]:
        """The groups that its files are of."""
        return set(pc.unique(pq.read_table(self.path, columns=["group"])["group"]).to_pylist())


@dataclass(frozen=True, kw_only=True)
class Relations:
    """The settings of everything that looks at more than one file."""

    held_out: HeldOut
    licences: frozenset[str] = frozenset()
    """Kinds (permissive, none, other) and SPDX ids that are kept; empty: any."""
    near_duplicates: bool = True
    removed: frozenset[str] = frozenset()
    """Groups that are left out as if they were not there."""


class Table:
    """The narrow columns of all files, in the order of their parts."""

    def __init__(self, parts: Sequence[Part], relations: Relations) -> None:
        columns = [pq.read_table(part.path, columns=NARROW) for part in parts]
        lengths = [table.num_rows for table in columns]
        self.parts = parts
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.rows = pa.concat_tables(columns)
        groups = self.rows["group"].combine_chunks().dictionary_encode()
        names = groups.dictionary.to_pylist()
        of_group = np.array(groups.indices)
        splits = np.array([relations.held_out.split(name) for name in names], dtype=object)
        self.split = splits[of_group] if names else np.empty(0, object)
        self.gone = np.isin(of_group, [i for i, name in enumerate(names) if name in relations.removed])
        self.reason = np.array(self.rows["reason"].to_pylist(), dtype=object)
        count = len(self)
        self.detail = np.array(self.rows["detail"].to_pylist(), dtype=object)
        self.licences = np.full(count, None, dtype=object)
        self.kind_rank = np.zeros(count, np.int8)
        self.survivor = np.full(count, -1, np.int64)
        self.similarity = np.full(count, np.nan, np.float32)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def candidates(self) -> np.ndarray:
        """Rows that nothing has dropped so far."""
        return np.flatnonzero((self.reason == None) & ~self.gone)  # noqa: E711 - elementwise

    def ranked(self, rows: np.ndarray) -> np.ndarray:
        """Rows, best rank first."""
        stars = -np.array(pc.fill_null(self.rows["stars"], -1))[rows].astype(np.int64)
        return rows[np.lexsort((rows, stars, self.kind_rank[rows], self.split[rows] != HELD_OUT))]


def relate(
    parts: Sequence[Part],
    relations: Relations,
    *,
    engine: Engine,
    scratch: Path,
    progress: Callable[[str], None] = lambda step: None,
) -> list[pa.Table]:
    """Decide about every row of every part: a table (`DECISIONS`) for each part, in the order of its rows.

    Args:
        parts: in a fixed order, which is part of a file's rank.
        scratch: an empty folder with room for the shingles of files that may be near duplicates.
        progress: called with the name of each step as it begins.
    """
    table = Table(parts, relations)
    progress("licences")
    _licences(table, relations)
    progress("exact duplicates")
    _exact_duplicates(table)
    clusters = np.zeros(len(table), np.uint64)
    if relations.near_duplicates:
        progress("near duplicates")
        _near_duplicates(table, clusters, engine, scratch)
    return [_decisions(table, clusters, number) for number in range(len(parts))]


def _licences(table: Table, relations: Relations) -> None:
    """Set every file's licences, repository by repository, and drop what the policy does not allow."""
    said = [table.rows[f"licences_{name}"].to_pylist() for name in FACTS]
    paths = table.rows["path"].to_pylist()
    ranks = {"permissive": 0, "none": 1, "other": 2}
    rank_of: dict[tuple[str, ...], int] = {}
    for rows in _repositories(table, paths):
        known = {
            paths[row]: Facts(**{name: tuple(said[i][row] or ()) for i, name in enumerate(FACTS)}) for row in rows
        }
        resolved = resolve(known)
        for row in rows:
            licences = resolved[paths[row]]
            table.licences[row] = licences
            if licences not in rank_of:
                rank_of[licences] = ranks[kind(licences)]
            table.kind_rank[row] = rank_of[licences]
            if relations.licences and table.reason[row] is None:
                problem = policy_problem(licences, relations.licences)
                if problem is not None:
                    table.reason[row], table.detail[row] = str(problem[0]), problem[1]


def _repositories(table: Table, paths: Sequence[str]) -> Iterable[list[int]]:
    """Rows whose licence files speak for each other: of one repository, or of one folder that is none.

    In a folder of installed packages the licence of `numpy/` lies in `numpy-2.4.dist-info/`, another group.
    """
    sources = np.repeat(np.arange(len(table.parts)), np.diff(table.starts)).tolist()
    groups, commits = table.rows["group"].to_pylist(), table.rows["commit"].to_pylist()
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, (part, group, commit, path) in enumerate(zip(sources, groups, commits, paths, strict=True)):
        below_source = commit is None and (path == group or path.startswith(f"{group}/"))
        found[table.parts[part].source, "" if below_source else group].append(row)
    return found.values()


def _exact_duplicates(table: Table) -> None:
    """Drop every file whose text, after normalising and redacting, is that of a file of better rank."""
    rows = table.ranked(table.candidates())
    hashes = bytes_matrix(table.rows["hash"].take(pa.array(rows)), 16).view("<u8")
    first_by_hash = np.lexsort((np.arange(len(rows)), hashes[:, 1], hashes[:, 0]))
    ordered = hashes[first_by_hash]
    begins = np.ones(len(rows), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = first_by_hash[np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))]
    for copy, original in zip(rows[first_by_hash[~begins]], rows[first[~begins]], strict=True):
        _drop(table, copy, original, 1.0, Reason.DUPLICATE, Reason.DUPLICATE_OF_HELD_OUT)


def _near_duplicates(table: Table, clusters: np.ndarray, engine: Engine, scratch: Path) -> None:
    """Drop every file that is near to one of better rank that stays, and name the clusters."""
    rows = table.ranked(table.candidates())
    paths = [part.path for part in table.parts]
    alike = near_duplicates(paths, table.starts, rows, engine=engine, scratch=scratch)
    for copy, original, similarity in zip(rows[alike.gone], rows[alike.kept], alike.similarity, strict=True):
        _drop(table, copy, original, similarity, Reason.NEAR_DUPLICATE, Reason.NEAR_DUPLICATE_OF_HELD_OUT)
    members = np.flatnonzero(alike.cluster >= 0)
    hashes = bytes_matrix(table.rows["hash"].take(pa.array(rows[alike.cluster[members]])), 16).view("<u8")
    clusters[rows[members]] = hashes[:, 0]  # the best ranked file's text names a cluster


def _drop(table: Table, copy: int, original: int, similarity: float, reason: Reason, across: Reason) -> None:
    held_out = table.split[original] == HELD_OUT and table.split[copy] != HELD_OUT
    table.reason[copy] = str(across if held_out else reason)
    table.survivor[copy], table.similarity[copy] = original, similarity


def _decisions(table: Table, clusters: np.ndarray, number: int) -> pa.Table:
    """The decisions about one part's rows; rows of removed groups have the reason "removed"."""
    start, end = table.starts[number], table.starts[number + 1]
    here = slice(start, end)
    survivors_here = table.survivor[here]
    places = [None if row < 0 else _place(table, int(row)) for row in survivors_here]
    cluster = clusters[here]
    return pa.table(
        {
            "split": table.split[here].tolist(),
            "reason": [
                REMOVED if gone else why for gone, why in zip(table.gone[here], table.reason[here], strict=True)
            ],
            "detail": table.detail[here].tolist(),
            "licences": table.licences[here].tolist(),
            "cluster": pa.array(cluster, mask=cluster == 0),
            "duplicate_of": places,
            "similarity": pa.array(table.similarity[here], mask=survivors_here < 0),
        },
        schema=DECISIONS,
    )


def _place(table: Table, row: int) -> str:
    part = table.parts[int(np.searchsorted(table.starts, row, side="right")) - 1]
    return f"{part.source}/{table.rows['path'][row].as_py()}"

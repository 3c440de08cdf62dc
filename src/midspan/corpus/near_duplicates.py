"""Near duplicates: documents whose sets of five-word shingles are at least 0.7 alike, found without comparing all.

    texts ── band_keys ──▶ 42 keys a document ── components ──▶ groups that could hold near duplicates
                                                                   │ in order of rank, with shingles of these only
                                                                   ▼
                           None: kept, or (the kept document it repeats, their exact Jaccard) ◀── survivors

A key is a hash of six MinHash minima (`shingles.py`), so two documents share a given key with probability J**6 and
any of 42 with 1 - (1 - J**6)**42:

    Jaccard      0.2     0.3     0.4     0.5     0.6     0.7     0.75    0.8     0.85
    candidate    0.003   0.030   0.158   0.484   0.866   0.9948  0.9997  1-3e-6  1-2e-9

Five rows would find all at 0.7 and join four times the pairs at 0.3, where a licence header is half a file, into
components; seven would miss one in twenty at 0.7. A false candidate costs one comparison that is given up early,
never a file: a document goes only if it is 0.7 similar to one that stays. Chains are no argument (A like B, B like
C, A unlike C): the best of a component stays, then whatever no kept document resembles.

Sources: MinHash, 5-grams of words and 0.7 as The Stack and StarCoder 2 have them, both without the comparison at
the end. Left out on purpose: a document of fewer than five words has no shingle and is nobody's near duplicate
(exact duplicates are found elsewhere), and part of a document inside another, which Jaccard does not see.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from midspan.corpus.shingles import BANDS, SKETCH_VERSION, drop_repeats, list_shingles, sketch

__all__ = [
    "BANDS",
    "SKETCH_VERSION",
    "THRESHOLD",
    "band_keys",
    "components",
    "jaccard",
    "shingle_hashes",
    "survivors",
]

THRESHOLD = 0.7
"""Jaccard of two documents from which one of them goes (The Stack, StarCoder 2)."""

MAX_ENTRIES = 4096
"""Entries of kept documents read for one document, rarest keys first, so that a component's work stays linear."""

MAX_COMPARED = 64
"""Of the documents read, how many are compared: those that share the most keys."""

_NOBODY = np.uint64(0)


def band_keys(texts: Sequence[bytes]) -> NDArray[np.uint64]:
    """What near duplicates have in common: keys (len(texts), BANDS). Texts with an equal key are candidates.

    Keys of a text with fewer than five words are all 0, which makes it a candidate of nobody; no other key is 0.
    They are the same in every process and on every machine for one `SKETCH_VERSION`.
    """
    keys = np.zeros((len(texts), BANDS), np.uint64)
    for text, row in zip(texts, keys, strict=True):
        sketch(np.frombuffer(text, np.uint8), row)
    return keys


def shingle_hashes(text: bytes) -> NDArray[np.uint32]:
    """The set of a text's shingles as sorted distinct 32-bit hashes, (shingles,); empty below five words."""
    found = list_shingles(np.frombuffer(text, np.uint8))
    found.sort()
    return found[: drop_repeats(found)].copy()


def jaccard(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> float:
    """|a ∩ b| / |a ∪ b| of two results of `shingle_hashes`; 0.0 where both are empty, as nothing is known."""
    return _jaccard(a, b, 0.0)


def components(columns: Iterable[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Group documents that are linked by equal keys, directly or through others.

    Args:
        columns: for each band the keys of all n documents, (n,). One is held at a time, so that memory peaks at
            about 30 bytes a document with the caller's column; the order of columns changes nothing.

    Returns:
        (n,) labels: the smallest index of the component that a document belongs to, its own if it is alone.
    """
    parents: NDArray[np.uint32] | None = None
    for column in columns:
        if parents is None:
            if len(column) > np.iinfo(np.uint32).max:
                raise ValueError(f"{len(column)} documents at once, at most {np.iinfo(np.uint32).max} are handled")
            parents = np.arange(len(column), dtype=np.uint32)
        _join_equal(np.ascontiguousarray(column), np.argsort(column), parents)
    if parents is None:
        return np.empty(0, np.int64)
    _flatten(parents)
    return parents.astype(np.int64)


def survivors(shingles: Sequence[NDArray[np.uint32]], keys: NDArray[np.uint64]) -> list[tuple[int, float] | None]:
    """Decide which documents of one component stay.

    Documents are walked in order of rank, best first. Each is compared with documents kept before it that share a
    key, and goes if one of them is at least `THRESHOLD` similar. The result is a function of the arguments alone.

    Time is linear in documents: the lists of kept documents under a document's keys are read from the shortest on
    until `MAX_ENTRIES`, and the `MAX_COMPARED` found that share the most keys are compared. Only where that many
    kept documents share keys with one can a candidate be passed over; the document then stays.

    Args:
        shingles: `shingle_hashes` of each document; an entry is asked for only when it is compared, so that a
            sequence may read them as they are needed.
        keys: `band_keys` of the same documents, (n, BANDS).

    Returns:
        For each document None if it stays, else the index of the most similar kept document that it was compared
        with and their Jaccard, which is exact but for chance collisions of 32-bit hashes.
    """
    buckets, starts = _number_buckets(keys)
    entries = np.empty(starts[-1], np.int32)
    ends = starts[:-1].copy()
    seen = np.zeros(len(keys), np.bool_)
    verdicts: list[tuple[int, float] | None] = []
    for i in range(len(keys)):
        candidates = _candidates(i, buckets, starts, ends, entries, seen)
        candidates.sort()
        verdict = None
        similarity = 0.0
        for j in (candidates & 0xFFFFFFFF)[:MAX_COMPARED].tolist():
            found = _jaccard(shingles[i], shingles[j], max(similarity, THRESHOLD))
            if found >= THRESHOLD and found > similarity:
                similarity = found
                verdict = (j, found)
        if verdict is None:
            _keep(i, buckets[i], ends, entries)
        verdicts.append(verdict)
    return verdicts


@njit(cache=True, nogil=True)
def _jaccard(a: NDArray[np.uint32], b: NDArray[np.uint32], floor: float) -> float:
    """Jaccard of two sorted sets, or 0.0 once it is certain to be below `floor`."""
    least = np.int64(floor / (1.0 + floor) * (a.size + b.size))  # common values needed, rounded down
    spare_a, spare_b = a.size - least, b.size - least
    i, j, common = 0, 0, 0
    while i < a.size and j < b.size:
        x, y = a[i], b[j]
        i += x <= y
        j += y <= x
        common += x == y
        if i - common > spare_a or j - common > spare_b:
            return 0.0
    return common / max(a.size + b.size - common, 1)


@njit(cache=True, nogil=True)
def _root(parents: NDArray[np.uint32], i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = int(parents[i])
    return i


@njit(cache=True, nogil=True)
def _join_equal(column: NDArray[np.uint64], order: NDArray[np.int64], parents: NDArray[np.uint32]) -> None:
    """Link every run of equal keys, as `order` sorts them, to its first: a star, not all pairs."""
    for i in range(1, order.size):
        if column[order[i]] == column[order[i - 1]] and column[order[i]] != _NOBODY:
            a, b = _root(parents, order[i - 1]), _root(parents, order[i])
            parents[max(a, b)] = min(a, b)  # the smaller index stays on top, which makes it the label


@njit(cache=True, nogil=True)
def _flatten(parents: NDArray[np.uint32]) -> None:
    for i in range(parents.size):
        parents[i] = parents[parents[i]]  # a parent is never above its child, so it points to its root already


def _number_buckets(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the keys that two or more documents share, as buckets of their documents.

    Returns:
        (n, BANDS) the bucket of each key, -1 where it is alone or 0, and (buckets + 1,) where each one's place for
        its documents starts.
    """
    buckets = np.full(keys.shape, -1, np.int32)
    sizes = [np.zeros(1, np.int64)]
    count = 0
    for band in range(keys.shape[1]):
        column = np.ascontiguousarray(keys[:, band])
        found = _number_runs(column, np.argsort(column), count, buckets[:, band])
        sizes.append(found)
        count += len(found)
    return buckets, np.cumsum(np.concatenate(sizes))


@njit(cache=True, nogil=True)
def _number_runs(
    column: NDArray[np.uint64], order: NDArray[np.int64], first: int, buckets: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Give runs of equal keys numbers from `first` on; returns the runs' sizes."""
    sizes = np.empty(order.size // 2, np.int64)
    count, start = 0, 0
    for stop in range(1, order.size + 1):
        key = column[order[start]]
        if stop < order.size and column[order[stop]] == key:
            continue
        if stop - start > 1 and key != _NOBODY:
            for i in range(start, stop):
                buckets[order[i]] = first + count
            sizes[count] = stop - start
            count += 1
        start = stop
    return sizes[:count].copy()


@njit(cache=True, nogil=True)
def _candidates(
    i: int,
    buckets: NDArray[np.int32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    entries: NDArray[np.int32],
    seen: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Kept documents that share a bucket with `i`, each as (BANDS - shared buckets) << 32 | index, in no order.

    The shortest buckets are read first: in a family of files with one header, the header's keys are everybody's
    and say nothing. `seen` is (n,) of False, and so it is left.
    """
    bands = buckets.shape[1]
    lengths = np.zeros(bands, np.int64)
    for band in range(bands):
        bucket = buckets[i, band]
        if bucket >= 0:
            lengths[band] = ends[bucket] - starts[bucket]
    found = np.empty(min(lengths.sum(), MAX_ENTRIES), np.int64)
    count, left = 0, MAX_ENTRIES
    for band in np.argsort(lengths, kind="mergesort"):
        if lengths[band] == 0:
            continue
        start = starts[buckets[i, band]]
        take = min(lengths[band], left)
        left -= take
        for entry in entries[start : start + take]:
            if not seen[entry]:
                seen[entry] = True
                found[count] = entry
                count += 1
    for n in range(count):
        entry = found[n]
        seen[entry] = False
        apart = 0
        for band in range(bands):
            apart += 1 if buckets[i, band] < 0 or buckets[i, band] != buckets[entry, band] else 0
        found[n] = (apart << 32) | entry
    return found[:count]


@njit(cache=True, nogil=True)
def _keep(i: int, row: NDArray[np.int32], ends: NDArray[np.int64], entries: NDArray[np.int32]) -> None:
    """Enter document `i` in the buckets of `row`."""
    for bucket in row:
        if bucket >= 0:
            entries[ends[bucket]] = i
            ends[bucket] += 1

"""Find which of many sequences stand in a text as a whole, in one pass over the text.

    text     … r e t u r n x + y …      every window of `width` values ── rolling hash ──▶ bitset ▶ table ▶ compare
    part               └ anchor ┘       the window of the part that fewest other parts have

A part is found by its *anchor*: hashes of the text's windows are looked up in a bitset of all anchors, which lets
one in some hundred through, then in the sorted anchors, and only where an anchor stands is the part compared.
The choice of rare anchors keeps the comparisons few: `returnresult` is in every file, no part hangs on it.

Values are bytes, or the tokens of `code_tokens`, whose names are 0 and told by their distance to the last use.
When a window moves on, the name that leaves it makes its next use a first one, so the hash rolls in constant time.

Left out on purpose: Aho-Corasick. `ahocorasick-rs` finds bytes a third faster than this, with a quarter of a
gigabyte for the automaton of 22,000 parts in every process, and cannot tell names by how they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from midspan.corpus.code_tokens import mix

Values = NDArray[np.uint64] | NDArray[np.uint8]
Distances = NDArray[np.int32]

NO_DISTANCES: Distances = np.zeros(0, np.int32)
"""For values that are never 0."""

MAX_PLACES = 32
"""A part is reported at no more places than this, so that a text of its repetitions costs no more than another."""

_BASE = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xD6E8FEB86659FD93)
"""Stands for a name's first use."""
_BITS = 22  # 512 KiB: the second cache of one core
_SHIFT = np.uint64(64 - _BITS)
_1, _6, _63 = np.uint64(1), np.uint64(6), np.uint64(63)


@njit(cache=True, nogil=True)
def _use(distance: int, inside: int) -> np.uint64:
    """A name's value in a window that began `inside` values before it."""
    return mix(np.uint64(distance)) if 0 < distance <= inside else _FIRST


@njit(cache=True, nogil=True)
def windows(values: Values, distances: Distances, width: int) -> NDArray[np.uint64]:
    """The hash of every window of `width` values: (n - width + 1,)."""
    out = np.empty(max(values.size - width + 1, 0), np.uint64)
    powers = np.ones(width + 1, np.uint64)
    for k in range(width):
        powers[k + 1] = powers[k] * _BASE
    next_use = np.zeros(distances.size, np.int32)
    rolling = np.uint64(0)
    for i in range(values.size):
        value = np.uint64(values[i])
        if value == 0:
            if distances[i] > 0:
                next_use[i - distances[i]] = distances[i]
            value = _use(distances[i], min(i, width))
        rolling = rolling * _BASE + value
        if i >= width:
            leaving = np.uint64(values[i - width])
            if leaving == 0:  # a first use by now, as all before it left
                leaving = _FIRST
                distance = next_use[i - width]
                if 0 < distance <= width:
                    rolling += powers[width - distance] * (_FIRST - mix(np.uint64(distance)))
            rolling -= powers[width] * leaving
        if i >= width - 1:
            out[i - width + 1] = mix(rolling)
    return out


@njit(cache=True, nogil=True)
def _standalone(values: Values, distances: Distances) -> Values:
    """A part's values as they are in a text that begins with the part."""
    out = values.copy()
    for i in range(values.size):
        if values[i] == 0:
            out[i] = _use(distances[i], i)
    return out


@njit(cache=True, nogil=True)
def _bitset(anchors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bit for every anchor, by the upper bits of its hash."""
    out = np.zeros(1 << (_BITS - 6), np.uint64)
    for anchor in anchors:
        bit = anchor >> _SHIFT
        out[bit >> _6] |= _1 << (bit & _63)
    return out


@njit(cache=True, nogil=True)
def _candidates(
    hashes: NDArray[np.uint64], bits: NDArray[np.uint64], anchors: NDArray[np.uint64]
) -> NDArray[np.int32]:
    """Windows that are anchors: (count, 2) of their place and the first of the sorted anchors equal to them."""
    out = np.empty((16, 2), np.int32)
    count = 0
    for i in range(hashes.size):
        bit = hashes[i] >> _SHIFT
        if (bits[bit >> _6] >> (bit & _63)) & _1:
            low, high = 0, anchors.size
            while low < high:
                middle = (low + high) // 2
                if anchors[middle] < hashes[i]:
                    low = middle + 1
                else:
                    high = middle
            if low < anchors.size and anchors[low] == hashes[i]:
                if count == len(out):
                    out = np.concatenate((out, out))
                out[count, 0], out[count, 1] = i, low
                count += 1
    return out[:count]


@njit(cache=True, nogil=True)
def _whole(
    values: Values,
    distances: Distances,
    candidates: NDArray[np.int32],
    anchors: NDArray[np.uint64],
    offsets: NDArray[np.int32],
    bounds: NDArray[np.int64],
    parts: Values,
) -> NDArray[np.int32]:
    """The candidates whose part is there as a whole: (count, 2) of part and place."""
    times = np.zeros(anchors.size, np.uint8)
    out = np.empty((16, 2), np.int32)
    count = 0
    for k in range(len(candidates)):
        part = candidates[k, 1]
        anchor = anchors[part]
        while part < anchors.size and anchors[part] == anchor:
            start, length = candidates[k, 0] - offsets[part], bounds[part + 1] - bounds[part]
            if times[part] < MAX_PLACES and start >= 0 and start + length <= values.size:
                equal = True
                j = 0
                while equal and j < length:
                    value = np.uint64(values[start + j])
                    if value == 0:
                        value = _use(distances[start + j], j)
                    equal = value == np.uint64(parts[bounds[part] + j])
                    j += 1
                if equal:
                    times[part] += 1
                    if count == len(out):
                        out = np.concatenate((out, out))
                    out[count, 0], out[count, 1] = part, start
                    count += 1
            part += 1
    return out[:count]


@dataclass(frozen=True, slots=True)
class PartIndex:
    """Parts laid end to end in the order of their anchors' hashes: part p is `parts[bounds[p]:bounds[p + 1]]`."""

    width: int
    anchors: NDArray[np.uint64]
    offsets: NDArray[np.int32]
    """Where a part's anchor begins in it."""
    bounds: NDArray[np.int64]
    parts: Values
    bits: NDArray[np.uint64]

    @classmethod
    def build(cls, parts: Sequence[tuple[Values, Distances]], width: int) -> tuple[PartIndex, NDArray[np.int64]]:
        """The index of different parts of at least `width` values, and which of them each of its parts is."""
        counts = np.zeros(1 << _BITS, np.int32)  # parts that have a window, by the bits of its hash
        for part in parts:
            counts[np.unique(windows(*part, width) >> _SHIFT)] += 1
        anchors, offsets = np.empty(len(parts), np.uint64), np.empty(len(parts), np.int32)
        for number, part in enumerate(parts):
            hashes = windows(*part, width)
            offsets[number] = counts[hashes >> _SHIFT].argmin()
            anchors[number] = hashes[offsets[number]]
        order = np.argsort(anchors, kind="stable")
        chosen = [_standalone(*parts[part]) for part in order]
        index = cls(
            width=width,
            anchors=anchors[order],
            offsets=offsets[order],
            bounds=np.cumsum([0, *map(len, chosen)], dtype=np.int64),
            parts=cast(Values, np.concatenate(chosen or [np.zeros(0, np.uint64)])),
            bits=_bitset(anchors),
        )
        return index, order

    def find(self, values: Values, distances: Distances = NO_DISTANCES) -> list[tuple[int, int, int]]:
        """The parts that stand in a text as a whole, (part, start, stop): at most MAX_PLACES times a part."""
        candidates = _candidates(windows(values, distances, self.width), self.bits, self.anchors)
        if not len(candidates):
            return []
        found = _whole(values, distances, candidates, self.anchors, self.offsets, self.bounds, self.parts)
        sizes = np.diff(self.bounds)
        return [(int(part), int(start), int(start + sizes[part])) for part, start in found]

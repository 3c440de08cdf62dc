"""Best-fit packing: which documents share a row, so that none that fits is ever cut (arXiv 2404.10830).

Longest first, each goes into the row with the least room that still takes it. Documents are ordered by a counting
sort; rows with the same room stand on one stack, and a tree over the rooms tells which of them have any:

    room     0   1   2   3   4   5   6   7 ...
    rows     -   2   -   -   7   -   -   0            a document of 2 tokens goes into row 7, which moves to room 2
                     └───────┘
    tree     the first room from 2 on that has a row, in log2(capacity) steps

So planning n documents takes n log(capacity) steps and a few arrays of n numbers.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The row of each document (n), int64, numbered from 0 in the order in which rows are begun.

    Args:
        lengths: tokens of each document (n), none of them 0.
        capacity: tokens of a row.

    Equal lengths keep their order and the row that came to its room last is filled first, so the result is a
    function of the arguments alone.

    Raises:
        ValueError: a length is above the capacity (the caller cuts long documents first).
    """
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(f"a document of {lengths.max()} tokens does not fit a row of {capacity}")
    return _best_fit(np.asarray(lengths, np.int64), capacity)


@njit(cache=True, nogil=True)
def _best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    order = _longest_first(lengths, capacity)
    leaves = 1
    while leaves <= capacity:
        leaves *= 2
    tree = np.zeros(2 * leaves, np.bool_)  # node k has the children 2k and 2k + 1; room r is leaf leaves + r
    top = np.full(capacity + 1, -1, np.int64)  # of each room's stack of rows
    below = np.empty(len(lengths), np.int64)  # of each row, on its stack
    rows = np.empty(len(lengths), np.int64)
    begun = 0
    for document in order:
        length = lengths[document]
        room = _first_room(tree, leaves, length)
        if room < 0:
            room, row = capacity, begun
            begun += 1
        else:
            row = top[room]
            top[room] = below[row]
            if top[room] < 0:
                _mark(tree, leaves + room, False)
        rows[document] = row
        left = room - length
        if left > 0:
            if top[left] < 0:
                _mark(tree, leaves + left, True)
            below[row], top[left] = top[left], row
    return rows


@njit(cache=True, nogil=True)
def _longest_first(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Numbers of documents by falling length; equal ones keep their order."""
    places = np.zeros(capacity + 2, np.int64)
    for length in lengths:
        places[capacity - length + 1] += 1
    places = np.cumsum(places)
    order = np.empty(len(lengths), np.int64)
    for document in range(len(lengths)):
        key = capacity - lengths[document]
        order[places[key]] = document
        places[key] += 1
    return order


@njit(cache=True, nogil=True)
def _first_room(tree: np.ndarray, leaves: int, least: int) -> int:
    """The smallest room of at least `least` that has a row, or -1."""
    node = leaves + least
    while not tree[node]:
        while node & 1:  # a right child, or the root: nothing stands to the right of it below its parent
            node >>= 1
            if node <= 1:
                return -1
        node += 1
    while node < leaves:
        node = 2 * node + (not tree[2 * node])
    return node - leaves


@njit(cache=True, nogil=True)
def _mark(tree: np.ndarray, node: int, present: bool) -> None:
    """Note whether a leaf has rows, up to where nothing changes."""
    tree[node] = present
    while node > 1:
        node >>= 1
        now = tree[2 * node] or tree[2 * node + 1]
        if tree[node] == now:
            break
        tree[node] = now

"""Best-fit packing: which documents share a row, so that none that fits is ever cut (arXiv 2404.10830).

Longest first, each goes into the row with the least room that still takes it. Rows are found by their room
through a sorted list of the rooms in use, so packing n documents costs about n log n.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Group indices of `lengths` into rows of at most `capacity` tokens.

    Returns:
        Rows as lists of indices, in the order of their first document. Equal lengths keep their order, so the
        result is a function of the arguments alone.

    Raises:
        ValueError: a length is above the capacity (the caller cuts long documents first).
    """
    rows: list[list[int]] = []
    rooms: list[int] = []  # the distinct rooms that some row has, ascending
    rows_with: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"a document of {length} tokens does not fit a row of {capacity}")
        place = bisect_left(rooms, length)
        if place < len(rooms):
            room = rooms[place]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rooms[place]
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        left = room - length
        if left:
            if not rows_with[left]:
                insort(rooms, left)
            rows_with[left].append(row)
    return rows

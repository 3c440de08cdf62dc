"""Best-fit packing equals its plain definition, loses nothing, and stays near the least possible."""

import time
from bisect import bisect_left, insort
from collections import defaultdict
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.rows.pack import best_fit

CAPACITY = 20
lengths = st.lists(st.integers(1, CAPACITY), max_size=40)


def naive(lengths: list[int], capacity: int) -> list[int]:
    """Tokens of each row: longest first, each into the fullest row that takes it, by looking at all rows."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, tokens in enumerate(rows) if tokens + length <= capacity]
        if fitting:
            rows[max(fitting, key=rows.__getitem__)] += length
        else:
            rows.append(length)
    return rows


def fewest(lengths: list[int], capacity: int) -> int:
    """The least number of rows, by trying every way."""

    def fits(rest: list[int], rooms: list[int]) -> bool:
        if not rest:
            return True
        tried = {room for room in rooms if room >= rest[0]}
        for room in tried:
            left = [*rooms]
            left[left.index(room)] -= rest[0]
            if fits(rest[1:], left):
                return True
        return False

    longest_first = sorted(lengths, reverse=True)
    return next(rows for rows in count() if fits(longest_first, [capacity] * rows))


def plainly(lengths: list[int], capacity: int) -> list[list[int]]:
    """The same packing with Python's lists: rows found by their room in a sorted list of the rooms in use."""
    rows: list[list[int]] = []
    rooms: list[int] = []
    rows_with: dict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = bisect_left(rooms, lengths[index])
        if place < len(rooms):
            room = rooms[place]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rooms[place]
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(index)
        left = room - lengths[index]
        if left:
            if not rows_with[left]:
                insort(rooms, left)
            rows_with[left].append(row)
    return rows


def packed(lengths: list[int], capacity: int) -> list[list[int]]:
    """`best_fit` as rows of documents, longest first."""
    found = best_fit(np.array(lengths, np.int64), capacity)
    rows: list[list[int]] = [[] for _ in range(found.max(initial=-1) + 1)]
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        rows[found[index]].append(index)
    return rows


@given(st.integers(1, 200).flatmap(lambda c: st.tuples(st.lists(st.integers(1, c), max_size=80), st.just(c))))
def test_rows_are_those_of_the_plain_version(drawn: tuple[list[int], int]) -> None:
    assert packed(*drawn) == plainly(*drawn)


@pytest.mark.parametrize("capacity", [4095, 4096, 4097, 100_000])
def test_many_documents_are_packed_as_by_the_plain_version(capacity: int) -> None:
    drawn = np.random.default_rng(capacity).lognormal(np.log(capacity / 9), 1.2, 5_000)
    lengths = np.clip(drawn, 1, capacity).astype(int).tolist()
    assert packed(lengths, capacity) == plainly(lengths, capacity)


@given(lengths)
def test_rows_are_those_of_the_definition(lengths: list[int]) -> None:
    rows = packed(lengths, CAPACITY)
    assert sorted(sum(lengths[i] for i in row) for row in rows) == sorted(naive(lengths, CAPACITY))


@given(lengths)
def test_every_document_is_in_one_row_that_takes_it(lengths: list[int]) -> None:
    rows = packed(lengths, CAPACITY)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= CAPACITY for row in rows)


@given(st.lists(st.integers(1, CAPACITY), max_size=9))
def test_there_are_few_more_rows_than_the_least_possible(lengths: list[int]) -> None:
    assert len(packed(lengths, CAPACITY)) <= 11 / 9 * fewest(lengths, CAPACITY) + 6 / 9  # Dósa 2007


def test_equal_lengths_keep_their_order() -> None:
    assert packed([5, 5, 5, 5, 5], 10) == [[0, 1], [2, 3], [4]]
    assert packed([1, 9, 10, 1], 10) == [[2], [1, 0], [3]]


def test_what_is_longer_than_a_row_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="a document of 11 tokens does not fit a row of 10"):
        best_fit(np.array([3, 11]), 10)
    assert len(best_fit(np.empty(0, np.int64), 10)) == 0


def test_a_million_documents_take_seconds() -> None:
    lengths = 1 + np.arange(1_000_000) * 7919 % 4096
    best_fit(lengths[:10], 4096)
    begun = time.process_time()
    rows = best_fit(lengths, 4096)
    assert time.process_time() - begun < 3, "a fifth of a second; looking at all rows would take hours"
    assert rows.max() + 1 < 1.001 * lengths.sum() / 4096

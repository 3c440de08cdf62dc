"""Best-fit packing equals its plain definition, loses nothing, and stays near the least possible."""

import time
from itertools import count

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


@given(lengths)
def test_rows_are_those_of_the_definition(lengths: list[int]) -> None:
    rows = best_fit(lengths, CAPACITY)
    assert sorted(sum(lengths[i] for i in row) for row in rows) == sorted(naive(lengths, CAPACITY))


@given(lengths)
def test_every_document_is_in_one_row_that_takes_it(lengths: list[int]) -> None:
    rows = best_fit(lengths, CAPACITY)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= CAPACITY for row in rows)


@given(st.lists(st.integers(1, CAPACITY), max_size=9))
def test_there_are_few_more_rows_than_the_least_possible(lengths: list[int]) -> None:
    assert len(best_fit(lengths, CAPACITY)) <= 11 / 9 * fewest(lengths, CAPACITY) + 6 / 9  # Dósa 2007


def test_equal_lengths_keep_their_order() -> None:
    assert best_fit([5, 5, 5, 5, 5], 10) == [[0, 1], [2, 3], [4]]
    assert best_fit([1, 9, 10, 1], 10) == [[2], [1, 0], [3]]


def test_what_is_longer_than_a_row_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="a document of 11 tokens does not fit a row of 10"):
        best_fit([3, 11], 10)
    assert best_fit([], 10) == []


def test_time_grows_little_faster_than_the_number_of_documents() -> None:
    begun = time.process_time()
    rows = best_fit([1 + (i * 7919) % 4096 for i in range(50_000)], 4096)
    assert time.process_time() - begun < 5, "a tenth of a second; looking at all rows takes a minute"
    assert len(rows) < 1.001 * sum(1 + (i * 7919) % 4096 for i in range(50_000)) / 4096

"""pass@k against exact fractions and against drawing samples."""

import math
import random
from fractions import Fraction

import pytest

from midspan.errors import InputError
from midspan.evaluate.metrics import wilson
from midspan.evaluate.pass_at_k import mean_pass_at_k, pass_at_k


def test_it_is_exact_for_every_small_number() -> None:
    for n in range(1, 51):
        for c in range(n + 1):
            for k in range(1, n + 1):
                exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
                assert pass_at_k(n, c, k) == pytest.approx(float(exact), abs=1e-12)


def test_it_is_what_drawing_k_of_the_samples_gives() -> None:
    draw, samples = random.Random(0), [True] * 3 + [False] * 17
    hits = sum(any(draw.sample(samples, 5)) for _ in range(20_000)) / 20_000
    assert pass_at_k(20, 3, 5) == pytest.approx(hits, abs=0.015)


def test_more_than_there_are_is_refused_and_never_clamped() -> None:
    with pytest.raises(InputError, match="pass@10 needs at least 10 samples of each task, and there are 5"):
        pass_at_k(5, 1, 10)
    with pytest.raises(InputError, match="6 of 5"):
        pass_at_k(5, 6, 1)
    with pytest.raises(InputError, match="no task"):
        mean_pass_at_k([], 1)


def test_tasks_count_alike_whatever_their_samples() -> None:
    mean, (low, high) = mean_pass_at_k([(10, 10), (20, 0), (5, 5), (8, 0)], 2)
    assert mean == 0.5
    assert 0 <= low < 0.5 < high <= 1
    mean, interval = mean_pass_at_k([(1, 1), (1, 0), (1, 1)], 1)
    assert mean == pytest.approx(2 / 3)
    assert interval == wilson(2, 3)

"""Scores and how sure they are.

Shares of a count have Wilson's interval (Wilson 1927). Everything else has a percentile bootstrap over
documents: holes of one file are alike, so files are what is drawn again, with all their holes. The draws depend on
the seed alone, and the difference of two models is taken hole by hole before it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rapidfuzz import fuzz

Interval = tuple[float, float]

_Z95 = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""


def edit_similarity(written: str, truth: str) -> int:
    """100 (1 - insertions and deletions / both lengths), rounded: CodeXGLUE's measure, 100 for equal texts."""
    return round(fuzz.ratio(written, truth))


def wilson(successes: int, n: int) -> Interval:
    """The 95 % interval of a share, as shares; (0, 1) for nothing."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(
    numerators: Sequence[float],
    denominators: Sequence[float],
    groups: Sequence[int],
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """The 95 % interval of sum(numerators) / sum(denominators) when groups are drawn again with replacement.

    A mean has denominators of 1; bits per byte has bits over bytes. For a difference of two ratios with the same
    denominators, give the differences of the numerators.

    Args:
        numerators: one for each observation.
        denominators: likewise.
        groups: which observations belong together; any numbers.
        seed: of the draws.
        resamples: how often all groups are drawn.
    """
    _, index = np.unique(np.asarray(groups, dtype=np.uint64), return_inverse=True)
    num_groups = int(index.max()) + 1
    above = np.bincount(index, weights=np.asarray(numerators, dtype=np.float64))
    below = np.bincount(index, weights=np.asarray(denominators, dtype=np.float64))
    drawn = np.random.Generator(np.random.Philox(seed)).integers(num_groups, size=(resamples, num_groups))
    low, high = np.quantile(above[drawn].sum(axis=1) / below[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def bits(nats: float) -> float:
    """Nats as bits."""
    return nats / math.log(2)

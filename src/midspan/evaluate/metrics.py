"""Scores and how sure they are.

Shares of a count have Wilson's interval (Wilson 1927). Everything else has a percentile bootstrap over
documents: holes of one file are alike, so files are what is drawn again, with all their holes. The draws depend on
the seed alone, and the difference of two models is taken hole by hole before it is drawn.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from rapidfuzz import fuzz

Interval = tuple[float, float]

_WORD = re.compile(r"\w+|[^\w\s]")
_Z95 = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""


def edit_similarity(written: str, truth: str) -> int:
    """100 (1 - insertions and deletions / both lengths), rounded: CodeXGLUE's measure, 100 for equal texts."""
    return round(fuzz.ratio(written, truth))


def smoothed_bleu(written: str, reference: str) -> float:
    """CodeXGLUE's BLEU-4 of one text, 0 to 100; a set's score is the mean over its texts.

    Lower case, words and single marks; one is added above and below to the counts of pairs and longer; the brevity
    penalty has one added to both lengths. No library gives these numbers (code-to-text/evaluator/evaluator.py).
    """
    ours, theirs = (_WORD.findall(text.lower()) for text in (written, reference))
    total = 0.0
    for n in range(1, 5):
        found, wanted = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (ours, theirs))
        right, of, extra = (found & wanted).total(), found.total(), int(n > 1)
        if right + extra == 0:
            return 0.0
        total += math.log((right + extra) / (of + extra))
    return 100 * math.exp(total / 4 + min(0.0, 1 - (len(theirs) + 1) / (len(ours) + 1)))


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

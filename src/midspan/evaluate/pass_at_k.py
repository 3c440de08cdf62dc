"""pass@k: how likely one of k samples is right, by the unbiased estimator (Chen et al. 2021, arXiv 2107.03374).

1 - C(n - c, k) / C(n, k)        of n samples c are right; the mean over all tasks
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from midspan.errors import InputError
from midspan.evaluate.metrics import Interval, bootstrap, wilson


def pass_at_k(n: int, c: int, k: int) -> float:
    """Of one task, as a product, so that no binomial grows large.

    Raises:
        InputError: fewer samples than k, of which the estimator says nothing.
    """
    if not 0 <= c <= n:
        raise InputError(f"{c} of {n} samples cannot be right")
    if not 1 <= k <= n:
        raise InputError(f"pass@{k} needs at least {k} samples of each task, and there are {n}; ask for fewer")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


def mean_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> tuple[float, Interval]:
    """Over tasks, each (samples, right ones), with its 95 % interval.

    Of single samples the interval is Wilson's; of several, a bootstrap over tasks.
    """
    if not counts:
        raise InputError("there is no task to take pass@k of")
    values = [pass_at_k(n, c, k) for n, c in counts]
    mean = sum(values) / len(values)
    if all(n == 1 for n, _ in counts):
        return mean, wilson(sum(c for _, c in counts), len(counts))
    return mean, bootstrap(values, [1.0] * len(values), range(len(values)))

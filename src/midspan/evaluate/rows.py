"""Samples → rows of results.json, each with an interval; and beside another model's, where there is one.

    {"row": "humaneval pass@1", "task": "humaneval", "variant": "official", "group": "", "metric": "pass@1",
     "temperature": 0.0, "unit": "%", "better": "higher", "n": 164, "samples": 164,
     "ours": 34.0, "interval": [22.4, 47.8],
     "before": 4.0, "before_interval": [1.1, 13.5],
     "difference": 30.0, "difference_interval": [18.0, 42.0], "p": 0.001, "test": "McNemar, exact"}

Shares of one sample a question have Wilson's interval, everything else a bootstrap over questions (over `cluster`
where several questions stand on one document). A difference is taken question by question before it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from midspan.evaluate.metrics import bootstrap, wilson
from midspan.evaluate.pass_at_k import pass_at_k
from midspan.evaluate.task import Metric

Sample = Mapping[str, Any]
USUAL_K = (1, 10, 100)


@dataclass(frozen=True)
class Observed:
    """A metric of each question: sums over sums."""

    metric: Metric
    questions: list[str]
    clusters: list[str]
    above: list[float]
    below: list[float]
    single: bool
    """One sample of each question, and each right or wrong."""

    @property
    def value(self) -> float:
        """The score, in the metric's unit."""
        return _scaled(self.metric, sum(self.above) / sum(self.below))

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %."""
        alike = self.metric.kind in ("share", "pass") and set(self.above) in ({0.0}, {1.0})
        if self.single or alike:  # of questions that are all alike a bootstrap would draw no other score
            low, high = wilson(round(sum(self.above)), len(self.above))
        else:
            low, high = bootstrap(self.above, self.below, numbered(self.clusters))
        return _scaled(self.metric, low), _scaled(self.metric, high)


def task_rows(
    task: str,
    variant: str,
    metrics: Sequence[Metric],
    samples: Sequence[Sample],
    before: Sequence[Sample] = (),
    *,
    ks: Sequence[int] = (),
    average: str = "",
) -> list[dict[str, Any]]:
    """The rows of a task.

    Args:
        task: its name.
        variant: its prompt.
        metrics: in the order of the rows.
        samples: scored; those that the sandbox could not judge have no scores and are left out.
        before: of another model, for the same questions.
        ks: of pass@k; those of 1, 10 and 100 that there are samples for if empty.
        average: the name of a row that is the mean of the groups' scores, if one is wanted.
    """
    found = []
    temperatures = sorted({s["temperature"] for s in samples})
    for temperature in temperatures:
        mine = [s for s in samples if s["temperature"] == temperature and s["scores"]]
        theirs = [s for s in before if s["temperature"] == temperature and s["scores"]]
        groups = list(dict.fromkeys(group for s in mine for group in s["groups"]))
        named = {"task": task, "variant": variant, "temperature": temperature}
        for group in groups:
            a, b = ([s for s in each if group in s["groups"]] for each in (mine, theirs))
            for name, metric, k in _each(metrics, a, ks):
                words = filter(None, (task, group, name, f"at T={temperature:g}" if len(temperatures) > 1 else ""))
                row = {"row": " ".join(words), **named, "group": group, "metric": name, "unit": metric.unit}
                if (ours := observed(metric, a, k)) is not None:
                    others = observed(metric, b, k) if b else None
                    found.append({**row, "better": metric.better, "samples": len(a), **_values(ours, others)})
        if average:
            found += _averages(found, named, average)
    return found


def _each(
    metrics: Sequence[Metric], samples: Sequence[Sample], ks: Sequence[int]
) -> list[tuple[str, Metric, int]]:
    """(name, metric, k) of every row of a group."""
    counts: dict[str, int] = {}
    for sample in samples:
        counts[sample["question"]] = counts.get(sample["question"], 0) + 1
    fewest = min(counts.values(), default=0)
    wanted = [k for k in (ks or USUAL_K) if k <= fewest]
    found = []
    for metric in metrics:
        if metric.kind == "pass":
            found += [(f"{metric.name}@{k}", metric, k) for k in wanted]
        else:
            found.append((metric.name, metric, 1))
    return found


def observed(metric: Metric, samples: Sequence[Sample], k: int = 1) -> Observed | None:
    """A metric question by question; None where no sample has its score."""
    grouped: dict[str, list[Sample]] = {}
    for sample in samples:
        if metric.score in sample["scores"]:
            grouped.setdefault(sample["question"], []).append(sample)
    if not grouped:
        return None
    above, below = [], []
    for each in grouped.values():
        values = [sample["scores"][metric.score] for sample in each]
        if metric.kind == "pass":
            above.append(pass_at_k(len(values), round(sum(values)), k))
            below.append(1.0)
        elif metric.per:
            above.append(sum(values))
            below.append(sum(sample["scores"][metric.per] for sample in each))
        else:
            above.append(sum(values) / len(values))
            below.append(1.0)
    if sum(below) == 0:
        return None
    single = metric.kind in ("share", "pass") and all(len(each) == 1 for each in grouped.values())
    clusters = [each[0]["cluster"] for each in grouped.values()]
    return Observed(metric, list(grouped), clusters, above, below, single)


def _values(ours: Observed, before: Observed | None) -> dict[str, Any]:
    row: dict[str, Any] = {"n": len(ours.questions), "ours": _round(ours.value)}
    row["interval"] = [*map(_round, ours.interval)]
    if before is None:
        return row
    row["before"], row["before_interval"] = _round(before.value), [*map(_round, before.interval)]
    if ours.metric.kind != "perplexity":
        row |= difference(ours, before)
    return row


def difference(ours: Observed, before: Observed) -> dict[str, Any]:
    """Ours minus before over the questions that both were asked, its interval, and how likely chance gives it."""
    theirs = {name: place for place, name in enumerate(before.questions)}
    both = [(mine, theirs[name]) for mine, name in enumerate(ours.questions) if name in theirs]
    if not both:
        return {}
    above = [ours.above[a] - before.above[b] for a, b in both]
    below = [ours.below[a] for a, _ in both]
    if ours.metric.per:  # the denominators may differ by a little: what was written decides some
        above = [
            ours.above[a] - before.above[b] * ours.below[a] / before.below[b] if before.below[b] else ours.above[a]
            for a, b in both
        ]
    low, high = bootstrap(above, below, numbered([ours.clusters[a] for a, _ in both]))
    found = {
        "difference": _round(_scaled(ours.metric, sum(above) / sum(below))),
        "difference_interval": [_round(_scaled(ours.metric, low)), _round(_scaled(ours.metric, high))],
        "both": len(both),
    }
    if ours.single and before.single:
        found["p"] = mcnemar(sum(x > 0 for x in above), sum(x < 0 for x in above))
        found["test"] = "McNemar, exact"
    else:
        found["p"] = sign_flips(above)
        found["test"] = "paired sign flips"
    return found


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """How likely is a split at least as uneven of the questions that one alone gets right; exact, two-sided."""
    number = only_ours + only_theirs
    fewer = min(only_ours, only_theirs)
    if number == 0:
        return 1.0
    tail = sum(math.comb(number, i) for i in range(fewer + 1))
    return min(1.0, 2 * tail / 2**number)


def sign_flips(differences: Sequence[float], *, draws: int = 4000, seed: int = 0) -> float:
    """How likely a mean at least as far from 0 is where each difference could as well have the other sign."""
    values = np.asarray(differences, dtype=np.float64)
    if not values.any():
        return 1.0
    generator = np.random.Generator(np.random.Philox(seed))
    signs = generator.integers(0, 2, size=(draws, len(values)), dtype=np.int8) * 2 - 1
    seen = np.abs(signs @ values) >= abs(values.sum()) - 1e-12 * max(1.0, abs(values.sum()))
    return float((seen.sum() + 1) / (draws + 1))


def _averages(rows: list[dict[str, Any]], named: Mapping[str, Any], average: str) -> list[dict[str, Any]]:
    """The mean over groups, as papers give it over languages; its interval from those of the groups.

    Each side of it is made of the groups' same sides (Zou and Donner 2008, "MOVER"), so that shares stay shares.
    """
    found = []
    mine = [r for r in rows if r["temperature"] == named["temperature"] and r["group"]]
    for metric in dict.fromkeys(row["metric"] for row in mine):
        each = [row for row in mine if row["metric"] == metric]
        if len(each) < 2:
            continue
        row = {**each[0], **named, "group": average, "row": f"{named['task']} {average} {metric}"}
        for gone in ("before", "before_interval", "difference", "difference_interval", "p", "test", "both"):
            row.pop(gone, None)
        mean = sum(r["ours"] for r in each) / len(each)
        below, above = (
            math.sqrt(sum((r["interval"][side] - r["ours"]) ** 2 for r in each)) / len(each) for side in (0, 1)
        )
        row |= {"ours": _round(mean), "interval": [_round(mean - below), _round(mean + above)]}
        row |= {"n": sum(r["n"] for r in each), "samples": sum(r["samples"] for r in each)}
        if all("before" in r for r in each):
            row["before"] = _round(sum(r["before"] for r in each) / len(each))
        found.append(row)
    return found


def numbered(names: Sequence[str]) -> list[int]:
    """Equal names, equal numbers."""
    known: dict[str, int] = {}
    return [known.setdefault(name, len(known)) for name in names]


def _scaled(metric: Metric, value: float) -> float:
    if metric.kind in ("share", "pass"):
        return 100 * value
    return math.exp(value) if metric.kind == "perplexity" else value


def _round(value: float) -> float:
    return round(value, 4)

"""The charts of one run, or of several in the same frames.

One run: its sources and layouts share a frame, each with a colour. Several: a frame for each of them, in which
every run has its colour, over the tokens that it has read, since steps of different sizes do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from midspan.chart import Line, chart
from midspan.evaluate.runs import RunView
from midspan.train.metrics import EvalMetrics, StepMetrics

_STEPS: tuple[tuple[str, str, bool, bool, Callable[[StepMetrics], float | None]], ...] = (
    ("Loss", "nats per trained token", True, False, lambda s: s.loss),
    ("Learning rate", "", False, True, lambda s: s.lr),
    ("Norm of the gradient", "before clipping", True, True, lambda s: s.grad_norm),
    ("Speed", "tokens/s", True, True, lambda s: s.tokens_per_second),
    ("MFU", "% of the device's peak", True, True, lambda s: None if s.mfu is None else 100 * s.mfu),
    (
        "Memory",
        "GiB at most so far",
        False,
        True,
        lambda s: None if s.memory_bytes is None else s.memory_bytes / 2**30,
    ),
)
"""Title, unit, whether it is smoothed, whether its axis starts at 0, and its value."""
_EVALUATIONS: tuple[tuple[str, str, bool, float, str], ...] = (
    ("Held-out files", "bits per byte, lower is better", False, 1.0, "bits_per_byte"),
    ("Holes filled exactly", "%, higher is better", True, 100.0, "exact_match"),
    ("True middles of the holes", "bits per byte, lower is better", False, 1.0, "middle_bits_per_byte"),
)
"""Title, unit, whether its axis starts at 0, a factor, and the scores by source or layout."""


def training_charts(runs: Sequence[RunView]) -> str:
    """How training went: loss, learning rate, gradient, speed, memory; nothing where no run has two steps."""
    alone = len(runs) == 1
    figures = []
    for title, unit, smooth, zero, value in _STEPS:
        lines = []
        for run in runs:
            points = [(_at(s, alone), v) for s in run.steps if (v := value(s)) is not None]
            x, y = zip(*points, strict=True) if len(points) > 1 else ((), ())
            lines.append(Line(run.name, x, y, smooth=smooth))
        figures.append(chart(title, unit, lines, x_name=_x_name(alone), zero=zero))
    return _grid(figures)


def evaluation_charts(runs: Sequence[RunView]) -> str:
    """What the evaluations while training said; nothing where there were none."""
    alone = len(runs) == 1
    figures = []
    for title, unit, zero, factor, scores in _EVALUATIONS:
        keys = list(dict.fromkeys(key for run in runs for e in run.evaluations for key in getattr(e, scores)))
        if alone:
            lines = [_line(_shown(key), runs[0], scores, key, factor, alone) for key in keys]
            figures.append(chart(title, unit, lines, x_name=_x_name(alone), zero=zero))
            continue
        for key in keys:
            lines = [_line(run.name, run, scores, key, factor, alone) for run in runs]
            figures.append(chart(f"{title}, {_shown(key)}", unit, lines, x_name=_x_name(alone), zero=zero))
    return _grid(figures)


def _line(name: str, run: RunView, scores: str, key: str, factor: float, alone: bool) -> Line:
    points = [
        (_at(e, alone), factor * found[key]) for e in run.evaluations if key in (found := getattr(e, scores))
    ]
    x, y = zip(*points, strict=True) if points else ((), ())
    return Line(name, x, y)


def _at(metrics: StepMetrics | EvalMetrics, alone: bool) -> int:
    return metrics.step if alone else metrics.tokens


def _x_name(alone: bool) -> str:
    return "step" if alone else "tokens read"


def _shown(key: str) -> str:
    return key.upper() if key in ("psm", "spm") else key


def _grid(figures: Sequence[str]) -> str:
    drawn = [figure for figure in figures if figure]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""

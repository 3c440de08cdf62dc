"""Charts of a page: lines over steps or tokens, drawn as SVG by hand, in the page's own colours.

    caption   unit
    ── legend ── of ── its lines          only where there are several
    2.5 ┤  . .
    2.0 ┤ .  ──.──.──                     dots: what was measured, the line: its running mean
    1.5 ┤
        └──────────────
        0     500   1,000
              steps

A chart is drawn to be as wide as a telephone and grows to twice that, so its text is never small. Colours are
classes of the style sheet: six, then they come round again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _RIGHT, _TOP, _BOTTOM = 400, 230, 10, 8, 40
_COLOURS = 6
_POINTS = 400
"""Points of a line, at most: there are no more pixels."""
_CHARACTER = 7.2
"""Width of a digit."""


@dataclass(frozen=True)
class Line:
    """One line: a name and its points. With `smooth` the points are dots and the line is their running mean."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    smooth: bool = False


def chart(
    title: str,
    unit: str,
    lines: Sequence[Line],
    *,
    x_name: str = "step",
    zero: bool = False,
    colours: Sequence[int] | None = None,
) -> str:
    """A figure with a caption, a legend and the lines; nothing where no line has a point.

    Args:
        title: what is drawn.
        unit: of what is drawn, or a word on it.
        lines: those without points are left out, and keep their colour.
        x_name: what `x` counts.
        zero: whether the axis starts at 0.
        colours: numbers of the lines' colours, where they are not to be counted from 0.
    """
    numbers = range(len(lines)) if colours is None else colours
    drawn = [(line, _colour(n)) for line, n in zip(lines, numbers, strict=True) if len(line.y)]
    if not drawn:
        return ""
    legend = ""
    if len(lines) > 1:
        keys = "".join(f'<span><i style="color:{c}"></i>{escape(line.name)}</span>' for line, c in drawn)
        legend = f'<div class="legend">{keys}</div>'
    caption = f"<figcaption>{escape(title)} <small>{escape(unit)}</small></figcaption>"
    return f"<figure>{caption}{legend}{_svg(title, drawn, x_name, zero)}</figure>"


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """The mean of each value with `reach` neighbours on either side, of fewer at the ends: it does not lag."""
    sums = [0.0, *itertools.accumulate(values)]
    ends = [(max(0, n - reach), min(len(values), n + reach + 1)) for n in range(len(values))]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in ends]


def _svg(title: str, drawn: Sequence[tuple[Line, str]], x_name: str, zero: bool) -> str:
    left_end, right_end = min(line.x[0] for line, _ in drawn), max(line.x[-1] for line, _ in drawn)
    if 0 < left_end <= 0.05 * right_end:
        left_end = 0  # counting begins at nothing, though the first step is 1
    low, high = _bounds([value for line, _ in drawn for value in line.y], zero)
    ticks = _ticks(low, high, 5)
    names = labels(ticks)
    left = 12 + _CHARACTER * max(map(len, names))
    span = right_end - left_end or 1

    def x(value: float) -> float:
        return left + (value - left_end) / span * (_WIDTH - left - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - min(max(value, low), high)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick, name in zip(ticks, names, strict=True):
        across = f'x1="{left:.1f}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"'
        parts.append(f'<line class="grid" {across}/>')
        parts.append(f'<text x="{left - 7:.1f}" y="{y(tick) + 4:.1f}" text-anchor="end">{name}</text>')
    x_ticks = _ticks(left_end, right_end, 4, least=1.0) if right_end > left_end else [left_end]
    for tick, name in zip(x_ticks, labels(x_ticks), strict=True):
        half = _CHARACTER * len(name) / 2
        at = min(max(x(tick), left + half - 7), _WIDTH - half)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{name}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 5}" text-anchor="end">{escape(x_name)}</text>')
    parts += [part for line, colour in drawn for part in _drawn(line, colour, x, y)]
    said = ", ".join(f"{line.name} from {line.y[0]:.4g} to {line.y[-1]:.4g}" for line, _ in drawn)
    label = escape(f"{title}: {said}")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _drawn(line: Line, colour: str, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    thin = max(1, math.ceil(len(line.y) / _POINTS))
    values = running_mean(line.y, len(line.y) // 40) if line.smooth else line.y
    parts = []
    if line.smooth or len(line.y) <= 30:  # few points are all worth seeing
        style = 'class="raw" r="1.6"' if line.smooth else 'r="2.6"'
        for at, value in list(zip(line.x, line.y, strict=True))[::thin]:
            parts.append(f'<circle {style} fill="{colour}" cx="{x(at):.1f}" cy="{y(value):.1f}"/>')
    points = list(zip(line.x, values, strict=True))
    shown = points[::thin] if points[-1] in points[::thin][-1:] else [*points[::thin], points[-1]]
    path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in shown)
    parts.append(f'<polyline class="mean" stroke="{colour}" points="{path}"/>')
    return parts


def _colour(number: int) -> str:
    return f"var(--line-{number % _COLOURS + 1})"


def _bounds(values: Sequence[float], zero: bool) -> tuple[float, float]:
    """The values' range without a few outliers at its upper end, which would flatten the rest."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, math.ceil(0.995 * len(ordered)))]
    if zero:
        low = min(low, 0.0)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return (low if low == 0 else max(0.0, low - pad) if low > 0 else low - pad), high + pad


def _ticks(low: float, high: float, most: int, least: float = 0.0) -> list[float]:
    """Round numbers between two bounds: at most about `most`, and no closer than `least`."""
    rough = max((high - low) / most, least)
    scale = 10 ** math.floor(math.log10(rough))
    step = next(s * scale for s in (1, 2, 2.5, 5, 10) if s * scale >= rough * 0.999)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def labels(ticks: Sequence[float]) -> list[str]:
    """Ticks in words, all in one unit: 5k, 10k, 15k; no more digits than it takes to tell them apart."""
    largest = max(map(abs, ticks))
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.0
    if 0 < largest < 5e-3:
        return [f"{tick:.1e}".replace(".0e", "e").replace("e-0", "e-") if tick else "0" for tick in ticks]
    sizes = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= 1e4 else ()
    size, letter = next(((size, letter) for size, letter in sizes if largest >= size), (1.0, ""))
    return [f"{tick / size:,.{_digits(step / size)}f}{letter if tick else ''}" for tick in ticks]


def _digits(step: float) -> int:
    """Decimals that tell multiples of a step apart."""
    return next((n for n in range(6) if abs(step * 10**n - round(step * 10**n)) < 1e-6 * step * 10**n), 0)

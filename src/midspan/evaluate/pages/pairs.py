"""Two models problem by problem: who is right where, and whether chance alone would tell them apart as much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from midspan.evaluate.journal import Journal
from midspan.evaluate.pages.tasks import number, verdict
from midspan.evaluate.results import TASKS
from midspan.evaluate.rows import Observed, difference, observed
from midspan.evaluate.runs import RunView
from midspan.evaluate.task import Metric

MOST_PROBLEMS = 400


def problem_by_problem(a: RunView, b: RunView) -> str:
    """The tasks that both were asked, by their first metric; nothing where there is none."""
    parts = []
    for summary in (a.results or {}).get("tasks", ()):
        name = f"{summary['task']}.{summary['variant']}"
        theirs = Journal(b.folder / TASKS / name).samples()
        mine = Journal(a.folder / TASKS / name).samples()
        for temperature in sorted({key[1] for key in mine} & {key[1] for key in theirs}):
            pair = [
                [s for key, s in each.items() if key[1] == temperature and s["scores"]] for each in (mine, theirs)
            ]
            metric = Metric(**summary["metrics"][0])
            if shown := _task(metric, pair[0], pair[1], a.name, b.name):
                at = f" at T={temperature:g}" if temperature else ""
                parts.append(f"<h3>{escape(name)}{at}</h3>{shown}")
    if not parts:
        return ""
    title = f"Problem by problem: {a.name} and {b.name}"
    return f"<h2>{escape(title)}</h2>{''.join(parts)}"


def _task(
    metric: Metric, mine: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], a: str, b: str
) -> str:
    ours, others = observed(metric, mine), observed(metric, theirs)
    if ours is None or others is None or not (found := difference(ours, others)):
        return ""
    row = {"unit": metric.unit, "better": metric.better, **found}
    low, high = (number(row, end) for end in row["difference_interval"])
    signed = "+" if row["difference"] > 0 else ""
    summary = (
        f'<p>{escape(metric.name)}: {escape(a)} minus {escape(b)} <span class="{verdict(row)}">{signed}'
        f"{number(row, row['difference'])}</span> {escape(metric.unit)}, 95 % interval {low} to {high}, over the "
        f"{row['both']:,} questions that both were asked; p = {row['p']:.3g} ({escape(row['test'])}).</p>"
    )
    places = {name: place for place, name in enumerate(others.questions)}
    rows = [
        (name, _value(ours, place), _value(others, places[name]))
        for place, name in enumerate(ours.questions)
        if name in places
    ]
    only_a = sum(x > y for _, x, y in rows)
    only_b = sum(x < y for _, x, y in rows)
    equal = len(rows) - only_a - only_b
    apart = sorted((r for r in rows if r[1] != r[2]), key=lambda r: -abs(r[1] - r[2]))[:MOST_PROBLEMS]
    body = "".join(
        f'<tr><td>{escape(name)}</td><td data-name="{escape(a)}">{x:.3g}</td>'
        f'<td data-name="{escape(b)}">{y:.3g}</td></tr>'
        for name, x, y in apart
    )
    head = f"<tr><th></th><th>{escape(a)}</th><th>{escape(b)}</th></tr>"
    counts = (
        f"<p>{escape(a)} is ahead on {only_a:,} questions, {escape(b)} on {only_b:,}, and {equal:,} are equal.</p>"
    )
    return (
        f"{summary}{counts}<details><summary>The questions on which they differ</summary>"
        f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div></details>'
    )


def _value(one: Observed, place: int) -> float:
    return one.above[place] / one.below[place] if one.below[place] else 0.0

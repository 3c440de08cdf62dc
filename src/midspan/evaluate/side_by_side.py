"""Several runs on one page: where they differ, how they went, what they score."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from midspan.evaluate.curves import evaluation_charts, training_charts
from midspan.evaluate.runs import RunView, flat
from midspan.page import html_page

_QUIET = ("hash", "name", "description", "watch.")
"""Settings that tell nothing apart but names."""


def page(runs: Sequence[RunView], score: Any) -> str:
    """The page as HTML.

    Args:
        runs: two or more; those of one name are told apart by their folders.
        score: a row of results.json and a value → the value as it is shown.
    """
    runs = _named_apart(runs)
    title = " · ".join(run.name for run in runs)
    sections = [
        f"<h1>{len(runs)} runs</h1>",
        _table("Runs", runs, _facts(runs)),
        _table("Settings that differ", runs, _different(runs)),
    ]
    note = '<p class="soft">Each step a dot, each line the running mean, where there are dots.</p>'
    if charts := training_charts(runs):
        sections.append(f"<h2>Training</h2>{charts}{note}")
    if charts := evaluation_charts(runs):
        sections.append(f"<h2>Evaluations while training</h2>{charts}")
    sections.append(_table("Scores, before → after", runs, _scores(runs, score)))
    return html_page(title, [section for section in sections if section])


def _named_apart(runs: Sequence[RunView]) -> list[RunView]:
    from dataclasses import replace

    names = [run.name for run in runs]
    return [replace(r, name=f"{r.name} ({r.folder})" if names.count(r.name) > 1 else r.name) for r in runs]


def _table(title: str, runs: Sequence[RunView], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(
            f'<td data-name="{escape(run.name)}">{escape(cell)}</td>'
            for run, cell in zip(runs, cells, strict=True)
        )
        + "</tr>"
        for name, cells in rows
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>{escape(title)}</h2><div class="wide runs">{table}</div>'


def _facts(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    rows = [
        ("state", [run.state for run in runs]),
        ("base", [str((r.recipe or {}).get("base", "")) for r in runs]),
    ]
    last = [run.steps[-1] if run.steps else None for run in runs]
    tail = [run.steps[-max(1, len(run.steps) // 20) :] for run in runs]
    rows.append(("tokens read", [f"{s.tokens:,}" if s else "" for s in last]))
    rows.append(("minutes", [f"{s.seconds / 60:,.1f}" if s else "" for s in last]))
    rows.append(("tokens/s", [f"{s.tokens / s.seconds:,.0f}" if s and s.seconds else "" for s in last]))
    rows.append(("loss at the end", [f"{sum(s.loss for s in t) / len(t):.3f}" if t else "" for t in tail]))
    return rows


def _different(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    settings = [flat(run.recipe) if run.recipe else {} for run in runs]
    names = list(dict.fromkeys(name for one in settings for name in one if not name.startswith(_QUIET)))
    rows = [(name, [one.get(name, "") for one in settings]) for name in names]
    return [(name, cells) for name, cells in rows if len(set(cells)) > 1]


def _scores(runs: Sequence[RunView], score: Any) -> list[tuple[str, list[str]]]:
    found = [{row["row"]: row for row in (run.results or {}).get("rows", ())} for run in runs]
    names = [n for n in dict.fromkeys(n for one in found for n in one) if " all " in n or n.startswith("left")]
    rows = []
    for name in names:
        cells = []
        for one in found:
            row = one.get(name)
            before = f"{score(row, row['before'])} → " if row and "before" in row else ""
            cells.append(f"{before}{score(row, row['ours'])}" if row else "")
        unit = next(one[name] for one in found if name in one)
        arrow = "↑" if unit["better"] == "higher" else "↓"
        rows.append((f"{name.replace(' all ', ' ')}, {unit['unit']} {arrow}", cells))
    return rows

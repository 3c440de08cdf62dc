"""Several runs on one page: where they differ, how they went, what they score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from itertools import combinations
from typing import Any

from midspan.evaluate.curves import evaluation_charts, training_charts
from midspan.evaluate.pages import tables
from midspan.evaluate.pages.pairs import problem_by_problem
from midspan.evaluate.pages.tasks import number
from midspan.evaluate.runs import RunView, flat
from midspan.page import html_page

_QUIET = ("hash", "name", "description", "watch.")
"""Settings that tell nothing apart but names."""


def page(runs: Sequence[RunView]) -> str:
    """The page as HTML.

    Args:
        runs: two or more; those of one name are told apart by their folders.
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
    sections.append(_table("Scores, before → after", runs, _scores(runs)))
    if found := tables.paper_tables([(run.name, run.results["rows"]) for run in runs if run.results]):
        sections.append(f"<h2>Beside the paper</h2>{''.join(map(tables.as_html, found))}")
    sections += [problem_by_problem(a, b) for a, b in combinations(runs, 2)]
    return html_page(title, [section for section in sections if section])


def _named_apart(runs: Sequence[RunView]) -> list[RunView]:
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


def _scores(runs: Sequence[RunView]) -> list[tuple[str, list[str]]]:
    found = [{_name(row): row for row in (run.results or {}).get("rows", ())} for run in runs]
    names = [name for name in dict.fromkeys(name for one in found for name in one) if _whole(name)]
    rows = []
    for name in names:
        cells = []
        for one in found:
            row = one.get(name)
            before = f"{number(row, row['before'])} → " if row and "before" in row else ""
            cells.append(f"{before}{number(row, row['ours'])}" if row else "")
        first = next(one[name] for one in found if name in one)
        arrow = "↑" if first["better"] == "higher" else "↓"
        task, variant, group, metric, temperature = name
        words = [*([] if task == "heldout" else [task, variant]), group.removesuffix(" all"), metric]
        at = f" at T={temperature:g}" if temperature else ""
        rows.append((f"{' '.join(filter(None, words))}{at}, {first['unit']} {arrow}", cells))
    return rows


def _name(row: Mapping[str, Any]) -> tuple[str, str, str, str, float]:
    return row["task"], row["variant"], row["group"], row["metric"], row["temperature"]


def _whole(name: tuple[str, str, str, str, float]) -> bool:
    """Whether a row is over enough to be shown beside others."""
    return name[0] != "heldout" or name[2].endswith(" all") or name[2] == "left to right"

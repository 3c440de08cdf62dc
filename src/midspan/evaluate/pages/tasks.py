"""A task on a page: its rows, its scores over groups and temperatures, how it was measured, and its samples.

Samples are the first of the questions that were asked, in the task's order, and can be opened one by one; all of
them are in samples.jsonl beside the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from midspan.chart import Line, chart
from midspan.evaluate.journal import Journal
from midspan.evaluate.results import TASKS
from midspan.page import bar

MOST_SAMPLES = 60
MOST_CHARACTERS = 6000
"""Of a text that is shown."""
_MANY = 3
"""Groups from which on they are drawn."""


def section(folder: Path, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The part of the page that is about one task."""
    name = f"{summary['task']} · {summary['variant']}"
    parts = [f"<h2>{escape(name)}</h2>", _facts(summary), table(rows)]
    parts += [_over_temperatures(rows), _over_groups(rows), _how(summary), samples(folder, summary)]
    return "".join(parts)


def _facts(summary: Mapping[str, Any]) -> str:
    part = summary["questions"] < summary["of"]
    said = [f"{summary['questions']:,} of {summary['of']:,} questions" if part else f"{summary['of']:,} questions"]
    said.append(f"{summary['samples']:,} samples")
    if summary["errors"]:
        said.append(f"{summary['errors']:,} could not be judged and count for nothing")
    if summary["sandbox"]:
        said.append(f"judged in {summary['sandbox']['mode']} mode")
    said += [f"{name}: {identity}" for name, identity in summary["judges"].items()]
    return f'<p class="soft">{escape(" · ".join(said))}</p>'


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of results.json."""
    if not rows:
        return '<p class="soft">No sample could be scored.</p>'
    compared = any("before" in row for row in rows)
    names = ("before", "after", "difference", "p") if compared else ("score",)
    body = []
    for row in rows:
        label = " ".join(filter(None, (row["group"], row["metric"])))
        at = f" at T={row['temperature']:g}" if len({r["temperature"] for r in rows}) > 1 else ""
        arrow = "↑" if row["better"] == "higher" else "↓"
        cells = [f"<td>{escape(label)}{at} <small>{escape(row['unit'])} {arrow}, n={row['n']}</small></td>"]
        if compared:
            cells.append(cell("before", row, "before", "before_interval"))
        cells.append(cell("after" if compared else "score", row, "ours", "interval"))
        if compared:
            cells.append(cell("difference", row, "difference", "difference_interval", verdict(row)))
            cells.append(f'<td data-name="p">{row["p"]:.3g}</td>' if "p" in row else "<td></td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{each}</th>" for each in ("", *names))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def cell(name: str, row: Mapping[str, Any], value: str, interval: str, style: str = "") -> str:
    """A score with its interval; an empty cell where there is none."""
    if value not in row:
        return f'<td data-name="{name}"></td>'
    signed = "+" if value == "difference" and row[value] > 0 else ""
    ends = ""
    if interval in row:
        low, high = (number(row, end) for end in row[interval])
        ends = f"<small>{low} to {high}</small>"
    return f'<td data-name="{name}"><span class="{style}">{signed}{number(row, row[value])}</span>{ends}</td>'


def verdict(row: Mapping[str, Any]) -> str:
    """The colour of a difference whose interval has no 0 in it."""
    if "difference_interval" not in row:
        return ""
    low, high = row["difference_interval"]
    if low <= 0 <= high:
        return ""
    return "good" if (low > 0) == (row["better"] == "higher") else "bad"


def number(row: Mapping[str, Any], value: float) -> str:
    """A score with as many digits as its unit deserves."""
    digits = 1 if row["unit"] in ("%", "of 100") else 2
    return f"{value:.{digits}f}".replace("-", "−")


def _over_temperatures(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lines over the temperature, one for each metric of the whole task."""
    if len({row["temperature"] for row in rows}) < 2:
        return ""
    figures = []
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        units = dict.fromkeys(row["unit"] for row in mine)
        for unit in units:
            lines = []
            for metric in dict.fromkeys(row["metric"] for row in mine if row["unit"] == unit):
                points = sorted((r["temperature"], r["ours"]) for r in mine if r["metric"] == metric)
                lines.append(Line(metric, [x for x, _ in points], [y for _, y in points]))
            figures.append(
                chart(group or "Over temperatures", unit, lines, x_name="temperature", zero=unit == "%")
            )
    return f'<div class="charts few">{"".join(figures)}</div>'


def _over_groups(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bars of the first metric, a group a bar."""
    if not rows:
        return ""
    first, temperature = rows[0]["metric"], rows[0]["temperature"]
    mine = [r for r in rows if r["group"] and r["metric"] == first and r["temperature"] == temperature]
    if len(mine) < _MANY:
        return ""
    most = 100.0 if mine[0]["unit"] == "%" else max(abs(row["ours"]) for row in mine) or 1.0
    body = "".join(
        f'<tr><td>{escape(row["group"])}</td><td class="bars">{bar(row["ours"] / most)}</td>'
        f'<td data-name="{escape(first)}">{number(row, row["ours"])}</td></tr>'
        for row in mine
    )
    return f'<h3>{escape(first)} by group</h3><div class="wide"><table><tbody>{body}</tbody></table></div>'


def _how(summary: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in summary.items() if key != "metrics"}
    whole = escape(json.dumps(shown, indent=2, ensure_ascii=False))
    return f"<details><summary>How it was measured</summary><pre>\n{whole}</pre></details>"


def samples(folder: Path, summary: Mapping[str, Any]) -> str:
    """The first samples, each to be opened."""
    journal = Journal(folder / TASKS / f"{summary['task']}.{summary['variant']}")
    found = [*journal.samples().values()]
    if not found:
        return ""
    body = "".join(map(_sample, found[:MOST_SAMPLES]))
    more = f"The first {MOST_SAMPLES} of {len(found):,}; all" if len(found) > MOST_SAMPLES else "All"
    where = f"{TASKS}/{journal.folder.name}/samples.jsonl"
    note = f'<p class="soft">{more} are in {escape(where)}.</p>'
    return f"<details><summary>Samples, one by one</summary>{note}{body}</details>"


def _sample(sample: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{name} {value:.4g}" for name, value in sample["scores"].items())
    outcome = sample["verdict"] or scores
    style = {"passed": "good", "failed": "bad", "timeout": "bad", "error": "bad"}.get(sample["verdict"], "")
    number = f" #{sample['copy']} at T={sample['temperature']:g}" if sample["temperature"] else ""
    heading = (
        f'<summary>{escape(sample["question"])}{number} <span class="{style}">{escape(outcome)}</span> '
        f"<small>{escape(sample['reason'])}</small></summary>"
    )
    facts = [scores, f"ended: {sample['ended']}", f"{sample['tokens']} tokens, {sample['seconds']:.2f} s"]
    if sample["verdict"]:
        facts.append(f"{sample['cpu_seconds']:.2f} s of CPU, {sample['wall_seconds']:.2f} s of wall time")
    parts = [f'<p class="soft">{escape(" · ".join(filter(None, facts)))}</p>']
    parts.append(f'<pre class="context">\n{_cut(sample["prompt"])}<mark>{_cut(sample["text"])}</mark></pre>')
    for program in sample["programs"][:1]:
        whole = f"{program['source']}\n{program['test']}"
        parts.append(f"<details><summary>The program that was run</summary><pre>\n{_cut(whole)}</pre></details>")
    return f'<details class="sample">{heading}{"".join(parts)}</details>'


def _cut(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return escape(text)
    half = MOST_CHARACTERS // 2
    return f"{escape(text[:half])}\n… {len(text) - 2 * half:,} characters …\n{escape(text[-half:])}"

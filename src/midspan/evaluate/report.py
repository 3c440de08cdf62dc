"""A run as one page, while it trains or after: what is trained, how it goes, what it scores beside its base, and
what it writes. Several runs as one page stand side by side (`side_by_side.py`).

The page is a single file: no script, no font, no picture is fetched. Everything that comes from a corpus or a
model is escaped. A line feed follows every <pre>, since HTML drops the first one.

Examples are the first holes in the order in which they were drawn; none is picked for its looks.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from midspan.evaluate import side_by_side
from midspan.evaluate.curves import evaluation_charts, training_charts
from midspan.evaluate.runs import RunView, view
from midspan.files import write_text
from midspan.page import html_page
from midspan.train.metrics import StepMetrics

REPORT, REPORT_OF_SEVERAL = "report.html", "midspan-report.html"
EXAMPLES_PER_KIND = 4
_HEADLINES = ("all exact match", "all edit similarity", "all bits with the end", "all ended by itself")
_KINDS = {
    "all": "all holes",
    "line": "one line to its end",
    "lines": "two to five lines",
    "span": "characters anywhere",
}
_LAYOUTS = {"psm": "PSM: prefix, suffix, middle", "spm": "SPM: suffix, prefix, middle"}


def write_report(*folders: Path, out: Path | None = None) -> Path:
    """Make the page of a run, or of several side by side.

    Args:
        folders: runs, in any state, or folders that hold results.json alone.
        out: the file to write; `report.html` in the run's folder, or for several `midspan-report.html` here.

    Raises:
        InputError: a folder is neither, or what it holds is damaged.
    """
    runs = [view(folder) for folder in folders]
    if len(runs) == 1:
        path = out or folders[0] / REPORT
        write_text(path, page(runs[0]))
    else:
        path = out or Path(REPORT_OF_SEVERAL)
        write_text(path, side_by_side.page(runs, _number))
    return path


def page(run: RunView) -> str:
    """The page of one run as HTML."""
    results, sections = run.results, [_header(run)]
    if results:
        sections.append(_cards(results["rows"]))
    if run.recipe:
        sections.append(_training(run.recipe, run.steps))
    if charts := training_charts([run]):
        note = "Each step a dot and the line their running mean, where there are dots."
        sections.append(f'<h2>Training</h2>{charts}<p class="soft">{note}</p>')
    if charts := evaluation_charts([run]):
        note = (
            "The same held-out files and holes each time; a hole is filled exactly where greedy decoding writes "
            "the tokens of the truth and ends."
        )
        sections.append(f'<h2>Evaluations while training</h2>{charts}<p class="soft">{note}</p>')
    if results:
        sections += [_table(results), _examples(results["examples"])]
    return html_page(run.name, sections)


def _header(run: RunView) -> str:
    recipe, results = run.recipe, run.results
    about = f"<p>{escape(recipe['description'])}</p>" if recipe and recipe.get("description") else ""
    made = [run.state] if recipe else []
    if results:
        made += [results["date"], results["hardware"], f"Midspan {results['commit']}"]
    return f'<h1>{escape(run.name)}</h1>{about}<p class="soft">{escape(" · ".join(made))}</p>'


def _cards(rows: Iterable[dict[str, Any]]) -> str:
    """The scores over all holes, before and after, as large numbers; SPM, which editors use, if it was asked."""
    by_name = {row["row"]: row for row in rows}
    layout = "spm" if f"spm {_HEADLINES[0]}" in by_name else next(iter(by_name)).split()[0]
    cards = []
    for name in _HEADLINES:
        row = by_name.get(f"{layout} {name}")
        if row is not None:
            before = f"<span>{_number(row, row['before'])} →</span> " if "before" in row else ""
            label = escape(name.removeprefix("all ")) + (" (lower is better)" if row["better"] == "lower" else "")
            value = f"{_number(row, row['ours'])}{' %' if row['unit'] == '%' else ''}"
            cards.append(f'<div class="card"><small>{label}</small><b>{before}{value}</b></div>')
    shown = f'<p class="soft">All holes, in files that training never saw, {layout.upper()} layout.</p>'
    return f'<div class="cards">{"".join(cards)}</div>{shown}'


def _training(recipe: dict[str, Any], steps: Sequence[StepMetrics]) -> str:
    train, fim, data = recipe["train"], recipe["fim"], recipe["data"]
    spans = ", ".join(f"{name} {share:g}" for name, share in fim["spans"].items())
    size = f"{train['steps']:,} steps of {train['rows_per_step']:,} rows of {data['row_tokens']:,} tokens"
    facts = {
        "base": recipe["base"],
        "corpus": data["corpus"] or ", ".join(f"{s['name']} {s['share']:g}" for s in data["sources"]),
        "method": {
            "lora": f"LoRA, rank {recipe['lora']['rank']}",
            "layers": "all weights of the layers, and the sentinels' rows",
            "full": "all weights",
        }.get(train["method"], train["method"]),
        "size": size,
        "infilling": f"rate {fim['rate']:g}, SPM share {fim['spm_rate']:g}; middles: {spans}",
        "learning rate": f"{recipe['optimizer']['lr']:g}",
    }
    if steps:
        minutes, last = steps[-1].seconds / 60, steps[-1]
        pace = last.tokens / last.seconds if last.seconds else 0.0
        facts["trained"] = f"{last.tokens:,} tokens in {minutes:,.1f} minutes, {pace:,.0f} tokens/s"
        mfu = [s.mfu for s in steps if s.mfu is not None]
        if mfu:
            facts["MFU"] = f"{100 * sorted(mfu)[len(mfu) // 2]:.0f} % in the middle step"
        waited = [s.data_seconds for s in steps if s.data_seconds is not None]
        if len(waited) == len(steps) and last.seconds:
            facts["waiting for rows"] = f"{100 * sum(waited) / last.seconds:.1f} % of the time"
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(fact))}</dd>" for name, fact in facts.items())
    whole = escape(json.dumps(recipe, indent=2, ensure_ascii=False))
    details = f"<details><summary>The whole recipe</summary><pre>{whole}</pre></details>"
    return f"<h2>What was trained</h2><dl>{listed}</dl>{details}"


def _table(results: dict[str, Any]) -> str:
    rows, compared = results["rows"], "before" in results["rows"][0]
    names = ("before", "after", "difference") if compared else ("score",)
    body, group = [], None
    for row in rows:
        layout, kind, *words = row["row"].split()
        known = layout in _LAYOUTS and kind in _KINDS
        heading = f"{_LAYOUTS[layout]} · {_KINDS[kind]}" if known else "Reading from left to right"
        if heading != group:
            group = heading
            body.append(f'<tr><th colspan="{len(names) + 1}">{escape(heading)}</th></tr>')
        arrow = "↑" if row["better"] == "higher" else "↓"
        label = f"{' '.join(words) if known else 'bits per byte'} <small>{escape(row['unit'])} {arrow}</small>"
        cells = [_cell("before", row, "before", "before_interval")] if compared else []
        cells.append(_cell("after" if compared else "score", row, "ours", "interval"))
        if compared:
            cells.append(_cell("difference", row, "difference", "difference_interval", _verdict(row)))
        body.append(f"<tr><td>{label}</td>{''.join(cells)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("score", *names))
    note = (
        f"{rows[0]['n']} holes of three kinds in files held out of training, greedy, taken raw. Small numbers are "
        "95 % intervals. ↑ higher is better, ↓ lower is better; a difference in colour has an interval without 0. "
        "Bits per byte and bits of the end are of the true text: how many bits the model needs to write it, and "
        "to stop where it stops; with the end, both over the bytes."
    )
    return (
        f'<h2>Scores</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table></div><p class="soft">{note}</p>'
    )


def _cell(name: str, row: dict[str, Any], value: str, interval: str, verdict: str = "") -> str:
    signed = "+" if value == "difference" and row[value] > 0 else ""
    low, high = (_number(row, end) for end in row[interval])
    shown = f'<span class="{verdict}">{signed}{_number(row, row[value])}</span>'
    return f'<td data-name="{name}">{shown}<small>{low} to {high}</small></td>'


def _verdict(row: dict[str, Any]) -> str:
    low, high = row["difference_interval"]
    if low <= 0 <= high:
        return ""
    return "good" if (low > 0) == (row["better"] == "higher") else "bad"


def _number(row: dict[str, Any], value: float) -> str:
    return f"{value:.1f}".replace("-", "−") if row["unit"] in ("%", "of 100") else f"{value:.2f}".replace("-", "−")


def _examples(examples: Sequence[dict[str, Any]]) -> str:
    layouts = {example["layout"] for example in examples}
    layout = "spm" if "spm" in layouts else min(layouts, default="")
    shown: list[str] = []
    for kind in list(_KINDS)[1:]:
        chosen = [e for e in examples if (e["kind"], e["layout"]) == (kind, layout)]
        shown += map(_example, chosen[:EXAMPLES_PER_KIND])
    note = (
        f"The first {EXAMPLES_PER_KIND} holes of each kind as they were drawn, {layout.upper()} layout. Marked in "
        "the text: the hole, with what stands there in truth. Below, what was written instead: green is exactly "
        "the truth, red is not in the truth, struck through is missing."
    )
    return f'<h2>What it writes</h2><p class="soft">{note}</p>{"".join(shown)}'


def _example(example: dict[str, Any]) -> str:
    context = f"{escape(example['prefix'])}<mark>{escape(example['truth'])}</mark>{escape(example['suffix'])}"
    where = (
        f"<b>{escape(example['path'])}</b><small>{escape(example['group'])} · {_KINDS[example['kind']]}</small>"
    )
    sides = [
        _side(name, example[name], example["truth"], example[f"{name}_ended"])
        for name in ("before", "after")
        if name in example
    ]
    return (
        f'<article class="example"><header>{where}</header><pre class="context">\n{context}</pre>'
        f'<div class="sides">{"".join(sides)}</div></article>'
    )


def _side(name: str, written: str, truth: str, ended: bool) -> str:
    exact = written == truth
    verdict = "exact match" if exact else "ended by itself" if ended else "did not end"
    text = escape(written) if exact else marked_difference(written, truth)
    style = ' class="exact"' if exact else ""
    label = f"<small><span>{name}</span><span>{verdict}</span></small>"
    return f'<div class="side">{label}<pre{style}>\n{text or " "}</pre></div>'


def marked_difference(written: str, truth: str) -> str:
    """What was written as HTML: <ins> around what the truth has not, <del> around what it has beside it.

    A text with little of the truth is marked as a whole: scattered common words would say nothing.
    """
    ours, theirs = (re.findall(r"\w+|[^\S\n]+|.", text, re.DOTALL) for text in (written, truth))
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    if matcher.ratio() < 0.5:
        return f"<ins>{_visible(written)}</ins>" if written else ""
    parts = []
    for change, a, b, c, d in matcher.get_opcodes():
        kept, missing = "".join(ours[a:b]), "".join(theirs[c:d])
        if change == "equal":
            parts.append(escape(kept))
            continue
        if missing:
            parts.append(f"<del>{_visible(missing)}</del>")
        if kept:
            parts.append(f"<ins>{_visible(kept)}</ins>")
    return "".join(parts)


def _visible(text: str) -> str:
    """Escaped, with a sign at line ends, which carry no colour of their own."""
    return escape(text).replace("\n", "↵\n")

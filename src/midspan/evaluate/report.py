"""A run as one page, while it trains or after: what is trained, how it goes, what it scores beside its base, and
what it writes. Several runs as one page stand side by side (`side_by_side.py`).

The page is a single file: no script, no font, no picture is fetched. Everything that comes from a corpus or a
model is escaped. A line feed follows every <pre>, since HTML drops the first one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from midspan.evaluate import side_by_side
from midspan.evaluate.curves import evaluation_charts, training_charts
from midspan.evaluate.pages import heldout, tables, tasks
from midspan.evaluate.runs import RunView, method, view
from midspan.files import write_text
from midspan.page import html_page
from midspan.train.metrics import StepMetrics

REPORT, REPORT_OF_SEVERAL = "report.html", "midspan-report.html"


def write_report(*folders: Path, out: Path | None = None) -> Path:
    """Make the page of a run, or of several side by side.

    Args:
        folders: runs, in any state, or folders that hold results.json alone.
        out: the file to write; `report.html` in the run's folder, or for several `midspan-report.html` here. The
            paper's tables with our rows are written beside it as Markdown and LaTeX, where there are any.

    Raises:
        InputError: a folder is neither, or what it holds is damaged.
    """
    runs = [view(folder) for folder in folders]
    measured = [(run.name, run.results["rows"]) for run in runs if run.results]
    if len(runs) == 1:
        path = out or folders[0] / REPORT
        write_text(path, page(runs[0]))
    else:
        path = out or Path(REPORT_OF_SEVERAL)
        write_text(path, side_by_side.page(runs))
    found = tables.paper_tables(measured)
    if found:
        source = f"Rows that are not in bold are of {tables.paper()['source']}."
        texts = [f"# {' · '.join(run.name for run in runs)}", source, *map(tables.as_markdown, found)]
        write_text(path.with_suffix(".md"), "\n\n".join(texts))
        write_text(path.with_suffix(".tex"), "\n".join(map(tables.as_latex, found)))
    return path


def page(run: RunView) -> str:
    """The page of one run as HTML."""
    results, sections = run.results, [_header(run)]
    rows = results["rows"] if results else []
    held_out = [row for row in rows if row["task"] == "heldout"]
    if held_out:
        sections.append(heldout.cards(held_out))
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
    if found := tables.paper_tables([(run.name, rows)]):
        note = f"Rows in the page's colour are measured here; the others are of {tables.paper()['source']}."
        shown = "".join(map(tables.as_html, found))
        sections.append(f'<h2>Beside the paper</h2><p class="soft">{escape(note)}</p>{shown}')
    for summary in results["tasks"] if results else []:
        name = (summary["task"], summary["variant"])
        mine = [row for row in rows if (row["task"], row["variant"]) == name]
        if summary["task"] == "heldout":
            kept = results.get("examples") if results else None  # by a Midspan that kept no journal
            examples = kept or heldout.examples(run.folder, summary["variant"])
            sections += [heldout.table(mine), heldout.examples_section(examples)]
        else:
            sections.append(tasks.section(run.folder, summary, mine))
    return html_page(run.name, sections)


def _header(run: RunView) -> str:
    recipe, results = run.recipe, run.results
    about = f"<p>{escape(recipe['description'])}</p>" if recipe and recipe.get("description") else ""
    made = [run.state] if recipe else []
    if results:
        made += [results["date"][:10], results["hardware"], f"Midspan {results['commit']}"]
    return f'<h1>{escape(run.name)}</h1>{about}<p class="soft">{escape(" · ".join(made))}</p>'


def _training(recipe: dict[str, Any], steps: Sequence[StepMetrics]) -> str:
    train, fim, data = recipe["train"], recipe["fim"], recipe["data"]
    spans = ", ".join(f"{name} {share:g}" for name, share in fim["spans"].items())
    size = f"{train['steps']:,} steps of {train['rows_per_step']:,} rows of {data['row_tokens']:,} tokens"
    facts = {
        "base": recipe["base"],
        "corpus": data["corpus"] or ", ".join(f"{s['name']} {s['share']:g}" for s in data["sources"]),
        "method": method(recipe),
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

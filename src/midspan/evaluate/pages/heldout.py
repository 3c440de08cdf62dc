"""The held-out task on a page: cards, its table, and what the model wrote into the first holes.

Examples are the first holes in the order in which they were drawn; none is picked for its looks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from midspan.evaluate.journal import Journal
from midspan.evaluate.pages.tasks import cell, number, verdict
from midspan.evaluate.results import BASE, TASKS
from midspan.evaluate.task import Hole

EXAMPLES_PER_KIND = 4
TAIL_LINES, TAIL_CHARS = 8, 480
"""How much of an example's surroundings is shown on each side."""
_HEADLINES = ("exact match", "edit similarity", "bits with the end", "ended by itself")
_KINDS = {
    "all": "all holes",
    "line": "one line to its end",
    "lines": "two to five lines",
    "span": "characters anywhere",
}
_LAYOUTS = {"psm": "PSM: prefix, suffix, middle", "spm": "SPM: suffix, prefix, middle"}


def examples(folder: Path, variant: str) -> list[dict[str, Any]]:
    """The holes of an evaluation's folder with the truth, what was written, and what the base wrote."""
    mine, theirs = (Journal(folder / side / f"heldout.{variant}") for side in (TASKS, BASE))
    before = theirs.samples()
    questions, found = mine.questions(), []
    places = {name: place for place, name in enumerate(questions)}
    samples = [(key, sample) for key, sample in mine.samples().items() if key[0] in places]
    for key, sample in sorted(samples, key=lambda both: places[both[0][0]]):
        question = questions[key[0]]
        if not isinstance(question.prompt, Hole):
            continue
        prefix, suffix = question.prompt.prefix, question.prompt.suffix
        example = {
            **{name: question.row[name] for name in ("group", "path", "kind", "layout", "truth")},
            "prefix": "\n".join(prefix.split("\n")[-TAIL_LINES:])[-TAIL_CHARS:],
            "suffix": "\n".join(suffix.split("\n")[:TAIL_LINES])[:TAIL_CHARS],
            "after": sample["text"],
            "after_ended": sample["ended"] == "eot",
        }
        if key in before:
            example |= {"before": before[key]["text"], "before_ended": before[key]["ended"] == "eot"}
        found.append(example)
    return found


def cards(rows: Iterable[dict[str, Any]]) -> str:
    """The scores over all holes, before and after, as large numbers; SPM, which editors use, if it was asked."""
    by_name = {(row["group"], row["metric"]): row for row in rows}
    layout = "spm" if ("spm all", _HEADLINES[0]) in by_name else next(iter(by_name))[0].split()[0]
    shown_cards = []
    for name in _HEADLINES:
        row = by_name.get((f"{layout} all", name))
        if row is not None:
            before = f"<span>{number(row, row['before'])} →</span> " if "before" in row else ""
            label = escape(name) + (" (lower is better)" if row["better"] == "lower" else "")
            value = f"{number(row, row['ours'])}{' %' if row['unit'] == '%' else ''}"
            shown_cards.append(f'<div class="card"><small>{label}</small><b>{before}{value}</b></div>')
    shown = f'<p class="soft">All holes, in files that training never saw, {layout.upper()} layout.</p>'
    return f'<div class="cards">{"".join(shown_cards)}</div>{shown}'


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Every score, before and after where there is a base."""
    compared = "before" in rows[0]
    names = ("before", "after", "difference") if compared else ("score",)
    body, group = [], None
    for row in rows:
        layout, _, kind = row["group"].partition(" ")
        known = layout in _LAYOUTS and kind in _KINDS
        heading = f"{_LAYOUTS[layout]} · {_KINDS[kind]}" if known else "Reading from left to right"
        if heading != group:
            group = heading
            body.append(f'<tr><th colspan="{len(names) + 1}">{escape(heading)}</th></tr>')
        arrow = "↑" if row["better"] == "higher" else "↓"
        label = f"{escape(row['metric'])} <small>{escape(row['unit'])} {arrow}</small>"
        cells = [cell("before", row, "before", "before_interval")] if compared else []
        cells.append(cell("after" if compared else "score", row, "ours", "interval"))
        if compared:
            cells.append(cell("difference", row, "difference", "difference_interval", verdict(row)))
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


def examples_section(examples: Sequence[dict[str, Any]]) -> str:
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

"""The paper's tables with our rows above the paper's; one structure, written as HTML, Markdown or LaTeX.

Figures of the paper are data (`paper.json`, with its source). A table is shown where one of its columns was
measured here. A cell of ours says how: prompt variant, temperature, number of questions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

_PAPER = Path(__file__).resolve().parent.parent / "paper.json"
_HEALED = "-healed"
"""How variants end in which the token at the cursor is mended."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure, and what is to be said of it."""

    value: float | None
    interval: tuple[float, float] | None = None
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper's shape."""

    name: str
    title: str
    note: str
    columns: list[str]
    digits: list[int]
    """Decimals of each column, as the paper has them."""
    rows: list[tuple[str, bool, list[Cell]]]
    """Name, whether it is ours, and cells."""


@cache
def paper() -> dict[str, Any]:
    """The paper's tables."""
    found: dict[str, Any] = json.loads(_PAPER.read_text(encoding="utf-8"))
    return found


def paper_tables(measured: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[Table]:
    """The paper's tables in which a model of ours has a figure.

    Args:
        measured: names of models and their rows of results.json.
    """
    found = []
    for table in paper()["tables"]:
        ours = [row for name, rows in measured for row in _ours(table["columns"], name, rows)]
        if not ours:
            continue
        theirs = [(row[0], False, [Cell(value=value) for value in row[1:]]) for row in table["rows"]]
        found.append(
            Table(
                name=table["name"],
                title=table["title"],
                note=table["note"],
                columns=[column["title"] for column in table["columns"]],
                digits=[
                    _digits([row[1 + place] for row in table["rows"]]) for place in range(len(table["columns"]))
                ],
                rows=[*ours, *theirs],
            )
        )
    return found


def _ours(
    columns: Sequence[Mapping[str, Any]], name: str, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[str, bool, list[Cell]]]:
    """As many rows as a column has figures of ours; the paper heals no cursor, so what was healed stands apart."""
    found: list[tuple[str, bool, list[Cell]]] = []
    for suffix, shown_name in (("", name), (_HEALED, f"{name}, healed")):
        mine = [row for row in rows if row["variant"].endswith(_HEALED) == bool(suffix)]
        cells = [[_cell(row) for row in _of_column(column, mine, suffix)] for column in columns]
        empty = Cell(value=None)
        for i in range(max(map(len, cells), default=0)):
            found.append((shown_name, True, [each[i] if i < len(each) else empty for each in cells]))
    return found


def _of_column(
    column: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], suffix: str
) -> list[Mapping[str, Any]]:
    variant = f"{column['variant']}{suffix}" if "variant" in column else None
    return [
        row
        for row in rows
        if (row["task"], row["group"], row["metric"]) == (column["task"], column["group"], column["metric"])
        and variant in (None, row["variant"])
    ]


def _cell(row: Mapping[str, Any]) -> Cell:
    said = row["variant"] + (f", T={row['temperature']:g}" if row["temperature"] else "") + f", n={row['n']}"
    low, high = row["interval"]
    return Cell(value=row["ours"], interval=(low, high), said=said)


def _digits(values: Sequence[float | None]) -> int:
    return max(len(str(value).partition(".")[2]) for value in [0.1, *(v for v in values if v is not None)])


def shown(value: float | None, digits: int) -> str:
    """A figure, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def as_html(table: Table) -> str:
    """A table of a page."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = []
    for name, ours, cells in table.rows:
        columns = []
        for title, digits, cell in zip(table.columns, table.digits, cells, strict=True):
            small = ""
            if cell.interval is not None:
                low, high = (shown(end, digits) for end in cell.interval)
                small = f"<small>{low} to {high}<br>{escape(cell.said)}</small>"
            columns.append(f'<td data-name="{escape(title)}">{shown(cell.value, digits)}{small}</td>')
        style = ' class="ours"' if ours else ""
        body.append(f"<tr{style}><td>{escape(name)}</td>{''.join(columns)}</tr>")
    return (
        f"<h3>{escape(table.name)}: {escape(table.title)}</h3>"
        f'<div class="wide paper"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody>'
        f'</table></div><p class="soft">{escape(table.note)}</p>'
    )


def as_markdown(table: Table) -> str:
    """A table of a Markdown file."""
    lines = [f"### {table.name}: {table.title}", ""]
    lines.append("| | " + " | ".join(table.columns) + " |")
    lines.append("|---|" + "---:|" * len(table.columns))
    for name, ours, cells in table.rows:
        bold = "**" if ours else ""
        figures = []
        for digits, cell in zip(table.digits, cells, strict=True):
            ends = [shown(end, digits) for end in cell.interval or ()]
            said = f" [{', '.join(ends)}; {cell.said}]" if ends else ""
            figures.append(f"{shown(cell.value, digits)}{said}")
        lines.append(f"| {bold}{_bars(name)}{bold} | " + " | ".join(figures) + " |")
    return "\n".join([*lines, "", table.note, ""])


def as_latex(table: Table) -> str:
    """A `tabular` for booktabs."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(f'{table.title} ({table.name} of the Code Llama paper). {table.note}')}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(["", *map(_tex, table.columns)]) + r" \\",
        r"\midrule",
    ]
    was_ours = True
    for name, ours, cells in table.rows:
        if was_ours and not ours:
            lines.append(r"\midrule")
        was_ours = ours
        title = rf"\textbf{{{_tex(name)}}}" if ours else _tex(name)
        lines.append(" & ".join([title, *map(_tex_figure, cells, table.digits)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _tex_figure(cell: Cell, digits: int) -> str:
    return shown(cell.value, digits).replace("–", "--").replace("−", "$-$")


def _bars(text: str) -> str:
    return text.replace("|", r"\|")


def _tex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    return "".join(special.get(c, c) for c in text.replace("^", r" to the "))

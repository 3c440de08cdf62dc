"""`midspan eval` and `midspan report`: measure a model beside its base, and show it on a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

_EVAL_EXAMPLES = """
Examples:

  midspan eval runs/mine

  midspan eval runs/mine --per-kind 200 --window 512

  midspan eval ./llama-2-7b --corpus team.corpus --out evaluations/llama --json
"""
_REPORT_EXAMPLES = """
Examples:

  midspan report runs/mine

  midspan report runs/mine runs/other runs/third --out three.html
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("eval", epilog=_EVAL_EXAMPLES)(evaluate)
    app.command("report", epilog=_REPORT_EXAMPLES)(report)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder, a name or a checkpoint's path.")],
    corpus: Annotated[
        Path | None, typer.Option(help="Corpus whose held-out files are asked; a run knows its own.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model to stand beside; a run knows its own.")
    ] = None,
    per_kind: Annotated[int, typer.Option(help="Holes of each kind.")] = 50,
    window: Annotated[int, typer.Option(help="Tokens of a file that the model sees around a hole.")] = 256,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.json and report.html; a run's own if not given.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print results.json, without its examples, as one JSON object.")
    ] = False,
) -> None:
    """Infill held-out files with a model, and with its base: exact matches, edit similarity, bits per byte."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from midspan.evaluate import Evaluation, HeldOutConfig

    config = HeldOutConfig(per_kind=per_kind, max_tokens=window)
    evaluation = Evaluation.of(model, corpus=corpus, base=base, out=out, config=config)
    console = Console(stderr=True)
    columns = (TextColumn("Measuring the {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        tasks: dict[str, Any] = {}

        def report_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        results = evaluation.run(report_progress)
    if as_json:
        typer.echo(json.dumps({key: value for key, value in results.items() if key != "examples"}))
        return
    _print(results)
    if evaluation.out is not None:
        typer.echo(f"{evaluation.out / 'results.json'} and {evaluation.out / 'report.html'} are written")


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, in any state, or of results.json.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The page; a run's report.html, or midspan-report.html here for several, if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the page is as a JSON object.")] = False,
) -> None:
    """Draw a run while it trains or after, or several runs side by side, as one page for a browser."""
    from midspan.evaluate import write_report

    path = write_report(*runs, out=out)
    typer.echo(json.dumps({"page": str(path)}) if as_json else path)


def _print(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    compared = results["before_model"] is not None
    names = ("before", "after", "difference") if compared else ("score",)
    columns = [Column(name, justify="right", no_wrap=True) for name in names]
    table = Table(Column(f"{results['rows'][0]['n']} holes of three kinds"), *columns)
    for row in results["rows"]:
        numbers = [("ours", "interval")]
        if compared:
            numbers = [("before", "before_interval"), *numbers, ("difference", "difference_interval")]
        shown = [f"{row[value]:.2f}\n{row[ends][0]:.2f} to {row[ends][1]:.2f}" for value, ends in numbers]
        if " all " in row["row"] or row["row"].startswith("left"):
            unit = "" if row["row"].endswith("per byte") else f", {row['unit']}"
            table.add_row(row["row"].replace(" all ", " ") + unit, *shown)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print("Below each score its 95 % interval. Each kind of hole by itself is in the report.")

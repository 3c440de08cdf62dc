"""`midspan eval` and `midspan report`: put benchmarks to a model, and show what came of it on a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midspan.errors import InputError

if TYPE_CHECKING:
    from midspan.evaluate.measure import Progress

_EVAL_EXAMPLES = """
Examples:

  midspan eval runs/mine

  midspan eval smollm2-135m --tasks humaneval,mbpp --data benchmarks --out evaluations/smol

  midspan eval runs/mine --tasks humaneval:stripped --samples 20 --temperature 0.2,0.8 --data benchmarks --out out

  midspan eval --rescore --out evaluations/smol --sandbox strict

  midspan eval --doctor --data benchmarks
"""
_REPORT_EXAMPLES = """
Examples:

  midspan report runs/mine

  midspan report evaluations/ours evaluations/theirs --out both.html
"""
_CARD_EXAMPLES = """
Examples:

  midspan card runs/code runs/long-context --name ours-135m --licence Apache-2.0

  midspan card runs/mine --results evaluations/mine --notes notes.md
"""
_SAMPLES, _TASK, _RUN, _SETTINGS = "Samples", "Tasks", "Running", "Held-out files and sources"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("eval", epilog=_EVAL_EXAMPLES)(evaluate)
    app.command("report", epilog=_REPORT_EXAMPLES)(report)
    app.command("card", epilog=_CARD_EXAMPLES)(card)


def evaluate(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A run's folder, a name, a checkpoint or an adapter.")
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="With commas between them, each NAME or NAME:PROMPT; --doctor shows all.", rich_help_panel=_TASK
        ),
    ] = "heldout",
    data: Annotated[
        str | None,
        typer.Option(help="Folder of the benchmarks' files, or `hub` to fetch them.", rich_help_panel=_TASK),
    ] = None,
    prompt_variant: Annotated[
        str | None, typer.Option(help="Prompt of the tasks that are named without one.", rich_help_panel=_TASK)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Ask so many questions of each task.", rich_help_panel=_TASK)
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Answers to each question above temperature 0.", rich_help_panel=_SAMPLES)
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(help="One, or several with commas; 0 takes the most probable.", rich_help_panel=_SAMPLES),
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Choose among the tokens that hold this share.", rich_help_panel=_SAMPLES)
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other samples.", rich_help_panel=_SAMPLES)] = 0,
    max_tokens: Annotated[
        int | None, typer.Option(help="Longest answer; each task has its own.", rich_help_panel=_SAMPLES)
    ] = None,
    k: Annotated[
        str | None,
        typer.Option("--k", help="The k of pass@k, with commas; 1,10,100 if not given.", rich_help_panel=_SAMPLES),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model to stand beside; a run knows its own.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(metavar="URL", help="Server that answers; MODEL is its vocabulary.")
    ] = None,
    served_as: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name there; the first one if not given.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WHAT", help="truth, info, refusal or toxicity: a model, MODULE:FUNCTION or baseline."
        ),
    ] = None,
    sandbox: Annotated[
        str, typer.Option(help="compat runs official programs whole, strict keeps the tests out of reach.")
    ] = "compat",
    workers: Annotated[int | None, typer.Option(help="Programs judged at a time.", rich_help_panel=_RUN)] = None,
    batch: Annotated[int, typer.Option(help="Answers that are written at a time.", rich_help_panel=_RUN)] = 32,
    decoder: Annotated[
        str, typer.Option(help="Who writes tokens: torch, auto or fused.", rich_help_panel=_RUN)
    ] = "torch",
    bits: Annotated[int, typer.Option(help="The fused decoder's weights.", rich_help_panel=_RUN)] = 8,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Its held-out files are asked; a run knows its own.", rich_help_panel=_SETTINGS),
    ] = None,
    per_kind: Annotated[int | None, typer.Option(help="Holes of each kind.", rich_help_panel=_SETTINGS)] = None,
    window: Annotated[
        int | None, typer.Option(help="Tokens of a file around a hole.", rich_help_panel=_SETTINGS)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for answers, results and reports; a run's own if not given.")
    ] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score the answers in --out again, without the model.")
    ] = False,
    doctor: Annotated[
        bool, typer.Option("--doctor", help="Show every task, and what is missing here and how to get it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json as one JSON object.")] = False,
) -> None:
    """Put benchmarks to a model, and to its base; goes on where an interrupted evaluation was."""
    from midspan.cli.generate import decoding
    from midspan.evaluate import Asks, Evaluation
    from midspan.evaluate import rescore as score_again
    from midspan.evaluate.doctor import examine
    from midspan.evaluate.judges import parse_judges

    if doctor:
        _show_doctor(examine(data), as_json)
        return
    mode: Any = sandbox
    if mode not in ("compat", "strict"):
        raise InputError(f"--sandbox is {sandbox!r}; it is compat or strict")
    ks = () if k is None else tuple(_numbers("--k", k, int))
    judges = parse_judges(judge or ())
    if rescore:
        if out is None:
            raise InputError("--rescore needs the folder with the answers; name it with --out DIR")
        only = None if tasks == "heldout" else tasks
        with _progress() as told:
            results = score_again(
                out, tasks=only, data=data, ks=ks, judges=judges, mode=mode, workers=workers, progress=told
            )
    else:
        if model is None:
            raise InputError("which model? Name a run's folder, a checkpoint or a name of `midspan models list`")
        asks = Asks(
            samples=samples,
            temperatures=None if temperature is None else tuple(_numbers("--temperature", temperature, float)),
            top_p=top_p,
            seed=seed,
            max_tokens=max_tokens,
            limit=limit,
        )
        evaluation = Evaluation.of(
            model,
            tasks=tasks,
            variant=prompt_variant,
            out=out,
            base=base,
            upstream=upstream,
            served_as=served_as,
            data=data,
            asks=asks,
            ks=ks,
            settings={"corpus": corpus, "per_kind": per_kind, "window": window},
            judges=judges,
            mode=mode,
            workers=workers,
            max_batch=batch,
            **decoding(decoder, bits),
        )
        out = evaluation.out
        with _progress() as told:
            results = evaluation.run(told)
    if as_json:
        typer.echo(json.dumps(results))
        return
    _print(results)
    typer.echo(f"{out / 'results.json'} and {out / 'report.html'} are written")


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, in any state, or of evaluations.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The page; a run's report.html, or midspan-report.html here for several, if not given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the page is as a JSON object.")] = False,
) -> None:
    """Draw a run while it trains or after, or several runs or evaluations side by side, as one page."""
    from midspan.evaluate import write_report

    path = write_report(*runs, out=out)
    typer.echo(json.dumps({"page": str(path)}) if as_json else path)


def card(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="A lineage's runs, in the order of training.")
    ],
    results: Annotated[
        list[Path] | None, typer.Option(help="A further folder with a results.json of this model; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the last run's if not given.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the model, as SPDX names it; the base's where that is known.")
    ] = None,
    notes: Annotated[Path | None, typer.Option(help="A Markdown file of your own words.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; README.md beside the last run's weights if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where the card is as a JSON object.")] = False,
) -> None:
    """Write a model's card from its runs, their corpora and what was measured: data, licences, scores, limits."""
    from midspan.evaluate import write_card

    try:
        words = notes.read_text(encoding="utf-8") if notes else ""
    except (OSError, ValueError) as error:
        raise InputError(f"the notes {notes} cannot be read ({error}); name a Markdown file in UTF-8") from None
    paths = write_card(*runs, results=results or (), name=name, licence=licence, notes=words, out=out)
    typer.echo(json.dumps({"cards": [str(path) for path in paths]}) if as_json else "\n".join(map(str, paths)))


def _numbers(option: str, text: str, kind: type) -> list[Any]:
    try:
        found = [kind(word) for word in text.split(",") if word.strip()]
    except ValueError:
        found = []
    if not found or min(found) < 0 or (kind is int and min(found) < 1):
        raise InputError(f"{option} is {text!r}; write numbers with commas between them, such as 1,10")
    return found


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar a task, with the time that is left and the score so far."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    score = TextColumn("{task.fields[score]}")
    with Progress(*columns, score, console=console, transient=True, disable=not console.is_terminal) as bar:
        known: dict[str, Any] = {}

        def told(what: str, done: int, total: int, value: float | None) -> None:
            if what not in known:
                known[what] = bar.add_task(what, score="")
            said = "" if value is None else f"{value:.2f} so far"
            bar.update(known[what], completed=done, total=total, score=said)

        yield told


def _print(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    rows = results["rows"]
    compared = any("before" in row for row in rows)
    names = ("before", "after", "difference") if compared else ("score",)
    columns = [Column(name, justify="right", no_wrap=True) for name in names]
    table = Table(Column("95 % intervals below"), *columns)
    whole = {row["task"] for row in rows if not row["group"]}
    for row in rows:
        if not _is_shown(row, whole):
            continue
        numbers = [("ours", "interval")]
        if compared:
            numbers = [("before", "before_interval"), *numbers, ("difference", "difference_interval")]
        name = row["row"].removeprefix("heldout ").replace(" all ", " ")
        unit = "" if row["row"].endswith("per byte") else f", {row['unit']}"
        table.add_row(f"{name}{unit}", *(_score(row, *each) for each in numbers))
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print("Groups and kinds by themselves are in the report.")


def _is_shown(row: dict[str, Any], whole: set[str]) -> bool:
    """Whole tasks; groups of those that have no whole; and of the held-out task whole layouts."""
    if row["task"] == "heldout":
        return row["group"].endswith(" all") or row["group"] == "left to right"
    return not row["group"] or row["task"] not in whole


def _score(row: dict[str, Any], value: str, interval: str) -> str:
    if value not in row:
        return ""
    ends = f"\n{row[interval][0]:.2f} to {row[interval][1]:.2f}" if interval in row else ""
    return f"{row[value]:.2f}{ends}"


def _show_doctor(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table("task", "prompts", "what", "here")
    for row in found["tasks"]:
        table.add_row(row["task"], "\n".join(row["variants"]), row["about"], row["missing"] or "yes")
    console.print(table)
    tools = Table("language", "here", "how to get it")
    for row in found["languages"]:
        tools.add_row(row["language"], row["version"] if row["ready"] else "no", row["remedy"])
    console.print(tools)
    if any(row["ready"] and row["remedy"] for row in found["languages"]):
        console.print("Without the libraries named, the few programs of a language that load them fail.")
    console.print(found["jail"])

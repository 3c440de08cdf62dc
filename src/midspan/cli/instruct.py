"""`midspan instruct`: conversations that ran before they were believed, stage by stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midspan.cli.generate import Bits, Decoder, Json, decoding

if TYPE_CHECKING:
    from midspan.engine.front import Front
    from midspan.instruct import Paid, Workshop, Yield

app = typer.Typer(help="Questions, tests and solutions by a model, and data sets of them.", no_args_is_help=True)

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Where the stages keep their work; made if needed.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="Who is asked: a name, a path, or the name at --endpoint.")
]
Endpoint = Annotated[
    str | None, typer.Option(help="Ask a server with OpenAI's chat completions, such as http://127.0.0.1:8000.")
]
KeyFile = Annotated[Path | None, typer.Option(help="File with the key of --endpoint.")]
Parallel = Annotated[int, typer.Option(help="Requests at a time.")]
Temperature = Annotated[float, typer.Option(help="0 takes the most probable token, always.")]
TopP = Annotated[float, typer.Option(help="Choose among the most probable tokens that hold this share.")]
Seed = Annotated[int, typer.Option(help="Another seed, other requests; the same seed, the same requests.")]
Workers = Annotated[int | None, typer.Option(help="Programs that run at a time; one per core if not given.")]
CpuSeconds = Annotated[float, typer.Option(help="CPU seconds of a program, after which it has failed.")]
Benchmarks = Annotated[
    list[Path] | None,
    typer.Option("--benchmarks", help="Benchmark files or folders to keep clear of. Repeatable."),
]


@app.command("questions", epilog="Example: midspan instruct questions work --model smollm2-135m --number 500")
def questions(
    folder: Folder,
    model: Model = None,
    endpoint: Endpoint = None,
    api_key_file: KeyFile = None,
    number: Annotated[int, typer.Option(help="Questions to ask for; the paper asked for 62,000.")] = 1000,
    per_request: Annotated[int, typer.Option(help="Questions that one request asks for.")] = 50,
    language: Annotated[str, typer.Option(help="python, javascript, typescript, php or cpp.")] = "python",
    seeds: Annotated[
        Path | None, typer.Option(help="A corpus of your own: questions are about code like it.")
    ] = None,
    send_code: Annotated[
        bool, typer.Option("--send-code", help="Allow --seeds to leave this machine, to an --endpoint elsewhere.")
    ] = False,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Take near duplicates out, and not exact ones alone.")
    ] = False,
    benchmarks: Benchmarks = None,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.95,
    parallel: Parallel = 4,
    seed: Seed = 0,
    decoder: Decoder = "auto",
    bits: Bits = 8,
    as_json: Json = False,
) -> None:
    """Ask for interview-style questions in batches; those that say the same, or are a benchmark's, go."""
    from midspan.instruct import QuestionsConfig, ask_questions
    from midspan.instruct.questions import SAMPLE, check_seeds

    check_seeds(seeds, endpoint, send_code=send_code)
    config = QuestionsConfig(
        number=number,
        per_request=per_request,
        language=language,
        sample=replace(SAMPLE, temperature=temperature, top_p=top_p),
        seeds=seeds,
        near_duplicates=near_duplicates,
        benchmarks=tuple(benchmarks or ()),
        parallel=parallel,
        seed=seed,
    )
    with _work(folder, model, endpoint, api_key_file, decoder, bits) as (shop, paid), _bar("requests") as progress:
        found = ask_questions(shop, paid, config, progress)
    _print(found, as_json)


@app.command("tests", epilog="Example: midspan instruct tests work --model smollm2-135m")
def unit_tests(
    folder: Folder,
    model: Model = None,
    endpoint: Endpoint = None,
    api_key_file: KeyFile = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    temperature: Temperature = 0.2,
    top_p: TopP = 0.95,
    parallel: Parallel = 4,
    workers: Workers = None,
    cpu_seconds: CpuSeconds = 3.0,
    seed: Seed = 0,
    decoder: Decoder = "auto",
    bits: Bits = 8,
    as_json: Json = False,
) -> None:
    """Ask for tests of every question; those that a stub passes say nothing and go."""
    from midspan.instruct import Judge, UnitTestsConfig, make_tests
    from midspan.instruct.unit_tests import SAMPLE

    config = UnitTestsConfig(
        sample=replace(SAMPLE, temperature=temperature, top_p=top_p),
        max_tokens=max_tokens,
        parallel=parallel,
        seed=seed,
    )
    with (
        _work(folder, model, endpoint, api_key_file, decoder, bits) as (shop, paid),
        Judge(shop.verdicts, workers=workers, cpu_seconds=cpu_seconds) as judge,
        _bar("questions") as progress,
    ):
        found = make_tests(shop, paid, judge, config, progress)
    _print(found, as_json)


@app.command("solutions", epilog="Example: midspan instruct solutions work --model smollm2-135m --number 10")
def solutions(
    folder: Folder,
    model: Model = None,
    endpoint: Endpoint = None,
    api_key_file: KeyFile = None,
    number: Annotated[int, typer.Option(help="Solutions of each question.")] = 10,
    mutants: Annotated[
        int, typer.Option(help="Changed programs, half of which tests have to notice; 0 for none.")
    ] = 4,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 768,
    temperature: Temperature = 0.8,
    top_p: TopP = 0.95,
    parallel: Parallel = 4,
    workers: Workers = None,
    cpu_seconds: CpuSeconds = 3.0,
    seed: Seed = 0,
    decoder: Decoder = "auto",
    bits: Bits = 8,
    as_json: Json = False,
) -> None:
    """Ask for solutions of every question that has tests, run them, and keep the first that passes."""
    from midspan.instruct import Judge, SolutionsConfig, make_solutions
    from midspan.instruct.questions import SAMPLE

    config = SolutionsConfig(
        number=number,
        mutants=mutants,
        sample=replace(SAMPLE, temperature=temperature, top_p=top_p),
        max_tokens=max_tokens,
        parallel=parallel,
        seed=seed,
    )
    with (
        _work(folder, model, endpoint, api_key_file, decoder, bits) as (shop, paid),
        Judge(shop.verdicts, workers=workers, cpu_seconds=cpu_seconds) as judge,
        _bar("questions") as progress,
    ):
        found = make_solutions(shop, paid, judge, config, progress)
    _print(found, as_json)


@app.command(
    "build", epilog="Example: midspan instruct build work others.jsonl --safety --out conversations.jsonl"
)
def build(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SOURCE...", help="Folders of the stages; files of OpenAI, ShareGPT or Alpaca."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of conversations.")] = Path("conversations.jsonl"),
    preferences: Annotated[
        Path | None, typer.Option(help="Also write solutions that passed beside such that failed, as TRL reads.")
    ] = None,
    safety: Annotated[bool, typer.Option("--safety", help="Add the safety set.")] = False,
    benchmarks: Benchmarks = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out entries that cannot be used, and count them.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write one file of conversations to train on, from what was solved and from files of others."""
    from midspan.instruct.dataset import BuildConfig
    from midspan.instruct.dataset import build as write

    config = BuildConfig(
        sources=tuple(sources or ()),
        safety=safety,
        benchmarks=tuple(benchmarks or ()),
        skip_bad=skip_bad,
        seed=seed,
    )
    _print(write(out, config, preferences=preferences), as_json)


@contextmanager
def _work(
    folder: Path, model: str | None, endpoint: str | None, key_file: Path | None, decoder: str, bits: int
) -> Iterator[tuple[Workshop, Paid]]:
    """The folder, and who is asked."""
    from midspan.instruct import Paid, Workshop, open_asker

    options = decoding(decoder, bits)

    def load(name: str) -> Front:
        from midspan.engine import Engine

        return Engine.load(name, **options)

    asker = open_asker(model, endpoint, load=load, api_key_file=key_file)
    with Workshop(folder) as shop:
        yield shop, Paid(asker, shop.paid)


@contextmanager
def _bar(what: str) -> Iterator[Any]:
    """A progress bar; gives the function that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(found: Yield, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    table = Table(
        found.stage, Column("here", **right), Column("", **right), Column("paper", **right), Column("", **right)
    )
    for row in found.rows:
        shares = [f"{row[name]:.1%}" if row[name] is not None else "" for name in ("share", "paper_share")]
        paper = f"{row['paper']:,}" if row["paper"] is not None else ""
        table.add_row(row["what"], f"{row['count']:,}", shares[0], paper, shares[1])
    console = Console(highlight=False, markup=False)
    console.print(table)
    for reason, count in found.dropped.most_common():
        console.print(f"{count:,} dropped: {reason}")
    if found.paid or found.known:
        console.print(f"{found.paid:,} requests were sent, the answers of {found.known:,} were there")

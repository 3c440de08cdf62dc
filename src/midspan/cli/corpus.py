"""`midspan corpus`: build a corpus from folders and git repositories, and look at one."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from midspan import corpus
from midspan.corpus.ingest import MAX_BYTES

app = typer.Typer(
    name="corpus", help="Turn folders and git repositories into documents to train on.", no_args_is_help=True
)

_BUILD_EXAMPLES = """
Examples:

  midspan corpus build ~/code/app --out app.corpus

  midspan corpus build app@v1.2 lib packages/ --out team.corpus --languages python --held-out lib

  midspan corpus build packages/ --out packages.corpus --held-out-share 0.05 --json
"""
_SHOW_EXAMPLES = """
Examples:

  midspan corpus show team.corpus

  midspan corpus show team.corpus --json
"""

Json = Annotated[bool, typer.Option("--json", help="Print the manifest as one JSON object.")]


def _names(values: list[str]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


@app.command(epilog=_BUILD_EXAMPLES)
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A folder; a git repository, read at HEAD; or one at a revision, as PATH@REVISION.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    languages: Annotated[
        list[str] | None, typer.Option(help="Keep only these languages: python,c,… (default: all).")
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="Groups to hold out of training, by exact name: a repository, or a folder's entry."),
    ] = None,
    held_out_share: Annotated[
        float, typer.Option(help="Hold out this share of all groups, by hash of the name.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of --held-out-share.")] = 0,
    max_bytes: Annotated[int, typer.Option(help="Drop files above this size.")] = MAX_BYTES,
    overwrite: Annotated[bool, typer.Option(help="Replace the corpus that stands at --out.")] = False,
    as_json: Json = False,
) -> None:
    """Build a corpus: every file is kept or dropped with a reason, and groups are held out whole."""
    with _bar() as bar:
        manifest = corpus.build(
            sources,
            out,
            languages=_names(languages) if languages else None,
            held_out=_names(held_out or []),
            held_out_share=held_out_share,
            seed=seed,
            max_bytes=max_bytes,
            overwrite=overwrite,
            progress=_reporter(bar),
        )
    _print(manifest, out, as_json)


@app.command(epilog=_SHOW_EXAMPLES)
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A corpus that `corpus build` made.")],
    as_json: Json = False,
) -> None:
    """Show what a corpus holds: files kept and dropped by reason, languages, splits, held-out groups."""
    _print(corpus.Corpus.open(folder).manifest, folder, as_json)


def _bar() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[megabytes]:,.1f} MB"),
        TextColumn("{task.fields[rate]:,.0f} files/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _reporter(bar: Progress) -> Callable[[corpus.Progress], None]:
    task = bar.add_task("Listing files", total=None, megabytes=0.0, rate=0.0)

    def report(done: corpus.Progress) -> None:
        elapsed = bar.tasks[0].elapsed or 1e-9
        bar.update(
            task,
            description="Reading files",
            completed=done.files,
            total=done.total_files,
            megabytes=done.size / 1e6,
            rate=done.files / elapsed,
        )

    return report


def _print(manifest: corpus.Manifest, folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"folder": str(folder)} | asdict(manifest), ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)  # names of files and groups are not markup
    splits = Table("split", "files", "MB")
    for split, count in manifest.kept.items():
        splits.add_row(split, f"{count:,}", f"{manifest.kept_bytes[split] / 1e6:,.1f}")
    console.print(f"{folder}: {manifest.files:,} files found, {sum(manifest.kept.values()):,} kept")
    console.print(splits)
    for title, counts in (("dropped because", manifest.dropped), ("language", manifest.languages)):
        if counts:
            console.print(_counts(title, counts))
    for source in manifest.sources:
        console.print(f"source {source['source']}" + (f" at {source['commit']}" if source["commit"] else ""))
    if manifest.held_out_groups:
        console.print(f"held out: {', '.join(manifest.held_out_groups)}")
    console.print(f"fingerprint {manifest.fingerprint}")


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title, "files")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    return table

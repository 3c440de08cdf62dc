"""`midspan corpus`: build a corpus from code, look at one, take a repository out of one.

The room is imported by the commands themselves: a help text should not wait for compiled kernels.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from midspan.errors import InputError
from midspan.files import write_text

if TYPE_CHECKING:
    from midspan import corpus
    from midspan.corpus import Report

app = typer.Typer(
    name="corpus",
    help="Turn folders, repositories, archives and datasets into documents to train on.",
    no_args_is_help=True,
)

_BUILD_EXAMPLES = """
Examples:

  midspan corpus build ~/code/app --out app.corpus

  midspan corpus build app@v1.2 lib packages/ --out team.corpus --languages python --held-out lib --workers 8

  midspan corpus build stack.parquet --out open.corpus --licences permissive --decontaminate benchmarks/

  midspan corpus build src/ --out strict.corpus --config corpus.toml --workers 8

  midspan corpus build packages/ --out packages.corpus --engine ray --ray-address auto --json
"""
_SHOW_EXAMPLES = """
Examples:

  midspan corpus show team.corpus

  midspan corpus show team.corpus --tokens smollm2-135m --html card.html

  midspan corpus show team.corpus --json
"""
_REMOVE_EXAMPLES = """
Examples:

  midspan corpus remove team.corpus --repo lib
"""

Json = Annotated[bool, typer.Option("--json", help="Print the data card as one JSON object.")]
Workers = Annotated[int, typer.Option(help="Processes that work; the corpus does not depend on it.")]
EngineName = Annotated[str, typer.Option("--engine", help="Where the work runs: local or ray.")]
Address = Annotated[
    str | None, typer.Option("--ray-address", help="A running Ray cluster, e.g. auto (default: one started here).")
]


def _names(values: Sequence[str] | None) -> list[str] | None:
    return (
        None if values is None else [name.strip() for value in values for name in value.split(",") if name.strip()]
    )


def _settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a TOML file of settings") from None
    except ValueError as error:
        raise InputError(f"{path} is no TOML ({error}); mend it") from None


@app.command(epilog=_BUILD_EXAMPLES)
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A folder; a git repository, read at HEAD or as PATH@REVISION; a .jsonl, .parquet, .tar or .zip "
            "file; text:PATH for natural language; hf:OWNER/NAME, the only one that uses the network.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to make, or to bring up to date.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings as a TOML file; options given here win over it.")
    ] = None,
    languages: Annotated[
        list[str] | None, typer.Option(help="Keep only these languages: python,c,… (default: all).")
    ] = None,
    licences: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep only these: permissive, none, other, or SPDX ids (default: any, since it is yours)."
        ),
    ] = None,
    decontaminate: Annotated[
        list[Path] | None, typer.Option(help="Keep out the items of these benchmark files and folders.")
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="Groups to hold out of training, by exact name: a repository, or a folder's entry."),
    ] = None,
    held_out_share: Annotated[
        float | None, typer.Option(help="Hold out this share of all groups, by hash of the name.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of --held-out-share.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out files whose paths match: 'tests/*,*_pb2.py'.")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Drop files above this size (default: 1 MiB).")] = None,
    quality: Annotated[
        bool | None,
        typer.Option("--quality/--no-quality", help="Drop what StarCoder 2's quality rules drop (default)."),
    ] = None,
    vendored: Annotated[
        bool | None, typer.Option("--vendored/--no-vendored", help="Keep vendored and generated files.")
    ] = None,
    redact: Annotated[
        bool | None,
        typer.Option("--redact/--no-redact", help="Replace secrets, e-mail and IP addresses (default)."),
    ] = None,
    near_duplicates: Annotated[
        bool | None, typer.Option("--near-duplicates/--no-near-duplicates", help="Drop near duplicates (default).")
    ] = None,
    workers: Workers = 1,
    engine: EngineName = "local",
    ray_address: Address = None,
    overwrite: Annotated[
        bool, typer.Option(help="Change a corpus that was built of other sources or with other settings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build a corpus: every file is kept or dropped with a reason, and groups are held out whole.

    Again after a change, only what changed is done again; a build that was interrupted goes on.
    """
    from midspan import corpus
    from midspan.corpus.card import data_card
    from midspan.corpus.engine import open_engine

    given = {
        "languages": _names(languages),
        "licences": _names(licences),
        "decontaminate": [str(path.expanduser().resolve()) for path in decontaminate or ()] or None,
        "held_out": _names(held_out),
        "held_out_share": held_out_share,
        "seed": seed,
        "exclude": _names(exclude),
        "max_bytes": max_bytes,
        "quality": quality,
        "vendored": vendored,
        "redact": redact,
        "near_duplicates": near_duplicates,
    }
    settings = _settings(config) | {name: value for name, value in given.items() if value is not None}
    with _progress() as report:
        corpus.build(
            sources,
            out,
            corpus.CorpusConfig.of(settings),
            engine=open_engine(engine, workers=workers, address=ray_address),
            overwrite=overwrite,
            report=report,
        )
    _print(data_card(corpus.Corpus.open(out)), out, as_json)


@app.command(epilog=_SHOW_EXAMPLES)
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A corpus that `corpus build` made.")],
    tokens: Annotated[
        str | None, typer.Option("--tokens", metavar="MODEL", help="Count tokens, by this model's vocabulary.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the data card as a page.")] = None,
    as_json: Json = False,
) -> None:
    """Show a corpus's data card: languages, licences, what was left out and why, duplicates, contamination."""
    from midspan import corpus
    from midspan.corpus.card import card_page, data_card

    tokenizer = None
    if tokens is not None:
        from midspan.cache import resolve_model
        from midspan.model.weights import tokenizer_path
        from midspan.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(tokenizer_path(resolve_model(tokens))).accelerated()
    card = data_card(corpus.Corpus.open(folder), tokenizer)
    if html is not None:
        write_text(html, card_page(card, folder.resolve()))
    _print(card, folder, as_json)


@app.command(epilog=_REMOVE_EXAMPLES)
def remove(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A corpus that `corpus build` made.")],
    repo: Annotated[list[str], typer.Option("--repo", help="Repository or package to take out, by its name.")],
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Take a repository out of a corpus for good, and write only what depended on it again."""
    from midspan import corpus
    from midspan.corpus.card import data_card
    from midspan.corpus.engine import open_engine

    names = _names(repo)
    if not names:
        raise InputError("no repository was named; give its name with --repo")
    with _progress() as report:
        corpus.remove(folder, names, engine=open_engine("local", workers=workers), report=report)
    _print(data_card(corpus.Corpus.open(folder)), folder, as_json)


@contextmanager
def _progress() -> Iterator["Report"]:
    """A line that says how far a build is; on a terminal a bar with the time that is left."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("listing", total=None, amount="")
        step = ""

        def report(done: "corpus.Progress") -> None:
            nonlocal step
            if done.step != step:
                step = done.step
                bar.reset(task, description=step, total=done.total or None, amount="")
                if not console.is_terminal:
                    console.print(f"{step} …", highlight=False)
            of_bytes = step == "examining"
            amount = f"{done.done / 1e6:,.1f} MB" if of_bytes else f"{done.done:,}" if done.total else ""
            bar.update(task, completed=done.done, total=done.total or None, amount=amount)

        yield report


def _print(card: Mapping[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **card}, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)  # names of files and groups are not markup
    console.print(f"{folder}: {card['files']:,} files found, {sum(card['kept'].values()):,} kept")
    splits = Table("split", "files", "MB", *(["M tokens"] if card["tokens"] else []))
    for split, count in card["kept"].items():
        tokens = [f"{card['tokens'][split] / 1e6:,.2f}"] if card["tokens"] else []
        splits.add_row(split, f"{count:,}", f"{card['kept_bytes'][split] / 1e6:,.1f}", *tokens)
    console.print(splits)
    for title, rows in (
        ("language", [(row["language"], row["split"], row["files"], row["bytes"]) for row in card["by_language"]]),
        ("licence", [(row["licence"], row["kind"], row["files"], row["bytes"]) for row in card["by_licence"]]),
        ("left out because", [(row["reason"], "", row["files"], None) for row in card["by_reason"]]),
    ):
        if rows:
            console.print(_table(title, rows))
    if card["near_duplicates"]["clusters"]:
        found = card["near_duplicates"]
        console.print(f"near duplicates: {found['files']:,} files in {found['clusters']:,} clusters")
    for hit in card["contamination"]:
        console.print(f"benchmark items: {hit['hits']:,} of {hit['benchmark']} ({hit['how']})")
    replaced = {name: counts["found"] for name, counts in card["redacted"].items() if counts.get("found")}
    if replaced:
        console.print("replaced: " + ", ".join(f"{count:,} {name}" for name, count in replaced.items()))
    for source in card["sources"]:
        console.print(f"source {source['source']}" + (f" at {source['commit']}" if source["commit"] else ""))
    if card["held_out_groups"]:
        console.print(f"held out: {_few(card['held_out_groups'])}")
        share = card["kept_bytes"]["held_out"] / max(sum(card["kept_bytes"].values()), 1)
        if share > 0.5:
            console.print(
                f"{share:.0%} of the text is held out: groups are the folders directly under a source; to hold "
                "out less, give folders further down as sources, or name what to hold out with --held-out"
            )
    if card["removed"]:
        console.print(f"removed: {', '.join(card['removed'])}")
    console.print(f"fingerprint {card['fingerprint']}")


def _few(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _table(title: str, rows: Sequence[tuple[str, str, int, int | None]], most: int = 15) -> Table:
    """The first rows, and how many more there are."""
    table = Table(title, "", "files", "MB")
    for name, about, count, size in rows[:most]:
        table.add_row(name, about, f"{count:,}", "" if size is None else f"{size / 1e6:,.2f}")
    if len(rows) > most:
        table.add_row(f"{len(rows) - most} more", "", f"{sum(row[2] for row in rows[most:]):,}", "")
    return table

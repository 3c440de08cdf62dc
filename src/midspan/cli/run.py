"""`midspan run`: a lineage, building what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

_EXAMPLES = """
Examples:

  midspan run recipes/smol --dry-run

  midspan run recipes/smol --to instruct

  midspan run recipes/smol --runs /data/runs --set code:train.steps=2000 --set train.precision=fp32

  torchrun --nproc-per-node 8 -m midspan run recipes/code-llama --to 7b-instruct
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", epilog=_EXAMPLES)(run)


def run(
    lineage: Annotated[Path, typer.Argument(help="A folder with a recipe for each stage, such as recipes/smol.")],
    to: Annotated[
        str | None, typer.Option("--to", help="Only this stage (a recipe's name or file) and what it stands on.")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="The folder of the stages' runs.")] = Path("runs"),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of every recipe: a.b=c; of one: STAGE:a.b=c. Repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the stages and their state, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the stages as JSON.")] = False,
) -> None:
    """Train the stages of a lineage in order: what is missing, and what was cut off; what is finished stays."""
    from midspan.train.lineage import load_lineage, plan, run_lineage, up_to
    from midspan.train.ranks import is_first

    stages = up_to(load_lineage(lineage, runs, overrides or ()), to)
    found = plan(stages) if dry_run else run_lineage(stages)
    if not is_first():
        return
    if as_json:
        typer.echo(json.dumps({"stages": found}, indent=2))
    else:
        from rich.console import Console

        Console().print(_table(found))


def _table(stages: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("stage", "base", "state", "steps", "what is done", box=None, pad_edge=False)
    for stage in stages:
        what = f"refused: it {stage['why']}" if stage["action"] == "refuse" else stage["action"]
        table.add_row(
            stage["name"], stage["base"], stage["state"], f"{stage['steps_done']}/{stage['steps']}", what
        )
    return table

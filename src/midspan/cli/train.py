"""`midspan train`: one stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_EXAMPLES = """
Examples:

  midspan train recipes/smol/code.toml --set data.corpus=my-corpus

  midspan train recipes/smol/code.toml --out runs/mine --set train.steps=400 --set optimizer.lr=5e-4

  midspan train recipes/smol/code.toml --out runs/mine --set train.steps=400 --set optimizer.lr=5e-4 --resume

  torchrun --nproc-per-node 8 -m midspan train recipes/code-llama/7b-code.toml --set parallel.context=2
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", epilog=_EXAMPLES)(train)


def train(
    recipe: Annotated[Path, typer.Argument(help="A stage as a TOML file, such as recipes/smol/code.toml.")],
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder; runs/NAME if not given.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the recipe: a.b=c. May be repeated."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
) -> None:
    """Train one stage: a recipe, a base and a corpus become a run."""
    from midspan.train import load_recipe
    from midspan.train import train as run_stage

    stage = load_recipe(recipe, overrides or ())
    run_stage(stage, out or Path("runs") / stage.name, resume=resume)

"""`midspan plan`: what a recipe needs, before it is begun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

_EXAMPLES = """
Examples:

  midspan plan recipes/code-llama/7b-code.toml --gpus 64xA100-80GB --price-per-hour 2

  midspan plan recipes/code-llama --gpus 256xH100 --json

  midspan plan recipes/smol/code.toml --gpus cpu

  midspan plan recipes/smol/code.toml --minutes 5

  midspan plan recipes/smol/code.toml --run runs/smol-code
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", epilog=_EXAMPLES)(plan)


def plan(
    recipes: Annotated[
        list[Path], typer.Argument(metavar="RECIPE...", help="Stages as TOML files, or a folder of them.")
    ],
    gpus: Annotated[
        str, typer.Option("--gpus", help="Such as 64xA100-80GB or 8xH100; cpu measures this machine.")
    ] = "cpu",
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", min=0, help="Of one GPU or of this machine.")
    ] = None,
    pue: Annotated[
        float, typer.Option("--pue", min=1, help="Power of the data centre over that of the machines.")
    ] = 1.1,
    shape: Annotated[
        str | None,
        typer.Option("--shape", help="7b, 13b, 34b, 70b or a config.json, where the base is not here."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value of the recipe: a.b=c. May be repeated."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A run of the recipe: what it measured is put beside the plan.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="How many steps fit so many minutes here? Loads the base and tries."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Memory, speed, days, energy and cost of a recipe on some hardware, or why it does not fit."""
    from rich.console import Console

    from midspan.errors import WorkError
    from midspan.plan.command import load_recipes, plan_all, run_beside
    from midspan.plan.measure import steps_within
    from midspan.plan.show import show, show_measured

    loaded = load_recipes(recipes, overrides or ())
    console, errors = Console(highlight=False), Console(stderr=True)
    if minutes is not None:
        with errors.status("timing a few steps"):
            steps = {recipe.name: steps_within(recipe, minutes) for recipe in loaded}
        typer.echo(
            json.dumps(steps)
            if as_json
            else "\n".join(f"{name}: {number:,} steps in {minutes:g} minutes" for name, number in steps.items())
        )
        return
    with errors.status(
        "planning" if gpus != "cpu" else "timing a few layers on this machine, some ten seconds a recipe"
    ):
        plans = plan_all(loaded, gpus, shape)
    beside = run_beside(run, plans) if run is not None else None
    if as_json:
        values = [each.to_json(price_per_hour=price_per_hour, pue=pue) for each in plans]
        typer.echo(json.dumps({"plans": values} | ({"run": beside} if beside else {})))
    else:
        show(console, plans, price_per_hour=price_per_hour, pue=pue)
        if beside:
            show_measured(console, beside)
    refused = [each.stage.name for each in plans if not each.fits]
    if refused:
        raise WorkError(f"{', '.join(refused)} cannot be trained so; what would do is said above")

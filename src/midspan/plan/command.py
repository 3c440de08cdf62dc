"""What `midspan plan` does: read recipes, plan each, and lay a run beside its plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from midspan.errors import InputError
from midspan.plan.hardware import parse_gpus
from midspan.plan.plan import plan_gpus
from midspan.plan.result import Plan
from midspan.plan.show import measured
from midspan.plan.stage import Layout, stage_of
from midspan.train import Recipe, load_recipe
from midspan.train.lineage import load_lineage
from midspan.train.metrics import read_metrics
from midspan.train.parallel import ParallelConfig


def load_recipes(paths: Sequence[Path], overrides: Sequence[str] = ()) -> list[Recipe]:
    """The recipes of files and of lineages, in which parents come first.

    Raises:
        InputError: a file that is no recipe, a folder without any, or two stages of one name.
    """
    found: dict[str, Recipe] = {}
    for path in paths:
        if path.is_dir():
            recipes = [stage.recipe for stage in load_lineage(path, overrides=overrides)]
        else:
            recipes = [load_recipe(path, overrides)]
        for recipe in recipes:
            if recipe.name in found:
                raise InputError(f"two of the recipes are named {recipe.name}; give one of them another name")
            found[recipe.name] = recipe
    return list(found.values())


def plan_all(recipes: Sequence[Recipe], gpus: str, shape: str | None = None) -> list[Plan]:
    """A plan of each recipe on GPUs, or on this machine with `cpu`.

    Raises:
        InputError: hardware or a base that is not known.
    """
    beside = {recipe.name: recipe for recipe in recipes}
    stages = [stage_of(recipe, beside, shape) for recipe in recipes]
    if gpus.strip().lower() != "cpu":
        cluster = parse_gpus(gpus)
        return [
            plan_gpus(stage, cluster, layout=_own(recipe, cluster.count))
            for recipe, stage in zip(recipes, stages, strict=True)
        ]
    from midspan.plan.cpu import measure_machine, plan_cpu

    machine = measure_machine()
    return [plan_cpu(recipe, stage, machine) for recipe, stage in zip(recipes, stages, strict=True)]


def _own(recipe: Recipe, gpus: int) -> Layout | None:
    """The layout that a recipe asks for, if it asks for one."""
    return None if recipe.parallel == ParallelConfig() else Layout.of(recipe.parallel, gpus)


def run_beside(run: Path, plans: Sequence[Plan]) -> dict[str, dict[str, float]]:
    """What a run measured beside its plan, by figure.

    Raises:
        InputError: several plans, or a run without steps.
    """
    if len(plans) != 1:
        raise InputError(f"--run compares one recipe with its run, and {len(plans)} are planned; name one")
    steps = read_metrics(run / "metrics.jsonl")
    if not steps:
        raise InputError(f"{run} has no steps in its metrics.jsonl; name the folder of a run that has begun")
    return measured(steps, plans[0])

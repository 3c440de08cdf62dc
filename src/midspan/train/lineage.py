"""A lineage: the recipes of a folder, chained by their bases, and what of them is done.

    code.toml            base = "smollm2-135m"             smollm2-135m ── code ──┬── long-context ── instruct
    long-context.toml    base = "runs/code"                                       └── python
    python.toml          base = "runs/code"
    instruct.toml        base = "runs/long-context"

A stage whose base is `runs/` and the name of another recipe of the folder starts from that one's model. What is
missing is trained, parents first; what was interrupted goes on; what is finished stays. A run that was begun by
another recipe than the one that is there now, or on another base, is refused before anything is trained: nobody
wants a child of a parent that has changed without being told.

There is no state but the runs' folders.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from midspan.cache import resolve_model
from midspan.errors import InputError
from midspan.train.checkpoint import MARKER
from midspan.train.loop import train
from midspan.train.ranks import joined_ranks
from midspan.train.recipe import Recipe, load_recipe
from midspan.train.run import RECIPE, changed_since

RUNS = "runs"
"""The folder that a recipe's base names, wherever the runs of a lineage really are."""


class State(StrEnum):
    """How far a stage is."""

    MISSING = "missing"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"
    CHANGED = "changed"
    """Its run was begun by another recipe, or on another base."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A recipe of a lineage, and where it is trained."""

    path: Path
    recipe: Recipe
    """Its base is the parent's run, where it has a parent."""
    parent: str | None
    """Name of the stage that it starts from."""
    run: Path

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    def steps_done(self) -> int:
        """Steps that need not be trained again."""
        if (self.run / "model").is_dir():
            return self.recipe.train.steps
        found = [path.parent.name.removeprefix("step-") for path in self.run.glob(f"checkpoints/step-*/{MARKER}")]
        return max(map(int, found), default=0)

    def state(self) -> tuple[State, str]:
        """How far the stage is, and a reason where it has changed."""
        if not self.run.exists() or (self.run.is_dir() and not any(self.run.iterdir())):
            return State.MISSING, ""
        if not (self.run / RECIPE).is_file():
            return State.CHANGED, f"is no run (it has no {RECIPE})"
        if (why := changed_since(self.run, self.recipe)) is not None:
            return State.CHANGED, why
        return (State.FINISHED if (self.run / "model").is_dir() else State.INTERRUPTED), ""

    def usable(self) -> State:
        """How far the stage is; InputError where it has changed."""
        state, why = self.state()
        if state == State.CHANGED:
            raise InputError(
                f"stage {self.name}: {self.run} {why}; go back to what it was, move that run away to train it "
                "again, or name another --runs"
            )
        return state


def load_lineage(folder: Path, runs: Path = Path(RUNS), overrides: Sequence[str] = ()) -> list[Stage]:
    """The stages of a folder of recipes, every one behind its parent, else in the order of their files' names.

    Args:
        folder: holds one TOML file for each stage.
        runs: where their runs are.
        overrides: `a.b=c` for every stage, or `STAGE:a.b=c` for one.

    Raises:
        InputError: the folder holds no recipe, one cannot be used, two have one name, or bases go in a circle.
    """
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise InputError(f"{folder} holds no recipe; name a folder with a TOML file for each stage")
    given = [_for_stage(override) for override in overrides]
    recipes: dict[str, tuple[Path, Recipe]] = {}
    used: set[str] = set()
    for path in paths:
        recipe = load_recipe(path, [text for stage, text in given if stage in (None, path.stem)])
        named = [text for stage, text in given if stage == recipe.name and stage != path.stem]
        if named:
            recipe = load_recipe(path, [text for stage, text in given if stage in (None, path.stem, recipe.name)])
        used |= {path.stem, recipe.name}
        if recipe.name in recipes:
            raise InputError(f"{path} and {recipes[recipe.name][0]} are both called {recipe.name!r}; rename one")
        recipes[recipe.name] = path, recipe
    for stage, text in given:
        if stage is not None and stage not in used:
            raise InputError(f"--set {stage}:{text} names no stage of {folder}{_nearest(stage, used)}")
    stages = {}
    for name, (path, recipe) in recipes.items():
        parent = _parent(recipe, recipes.keys())
        if parent is not None:
            recipe = replace(recipe, base=str(runs / parent))
        stages[name] = Stage(path=path, recipe=recipe, parent=parent, run=runs / name)
    return _parents_first(stages)


def up_to(stages: Sequence[Stage], target: str | None) -> list[Stage]:
    """The stages that a target (a name, or its file's) stands on, and itself; all of them without a target."""
    if target is None:
        return list(stages)
    by_name = {stage.name: stage for stage in stages}
    found = by_name.get(target) or next((stage for stage in stages if stage.path.stem == target), None)
    if found is None:
        names = {stage.path.stem for stage in stages}
        raise InputError(f"--to {target} names no stage of the lineage{_nearest(target, names)}")
    wanted = {found.name}
    while found.parent is not None:
        found = by_name[found.parent]
        wanted.add(found.name)
    return [stage for stage in stages if stage.name in wanted]


def plan(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """What would be done with each stage, as JSON values: `action` is train, resume, leave, skip or refuse.

    Skipped is what is missing and only finished stages need.
    """
    states = {stage.name: stage.state() for stage in stages}
    parents = {stage.parent for stage in stages}
    needed = {stage.name for stage in stages if stage.name not in parents}
    found = []
    for stage in reversed(stages):  # children before parents
        state, why = states[stage.name]
        action = {"missing": "train", "interrupted": "resume", "finished": "leave", "changed": "refuse"}[state]
        if action in ("train", "resume"):
            if stage.name not in needed:
                action = "skip"
            elif stage.parent is not None:
                needed.add(stage.parent)
        found.append(
            {
                "name": stage.name,
                "recipe": str(stage.path),
                "base": stage.parent or stage.recipe.base,
                "run": str(stage.run),
                "state": str(state),
                "steps_done": stage.steps_done() if state in (State.INTERRUPTED, State.FINISHED) else 0,
                "steps": stage.recipe.train.steps,
                "action": action,
                "why": why,
            }
        )
    return found[::-1]


def run_lineage(stages: Sequence[Stage], console: Console | None = None) -> list[dict[str, Any]]:
    """Train what is missing, go on with what was interrupted, leave alone what is finished.

    Returns:
        What `plan` said before, with the state in which each stage is now.

    Raises:
        InputError: a run has changed, or a base is not there; nothing was trained then. Or as `train`.
        WorkError: as `train`; the next call goes on.
    """
    with joined_ranks() as ranks:
        console = (console or Console(stderr=True)) if ranks.is_first else Console(quiet=True)
        planned: list[dict[str, Any]] = ranks.agreed(ranks.first(lambda: _planned(stages)) or [])
        for stage, todo in zip(stages, planned, strict=True):
            if todo["action"] == "skip":
                continue
            state = ranks.agreed(ranks.first(stage.usable))  # again: its base may have been trained since
            if state == State.FINISHED:
                console.print(f"{stage.name} is finished")
            else:
                console.rule(stage.name)
                train(stage.recipe, stage.run, resume=state == State.INTERRUPTED, console=console)
            todo["state"], todo["steps_done"] = str(State.FINISHED), stage.recipe.train.steps
        return planned


def _planned(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """What is to be done; refused where a run has changed, or a base is not there."""
    planned = plan(stages)
    for stage, todo in zip(stages, planned, strict=True):
        stage.usable()
        if todo["action"] in ("train", "resume") and stage.parent is None:
            resolve_model(stage.recipe.base)
    return planned


def _for_stage(override: str) -> tuple[str | None, str]:
    """`STAGE:a.b=c` as the stage and the rest; a colon in the value is none."""
    found = re.match(r"([^=:]+):(.*)", override, re.DOTALL)
    return (found[1], found[2]) if found else (None, override)


def _parent(recipe: Recipe, names: Iterable[str]) -> str | None:
    folder, _, name = recipe.base.removeprefix("./").rstrip("/").partition("/")
    return name if folder == RUNS and name in names else None


def _parents_first(stages: dict[str, Stage]) -> list[Stage]:
    ordered: dict[str, Stage] = {}
    for stage in stages.values():
        chain = [stage]
        while (parent := chain[-1].parent) is not None and parent not in ordered:
            chain.append(stages[parent])
            if chain.count(chain[-1]) > 1:
                circle = " on ".join(each.name for each in chain[chain.index(chain[-1]) :])
                raise InputError(f"the stages stand on each other in a circle ({circle}); give one another base")
        for each in reversed(chain):
            ordered.setdefault(each.name, each)
    return list(ordered.values())


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.0)
    return f"; did you mean {near[0]}?" if near else ""

"""A run as a page sees it: what its folder says of it, while it trains or after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midspan.errors import InputError
from midspan.train import read_recipe
from midspan.train.metrics import METRICS, EvalMetrics, StepMetrics, read_evaluations, read_metrics


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What there is to show of a folder; at least one of a recipe and results."""

    name: str
    folder: Path
    recipe: dict[str, Any] | None
    steps: list[StepMetrics]
    evaluations: list[EvalMetrics]
    results: dict[str, Any] | None

    @property
    def state(self) -> str:
        """Where the run stands, in words."""
        if self.recipe is None:
            return "no run"
        total, done = self.recipe["train"]["steps"], self.steps[-1].step if self.steps else 0
        if (self.folder / "model").is_dir():
            return f"finished, {total:,} steps"
        return f"at step {done:,} of {total:,}" if done else f"not begun, {total:,} steps"


def view(folder: Path) -> RunView:
    """Read a run's folder, or one that holds results alone.

    Raises:
        InputError: it is neither, or what it holds is damaged.
    """
    path = folder / "results.json"
    recipe = read_recipe(folder) if (folder / "recipe.json").is_file() else None
    results = None
    try:
        results = _as_now(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        if recipe is None:
            raise InputError(
                f"{folder} is no run and has no results.json; name a run's folder, or run `midspan eval` with "
                f"--out {folder} first"
            ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); run `midspan eval {folder}` again") from error
    return RunView(
        name=recipe["name"] if recipe else results["name"] if results else folder.name,
        folder=folder,
        recipe=recipe,
        steps=read_metrics(folder / METRICS),
        evaluations=read_evaluations(folder / METRICS),
        results=results,
    )


def _as_now(results: dict[str, Any]) -> dict[str, Any]:
    """Results of a Midspan that knew the held-out task alone, whose rows had its groups in their names."""
    if "tasks" in results:
        return results
    rows = []
    for row in results["rows"]:
        words = row["row"].split()
        size = 3 if row["row"].startswith("left to right") else 2
        named = {"task": "heldout", "variant": "both", "temperature": 0.0, "samples": row["n"]}
        named |= {"group": " ".join(words[:size]), "metric": " ".join(words[size:])}
        rows.append({**row, **named, "row": f"heldout {row['row']}"})
    return {**results, "rows": rows, "tasks": [{"task": "heldout", "variant": "both"}]}


def method(recipe: Mapping[str, Any]) -> str:
    """What of the model a recipe trains, in words."""
    named = str(recipe["train"]["method"])
    return {
        "lora": f"LoRA, rank {recipe['lora']['rank']}",
        "layers": "all weights of the layers, and the sentinels' rows",
        "full": "all weights",
    }.get(named, named)


def flat(values: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """The settings of a recipe by their names, as they are shown."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{where}{key}.")
        else:
            found[f"{where}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found

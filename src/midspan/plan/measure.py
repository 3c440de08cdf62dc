"""How many steps of a recipe fit some minutes here: its base is loaded and a few steps are taken and timed."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch

from midspan.errors import InputError
from midspan.plan.stage import stage_of
from midspan.plan.trial import Trial, precision_of, random_rows
from midspan.train import prepare_base
from midspan.train.base import sentinel_ids
from midspan.train.recipe import Recipe

ENOUGH = 12.0
"""Seconds of steps after which no further one is timed."""
WHOLE = 8
"""Passes of a step up to which whole steps are timed; of longer ones a few passes and the optimizer are."""


def seconds_per_step(recipe: Recipe, timed: int = 3) -> float:
    """Median seconds of a step of the recipe, on random ids, after one that is not counted.

    Args:
        recipe: what is trained; its corpus is not needed.
        timed: steps that are timed at most.

    Raises:
        InputError: the base is not here.
    """
    chats, row_tokens = recipe.data.chats, recipe.data.row_tokens
    precision = precision_of(recipe, "cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = prepare_base(recipe.base, precision, recipe.model, chats=chats, row_tokens=row_tokens)
    if torch.cuda.is_available():
        model.to("cuda")
    stage = replace(stage_of(recipe), model=model.config)
    passes = -(-recipe.train.rows_per_step // recipe.train.rows_per_pass)
    few = passes if passes <= WHOLE else 2
    rows = random_rows(stage, min(few * recipe.train.rows_per_pass, recipe.train.rows_per_step))
    trial = Trial(recipe, model, sentinel_ids(tokenizer, chats=chats), rows)
    found: list[float] = []
    start = time.perf_counter()
    while len(found) <= timed and (len(found) < 2 or time.perf_counter() - start < ENOUGH):
        begun = time.perf_counter()
        trial.backward()
        between = time.perf_counter()
        trial.step()
        found.append((between - begun) * passes / few + time.perf_counter() - between)
    return statistics.median(found[1:])


def steps_within(recipe: Recipe, minutes: float) -> int:
    """Optimizer steps of a recipe that this machine takes in `minutes`; at least 1.

    Raises:
        InputError: no time at all, or the base is not here.
    """
    if not minutes > 0:
        raise InputError(f"--minutes {minutes} leaves no time; give a number above 0")
    return max(1, int(minutes * 60 / seconds_per_step(recipe)))

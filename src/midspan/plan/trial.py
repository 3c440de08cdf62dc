"""A model made ready by a recipe and trained on random rows: the loop's own functions, without a corpus.

All that planning knows of the loop's inside is here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from midspan.model import Llama
from midspan.model.lora import add_lora, train_rows
from midspan.plan.stage import Stage
from midspan.rows import Row
from midspan.rows.segments import SEGMENT
from midspan.train.loop import PRECISIONS, _backward
from midspan.train.optimizer import Optimizer
from midspan.train.recipe import Recipe

__all__ = ["PRECISIONS", "Trial", "random_rows"]


class Trial:
    """A model with its optimizer, and rows to train on."""

    def __init__(self, recipe: Recipe, model: Llama, token_ids: Sequence[int], rows: list[Row]) -> None:
        """
        Args:
            recipe: decides what trains, and how.
            model: changed in place.
            token_ids: sentinels, whose rows train where the vocabulary's matrices do not.
            rows: of a step.
        """
        if recipe.train.method == "lora":
            add_lora(model, recipe.lora, token_ids, seed=recipe.train.seed)
        elif recipe.train.method == "layers":
            train_rows(model, token_ids)
        self.rows, self._recipe, self._model = rows, recipe, model
        self._optimizer = Optimizer(model, recipe.optimizer, recipe.train.steps)

    @property
    def trained(self) -> int:
        """Parameters that train."""
        return sum(parameter.numel() for parameter in self._optimizer.parameters.values())

    def backward(self) -> None:
        """Forward and backward over the rows."""
        _backward(self._model, self.rows, self._recipe.train)

    def step(self) -> None:
        """The optimizer's step."""
        self._optimizer.step(0)

    def forget(self) -> None:
        """Drop the gradients."""
        for parameter in self._optimizer.parameters.values():
            parameter.grad = None


def random_rows(stage: Stage, number: int, seed: int = 0) -> list[Row]:
    """Full rows of random ids, in documents of the recipe's length where it fixes one."""
    draw = np.random.default_rng(seed)
    length = stage.segment_tokens or stage.row_tokens
    ends = [*range(length, stage.row_tokens, length), stage.row_tokens]
    segments = np.zeros(len(ends), dtype=SEGMENT)
    segments["end"] = ends
    return [Row(draw.integers(0, stage.model.vocab_size, stage.row_tokens), segments) for _ in range(number)]

"""A model made ready by a recipe and trained on random rows: the loop's own functions, without a corpus.

All that planning knows of the loop's inside is here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from midspan.model import Llama
from midspan.model.fused import keep_memory
from midspan.model.lora import add_lora, train_rows
from midspan.plan.stage import Stage
from midspan.rows import Row
from midspan.rows.segments import SEGMENT
from midspan.train.learner import precision_of
from midspan.train.objective import Objective, join
from midspan.train.optimizer import Optimizer
from midspan.train.parallel import lighten
from midspan.train.recipe import Recipe

__all__ = ["Trial", "precision_of", "random_rows"]


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
        keep_memory()  # as the loop does
        train = recipe.train
        if train.method == "lora":
            add_lora(model, recipe.lora, token_ids, seed=train.seed)
        elif train.method == "layers":
            train_rows(model, token_ids)
        lighten(model, recipe.parallel, train=train.method)
        device = model.model.norm.weight.device
        size = train.rows_per_pass
        self._passes = [join(rows[i : i + size]).to(device) for i in range(0, len(rows), size)]
        self._objective = Objective(model)
        masters = train.precision != "bf16-states"
        self._optimizer = Optimizer(model, recipe.optimizer, train.steps, masters=masters)

    @property
    def trained(self) -> int:
        """Parameters that train."""
        return sum(parameter.numel() for parameter in self._optimizer.parameters.values())

    def backward(self) -> None:
        """Forward and backward over the rows."""
        targets = sum(len(one.at_n) for one in self._passes)
        for one in self._passes:
            torch.autograd.backward(self._objective(one) / targets)

    def layers(self) -> None:
        """Forward and backward through the layers alone, without head and loss."""
        for one in self._passes:
            hidden_1ld = self._objective.llama.hidden(one.ids_bl, segments=one.segments)
            torch.autograd.backward(hidden_1ld, torch.ones_like(hidden_1ld))

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

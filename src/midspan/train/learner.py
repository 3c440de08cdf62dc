"""A recipe's model in its place, ready to learn: whole in one process, or this rank's part of it.

    one process     base -> whole model, trained parts chosen                        -> objective
    many            base's shape -> model on meta, trained parts chosen -> laid out  -> filled -> objective

Both take a step's rows of this rank and leave its gradients; the loss is a sum over the targets of all ranks,
divided once by their number.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from midspan.model import Llama, ModelConfig
from midspan.model.lora import add_lora, train_rows
from midspan.model.loss import passes_over_filling
from midspan.model.precision import computed_in
from midspan.model.weights.assemble import empty
from midspan.rows import Row
from midspan.tokenizer import Tokenizer
from midspan.train.base import Base, base_model, open_base, sentinel_ids
from midspan.train.objective import Objective, Pass, join
from midspan.train.optimizer import Optimizer
from midspan.train.parallel import Layout, Meshes, lighten, parallelize
from midspan.train.ranks import Ranks
from midspan.train.recipe import Recipe

if TYPE_CHECKING:
    from midspan.train.pipeline import Pipeline
    from midspan.train.replay import Replay


def precision_of(recipe: Recipe, device: torch.device | str) -> torch.dtype:
    """What a recipe's model computes in on a device.

    With `bf16` that is bfloat16 where there are products of it and float32 otherwise. What the optimizer updates,
    and what a checkpoint holds, is float32 in both: a run may go on on the other kind of processor.
    """
    if recipe.train.precision == "bf16-states":
        return torch.bfloat16
    return torch.float32 if recipe.train.precision == "fp32" else computed_in(torch.bfloat16, device)


class Learner:
    """A model with what it takes to train it by a recipe. Every rank has one, and calls it when the others do."""

    def __init__(self, recipe: Recipe, ranks: Ranks) -> None:
        """
        Raises:
            InputError: the base cannot be used, or not shared as the recipe says.
        """
        self._recipe, self._ranks = recipe, ranks
        self.layout = Layout.of(recipe.parallel, ranks.world, ranks.rank)
        self.precision = precision_of(recipe, ranks.device)
        self._meshes: Meshes | None = None
        self._pipeline: Pipeline | None = None
        self._replay: Replay | None = None
        self._ends: dist.ProcessGroup | None = None
        self.objective, self.tokenizer = self._alone() if ranks.world == 1 else self._laid_out()
        self.model = self.objective.llama
        self.optimizer = Optimizer(
            self.model,
            recipe.optimizer,
            recipe.train.steps,
            masters=recipe.train.precision != "bf16-states",
            ranks=ranks,
            stages=self.layout.pipeline,
            tied=self.model.config.tied,
            seed=recipe.train.seed,
        )

    def backward(self, batch: list[Row]) -> tuple[float, int, int]:
        """Add the gradients of a step's mean loss.

        Args:
            batch: this rank's rows of the step.

        Returns:
            That loss in nats, and how many targets and tokens it is of, on all ranks.

        Raises:
            FloatingPointError: the loss is not finite; on all ranks.
        """
        size, layout = self._recipe.train.rows_per_pass, self.layout
        length = self._recipe.data.row_tokens * size if self._pipeline else 0
        passes = [
            join(batch[i : i + size], multiple=layout.token_multiple, length=length)
            for i in range(0, len(batch), size)
        ]
        counted = sum(len(one.at_n) for one in passes), sum(len(row.ids) for row in batch)
        copies = self._ranks.world // layout.readers
        targets, tokens = (round(total) // copies for total in self._ranks.sums(*counted))
        if self._replay is None:
            passes = [self._own(one).to(self._ranks.device) for one in passes]
        if self._pipeline is not None:
            loss = self._pipeline.backward(passes, max(targets, 1))
            self._share_ends()
        else:
            loss = self._backward(passes, max(targets, 1))
        (total,) = self._ranks.sums(float(loss))
        mean = total / layout.tensor / max(targets, 1)
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is {mean}")
        return mean, targets, tokens

    def whole_model(self) -> Llama | None:
        """The model as one process has it, on rank 0's host; None on the others. Every rank must ask."""
        if self._ranks.world == 1:
            return self.model
        from midspan.train.place import gather, set_precision

        whole = empty(self.model.config)
        self._choose_trained(whole, self.tokenizer)
        trained = self.precision if self._recipe.train.method == "full" else torch.float32
        set_precision(whole, frozen=self.precision, trained=trained)
        return gather(self.model, whole, self._ranks, stages=self.layout.pipeline)

    def _backward(self, passes: list[Pass], targets: int) -> Tensor:
        total = torch.zeros((), device=self._ranks.device)
        if self._replay is not None:
            self._replay.begin()
            for one in passes:
                total += self._replay.backward(one, targets)
            return total
        for one in passes:
            loss = self.objective(one)
            torch.autograd.backward(loss / targets)
            total += loss.detach()
        return total

    def _own(self, one: Pass) -> Pass:
        """This rank's tokens of a pass."""
        if self.layout.context == 1:
            return one
        from midspan.train.context_parallel import share_pass

        assert self._meshes is not None
        return share_pass(one, self._meshes.context.get_group())

    def _alone(self) -> tuple[Objective, Tokenizer]:
        base = self._open_base()
        self._check(base.config)
        model = base_model(base, self.precision)
        self._choose_trained(model, base.tokenizer)
        model.to(self._ranks.device)
        lighten(model, self._recipe.parallel, train=self._recipe.train.method)
        objective = Objective(model)
        if self._recipe.parallel.replay and passes_over_filling(self._ranks.device):
            from midspan.train.replay import Replay

            most = self._recipe.data.row_tokens
            length = most * self._recipe.train.rows_per_pass
            self._replay = Replay(objective, self._ranks.device, length=length, most=most)
        return objective, base.tokenizer

    def _laid_out(self) -> tuple[Objective, Tokenizer]:
        from midspan.train.pipeline import Stage
        from midspan.train.place import fill, set_precision

        recipe, layout, train = self._recipe, self.layout, self._recipe.train
        base = self._open_base()
        self._check(base.config)
        model = empty(base.config)
        self._choose_trained(model, base.tokenizer)
        masters = train.precision != "bf16-states"
        set_precision(model, frozen=self.precision, trained=torch.float32 if masters else self.precision)
        objective = Stage(model) if layout.pipeline > 1 else Objective(model)
        self._meshes = Meshes.of(layout, self._ranks.device)
        # Adapters are float32 and cast themselves where they are used; frozen matrices have their type already.
        compute = None if train.method == "lora" else self.precision
        parallelize(objective, self._meshes, recipe.parallel, compute=compute, train=train.method)
        fill(objective, model, base, self._ranks.device)
        if isinstance(objective, Stage):
            self._pipeline = self._pipeline_of(objective)
        return objective, base.tokenizer

    def _pipeline_of(self, stage: Objective) -> Pipeline:
        from midspan.train.pipeline import Pipeline, Stage, group_of_ends

        assert isinstance(stage, Stage)
        assert self._meshes is not None
        layout, train = self.layout, self._recipe.train
        multiple = layout.token_multiple
        tokens = -(-self._recipe.data.row_tokens * train.rows_per_pass // multiple) * multiple // layout.context
        if stage.llama.config.tied:
            self._ends = group_of_ends(self._ranks.rank, self._ranks.world, layout.pipeline)
        return Pipeline(
            stage,
            self._meshes.whole["pipeline"].get_group(),
            num_passes=train.rows_per_step // layout.readers // train.rows_per_pass,
            ids_shape=(1, tokens),
            shape=(1, tokens // layout.tensor if layout.sequence else tokens, stage.llama.config.hidden_size),
            dtype=self.precision,
        )

    def _share_ends(self) -> None:
        """Sum the gradients of what the first and the last stage hold alike."""
        if self._ends is None:
            return
        for parameter in self.optimizer.on_both_ends:
            grad = parameter.grad
            assert grad is not None
            dist.all_reduce(grad.to_local() if hasattr(grad, "to_local") else grad, group=self._ends)

    def _open_base(self) -> Base:
        recipe = self._recipe
        tokens, chats = recipe.data.row_tokens, recipe.data.chats
        return open_base(recipe.base, self.precision, recipe.model, chats=chats, row_tokens=tokens)

    def _check(self, config: ModelConfig) -> None:
        train = self._recipe.train
        check = partial(self.layout.check, config, method=train.method)
        self._ranks.first(lambda: check(rows_per_step=train.rows_per_step, rows_per_pass=train.rows_per_pass))

    def _choose_trained(self, model: Llama, tokenizer: Tokenizer) -> None:
        """Freeze what the recipe does not train, and put in what it trains instead."""
        train, ids = self._recipe.train, sentinel_ids(tokenizer, chats=self._recipe.data.chats)
        if train.method == "lora":
            add_lora(model, self._recipe.lora, ids, seed=train.seed)
        elif train.method == "layers":
            train_rows(model, ids)

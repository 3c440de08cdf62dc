"""Layers in stages: each rank keeps its stage's, and passes follow each other through them.

    rank 0   embedding, layers 0 1 2         1F1B     stage 0   F1 F2 .. B1 F3 B2 F4 B3 .. B4
    rank 1   layers 3 4, norm, head                   stage 1      F1 B1 F2 B2 F3 B3 F4 B4

A module of another stage is replaced by one that hands its input on, so the model's own forward runs on every
stage and no parameter changes its name. All passes have one length: shorter ones are padded by a segment without
targets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from midspan.model import Llama
from midspan.train.objective import Objective, Pass


class Elsewhere(nn.Module):
    """Stands for a module that another stage holds."""

    def forward(self, x: Any, *others: Any) -> Any:
        return x


def layers_of(stage: int, stages: int, num_layers: int) -> range:
    """The layers of a stage: as even as they can be, the last stage, which has the head, rather fewer."""
    share, more = divmod(num_layers, stages)
    first = stage * share + min(stage, more)
    return range(first, first + share + (stage < more))


def keep_stage(model: Llama, stage: int, stages: int) -> None:
    """Take from a model what other stages hold. Tied matrices stay on both ends, and are kept alike."""
    decoder = model.model
    kept = layers_of(stage, stages, len(decoder.layers))
    for index in range(len(decoder.layers)):
        if index not in kept:
            decoder.layers[index] = Elsewhere()
    if stage > 0:
        decoder.embed_tokens = Elsewhere()  # type: ignore[assignment]
    if stage < stages - 1:
        decoder.norm = Elsewhere()  # type: ignore[assignment]
        model.lm_head = Elsewhere()  # type: ignore[assignment]


def group_of_ends(rank: int, world: int, stages: int) -> dist.ProcessGroup | None:
    """The first and the last stage's ranks of the same parts, if this is one of them; every rank must ask."""
    per_stage, mine = world // stages, None
    for place in range(per_stage):
        ends = [place, place + (stages - 1) * per_stage]
        group = dist.new_group(ends)
        if rank in ends:
            mine = group
    return mine


class Stage(Objective):
    """A stage as a module: hidden states of one pass in, those of the next layer or the loss out."""

    passes: list[Pass]
    """Of this step; the schedule hands over only their numbers."""
    is_last: bool

    def forward(self, x: Tensor, number: Tensor) -> Tensor:  # type: ignore[override]
        one = self.passes[int(number)]
        hidden_bld = self.llama.hidden(x, segments=one.segments)
        return self.of(hidden_bld[0], one) if self.is_last else hidden_bld


class Pipeline:
    """The schedule of a step over the ranks of the pipeline axis."""

    def __init__(
        self,
        stage: Stage,
        group: dist.ProcessGroup,
        *,
        num_passes: int,
        ids_shape: tuple[int, ...],
        shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> None:
        """
        Args:
            num_passes: of a step.
            ids_shape: of a pass, (1, tokens).
            shape: of what stages hand on, (1, tokens of this rank, hidden size).
            dtype: of that.
        """
        self.stage, self.num_passes = stage, num_passes
        rank, world = dist.get_rank(group), dist.get_world_size(group)
        stage.is_last, self.is_first = rank == world - 1, rank == 0
        device = next(stage.parameters()).device
        between = torch.empty(shape, dtype=dtype, device="meta")
        ids = torch.empty(ids_shape, dtype=torch.int64, device="meta")
        loss = torch.empty((), device="meta")
        pipeline_stage = PipelineStage(
            stage,
            rank,
            world,
            device,
            input_args=ids if self.is_first else between.requires_grad_(),
            output_args=loss.requires_grad_() if stage.is_last else between.clone().requires_grad_(),
            group=group,
        )
        self._schedule = Schedule1F1B(pipeline_stage, num_passes, loss_fn=self._loss, scale_grads=False)
        self._targets = 1.0

    def backward(self, passes: list[Pass], targets: float) -> Tensor:
        """Add the gradients of the passes' summed loss over `targets`; give back the sum (0 but on the last)."""
        self.stage.passes, self._targets = passes, targets
        numbers = torch.arange(self.num_passes)
        ids = (torch.cat([one.ids_bl for one in passes]),) if self.is_first else ()
        losses: list[Tensor] = []
        aim: dict[str, Any] = {"target": numbers, "losses": losses} if self.stage.is_last else {}
        self._schedule.step(*ids, number=numbers, return_outputs=False, **aim)
        return torch.stack(losses).sum().detach() * targets if losses else torch.zeros(())

    def _loss(self, output: Tensor, _: Tensor) -> Tensor:
        return output / self._targets

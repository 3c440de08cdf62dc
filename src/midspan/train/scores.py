"""The loss of each target of a pass, where training sums them: what evaluations and the search for culprits read.

A pass goes through the same module as in training, so that what acts around its forward, the gathering of shards
above all, acts here too. Only layouts whose ranks hold whole layers can be asked: every rank then reads a pass of
its own, as many as the others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from midspan.model.loss import CHUNK, token_losses
from midspan.train.objective import Objective, Pass
from midspan.train.parallel import Layout

Score = Callable[[Tensor, nn.Module, Tensor], tuple[Tensor, ...]]


def holds_whole_layers(layout: Layout) -> bool:
    """Whether a rank can read a pass by itself, but for weights that it gathers."""
    return layout.pipeline == layout.context == layout.tensor == 1


def token_scores(objective: Objective, one: Pass) -> tuple[Tensor, Tensor]:
    """Nats of each target, float32, and whether it is the likeliest token there; both (n) and on the host."""

    def score(hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> tuple[Tensor, Tensor]:
        likeliest = [head(part).argmax(dim=-1) for part in torch.split(hidden_nd, CHUNK)]
        return token_losses(hidden_nd, head, targets_n), torch.cat(likeliest) == targets_n

    losses_n, right_n = _scored(objective, one, score)
    return losses_n, right_n


def lacks(objective: Objective, one: Pass, token_id: int) -> Tensor:
    """Nats that a token lacks at each target to be the likeliest, float32 (n) on the host; below 0 where it is."""

    def score(hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> tuple[Tensor]:
        found = []
        for part in torch.split(hidden_nd, CHUNK):
            logits_nv = head(part).float()
            own_n = logits_nv[:, token_id].clone()
            logits_nv[:, token_id] = -torch.inf
            found.append(logits_nv.amax(dim=-1) - own_n)
        return (torch.cat(found),)

    return _scored(objective, one, score)[0]


@torch.no_grad()
def _scored(objective: Objective, one: Pass, score: Score) -> tuple[Tensor, ...]:
    """What `score` makes of the hidden states, the head and the targets of a pass; on the host."""
    found: list[tuple[Tensor, ...]] = []

    def in_place_of_loss(hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> Tensor:
        found.append(tuple(values_n.cpu() for values_n in score(hidden_nd, head, targets_n)))
        return hidden_nd.new_zeros(())

    before, objective.loss = objective.loss, in_place_of_loss
    try:
        objective(one)
    finally:
        objective.loss = before
        reshard = getattr(objective, "reshard", None)
        if reshard is not None:  # without a backward pass nothing lets go of what was gathered
            reshard()
    n = len(one.at_n)  # a pass without targets is read at one place, for its gradients
    return tuple(values_n[:n] for values_n in found[0])

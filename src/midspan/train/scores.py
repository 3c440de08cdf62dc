"""The loss of each target of a pass, where training sums them: what evaluations and the search for culprits read.

A pass goes through the same module as in training, so that what acts around its forward, the gathering of shards
above all, acts here too. Only layouts whose ranks hold whole layers can be asked: every rank then reads a pass of
its own, as many as the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from midspan.model.loss import CHUNK, token_losses
from midspan.train.objective import Objective, Pass
from midspan.train.parallel import Layout


def holds_whole_layers(layout: Layout) -> bool:
    """Whether a rank can read a pass by itself, but for weights that it gathers."""
    return layout.pipeline == layout.context == layout.tensor == 1


@torch.no_grad()
def token_scores(objective: Objective, one: Pass) -> tuple[Tensor, Tensor]:
    """Nats of each target, float32, and whether it is the likeliest token there; both (n) and on the host."""
    found: list[tuple[Tensor, Tensor]] = []

    def score(hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> Tensor:
        likeliest = [head(part).argmax(dim=-1) for part in torch.split(hidden_nd, CHUNK)]
        right_n = torch.cat(likeliest) == targets_n
        found.append((token_losses(hidden_nd, head, targets_n).cpu(), right_n.cpu()))
        return hidden_nd.new_zeros(())

    before, objective.loss = objective.loss, score
    try:
        objective(one)
    finally:
        objective.loss = before
        if hasattr(objective, "reshard"):  # without a backward pass nothing lets go of what was gathered
            objective.reshard()
    losses, right = found[0]
    n = len(one.at_n)  # a pass without targets is read at one place, for its gradients
    return losses[:n], right[:n]

"""Cross-entropy over chosen positions, without ever holding all logits.

A sum, not a mean: whoever accumulates over rows, steps and ranks divides once by the global number of targets.
The logits of a 49,152-piece vocabulary at 4,096 positions are 800 MB in float32. Where the head is a plain
matrix and torch has it, `F.linear_cross_entropy` takes positions in chunks and keeps no logits; elsewhere each
chunk's logits are computed again in the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 512
_FUSED = getattr(F, "linear_cross_entropy", None)  # torch 2.12 and later


def _chunk_loss(hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden_nd).float(), targets_n, reduction="sum")


def cross_entropy_sum(hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> Tensor:
    """The summed loss in nats of `targets_n` given final hidden states.

    Args:
        hidden_nd: hidden states at the positions to train (n, hidden size).
        head: the output head, hidden size to vocabulary.
        targets_n: the ids that follow (n).

    Returns:
        A scalar, float32; 0 for no positions.
    """
    if len(targets_n) == 0:
        return hidden_nd.float().sum() * 0.0  # keeps the graph: a backward pass is still possible
    if _FUSED is not None and isinstance(head, nn.Linear):
        return _FUSED(hidden_nd, head.weight, targets_n, reduction="sum").float()
    if len(targets_n) <= CHUNK:
        return _chunk_loss(hidden_nd, head, targets_n)
    total = hidden_nd.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets_n), CHUNK):
        part = slice(start, start + CHUNK)
        arguments = (hidden_nd[part], head, targets_n[part])
        total = total + checkpoint(_chunk_loss, *arguments, use_reentrant=False, preserve_rng_state=False)
    return total


@torch.no_grad()
def token_losses(hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> Tensor:
    """The loss in nats of each target (n), float32, for evaluation."""
    parts = [
        F.cross_entropy(head(hidden_nd[i : i + CHUNK]).float(), targets_n[i : i + CHUNK], reduction="none")
        for i in range(0, len(targets_n), CHUNK)
    ]
    return torch.cat(parts) if parts else hidden_nd.new_zeros(0, dtype=torch.float32)

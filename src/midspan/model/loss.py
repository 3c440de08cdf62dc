"""Cross-entropy over chosen positions, without ever holding all logits.

A sum, not a mean: whoever accumulates over rows, steps and ranks divides once by the global number of targets.
The logits of a 49,152-piece vocabulary at 4,096 positions are 800 MB in float32, so positions are taken in
chunks and each chunk's logits are computed again in the backward pass rather than kept.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = 512


def _chunk_loss(hidden_nd: Tensor, weight_vd: Tensor, targets_n: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden_nd, weight_vd).float(), targets_n, reduction="sum")


def cross_entropy_sum(hidden_nd: Tensor, weight_vd: Tensor, targets_n: Tensor) -> Tensor:
    """The summed loss in nats of `targets_n` given final hidden states.

    Args:
        hidden_nd: hidden states at the positions to train (n, hidden size).
        weight_vd: the output head (vocabulary, hidden size), cast to hidden's precision.
        targets_n: the ids that follow (n).

    Returns:
        A scalar, float32; 0 for no positions.
    """
    weight_vd = weight_vd.to(hidden_nd.dtype)
    total = hidden_nd.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets_n), CHUNK):
        part = slice(start, start + CHUNK)
        total = total + checkpoint(
            _chunk_loss, hidden_nd[part], weight_vd, targets_n[part], use_reentrant=False, preserve_rng_state=False
        )
    return total


@torch.no_grad()
def token_losses(hidden_nd: Tensor, weight_vd: Tensor, targets_n: Tensor) -> Tensor:
    """The loss in nats of each target (n), float32, for evaluation."""
    weight_vd = weight_vd.to(hidden_nd.dtype)
    parts = [
        F.cross_entropy(F.linear(h, weight_vd).float(), t, reduction="none")
        for h, t in zip(hidden_nd.split(CHUNK), targets_n.split(CHUNK), strict=True)
    ]
    return torch.cat(parts) if parts else hidden_nd.new_zeros(0, dtype=torch.float32)

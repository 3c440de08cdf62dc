"""Causal attention in its three situations, behind one function.

    training rows    several documents packed in a row; each attends only to itself:
                     segments (0, 5, 9)     d d d d d | e e e e
    a whole prompt   one document, nothing cached
    cached           new tokens against what the cache holds, every sequence at a length of its own

Packed documents run one by one through torch's fused causal kernel: exact, with a backward on every device,
and no length-squared mask is ever built.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Segments:
    """Where the documents of a packed row begin and end."""

    bounds: tuple[int, ...]
    """0, the end of each document, ..., the row's length."""

    @cached_property
    def positions(self) -> Tensor:
        """Positions of shape (1, length), starting from 0 in every document."""
        return torch.cat([torch.arange(b - a) for a, b in zip(self.bounds, self.bounds[1:], strict=False)])[None]

    def attend(self, q_bhld: Tensor, k_bkld: Tensor, v_bkld: Tensor) -> Tensor:
        """Causal attention of every document over itself; shapes as for the function `attend`."""
        groups = q_bhld.shape[1] // k_bkld.shape[1]
        if groups > 1:
            k_bkld, v_bkld = (x.repeat_interleave(groups, dim=1) for x in (k_bkld, v_bkld))
        parts = [
            F.scaled_dot_product_attention(q_bhld[:, :, a:b], k_bkld[:, :, a:b], v_bkld[:, :, a:b], is_causal=True)
            for a, b in zip(self.bounds, self.bounds[1:], strict=False)
        ]
        return torch.cat(parts, dim=2)


def attend(
    q_bhld: Tensor,
    k_bkld: Tensor,
    v_bkld: Tensor,
    *,
    segments: Segments | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Causal attention with grouped key/value heads.

    Args:
        q_bhld: queries (batch, heads, length, head_dim).
        k_bkld: keys (batch, key/value heads, keys, head_dim); heads is a multiple of key/value heads.
        v_bkld: values, as keys.
        segments: packed documents of the one sequence in the batch; keys are then the same tokens.
        mask: booleans (batch, 1, length, keys), True where a query may look; without it the last query sees
            every key (plain causal), which needs as many queries as keys.

    Returns:
        (batch, heads, length, head_dim).
    """
    groups = q_bhld.shape[1] // k_bkld.shape[1]
    if mask is not None:
        # Heads that share keys stand beside each other as further queries: the cache is read once, not copied.
        q_bkgd = q_bhld.reshape(len(q_bhld), k_bkld.shape[1], -1, q_bhld.shape[-1])
        mask = mask.repeat(1, 1, groups, 1)
        return F.scaled_dot_product_attention(q_bkgd, k_bkld, v_bkld, attn_mask=mask).reshape(q_bhld.shape)
    if segments is not None:
        return segments.attend(q_bhld, k_bkld, v_bkld)
    if groups > 1:
        k_bkld, v_bkld = (x.repeat_interleave(groups, dim=1) for x in (k_bkld, v_bkld))
    return F.scaled_dot_product_attention(q_bhld, k_bkld, v_bkld, is_causal=True)

"""The tokens of a pass in parts: each rank computes its own, and gathers keys and values in every layer.

    tokens   | 0 | 1 | 2 | 3 |       two ranks: rank 0 has pieces 0 and 3, rank 1 pieces 1 and 2, so that under a
    rank       0   1   1   0         causal mask both look at as many keys

A layer's keys and values are gathered once, in the order of the text; the backward pass hands their gradients
back by a sum. Packed documents stay apart: a piece of a document looks at that document's keys up to itself and
at nothing else. Keys and values have far fewer heads than queries, so that what is sent is small; and there is no
ring of messages to fall behind, and nothing that needs one particular kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right

from midspan.model import Segments
from midspan.train.objective import Pass

# Names of torch 2.13 and before it.
_ALL_GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


def share_pass(one: Pass, group: dist.ProcessGroup) -> Pass:
    """This rank's tokens of a pass, whose length is a multiple of two for each rank."""
    pieces = pieces_of(dist.get_rank(group), dist.get_world_size(group), one.ids_bl.shape[1])
    places = torch.cat([torch.arange(start, end) for start, end in pieces])
    local_of = torch.full((one.ids_bl.shape[1],), -1)
    local_of[places] = torch.arange(len(places))
    at_n = local_of[one.at_n]
    return Pass(
        one.ids_bl[:, places],
        SharedSegments(one.segments.bounds, pieces, group),
        at_n[at_n >= 0],
        one.targets_n[at_n >= 0],
    )


def pieces_of(rank: int, world: int, length: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The two stretches of tokens that a rank holds: one from the front, one from the back."""
    size = length // (2 * world)
    last = 2 * world - 1 - rank
    return (rank * size, (rank + 1) * size), (last * size, (last + 1) * size)


@dataclass(frozen=True)
class SharedSegments(Segments):
    """Packed documents, of whose tokens this rank holds two pieces."""

    pieces: tuple[tuple[int, int], ...]
    group: dist.ProcessGroup

    @cached_property
    def positions(self) -> Tensor:
        """Positions of the tokens held (1, length of both pieces), from 0 in every document."""
        whole = Segments(self.bounds).positions
        return torch.cat([whole[:, start:end] for start, end in self.pieces], dim=1)

    def attend(self, q_bhld: Tensor, k_bkld: Tensor, v_bkld: Tensor) -> Tensor:
        """Causal attention of own queries over each document's keys, wherever these are."""
        keys = gather_tokens(torch.stack((k_bkld, v_bkld)), self.group)
        groups = q_bhld.shape[1] // k_bkld.shape[1]
        k_bhld, v_bhld = keys.repeat_interleave(groups, dim=2) if groups > 1 else keys
        parts, done = [], 0
        for start, end in self.pieces:
            for a, b in zip(self.bounds, self.bounds[1:], strict=False):
                low, high = max(a, start), min(b, end)
                if low >= high:
                    continue
                q = q_bhld[:, :, done : done + high - low]
                k, v = k_bhld[:, :, a:high], v_bhld[:, :, a:high]
                if low == a:
                    parts.append(F.scaled_dot_product_attention(q, k, v, is_causal=True))
                else:  # the last query sees every key
                    mask = cast(Tensor, causal_lower_right(high - low, high - a))
                    parts.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
                done += high - low
        return torch.cat(parts, dim=2)


def gather_tokens(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """All ranks' tokens in the order of the text: (2, b, k, own length, d) becomes (2, b, k, length, d)."""
    gathered: Tensor = _Gather.apply(own, group)  # type: ignore[no-untyped-call]
    fronts, backs = gathered.chunk(2, dim=4)  # (ranks, 2, b, k, piece, d)
    return torch.cat((*fronts, *backs.flip(0)), dim=3)


class _Gather(torch.autograd.Function):
    """Every rank's tensor on every rank (ranks, ...); gradients are summed over the ranks and handed back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        world = dist.get_world_size(group)
        whole = own.new_empty(world, *own.shape)
        _ALL_GATHER(whole.flatten(0, 1), own.contiguous(), group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        whole = upstream[0].contiguous()
        own = torch.empty_like(whole[0])
        _REDUCE_SCATTER(own, whole.flatten(0, 1), group=ctx.group)
        return own, None

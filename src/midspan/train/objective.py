"""What one pass through the model is, and the loss of it as one module.

    rows  [a a a b b] [c c c c]          joined     a a a b b c c c c .      bounds 0 3 5 9 10
                                                                    padding, a segment without targets

The whole of a pass is one module's forward, so that whatever acts around a forward (gathering of shards above
all) covers the head, whose matrix the loss reads without calling it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from midspan.model import Llama, Segments
from midspan.model.loss import cross_entropy_sum
from midspan.rows import Row

Loss = Callable[[Tensor, nn.Module, Tensor], Tensor]
"""The summed loss of (hidden states, head, targets)."""


@dataclass(frozen=True)
class Pass:
    """Rows that go through the model together, as one longer row."""

    ids_bl: Tensor
    """Token ids (1, length)."""
    segments: Segments
    at_n: Tensor
    """Positions whose next token is trained."""
    targets_n: Tensor
    """Those tokens."""

    def to(self, device: torch.device) -> Pass:
        """The same on another device."""
        ids_bl, at_n, targets_n = (x.to(device) for x in (self.ids_bl, self.at_n, self.targets_n))
        return replace(self, ids_bl=ids_bl, at_n=at_n, targets_n=targets_n)


def join(rows: list[Row], *, multiple: int = 1, length: int = 0) -> Pass:
    """Rows as one longer row, padded to `length` and to a multiple of `multiple` tokens."""
    starts = list(itertools.accumulate((len(row.ids) for row in rows), initial=0))
    bounds = [0, *(start + end for row, start in zip(rows, starts, strict=False) for end in row.bounds[1:])]
    ids = np.concatenate([row.ids for row in rows])
    at = np.concatenate([row.targets + start for row, start in zip(rows, starts, strict=False)])
    targets = torch.from_numpy(ids[at + 1])
    wanted = -(-max(length, len(ids)) // multiple) * multiple
    if wanted > len(ids):
        ids = np.pad(ids, (0, wanted - len(ids)))
        bounds.append(wanted)
    return Pass(torch.from_numpy(ids)[None], Segments(tuple(bounds)), torch.from_numpy(at), targets)


class Objective(nn.Module):
    """A model with its loss: a pass becomes the sum of its targets' losses in nats."""

    def __init__(self, model: Llama, loss: Loss = cross_entropy_sum) -> None:  # type: ignore[assignment]
        super().__init__()
        self.llama, self.loss = model, loss

    def forward(self, one: Pass) -> Tensor:
        return self.of(self.llama.hidden(one.ids_bl, segments=one.segments)[0], one)

    def of(self, hidden_ld: Tensor, one: Pass) -> Tensor:
        """The loss given final hidden states. It has a gradient for every weight even without targets."""
        if len(one.at_n):
            return self.loss(hidden_ld[one.at_n], self.llama.lm_head, one.targets_n)
        return self.loss(hidden_ld[:1], self.llama.lm_head, one.ids_bl[0, :1]) * 0.0

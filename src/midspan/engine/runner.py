"""The one thing that the engine asks of whatever computes: read these tokens, give logits.

    step([Part(slot 0, ids a a a a, outputs 0),        a piece of a prompt
          Part(slot 3, ids b, outputs 1),              one token of a running sequence
          Part(slot 5, ids c d e, outputs 3)])         a token and two that were guessed behind it
    → logits of b, c, d, e

A fused kernel, quantised weights or another device stand behind the same call; the slots' keys and values are a
`KVCache`, so that truncating, forking and moving them is the same for all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from midspan.engine.deferred import Deferred
from midspan.model import KVCache, Llama


@dataclass(frozen=True, slots=True)
class Part:
    """New tokens of one sequence."""

    slot: int
    ids: Sequence[int]
    num_outputs: int = 1
    """Logits are wanted behind so many of the last ids."""


class Runner(Protocol):
    """A model that reads."""

    max_positions: int
    cache: KVCache
    alike: int
    """Tokens of a step up to which each is computed as it would be alone."""

    def step(self, parts: Sequence[Part]) -> Tensor:
        """Append the parts to their slots; logits (outputs of all parts, rows of the head), in their order."""


class FewTokens(Protocol):
    """A kernel that reads a few tokens of each sequence faster than the model does, into the same cache."""

    few: int
    """Tokens of one sequence up to which it is the faster one."""
    alike: int
    """As `Runner.alike`."""

    def step(self, cache: KVCache, spans: Sequence[Any], *, only_last: bool = True) -> Tensor:
        """Logits (rows, vocabulary) of the last token of every span (slot, ids), or of all tokens."""


class TorchRunner:
    """The model, and beside it a kernel for few tokens where there is one."""

    def __init__(self, model: Llama | Deferred, kernel: FewTokens | None = None) -> None:
        self._source = source = Deferred.of(model)
        self.max_positions = source.config.max_positions
        # What a token reads of the cache soon outweighs the kernel's weights, also where the model is float32.
        dtype = source.dtype if kernel is None else torch.bfloat16
        self.cache = KVCache(source.config, capacity=0, num_slots=1, dtype=dtype, device=source.device)
        self._kernel = kernel
        self.alike = sys.maxsize if kernel is None else min(kernel.few, kernel.alike)

    def step(self, parts: Sequence[Part]) -> Tensor:
        """See `Runner.step`."""
        few = 0 if self._kernel is None else self._kernel.few
        short = [number for number, part in enumerate(parts) if len(part.ids) <= few]
        long = [number for number, part in enumerate(parts) if len(part.ids) > few]
        rows: dict[int, Tensor] = {}
        if long:
            rows |= zip(long, self._by_model([parts[n] for n in long]), strict=True)
        if short:
            rows |= zip(short, self._by_kernel([parts[n] for n in short]), strict=True)
        found = [rows[number] for number in range(len(parts))]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _by_model(self, parts: Sequence[Part]) -> Sequence[Tensor]:
        ids_1n = torch.tensor([[i for part in parts for i in part.ids]], device=self.cache.memory.device)
        places = [(part.slot, len(part.ids)) for part in parts]
        model = self._source.model
        hidden_nd = model.hidden(ids_1n, cache=self.cache, parts=places)[0]
        wanted: list[int] = []
        end = 0
        for part in parts:
            end += len(part.ids)
            wanted += range(end - part.num_outputs, end)
        return torch.split(model.lm_head(hidden_nd[wanted]).float(), [part.num_outputs for part in parts])

    def _by_kernel(self, parts: Sequence[Part]) -> Sequence[Tensor]:
        assert self._kernel is not None
        only_last = all(part.num_outputs <= 1 for part in parts)
        logits_nv = self._kernel.step(self.cache, parts, only_last=only_last).float()
        rows = torch.split(logits_nv, [1 if only_last else len(part.ids) for part in parts])
        return [row_lv[len(row_lv) - part.num_outputs :] for part, row_lv in zip(parts, rows, strict=True)]

"""Keys and values of tokens already read, allocated once.

    slot 0   t t t t t t . . . .    length 6
    slot 1   t t t . . . . . . .    length 3     one slot a sequence, each with a length of its own

`truncate` forgets the end of sequences without touching memory: the next tokens are written over it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from midspan.model.config import ModelConfig


class KVCache:
    """Key/value memory for `num_slots` sequences of at most `capacity` tokens."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        capacity: int,
        num_slots: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, 2, num_slots, config.num_kv_heads, capacity, config.head_dim)
        self.memory = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = [0] * num_slots
        self.capacity = capacity

    def plan(self, num_new: int, slots: slice) -> tuple[Tensor, Tensor | None]:
        """Positions (slots, new) of the next tokens, and the mask (slots, 1, new, keys) of what they may see.

        Whole prompts in empty slots need no mask: they are plainly causal.
        """
        starts = torch.tensor(self.lengths[slots], device=self.memory.device)
        if int(starts.max()) + num_new > self.capacity:
            raise ValueError(f"{int(starts.max()) + num_new} tokens do not fit a cache of {self.capacity}")
        positions_bl = starts[:, None] + torch.arange(num_new, device=self.memory.device)
        if not starts.any():
            return positions_bl, None
        keys = torch.arange(int(starts.max()) + num_new, device=self.memory.device)
        return positions_bl, (keys <= positions_bl[..., None])[:, None]

    def write(
        self, layer: int, k_bkld: Tensor, v_bkld: Tensor, positions_bl: Tensor, slots: slice
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values of one layer; give back all of them up to the longest sequence."""
        memory = self.memory[layer, :, slots]
        rows = torch.arange(positions_bl.shape[0], device=memory.device)[:, None]
        memory[0, rows, :, positions_bl] = k_bkld.transpose(1, 2)
        memory[1, rows, :, positions_bl] = v_bkld.transpose(1, 2)
        end = int(positions_bl.max()) + 1
        return memory[0, :, :, :end], memory[1, :, :, :end]

    def advance(self, num_new: int, slots: slice) -> None:
        """Count the tokens that every layer has now written."""
        self.lengths[slots] = [length + num_new for length in self.lengths[slots]]

    def truncate(self, slot: int, length: int) -> None:
        """Keep only the first `length` tokens of a sequence."""
        self.lengths[slot] = min(self.lengths[slot], length)

    def fork(self, source: int, target: int) -> None:
        """Make sequence `target` a copy of `source`."""
        length = self.lengths[source]
        self.memory[:, :, target, :, :length] = self.memory[:, :, source, :, :length]
        self.lengths[target] = length

"""Keys and values of tokens already read, allocated ahead.

    slot 0   t t t t t t . . . .    length 6
    slot 1   t t t . . . . . . .    length 3     one slot a sequence, each with a length of its own

One step may append different numbers of tokens to several sequences. They are packed in one row, so that the
weights are read once for all of them and no product is spent on padding; only attention looks at each alone:

    new      a a a a | b | c c          parts (0, 4), (1, 1), (5, 2)

`truncate` forgets the end of sequences without touching memory: the next tokens are written over it. `fork` copies
a beginning to another slot, `read` and `restore` move one out of the cache and back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from midspan.model.attention import attend
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

    @property
    def num_slots(self) -> int:
        """Sequences that it can hold."""
        return self.memory.shape[2]

    @property
    def capacity(self) -> int:
        """Tokens of the longest sequence that it can hold."""
        return self.memory.shape[4]

    @property
    def token_bytes(self) -> int:
        """Memory of one token."""
        layers, two, _, heads, _, dim = self.memory.shape
        return layers * two * heads * dim * self.memory.element_size()

    def reserve(self, *, num_slots: int = 0, capacity: int = 0) -> None:
        """Make room for at least so many sequences of so many tokens; what it holds stays."""
        if num_slots <= self.num_slots and capacity <= self.capacity:
            return
        old = self.memory
        layers, two, slots, heads, room, dim = old.shape
        shape = (layers, two, max(slots, num_slots), heads, max(room, capacity), dim)
        self.memory = torch.zeros(shape, dtype=old.dtype, device=old.device)
        for slot, length in enumerate(self.lengths):
            self.memory[:, :, slot, :, :length] = old[:, :, slot, :, :length]
        self.lengths += [0] * (shape[2] - slots)

    def append(self, parts: Sequence[tuple[int, int]]) -> Append:
        """Places for new tokens: (slot, number) of each sequence that a packed row holds, in its order."""
        return Append(self, parts)

    def truncate(self, slot: int, length: int) -> None:
        """Keep only the first `length` tokens of a sequence."""
        self.lengths[slot] = min(self.lengths[slot], length)

    def fork(self, source: int, target: int, length: int | None = None) -> None:
        """Make sequence `target` a copy of `source`, or of its first `length` tokens."""
        length = self.lengths[source] if length is None else min(length, self.lengths[source])
        if source != target:
            self.memory[:, :, target, :, :length] = self.memory[:, :, source, :, :length]
        self.lengths[target] = length

    def read(self, slot: int, start: int, end: int) -> Tensor:
        """A copy of the tokens from `start` to `end`: (layers, 2, key/value heads, tokens, head_dim)."""
        return self.memory[:, :, slot, :, start:end].clone()

    def restore(self, slot: int, kv: Tensor) -> None:
        """Append what `read` gave; it must stand at the same positions again."""
        start = self.lengths[slot]
        end = start + kv.shape[3]
        self.memory[:, :, slot, :, start:end] = kv
        self.lengths[slot] = end


class Append:
    """The tokens of one forward pass on their way into a cache."""

    def __init__(self, cache: KVCache, parts: Sequence[tuple[int, int]]) -> None:
        self.cache = cache
        self.parts: list[tuple[int, int, int, Tensor | None]] = []
        """Slot, tokens before, tokens after, and the mask of what each may see where it is needed."""
        device, positions = cache.memory.device, []
        for slot, number in parts:
            start = cache.lengths[slot]
            end = start + number
            if end > cache.capacity:
                raise ValueError(f"{end} tokens do not fit a cache of {cache.capacity}")
            new = torch.arange(start, end, device=device)
            positions.append(new)
            # One token sees all before it; a whole prompt is plainly causal.
            seen = None if number == 1 or start == 0 else torch.arange(end, device=device) <= new[:, None]
            mask = None if seen is None else seen[None, None]
            self.parts.append((slot, start, end, mask))
        self.positions_1n = torch.cat(positions)[None]

    def attend(self, layer: int, q_1hne: Tensor, k_1kne: Tensor, v_1kne: Tensor) -> Tensor:
        """Store the new keys and values of one layer, and let each new token see its sequence so far."""
        k_skce, v_skce = self.cache.memory[layer]
        outputs, begin = [], 0
        for slot, start, end, mask in self.parts:
            new = slice(begin, begin + end - start)
            begin = new.stop
            k_skce[slot, :, start:end] = k_1kne[0, :, new]
            v_skce[slot, :, start:end] = v_1kne[0, :, new]
            k_1kle, v_1kle = (of[slot : slot + 1, :, :end].to(q_1hne.dtype) for of in (k_skce, v_skce))
            alone = start == 0 and end > 1
            outputs.append(attend(q_1hne[:, :, new], k_1kle, v_1kle, mask=mask, cached=not alone))
        return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]

    def finish(self) -> None:
        """Count the tokens that every layer has now written."""
        for slot, _, end, _ in self.parts:
            self.cache.lengths[slot] = end

"""What was read once is not read again: which slot a prompt goes to, and what is kept of those that had to go.

    slots                               the store, a radix tree over tokens
    0  busy   BOS PRE SUF s s s MID p    BOS PRE SUF ┬ s s s MID ┬ p p p p p
    1  idle   BOS PRE SUF t t t                      │           └ p q q
    2  empty                                         └ u u u MID p

A prompt takes the longest beginning that any of them holds. An idle slot is taken as it is and cut back to that
beginning, so the keystroke that only appends copies nothing; from a busy slot, from the store, or from an idle one
that holds much more, it is copied. What an idle slot loses goes to the store first, of which the least recently
used ends are dropped when its budget is spent.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from midspan.model import KVCache

WORTH_KEEPING = 32
"""Tokens; fewer are sooner read again than copied."""


def num_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning; by comparing halves, since lists compare fast."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(eq=False)
class _Node:
    """A run of tokens that all sequences through here share, with its keys and values."""

    ids: list[int]
    kv: Tensor
    parent: _Node | None
    used: int
    children: dict[int, _Node] = field(default_factory=dict)


class PrefixStore:
    """Keys and values of beginnings, by token, up to a number of tokens."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens, self.num_tokens = max_tokens, 0
        self._root = _Node([], torch.empty(0), None, 0)
        self._clock = itertools.count(1)

    def match(self, ids: Sequence[int]) -> int:
        """How many tokens at the beginning of `ids` are here."""
        return sum(length for _, length in self._path(ids))

    def read(self, ids: Sequence[int], start: int, end: int) -> list[Tensor]:
        """Keys and values of the tokens from `start` to `end`, which must be here, in pieces."""
        found, at, now = [], 0, next(self._clock)
        for node, length in self._path(ids[:end]):
            node.used = now
            if at + length > start:
                found.append(node.kv[:, :, :, max(0, start - at) : length])
            at += length
        return found

    def continuation(self, ids: Sequence[int]) -> list[int]:
        """What followed `ids`, where all of them are here: at each fork, on the way that was used last."""
        node, at = self._root, 0
        for child, length in self._path(ids):
            node, at = child, at + length
        if at < len(ids) or not ids:
            return []
        rest = node.ids[length:]
        while node.children:
            node = max(node.children.values(), key=lambda child: child.used)
            rest = rest + node.ids
        return rest

    def insert(self, ids: Sequence[int], read: Callable[[int, int], Tensor]) -> None:
        """Keep `ids`; `read(start, end)` gives the keys and values of what is not here yet."""
        ids, node, at, now = list(ids[: self.max_tokens]), self._root, 0, next(self._clock)
        for child, length in list(self._path(ids)):
            node = child if length == len(child.ids) else self._split(child, length)
            node.used = now
            at += length
        if at == len(ids):
            return
        self._make_room(len(ids) - at, node)
        fits = at + min(len(ids) - at, self.max_tokens - self.num_tokens)
        if fits > at:
            node.children[ids[at]] = _Node(ids[at:fits], read(at, fits), node, now)
            self.num_tokens += fits - at

    def clear(self) -> None:
        """Forget everything."""
        self._root.children.clear()
        self.num_tokens = 0

    def _path(self, ids: Sequence[int]) -> Iterator[tuple[_Node, int]]:
        """The nodes along a sequence, each with how many of its tokens agree."""
        node, at = self._root, 0
        while at < len(ids) and (child := node.children.get(ids[at])) is not None:
            length = num_shared(child.ids, ids[at : at + len(child.ids)])
            yield child, length
            if length < len(child.ids):
                return
            node, at = child, at + length

    def _split(self, node: _Node, length: int) -> _Node:
        """Cut a node in two; the first one. Both get memory of their own, so that one can be dropped."""
        assert node.parent is not None
        first = _Node(node.ids[:length], node.kv[:, :, :, :length].clone(), node.parent, node.used)
        node.parent.children[node.ids[0]] = first
        node.ids, node.kv, node.parent = node.ids[length:], node.kv[:, :, :, length:].clone(), first
        first.children[node.ids[0]] = node
        return first

    def _make_room(self, wanted: int, kept: _Node) -> None:
        """Drop the ends that were not used for longest, but nothing on the way to `kept`."""
        path = set()
        step: _Node | None = kept
        while step is not None:
            path.add(id(step))
            step = step.parent
        while self.num_tokens + wanted > self.max_tokens:
            leaves = [node for node in self._nodes(self._root) if not node.children and id(node) not in path]
            if not leaves:
                return
            oldest = min(leaves, key=lambda node: node.used)
            surplus = self.num_tokens + wanted - self.max_tokens
            if surplus < len(oldest.ids):
                oldest.ids, oldest.kv = oldest.ids[:-surplus], oldest.kv[:, :, :, :-surplus].clone()
                self.num_tokens -= surplus
                return
            assert oldest.parent is not None
            del oldest.parent.children[oldest.ids[0]]
            self.num_tokens -= len(oldest.ids)

    def _nodes(self, node: _Node) -> Iterator[_Node]:
        for child in node.children.values():
            yield child
            yield from self._nodes(child)


class Slots:
    """Which tokens each slot of a cache holds, who uses it, and where a prompt begins best."""

    def __init__(
        self, cache: KVCache, *, max_slots: int, max_positions: int, max_bytes: int, store_bytes: int
    ) -> None:
        """
        Args:
            cache: grown as prompts need it.
            max_positions: tokens of the longest sequence.
            max_slots: sequences that may be in use at a time.
            max_bytes: of the cache; beyond them it has no further slot, though always one.
            store_bytes: of what is kept beside it.
        """
        self.cache, self.max_slots, self.max_bytes = cache, max_slots, max_bytes
        self._max_positions = max_positions
        self.store = PrefixStore(store_bytes // max(1, cache.token_bytes))
        self.ids: list[list[int]] = [[]]
        self._busy: set[int] = set()
        self._used, self._worth = [0], [True]
        self._clock = itertools.count(1)

    @property
    def num_busy(self) -> int:
        """Slots in use."""
        return len(self._busy)

    def match(self, ids: Sequence[int]) -> int:
        """How many tokens of a prompt need not be read, were it acquired now."""
        return self._best(ids)[0]

    def continuation(self, ids: Sequence[int]) -> list[int]:
        """What followed a prompt when it was last read, if that is still held; of no running sequence."""
        ids = list(ids)
        for slot in sorted(range(len(self.ids)), key=lambda slot: -self._used[slot]):
            if slot not in self._busy and self.ids[slot][: len(ids)] == ids and len(self.ids[slot]) > len(ids):
                return self.ids[slot][len(ids) :]
        return self.store.continuation(ids)

    def acquire(self, ids: Sequence[int], capacity: int) -> tuple[int, int] | None:
        """A slot for a prompt, and how many of its tokens it holds already (never the last); None if all are busy.

        Args:
            ids: the prompt.
            capacity: tokens for which the slot must have room.
        """
        if len(self._busy) >= self.max_slots:
            return None
        length, source = self._best(ids)
        target = self._target(length, source)
        if target is None:
            return None
        if capacity > self.cache.capacity:
            # To the next power of two: growing copies, so it should happen seldom.
            self.cache.reserve(capacity=min(max(256, 1 << (capacity - 1).bit_length()), self._max_positions))
        if target != source:
            stored = self.store.read(ids, 0, length) if source is None else []
            self._keep(target)
            self.cache.truncate(target, 0)
            if source is not None:
                self.cache.fork(source, target, length)
            for kv in stored:
                self.cache.restore(target, kv)
        elif self.cache.lengths[target] - length > length:
            self._keep(target)
        self.cache.truncate(target, length)
        self.ids[target] = list(ids[:length])
        self._busy.add(target)
        return target, length

    def append(self, slot: int, ids: Sequence[int]) -> None:
        """Note what was read into a slot."""
        self.ids[slot] += ids

    def truncate(self, slot: int, length: int) -> None:
        """Forget the end of what a slot holds."""
        self.cache.truncate(slot, length)
        del self.ids[slot][length:]

    def release(self, slot: int, *, keep: bool = True) -> None:
        """A slot is idle; what it holds stays until the slot is needed, and then goes to the store if `keep`."""
        self._busy.discard(slot)
        self._worth[slot] = keep
        self._used[slot] = next(self._clock)

    def clear(self) -> None:
        """Forget all that idle slots and the store hold."""
        self.store.clear()
        for slot in range(len(self.ids)):
            if slot not in self._busy:
                self.truncate(slot, 0)

    def _best(self, ids: Sequence[int]) -> tuple[int, int | None]:
        """The longest beginning of `ids`, and the slot that holds it; None for the store (or for nothing)."""
        ids = ids[:-1]
        best: tuple[int, int | None] = (0, None)
        # Idle slots first, the last one used before the others: from them nothing is copied.
        for slot in sorted(range(len(self.ids)), key=lambda s: (s in self._busy, -self._used[s])):
            shared = num_shared(self.ids[slot], ids)
            if shared > best[0]:
                best = shared, slot
        stored = self.store.match(ids)
        return (stored, None) if stored > best[0] else best

    def _target(self, length: int, source: int | None) -> int | None:
        """The slot to use: the one that holds the beginning, unless it is busy or holds much more."""
        idle = [slot for slot in range(len(self.ids)) if slot not in self._busy]
        if source in idle and len(self.ids[source]) - length <= max(length, WORTH_KEEPING):
            return source
        empty = next((slot for slot in idle if not self.ids[slot]), None)
        if empty is not None:
            return empty
        affordable = self.max_bytes // max(1, self.cache.capacity * self.cache.token_bytes)
        if len(self.ids) < min(self.max_slots, affordable):
            if len(self.ids) == self.cache.num_slots:
                self.cache.reserve(num_slots=min(self.max_slots, affordable, 2 * len(self.ids)))
            self.ids.append([])
            self._used.append(0)
            self._worth.append(True)
            return len(self.ids) - 1
        others = [slot for slot in idle if slot != source]
        return min(others or idle, key=lambda slot: self._used[slot], default=None)

    def _keep(self, slot: int) -> None:
        """Copy what a slot holds to the store, if it is worth it."""
        ids = self.ids[slot]
        if self._worth[slot] and len(ids) - self.store.match(ids) >= WORTH_KEEPING:
            self.store.insert(ids, lambda start, end: self.cache.read(slot, start, end))

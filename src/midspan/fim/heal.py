"""Token healing: a prompt that ends inside a token is taken back to where tokens were whole.

A cursor does not respect tokens. In `    ret|` the model is given a piece that it never saw in that place, because
with the text behind it the same characters are written `    return`; even a bare indentation is such a piece where
the vocabulary gives its last space to the word that follows. SPM suffers most: there, training joins prefix and
middle before encoding, so the broken piece only ever stood at the end of a document, and it is taken for one.

    prompt     ... "\n", "    ", "ret"           taken back: "ret"
    owed       b"ret"                             the next token may be "ret", "return", "re", "r" ...
    answer     "return", " x"                     of which "urn x" is new

The tokens taken back are never special ones: a prompt that ends in a sentinel, as PSM's does, is whole.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from midspan.tokenizer import Tokenizer

MOST_TAKEN_BACK = 4
"""Tokens; a cursor inside a longer run of broken pieces is rare, and each one taken back may change the text."""


class Healer:
    """What a vocabulary's tokens may stand for, by their first bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids: dict[bytes, list[int]] = defaultdict(list)
        for token_id in range(tokenizer.vocab_size):
            if data := tokenizer.piece_bytes(token_id):
                ids[data].append(token_id)
        self._tokenizer, self._ids = tokenizer, ids
        self._sorted = sorted(ids)
        self._ids_in_order = np.array([token_id for data in self._sorted for token_id in ids[data]], np.int64)
        self._begins = np.cumsum([0, *(len(ids[data]) for data in self._sorted)])
        self._can_be_said = {b"": True}

    def take_back(self, prompt: Sequence[int]) -> tuple[list[int], bytes]:
        """The prompt without its broken end, and the bytes of that end.

        The last token always goes, since the text behind the cursor may belong to it. Further ones go as long as
        some token of the vocabulary holds all that was taken back and more. One token always stays.
        """
        kept, owed = list(prompt), b""
        while len(kept) > 1 and len(prompt) - len(kept) < MOST_TAKEN_BACK:
            data = self._tokenizer.piece_bytes(kept[-1])
            if not data or (owed and not self._extended(data + owed)):
                break
            kept.pop()
            owed = data + owed
        return kept, owed

    def allowed(self, owed: bytes) -> np.ndarray:
        """Ids that agree with the bytes owed: those that begin with them, and those that they begin with.

        A beginning of which no token can say the rest is not among them: a vocabulary may lack single bytes.
        """
        beginnings = [owed[:end] for end in range(1, len(owed)) if self._sayable(owed[end:])]
        shorter = [token_id for data in beginnings for token_id in self._ids.get(data, ())]
        first = bisect_left(self._sorted, owed)
        last = bisect_left(self._sorted, True, lo=first, key=lambda data: not data.startswith(owed))
        longer = self._ids_in_order[self._begins[first] : self._begins[last]]
        return np.concatenate([np.array(shorter, np.int64), longer])

    def spell(self, data: bytes) -> list[int]:
        """The fewest ids that are exactly these bytes; they are bytes that tokens were taken back for."""
        best: dict[int, list[int]] = {0: []}
        for start in range(len(data)):
            for end in range(start + 1, len(data) + 1) if start in best else ():
                found = self._ids.get(data[start:end])
                if found and (end not in best or len(best[end]) > len(best[start]) + 1):
                    best[end] = [*best[start], found[0]]
        return best[len(data)]

    def within(self, text: bytes) -> list[int]:
        """Ids that `text` begins with, and whose rest can be said in its turn."""
        ends = (end for end in range(1, len(text) + 1) if text[:end] in self._ids and self._exactly(text[end:]))
        return [token_id for end in ends for token_id in self._ids[text[:end]]]

    def _exactly(self, text: bytes) -> bool:
        """Whether some tokens are exactly these bytes."""
        reachable = {0}
        for start in range(len(text)):
            if start in reachable:
                reachable |= {end for end in range(start + 1, len(text) + 1) if text[start:end] in self._ids}
        return len(text) in reachable

    def _sayable(self, owed: bytes) -> bool:
        """Whether some tokens, one after the other, begin with these bytes."""
        if owed not in self._can_be_said:
            if len(self._can_be_said) > 10_000:
                self._can_be_said = {b"": True}
            place = bisect_left(self._sorted, owed)
            begins = place < len(self._sorted) and self._sorted[place].startswith(owed)
            self._can_be_said[owed] = begins or any(
                owed[:end] in self._ids and self._sayable(owed[end:]) for end in range(1, len(owed))
            )
        return self._can_be_said[owed]

    def _extended(self, data: bytes) -> bool:
        """Whether some token begins with `data` and goes on."""
        place = bisect_right(self._sorted, data)
        return place < len(self._sorted) and self._sorted[place].startswith(data)

"""How much a longer context helps: perplexity by position in long documents (the paper's Figure 4a).

Every position is scored in the same documents, each at least as long as the longest context asked about, so that a
curve cannot fall or rise because other documents take part.

    position   0 ... 64 ... 128 ... 256 ........ length
    bucket     [    )[     )[      )[          )            exp(mean nats of its tokens)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from midspan.errors import InputError
from midspan.fim.example import bos_of
from midspan.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """Positions from `start` up to, not including, `end`."""

    start: int
    end: int
    perplexity: float
    tokens: int


def long_documents(texts: Sequence[str], tokenizer: Tokenizer, length: int, most: int) -> list[list[int]]:
    """The first `length` ids of the first `most` texts that have as many.

    Raises:
        InputError: there is none.
    """
    found: list[list[int]] = []
    for text in texts:
        if len(found) == most:
            break
        if len(text.encode()) < length:
            continue  # a token holds a byte at least
        ids = bos_of(tokenizer) + tokenizer.encode(text)
        if len(ids) >= length:
            found.append(ids[:length])
    if not found:
        raise InputError(f"no document has {length} tokens; give longer documents or ask for a shorter context")
    return found


def context_perplexity(
    documents: Sequence[Sequence[int]],
    losses: Callable[[Sequence[int]], Sequence[float]],
    *,
    first: int = 64,
) -> list[Bucket]:
    """Perplexity in buckets of positions that double in size, from [0, first) to the documents' length.

    Args:
        documents: ids, all equally long (see `long_documents`).
        losses: nats of each id but the first, given those before it.
        first: size of the first bucket.
    """
    nats = np.array([losses(ids) for ids in documents], dtype=np.float64)  # (documents, length - 1)
    length = nats.shape[1] + 1
    edges = [0, *(first << n for n in range(64) if first << n < length), length]
    buckets = []
    for start, end in pairwise(edges):
        part = nats[:, max(start - 1, 0) : end - 1]
        if part.size:
            perplexity = math.exp(float(part.mean()))
            buckets.append(Bucket(start=start, end=end, perplexity=perplexity, tokens=part.size))
    return buckets

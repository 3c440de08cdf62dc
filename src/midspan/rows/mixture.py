"""What a stage reads: sources and their shares, and the order in which their rows take turns.

A share is one of tokens, as in the paper's Table 1. Each source is packed into rows of its own, and the next row
is always of the source that is furthest behind its share, as in Megatron's blended index, which counts samples
where this counts tokens: rows are not equally full. The order is a function of the rows, so there is nothing to
draw and nothing to remember but how many tokens each source has given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from midspan.corpus import Corpus
from midspan.errors import InputError
from midspan.rows.conversations import Conversations

DOCUMENTS = ("files", "repositories")
MOST_SOURCES = 256
_SHARES_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Source:
    """A corpus or a file of conversations, and the part that it plays."""

    corpus: Corpus | Conversations
    name: str = "data"
    share: float = 1.0
    """Of all tokens."""
    fim_rate: float | None = None
    """Share of its whole documents that become infilling examples; None is the recipe's."""
    documents: str = "files"
    """What a document is: a file, or a repository's files in reading order."""

    @property
    def place(self) -> Path:
        """The folder or file that it is read from."""
        return self.corpus.path if isinstance(self.corpus, Conversations) else self.corpus.folder

    def identity(self) -> list[object]:
        """What decides its rows, as JSON values."""
        return [self.corpus.fingerprint, self.name, self.share, self.fim_rate, self.documents]


def check_shares(names: Sequence[str], shares: Sequence[float]) -> None:
    """Make sure that shares are a mixture: none of them 0, 1 together, and every source has a name of its own.

    Raises:
        InputError: the sentence names the value and the remedy.
    """
    if len(names) > MOST_SOURCES:
        raise InputError(f"data.sources has {len(names)} sources, and rows tell {MOST_SOURCES} apart; join some")
    for name, share in zip(names, shares, strict=True):
        if not 0 < share <= 1:
            raise InputError(f"the share of source {name!r} is {share}; give one above 0 and up to 1")
    if abs(sum(shares) - 1) > _SHARES_TOLERANCE:
        given = " + ".join(f"{share:g}" for share in shares)
        raise InputError(f"the shares of data.sources are {given} = {sum(shares):g}; they must sum to 1")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two of data.sources are called {name!r}; give each a name of its own")


def epochs(share: float, total_tokens: float, source_tokens: float) -> float:
    """How often a source is read: the tokens that it gives, over those that it has."""
    return share * total_tokens / source_tokens


class Blend:
    """The order of rows, as far as the rows of every source are known."""

    def __init__(self, shares: Sequence[float], row_tokens: int) -> None:
        self._shares, self._row_tokens = np.array(shares), row_tokens
        self.tokens = np.zeros(len(shares), np.int64)
        """Given by each source so far."""

    def next_rows(self, waiting: Sequence[np.ndarray], limit: int) -> np.ndarray:
        """The sources of the next rows, until one of them has none waiting or there are `limit`.

        Args:
            waiting: tokens of each source's rows that are to come next.
        """
        bounds = np.cumsum([0, *map(len, waiting)])
        tokens = np.concatenate(waiting).astype(np.int64)
        chosen = np.empty(limit, np.int64)
        count = _next_rows(self._shares, self._row_tokens, self.tokens, tokens, bounds, chosen)
        return chosen[:count]


@njit(cache=True, nogil=True)
def _next_rows(
    shares: np.ndarray,
    row_tokens: int,
    given: np.ndarray,
    tokens: np.ndarray,
    bounds: np.ndarray,
    chosen: np.ndarray,
) -> int:
    places = bounds[:-1].copy()
    total = given.sum()
    for n in range(len(chosen)):
        for source in range(len(shares)):
            if places[source] == bounds[source + 1]:
                return n
        turn = np.argmax(shares * (total + row_tokens) - given)  # the first of those furthest behind
        chosen[n] = turn
        given[turn] += tokens[places[turn]]
        total += tokens[places[turn]]
        places[turn] += 1
    return len(chosen)

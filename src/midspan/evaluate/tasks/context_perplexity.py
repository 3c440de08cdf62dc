"""How much a longer context helps: perplexity by position in long documents (the paper's Figure 4a).

Every position is scored in the same documents, each at least as long as the longest context asked about, so that a
curve cannot fall or rise because other documents take part.

    position   0 ... 64 ... 128 ... 256 ........ length
    bucket     [    )[     )[      )[          )            exp(mean nats of its tokens)

As a task it reads a corpus's held-out files; the variant is the length in tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from midspan.corpus import HELD_OUT
from midspan.engine.front import Front
from midspan.errors import InputError
from midspan.evaluate.data import Data
from midspan.evaluate.task import Answer, Evidence, Metric, Question, Reading, Scores, Task
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
    buckets = []
    for start, end in _buckets(nats.shape[1] + 1, first):
        part = nats[:, max(start - 1, 0) : end - 1]
        if part.size:
            perplexity = math.exp(float(part.mean()))
            buckets.append(Bucket(start=start, end=end, perplexity=perplexity, tokens=part.size))
    return buckets


def _buckets(length: int, first: int) -> list[tuple[int, int]]:
    return list(pairwise([0, *(first << n for n in range(64) if first << n < length), length]))


VARIANTS = ("2048", "4096", "8192", "16384", "32768", "65536", "100000")
FIRST, MOST = 64, 50
"""Size of the first bucket, and documents that are read; --limit asks fewer."""


@dataclass(frozen=True, kw_only=True)
class ContextPerplexity(Task):
    """The task."""

    data: Data
    corpus: Path | None = None
    variant: str = VARIANTS[0]
    name: str = "context-perplexity"

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]
        """One a bucket."""
        return tuple(
            Metric(
                name=f"perplexity at {start} to {end}",
                score=f"nats {start}",
                per=f"tokens {start}",
                unit="",
                better="lower",
                kind="perplexity",
            )
            for start, end in _buckets(int(self.variant), FIRST)
        )

    def questions(self, model: Front) -> list[Question]:
        """See `Task`.

        Raises:
            InputError: no corpus is named, it has no file that is so long, or the model has fewer positions.
        """
        length = int(self.variant)
        if length > model.max_positions:
            raise InputError(
                f"the model has {model.max_positions:,} positions, too few for {length:,} tokens; ask for a "
                f"shorter one of {', '.join(VARIANTS)}"
            )
        corpus = self.data.corpus(self.corpus, self.name)
        texts = [document.text for document in corpus.documents(HELD_OUT)]
        return [
            Question(id=f"document/{number}", prompt=Reading(ids=tuple(ids)), row={}, max_tokens=1)
            for number, ids in enumerate(long_documents(texts, model.tokenizer, length, MOST))
        ]

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        nats = answer.nats or []
        scores: dict[str, float] = {}
        for start, end in _buckets(len(nats) + 1, FIRST):
            part = nats[max(start - 1, 0) : end - 1]
            scores |= {f"nats {start}": float(sum(part)), f"tokens {start}": float(len(part))}
        return scores

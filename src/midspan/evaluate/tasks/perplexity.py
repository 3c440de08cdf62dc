"""Perplexity of files that training never saw, read once from left to right: for any model, sentinels or none.

    file ──its first 1,024 tokens──► nats of each but the first        perplexity = exp(nats / tokens)
                                                                       bits per byte = bits / bytes

Models with other vocabularies are compared by bits per byte alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

import xxhash

from midspan.corpus import HELD_OUT, Corpus, Document
from midspan.engine.front import Front
from midspan.evaluate.data import Data
from midspan.evaluate.metrics import bits
from midspan.evaluate.task import Answer, Evidence, Metric, Question, Reading, Scores, Task
from midspan.fim import Draws
from midspan.fim.example import bos_of
from midspan.tokenizer import Tokenizer

VARIANTS = ("left-to-right",)
BITS_PER_BYTE = Metric(
    name="bits per byte", score="bits", unit="bits/byte", better="lower", kind="ratio", per="bytes"
)
_PERPLEXITY = Metric(name="perplexity", score="nats", unit="", better="lower", kind="perplexity", per="tokens")
_FILES, _TOKENS = 200, 1024
"""Files that are read, --limit asks fewer; tokens of each."""


@dataclass(frozen=True, kw_only=True)
class Perplexity(Task):
    """The task: whole, and by language."""

    data: Data
    corpus: Path | None = None
    variant: str = VARIANTS[0]
    name: str = "perplexity"
    metrics: tuple[Metric, ...] = (BITS_PER_BYTE, _PERPLEXITY)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        corpus = self.data.corpus(self.corpus, self.name)
        found = []
        for document in in_turn(corpus, 0, 0):
            if model.tokenizer.can_encode(document.text):
                name = f"{document.id:016x}"
                groups = ("", document.language)
                found.append(reading(document.text, model.tokenizer, name, groups, name, most=_TOKENS))
        return list(islice(found, _FILES))

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        nats = answer.nats or []
        return {
            "bits": bits(sum(nats)),
            "bytes": float(question.row["bytes"]),
            "nats": float(sum(nats)),
            "tokens": float(len(nats)),
        }


def in_turn(corpus: Corpus, seed: int, round_: int) -> Iterator[Document]:
    """Held-out documents, one of each group in turn; groups and their files in an order of their own draws.

    Only ids are held; texts are read again, some hundred at a time.
    """
    order: dict[str, list[tuple[float, int]]] = {}
    for document in corpus.documents(HELD_OUT):
        order.setdefault(document.group, []).append((Draws(seed, round_, document.id).unit(), document.id))
    groups = sorted(order, key=lambda name: Draws(seed, round_, xxhash.xxh3_64_intdigest(name.encode())).unit())
    turns = zip_longest(*(sorted(order[name]) for name in groups))
    ids = [entry[1] for entry in chain.from_iterable(turns) if entry is not None]
    for start in range(0, len(ids), 512):
        batch = dict.fromkeys(ids[start : start + 512])
        documents = {d.id: d for d in corpus.documents(HELD_OUT) if d.id in batch}
        yield from (documents[number] for number in batch)


def reading(
    text: str, tokenizer: Tokenizer, name: str, groups: tuple[str, ...], cluster: str, most: int | None = None
) -> Question:
    """A text to be read from left to right, or its first `most` tokens.

    Without BOS, its first token has nothing to be foreseen from, and its bytes are not counted.
    """
    bos = bos_of(tokenizer)
    ids = (bos + tokenizer.encode(text))[:most]
    size = len(tokenizer.decode_bytes(ids[1:], leading_space=bool(bos)))
    return Question(
        id=name, prompt=Reading(ids=tuple(ids)), row={"bytes": size}, groups=groups, cluster=cluster, max_tokens=1
    )

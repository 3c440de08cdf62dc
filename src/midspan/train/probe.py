"""How well the model does while it trains: the same held-out texts and the same holes at every evaluation.

    held-out files of each source ── the first by a hash ──┬── read from left to right     bits per byte
                                                           └── a line of each taken out    exact match, bits

Each hole is asked in every layout of the vocabulary's family, and answered in one pass over the whole example: a
model writes the truth, token by token, exactly where each token of the middle and the end is the likeliest behind
those before it. So an exact match is one of greedy decoding without its steps, and dozens of holes take a moment.
`midspan eval` decodes for real, heals tokens and compares texts; the two agree in trend and not to the digit.

Nothing is drawn while training and no gradient is taken, so a run with evaluations gives the same weights, bit for
bit, as one without.
"""

from __future__ import annotations

import heapq
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from midspan.corpus import HELD_OUT, Corpus, Document
from midspan.errors import InputError
from midspan.fim import Draws, FimFormat, infill_example, split
from midspan.fim.example import bos_of
from midspan.model import Segments
from midspan.rows import Source
from midspan.tokenizer import Tokenizer
from midspan.train.metrics import EvalMetrics
from midspan.train.objective import Objective, Pass
from midspan.train.scores import token_scores

_CHARACTERS = 3
"""Characters for each token of a row that a hole's surroundings may have at first."""
TrainedLayout = Literal["psm", "spm"]
LINES: Mapping[str, float] = {"line": 1.0}
"""The middles that are taken out."""


@dataclass(frozen=True)
class Text:
    """Something to read: its ids, and how many of the last of them are scored, which stand for so many bytes."""

    group: str
    ids: list[int]
    scored: int
    num_bytes: int


class Probe:
    """Fixed texts and holes, and what a model makes of them."""

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: Tokenizer,
        *,
        documents: int,
        holes: int,
        row_tokens: int,
        rows_per_pass: int = 1,
    ) -> None:
        """Choose them.

        Args:
            sources: the corpora that are trained on; those with nothing held out are passed over.
            documents: files of each source to read.
            holes: lines to infill, of all sources in turn; 0 for none.
            row_tokens: what a file is cut to.
            rows_per_pass: how many times as much is read in one pass.

        Raises:
            InputError: no source has anything held out that the vocabulary can write.
        """
        check_held_out(sources)
        self._pass_tokens = row_tokens * rows_per_pass
        chosen = {source.name: _chosen(source, tokenizer, max(documents, holes)) for source in sources}
        if not any(chosen.values()):
            raise InputError(
                "the vocabulary can write none of the held-out files, so there is nothing to evaluate on while "
                "training; give watch.evaluate_every_steps the value 0, or use another base"
            )
        self._texts = [
            _reading(name, document, tokenizer, row_tokens)
            for name, found in chosen.items()
            for document in found[:documents]
        ]
        self._holes = list(holes_of(list(chosen.values()), tokenizer, holes, row_tokens))

    def measure(self, objective: Objective, *, step: int, tokens: int) -> EvalMetrics:
        """Put a model to the texts and holes; it is left in the mode that it was in. All ranks ask together."""
        begun = time.monotonic()
        with as_it_is(objective):
            read = list(read_texts(objective, self._texts, self._pass_tokens, token_scores))
            infilled = list(read_texts(objective, self._holes, self._pass_tokens, token_scores))
        return EvalMetrics(
            step=step,
            tokens=tokens,
            bits_per_byte=_bits_per_byte(self._texts, [losses.double().sum().item() for losses, _ in read]),
            exact_match=_means(self._holes, [float(right.all()) for _, right in infilled]),
            middle_bits_per_byte=_bits_per_byte(
                self._holes, [losses[:-1].double().sum().item() for losses, _ in infilled]
            ),
            seconds=time.monotonic() - begun,
        )


def read_texts(
    objective: Objective,
    texts: Sequence[Text],
    pass_tokens: int,
    score: Callable[[Objective, Pass], tuple[Tensor, ...]],
) -> Iterator[tuple[Tensor, ...]]:
    """What `score` says of each text's scored tokens (n), as many texts at a time as a pass has room for."""
    device = objective.llama.model.norm.weight.device
    for packed in _packed(texts, pass_tokens):
        ends = list(itertools.accumulate(len(text.ids) for text in packed))
        at = [torch.arange(end - t.scored - 1, end - 1) for end, t in zip(ends, packed, strict=True)]
        ids, at_n = torch.tensor([i for text in packed for i in text.ids]), torch.cat(at)
        one = Pass(ids[None], Segments((0, *ends)), at_n, ids[at_n + 1])
        sizes = [*map(len, at)]
        scores = score(objective, one.to(device))
        yield from zip(*(torch.split(values_n, sizes) for values_n in scores), strict=True)


@contextmanager
def as_it_is(objective: Objective) -> Iterator[None]:
    """Not trained meanwhile, and its layers uncompiled: texts of all lengths are not worth a compilation."""
    training = objective.training
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    objective.eval()
    try:
        with eager:
            yield
    finally:
        objective.train(training)


def check_held_out(sources: Sequence[Source]) -> None:
    """Make sure that there is something to evaluate on, before a run begins.

    Raises:
        InputError: no source has a held-out file.
    """
    corpora = [source.corpus for source in sources if isinstance(source.corpus, Corpus)]
    if not any(corpus.manifest.kept.get(HELD_OUT) for corpus in corpora):
        places = ", ".join(str(source.place) for source in sources)
        raise InputError(
            f"{places} has no held-out file to evaluate on while training; build it with --held-out or "
            "--held-out-share, or give watch.evaluate_every_steps the value 0"
        )


def _chosen(source: Source, tokenizer: Tokenizer, count: int) -> list[Document]:
    """The first held-out files by a hash that the vocabulary can write; a dozen are held, not all."""
    if not isinstance(source.corpus, Corpus):
        return []
    fit = (d for d in source.corpus.documents(HELD_OUT) if d.text.strip() and tokenizer.can_encode(d.text))
    return heapq.nsmallest(count, fit, key=order_of)


def order_of(document: Document) -> tuple[float, int]:
    """Files in an order that says nothing of them."""
    return Draws(0, 0, document.id).unit(), document.id


def _reading(name: str, document: Document, tokenizer: Tokenizer, row_tokens: int) -> Text:
    """A file as it is read; without BOS, its first token has nothing to be foreseen from."""
    bos = bos_of(tokenizer)
    ids = (bos + tokenizer.encode(document.text))[:row_tokens]
    size = len(tokenizer.decode_bytes(ids[1:], leading_space=bool(bos)))
    return Text(name, ids, len(ids) - 1, size)


def holes_of(
    documents: Sequence[Sequence[Document]],
    tokenizer: Tokenizer,
    count: int,
    row_tokens: int,
    spans: Mapping[str, float] = LINES,
) -> Iterator[Text]:
    """`count` middles, of the sources' files in turn, in every layout; a file that is long is cut."""
    fim = FimFormat.detect(tokenizer)
    if fim is None:
        return
    layouts = [layout for layout in get_args(TrainedLayout) if layout in fim.layouts]
    turns = [d for n in range(max(map(len, documents))) for found in documents for d in found[n : n + 1]]
    done = 0
    for document in turns:
        text = document.text[: _CHARACTERS * row_tokens]
        while done < count and text:
            parts = split(text, Draws(0, 1, document.id), spans)
            if not parts.middle.strip():
                break
            examples = [infill_example(tokenizer, fim, parts, layout) for layout in layouts]
            if all(len(example.ids) <= row_tokens for example in examples):
                for layout, example in zip(layouts, examples, strict=True):
                    yield Text(layout, example.ids, example.num_middle, len(parts.middle.encode()))
                done += 1
                break
            text = text[: len(text) // 2]


def _packed(texts: Sequence[Text], pass_tokens: int) -> Iterator[list[Text]]:
    """Texts in their order, as many together as a pass has room for."""
    row: list[Text] = []
    for text in texts:
        if row and sum(len(t.ids) for t in row) + len(text.ids) > pass_tokens:
            yield row
            row = []
        row.append(text)
    if row:
        yield row


def _bits_per_byte(texts: Sequence[Text], nats: Sequence[float]) -> dict[str, float]:
    """Bits over bytes of each group of texts."""
    found = {}
    for name, chosen in _groups(texts):
        num_bytes = sum(texts[n].num_bytes for n in chosen)
        if num_bytes:
            found[name] = sum(nats[n] for n in chosen) / math.log(2) / num_bytes
    return found


def _means(texts: Sequence[Text], values: Sequence[float]) -> dict[str, float]:
    return {name: sum(values[n] for n in chosen) / len(chosen) for name, chosen in _groups(texts)}


def _groups(texts: Sequence[Text]) -> Iterable[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = {}
    for n, text in enumerate(texts):
        groups.setdefault(text.group, []).append(n)
    return groups.items()

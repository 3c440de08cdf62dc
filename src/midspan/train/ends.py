"""What decoding adds to the logit of a middle's end, so that greedy middles end where they should.

A model that has not been trained for long gives the end a chance of one in ten where it belongs and much less
elsewhere: right, and never the likeliest token. More training mends it; until then a number of nats does, which is
fitted behind the last step and written beside the vocabulary (`Tokenizer.end_bias`). No weight knows of it, so no
later stage can unlearn it, and it is fitted anew behind each.

A hole in a file that was trained on, with its true middle:

    ... return x + y <EOT>         each place says how many nats the end lacks to be the likeliest token
      5   7   9  6   2             with 2 < bias <= 5 the end is chosen where it belongs, and only there

Of the biases that fit most holes, or a twentieth of them fewer, it is the smallest; 0 where nothing helps.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
from torch import Tensor

from midspan.corpus import TRAIN, Corpus, Document
from midspan.fim import FimFormat
from midspan.rows import Source
from midspan.tokenizer import Tokenizer
from midspan.train.objective import Objective, Pass
from midspan.train.probe import TrainedLayout, holes_of, order_of, read_texts
from midspan.train.scores import lacks

HOLES, CHARACTERS, ROW_TOKENS = 64, 800, 1024
"""Of all sources together; of the piece of a file around each; and the most tokens of one with its sentinels."""
LOOKED_AT = 100_000
"""Files of a source among which those with holes are chosen: a large corpus is not read whole for a number."""
MIDDLES = {"line": 2.0, "lines": 1.0}
"""What people ask for at a cursor."""
CHOICES = np.arange(-16, 33) / 4
"""Nats."""


def end_bias(objective: Objective, tokenizer: Tokenizer, sources: Sequence[Source]) -> dict[str, float] | None:
    """The bias of each layout that the vocabulary's family was trained on, 0 left out; all ranks ask together.

    None where there is nothing to fit: no sentinels, or no code among the sources.
    """
    fim = FimFormat.detect(tokenizer)
    corpora = [source.corpus for source in sources if isinstance(source.corpus, Corpus)]
    found = [_pieces(corpus, tokenizer) for corpus in corpora] if fim is not None else []
    if fim is None or not any(found):
        return None

    def score(objective: Objective, one: Pass) -> tuple[Tensor]:
        return (lacks(objective, one, fim.eot_id),)

    holes = list(holes_of(found, tokenizer, HOLES, ROW_TOKENS, spans=MIDDLES))
    lacking = [lacks_n.numpy() for (lacks_n,) in read_texts(objective, holes, ROW_TOKENS, score)]
    fitted = {}
    for layout in get_args(TrainedLayout):
        own = [lacks_n for hole, lacks_n in zip(holes, lacking, strict=True) if hole.group == layout]
        if own and (nats := fit(own)):
            fitted[layout] = nats
    return fitted


def fit(lacking: Sequence[np.ndarray]) -> float:
    """The smallest bias under which about as many middles as under any end in their last place and in none before.

    Args:
        lacking: of each hole, the nats that the end lacks at each place of the middle and behind it.
    """
    ends = np.array([lacks_n[-1] for lacks_n in lacking])
    inside = np.array([lacks_n[:-1].min(initial=np.inf) for lacks_n in lacking])
    fits = ((ends < CHOICES[:, None]) & (inside >= CHOICES[:, None])).sum(axis=1)
    as_good = CHOICES[fits >= fits.max() - len(ends) / 20]
    return float(min(as_good, key=abs))


def _pieces(corpus: Corpus, tokenizer: Tokenizer) -> list[Document]:
    """Some lines of the first files by a hash; of long ones from a quarter on, behind imports and licences."""
    pieces = []
    for document in heapq.nsmallest(HOLES, itertools.islice(corpus.documents(TRAIN), LOOKED_AT), key=order_of):
        lines = document.text.splitlines(keepends=True)
        if len(document.text) > CHARACTERS:
            lines = lines[len(lines) // 4 :]
        sizes = itertools.accumulate(map(len, lines))
        piece = "".join(lines[: sum(size <= CHARACTERS for size in sizes)])
        if tokenizer.can_encode(piece):
            pieces.append(replace(document, text=piece))
    return pieces

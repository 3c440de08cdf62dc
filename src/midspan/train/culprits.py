"""Which rows, and which documents in them, made a loss or a gradient that is not finite.

A step's loss is one number of many rows. When it is not finite, every row is read once more by itself:

    loss       without gradients: the positions whose loss is not finite
    gradient   with them, to where the embedding comes out: the positions that get one that is not finite

A position belongs to a document, since documents do not see each other, and rows know their documents by number;
the corpus knows their paths. Weights that are not finite are told apart: then no row is to blame.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from midspan.corpus import Corpus
from midspan.rows import Row, Source
from midspan.train.objective import Objective, join
from midspan.train.ranks import Ranks
from midspan.train.scores import token_scores

_SHOWN = 4
"""Rows, and documents of a row, that the sentence names; the others are counted."""
_LOOKING_SECONDS = 60.0
"""How long a corpus whose documents are repositories is searched for their names."""


@dataclass(frozen=True)
class Culprit:
    """A row that alone gives a loss or a gradient that is not finite, and its documents that do."""

    row: int
    documents: tuple[tuple[int, int], ...]
    """Number of the source, and id."""


def explain(
    objective: Objective,
    ranks: Ranks,
    rows: Sequence[Row],
    first: int,
    sources: Sequence[Source],
    *,
    of_loss: bool,
) -> str:
    """What caused a loss or gradient that is not finite, as the end of a sentence with a remedy.

    Every rank asks, with equally many rows of its own, and gets the same answer.

    Args:
        objective: as it was when the step began; its gradients are cleared.
        ranks: those that share the step; each holds whole layers.
        rows: this rank's rows of the step.
        first: the number of the first of them.
        sources: what rows number.
        of_loss: the loss was not finite, rather than the gradient of a loss that was.
    """
    own = [name for name, p in objective.llama.named_parameters() if not _finite(p)]
    broken = list(dict.fromkeys(name for names in ranks.everyone(own) for name in names))
    if broken:
        return (
            f"the weights are not finite themselves ({broken[0]} is the first of {len(broken)}), so no row caused "
            "it: use another base, or lower optimizer.lr"
        )
    find = _culprits_of_loss if of_loss else _culprits_of_gradient
    everyone = ranks.everyone((first, first + len(rows) - 1, list(find(objective, ranks, rows, first))))
    culprits = sorted({c.row: c for _, _, found in everyone for c in found}.values(), key=lambda c: c.row)
    lowest, highest = min(one[0] for one in everyone), max(one[1] for one in everyone)
    if not culprits:
        return f"no row of {lowest} to {highest} gives it alone, but together they overflow: lower optimizer.lr"
    names = _names(culprits, sources)
    told = "; ".join(_told(culprit, sources, names) for culprit in culprits[:_SHOWN])
    if len(culprits) > _SHOWN:
        told += f"; and the rows {', '.join(str(culprit.row) for culprit in culprits[_SHOWN:])}"
    if len(culprits) == highest - lowest + 1 > 1:
        told += ", which are all of the step"
        return f"{told}: the weights are more likely at fault than the rows, so lower optimizer.lr"
    return f"{told}: look at these documents, or lower optimizer.lr"


def _told(culprit: Culprit, sources: Sequence[Source], names: Mapping[tuple[int, int], str]) -> str:
    shown = []
    for source, document in culprit.documents[:_SHOWN]:
        where = f" of source {sources[source].name!r}" if len(sources) > 1 else ""
        shown.append(f"{names.get((source, document), 'a document')} (id {document}{where})")
    more = len(culprit.documents) - _SHOWN
    listed = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    return f"row {culprit.row} caused it by {listed}"


def _culprits_of_loss(objective: Objective, ranks: Ranks, rows: Sequence[Row], first: int) -> Iterator[Culprit]:
    for number, row in enumerate(rows, start=first):
        losses, _ = token_scores(objective, join([row]).to(ranks.device))
        wrong = row.targets[~torch.isfinite(losses).numpy()]
        if len(wrong):
            yield Culprit(number, _documents(row, wrong))


def _culprits_of_gradient(
    objective: Objective, ranks: Ranks, rows: Sequence[Row], first: int
) -> Iterator[Culprit]:
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    reached: list[Tensor] = []

    def open_up(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        reached.append(torch.zeros_like(output, requires_grad=True))
        return output + reached[-1]

    hook = objective.llama.model.embed_tokens.register_forward_hook(open_up)
    try:
        for number, row in enumerate(rows, start=first):
            objective.zero_grad(set_to_none=True)
            one = join([row]).to(ranks.device)
            torch.autograd.backward(objective(one) / max(1, len(one.at_n)))
            grad_ld = reached.pop().grad
            assert grad_ld is not None
            wrong = np.flatnonzero(~torch.isfinite(grad_ld[0]).all(dim=-1).cpu().numpy())
            # The gradients of the weights are all ranks' together, so what is wrong with them tells only of one.
            grads = [p.grad.float() for p in trained if p.grad is not None] if ranks.world == 1 else []
            if len(wrong) or (grads and not torch.isfinite(nn.utils.get_total_norm(grads))):
                yield Culprit(number, _documents(row, wrong))
    finally:
        hook.remove()
        objective.zero_grad(set_to_none=True)


def _documents(row: Row, positions: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Source and id of the documents that hold these positions; of all the row's, if there is no position."""
    which = np.unique(np.searchsorted(row.segments["end"], positions, "right"))
    chosen = row.segments[which] if len(which) else row.segments
    return tuple(dict.fromkeys(zip(chosen["source"].tolist(), chosen["document"].tolist(), strict=True)))


def _names(culprits: Sequence[Culprit], sources: Sequence[Source]) -> dict[tuple[int, int], str]:
    """Source and path of the documents that are shown, as far as the corpora tell them."""
    wanted = {place for culprit in culprits[:_SHOWN] for place in culprit.documents[:_SHOWN]}
    found: dict[tuple[int, int], str] = {}
    for number, source in enumerate(sources):
        ids = {document for of_source, document in wanted if of_source == number}
        look: Callable[[Source, set[int]], Iterator[tuple[int, str]]]
        look = _files if source.documents == "files" else _repositories
        for document, name in look(source, ids):
            found[number, document] = name
            ids.discard(document)
            if not ids:
                break
    return found


def _files(source: Source, ids: set[int]) -> Iterator[tuple[int, str]]:
    if not ids or not isinstance(source.corpus, Corpus):
        return
    for table in source.corpus.rows(["id", "source", "group", "path", "decision"]):
        chosen = table.filter(pc.is_in(table["id"], value_set=pc.cast([*ids], "uint64")))
        for row in chosen.to_pylist():
            yield row["id"], f"{row['path']} of {row['source']}"


def _repositories(source: Source, ids: set[int]) -> Iterator[tuple[int, str]]:
    from midspan.corpus.repository import repository_documents

    if not ids or not isinstance(source.corpus, Corpus):
        return
    begun = time.monotonic()
    for document in repository_documents(source.corpus.documents("train")):
        if document.id in ids:
            yield document.id, f"{document.path} of {document.source}"
        if time.monotonic() - begun > _LOOKING_SECONDS:
            return


def _finite(parameter: Tensor) -> bool:
    own = parameter.detach()
    own = own.to_local() if hasattr(own, "to_local") else own
    return not own.is_floating_point() or bool(torch.isfinite(own).all())

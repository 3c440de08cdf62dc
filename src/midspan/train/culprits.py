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

from midspan.model import Llama, Segments
from midspan.model.loss import cross_entropy_sum, token_losses
from midspan.rows import Row, Source

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


def explain(model: Llama, rows: Sequence[Row], first: int, sources: Sequence[Source], *, of_loss: bool) -> str:
    """What caused a loss or gradient that is not finite, as the end of a sentence with a remedy.

    Args:
        model: as it was when the step began; its gradients are cleared.
        rows: those of the step, and `first` the number of their first.
        sources: what rows number.
        of_loss: the loss was not finite, rather than the gradient of a loss that was.
    """
    broken = [name for name, parameter in model.named_parameters() if not _finite(parameter)]
    if broken:
        return (
            f"the weights are not finite themselves ({broken[0]} is the first of {len(broken)}), so no row caused "
            "it: use another base, or lower optimizer.lr"
        )
    find = _culprits_of_loss if of_loss else _culprits_of_gradient
    culprits = list(find(model, rows, first))
    last = first + len(rows) - 1
    if not culprits:
        return f"no row of {first} to {last} gives it alone, but together they overflow: lower optimizer.lr"
    names = _names(culprits, sources)
    told = "; ".join(_told(culprit, sources, names) for culprit in culprits[:_SHOWN])
    if len(culprits) > _SHOWN:
        told += f"; and the rows {', '.join(str(culprit.row) for culprit in culprits[_SHOWN:])}"
    if len(culprits) == len(rows) > 1:
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


def _culprits_of_loss(model: Llama, rows: Sequence[Row], first: int) -> Iterator[Culprit]:
    with torch.no_grad():
        for number, row in enumerate(rows, start=first):
            at, ids = _on_device(model, row)
            hidden_ld = model.hidden(ids[None], segments=Segments(row.bounds))[0]
            losses = token_losses(hidden_ld[at], model.lm_head, ids[at + 1])
            wrong = row.targets[~torch.isfinite(losses).cpu().numpy()]
            if len(wrong):
                yield Culprit(number, _documents(row, wrong))


def _culprits_of_gradient(model: Llama, rows: Sequence[Row], first: int) -> Iterator[Culprit]:
    targets = max(1, sum(len(row.targets) for row in rows))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    reached: list[Tensor] = []

    def open_up(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        reached.append(torch.zeros_like(output, requires_grad=True))
        return output + reached[-1]

    hook = model.model.embed_tokens.register_forward_hook(open_up)
    try:
        for number, row in enumerate(rows, start=first):
            model.zero_grad(set_to_none=True)
            at, ids = _on_device(model, row)
            hidden_ld = model.hidden(ids[None], segments=Segments(row.bounds))[0]
            torch.autograd.backward(cross_entropy_sum(hidden_ld[at], model.lm_head, ids[at + 1]) / targets)
            grads = [p.grad.float() for p in trained if p.grad is not None]
            if not torch.isfinite(nn.utils.get_total_norm(grads)):
                grad_ld = reached.pop().grad
                assert grad_ld is not None
                wrong = ~torch.isfinite(grad_ld[0]).all(dim=-1).cpu().numpy()
                yield Culprit(number, _documents(row, np.flatnonzero(wrong)))
    finally:
        hook.remove()
        model.zero_grad(set_to_none=True)


def _on_device(model: Llama, row: Row) -> tuple[Tensor, Tensor]:
    device = model.model.norm.weight.device
    return torch.from_numpy(row.targets).to(device), torch.from_numpy(row.ids).to(device)


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
    if not ids:
        return
    for table in source.corpus.rows(["id", "source", "group", "path", "decision"]):
        chosen = table.filter(pc.is_in(table["id"], value_set=pc.cast([*ids], "uint64")))
        for row in chosen.to_pylist():
            yield row["id"], f"{row['path']} of {row['source']}"


def _repositories(source: Source, ids: set[int]) -> Iterator[tuple[int, str]]:
    from midspan.corpus.repository import repository_documents

    begun = time.monotonic()
    for document in repository_documents(source.corpus.documents("train")) if ids else ():
        if document.id in ids:
            yield document.id, f"{document.path} of {document.source}"
        if time.monotonic() - begun > _LOOKING_SECONDS:
            return


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())

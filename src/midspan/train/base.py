"""The model that a stage starts from: the base, with rows for sentinels where its vocabulary had none.

A new row starts as a draw around the mean of the matrix, with the spread that its rows have, so that no two
sentinels look alike to the model. The one that ends an infill starts as a copy of the vocabulary's end of text,
which stands for something near already. Draws have a fixed seed: every stage on a base starts alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from midspan.cache import resolve_model
from midspan.fim import FimFormat, with_sentinels
from midspan.model import Llama, ModelConfig
from midspan.model.weights import assemble, open_model, tokenizer_path
from midspan.tokenizer import Tokenizer

_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Base:
    """A base as it is read: its shape and vocabulary with the new rows, its tensors one at a time."""

    where: str
    config: ModelConfig
    tokenizer: Tokenizer
    tensors: Iterator[tuple[str, Tensor]]
    """Whole tensors by Hugging Face's names; of a memory-mapped file only what is used of them is read."""


def open_base(name_or_path: str) -> Base:
    """A base that can be taught to infill, before any of its tensors is read.

    Raises:
        InputError: as `resolve_model` and `load_model`.
    """
    path = resolve_model(name_or_path)
    config, tensors = open_model(path)
    before = Tokenizer.load(tokenizer_path(path))
    tokenizer = with_sentinels(before)
    new_ids = list(range(before.vocab_size, tokenizer.vocab_size))
    if new_ids:
        fim = FimFormat.detect(tokenizer)
        assert fim is not None, "with_sentinels gives every vocabulary a format"
        size = max(config.vocab_size, max(new_ids) + 1)
        copies = {} if before.eos_id is None else {fim.eot_id: before.eos_id}
        config = replace(config, vocab_size=size)
        tensors = (
            (name, grown(tensor, size, new_ids, copies) if name in _VOCABULARY else tensor)
            for name, tensor in tensors
        )
    return Base(str(path), config, tokenizer, tensors)


def prepare_base(name_or_path: str, dtype: torch.dtype) -> tuple[Llama, Tokenizer]:
    """Load a base and make sure that it can be taught to infill.

    Args:
        name_or_path: a name from `midspan models list`, a checkpoint's path or a run's folder.
        dtype: precision of the weights.

    Returns:
        The model, whose embedding has a row for every piece, and its vocabulary with sentinels.

    Raises:
        InputError: as `resolve_model` and `load_model`.
    """
    base = open_base(name_or_path)
    model = assemble(base.config, base.tensors, base.where, dtype=dtype, device="cpu").eval()
    return model, base.tokenizer


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that an infilling stage teaches: those of the format's sentinels and of what ends an infill."""
    fim = FimFormat.detect(tokenizer)
    assert fim is not None, "with_sentinels gives every vocabulary a format"
    ids = {fim.prefix_id, fim.suffix_id, fim.eot_id} | ({fim.middle_id} if fim.middle_id is not None else set())
    return sorted(ids)


def grown(old_vd: Tensor, size: int, new_ids: list[int], copies: Mapping[int, int]) -> Tensor:
    """An embedding or a head with rows for `new_ids`, longer where it is too short.

    Args:
        old_vd: the matrix (vocabulary, hidden size).
        size: rows of the result.
        new_ids: the ids behind the old vocabulary.
        copies: new ids that start as the row of an old one.
    """
    known = old_vd[: min(new_ids)].float()
    draws = torch.randn((len(new_ids), old_vd.shape[1]), generator=torch.Generator().manual_seed(0))
    weight = torch.cat([old_vd, old_vd.new_zeros(size - len(old_vd), old_vd.shape[1])])
    weight[new_ids] = (known.mean(dim=0) + draws.to(old_vd.device) * known.std(dim=0)).to(old_vd.dtype)
    for new, like in copies.items():
        weight[new] = old_vd[like]
    return weight

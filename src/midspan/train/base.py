"""The model that a stage starts from: the base, with rows for sentinels where its vocabulary had none.

A new row starts as a draw around the mean of the matrix, with the spread that its rows have, so that no two
sentinels look alike to the model. The one that ends an infill starts as a copy of the vocabulary's end of text,
which stands for something near already. Draws have a fixed seed: every stage on a base starts alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from midspan.cache import resolve_model
from midspan.fim import FimFormat, with_sentinels
from midspan.model import Llama
from midspan.model.weights import load_model, tokenizer_path
from midspan.tokenizer import Tokenizer


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
    path = resolve_model(name_or_path)
    model = load_model(path, dtype=dtype)
    before = Tokenizer.load(tokenizer_path(path))
    tokenizer = with_sentinels(before)
    new_ids = list(range(before.vocab_size, tokenizer.vocab_size))
    if new_ids:
        fim = FimFormat.detect(tokenizer)
        assert fim is not None, "with_sentinels gives every vocabulary a format"
        add_rows(model, new_ids, {} if before.eos_id is None else {fim.eot_id: before.eos_id})
    return model, tokenizer


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that an infilling stage teaches: those of the format's sentinels and of what ends an infill."""
    fim = FimFormat.detect(tokenizer)
    assert fim is not None, "with_sentinels gives every vocabulary a format"
    ids = {fim.prefix_id, fim.suffix_id, fim.eot_id} | ({fim.middle_id} if fim.middle_id is not None else set())
    return sorted(ids)


@torch.no_grad()
def add_rows(model: Llama, new_ids: list[int], copies: Mapping[int, int]) -> None:
    """Give the embedding and the head rows for `new_ids`, growing them where they are too short.

    Args:
        model: changed in place; its config's vocabulary grows along.
        new_ids: the ids behind the old vocabulary.
        copies: new ids that start as the row of an old one.
    """
    size = max(model.config.vocab_size, max(new_ids) + 1)

    def grown(weight_vd: Tensor) -> nn.Parameter:
        old = weight_vd.detach()
        known = old[: min(new_ids)].float()
        draws = torch.randn((len(new_ids), old.shape[1]), generator=torch.Generator().manual_seed(0))
        weight = torch.cat([old, old.new_zeros(size - len(old), old.shape[1])])
        weight[new_ids] = (known.mean(dim=0) + draws.to(old.device) * known.std(dim=0)).to(old.dtype)
        for new, like in copies.items():
            weight[new] = old[like]
        return nn.Parameter(weight)

    model.config = replace(model.config, vocab_size=size)
    embedding, head = model.model.embed_tokens, model.lm_head
    embedding.weight = grown(embedding.weight)
    embedding.num_embeddings = head.out_features = size
    head.weight = embedding.weight if model.config.tied else grown(head.weight)

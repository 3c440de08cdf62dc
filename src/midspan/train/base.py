"""The model that a stage starts from: the base, with rows for sentinels where its vocabulary had none.

A new row starts as the mean of the matrix, plus nothing: the model then gives a sentinel an average chance
wherever it stands, and two runs start alike without a random draw.
"""

from __future__ import annotations

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
        add_rows(model, new_ids)
    return model, tokenizer


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that an infilling stage teaches: those of the format's sentinels and of what ends an infill."""
    fim = FimFormat.detect(tokenizer)
    assert fim is not None, "with_sentinels gives every vocabulary a format"
    ids = {fim.prefix_id, fim.suffix_id, fim.eot_id} | ({fim.middle_id} if fim.middle_id is not None else set())
    return sorted(ids)


@torch.no_grad()
def add_rows(model: Llama, new_ids: list[int]) -> None:
    """Give the embedding and the head mean rows for `new_ids`, growing them where they are too short."""
    size = max(model.config.vocab_size, max(new_ids) + 1)

    def grown(weight_vd: Tensor) -> nn.Parameter:
        old = weight_vd.detach()
        mean_d = old[: min(new_ids)].float().mean(dim=0).to(old.dtype)
        weight = torch.cat([old, mean_d.expand(size - len(old), -1)])
        weight[new_ids] = mean_d
        return nn.Parameter(weight)

    model.config = replace(model.config, vocab_size=size)
    embedding, head = model.model.embed_tokens, model.lm_head
    embedding.weight = grown(embedding.weight)
    embedding.num_embeddings = head.out_features = size
    head.weight = embedding.weight if model.config.tied else grown(head.weight)

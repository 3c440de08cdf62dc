"""The model that a stage starts from."""

from pathlib import Path

import torch

from midspan.fim import FimFormat
from midspan.model.weights import load_model
from midspan.train import prepare_base


def test_old_rows_are_kept_and_new_ones_are_there(tiny_base: Path) -> None:
    model, tokenizer = prepare_base(str(tiny_base), torch.float32)
    old = load_model(tiny_base).model.embed_tokens.weight
    new = model.model.embed_tokens.weight
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    assert [fim.prefix_id, fim.suffix_id, fim.middle_id, fim.eot_id] == [257, 258, 259, 260]
    assert model.config.vocab_size == len(new) == 261
    assert model.lm_head.weight is new, "the head stays tied"
    assert torch.equal(new[:257], old)
    assert tokenizer.eos_id == 256
    assert torch.equal(new[260], old[256]), "the end of an infill starts as the end of text"
    assert len(torch.unique(new[257:], dim=0)) == 4
    ratio = new[257:260].std() / old.std()
    assert 0.7 < ratio < 1.4, "drawn with the spread of the old rows"


def test_two_preparations_are_alike(tiny_base: Path) -> None:
    first, second = (prepare_base(str(tiny_base), torch.float32)[0] for _ in range(2))
    assert torch.equal(first.model.embed_tokens.weight, second.model.embed_tokens.weight)

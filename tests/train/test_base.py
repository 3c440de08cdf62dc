"""The model that a stage starts from."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from midspan.errors import InputError
from midspan.fim import FimFormat
from midspan.model.config import RopeScaling
from midspan.model.weights import load_model, write_hf
from midspan.train import prepare_base
from midspan.train.base import ModelSettings, Shape, sentinel_ids


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


def test_settings_change_the_rotary_embedding_and_what_is_written(tiny_base: Path, tmp_path: Path) -> None:
    """Against transformers, which reads the written config and computes frequencies of its own."""
    scaling = RopeScaling(kind="yarn", factor=4.0, original_max_positions=512)
    settings = ModelSettings(rope_theta=1e6, max_positions=2048, rope_scaling=scaling)
    before, _ = prepare_base(str(tiny_base), torch.float32)
    model, tokenizer = prepare_base(str(tiny_base), torch.float32, settings)
    assert (model.config.rope_theta, model.config.max_positions, model.config.rope_scaling) == (1e6, 2048, scaling)
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), "no weight changes"
    write_hf(tmp_path / "model", model, model.config, tokenizer=tokenizer, dtype=torch.float32)
    assert load_model(tmp_path / "model").config == model.config
    oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    ids = torch.arange(200)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), oracle(ids).logits, atol=1e-4, rtol=1e-4)
        assert (model(ids) - before(ids)).abs().max() > 0.1


def test_linear_and_llama3_scaling_go_the_same_way(tiny_base: Path, tmp_path: Path) -> None:
    ids = torch.arange(200)[None]
    for kind, original in (("linear", None), ("llama3", 64)):
        settings = ModelSettings(rope_scaling=RopeScaling(kind=kind, factor=2.0, original_max_positions=original))
        model, _ = prepare_base(str(tiny_base), torch.float32, settings)
        write_hf(tmp_path / kind, model, model.config, dtype=torch.float32)
        oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / kind, dtype=torch.float32)
        with torch.no_grad():
            torch.testing.assert_close(model(ids), oracle(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_shape_is_trained_from_nothing_with_the_bases_vocabulary(tiny_base: Path, tmp_path: Path) -> None:
    shape = Shape(hidden_size=32, intermediate_size=64, num_layers=1, num_heads=4, num_kv_heads=2, seed=3)
    settings = ModelSettings(shape=shape, max_positions=128)
    model, tokenizer = prepare_base(str(tiny_base), torch.float32, settings, row_tokens=64)
    assert model.config.vocab_size == tokenizer.vocab_size == 261
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (model.config.max_positions, model.config.num_kv_heads, model.config.head_dim) == (128, 2, 8)
    assert 0.018 < model.model.embed_tokens.weight.std().item() < 0.022
    vocabulary_alone = tmp_path / "vocabulary"
    tokenizer.save(vocabulary_alone)
    again, _ = prepare_base(str(vocabulary_alone), torch.float32, settings, row_tokens=64)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_stage_with_conversations_gives_a_base_without_a_chat_format_one(tiny_base: Path) -> None:
    model, tokenizer = prepare_base(str(tiny_base), torch.float32, chats=True)
    ids = [tokenizer.id_of(piece) for piece in ("<|im_start|>", "<|im_end|>")]
    assert ids == [261, 262]
    weight = model.model.embed_tokens.weight
    assert len(weight) == 263
    assert torch.equal(weight[262], weight[256]), "the end of an answer starts as the end of text"
    assert not torch.equal(weight[261], weight[256])
    assert tokenizer.chat_template is not None
    assert sentinel_ids(tokenizer) == [257, 258, 259, 260]
    assert sentinel_ids(tokenizer, chats=True) == [257, 258, 259, 260, 261, 262]


def test_rows_longer_than_the_model_has_positions_are_refused(tiny_base: Path) -> None:
    with pytest.raises(
        InputError, match=r"data\.row_tokens is 1024, and .* has 512 positions; give shorter rows, or"
    ):
        prepare_base(str(tiny_base), torch.float32, row_tokens=1024)
    prepare_base(str(tiny_base), torch.float32, ModelSettings(max_positions=1024), row_tokens=1024)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rope_theta": -1.0}, r"model\.rope_theta is -1\.0; it must be above 0"),
        ({"max_positions": 0}, r"model\.max_positions is 0"),
        (
            {"rope_scaling": RopeScaling(kind="linear", factor=2.0, original_max_positions=64)},
            "values that the kind 'linear' does not use; take them out",
        ),
        ({"chat": "mine"}, r"model\.chat is 'mine'; the choices are llama-2, steps, chatml"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ModelSettings(**values)


def test_a_shape_that_cannot_be_is_refused() -> None:
    good = {"hidden_size": 32, "intermediate_size": 64, "num_layers": 1, "num_heads": 4}
    with pytest.raises(InputError, match=r"model\.shape\.num_layers is 0; it must be above 0"):
        Shape(**(good | {"num_layers": 0}))
    with pytest.raises(InputError, match="has 5 heads and 0 key/value heads for a hidden_size of 32"):
        Shape(**(good | {"num_heads": 5}))

"""Meta's format as we write it, against our reader and Meta's own rule for the feed-forward width."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midspan.errors import InputError
from midspan.fim import with_sentinels
from midspan.model import PRESETS, ModelConfig, RopeScaling
from midspan.model.weights import load_model, read_config, write_meta
from midspan.model.weights.meta_write import feed_forward_size, meta_params
from midspan.tokenizer import Tokenizer

from .shapes import SHAPES, model_with, random_ids, random_state

EIGHT = replace(SHAPES["multi-head"].config, num_heads=8, num_kv_heads=8, head_dim=8, max_positions=4096)


@torch.no_grad()
@pytest.mark.parametrize("num_shards", [1, 2, 4, 8])
@pytest.mark.parametrize("tied", [False, True])
def test_any_number_of_shards_comes_back(num_shards: int, tied: bool, tmp_path: Path) -> None:
    config = replace(EIGHT, tied=tied)
    state = random_state(config)
    write_meta(tmp_path / "meta", state, config, dtype=torch.float32, num_shards=num_shards)
    assert len(list((tmp_path / "meta").glob("consolidated.*.pth"))) == num_shards
    assert read_config(tmp_path / "meta") == config
    model = load_model(tmp_path / "meta")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, state[name]), name
    assert torch.equal(model(random_ids(40)), model_with(config, state)(random_ids(40)))


def test_files_hold_what_a_rank_needs_and_no_more(tmp_path: Path) -> None:
    config = replace(EIGHT, num_kv_heads=4)
    write_meta(tmp_path / "meta", random_state(config), config, num_shards=4)
    shard = torch.load(tmp_path / "meta" / "consolidated.01.pth", weights_only=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in shard.items()}
    assert shapes["tok_embeddings.weight"] == (96, 16)
    assert shapes["output.weight"] == (24, 64)
    assert shapes["layers.1.attention.wk.weight"] == (8, 64)
    assert shapes["layers.1.attention.wo.weight"] == (64, 16)
    assert shapes["layers.1.feed_forward.w2.weight"] == (64, 24)
    assert shapes["layers.1.ffn_norm.weight"] == (64,)
    assert {tensor.dtype for tensor in shard.values()} == {torch.bfloat16}
    values = sum(tensor.numel() for tensor in shard.values())
    assert (tmp_path / "meta" / "consolidated.01.pth").stat().st_size < 2 * values + 20_000


@pytest.mark.parametrize("name", ["7b", "13b", "34b", "70b", "smollm2-135m"])
def test_metas_rule_gives_the_published_widths(name: str) -> None:
    config = PRESETS[name]
    params = meta_params(config)
    rule = {key: params[key] for key in ("multiple_of", "ffn_dim_multiplier") if key in params}
    assert feed_forward_size(config.hidden_size, **rule) == config.intermediate_size
    assert params["dim"] == config.hidden_size


def test_every_width_has_a_rule() -> None:
    for inner in range(1, 700, 3):
        config = replace(EIGHT, intermediate_size=inner)
        params = meta_params(config)
        rule = {key: params[key] for key in ("multiple_of", "ffn_dim_multiplier") if key in params}
        assert feed_forward_size(64, **rule) == inner


def test_llama_3_scaling_comes_back(tmp_path: Path) -> None:
    scaling = RopeScaling(kind="llama3", factor=32.0, original_max_positions=8192)
    config = replace(EIGHT, tied=True, rope_theta=5e5, rope_scaling=scaling, max_positions=131_072)
    write_meta(tmp_path / "meta", random_state(config), config)
    assert read_config(tmp_path / "meta") == config


def test_the_vocabulary_goes_along(vocabulary: Callable[[str], Tokenizer], tmp_path: Path) -> None:
    tokenizer = with_sentinels(vocabulary("llama-spm"))
    config = replace(EIGHT, vocab_size=tokenizer.vocab_size)
    write_meta(tmp_path / "meta", random_state(config), config, tokenizer=tokenizer)
    assert (tmp_path / "meta" / "tokenizer.model").is_file()
    again = Tokenizer.load(tmp_path / "meta")
    assert again.fingerprint == tokenizer.fingerprint
    (tmp_path / "meta" / "tokenizer.json").unlink()
    assert Tokenizer.load(tmp_path / "meta" / "tokenizer.model").id_of("▁<EOT>") == tokenizer.vocab_size - 1


@pytest.mark.parametrize(
    ("config", "num_shards", "sentence"),
    [
        (SHAPES["qwen2"].config, 1, "no field for biases"),
        (SHAPES["own head size"].config, 1, r"heads of 24 where dim / n_heads is 16"),
        (SHAPES["yarn"].config, 1, "rope scaling 'yarn'"),
        (SHAPES["llama3"].config, 1, "another context than 8192"),
        (EIGHT, 3, "1, 2, 4 or 8 shards, not 3"),
        (SHAPES["grouped-query"].config, 4, "2 key/value heads cannot be cut into 4 shards; choose from 1, 2"),
        (replace(EIGHT, vocab_size=98), 4, "98 vocabulary rows cannot be cut into 4 shards; choose from 1, 2"),
    ],
)
def test_what_the_format_cannot_say(config: ModelConfig, num_shards: int, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        write_meta(tmp_path / "meta", random_state(config), config, num_shards=num_shards)
    assert not list(tmp_path.iterdir())


def test_params_are_metas_own_names(tmp_path: Path) -> None:
    write_meta(tmp_path / "meta", random_state(EIGHT), EIGHT)
    known = {"dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier"}
    params = json.loads((tmp_path / "meta" / "params.json").read_text(encoding="utf-8"))
    assert params.keys() <= known | {"norm_eps", "rope_theta"}

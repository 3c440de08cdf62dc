"""GGUF files that we write, against our reader, the gguf package's and transformers'."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from midspan.errors import InputError
from midspan.fim import FimFormat, with_sentinels
from midspan.gguf_file import GGUFFile
from midspan.model import ModelConfig, RopeScaling
from midspan.model.weights import load_model, read_config, tensor_types, write_gguf
from midspan.model.weights.gguf_write import TYPES
from midspan.tokenizer import Tokenizer
from vocabularies import byte_vocabulary

from .shapes import SHAPES, Shape, model_with, oracle_logits, oracle_with, random_state

VOCABULARY = with_sentinels(byte_vocabulary([("Ġ", "Ġ"), ("i", "n"), ("r", "e")]))
ROWS = VOCABULARY.vocab_size + 3
IDS = torch.randint(ROWS, (1, 60), generator=torch.Generator().manual_seed(1))
Kind = gguf.GGMLQuantizationType


def large(name: str, **changes: Any) -> ModelConfig:
    """A shape with a row for every id of the vocabulary and some that none has."""
    return replace(SHAPES[name].config, vocab_size=ROWS, **changes)


def write(path: Path, config: ModelConfig, kind: str = "f32", seed: int = 0) -> dict[str, Tensor]:
    state = random_state(config, seed)
    write_gguf(path, state.items(), config, VOCABULARY, kind=kind)
    return state


@torch.no_grad()
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_comes_back(name: str, tmp_path: Path) -> None:
    config, path = large(name), tmp_path / "model.gguf"
    state = write(path, config)
    as_read = replace(config, family="llama") if name == "mistral" else config
    assert read_config(path) == as_read
    model = load_model(path)
    for parameter, value in model.named_parameters():
        assert torch.equal(value, state[parameter]), parameter
    assert torch.equal(model(IDS), model_with(config, state)(IDS))
    assert Tokenizer.load(path).encode("def rein(): re\n") == VOCABULARY.encode("def rein(): re\n")


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.parametrize("name", ["grouped-query", "qwen2", "tied"])
def test_transformers_reads_the_same_model(name: str, kind: str, tmp_path: Path) -> None:
    config = large(name)
    write(tmp_path / "model.gguf", config, kind)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    with torch.no_grad():
        ours = load_model(tmp_path / "model.gguf")(IDS)
    torch.testing.assert_close(ours, oracle_logits(oracle.eval(), IDS), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", TYPES)
def test_the_packages_reader_gives_the_same_values(kind: str, tmp_path: Path) -> None:
    config = large("grouped-query", hidden_size=256, intermediate_size=512, head_dim=64, num_layers=9)
    path = tmp_path / "model.gguf"
    state = write(path, config, kind)
    reader = gguf.GGUFReader(path)
    theirs = {t.name: (gguf.quants.dequantize(t.data, t.tensor_type), t.tensor_type) for t in reader.tensors}
    assert theirs["blk.0.attn_norm.weight"][1] == Kind.F32
    assert theirs["blk.3.ffn_gate.weight"][1] == TYPES[kind][0]
    assert reader.fields["general.file_type"].contents() == TYPES[kind][1]
    ours = load_model(path).state_dict()
    for name, value in ours.items():
        if name.endswith(("mlp.up_proj.weight", "embed_tokens.weight", "norm.weight", "v_proj.weight")):
            short = name.replace("model.layers.", "blk.").replace("model.", "")
            for long, part in (
                ("mlp.up_proj", "ffn_up"),
                ("self_attn.v_proj", "attn_v"),
                ("embed_tokens", "token_embd"),
                ("input_layernorm", "attn_norm"),
                ("post_attention_layernorm", "ffn_norm"),
            ):
                short = short.replace(long, part)
            short = "output_norm.weight" if short == "norm.weight" else short
            assert np.array_equal(theirs[short][0], value.numpy()), name
    bits = {"f32": 24, "f16": 11, "bf16": 8}.get(kind, int(re.sub(r"\D.*", "", kind[1:]) or 0))
    for name, value in ours.items():
        error = float((value - state[name]).square().mean().sqrt() / state[name].square().mean().sqrt())
        assert error < 1.2 * 2.0 ** (1 - bits), (name, error)


def test_mixtures_are_llama_cpps(tmp_path: Path) -> None:
    config = large("grouped-query", hidden_size=256, intermediate_size=512, head_dim=64, num_layers=16)
    write(tmp_path / "a.gguf", config, "q4_k")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    kinds = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    better = [i for i in range(16) if kinds[f"blk.{i}.ffn_down.weight"] == Kind.Q6_K]
    assert better == [0, 1, 4, 7, 10, 13, 14, 15]
    assert better == [i for i in range(16) if kinds[f"blk.{i}.attn_v.weight"] == Kind.Q6_K]
    assert kinds["output.weight"] == Kind.Q6_K
    assert kinds["token_embd.weight"] == Kind.Q4_K
    tied = replace(config, tied=True, hidden_size=192, num_layers=2)
    write(tmp_path / "b.gguf", tied, "q4_k")
    assert set(tensor_types(tmp_path / "b.gguf")) == {"F32", "Q5_0", "Q8_0", "Q4_K", "Q6_K"}
    write(tmp_path / "c.gguf", tied, "q4_0")
    assert set(tensor_types(tmp_path / "c.gguf")) == {"F32", "Q4_0", "Q8_0"}


def test_metadata(tmp_path: Path) -> None:
    config, path = large("yarn"), tmp_path / "name.gguf"
    write(path, config)
    fields = GGUFFile(path).fields
    fim = FimFormat.detect(VOCABULARY)
    assert fim is not None
    expected = {
        "general.name": "name",
        "general.architecture": "llama",
        "llama.context_length": 128,
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.original_context_length": 32,
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": VOCABULARY.bos_id,
        "tokenizer.ggml.eos_token_id": VOCABULARY.eos_id,
        "tokenizer.ggml.fim_pre_token_id": fim.prefix_id,
        "tokenizer.ggml.fim_suf_token_id": fim.suffix_id,
        "tokenizer.ggml.fim_mid_token_id": fim.middle_id,
        "tokenizer.ggml.eot_token_id": fim.eot_id,
    }
    assert {key: fields.get(key) for key in expected} == expected
    assert fields["tokenizer.ggml.tokens"][-1] == f"[PAD{ROWS - 1}]"
    assert len(fields["tokenizer.ggml.tokens"]) == ROWS


def test_llama_3_heads_too_small_for_a_line(tmp_path: Path) -> None:
    scaling = RopeScaling(kind="llama3", factor=32.0, original_max_positions=8192)
    config = large("llama3", rope_scaling=scaling, rope_theta=5e5, max_positions=131_072)
    write(tmp_path / "a.gguf", config)
    assert read_config(tmp_path / "a.gguf") == config


def test_scaled_logits_are_transformers(tmp_path: Path) -> None:
    """The divisors of Llama 3 and YaRN's settings mean in the file what they mean in a config.json."""
    for name in ("llama3", "yarn", "linear"):
        config = large(name)
        shape = Shape(config, type(SHAPES[name].oracle)(**(SHAPES[name].oracle.to_dict() | {"vocab_size": ROWS})))
        state = write(tmp_path / f"{name}.gguf", config)
        with torch.no_grad():
            ours = load_model(tmp_path / f"{name}.gguf")(IDS)
        torch.testing.assert_close(ours, oracle_logits(oracle_with(shape, state), IDS), atol=1e-4, rtol=0)


def test_what_cannot_be_written_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    config, path = large("grouped-query"), tmp_path / "a.gguf"
    state = random_state(config)

    def fails(
        sentence: str, changes: dict[str, Tensor], *, kind: str = "f16", shape: ModelConfig = config
    ) -> None:
        with pytest.raises(InputError, match=sentence):
            write_gguf(path, (state | changes).items(), shape, VOCABULARY, kind=kind)
        assert not list(tmp_path.iterdir())

    gate = "model.layers.1.mlp.gate_proj.weight"
    fails("no storage type 'q3'", {}, kind="q3")
    fails(rf"{gate} holds 70000\S*, too large for F16; use bf16 or f32", {gate: state[gate] + 7e4})
    fails(rf"{gate} holds values that are no finite numbers", {gate: state[gate] * torch.nan}, kind="f32")
    fails(rf"{gate} has shape \(3, 3\)", {gate: torch.ones(3, 3)})
    fails("holds the tensor extra", {"extra": torch.ones(3)})
    fails(r"ids and the model only 96 rows", {}, shape=SHAPES["tied"].config)
    fails(
        "rows of 72 values, which is no multiple of the 32", {}, kind="q8_0", shape=replace(config, hidden_size=72)
    )
    factor = RopeScaling(kind="yarn", factor=4.0, original_max_positions=32, attention_factor=1.5)
    fails("attention factor 1.5", {}, shape=replace(config, rope_scaling=factor))
    with pytest.raises(InputError, match=r"lacks the tensor lm_head\.weight"):
        write_gguf(path, list(state.items())[:-1], config, VOCABULARY)
    write(path, config)
    with pytest.raises(InputError, match="is there already"):
        write(path, config)

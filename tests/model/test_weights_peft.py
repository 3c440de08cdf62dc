"""Adapters as models: ours and PEFT's own, merged as PEFT merges them, and every way to be wrong."""

import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from midspan.errors import InputError
from midspan.model import Llama
from midspan.model.config import RopeScaling
from midspan.model.lora import (
    LoraConfig,
    LoraLinear,
    RowsEmbedding,
    RowsHead,
    add_lora,
    merged_state,
    save_adapter,
)
from midspan.model.weights import detect, load_model, tensor_types, write_hf
from midspan.model.weights.hf import EMBEDDING, HEAD

from .shapes import SHAPES, model_with, random_ids, random_state

IDS = random_ids(40)


def trained(name: str, tmp_path: Path, token_ids: list[int], base_rows: int = 0) -> tuple[Llama, Path]:
    """A model with an adapter that does something, and the folder of that adapter; the base lies beside it."""
    config = SHAPES[name].config
    plain = model_with(config, random_state(config))
    rows = base_rows or config.vocab_size
    state = {n: t[:rows] if n in (EMBEDDING, HEAD) else t for n, t in merged_state(plain).items()}
    write_hf(tmp_path / "base", state, replace(config, vocab_size=rows), dtype=torch.float32)
    lora = LoraConfig(rank=3, alpha=5)
    add_lora(plain, lora, token_ids, seed=1)
    generator = torch.Generator().manual_seed(2)
    for module in plain.modules():
        if isinstance(module, LoraLinear):
            module.lora_B.data.normal_(generator=generator)
        elif isinstance(module, RowsEmbedding | RowsHead):
            module.table.rows.data.normal_(generator=generator)
    (tmp_path / "adapter").mkdir()
    save_adapter(plain, lora, tmp_path / "adapter", base="../base")
    return plain, tmp_path / "adapter"


@pytest.mark.parametrize("name", SHAPES)
def test_an_adapter_is_the_model_that_was_trained(name: str, tmp_path: Path) -> None:
    model, folder = trained(name, tmp_path, [3, 7, 50])
    assert detect(folder) == "peft"
    found = load_model(folder)
    expected = merged_state(model)
    for key, tensor in merged_state(found).items():
        assert torch.equal(tensor, expected[key]), key
    assert tensor_types(folder) == tensor_types(tmp_path / "base")


def test_new_tokens_come_behind_the_bases_own(tmp_path: Path) -> None:
    name = next(iter(SHAPES))
    size = SHAPES[name].config.vocab_size
    model, folder = trained(name, tmp_path, [5, size - 2, size - 1], base_rows=size - 2)
    found = load_model(folder)
    assert found.config.vocab_size == size
    assert torch.equal(found(IDS), load_model(folder)(IDS))
    assert torch.equal(
        merged_state(found)["model.embed_tokens.weight"], merged_state(model)["model.embed_tokens.weight"]
    )


def test_an_adapter_of_peft_is_read_as_peft_merges_it(tmp_path: Path) -> None:
    config = SHAPES[next(iter(SHAPES))].config
    write_hf(tmp_path / "base", model_with(config, random_state(config)), config, dtype=torch.float32)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    settings = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "down_proj"],
        trainable_token_indices=[2, 9],
        init_lora_weights=False,
    )
    theirs = peft.get_peft_model(base, settings)
    theirs.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = theirs.merge_and_unload()(IDS).logits
        torch.testing.assert_close(load_model(tmp_path / "adapter")(IDS), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, r"is a IA3 adapter; only LORA"),
        ({"use_dora": True}, r"sets use_dora, which is not read"),
        ({"bias": "all"}, r"trains biases"),
        ({"r": 0}, r"has r = 0; a number above 0"),
        ({"base_model_name_or_path": None}, r"names no base"),
        ({"base_model_name_or_path": "hf:meta/llama"}, r"the base of .* is not here: .*downloads nothing"),
        ({"trainable_token_indices": [1]}, r"rows for tokens that adapter_config.json does not name"),
    ],
)
def test_what_is_not_read_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    _, folder = trained(next(iter(SHAPES)), tmp_path, [3, 7])
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    _, folder = trained(next(iter(SHAPES)), tmp_path, [])
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (next(n for n in tensors if n.endswith(f"lora_{x}.weight")) for x in "AB")
    save_file(
        tensors | {n.replace("layers.0", "layers.9"): tensors[n].clone() for n in (a, b)},
        folder / "adapter_model.safetensors",
    )
    with pytest.raises(InputError, match=r"for another base: this one has no model\.layers\.9"):
        load_model(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot be read"):
        load_model(folder)


def test_positions_come_with_the_adapter(tmp_path: Path) -> None:
    model, folder = trained(next(iter(SHAPES)), tmp_path, [3])
    scaling = RopeScaling(kind="linear", factor=2.0)
    model.config = replace(model.config, rope_theta=1e6, max_positions=4096, rope_scaling=scaling)
    save_adapter(model, LoraConfig(rank=3, alpha=5), folder, base="../base")
    assert load_model(folder).config == model.config
    (folder / "positions.json").write_text('{"rope_thetas": 1}', encoding="utf-8")
    with pytest.raises(InputError, match=r"positions\.json cannot be read"):
        load_model(folder)
    (folder / "positions.json").unlink()
    assert load_model(folder).config.rope_theta != 1e6

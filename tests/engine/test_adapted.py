"""Adapters beside their base: they compute what the merged model computes, and the weights are there once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engine.fused_shapes import cache, dequantised
from engine.tiny import tiny_model, tiny_tokenizer
from midspan.engine import Engine
from midspan.engine.decoder import open_decoder
from midspan.engine.deferred import Deferred
from midspan.engine.fused import FusedDecoder, packed_weights
from midspan.engine.runner import Part
from midspan.errors import InputError
from midspan.model import ModelConfig
from midspan.model.lora import LoraConfig, LoraLinear, add_lora, save_adapter
from midspan.model.quant import Bits
from midspan.model.weights import load_model, write_hf
from midspan.model.weights.peft import attach, open_adapter
from model.shapes import SHAPES
from model.test_weights_peft import trained

NAMES = [name for name, shape in SHAPES.items() if shape.config.head_dim % 2 == 0]


def distance(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm())


def logits(decoder: FusedDecoder, config: ModelConfig, steps: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    memory = cache(config)
    return [decoder.step(memory, [Part(1, ids)], only_last=False) for ids in steps]


@pytest.mark.parametrize("name", NAMES)
def test_beside_the_base_or_merged_is_the_same_to_torch(name: str, tmp_path: Path) -> None:
    size = SHAPES[name].config.vocab_size
    _, folder = trained(name, tmp_path, [5, size - 1], base_rows=size - 2)
    base = load_model(tmp_path / "base")
    found, merged = attach(base, open_adapter(folder, base.config)), load_model(folder)
    ids = torch.tensor([[5, 1, size - 1, 2, 3]])
    assert torch.allclose(found(ids), merged(ids), atol=1e-4)
    shared = base.model.layers[0].get_submodule("mlp.down_proj").weight
    assert found.model.layers[0].get_submodule("mlp.down_proj").weight.data_ptr() == shared.data_ptr()


@pytest.mark.parametrize(("name", "bits"), [(n, b) for n in NAMES for b in (16, 8, 4) if (n, b) != ("tied", 4)])
@torch.inference_mode()
def test_beside_the_base_in_the_fused_step(name: str, bits: Bits, tmp_path: Path) -> None:
    size = SHAPES[name].config.vocab_size
    _, folder = trained(name, tmp_path, [5, size - 1], base_rows=size - 2)
    base = load_model(tmp_path / "base")
    plain = FusedDecoder(base.config, packed_weights(base, bits), bits=bits, threads=2)
    adapter = open_adapter(folder, base.config)
    adapted = plain.adapted(adapter)
    # One token, a few, and as many as are tiles of bfloat16 where there are some.
    steps = [[5], [size - 1, 2, 3], [i % size for i in range(70)]]
    found = torch.cat(logits(adapted, adapter.config, steps))
    # A tied head cannot be rounded alone.
    torchs = attach(base if base.config.tied else dequantised(base, bits, round_activations=False), adapter)
    expected = torchs(torch.tensor([[i for step in steps for i in step]]))[0]
    for begin, end in ((0, 1), (1, 4), (4, 74)):
        assert distance(found[begin:end], expected[begin:end]) < 0.1, (begin, end)
    others = logits(plain, base.config, [[i % (size - 2) for i in step] for step in steps])
    again = logits(plain, base.config, [[i % (size - 2) for i in step] for step in steps])
    assert all(torch.equal(a, b) for a, b in zip(others, again, strict=True)), "the base stays what it is"
    assert adapted._tensors["0.qkv"].data_ptr() == plain._tensors["0.qkv"].data_ptr()
    assert adapted._tensors["embedding"].data_ptr() == plain._tensors["embedding"].data_ptr()


def test_an_engine_s_adapters_share_its_weights_and_answer_as_models_of_their_own(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    base = tiny_model(tokenizer.vocab_size - 4)  # the sentinels are the adapter's
    write_hf(tmp_path / "base", base, base.config)
    trained_model = tiny_model(tokenizer.vocab_size)
    trained_model.load_state_dict(
        {
            name: torch.cat([x, torch.randn(4, x.shape[1])]) if x.shape[0] == base.config.vocab_size else x
            for name, x in base.state_dict().items()
        }
    )
    lora = LoraConfig(rank=3)
    add_lora(trained_model, lora, range(tokenizer.vocab_size - 4, tokenizer.vocab_size), seed=1)
    for module in trained_model.modules():
        if isinstance(module, LoraLinear):
            module.lora_B.data.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(trained_model, lora, folder, base="../base")
    tokenizer.save(folder)
    tokenizer.save(tmp_path / "base")
    plain = tiny_tokenizer(sentinels=False)
    for kind in ("torch", "fused"):
        engine = Engine(
            Deferred.of(base),
            plain,
            decoder=open_decoder(base, kind, 16),  # type: ignore[arg-type]
        )
        found = engine.adapted(folder)
        alone = Engine.load(folder, dtype=torch.float32, decoder=kind, bits=16)  # type: ignore[arg-type]
        for prefix in ("def add(a, b):\n    ret", "x = [", ""):
            ours, theirs = (
                e.infill(prefix, "\n", max_tokens=1, heal=False, num_logprobs=5) for e in (found, alone)
            )
            assert ours.ids == theirs.ids
            assert ours.logprobs is not None
            assert theirs.logprobs is not None
            assert ours.mean_logprob == pytest.approx(theirs.mean_logprob, abs=0.05)
        assert engine.complete("x = ", max_tokens=4).ids == Engine(base, plain).complete("x = ", max_tokens=4).ids


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, folder = trained("multi-head", tmp_path / "a", [])
    trained("grouped-query", tmp_path / "b", [])
    other = load_model(tmp_path / "b" / "base")
    with pytest.raises(InputError, match="another base"):
        attach(other, open_adapter(folder, other.config))
    decoder = FusedDecoder(other.config, packed_weights(other, 8), bits=8, threads=1)
    with pytest.raises(InputError, match="another base"):
        decoder.adapted(open_adapter(folder, other.config))

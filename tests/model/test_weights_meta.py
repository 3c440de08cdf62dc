"""Meta checkpoints: shards cut by a splitter of our own, against a complex-number forward in their layout."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from midspan.errors import InputError
from midspan.model import RopeScaling
from midspan.model.weights import detect, load_model, read_config, tensor_types

DIM, HEADS, LAYERS, VOCAB, INNER = 128, 16, 2, 64, 96
IDS = torch.randint(VOCAB, (2, 40), generator=torch.Generator().manual_seed(3))
CUT = {"output": 0, "wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "wo": 1, "w2": 1}


def params(kv_heads: int | None = 8, **more: Any) -> dict[str, Any]:
    values = {
        "dim": DIM,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "multiple_of": 32,
        "norm_eps": 1e-5,
        "vocab_size": -1,
    }
    return values | ({} if kv_heads is None else {"n_kv_heads": kv_heads}) | more


def state(kv_heads: int = 8) -> dict[str, Tensor]:
    """Random weights under Meta's names."""
    generator = torch.Generator().manual_seed(0)
    kv = DIM // HEADS * kv_heads
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings": (VOCAB, DIM),
        "norm": (DIM,),
        "output": (VOCAB, DIM),
    }
    for i in range(LAYERS):
        block = {
            "attention.wq": (DIM, DIM),
            "attention.wk": (kv, DIM),
            "attention.wv": (kv, DIM),
            "attention.wo": (DIM, DIM),
            "feed_forward.w1": (INNER, DIM),
            "feed_forward.w2": (DIM, INNER),
            "feed_forward.w3": (INNER, DIM),
            "attention_norm": (DIM,),
            "ffn_norm": (DIM,),
        }
        shapes |= {f"layers.{i}.{name}": size for name, size in block.items()}
    return {
        f"{name}.weight": 0.1 * torch.randn(size, generator=generator) + ("norm" in name)
        for name, size in shapes.items()
    }


def write(
    folder: Path,
    tensors: dict[str, Tensor],
    values: dict[str, Any],
    num_shards: int,
    *,
    embedding_dim: int = 1,
) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "params.json").write_text(json.dumps(values))
    for rank in range(num_shards):
        shard = {"rope.freqs": torch.ones(DIM // HEADS // 2)}
        for name, tensor in tensors.items():
            part = name.split(".")[-2]
            dim = embedding_dim if part == "tok_embeddings" else CUT.get(part)
            width = 0 if dim is None else tensor.shape[dim] // num_shards
            shard[name] = (tensor if dim is None else tensor.narrow(dim, rank * width, width)).clone()
        torch.save(shard, folder / f"consolidated.{rank:02}.pth")


def reference_logits(w: dict[str, Tensor], kv_heads: int, frequencies: Tensor) -> Tensor:
    """Meta's forward in complex numbers: neighbours (2i, 2i + 1) are one number, turned by its position."""
    length, head = IDS.shape[1], DIM // HEADS
    angles = torch.outer(torch.arange(length).float(), frequencies)
    turn = torch.polar(torch.ones_like(angles), angles)[None, :, None]

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[name]

    def rotated(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(-2)

    x = w["tok_embeddings.weight"][IDS]
    future = torch.full((length, length), -math.inf).triu(1)
    for i in range(LAYERS):
        p = f"layers.{i}."
        h = norm(x, p + "attention_norm.weight")
        q, k, v = (
            (h @ w[f"{p}attention.{name}.weight"].T).view(*IDS.shape, -1, head) for name in ("wq", "wk", "wv")
        )
        q, k = rotated(q), rotated(k)
        k, v = (t.repeat_interleave(HEADS // kv_heads, dim=2) for t in (k, v))
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / head**0.5 + future
        mixed = torch.einsum("bhqk,bkhe->bqhe", scores.softmax(-1), v).flatten(-2)
        x = x + mixed @ w[p + "attention.wo.weight"].T
        h = norm(x, p + "ffn_norm.weight")
        gate = torch.nn.functional.silu(h @ w[p + "feed_forward.w1.weight"].T)
        x = x + (gate * (h @ w[p + "feed_forward.w3.weight"].T)) @ w[p + "feed_forward.w2.weight"].T
    return norm(x, "norm.weight") @ w["output.weight"].T


def plain_frequencies(theta: float = 10_000.0) -> Tensor:
    head = DIM // HEADS
    return theta ** (-torch.arange(0, head, 2).float() / head)


@torch.no_grad()
def logits(folder: Path) -> Tensor:
    return load_model(folder)(IDS)


@pytest.mark.parametrize("embedding_dim", [1, 0])
@pytest.mark.parametrize("num_shards", [1, 2, 4, 8])
def test_any_number_of_shards_gives_metas_logits(num_shards: int, embedding_dim: int, tmp_path: Path) -> None:
    tensors = state()
    write(tmp_path, tensors, params(), num_shards, embedding_dim=embedding_dim)
    assert detect(tmp_path) == "meta"
    torch.testing.assert_close(
        logits(tmp_path), reference_logits(tensors, 8, plain_frequencies()), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("theta", "positions"), [(1e6, 16_384), (None, 4096)])
def test_multi_head_and_theta_come_from_params(theta: float | None, positions: int, tmp_path: Path) -> None:
    """No n_kv_heads means one for each head; no theta means 10,000, and the theta tells the context."""
    tensors = state(kv_heads=HEADS)
    write(tmp_path, tensors, params(None, **({"rope_theta": theta} if theta else {})), 2)
    config = read_config(tmp_path)
    assert (config.num_kv_heads, config.max_positions, config.rope_theta) == (
        HEADS,
        positions,
        theta or 10_000.0,
    )
    assert (config.vocab_size, config.intermediate_size, config.tied) == (VOCAB, INNER, False)
    expected = reference_logits(tensors, HEADS, plain_frequencies(theta or 10_000.0))
    torch.testing.assert_close(logits(tmp_path), expected, atol=1e-4, rtol=0)


def test_scaled_rope_is_llama_31s(tmp_path: Path) -> None:
    tensors = state()
    write(tmp_path, tensors, params(rope_theta=5e5, use_scaled_rope=True), 2, embedding_dim=0)
    frequencies = plain_frequencies(5e5)
    for i, frequency in enumerate(frequencies.tolist()):  # wavelengths against 8192 positions, by cases
        wavelength = 2 * math.pi / frequency
        if wavelength > 8192:
            frequencies[i] = frequency / 8
        elif wavelength > 8192 / 4:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            frequencies[i] = (1 - smooth) * frequency / 8 + smooth * frequency
    assert not torch.equal(frequencies, plain_frequencies(5e5))
    torch.testing.assert_close(logits(tmp_path), reference_logits(tensors, 8, frequencies), atol=1e-4, rtol=0)
    assert read_config(tmp_path).max_positions == 131_072


def test_head_stored_twice_is_tied_and_its_scaling_must_be_stated(tmp_path: Path) -> None:
    tensors = state()
    tensors["output.weight"] = tensors["tok_embeddings.weight"].clone()
    write(tmp_path, tensors, params(rope_theta=5e5, use_scaled_rope=True), 2)
    with pytest.raises(InputError, match='add "rope_scaling_factor"'):
        load_model(tmp_path)
    write(tmp_path, tensors, params(rope_theta=5e5, use_scaled_rope=True, rope_scaling_factor=32), 2)
    model = load_model(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.rope_scaling == RopeScaling(kind="llama3", factor=32.0, original_max_positions=8192)


def test_half_precision_is_cast_and_counted(tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in state().items()}
    write(tmp_path, tensors, params(), 2)
    expected = reference_logits({n: t.float() for n, t in tensors.items()}, 8, plain_frequencies())
    torch.testing.assert_close(logits(tmp_path), expected, atol=1e-4, rtol=0)
    assert set(tensor_types(tmp_path)) == {"BF16", "F32"}


def test_shards_must_be_complete(tmp_path: Path) -> None:
    write(tmp_path, state(), params(), 4)
    (tmp_path / "consolidated.03.pth").unlink()
    with pytest.raises(InputError, match=r"holds 3 shards .* 4 belong together"):
        load_model(tmp_path)
    (tmp_path / "consolidated.01.pth").unlink()
    with pytest.raises(InputError, match=r"consolidated\.01\.pth is missing"):
        load_model(tmp_path)
    for path in tmp_path.glob("*.pth"):
        path.unlink()
    with pytest.raises(InputError, match=r"no consolidated\.00\.pth"):
        load_model(tmp_path)


def test_damaged_and_executable_shards_are_refused(tmp_path: Path) -> None:
    write(tmp_path, state(), params(), 2)
    shard = tmp_path / "consolidated.01.pth"
    whole = shard.read_bytes()
    for content in (b"", b"garbage", whole[: len(whole) // 2]):
        shard.write_bytes(content)
        with pytest.raises(InputError, match=r"consolidated\.01\.pth is damaged"):
            load_model(tmp_path)

    torch.save({"norm.weight": Path("/")}, shard)  # any class would do: nothing but tensors is unpickled
    with pytest.raises(InputError, match=r"consolidated\.01\.pth is damaged or not a plain"):
        load_model(tmp_path)


def test_wrong_tensors_are_named(tmp_path: Path) -> None:
    tensors = state()
    write(tmp_path, tensors | {"layers.0.attention.wq.lora_a.weight": torch.zeros(4, 4)}, params(), 1)
    with pytest.raises(InputError, match=r"layers\.0\.attention\.wq\.lora_a\.weight"):
        load_model(tmp_path)
    write(tmp_path, tensors | {"layers.1.attention.wv.weight": torch.zeros(32, DIM)}, params(), 2)
    with pytest.raises(InputError, match=r"layers\.1\.self_attn\.v_proj\.weight has shape \(32, 128\)"):
        load_model(tmp_path)
    write(tmp_path, {n: t for n, t in tensors.items() if n != "norm.weight"}, params(), 2)
    with pytest.raises(InputError, match=r"lacks the tensor model\.norm\.weight"):
        load_model(tmp_path)
    (tmp_path / "params.json").write_text(json.dumps({"dim": DIM}))
    with pytest.raises(InputError, match=r"params\.json lacks a usable field \('n_heads'\)"):
        load_model(tmp_path)

"""Writing Meta's format: what `meta.py` reads, for software that knows Llama 2 or Code Llama as Meta ships it.

params.json has the feed-forward width not as a number but as a rule, and a width that it cannot give is refused:

    int(ffn_dim_multiplier * int(2/3 * 4 dim)), rounded up to a multiple of multiple_of

It has no trained context either (readers take what Meta's models have), no tied head (the matrix is stored
twice), no biases and no head size apart from dim / n_heads. `output` and, from Llama 3 on, `tok_embeddings` are
cut along the vocabulary, which must divide by the number of shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midspan.errors import InputError
from midspan.files import atomic_folder, write_json
from midspan.model.config import ModelConfig
from midspan.model.weights.assemble import parameter_shapes, to_interleaved
from midspan.model.weights.hf import EMBEDDING, HEAD
from midspan.model.weights.meta import BLOCK, LLAMA3_VOCABULARY, TOP
from midspan.tokenizer import Tokenizer

SHARDS = (1, 2, 4, 8)


def write_meta(
    folder: str | Path,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.bfloat16,
    num_shards: int = 1,
) -> None:
    """Write params.json and consolidated.00.pth, 01, ..., whole or not at all.

    Args:
        folder: what is made; it must not exist.
        state: every parameter under Hugging Face's name; a tied head is not among them.
        config: the model's shape.
        tokenizer: saved beside the weights: tokenizer.model where it is SentencePiece.
        dtype: what weights are cast to.
        num_shards: 1, 2, 4 or 8 files, one for each rank of Meta's model parallelism.

    Raises:
        InputError: the folder exists, or the format cannot say what the configuration does.
        ValueError: the state does not belong to the configuration.
    """
    params = meta_params(config)
    if num_shards not in SHARDS:
        raise InputError(f"Meta's models have 1, 2, 4 or 8 shards, not {num_shards}; choose one of these")
    for what, number in (
        ("key/value heads", config.num_kv_heads),
        ("vocabulary rows", config.vocab_size),
        ("feed-forward columns", config.intermediate_size),
    ):
        if number % num_shards:
            fitting = ", ".join(str(n) for n in SHARDS if not number % n)
            raise InputError(f"{number} {what} cannot be cut into {num_shards} shards; choose from {fitting}")
    shapes = parameter_shapes(config)
    if wrong := sorted({(n, tuple(t.shape)) for n, t in state.items()} ^ set(shapes.items())):
        raise ValueError(f"state and configuration disagree on {wrong[0][0]}")
    with atomic_folder(Path(folder)) as aside:
        for rank in range(num_shards):
            shard: dict[str, Tensor] = {}
            for name, tensor in state.items():
                part = tensor.detach().to("cpu", dtype)
                shard[_meta_name(name)] = _cut(_meta_name(name), _reordered(name, part, config), rank, num_shards)
            if config.tied:
                embedding = state[EMBEDDING].detach().to("cpu", dtype)
                shard[_meta_name(HEAD)] = _cut(_meta_name(HEAD), embedding, rank, num_shards)
            torch.save(shard, aside / f"consolidated.{rank:02}.pth")
        write_json(aside / "params.json", params)
        if tokenizer is not None:
            tokenizer.save(aside)


def meta_params(config: ModelConfig) -> dict[str, Any]:
    """params.json for a shape; InputError naming what it cannot say."""
    scaling = config.rope_scaling
    reason = None
    if config.qkv_bias or config.out_bias:
        reason = "biases"
    elif config.head_dim * config.num_heads != config.hidden_size:
        reason = f"heads of {config.head_dim} where dim / n_heads is {config.hidden_size / config.num_heads:g}"
    elif scaling is not None and scaling.kind != "llama3":
        reason = f"rope scaling {scaling.kind!r}"
    elif scaling is not None and (scaling.original_max_positions, scaling.low_freq_factor) != (8192, 1.0):
        reason = "Llama 3's rope scaling from another context than 8192"
    if reason:
        raise InputError(f"Meta's params.json has no field for {reason}; convert to hf or gguf instead")
    params: dict[str, Any] = {
        "dim": config.hidden_size,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "n_kv_heads": config.num_kv_heads,
        **_feed_forward_rule(config.hidden_size, config.intermediate_size),
        "norm_eps": config.norm_eps,
        "vocab_size": config.vocab_size,
        "rope_theta": config.rope_theta,
    }
    if scaling is not None:
        params |= {"use_scaled_rope": True, "rope_scaling_factor": scaling.factor}
        params["rope_high_freq_factor"] = scaling.high_freq_factor
    return params


def feed_forward_size(dim: int, multiple_of: int, ffn_dim_multiplier: float | None = None) -> int:
    """The rule of `llama/model.py` in meta-llama/codellama."""
    size = int(2 * (4 * dim) / 3)
    if ffn_dim_multiplier is not None:
        size = int(ffn_dim_multiplier * size)
    return multiple_of * ((size + multiple_of - 1) // multiple_of)


def _feed_forward_rule(dim: int, inner: int) -> dict[str, Any]:
    """multiple_of, and the multiplier where one is needed: the roundest that give the width."""
    multiples = [m for m in (4096, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1) if inner % m == 0]
    for multiple in multiples:
        if feed_forward_size(dim, multiple) == inner:
            return {"multiple_of": multiple}
    for digits in range(1, 10):
        for multiple in multiples:
            multiplier = round((inner + 1 - multiple / 2) / int(8 * dim / 3), digits)
            if multiplier > 0 and feed_forward_size(dim, multiple, multiplier) == inner:
                return {"multiple_of": multiple, "ffn_dim_multiplier": multiplier}
    raise InputError(f"Meta's params.json cannot say a feed-forward width of {inner}; convert to hf instead")


def _meta_name(name: str) -> str:
    for ours, theirs in _NAMES.items():
        if name == f"{ours}.weight":
            return f"{theirs}.weight"
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"layers.{layer}.{_NAMES[part]}.weight"


_NAMES = {ours: theirs for theirs, ours in (TOP | BLOCK).items()}


def _reordered(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    if ".q_proj." in name:
        return to_interleaved(tensor, config.num_heads)
    return to_interleaved(tensor, config.num_kv_heads) if ".k_proj." in name else tensor


def _cut(name: str, tensor: Tensor, rank: int, num_shards: int) -> Tensor:
    """One rank's piece, in memory of its own, since torch.save writes the whole storage of a view."""
    part = name.removesuffix(".weight").rpartition(".")[2]
    if part in ("norm", "attention_norm", "ffn_norm"):
        return tensor.clone()
    across = part in ("wo", "w2") or (part == "tok_embeddings" and tensor.shape[0] < LLAMA3_VOCABULARY)
    return tensor.chunk(num_shards, dim=1 if across else 0)[rank].clone()

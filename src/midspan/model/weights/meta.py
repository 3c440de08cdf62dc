"""Reading Meta's own checkpoints: params.json and consolidated.00.pth, 01, ..., one file a rank.

    tok_embeddings                          joined along dimension 1 (Llama 2) or 0 (Llama 3); the shape tells
    wq wk wv  w1 w3  output                 joined along dimension 0
    wo  w2                                  joined along dimension 1
    norms                                   the same in every file
    rope.freqs                              follows from the configuration, ignored

(`llama/model.py` of meta-llama/codellama; Hugging Face's conversion script.) Sizes come from the tensors:
params.json has no vocabulary size, and its rule for the feed-forward width has been copied wrongly. Queries
and keys are in interleaved rotary order there and are reordered. Files are memory-mapped, and read with
`weights_only`, so that nothing in them is executed.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midspan.errors import InputError
from midspan.model.config import ModelConfig, RopeScaling
from midspan.model.weights.assemble import to_half_split
from midspan.model.weights.hf import read_json

TOP = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
LLAMA3_VOCABULARY = 128_000

Shards = Sequence[dict[str, Tensor]]


def read(folder: Path) -> tuple[ModelConfig, Iterator[tuple[str, Tensor]]]:
    """The shape, and (Hugging Face's name, tensor) for every weight, joined as they are asked for.

    Raises:
        InputError: a shard is missing or damaged, or params.json lacks something.
    """
    params = read_json(folder / "params.json")
    shards = _shards(folder)
    config = _config(folder, params, shards)
    return config, _tensors(folder, shards, config)


def tensor_types(folder: Path) -> Iterator[tuple[str, int]]:
    """(type, number of values) of every tensor in all shards: BF16, F16."""
    short = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
    for shard in _shards(folder):
        for tensor in shard.values():
            yield short.get(tensor.dtype, str(tensor.dtype)), tensor.numel()


def _shards(folder: Path) -> Shards:
    paths = sorted(folder.glob("consolidated.*.pth"))
    if not paths:
        raise InputError(f"{folder} holds params.json but no consolidated.00.pth; get the weights")
    for number, path in enumerate(paths):
        if path.name != (name := f"consolidated.{number:02}.pth"):
            raise InputError(f"{folder / name} is missing, though {path.name} is there; get all shards")
    shards: list[dict[str, Tensor]] = []
    for path in paths:
        try:
            shard = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise InputError(f"{path} is damaged or not a plain torch checkpoint; get the file again") from error
        if shards and shard.keys() != shards[0].keys():
            odd = sorted(shard.keys() ^ shards[0].keys())[0]
            raise InputError(f"{path} and {paths[0].name} do not both hold {odd}; get all shards of one model")
        shards.append(shard)
    return shards


def _config(folder: Path, params: dict[str, Any], shards: Shards) -> ModelConfig:
    where = folder / "params.json"
    try:
        dim, heads = int(params["dim"]), int(params["n_heads"])
        num_layers, norm_eps = int(params["n_layers"]), float(params["norm_eps"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} lacks a usable field ({error}); get the file again") from error
    needed = ("tok_embeddings.weight", "layers.0.attention.wq.weight", "layers.0.feed_forward.w1.weight")
    for name in needed:
        if name not in shards[0]:
            raise InputError(f"{folder} lacks the tensor {name}; get the checkpoint again")
    embedding, query, gate = (shards[0][name] for name in needed)
    # Heads times their dimensions is dim in this format, so a shard's query rows give the number of shards.
    if query.shape[0] * len(shards) != dim:
        raise InputError(
            f"{folder} holds {len(shards)} shards of {query.shape[0]} query rows where dim is {dim}: "
            f"{dim / query.shape[0]:g} belong together; get all shards of one model"
        )
    theta = float(params.get("rope_theta") or 10_000.0)
    vocab_size = embedding.shape[0] * (len(shards) if _embedding_dim(embedding, dim) == 0 else 1)
    # A head that equals the embedding is the same matrix stored twice.
    tied = "output.weight" not in shards[0] or torch.equal(
        _join("tok_embeddings", [shard["tok_embeddings.weight"] for shard in shards], dim),
        _join("output", [shard["output.weight"] for shard in shards], dim),
    )
    scaling = None
    if params.get("use_scaled_rope"):
        if tied and "rope_scaling_factor" not in params:
            raise InputError(
                f"{where} uses scaled rotary positions and does not say by how much; "
                'add "rope_scaling_factor" (32 for Llama 3.2)'
            )
        scaling = RopeScaling(
            kind="llama3",
            factor=float(params.get("rope_scaling_factor", 8.0)),
            original_max_positions=8192,
            high_freq_factor=float(params.get("rope_high_freq_factor", 4.0)),
        )
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=dim,
        intermediate_size=gate.shape[0] * len(shards),
        num_layers=num_layers,
        num_heads=heads,
        num_kv_heads=int(params.get("n_kv_heads") or heads),
        head_dim=dim // heads,
        max_positions=_max_positions(vocab_size, theta, scaling),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=norm_eps,
        tied=tied,
    )


def _max_positions(vocab_size: int, theta: float, scaling: RopeScaling | None) -> int:
    """The trained context, which params.json does not state: what Meta's model cards do."""
    if scaling is not None:
        return 131_072
    if vocab_size >= LLAMA3_VOCABULARY:
        return 8192
    return 16_384 if theta > 10_000 else 4096


def _tensors(folder: Path, shards: Shards, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    for name in shards[0]:
        if name == "rope.freqs" or (name == "output.weight" and config.tied):
            continue
        part = re.sub(r"^layers\.\d+\.", "", name).removesuffix(".weight")
        pieces = [shard[name] for shard in shards]
        if any(piece.shape != pieces[0].shape for piece in pieces):
            raise InputError(f"{folder}: tensor {name} has another shape in some shards; get the checkpoint again")
        tensor = _join(part, pieces, config.hidden_size)
        if part in ("attention.wq", "attention.wk"):
            tensor = to_half_split(tensor, config.num_heads if part == "attention.wq" else config.num_kv_heads)
        yield _hf_name(name, part), tensor


def _hf_name(name: str, part: str) -> str:
    if found := re.fullmatch(r"layers\.(\d+)\..+\.weight", name):
        return f"model.layers.{found[1]}.{BLOCK[part]}.weight" if part in BLOCK else name
    return f"{TOP[part]}.weight" if part in TOP else name


def _embedding_dim(embedding: Tensor, dim: int) -> int:
    """The dimension along which a shard of the embedding was cut: rows are whole in Llama 3's."""
    return 0 if embedding.shape[1] == dim else 1


def _join(part: str, pieces: list[Tensor], dim: int) -> Tensor:
    if len(pieces) == 1 or part.endswith("norm"):
        return pieces[0]
    if part == "tok_embeddings":
        return torch.cat(pieces, dim=_embedding_dim(pieces[0], dim))
    return torch.cat(pieces, dim=1 if part in ("attention.wo", "feed_forward.w2") else 0)

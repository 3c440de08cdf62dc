"""Reading models from GGUF files: Llama (Mistral files say so too) and Qwen2, every quantisation of `gguf`.

Tensors come out as full floats; keeping them quantised in memory is not this module's business. Llama files
hold queries and keys in interleaved rotary order, Qwen2 files in halves, as llama.cpp rotates them.

Rotary scaling is metadata, except for Llama 3's, which llama.cpp stores as one divisor for each frequency in
a tensor `rope_freqs.weight`. Its blend is a straight line in the frequency, so the original settings are
found by fitting that line, and believed only if they give the same divisors again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midspan.errors import InputError
from midspan.model.config import ModelConfig, RopeScaling
from midspan.model.rope import inverse_frequencies
from midspan.model.weights.assemble import to_half_split
from midspan.model.weights.gguf_tensors import GGUFTensors

ARCHITECTURES = ("llama", "qwen2")
TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"


def read(path: Path) -> tuple[ModelConfig, Iterator[tuple[str, Tensor]]]:
    """The shape, and (Hugging Face's name, float32 tensor) for every weight, read as they are asked for."""
    file = GGUFTensors(path)
    config = read_config(file)
    return config, read_tensors(file, config)


def tensor_types(path: Path) -> Iterator[tuple[str, int]]:
    """(type, number of values) of every tensor in a file, as ggml names types: Q4_1, F32."""
    for tensor in GGUFTensors(path).tensors.values():
        yield tensor.kind.name, math.prod(tensor.shape)


def read_config(file: GGUFTensors) -> ModelConfig:
    """The shape that a GGUF file's metadata and tensors describe.

    Raises:
        InputError: another architecture, a mixture of experts, a missing field, or rotary settings that this
            model cannot follow.
    """
    architecture = file.fields.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"{file.path} holds a model of architecture {architecture!r}; Midspan reads "
            f"{' and '.join(ARCHITECTURES)} from GGUF: name another model"
        )

    def field(name: str, default: float | None = None, *, kind: type[int] | type[float] = int) -> Any:
        value = file.fields.get(f"{architecture}.{name}", default)
        if value is None:
            raise InputError(f"{file.path} lacks the field {architecture}.{name}; get the file again")
        if isinstance(value, list):
            raise InputError(
                f"{file.path}: {architecture}.{name} differs from layer to layer, which is not supported; "
                "name another model"
            )
        if not isinstance(value, kind) or not 0 < value < 1 << 31:
            raise InputError(f"{file.path}: {architecture}.{name} is {value!r}; get the file again")
        return value

    if file.fields.get(f"{architecture}.expert_count"):
        raise InputError(f"{file.path} is a mixture of experts, which is not supported; name a dense model")
    if field("block_count") > len(file.tensors):
        raise InputError(
            f"{file.path} claims {field('block_count')} layers and holds {len(file.tensors)} tensors; "
            "get the file again"
        )
    if "token_embd.weight" not in file.tensors:
        raise InputError(f"{file.path} lacks the tensor token_embd.weight; get the file again")
    heads, hidden = field("attention.head_count"), field("embedding_length")
    head_dim = field("attention.key_length", hidden // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if field(name, head_dim) != head_dim:
            raise InputError(
                f"{file.path}: {architecture}.{name} is {field(name)} where heads have {head_dim}; "
                "that is not supported, name another model"
            )
    config = ModelConfig(
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        hidden_size=hidden,
        intermediate_size=field("feed_forward_length"),
        num_layers=field("block_count"),
        num_heads=heads,
        num_kv_heads=field("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_positions=field("context_length"),
        rope_theta=field("rope.freq_base", 10_000.0, kind=float),
        # Stored as float32: 9.9999997e-06 is read back as the 1e-05 that was meant.
        norm_eps=float(f"{field('attention.layer_norm_rms_epsilon', kind=float):.6g}"),
        tied="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        out_bias="blk.0.attn_output.bias" in file.tensors,
        family=architecture,
    )
    return replace(config, rope_scaling=_rope_scaling(file, config))


def read_tensors(file: GGUFTensors, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name, float32 tensor) for every weight; unknown names pass through as they are."""
    for name in file:
        if name == ROPE_FACTORS:
            continue
        tensor = torch.from_numpy(file.read(name))
        if config.family == "llama" and (found := re.search(r"\.attn_([qk])\.", name)):
            tensor = to_half_split(tensor, config.num_heads if found[1] == "q" else config.num_kv_heads)
        yield hf_name(name), tensor


def hf_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; an unknown name is left alone."""
    if found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        layer, part, leaf = found.groups()
        return f"model.layers.{layer}.{BLOCK[part]}.{leaf}" if part in BLOCK else name
    part, _, leaf = name.rpartition(".")
    return f"{TOP[part]}.{leaf}" if part in TOP else name


def _rope_scaling(file: GGUFTensors, config: ModelConfig) -> RopeScaling | None:
    prefix = f"{config.family}.rope.scaling."
    kind = file.fields.get(prefix + "type", "none")
    factor = float(file.fields.get(prefix + "factor", file.fields.get(f"{config.family}.rope.scale_linear", 1.0)))
    if ROPE_FACTORS in file.tensors:
        if kind not in ("none", "llama3"):
            raise InputError(
                f"{file.path} asks for {kind!r} rope scaling and for {ROPE_FACTORS} at once, which is not "
                "supported; name another model"
            )
        return _llama3_scaling(file, config)
    if kind == "linear" or (kind == "none" and factor != 1.0):
        return RopeScaling(kind="linear", factor=factor)
    if kind == "yarn":
        if any(float(file.fields.get(prefix + name, 1.0)) != 1.0 for name in ("attn_factor", "yarn_attn_factor")):
            raise InputError(f"{file.path} sets YaRN's attention factor, which is not supported in GGUF files")
        original = file.fields.get(prefix + "original_context_length", config.max_positions)
        return RopeScaling(
            kind="yarn",
            factor=factor,
            original_max_positions=int(original),
            beta_fast=float(file.fields.get(prefix + "yarn_beta_fast", 32.0)),
            beta_slow=float(file.fields.get(prefix + "yarn_beta_slow", 1.0)),
        )
    if kind != "none":
        raise InputError(f"{file.path} asks for rope scaling {kind!r}; none, linear and yarn are supported")
    return None


def _llama3_scaling(file: GGUFTensors, config: ModelConfig) -> RopeScaling | None:
    """Llama 3's settings behind the divisors of `rope_freqs.weight`.

    Between the two ends, 1 / divisor = (1 - s) / factor + s with s = (t - low) / (high - low) and t the turns
    of that frequency in the original context: a line in the frequency. The three settings enter only as the
    line's slope and offset, so low is fixed at 1. With fewer than two frequencies on the line, the settings
    of the published models (8192, 1, 4) are tried.
    """
    divisors = torch.from_numpy(file.read(ROPE_FACTORS)).double()
    frequencies = inverse_frequencies(config)[0].double()
    refusal = InputError(
        f"{file.path}: the divisors in {ROPE_FACTORS} are not Llama 3's rope scaling, the only one supported "
        "in that form; name another model"
    )
    if divisors.shape != frequencies.shape or bool((divisors < 1).any()):
        raise refusal
    factor = float(divisors.max())
    if factor == 1.0:
        return None
    share = (1 / divisors - 1 / factor) / (1 - 1 / factor)
    middle = (share > 1e-4) & (share < 1 - 1e-4)
    original, high = 8192, 4.0
    if int(middle.sum()) >= 2:
        x, y = frequencies[middle], share[middle]
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
        offset = float(y.mean() - slope * x.mean())
        if slope <= 0 or offset >= 0:
            raise refusal
        high = round(1 - 1 / offset, 3)
        original = round(2 * math.pi * slope * (high - 1))
    scaling = RopeScaling(
        kind="llama3",
        factor=factor,
        original_max_positions=original,
        low_freq_factor=1.0,
        high_freq_factor=high,
    )
    again, _ = inverse_frequencies(replace(config, rope_scaling=scaling))
    if not torch.allclose(frequencies / again.double(), divisors, rtol=1e-3):
        raise refusal
    return scaling

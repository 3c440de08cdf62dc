"""Writing models as GGUF files that llama.cpp and everything built on it load.

    architecture llama   Llama and Mistral; queries and keys go back to interleaved rotary order
    architecture qwen2   Qwen2, with its biases, in halves as they are

Vectors are F32. Matrices are in the type that is asked for, with llama.cpp's own exceptions: in a type below
8 bits the output head (or the embedding, if it is the head) is Q6_K, in `q4_k` and `q5_k` half of the value
and down projections are too (what llama.cpp calls Q4_K_M and Q5_K_M), and where rows are no multiple of a K
type's 256 values the next larger plain type stands in (Q5_0, Q5_1, Q8_0).

The ids of the infilling sentinels are written by role: llama.cpp's `/infill` needs them, and its list of names
that end a text does not know Code Llama's `▁<EOT>`. Rotary scaling is metadata, but for Llama 3's: a tensor of
divisors, as llama.cpp wants it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
from torch import Tensor

from midspan.errors import InputError
from midspan.files import atomic_file
from midspan.fim import FimFormat
from midspan.model.config import ModelConfig
from midspan.model.weights.assemble import checked, parameter_shapes, to_interleaved
from midspan.model.weights.gguf import BLOCK, ROPE_FACTORS, TOP
from midspan.model.weights.gguf_container import GGUFWriter
from midspan.model.weights.gguf_quantise import quantise
from midspan.tokenizer import Tokenizer

Kind = GGMLQuantizationType
TYPES: dict[str, tuple[Kind, LlamaFileType]] = {
    "f32": (Kind.F32, LlamaFileType.ALL_F32),
    "f16": (Kind.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Kind.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q6_k": (Kind.Q6_K, LlamaFileType.MOSTLY_Q6_K),
    "q5_k": (Kind.Q5_K, LlamaFileType.MOSTLY_Q5_K_M),
    "q5_1": (Kind.Q5_1, LlamaFileType.MOSTLY_Q5_1),
    "q5_0": (Kind.Q5_0, LlamaFileType.MOSTLY_Q5_0),
    "q4_k": (Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "q4_1": (Kind.Q4_1, LlamaFileType.MOSTLY_Q4_1),
    "q4_0": (Kind.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
"""What can be asked for: the type of most matrices, and the number by which llama.cpp knows the mixture."""

_WIDE = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0)
_INSTEAD = {Kind.Q4_K: Kind.Q5_0, Kind.Q5_K: Kind.Q5_1, Kind.Q6_K: Kind.Q8_0}
_F16_MAX = 65_504.0


def write_gguf(
    path: str | Path,
    tensors: Iterable[tuple[str, Tensor]],
    config: ModelConfig,
    tokenizer: Tokenizer,
    *,
    kind: str = "f16",
    name: str | None = None,
) -> None:
    """Write a GGUF file, whole or not at all.

    Args:
        path: what is made; it must not exist.
        tensors: (name, tensor) under Hugging Face's names, in any order; taken one at a time.
        config: the model's shape.
        tokenizer: goes into the file; the embedding may have more rows.
        kind: one of `TYPES`.
        name: the model's name in the metadata; the file's if not given.

    Raises:
        InputError: the file exists, a type or a shape that GGUF cannot hold, a tensor that is missing or
            misshapen, or a value that the type cannot hold.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} is there already; choose another name, or move it away")
    if kind not in TYPES:
        raise InputError(f"there is no storage type {kind!r} in GGUF files here; use one of {', '.join(TYPES)}")
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"the vocabulary has {tokenizer.vocab_size} ids and the model only {config.vocab_size} rows; "
            "use the tokenizer that belongs to the model"
        )
    shapes = parameter_shapes(config)
    kinds = {hf: _kind(gguf_name(hf), shape, TYPES[kind][0], config) for hf, shape in shapes.items()}
    directory = {gguf_name(hf): (shape, kinds[hf]) for hf, shape in shapes.items()}
    divisors = _rope_divisors(config)
    if divisors is not None:
        directory[ROPE_FACTORS] = tuple(divisors.shape), Kind.F32
    fields = model_fields(config, name or path.stem, TYPES[kind][1])
    fields |= tokenizer.gguf_fields(config.vocab_size) | sentinel_fields(tokenizer)
    with atomic_file(path) as aside, GGUFWriter(aside, fields, directory) as writer:
        if divisors is not None:
            writer.write(ROPE_FACTORS, divisors)
        for hf, tensor in checked(shapes, tensors, "the checkpoint"):
            writer.write(gguf_name(hf), _stored(hf, tensor, kinds[hf], config))


def gguf_name(name: str) -> str:
    """`model.layers.3.self_attn.q_proj.weight` -> `blk.3.attn_q.weight`."""
    part, _, leaf = name.rpartition(".")
    if found := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", part):
        return f"blk.{found[1]}.{_BLOCK_OF[found[2]]}.{leaf}"
    return f"{_TOP_OF[part]}.{leaf}"


_TOP_OF = {ours: theirs for theirs, ours in TOP.items()}
_BLOCK_OF = {ours: theirs for theirs, ours in BLOCK.items()}


def architecture(config: ModelConfig) -> str:
    """llama.cpp's name of the architecture: Mistral is a Llama there."""
    return "qwen2" if config.family == "qwen2" else "llama"


def model_fields(config: ModelConfig, name: str, file_type: LlamaFileType) -> dict[str, Any]:
    """The metadata that says what the tensors are.

    Raises:
        InputError: YaRN with an attention factor of its own.
    """
    fields: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_positions,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_theta),
    }
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind != "llama3":
        fields |= {"rope.scaling.type": scaling.kind, "rope.scaling.factor": scaling.factor}
    if scaling is not None and scaling.kind == "yarn":
        if scaling.attention_factor is not None:
            raise InputError(
                f"YaRN with the attention factor {scaling.attention_factor} has no safe place in a GGUF file; "
                "convert to hf instead"
            )
        fields |= {
            "rope.scaling.original_context_length": scaling.original_max_positions,
            "rope.scaling.yarn_beta_fast": scaling.beta_fast,
            "rope.scaling.yarn_beta_slow": scaling.beta_slow,
        }
    prefix = architecture(config)
    general = {
        "architecture": prefix,
        "type": "model",
        "name": name,
        "quantization_version": 2,
        "file_type": int(file_type),
    }
    return {f"general.{k}": v for k, v in general.items()} | {f"{prefix}.{k}": v for k, v in fields.items()}


def sentinel_fields(tokenizer: Tokenizer) -> dict[str, Any]:
    """Ids of the infilling sentinels by role, none where the vocabulary cannot infill.

    What ends an infill is `eot`, unless it is the end of text, which is known as `eos` already.
    """
    fim = FimFormat.detect(tokenizer)
    if fim is None:
        return {}
    roles = {"fim_pre": fim.prefix_id, "fim_suf": fim.suffix_id, "fim_mid": fim.middle_id}
    roles["eot"] = None if fim.eot_id == tokenizer.eos_id else fim.eot_id
    return {f"tokenizer.ggml.{role}_token_id": token_id for role, token_id in roles.items()}


def _kind(name: str, shape: tuple[int, ...], asked: Kind, config: ModelConfig) -> Kind:
    """The storage type of one tensor."""
    if len(shape) == 1:
        return Kind.F32
    kind = asked
    is_head = name == ("token_embd.weight" if config.tied else "output.weight")
    if is_head and kind not in _WIDE:
        kind = Kind.Q6_K
    found = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
    if found and kind in (Kind.Q4_K, Kind.Q5_K) and _has_more_bits(int(found[1]), config.num_layers):
        kind = Kind.Q6_K
    if shape[-1] % GGML_QUANT_SIZES[kind][0] and kind in _INSTEAD:
        kind = _INSTEAD[kind]
    if shape[-1] % (block := GGML_QUANT_SIZES[kind][0]):
        raise InputError(
            f"{name} has rows of {shape[-1]} values, which is no multiple of the {block} that {kind.name} stores "
            "together; use f16, bf16 or f32"
        )
    return kind


def _has_more_bits(layer: int, num_layers: int) -> bool:
    """llama.cpp's choice for the _M mixtures: the first and last eighth, and every third between."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _stored(name: str, tensor: Tensor, kind: Kind, config: ModelConfig) -> np.ndarray:
    tensor = tensor.detach().to("cpu", torch.float32)
    if architecture(config) == "llama" and (found := re.search(r"\.self_attn\.([qk])_proj\.", name)):
        tensor = to_interleaved(tensor, config.num_heads if found[1] == "q" else config.num_kv_heads)
    values = tensor.contiguous().numpy()
    largest = max(float(values.max()), -float(values.min()))
    if not math.isfinite(largest):
        raise InputError(
            f"{name} holds values that are no finite numbers; train again, or convert another checkpoint"
        )
    if kind not in (Kind.F32, Kind.BF16) and largest > _F16_MAX:
        raise InputError(f"{name} holds {largest:g}, too large for {kind.name}; use bf16 or f32")
    return quantise(values, kind)


def _rope_divisors(config: ModelConfig) -> np.ndarray | None:
    """Llama 3's scaling as llama.cpp has it: what each inverse frequency is divided by."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "llama3":
        return None
    frequencies = float(config.rope_theta) ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    turns = float(scaling.original_max_positions or 0) * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clip(0.0, 1.0)
    return (1 / ((1 - kept) / scaling.factor + kept)).astype(np.float32)

"""GGUF files that the gguf package writes, against transformers and dequantisation written by hand."""

import struct
from collections.abc import Callable
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
from midspan.model import ModelConfig, RopeScaling
from midspan.model.weights import detect, load_model, read_config, tensor_types
from midspan.model.weights.gguf_tensors import GGUFTensors

from .shapes import SHAPES, Shape, oracle_logits, oracle_with, random_ids, random_state

Kind = gguf.GGMLQuantizationType
IDS = random_ids(60)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    part, _, leaf = name.rpartition(".")
    if not part.startswith("model.layers."):
        return f"{NAMES[part]}.{leaf}"
    _, _, layer, part = part.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.{leaf}"


def interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """Rows of each head from halves to pairs: row i of the first half goes to 2i, of the second to 2i + 1."""
    head = weight.shape[0] // num_heads
    order = [
        h * head + half * head // 2 + i for h in range(num_heads) for i in range(head // 2) for half in (0, 1)
    ]
    return weight[order]


def quantised(tensor: Tensor, kind: Kind) -> Tensor:
    """The bytes of each row in a storage type.

    The gguf package cannot write K-quants, so theirs are drawn at random, with scales of a sane size.
    """
    if not kind.name.endswith("_K"):
        rows = gguf.quants.quantize(tensor.numpy(), kind)
        return torch.from_numpy(np.ascontiguousarray(rows).view(np.uint8))
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(tensor.numel()).integers(0, 256, (tensor.numel() // block, size), np.uint8)
    scales = np.array([1e-4] if kind == Kind.Q6_K else [2e-4, 1e-3], np.float16).view(np.uint8)
    start = 208 if kind == Kind.Q6_K else 0
    blocks[:, start : start + len(scales)] = scales
    return torch.from_numpy(blocks.reshape(tensor.shape[0], -1))


def write(
    path: Path,
    config: ModelConfig,
    state: dict[str, Tensor],
    *,
    kind: Kind = Kind.F32,
    architecture: str | None = None,
    fields: dict[str, Any] | None = None,
    extra: dict[str, np.ndarray] | None = None,
    drop: str | None = None,
) -> None:
    """A GGUF as llama.cpp's converter lays it out; matrices in `kind`, vectors in F32."""
    architecture = architecture or ("qwen2" if config.family == "qwen2" else "llama")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_layers)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    for key, value in (fields or {}).items():
        add = {
            float: writer.add_float32,
            int: writer.add_uint32,
            str: writer.add_string,
            list: writer.add_array,
        }
        add[type(value)](f"{architecture}.{key}", value)
    for name, tensor in state.items():
        if name == drop:
            continue
        stored = kind if tensor.dim() == 2 else Kind.F32
        rows = quantised(tensor, stored).view(tensor.shape[0], -1)
        if architecture == "llama" and ".q_proj." in name:
            rows = interleaved(rows, config.num_heads)
        if architecture == "llama" and ".k_proj." in name:
            rows = interleaved(rows, config.num_kv_heads)
        rows = rows.flatten() if tensor.dim() == 1 else rows
        writer.add_tensor(gguf_name(name), rows.numpy(), raw_dtype=stored)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def ours(path: Path) -> Tensor:
    return load_model(path)(IDS)


def check(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


IN_GGUF = [name for name in SHAPES if name not in ("linear", "llama3", "yarn")]


@pytest.mark.parametrize("name", IN_GGUF)
def test_every_shape(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    state = random_state(shape.config)
    write(tmp_path / "model.gguf", shape.config, state)
    assert detect(tmp_path) == detect(tmp_path / "model.gguf") == "gguf"
    check(ours(tmp_path), oracle_logits(oracle_with(shape, state), IDS))
    expected = replace(shape.config, family="llama") if name == "mistral" else shape.config
    assert read_config(tmp_path) == expected


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0], ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ["grouped-query", "qwen2", "tied"])
def test_agrees_with_transformers_reading_the_same_file(name: str, kind: Kind, tmp_path: Path) -> None:
    shape = SHAPES[name]
    write(tmp_path / "model.gguf", shape.config, random_state(shape.config), kind=kind)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    check(ours(tmp_path / "model.gguf"), oracle_logits(oracle.eval(), IDS))


# --- Every storage type against a dequantisation written here, a block at a time, from ggml's definitions.


def half(raw: bytes) -> float:
    return float(struct.unpack("<e", raw)[0])


def nibbles(raw: bytes) -> list[int]:
    return [byte & 15 for byte in raw] + [byte >> 4 for byte in raw]


def scales_and_minima(packed: bytes) -> list[tuple[int, int]]:
    """Eight pairs of 6 bits in 12 bytes, as Q4_K and Q5_K share them."""
    low = [(packed[i] & 63, packed[i + 4] & 63) for i in range(4)]
    high = [
        (packed[i + 8] & 15 | packed[i] >> 6 << 4, packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4) for i in range(4)
    ]
    return low + high


def q8_0(block: bytes) -> list[float]:
    return [half(block[:2]) * value for value in struct.unpack("32b", block[2:])]


def q4_0(block: bytes) -> list[float]:
    return [half(block[:2]) * (value - 8) for value in nibbles(block[2:])]


def q4_1(block: bytes) -> list[float]:
    return [half(block[:2]) * value + half(block[2:4]) for value in nibbles(block[4:])]


def q4_k(block: bytes, fifth: bytes = bytes(32)) -> list[float]:
    scale, minimum, pairs = half(block[:2]), half(block[2:4]), scales_and_minima(block[4:16])
    values = []
    for group in range(8):
        quarter = block[16 + group // 2 * 32 :][:32]
        for i, byte in enumerate(quarter):
            value = (byte >> 4 if group % 2 else byte & 15) + (fifth[i] >> group & 1) * 16
            values.append(scale * pairs[group][0] * value - minimum * pairs[group][1])
    return values


def q5_k(block: bytes) -> list[float]:
    return q4_k(block[:16] + block[48:], block[16:48])


def q6_k(block: bytes) -> list[float]:
    low, high, scales = block[:128], block[128:192], struct.unpack("16b", block[192:208])
    values = []
    for i in range(256):
        part, group, at = i // 128, i % 128 // 32, i % 32
        byte = low[part * 64 + group % 2 * 32 + at]
        value = (byte >> 4 if group > 1 else byte & 15) | (high[part * 32 + at] >> 2 * group & 3) << 4
        values.append(half(block[208:]) * scales[i // 16] * (value - 32))
    return values


DEQUANTISE: dict[Kind, tuple[int, Callable[[bytes], list[float]]]] = {
    Kind.F32: (4, lambda raw: list(struct.unpack("<f", raw))),
    Kind.F16: (2, lambda raw: list(struct.unpack("<e", raw))),
    Kind.BF16: (2, lambda raw: list(struct.unpack("<f", b"\0\0" + raw))),
    Kind.Q8_0: (34, q8_0),
    Kind.Q4_0: (18, q4_0),
    Kind.Q4_1: (20, q4_1),
    Kind.Q4_K: (144, q4_k),
    Kind.Q5_K: (176, q5_k),
    Kind.Q6_K: (210, q6_k),
}


def by_hand(tensor: Tensor, kind: Kind) -> Tensor:
    """What is left of a tensor after storing it."""
    raw = quantised(tensor, kind).numpy().tobytes()
    size, block = DEQUANTISE[kind]
    values = [value for at in range(0, len(raw), size) for value in block(raw[at : at + size])]
    return torch.tensor(values).view(tensor.shape)


@pytest.mark.parametrize("kind", DEQUANTISE, ids=lambda kind: kind.name)
def test_quantised_logits_are_those_of_the_dequantised_weights(kind: Kind, tmp_path: Path) -> None:
    shape = SHAPES["grouped-query"]
    if kind.name.endswith("_K"):  # blocks of 256 need rows as long
        ours_wide = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "num_layers": 1}
        theirs_wide = ours_wide | {"num_hidden_layers": 1}
        config = replace(shape.config, **ours_wide)
        shape = Shape(config, transformers.LlamaConfig(**(shape.oracle.to_dict() | theirs_wide)))
    state = random_state(shape.config)
    write(tmp_path / "model.gguf", shape.config, state, kind=kind)
    rounded = {name: by_hand(tensor, kind) if tensor.dim() == 2 else tensor for name, tensor in state.items()}
    check(ours(tmp_path / "model.gguf"), oracle_logits(oracle_with(shape, rounded), IDS))
    matrices = sum(tensor.numel() for tensor in state.values() if tensor.dim() == 2)
    assert tensor_types(tmp_path / "model.gguf")[kind.name] >= matrices
    if not kind.name.endswith("_K"):
        difference = max(float((rounded[name] - state[name]).abs().max()) for name in state)
        assert (difference == 0) == (kind == Kind.F32)
        assert difference < 0.1


# --- Rotary scaling.


def test_linear_and_yarn_from_metadata(tmp_path: Path) -> None:
    for name, fields in (
        ("linear", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
        ("linear", {"rope.scale_linear": 4.0}),
        (
            "yarn",
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 32,
            },
        ),
    ):
        shape, path = SHAPES[name], tmp_path / f"{len(fields)}.gguf"
        state = random_state(shape.config)
        write(path, shape.config, state, fields=fields)
        assert read_config(path) == shape.config
        check(ours(path), oracle_logits(oracle_with(shape, state), IDS))


def llama3_divisors(config: ModelConfig) -> np.ndarray:
    """What llama.cpp's converter writes: by cases of the wavelength against the original context."""
    scaling = config.rope_scaling
    assert scaling is not None
    assert scaling.original_max_positions is not None
    low = scaling.original_max_positions / scaling.low_freq_factor
    high = scaling.original_max_positions / scaling.high_freq_factor
    divisors = []
    for i in range(0, config.head_dim, 2):
        wavelength = 2 * np.pi * config.rope_theta ** (i / config.head_dim)
        smooth = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        between = 1 / ((1 - smooth) / scaling.factor + smooth)
        divisors.append(1.0 if wavelength < high else scaling.factor if wavelength > low else between)
    return np.array(divisors, np.float32)


def test_llama3_scaling_is_recovered_from_its_divisors(tmp_path: Path) -> None:
    shape = SHAPES["llama3"]
    state = random_state(shape.config)
    divisors = llama3_divisors(shape.config)
    assert ((divisors > 1.01) & (divisors < 7.9)).sum() >= 2
    write(tmp_path / "model.gguf", shape.config, state, extra={"rope_freqs.weight": divisors})
    assert read_config(tmp_path) == shape.config
    check(ours(tmp_path), oracle_logits(oracle_with(shape, state), IDS))


@pytest.mark.parametrize(("head_dim", "factor"), [(128, 8.0), (64, 32.0), (8, 8.0)])
def test_published_llama3_settings(head_dim: int, factor: float, tmp_path: Path) -> None:
    """Llama 3.1 8B and 3.2 1B; and heads so small that too few frequencies are blended to fit a line."""
    scaling = RopeScaling(kind="llama3", factor=factor, original_max_positions=8192)
    config = replace(SHAPES["multi-query"].config, head_dim=head_dim, rope_theta=5e5, rope_scaling=scaling)
    write(
        tmp_path / "a.gguf",
        config,
        random_state(config),
        extra={"rope_freqs.weight": llama3_divisors(config)},
    )
    assert read_config(tmp_path) == config


def test_divisors_of_one_mean_no_scaling(tmp_path: Path) -> None:
    config = SHAPES["multi-head"].config
    divisors = np.ones(8, np.float32)
    write(tmp_path / "a.gguf", config, random_state(config), extra={"rope_freqs.weight": divisors})
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(
    "divisors",
    [
        [1, 1.2, 3, 7, 8, 8, 8, 8],  # rises as Llama 3's do, but not along a line
        [8, 7, 6, 5, 4, 3, 2, 1],
        [0.5] * 8,
        [1, 8],
        [1, 1, 1, 1, 1, 1, 1, float("nan")],
    ],
)
def test_other_divisors_are_refused(divisors: list[float], tmp_path: Path) -> None:
    config = SHAPES["multi-head"].config
    values = np.array(divisors, np.float32)
    write(tmp_path / "a.gguf", config, random_state(config), extra={"rope_freqs.weight": values})
    with pytest.raises(InputError, match=r"rope_freqs\.weight are not Llama 3's"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0}, "rope scaling 'longrope'"),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.attn_factor": 0.5},
            "YaRN's attention",
        ),
        ({"rope.dimension_count": 8}, r"llama\.rope\.dimension_count is 8 where heads have 16"),
        ({"expert_count": 8}, "mixture of experts"),
        ({"attention.head_count_kv": [4, 2]}, "differs from layer to layer"),
    ],
)
def test_models_that_we_cannot_run_are_refused(fields: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    config = SHAPES["multi-head"].config
    write(tmp_path / "model.gguf", config, random_state(config), fields=fields)
    with pytest.raises(InputError, match=sentence):
        load_model(tmp_path)


# --- Files that are wrong.


def test_another_architecture_is_named(tmp_path: Path) -> None:
    config = SHAPES["multi-head"].config
    write(tmp_path / "model.gguf", config, random_state(config), architecture="gpt2")
    with pytest.raises(InputError, match="architecture 'gpt2'"):
        load_model(tmp_path)


def test_truncated_anywhere_is_a_sentence(tmp_path: Path) -> None:
    config = SHAPES["tied"].config
    write(tmp_path / "whole.gguf", config, random_state(config))
    whole = (tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [*range(0, 3000, 37), len(whole) // 2, len(whole) - 40]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.gguf"):
            load_model(path)


def test_damaged_headers_never_end_in_a_traceback(tmp_path: Path) -> None:
    """A byte of the header changed at random: the model still loads, or a sentence says what is wrong."""
    config = SHAPES["tied"].config
    write(tmp_path / "whole.gguf", config, random_state(config))
    whole = (tmp_path / "whole.gguf").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[generator.integers(0, 1800)] = generator.integers(0, 256)
        (tmp_path / "damaged.gguf").write_bytes(damaged)
        try:
            load_model(tmp_path / "damaged.gguf")
        except InputError as error:
            assert "damaged.gguf" in str(error)  # noqa: PT017  (most raise and some do not)
            refused += 1
    assert 250 < refused < 500


def test_not_a_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK" + bytes(100))
    with pytest.raises(InputError, match="is not a GGUF file"):
        load_model(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(InputError, match="is GGUF version 1"):
        load_model(path)


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    config = SHAPES["grouped-query"].config
    state = random_state(config)
    path = tmp_path / "model.gguf"
    write(path, config, state, drop="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(InputError, match=r"lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(path)
    write(path, config, state, drop="model.embed_tokens.weight")
    with pytest.raises(InputError, match=r"lacks the tensor token_embd\.weight"):
        load_model(path)
    write(path, config, state, extra={"blk.0.attn_q_norm.weight": np.ones(16, np.float32)})
    with pytest.raises(InputError, match=r"holds the tensor blk\.0\.attn_q_norm\.weight"):
        load_model(path)
    write(path, replace(config, intermediate_size=64), state)
    with pytest.raises(InputError, match=r"has shape \(96, 64\), the configuration asks for \(64, 64\)"):
        load_model(path)


def test_our_container_reader_agrees_with_the_packages(tmp_path: Path) -> None:
    shape = SHAPES["qwen2"]
    path = tmp_path / "model.gguf"
    write(path, shape.config, random_state(shape.config), kind=Kind.Q8_0, fields={"tags": ["a", "ß", ""]})
    reader, file = gguf.GGUFReader(path), GGUFTensors(path)
    theirs = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert file.fields == theirs
    assert file.fields["qwen2.tags"] == ["a", "ß", ""]
    for tensor in reader.tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(file.read(tensor.name), expected)

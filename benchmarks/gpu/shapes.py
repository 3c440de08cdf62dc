"""Models by shape, their arithmetic and their memory, without weights of anybody."""

from __future__ import annotations

from midspan.model import ModelConfig
from midspan.model.flops import flops_per_token, matmul_parameters

SHAPES = {
    "tiny": ModelConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        max_positions=4096,
        tied=True,
    ),
    "135M": ModelConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        max_positions=16_384,
        tied=True,
    ),
    "1B": ModelConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_layers=16,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        max_positions=16_384,
        tied=True,
    ),
    "7B": ModelConfig(
        vocab_size=32_016,
        hidden_size=4096,
        intermediate_size=11_008,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
        max_positions=16_384,
        rope_theta=1e6,
    ),
}
PEAKS = {"H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bfloat16 TFLOP/s by what a card's name contains; the longest name that fits counts."""


def peak_tflops(name: str) -> float | None:
    """A card's peak, or None for one that is not known: then no share of it is claimed."""
    found = [key for key in PEAKS if all(word in name for word in key.split())]
    return PEAKS[max(found, key=len)] if found else None


def flops_of(config: ModelConfig, length: int, method: str) -> float:
    """Of a trained token; adapters spare the gradients of the matrices that they stand beside."""
    return flops_per_token(config, length, frozen=matmul_parameters(config) if method == "lora" else 0)


def bytes_needed(config: ModelConfig, tokens: int, method: str, *, recompute: bool) -> float:
    """About what a step holds: weights (and for full runs bfloat16 gradients and moments), and activations."""
    embedding = 0 if config.tied else config.vocab_size * config.hidden_size
    weights = (matmul_parameters(config) + embedding) * (2 if method == "lora" else 8)
    a_layer = 2 * tokens * (10 * config.hidden_size + 4 * config.intermediate_size)
    layers = (
        a_layer + config.num_layers * 2 * tokens * config.hidden_size if recompute else config.num_layers * a_layer
    )
    return weights + layers + 2e9

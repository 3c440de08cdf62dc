"""The shape of a Llama-family model, and the published shapes that have a name here.

One frozen record describes every checkpoint that `llama.py` runs. It reads and writes Hugging Face's
`config.json` in both spellings of the rotary settings (transformers 4: `rope_theta` and `rope_scaling`;
transformers 5: `rope_parameters`), since older engines know only the first and newer ones prefer the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from midspan.errors import InputError

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the length a model was trained at (see `rope.py`)."""

    kind: str
    """`linear`, `llama3` or `yarn`; a model without scaling has no RopeScaling at all."""
    factor: float
    """Target length over the original one."""
    original_max_positions: int | None = None
    """Positions of the unscaled training; `llama3` and `yarn` need it."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    """YaRN's multiplier on cos and sin; None means 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "llama3", "yarn"):
            raise InputError(
                f"rope scaling {self.kind!r} is not supported; the supported kinds are linear, llama3 and yarn"
            )
        if self.kind != "linear" and not self.original_max_positions:
            raise InputError(
                f"rope scaling {self.kind!r} needs original_max_position_embeddings; add it to the model's config"
            )

    def to_hf(self) -> dict[str, Any]:
        """The fields that Hugging Face configs use for this kind."""
        values: dict[str, Any] = {"rope_type": self.kind, "factor": self.factor}
        if self.kind != "linear":
            values["original_max_position_embeddings"] = self.original_max_positions
        if self.kind == "llama3":
            values |= {"low_freq_factor": self.low_freq_factor, "high_freq_factor": self.high_freq_factor}
        if self.kind == "yarn":
            values |= {"beta_fast": self.beta_fast, "beta_slow": self.beta_slow}
            if self.attention_factor is not None:
                values["attention_factor"] = self.attention_factor
        return values

    @staticmethod
    def from_hf(values: Mapping[str, Any] | None, max_positions: int) -> RopeScaling | None:
        """Read `rope_scaling` or `rope_parameters`; None where the frequencies are left as they are."""
        kind = (values or {}).get("rope_type", (values or {}).get("type", "default"))
        if not values or kind == "default":
            return None
        return RopeScaling(
            kind=kind,
            factor=float(values.get("factor", 1.0)),
            original_max_positions=values.get("original_max_position_embeddings")
            or (max_positions if kind == "yarn" else None),
            low_freq_factor=float(values.get("low_freq_factor", 1.0)),
            high_freq_factor=float(values.get("high_freq_factor", 4.0)),
            beta_fast=float(values.get("beta_fast") or 32.0),
            beta_slow=float(values.get("beta_slow") or 1.0),
            attention_factor=values.get("attention_factor"),
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides the tensors and the arithmetic of a model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tied: bool = False
    """The output head is the embedding matrix."""
    qkv_bias: bool = False
    """Biases on the query, key and value projections (Qwen2; Llama checkpoints with attention_bias)."""
    out_bias: bool = False
    """A bias on the attention's output projection (Llama checkpoints with attention_bias)."""
    family: str = "llama"
    """Hugging Face's model_type, which decides what `config.json` calls the architecture."""

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"{self.num_heads} attention heads cannot share {self.num_kv_heads} key/value heads; "
                "the first must be a multiple of the second"
            )
        if self.head_dim % 2:
            raise InputError(f"a head of {self.head_dim} dimensions cannot be rotated; it must be even")

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that transformers loads, rotary settings in both spellings."""
        scaling = self.rope_scaling.to_hf() if self.rope_scaling else None
        rope_parameters = {"rope_type": "default", **(scaling or {}), "rope_theta": self.rope_theta}
        values: dict[str, Any] = {
            "architectures": [ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_positions,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "rope_parameters": rope_parameters,
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tied,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "attention_dropout": 0.0,
            "use_cache": True,
        }
        if self.family == "llama":
            values |= {"attention_bias": self.out_bias, "mlp_bias": False, "pretraining_tp": 1}
        if self.family == "mistral":
            values["sliding_window"] = None
        if self.family == "qwen2":
            values["use_sliding_window"] = False
        return values

    @staticmethod
    def from_hf(values: Mapping[str, Any], where: str) -> ModelConfig:
        """Read a `config.json`.

        Raises:
            InputError: another architecture, an activation that is not SiLU, or a missing field; `where` is
                the file that the sentence names.
        """
        family = values.get("model_type")
        if family not in ARCHITECTURES:
            raise InputError(
                f"{where} describes a {family!r} model; Midspan runs {', '.join(ARCHITECTURES)}: "
                "convert the checkpoint or name another base"
            )
        if values.get("hidden_act", "silu") != "silu" or values.get("mlp_bias"):
            raise InputError(
                f"{where} asks for activation {values.get('hidden_act')!r} and mlp_bias {values.get('mlp_bias')}; "
                "only a bias-free SiLU feed-forward is supported"
            )
        try:
            hidden, heads = int(values["hidden_size"]), int(values["num_attention_heads"])
            rope = values.get("rope_parameters") or {}
            # A sliding window changes nothing up to its own length, so that length is what can be used.
            window = (
                values.get("sliding_window") if values.get("use_sliding_window", family == "mistral") else None
            )
            max_positions = int(values.get("max_position_embeddings", 2048))
            return ModelConfig(
                vocab_size=int(values["vocab_size"]),
                hidden_size=hidden,
                intermediate_size=int(values["intermediate_size"]),
                num_layers=int(values["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(values.get("num_key_value_heads") or heads),
                head_dim=int(values.get("head_dim") or hidden // heads),
                max_positions=min(max_positions, window or max_positions),
                rope_theta=float(values.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
                rope_scaling=RopeScaling.from_hf(values.get("rope_scaling") or rope, max_positions),
                norm_eps=float(values.get("rms_norm_eps", 1e-6)),
                tied=bool(values.get("tie_word_embeddings", False)),
                qkv_bias=family == "qwen2" or bool(values.get("attention_bias", False)),
                out_bias=family == "llama" and bool(values.get("attention_bias", False)),
                family=family,
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where} lacks a usable field ({error}); get the file again") from error

    def num_parameters(self) -> int:
        """Parameters of the model, a tied head counted once."""
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = self.hidden_size * (2 * q + 2 * kv)
        biases = (q + 2 * kv) * self.qkv_bias + self.hidden_size * self.out_bias
        layer = attention + biases + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return embeddings + self.num_layers * layer + self.hidden_size


def _llama2(hidden: int, inner: int, layers: int, heads: int, kv_heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=32_000,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=128,
        max_positions=4096,
    )


PRESETS: dict[str, ModelConfig] = {
    "7b": _llama2(4096, 11_008, 32, 32, 32),
    "13b": _llama2(5120, 13_824, 40, 40, 40),
    "34b": _llama2(8192, 22_016, 48, 64, 8),
    "70b": _llama2(8192, 28_672, 80, 64, 8),
    "smollm2-135m": ModelConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        max_positions=8192,
        rope_theta=100_000.0,
        tied=True,
    ),
}
"""Llama 2's shapes at 32,000 pieces (the Code Llama paper's bases) and the embedded default's."""

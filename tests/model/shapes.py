"""Tiny models in every shape of the family: our configuration beside transformers' own spelling of it."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

from midspan.model import Llama, ModelConfig, RopeScaling

VOCAB = 96
BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 4,
    "head_dim": 16,
    "max_positions": 128,
}


@dataclass(frozen=True)
class Shape:
    """One model in both vocabularies."""

    config: ModelConfig
    oracle: transformers.PreTrainedConfig


def shape(kind: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Shape:
    """A shape that differs from the base in `ours`; `theirs` is what transformers' class is given for it."""
    config = ModelConfig(**{**BASE, **ours})
    rope = {"rope_type": "default", "rope_theta": 10_000.0, **theirs.pop("rope_parameters", {})}
    values: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_parameters": rope,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return Shape(config, getattr(transformers, f"{kind}Config")(**{**values, **theirs}))


SHAPES = {
    "multi-head": shape("Llama", {}, {}),
    "grouped-query": shape("Llama", {"num_kv_heads": 2}, {}),
    "multi-query": shape("Llama", {"num_kv_heads": 1}, {}),
    "tied": shape("Llama", {"tied": True}, {"tie_word_embeddings": True}),
    "own head size": shape("Llama", {"head_dim": 24, "num_kv_heads": 2}, {"head_dim": 24}),
    "theta 1e6": shape("Llama", {"rope_theta": 1e6}, {"rope_parameters": {"rope_theta": 1e6}}),
    "attention bias": shape(
        "Llama", {"qkv_bias": True, "out_bias": True, "num_kv_heads": 2}, {"attention_bias": True}
    ),
    "qwen2": shape(
        "Qwen2",
        {"family": "qwen2", "qkv_bias": True, "num_kv_heads": 2, "norm_eps": 1e-6},
        {"rms_norm_eps": 1e-6},
    ),
    "mistral": shape("Mistral", {"family": "mistral", "num_kv_heads": 2}, {"sliding_window": None}),
    "linear": shape(
        "Llama",
        {"rope_scaling": RopeScaling(kind="linear", factor=4.0)},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0}},
    ),
    "llama3": shape(
        "Llama",
        {
            "rope_theta": 50.0,
            "rope_scaling": RopeScaling(kind="llama3", factor=8.0, original_max_positions=64),
        },
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 50.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "yarn": shape(
        "Llama",
        {"rope_scaling": RopeScaling(kind="yarn", factor=4.0, original_max_positions=32)},
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            }
        },
    ),
}


def random_state(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """Weights that exercise every parameter: norms off 1, biases off 0, logits of order 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        names = {name: parameter.shape for name, parameter in Llama(config).named_parameters()}
    state = {}
    for name, size in names.items():
        noise = torch.randn(size, generator=generator)
        state[name] = 1 + 0.3 * noise if "norm" in name else 0.15 * noise
    return state


def model_with(config: ModelConfig, state: dict[str, Tensor]) -> Llama:
    """Our module holding a state, through torch's own loader."""
    model = Llama(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    return model.eval()


def oracle_with(shape: Shape, state: dict[str, Tensor]) -> transformers.PreTrainedModel:
    """The module of transformers holding the same state."""
    oracle = transformers.AutoModelForCausalLM.from_config(shape.oracle, dtype=torch.float32)
    missing, unexpected = oracle.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    oracle.tie_weights()
    return oracle.eval()


def random_ids(length: int, batch: int = 1, seed: int = 1) -> Tensor:
    """Token ids (batch, length)."""
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def oracle_logits(oracle: transformers.PreTrainedModel, ids_bl: Tensor) -> Tensor:
    """Logits of transformers (batch, length, vocabulary)."""
    return oracle(ids_bl, use_cache=False).logits

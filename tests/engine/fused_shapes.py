"""Random models for the fused step, and the torch model that has the same, dequantised weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from midspan.engine.fused import FusedDecoder, packed_weights
from midspan.engine.runner import Part
from midspan.model import KVCache, Llama, ModelConfig
from midspan.model.quant import GROUP, Bits, pack, unpack

VOCAB = 211


def config(**changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "vocab_size": VOCAB,
        "hidden_size": 96,
        "intermediate_size": 144,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
        "max_positions": 512,
    }
    return ModelConfig(**{**values, **changes})  # type: ignore[arg-type]


CONFIGS = {
    "grouped": config(),
    "multi-head, head 128": config(num_kv_heads=4, head_dim=128),
    "multi-query, head 80": config(num_kv_heads=1, head_dim=80),
    "head 96": config(head_dim=96),
    "odd head": config(head_dim=24, hidden_size=40, intermediate_size=56),
    "tied": config(tied=True),
    "biases": config(qkv_bias=True, out_bias=True),
    "smol": config(num_heads=9, num_kv_heads=3, hidden_size=576),
}


def model(config: ModelConfig, seed: int = 0) -> Llama:
    """Random float32 weights and biases that bfloat16 can hold."""
    made = Llama(config)
    made.initialise(seed, std=0.08)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * 0.2)
            parameter.copy_(parameter.bfloat16().float())
            assert name
    return made.eval()


def dequantised(source: Llama, bits: Bits, *, round_activations: bool = True) -> Llama:
    """A model with the weights that packing leaves, the embedding's rows as they are, and rounded activations."""
    made = Llama(ModelConfig(**{**_fields(source.config), "tied": False}))
    made.load_state_dict(source.state_dict())
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.copy_(unpack(pack(parameter, bits), *parameter.shape, bits))
    if bits != 16 and round_activations:
        for module in made.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
    return made.eval()


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Activations as the step rounds them beside 8- and 4-bit weights: int8, a scale for 32 of them."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))
    scales = groups.abs().amax(-1, keepdim=True) / 127
    steps = torch.where(scales > 0, groups / scales, 0.0)
    return ((steps.abs() + 0.5).floor() * steps.sign() * scales).flatten(-2)[..., : x.shape[-1]]


def _fields(config: ModelConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def decoder(source: Llama, bits: Bits, threads: int = 2, architecture: str = "native") -> FusedDecoder:
    return FusedDecoder(
        source.config, packed_weights(source, bits), bits=bits, threads=threads, architecture=architecture
    )


def cache(config: ModelConfig, dtype: torch.dtype = torch.float32) -> KVCache:
    return KVCache(config, capacity=320, num_slots=4, dtype=dtype)


class TorchDecoder:
    """The model behind the same call: the oracle."""

    def __init__(self, model: Llama) -> None:
        self.model = model

    def step(self, cache: KVCache, parts: Sequence[Part], *, only_last: bool = True) -> Tensor:
        ids_1n = torch.tensor([[i for part in parts for i in part.ids]])
        hidden_nd = self.model.hidden(ids_1n, cache=cache, parts=[(p.slot, len(p.ids)) for p in parts])[0]
        rows = torch.split(hidden_nd, [len(part.ids) for part in parts])
        return self.model.lm_head(torch.cat([row[-1:] for row in rows] if only_last else rows))

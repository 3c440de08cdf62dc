"""The formula against published figures, and against what torch counts."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from midspan.model import Llama, ModelConfig
from midspan.model.config import PRESETS
from midspan.model.flops import flops_per_token, matmul_parameters
from midspan.model.fused import kernels

SMALL = ModelConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=96,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=24,
    max_positions=512,
)


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_those_of_the_model(tied: bool) -> None:
    config = replace(SMALL, tied=tied)
    with torch.device("meta"):
        model = Llama(config)
    matrices = {id(p): p for n, p in model.named_parameters() if p.dim() == 2 and (tied or "embed" not in n)}
    assert matmul_parameters(config) == sum(p.numel() for p in matrices.values())


@pytest.mark.parametrize("frozen", [False, True])
def test_torch_counts_the_same(monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    """The plain layers, so that every product is one that the counter knows; the first layer is fed by a leaf."""
    monkeypatch.setattr(kernels, "fits", lambda _: False)
    length = 80
    model = Llama(SMALL)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        if frozen:
            model.requires_grad_(False)
            model.model.embed_tokens.requires_grad_(True)
        model(torch.arange(length)[None]).sum().backward()
    fixed = matmul_parameters(SMALL) if frozen else 0
    assert counter.get_total_flops() == length * flops_per_token(SMALL, length, frozen=fixed)


def test_published_ceilings_of_an_h100() -> None:
    """Tokens a second of one H100 that only multiplied: 21.5k for 7B at 4,096 tokens, 11.3k for 13B."""
    assert 989e12 / flops_per_token(PRESETS["7b"], 4096) == pytest.approx(21_500, rel=0.01)
    assert 989e12 / flops_per_token(PRESETS["7b"], 16_384) == pytest.approx(15_100, rel=0.02)
    assert 989e12 / flops_per_token(PRESETS["13b"], 4096) == pytest.approx(11_300, rel=0.01)

"""The optimizer against plain AdamW, and the schedule against its definition."""

import math

import pytest
import torch
from torch import nn

from midspan.train.optimizer import Optimizer, OptimizerConfig, learning_rate, round_at_random


def test_the_schedule_warms_up_then_falls_to_a_thirtieth() -> None:
    config = OptimizerConfig(lr=3.0, warmup_steps=10)
    rates = [learning_rate(config, step, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([0.3 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(3.0)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    halfway = 10 + 99 / 2
    expected = 3.0 * (1 / 30 + 29 / 30 * 0.5 * (1 + math.cos(math.pi * (60 - 10) / 99)))
    assert rates[60] == pytest.approx(expected)
    assert rates[int(halfway)] == pytest.approx(1.55, rel=0.02)


def test_a_schedule_of_warm_up_alone_does_not_divide_by_zero() -> None:
    assert learning_rate(OptimizerConfig(lr=1.0, warmup_steps=5), 4, 5) == 1.0
    assert learning_rate(OptimizerConfig(lr=1.0, warmup_steps=0), 0, 1) > 0


def _models(dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    mine = nn.Sequential(nn.Linear(8, 16), nn.RMSNorm(16), nn.Linear(16, 4, bias=False)).to(dtype)
    theirs = nn.Sequential(nn.Linear(8, 16), nn.RMSNorm(16), nn.Linear(16, 4, bias=False))
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


def test_float32_steps_equal_torch_adamw_with_decay_on_matrices_only() -> None:
    mine, theirs = _models(torch.float32)
    config = OptimizerConfig(lr=1e-2, warmup_steps=3, weight_decay=0.1, clip=0.5)
    optimizer = Optimizer(mine, config, steps=10)
    matrices = [p for p in theirs.parameters() if p.dim() > 1]
    others = [p for p in theirs.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    oracle = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=config.eps, foreach=False)
    for step in range(10):
        x = torch.randn(5, 8)
        for model in (mine, theirs):
            model(x).square().sum().backward()
        for group in oracle.param_groups:
            group["lr"] = learning_rate(config, step, 10)
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        oracle.step()
        oracle.zero_grad()
        rate, mine_norm = optimizer.step(step)
        assert rate == learning_rate(config, step, 10)
        assert mine_norm == pytest.approx(float(norm), rel=1e-5)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        assert a.grad is None


def test_bfloat16_weights_follow_float32_masters() -> None:
    """Updates too small for a bfloat16 add up in the master until they show."""
    weight = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.constant_(weight.weight, 1.0)
    optimizer = Optimizer(weight, OptimizerConfig(lr=1e-3, warmup_steps=0, final_ratio=1.0, weight_decay=0.0), 100)
    for step in range(20):
        weight.weight.grad = torch.ones_like(weight.weight)
        optimizer.step(step)
    assert optimizer.masters["weight"].item() == pytest.approx(0.98, abs=1e-4)
    assert weight.weight.item() == torch.tensor(0.98).bfloat16().item()


def test_states_in_bfloat16_follow_float32_ones_on_average() -> None:
    """Steps far below a bfloat16's spacing: rounding to the nearest stands still, rounding at random does not."""
    ends = {}
    for rounding in (True, False):
        weight = nn.Linear(4096, 1, bias=False).to(torch.bfloat16)
        nn.init.constant_(weight.weight, 1.0)
        config = OptimizerConfig(
            lr=1e-4,
            warmup_steps=0,
            final_ratio=1.0,
            weight_decay=0.0,
            clip=1e6,
            stochastic_rounding=rounding,
        )
        optimizer = Optimizer(weight, config, 100, masters=False)
        for step in range(50):
            weight.weight.grad = torch.ones_like(weight.weight)
            optimizer.step(step)
        assert {tensor.dtype for tensor in optimizer.state().values()} == {torch.bfloat16}
        ends[rounding] = weight.weight.float().mean().item()
    assert ends[False] == 1.0
    assert ends[True] == pytest.approx(1 - 50 * 1e-4, abs=3e-4)


def test_rounding_at_random_takes_a_neighbour_and_is_right_on_average() -> None:
    number = 1.0 + 3 / 1024  # 3/8 of the way between two bfloat16 numbers
    weights = torch.full((100_000,), number)
    round_at_random(weights, torch.Generator().manual_seed(1))
    assert sorted(weights.unique().tolist()) == [1.0, 1.0078125]
    assert weights.mean().item() == pytest.approx(number, abs=1e-4)
    negative = torch.full((100_000,), -number)
    round_at_random(negative, torch.Generator().manual_seed(1))
    assert negative.mean().item() == pytest.approx(-number, abs=1e-4)
    assert torch.equal(weights.bfloat16().float(), weights)


def test_state_goes_round() -> None:
    mine, other = _models(torch.bfloat16)[0], _models(torch.bfloat16)[0]
    config = OptimizerConfig(lr=1e-2, warmup_steps=0)
    first, second = Optimizer(mine, config, 6), Optimizer(other, config, 6)

    def grads(step: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        return [torch.randn(p.shape, generator=generator).bfloat16() for p in mine.parameters()]

    def take(model: nn.Module, optimizer: Optimizer, step: int) -> None:
        for p, g in zip(model.parameters(), grads(step), strict=True):
            p.grad = g.clone()
        optimizer.step(step)

    for step in range(3):
        take(mine, first, step)
    for name, tensor in first.state().items():
        second.state()[name].copy_(tensor)
    second.loaded()
    for step in range(3, 6):
        take(mine, first, step)
        take(other, second, step)
    for a, b in zip(first.state().values(), second.state().values(), strict=True):
        assert torch.equal(a, b)

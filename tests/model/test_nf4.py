"""Four-bit matrices against their definition."""

import pytest
import torch
from scipy.stats import norm
from torch.nn import functional as F

from midspan.model.nf4 import nf4_linear, quantise, restore, table


def test_the_table_is_the_papers() -> None:
    """Appendix E's numbers, and what they come from: quantiles of a normal distribution."""
    paper = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
    paper += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
    assert table().tolist() == pytest.approx(paper, abs=1e-6)
    assert table()[9].item() == pytest.approx(norm.ppf(0.5 + 2 * 0.4677083 / 8) / norm.ppf(0.9677083), abs=1e-6)


@pytest.mark.parametrize("columns", [64, 48, 192])
def test_each_number_becomes_its_nearest_multiple_of_the_scale(columns: int) -> None:
    weight = torch.randn(10, columns) * torch.logspace(-3, 3, 10)[:, None]
    codes, scales = quantise(weight)
    assert (codes.dtype, codes.shape) == (torch.uint8, (10, columns // 2))
    found = restore(codes, scales, torch.float32)
    for row, scale_row, got in zip(weight, scales.float(), found, strict=True):
        for number, block in enumerate(row.split(columns // len(scale_row))):
            assert scale_row[number].item() == block.abs().max().bfloat16().item()
            choices = table() * scale_row[number]
            nearest = (block[:, None] - choices).abs().amin(dim=1)
            own = got[number * len(block) : (number + 1) * len(block)]
            torch.testing.assert_close((block - own).abs(), nearest, atol=1e-6, rtol=1e-4)


def test_zeros_stay_zeros_and_what_is_restored_is_quantised_alike() -> None:
    codes, scales = quantise(torch.zeros(3, 64))
    assert not restore(codes, scales, torch.float32).any()
    codes, scales = quantise(torch.randn(3, 128))
    again = quantise(restore(codes, scales, torch.float32))
    assert torch.equal(again[0], codes)
    assert torch.equal(again[1], scales)


def test_the_error_of_normal_weights_is_the_papers() -> None:
    """About a tenth of their spread, as the QLoRA paper's format has it."""
    weight = torch.randn(256, 1024)
    error = (restore(*quantise(weight), torch.float32) - weight).square().mean().sqrt().item()
    assert 0.08 < error < 0.10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_product_and_its_gradient_are_those_of_the_restored_matrix(dtype: torch.dtype) -> None:
    codes, scales = quantise(torch.randn(24, 64))
    bias = torch.randn(24, dtype=dtype)
    x, twin = (torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1)).to(dtype) for _ in range(2))
    x.requires_grad_()
    twin.requires_grad_()
    mine = nf4_linear(x, codes, scales, bias)
    theirs = F.linear(twin, restore(codes, scales, dtype)) + bias
    assert torch.equal(mine, theirs)
    mine.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, atol=1e-4, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5)

"""Frozen matrices in four bits (QLoRA, arXiv 2305.14314): a quarter of bfloat16's memory, for adapters above.

    weight (out, in)        blocks of 64 along a row
    codes  (out, in / 2)    uint8, two numbers each: even columns in the upper half, odd ones in the lower
    scales (out, in / 64)   bfloat16, the largest magnitude of a block

    number = table[code] * scale        table: 16 values that cut a normal distribution into equal shares

The matrix itself is there only while it is multiplied with, in the forward pass and again in the backward pass.
Codes and scales are plain tensors cut by rows, so they are sharded and moved like any parameter. The paper's
second quantisation, of the scales, is left out: it saves 0.12 bits a number, for one more step each time.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 64


@cache
def table() -> Tensor:
    """The sixteen values, ascending (appendix E of the paper): eight below zero, zero, seven above."""
    end = 0.9677083  # half-way between 29/30 and 31/32, so that the outer values are finite
    upper = torch.special.ndtri(torch.linspace(end, 0.5, 9, dtype=torch.float64)[:-1])
    lower = -torch.special.ndtri(torch.linspace(end, 0.5, 8, dtype=torch.float64)[:-1])
    values = torch.cat((lower, torch.zeros(1, dtype=torch.float64), upper.flip(0)))
    return (values / values.abs().max()).float()


def block_of(columns: int) -> int:
    """Numbers that share a scale: 64, or fewer where a row is no multiple of that."""
    return math.gcd(columns, BLOCK)


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of a matrix (out, in) whose rows have an even length."""
    blocks = weight.float().reshape(len(weight), -1, block_of(weight.shape[1]))
    scales = blocks.abs().amax(dim=2).to(torch.bfloat16)
    scaled = blocks / scales.float().clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    values = table().to(weight.device)
    codes = torch.bucketize(scaled.flatten(1), (values[1:] + values[:-1]) / 2).to(torch.uint8)
    return codes[:, ::2] << 4 | codes[:, 1::2], scales


def restore(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix that codes and scales stand for."""
    values = table().to(codes.device, dtype)
    pairs = torch.stack((codes >> 4, codes & 15), dim=2).flatten(1)
    numbers = values[pairs.int()].reshape(*scales.shape, -1)
    return (numbers * scales.to(dtype)[..., None]).flatten(1)


def nf4_linear(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` with a matrix in four bits, which gets no gradient."""
    out: Tensor = _Linear.apply(x, codes, scales)  # type: ignore[no-untyped-call]
    return out if bias is None else out + bias


class _Linear(torch.autograd.Function):
    """Keeps the codes for the backward pass, and not the matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scales)
        return F.linear(x, restore(codes, scales, x.dtype))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        codes, scales = ctx.saved_tensors
        return upstream[0] @ restore(codes, scales, upstream[0].dtype), None, None

"""Weights in 16, 8 or 4 bits, laid out as the fused decode step reads them.

    a matrix (rows, columns)  ->  blocks of 16 rows x 64 columns, one behind the other along the columns

    8 bits   | 2 x 16 scales (fp16) | column 0 to 3 of 16 rows | 4 to 7 | ... |      64 + 1024 bytes
    4 bits   | 2 x 16 scales (fp16) | 0 to 3 low, 32 to 35 high nibbles | ... |      64 +  512 bytes
    16 bits  | columns 0, 1 of 16 rows | 2, 3 | ... |                                    2048 bytes (bfloat16)

Sixteen rows side by side fill a 512-bit register, so that a product needs no sum across lanes, and one stream of
bytes holds values and scales. A scale belongs to 32 columns of a row (8.5 and 4.5 bits a weight, llama.cpp's Q8_0
and Q4_0): a value is scale * (stored - 128), or scale * (stored - 8). Rows and columns are padded by zeros.

8-bit scales are the group's largest value / 127. Of 4-bit scales several are tried, and the one with the least
square error stays.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Bits = Literal[16, 8, 4]

ROWS, COLUMNS, GROUP = 16, 64, 32
_TRIED = torch.linspace(0.80, 1.06, 14)
"""Shares of the scale at which the group's extreme value is the last step."""
_SLICE = 1 << 24
"""Weights that are worked on at a time."""


def packed_size(rows: int, columns: int, bits: Bits) -> int:
    """Bytes of a packed matrix."""
    blocks = -(-rows // ROWS) * -(-columns // COLUMNS)
    return blocks * (2 * ROWS * COLUMNS if bits == 16 else 64 + ROWS * COLUMNS * bits // 8)


def pack(weight_nk: Tensor, bits: Bits) -> Tensor:
    """A matrix as bytes."""
    step = max(1, _SLICE // weight_nk.shape[1] // ROWS) * ROWS
    return torch.cat([_pack(part, bits) for part in torch.split(weight_nk, step)])


def unpack(data: Tensor, rows: int, columns: int, bits: Bits) -> Tensor:
    """The float32 matrix (rows, columns) that the bytes of `pack` stand for."""
    num_rows, num_columns = -(-rows // ROWS), -(-columns // COLUMNS)
    if bits == 16:
        pairs = data.view(torch.bfloat16).view(num_rows, num_columns, COLUMNS // 2, ROWS, 2)
        dense = pairs.float().permute(0, 3, 1, 2, 4).reshape(num_rows * ROWS, -1)
        return dense[:rows, :columns]
    blocks = data.view(num_rows, num_columns, -1)
    scales = blocks[..., :64].contiguous().view(torch.float16).float().view(num_rows, num_columns, 2, 1, ROWS, 1)
    stored = blocks[..., 64:]
    if bits == 4:
        stored = torch.cat((stored & 15, stored >> 4), dim=-1)
    values = stored.reshape(num_rows, num_columns, 2, GROUP // 4, ROWS, 4).float() - (128 if bits == 8 else 8)
    dense = (values * scales).permute(0, 4, 1, 2, 3, 5).reshape(num_rows * ROWS, -1)
    return dense[:rows, :columns]


def interleave(gate_fd: Tensor, up_fd: Tensor) -> Tensor:
    """Gate and up in turns of 16 rows, so that both are in hand where they are multiplied."""
    parts = [F.pad(x, (0, 0, 0, -x.shape[0] % ROWS)).view(-1, ROWS, x.shape[1]) for x in (gate_fd, up_fd)]
    return torch.stack(parts, dim=1).flatten(0, 2)


def _pack(weight_nk: Tensor, bits: Bits) -> Tensor:
    n, k = weight_nk.shape
    padded = F.pad(weight_nk.float(), (0, -k % COLUMNS, 0, -n % ROWS))
    num_rows, num_columns = padded.shape[0] // ROWS, padded.shape[1] // COLUMNS
    if bits == 16:
        pairs = padded.to(torch.bfloat16).view(num_rows, ROWS, num_columns, COLUMNS // 2, 2)
        return pairs.permute(0, 2, 3, 1, 4).contiguous().view(torch.uint8).flatten()
    groups = padded.view(-1, GROUP)
    scales = _scales8(groups) if bits == 8 else _scales4(groups)
    stored = _stored(groups, scales.float(), bits)
    stored = stored.view(num_rows, ROWS, num_columns, 2, GROUP // 4, 4).permute(0, 2, 3, 4, 1, 5)
    stored = stored.reshape(num_rows, num_columns, -1)
    if bits == 4:
        low, high = stored.chunk(2, dim=-1)
        stored = low | high << 4
    scale_bytes = scales.view(num_rows, ROWS, num_columns, 2).permute(0, 2, 3, 1).contiguous().view(torch.uint8)
    return torch.cat((scale_bytes.view(num_rows, num_columns, 64), stored), dim=-1).flatten()


def _stored(groups: Tensor, scales_n1: Tensor, bits: Bits) -> Tensor:
    inverse = torch.where(scales_n1 == 0, 0.0, 1 / scales_n1)
    # 8 bits stay within +-127: AVX2 forms sums of two products in 16 bits.
    low, high, zero = (-127, 127, 128) if bits == 8 else (-8, 7, 8)
    return ((groups * inverse).round_().clamp_(low, high) + zero).to(torch.uint8)


def _scales8(groups: Tensor) -> Tensor:
    return (groups.abs().amax(-1, keepdim=True) / 127).to(torch.float16)


def _scales4(groups: Tensor) -> Tensor:
    """The scale of each group with the least square error; negative where the extreme value is positive."""
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    best, least = torch.zeros_like(extreme, dtype=torch.float16), torch.full_like(extreme, torch.inf)
    for share in _TRIED.tolist():
        scales = (extreme * share / -8).to(torch.float16)
        rounded = scales.float()
        error = ((_stored(groups, rounded, 4).float() - 8) * rounded - groups).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    return best

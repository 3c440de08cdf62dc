"""Which numbers a machine computes with: bfloat16 where it multiplies them, float32 on processors that do not.

A processor without bfloat16 products makes them of other instructions, one by one. With AVX2 alone, products of
float32 are seven to nine times as fast, and reading a prompt is seven times as fast.
"""

from __future__ import annotations

import os
import platform
from functools import cache

import torch

from midspan.model.config import ModelConfig


@cache
def has_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16 matrices by itself (AVX512-BF16, AMX, Arm's BF16)."""
    if platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def computed_in(dtype: torch.dtype, device: torch.device | str) -> torch.dtype:
    """`dtype`, or float32 in place of bfloat16 on a processor that has no products of it."""
    if dtype == torch.bfloat16 and torch.device(device).type == "cpu" and not has_bfloat16():
        return torch.float32
    return dtype


def held_in(config: ModelConfig, device: torch.device | str) -> torch.dtype:
    """What a model that answers is held in: `computed_in` of bfloat16, if float32 leaves half the memory free."""
    dtype = computed_in(torch.bfloat16, device)
    if dtype == torch.float32 and 4 * config.num_parameters() > _memory() / 2:
        return torch.bfloat16
    return dtype


def _memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 16 * 2**30

"""The machine that trains: the most it could do, and the most memory it took.

MFU, the share of a device's peak that training makes use of, is only as good as the peak. The table has dense
bfloat16 figures from the vendors' data sheets, without sparsity, by the name that torch gives a device. A device
that is not in it has no MFU, which is better than a wrong one; so has a part of a device (MIG). A processor's peak
is measured on the spot, by the same threads that train.
"""

from __future__ import annotations

import functools
import re
import sys
import time

import torch

PEAKS: tuple[tuple[str, float], ...] = (
    (r"A100", 312e12),
    (r"H100 (PCIe|80GB HBM2e)", 756e12),
    (r"H[12]00 NVL", 835e12),
    (r"GH200|H[12]00", 989e12),
    (r"GB200", 2500e12),
    (r"B200", 2250e12),
    (r"MI300X", 1307e12),
)
"""Dense bfloat16 operations a second. The first pattern that fits a name as whole words decides."""

_GEMM, _GEMM_SECONDS = 1024, 0.2


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations a second that a device can do at most; None where nobody can say.

    Args:
        device: what trains.
        dtype: the precision of its products. An accelerator's peak is known in bfloat16 alone.
    """
    if device.type == "cpu":
        return _measured(dtype, torch.get_num_threads())
    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Dense bfloat16 operations a second of an accelerator by its name."""
    if re.search(r"\bMIG\b", name):
        return None
    return next((peak for pattern, peak in PEAKS if re.search(rf"\b({pattern})\b", name)), None)


@functools.lru_cache
def _measured(dtype: torch.dtype, threads: int) -> float:
    """The best of the square products that fit a fifth of a second; the same threads measure once."""
    x = torch.ones((_GEMM, _GEMM), dtype=dtype)
    out = torch.mm(x, x)
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < _GEMM_SECONDS:
        start = time.perf_counter()
        torch.mm(x, x, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * _GEMM**3 / best


def peak_memory(device: torch.device) -> int | None:
    """Bytes taken at most so far: what torch allocated on an accelerator, or the whole process (its peak RSS)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024

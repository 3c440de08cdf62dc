"""Floats to the blocks of ggml's storage types.

F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 are the `gguf` package's work. It reads the K types and cannot
write them; they are fitted here, a super-block of 256 values at a time:

    Q4_K Q5_K   8 groups of 32    x = d s q - m z      q 4 or 5 bits, scale s and minimum z 6 bits, d and m F16
    Q6_K       16 groups of 16    x = d s q            q -32 to 31, scale s int8, d F16

A group's scale is searched: some candidates give integers by rounding, the integers give the scale (and the
minimum) of least squares, and the one with the least error is kept. Errors are weighted towards large values,
which matter most in a product. Then the groups' scales are rounded to multiples of one of the super-block, and
the integers are found once more. Layouts are those of ggml's `block_q4_K`, `block_q5_K` and `block_q6_K`.

Left out: importance matrices, and the types below 4 bits, which are of little use without them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize
from numba import njit

Kind = GGMLQuantizationType
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
_BLOCK = 256


def quantise(values: Floats, kind: Kind) -> npt.NDArray[Any]:
    """The bytes of a tensor in a storage type.

    Args:
        values: float32; the last dimension is a multiple of the type's block.
        kind: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K.
    """
    if kind not in (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K):
        return quantize(values, kind)
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, _BLOCK)
    packed = _q6(blocks) if kind == Kind.Q6_K else _q45(blocks, 15 if kind == Kind.Q4_K else 31)
    return packed.reshape(*values.shape[:-1], values.shape[-1] // _BLOCK * GGML_QUANT_SIZES[kind][1])


@njit(cache=True, nogil=True)
def _affine(x: Any, weights: Any, top: int, q: Any) -> tuple[float, float]:
    """Scale and minimum (not negative) so that scale q - minimum is near x, with q from 0 to `top`."""
    low, high = min(x.min(), 0.0), x.max()
    if high <= low:
        return 0.0, -low
    best_scale, best_low, best_error = (high - low) / top, low, np.inf
    for step in range(-1, 21):  # the first is plain rounding between the extremes
        inverse = (top if step < 0 else top - 1.0 + 0.1 * step) / (high - low)
        sum_w = sum_q = sum_qq = sum_x = sum_xq = 0.0
        for i in range(len(x)):
            q[i] = min(max(round(inverse * (x[i] - low)), 0), top)
            w = weights[i]
            sum_w += w
            sum_q += w * q[i]
            sum_qq += w * q[i] * q[i]
            sum_x += w * x[i]
            sum_xq += w * x[i] * q[i]
        determinant = sum_w * sum_qq - sum_q * sum_q
        if determinant <= 0:
            continue
        scale = (sum_w * sum_xq - sum_x * sum_q) / determinant
        offset = (sum_qq * sum_x - sum_q * sum_xq) / determinant
        if offset > 0:  # a minimum is stored without a sign
            scale, offset = sum_xq / sum_qq, 0.0
        error = 0.0
        for i in range(len(x)):
            error += weights[i] * (scale * q[i] + offset - x[i]) ** 2
        if error < best_error and scale > 0:
            best_scale, best_low, best_error = scale, offset, error
    return best_scale, -best_low


@njit(cache=True, nogil=True)
def _fit_affine(blocks: Any, top: int) -> tuple[Any, Any]:
    """Scales and minima (n, 8) of groups of 32 for super-blocks (n, 256)."""
    scales, minima = np.zeros((len(blocks), 8), np.float32), np.zeros((len(blocks), 8), np.float32)
    for block in range(len(blocks)):
        x = blocks[block].astype(np.float64)
        # The root of the mean square beside each magnitude keeps small values from counting for nothing.
        weights = np.sqrt(2.0 * (x * x).mean()) + np.abs(x)
        q = np.zeros(32)
        for group in range(8):
            part = slice(group * 32, group * 32 + 32)
            scales[block, group], minima[block, group] = _affine(x[part], weights[part], top, q)
    return scales, minima


@njit(cache=True, nogil=True)
def _symmetric(x: Any, q: Any) -> float:
    """A scale of either sign so that scale q is near x, with q from -32 to 31."""
    extreme = x[np.abs(x).argmax()]
    if extreme == 0:
        return 0.0
    best_scale, best_gain = 0.0, -1.0
    for step in range(-9, 10):
        inverse = -(32 + 0.1 * step) / extreme
        sum_qq = sum_xq = 0.0
        for i in range(len(x)):
            q[i] = min(max(round(inverse * x[i]), -32), 31)
            w = x[i] * x[i]
            sum_qq += w * q[i] * q[i]
            sum_xq += w * x[i] * q[i]
        # The error of the best scale is the sum of w x x less this.
        if sum_qq > 0 and sum_xq * sum_xq / sum_qq > best_gain:
            best_scale, best_gain = sum_xq / sum_qq, sum_xq * sum_xq / sum_qq
    return best_scale


@njit(cache=True, nogil=True)
def _fit_symmetric(blocks: Any) -> Any:
    """Scales (n, 16) of groups of 16 for super-blocks (n, 256)."""
    scales = np.zeros((len(blocks), 16), np.float32)
    for block in range(len(blocks)):
        q = np.zeros(16)
        for group in range(16):
            scales[block, group] = _symmetric(blocks[block, group * 16 : group * 16 + 16].astype(np.float64), q)
    return scales


def _in_threads(fit: Callable[[Floats], Floats], blocks: Floats) -> Floats:
    """`fit` (n, 256) -> (fields, n, groups) on shares of the blocks, one a core; the kernels hold no lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as threads:
        return np.concatenate(list(threads.map(fit, np.array_split(blocks, cores))), axis=1)


def _shared(values: Floats, extreme: Floats, low: int, high: int) -> tuple[Floats, Bytes, Floats]:
    """Groups' scales as integers times one number of the super-block.

    Args:
        values: (n, groups).
        extreme: what the integer of most magnitude stands for, divided by it (n, 1).
        low: the least integer, and `high` the greatest.

    Returns:
        The number's F16 bytes (n, 2), the integers (n, groups), and the scales that both give (n, groups, 1).
    """
    half = extreme.astype(np.float16)
    number = half.astype(np.float32)
    integers = np.rint(_quotient(values, number)).clip(low, high)
    return half.view(np.uint8), integers.astype(np.int8).view(np.uint8), (number * integers)[..., None]


def _quotient(values: Floats, divisor: Floats) -> Floats:
    """The quotient, and 0 where the divisor is."""
    return np.divide(values, divisor, out=np.zeros_like(values), where=divisor != 0)


def _q45(blocks: Floats, top: int) -> Bytes:
    """d, m, eight pairs of 6 bits in 12 bytes, then (5 bits) the fifth bits, then nibbles of paired groups."""
    fitted, lowest = _in_threads(lambda part: np.stack(_fit_affine(part, top)), blocks)
    d, scales, scale = _shared(fitted, fitted.max(axis=1, keepdims=True) / 63, 0, 63)
    m, minima, minimum = _shared(lowest, lowest.max(axis=1, keepdims=True) / 63, 0, 63)
    integers = np.rint(_quotient(blocks.reshape(-1, 8, 32) + minimum, scale)).clip(0, top).astype(np.uint8)
    pairs = [
        scales[:, :4] | scales[:, 4:] >> 4 << 6,
        minima[:, :4] | minima[:, 4:] >> 4 << 6,
        scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4,
    ]
    fifth = []
    if top > 15:
        fifth = [np.bitwise_or.reduce(integers >> 4 << np.arange(8, dtype=np.uint8)[:, None], axis=1)]
    paired = integers.reshape(-1, 4, 2, 32) & 15
    nibbles = (paired[:, :, 0] | paired[:, :, 1] << 4).reshape(-1, 128)
    return np.concatenate([d, m, *pairs, *fifth, nibbles], axis=1)


def _q6(blocks: Floats) -> Bytes:
    """Nibbles of both halves of 128 values (64 bytes each), their upper bits (32 each), scales, d."""
    (fitted,) = _in_threads(lambda part: _fit_symmetric(part)[None], blocks)
    extreme = np.take_along_axis(fitted, np.abs(fitted).argmax(axis=1, keepdims=True), axis=1)
    d, scales, scale = _shared(fitted, (extreme / -128).astype(np.float32), -128, 127)
    integers = np.rint(_quotient(blocks.reshape(-1, 16, 16), scale)).clip(-32, 31).astype(np.int8) + 32
    quarters = integers.astype(np.uint8).reshape(-1, 2, 4, 32)
    low = quarters & 15
    nibbles = np.stack([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2)
    upper = np.bitwise_or.reduce(quarters >> 4 << np.arange(0, 8, 2, dtype=np.uint8)[:, None], axis=2)
    return np.concatenate([nibbles.reshape(-1, 128), upper.reshape(-1, 64), scales, d], axis=1)

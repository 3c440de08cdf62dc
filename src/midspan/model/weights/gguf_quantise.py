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

from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize
from numba import njit, prange

Kind = GGMLQuantizationType
_BLOCK = 256


def quantise(values: npt.NDArray[np.float32], kind: Kind) -> npt.NDArray[Any]:
    """The bytes of a tensor in a storage type.

    Args:
        values: float32; the last dimension is a multiple of the type's block.
        kind: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K.
    """
    if kind not in (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K):
        return quantize(values, kind)
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, _BLOCK)
    if kind == Kind.Q6_K:
        packed = _pack_q6(*_fit_symmetric(blocks))
    else:
        top = 15 if kind == Kind.Q4_K else 31
        packed = _pack_q45(*_fit_affine(blocks, top), top)
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


@njit(cache=True, nogil=True, parallel=True)
def _fit_affine(blocks: Any, top: int) -> tuple[Any, Any, Any, Any, Any]:
    """Super-block scales d and m (n), 6-bit scales and minima (n, 8), and integers (n, 256)."""
    n = len(blocks)
    d, m = np.zeros(n, np.float32), np.zeros(n, np.float32)
    scales, minima = np.zeros((n, 8), np.uint8), np.zeros((n, 8), np.uint8)
    integers = np.zeros((n, 256), np.uint8)
    for block in prange(n):
        x = blocks[block].astype(np.float64)
        # The root of the mean square beside each magnitude keeps small values from counting for nothing.
        weights = np.sqrt(2.0 * (x * x).mean()) + np.abs(x)
        fitted, q = np.zeros((2, 8)), np.zeros(32)
        for group in range(8):
            part = slice(group * 32, group * 32 + 32)
            fitted[0, group], fitted[1, group] = _affine(x[part], weights[part], top, q)
        # F16 as the reader will see it: the integers are chosen for that.
        d[block] = np.float32(np.float16(fitted[0].max() / 63))
        m[block] = np.float32(np.float16(fitted[1].max() / 63))
        for group in range(8):
            if d[block] > 0:
                scales[block, group] = min(round(fitted[0, group] / d[block]), 63)
            if m[block] > 0:
                minima[block, group] = min(round(fitted[1, group] / m[block]), 63)
            scale, minimum = d[block] * scales[block, group], m[block] * minima[block, group]
            if scale > 0:
                for i in range(group * 32, group * 32 + 32):
                    integers[block, i] = min(max(round((x[i] + minimum) / scale), 0), top)
    return d, m, scales, minima, integers


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


@njit(cache=True, nogil=True, parallel=True)
def _fit_symmetric(blocks: Any) -> tuple[Any, Any, Any]:
    """Super-block scale d (n), int8 scales (n, 16), and integers from 0 to 63 (n, 256)."""
    n = len(blocks)
    d = np.zeros(n, np.float32)
    scales, integers = np.zeros((n, 16), np.int8), np.full((n, 256), 32, np.uint8)
    for block in prange(n):
        x = blocks[block].astype(np.float64)
        fitted, q = np.zeros(16), np.zeros(16)
        for group in range(16):
            fitted[group] = _symmetric(x[group * 16 : group * 16 + 16], q)
        d[block] = np.float32(np.float16(-fitted[np.abs(fitted).argmax()] / 128))
        if d[block] == 0:
            continue
        for group in range(16):
            scales[block, group] = min(max(round(fitted[group] / d[block]), -128), 127)
            scale = d[block] * scales[block, group]
            if scale != 0:
                for i in range(group * 16, group * 16 + 16):
                    integers[block, i] = min(max(round(x[i] / scale), -32), 31) + 32
    return d, scales, integers


def _halves(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """F16 bytes (n, 2)."""
    return values.astype(np.float16)[:, None].view(np.uint8)


def _pack_q45(
    d: npt.NDArray[np.float32],
    m: npt.NDArray[np.float32],
    scales: npt.NDArray[np.uint8],
    minima: npt.NDArray[np.uint8],
    integers: npt.NDArray[np.uint8],
    top: int,
) -> npt.NDArray[np.uint8]:
    """d, m, eight pairs of 6 bits in 12 bytes, then (5 bits) the fifth bits, then nibbles of paired groups."""
    low = slice(0, 4)
    pairs = [
        scales[:, low] | scales[:, 4:] >> 4 << 6,
        minima[:, low] | minima[:, 4:] >> 4 << 6,
        scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4,
    ]
    groups = integers.reshape(-1, 4, 2, 32)
    nibbles = (groups[:, :, 0] & 15 | groups[:, :, 1] << 4).reshape(-1, 128)
    fifth = []
    if top > 15:
        bits = integers.reshape(-1, 8, 32) >> 4 << np.arange(8, dtype=np.uint8)[:, None]
        fifth = [np.bitwise_or.reduce(bits, axis=1)]
    return np.concatenate([_halves(d), _halves(m), *pairs, *fifth, nibbles], axis=1)


def _pack_q6(
    d: npt.NDArray[np.float32], scales: npt.NDArray[np.int8], integers: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Per half of 128 values: 64 bytes of nibbles, then of both 32 bytes of upper bits; scales; d."""
    quarters = integers.reshape(-1, 2, 4, 32)
    low = quarters & 15
    nibbles = np.stack([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2)
    upper = np.bitwise_or.reduce(quarters >> 4 << np.arange(0, 8, 2, dtype=np.uint8)[:, None], axis=2)
    parts = [nibbles.reshape(-1, 128), upper.reshape(-1, 64), scales.view(np.uint8), _halves(d)]
    return np.concatenate(parts, axis=1)

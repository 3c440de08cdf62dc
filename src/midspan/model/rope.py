"""Rotary position embedding: one function for the frequencies, one for the rotation.

Every way of reaching longer contexts is a change of the inverse frequencies and nothing else: a larger base
(`theta`, the Code Llama paper's choice), `linear` interpolation, Llama 3's piecewise stretch, or YaRN, which
also scales the rotated vectors by a constant. Frequencies, angles, cosines and sines are float32 whatever the
model's precision: with theta 1e6 a bfloat16 angle is wrong by whole turns at a few thousand tokens.

The pairing is Hugging Face's half split (dimension i with i + d/2), so checkpoints need no permutation:

    rotate(x)[i]       = x[i] cos - x[i + d/2] sin
    rotate(x)[i + d/2] = x[i + d/2] cos + x[i] sin
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from midspan.model.config import ModelConfig, RopeScaling


def inverse_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """The d/2 inverse frequencies (float32) and the factor on cos and sin (1 but for YaRN)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies, 1.0
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(frequencies, scaling), 1.0
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return _yarn(frequencies, scaling, config), factor


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between blended."""
    original = float(scaling.original_max_positions or 0)
    turns = original * frequencies / (2 * math.pi)  # full turns over the original context
    share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = share.clamp(0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def _yarn(frequencies: Tensor, scaling: RopeScaling, config: ModelConfig) -> Tensor:
    """YaRN (arXiv 2309.00071): a linear ramp over dimensions between interpolation and the original."""
    dim, original = config.head_dim, float(scaling.original_max_positions or 0)

    def dimension_of(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low = max(math.floor(dimension_of(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension_of(scaling.beta_slow)), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    interpolated = ramp.clamp(0.0, 1.0)
    return interpolated * frequencies / scaling.factor + (1 - interpolated) * frequencies


def cos_sin(positions_bl: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of shape (batch, 1, length, head_dim), float32, for integer positions."""
    frequencies, factor = _on(config, positions_bl.device)
    angles_bld = positions_bl[..., None].float() * frequencies
    angles = torch.cat((angles_bld, angles_bld), dim=-1).unsqueeze(1)
    return angles.cos() * factor, angles.sin() * factor


@lru_cache(16)
def _on(config: ModelConfig, device: torch.device) -> tuple[Tensor, float]:
    """The frequencies where the positions are: copied once, since nothing can be while a graph is captured."""
    frequencies, factor = inverse_frequencies(config)
    return frequencies.to(device), factor


def rotate(x_bhld: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by their positions; `cos` and `sin` are cast to x's precision first."""
    first, second = x_bhld.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x_bhld * cos.to(x_bhld.dtype) + turned * sin.to(x_bhld.dtype)

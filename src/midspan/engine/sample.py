"""How the next token is chosen: greedily, or by temperature and top-p.

The number that decides a sampled token is a pure function of (seed, sequence, position), as in `fim.split`:
what else is in the batch, and in which order sequences run, changes nothing.

Top-p is Code Llama's: of softmax(logits / temperature), tokens fall away whose more probable rivals hold more
than p together, and the others are scaled up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midspan.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How tokens are chosen; the default is greedy."""

    temperature: float = 0.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}; it must be 0 (the most probable token) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must lie above 0 and at most at 1")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed is {self.seed}; it must be a whole number from 0 to 2^64 - 1")


@dataclass(frozen=True)
class Place:
    """Where a token will stand: what its random number is a function of, beside the seed."""

    sequence: int
    """A number that tells sequences apart (64 bits)."""
    copy: int
    """Tells apart sequences of the same number."""
    position: int
    """Tokens before this one."""


def unit(seed: int, place: Place) -> float:
    """A number in [0, 1) with 53 random bits."""
    # Philox advances counter word 0 itself; the others name the place.
    counter = np.array([0, place.position, place.sequence, place.copy], dtype=np.uint64)
    words = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=counter)
    return (int(words.random_raw()) >> 11) * 2.0**-53


def choose(logits_nv: Tensor, config: SampleConfig, places: Sequence[Place]) -> list[int]:
    """One token id for each row of logits (n, vocabulary)."""
    if config.temperature == 0:
        return logits_nv.argmax(-1).tolist()
    p_nv, ids_nv = top_p(logits_nv, config)
    cumulative_nv = p_nv.cumsum(-1)
    units_n = torch.tensor([unit(config.seed, place) for place in places], dtype=p_nv.dtype)
    points_n1 = units_n.to(p_nv.device)[:, None] * cumulative_nv[:, -1:]
    index_n1 = torch.searchsorted(cumulative_nv, points_n1, right=True)
    last_n1 = (p_nv > 0).sum(-1, keepdim=True) - 1  # a product may round up to the whole sum
    return ids_nv.gather(-1, index_n1.minimum(last_n1))[:, 0].tolist()


def top_p(logits_nv: Tensor, config: SampleConfig) -> tuple[Tensor, Tensor]:
    """Probabilities in falling order, 0 for tokens outside top-p, and the ids they belong to."""
    p_nv = torch.softmax(logits_nv.double() / config.temperature, dim=-1)
    p_nv, ids_nv = p_nv.sort(dim=-1, descending=True, stable=True)
    before_nv = p_nv.cumsum(-1) - p_nv
    p_nv = p_nv.masked_fill(before_nv > config.top_p, 0.0)
    return p_nv / p_nv.sum(-1, keepdim=True), ids_nv

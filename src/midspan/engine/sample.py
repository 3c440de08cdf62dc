"""How the next token is chosen: greedily, or by temperature and what cuts off the tail of a distribution.

    logits ── penalties ── bias ── mask ──┬── temperature 0: the largest
                                          └── softmax(/ temperature) ── top-k ── top-p ── min-p ── draw

The number that decides a sampled token is a pure function of (seed, sequence, position), as in `fim.split`:
what else is in the batch, in which order sequences run, and whether tokens were guessed ahead, changes nothing.

Top-p is Code Llama's: of softmax(logits / temperature), tokens fall away whose more probable rivals hold more
than p together, and the others are scaled up to 1. Min-p drops what is less probable than that share of the most
probable token. The repetition penalty is CTRL's (arXiv 1909.05858): logits above 0 of tokens that were seen are
divided by it, those below multiplied; frequency and presence penalties are subtracted, as OpenAI's are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from midspan.errors import InputError

_SORTED_FIRST = 1024
"""Tokens that are put in order before a whole vocabulary is: nearly always enough for top-p."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How tokens are chosen; the default is greedy."""

    temperature: float = 0.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    top_k: int = 0
    """Choose among so many of the most probable tokens; 0 among all."""
    min_p: float = 0.0
    """Least probability of a token, as a share of the most probable one's."""
    repetition_penalty: float = 1.0
    """Above 1: tokens of the prompt and of what is written become less probable."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time that it was written."""
    presence_penalty: float = 0.0
    """Taken from a token's logit once it was written."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these ids; -inf forbids one."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}; it must be 0 (the most probable token) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must lie above 0 and at most at 1")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; it must be 0 (all tokens) or more")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}; it must lie between 0 and 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise InputError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0, and 1 is none")
        for name in ("frequency_penalty", "presence_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between -2 and 2")
        for token_id, bias in self.logit_bias.items():
            if token_id < 0 or math.isnan(bias) or bias == math.inf:
                raise InputError(f"logit_bias has {token_id}: {bias}; ids count from 0 and a bias is a number")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed is {self.seed}; it must be a whole number from 0 to 2^64 - 1")

    @property
    def is_greedy(self) -> bool:
        """Whether the largest logit decides: at 0, and where a quotient would leave the range of float32."""
        return self.temperature < 1e-5

    @property
    def is_plain(self) -> bool:
        """Whether the largest logit as it is decides."""
        return self.is_greedy and not self.logit_bias and not self.penalises

    @property
    def penalises(self) -> bool:
        """Whether what was seen changes the logits."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0


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


def adjusted(logits_v: Tensor, config: SampleConfig, prompt: Sequence[int], written: Sequence[int]) -> Tensor:
    """The logits of one sequence after penalties and bias; the same tensor where there are none."""
    if not (config.penalises or config.logit_bias):
        return logits_v
    logits_v = logits_v.float().clone()
    if config.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt, *written}), device=logits_v.device)
        kept = logits_v[seen]
        factor = config.repetition_penalty
        logits_v[seen] = torch.where(kept > 0, kept / factor, kept * factor)
    if written and (config.frequency_penalty or config.presence_penalty):
        counts = Counter(written)
        ids = torch.tensor(list(counts), device=logits_v.device)
        times = torch.tensor(list(counts.values()), device=logits_v.device, dtype=logits_v.dtype)
        logits_v[ids] -= config.frequency_penalty * times + config.presence_penalty
    for token_id, bias in config.logit_bias.items():
        if token_id < len(logits_v):
            logits_v[token_id] += bias
    return logits_v


def choose(logits_nv: Tensor, config: SampleConfig, places: Sequence[Place]) -> list[int]:
    """One token id for each row of logits (n, vocabulary)."""
    if config.is_greedy:
        return logits_nv.argmax(-1).tolist()
    p_nk, ids_nk = candidates(logits_nv, config)
    cumulative_nk = p_nk.cumsum(-1)
    units_n = torch.tensor([unit(config.seed, place) for place in places], dtype=p_nk.dtype)
    points_n1 = units_n.to(p_nk.device)[:, None] * cumulative_nk[:, -1:]
    index_n1 = torch.searchsorted(cumulative_nk, points_n1, right=True)
    last_n1 = (p_nk > 0).sum(-1, keepdim=True) - 1  # a product may round up to the whole sum
    return ids_nk.gather(-1, index_n1.minimum(last_n1))[:, 0].tolist()


def candidates(logits_nv: Tensor, config: SampleConfig) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn: probabilities in falling order, 0 for those cut off, and their ids.

    As few columns as hold all of them, up to the vocabulary.
    """
    p_nv = torch.softmax(logits_nv.double() / config.temperature, dim=-1)
    size = p_nv.shape[-1]
    width = min(size, config.top_k or (_SORTED_FIRST if config.top_p < 1 or config.min_p > 0 else size))
    while True:
        p_nk, ids_nk = _largest(p_nv, width)
        before_nk = p_nk.cumsum(-1) - p_nk
        kept_nk = before_nk <= config.top_p * _mass(p_nk, config)
        kept_nk &= p_nk >= config.min_p * p_nk[:, :1]
        if width == size or width == config.top_k or not kept_nk[:, -1].any():
            p_nk = p_nk.masked_fill(~kept_nk, 0.0)
            return p_nk / p_nk.sum(-1, keepdim=True), ids_nk
        width = min(size, 8 * width)


def _largest(p_nv: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The largest in falling order; of equal ones the smaller id first, so that ties are no accident."""
    if width == p_nv.shape[-1]:
        return p_nv.sort(dim=-1, descending=True, stable=True)
    least_n1 = p_nv.topk(width, dim=-1).values[:, -1:]
    # topk promises no order among equals: those at its border are taken again, by id.
    above_nv, level_nv = p_nv > least_n1, p_nv == least_n1
    room_n1 = width - above_nv.sum(-1, keepdim=True)
    taken_nv = above_nv | (level_nv & (level_nv.cumsum(-1) <= room_n1))
    ids_nk = taken_nv.nonzero()[:, 1].reshape(len(p_nv), width)
    p_nk, order_nk = p_nv.gather(-1, ids_nk).sort(dim=-1, descending=True, stable=True)
    return p_nk, ids_nk.gather(-1, order_nk)


def _mass(p_nk: Tensor, config: SampleConfig) -> Tensor | float:
    """What top-p is a share of: with top-k, the tokens that it left; else all of them."""
    return p_nk.sum(-1, keepdim=True) if config.top_k else 1.0

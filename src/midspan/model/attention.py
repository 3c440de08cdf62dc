"""Causal attention in its three situations, behind one function.

    training rows    several documents packed in a row; each attends only to itself:
                     segments (0, 5, 9)     d d d d d | e e e e
    a whole prompt   one document, nothing cached
    cached           new tokens of one sequence against what the cache holds of it

No length-squared mask is ever built. Packed documents run one by one through torch's fused causal kernel: exact,
with a backward on every device. On a GPU they run in one launch where torch has a kernel for that (`varlen_attn`,
bfloat16 and float16).
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Segments:
    """Where the documents of a packed row begin and end."""

    bounds: tuple[int, ...]
    """0, the end of each document, ..., the row's length."""

    @cached_property
    def positions(self) -> Tensor:
        """Positions of shape (1, length), starting from 0 in every document."""
        return torch.cat([torch.arange(b - a) for a, b in itertools.pairwise(self.bounds)])[None]

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return max(b - a for a, b in itertools.pairwise(self.bounds))

    def ends(self, device: torch.device) -> Tensor:
        """The bounds as a GPU's kernel wants them, int32; copied to a device once."""
        if device not in self._ends:
            self._ends[device] = torch.tensor(self.bounds, dtype=torch.int32, device=device)
        return self._ends[device]

    @cached_property
    def _ends(self) -> dict[torch.device, Tensor]:
        return {}

    def attend(self, q_bhld: Tensor, k_bkld: Tensor, v_bkld: Tensor) -> Tensor:
        """Causal attention of every document over itself; shapes as for the function `attend`."""
        return attend_packed(q_bhld, k_bkld, v_bkld, self)


def attend(
    q_bhld: Tensor,
    k_bkld: Tensor,
    v_bkld: Tensor,
    *,
    segments: Segments | None = None,
    mask: Tensor | None = None,
    cached: bool = False,
) -> Tensor:
    """Causal attention with grouped key/value heads.

    Args:
        q_bhld: queries (batch, heads, length, head_dim).
        k_bkld: keys (batch, key/value heads, keys, head_dim); heads is a multiple of key/value heads.
        v_bkld: values, as keys.
        segments: packed documents of the one sequence in the batch; keys are then the same tokens.
        mask: booleans (batch, 1, length, keys), True where a query may look; for cached keys only.
        cached: keys may be more than queries; without a mask, every query then sees all of them.

    Returns:
        (batch, heads, length, head_dim).
    """
    groups = q_bhld.shape[1] // k_bkld.shape[1]
    if cached:
        # Heads that share keys stand beside each other as further queries: the cache is read once, not copied.
        q_bkgd = q_bhld.reshape(len(q_bhld), k_bkld.shape[1], -1, q_bhld.shape[-1])
        mask = None if mask is None else mask.repeat(1, 1, groups, 1)
        return F.scaled_dot_product_attention(q_bkgd, k_bkld, v_bkld, attn_mask=mask).reshape(q_bhld.shape)
    if segments is not None:
        return segments.attend(q_bhld, k_bkld, v_bkld)
    if groups > 1:
        k_bkld, v_bkld = (x.repeat_interleave(groups, dim=1) for x in (k_bkld, v_bkld))
    return F.scaled_dot_product_attention(q_bhld, k_bkld, v_bkld, is_causal=True)


def attend_packed(q_bhld: Tensor, k_bkld: Tensor, v_bkld: Tensor, segments: Segments) -> Tensor:
    """Causal attention of every document of the one sequence in the batch over itself; shapes as for `attend`."""
    if (
        q_bhld.is_cuda
        and q_bhld.dtype in (torch.bfloat16, torch.float16)
        and (found := varlen_kernel()) is not None
    ):
        ends, longest = segments.ends(q_bhld.device), segments.longest
        return attend_varlen(*found, q_bhld, k_bkld, v_bkld, ends, longest)
    groups = q_bhld.shape[1] // k_bkld.shape[1]
    if groups > 1:
        k_bkld, v_bkld = (x.repeat_interleave(groups, dim=1) for x in (k_bkld, v_bkld))
    parts = [
        F.scaled_dot_product_attention(q_bhld[:, :, a:b], k_bkld[:, :, a:b], v_bkld[:, :, a:b], is_causal=True)
        for a, b in itertools.pairwise(segments.bounds)
    ]
    return torch.cat(parts, dim=2)


def attend_varlen(
    kernel: Callable[..., Tensor],
    words: frozenset[str],
    q_bhld: Tensor,
    k_bkld: Tensor,
    v_bkld: Tensor,
    ends: Tensor,
    longest: int,
) -> Tensor:
    """`attend_packed` by a kernel of `varlen_attn`'s meaning, in any of the ways that torch has spelled it.

    2.10 says `is_causal`, later ones a window of (-1, 0); 2.12 and later share key/value heads on request.
    `words` are the names of the kernel's parameters, `ends` 0 and where each document ends, int32.
    """
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in words else {"is_causal": True}
    groups = q_bhld.shape[1] // k_bkld.shape[1]
    if groups > 1 and "enable_gqa" in words:
        causal["enable_gqa"] = True
    elif groups > 1:
        k_bkld, v_bkld = (x.repeat_interleave(groups, dim=1) for x in (k_bkld, v_bkld))
    q_lhd, k_lkd, v_lkd = (x[0].transpose(0, 1) for x in (q_bhld, k_bkld, v_bkld))
    return kernel(q_lhd, k_lkd, v_lkd, ends, ends, longest, longest, **causal).transpose(0, 1)[None]


@cache
def varlen_kernel() -> tuple[Callable[..., Tensor], frozenset[str]] | None:
    """Torch's kernel for packed documents with the names of its parameters; None before 2.10.

    Looked for when it is first wanted: its module brings torch's compiler along, a second of every start.
    """
    try:
        kernel = import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError):
        return None
    return kernel, frozenset(inspect.signature(kernel).parameters)


def attend_documents(
    q_hne: Tensor, k_kne: Tensor, v_kne: Tensor, bounds: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Causal attention within each document by torch's fused CPU kernel, which shares key/value heads as they lie.

    Returns:
        (n, heads, head_dim) and log-sum-exp (heads, n) float32.
    """
    heads, length, head_dim = q_hne.shape
    out_nhe, lse_hn = (
        q_hne.new_empty((length, heads, head_dim)),
        q_hne.new_empty((heads, length), dtype=torch.float32),
    )
    for a, b in itertools.pairwise(bounds):
        out_1hle, lse_1hl = _flash(q_hne[None, :, a:b], k_kne[None, :, a:b], v_kne[None, :, a:b], 0.0, True)
        if b - a == length:
            return out_1hle[0].transpose(0, 1).contiguous(), lse_1hl[0].contiguous()
        out_nhe[a:b], lse_hn[:, a:b] = out_1hle[0].transpose(0, 1), lse_1hl[0]
    return out_nhe, lse_hn


def attend_documents_backward(
    q_hne: Tensor,
    k_kne: Tensor,
    v_kne: Tensor,
    out_nhe: Tensor,
    grad_nhe: Tensor,
    lse_hn: Tensor,
    bounds: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (n, heads, head_dim) of queries, and of keys and values as each query head sees them."""
    groups = len(q_hne) // len(k_kne)
    k_hne, v_hne = (x.repeat_interleave(groups, dim=0) for x in (k_kne, v_kne))
    grads = torch.empty_like(grad_nhe), torch.empty_like(grad_nhe), torch.empty_like(grad_nhe)
    for a, b in itertools.pairwise(bounds):
        q, k, v, lse = (x[None, :, a:b] for x in (q_hne, k_hne, v_hne, lse_hn))
        grad, out = (x[a:b].transpose(0, 1)[None] for x in (grad_nhe, out_nhe))
        for whole, part in zip(grads, _flash_backward(grad, q, k, v, out, lse, 0.0, True), strict=True):
            whole[a:b] = part[0].transpose(0, 1)
    return grads


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

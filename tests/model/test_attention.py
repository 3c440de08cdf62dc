"""Packed documents against a dense mask, by torch's loop and by a GPU kernel's interface in all its spellings."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from midspan.model import Segments
from midspan.model.attention import attend, attend_varlen

BOUNDS = (0, 5, 6, 30, 48)


def dense(q_bhld: Tensor, k_bkld: Tensor, v_bkld: Tensor, bounds: tuple[int, ...]) -> Tensor:
    """The definition: a mask of the whole row."""
    document_l = torch.bucketize(torch.arange(bounds[-1]), torch.tensor(bounds[1:]), right=True)
    mask_ll = (document_l[:, None] == document_l[None]).tril()
    groups = q_bhld.shape[1] // k_bkld.shape[1]
    k_bhld, v_bhld = (x.repeat_interleave(groups, dim=1) for x in (k_bkld, v_bkld))
    return F.scaled_dot_product_attention(q_bhld, k_bhld, v_bhld, attn_mask=mask_ll)


def reference(q_lhd: Tensor, k_lkd: Tensor, v_lkd: Tensor, ends: Tensor, longest: int, *, causal: bool) -> Tensor:
    """What a kernel for documents of all lengths means, by a dense mask."""
    assert causal
    assert ends.dtype == torch.int32
    assert longest == int(ends.diff().max())
    rows = (x.transpose(0, 1)[None] for x in (q_lhd, k_lkd, v_lkd))
    return dense(*rows, tuple(ends.tolist()))[0].transpose(0, 1)


def torch_2_10(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):  # type: ignore[no-untyped-def]
    assert q.shape == k.shape
    return reference(q, k, v, cu_seq_q, max_q, causal=is_causal)


def torch_2_11(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):  # type: ignore[no-untyped-def]
    assert q.shape == k.shape
    return reference(q, k, v, cu_seq_q, max_q, causal=window_size == (-1, 0))


def torch_2_12(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False):  # type: ignore[no-untyped-def]
    assert enable_gqa == (q.shape != k.shape)
    return reference(q, k, v, cu_seq_k, max_k, causal=window_size == (-1, 0))


def heads(num_kv_heads: int) -> tuple[Tensor, ...]:
    return torch.randn(1, 4, 48, 16), *(torch.randn(1, num_kv_heads, 48, 16) for _ in range(2))


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_packed_documents_equal_a_dense_mask(num_kv_heads: int) -> None:
    q, k, v = heads(num_kv_heads)
    found = attend(q, k, v, segments=Segments(BOUNDS))
    torch.testing.assert_close(found, dense(q, k, v, BOUNDS))


@pytest.mark.parametrize("num_kv_heads", [1, 4])
@pytest.mark.parametrize("kernel", [torch_2_10, torch_2_11, torch_2_12])
def test_a_kernel_of_any_torch_is_asked_for_the_same(kernel: Callable[..., Tensor], num_kv_heads: int) -> None:
    q, k, v = heads(num_kv_heads)
    ends, longest = torch.tensor(BOUNDS, dtype=torch.int32), Segments(BOUNDS).longest
    found = attend_varlen(kernel, frozenset(inspect.signature(kernel).parameters), q, k, v, ends, longest)
    torch.testing.assert_close(found, dense(q, k, v, BOUNDS))


def test_torchs_own_kernel_is_spelled_in_a_known_way() -> None:
    module = pytest.importorskip("torch.nn.attention.varlen")
    known = inspect.signature(module.varlen_attn).parameters
    assert list(known)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert "window_size" in known or "is_causal" in known

"""The compiled kernels by their tensors: `kernels.cpp` with shapes checked and memory made.

Shape suffixes: n rows (tokens), d hidden size, f feed-forward size, h heads, e head dimensions, v vocabulary.
"""

from __future__ import annotations

import ctypes
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midspan.native import compiled

_NAMES = ("norm", "norm_backward", "swiglu", "swiglu_backward", "rotate", "gather", "softmax_loss")
_DEFINED = {torch.bfloat16: (), torch.float32: ("FLOAT32",)}
BLOCKS = 32  # of rows, whose sums are added in this order whatever the number of threads


@cache
def library(dtype: torch.dtype = torch.bfloat16) -> Any:
    """The compiled kernels for bfloat16 or float32, or None where there is no compiler."""
    found = compiled(Path(__file__).with_name("kernels.cpp"), *_DEFINED[dtype])
    if found is not None:
        for name in _NAMES:
            getattr(found, f"midspan_{name}").restype = None
    return found


def fits(x: Tensor) -> bool:
    """Whether the kernels can read a tensor: a type they know, on a CPU with a compiler, in no compiled graph."""
    if x.dtype not in _DEFINED or x.device.type != "cpu" or type(x) is not Tensor:
        return False
    return not torch.compiler.is_compiling() and library(x.dtype) is not None


@cache
def attention_library() -> Any:
    """The compiled attention, or None where there is no compiler or it does not know this processor."""
    found = compiled(Path(__file__).with_name("attention.cpp"))
    if found is not None:
        found.midspan_attention_scratch.restype = ctypes.c_int64
        found.midspan_attention_backward.restype = None
    return found


def keep_memory() -> bool:
    """For the rest of the process, keep freed tensors' memory for the next ones; a step asks for the same again.

    What the process holds for tensors is the most that they ever were at once. False where `memory.cpp` cannot be
    compiled: memory is then as torch has it.
    """
    found = compiled(Path(__file__).with_name("memory.cpp"), of_torch=True)
    if found is not None:
        found.midspan_keep_memory()
    return found is not None


def _call(name: str, first: Tensor, *arguments: Tensor | int | float | None) -> None:
    _call_in(library(first.dtype), name, first, *arguments)


def _call_in(found: Any, name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel: tensors as their addresses, whole numbers as 64 bits."""
    values = [
        ctypes.c_float(x)
        if isinstance(x, float)
        else ctypes.c_int64(x)
        if isinstance(x, int)
        else ctypes.c_void_p(None if x is None else x.data_ptr())
        for x in arguments
    ]
    getattr(found, f"midspan_{name}")(*values)


def norm(x_nd: Tensor, delta_nd: Tensor | None, weight_d: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of x and delta, that sum normed, and the inverse root mean squares (n) float32."""
    sum_nd = x_nd if delta_nd is None else torch.empty_like(x_nd)
    out_nd, inverse_n = torch.empty_like(x_nd), x_nd.new_empty(len(x_nd), dtype=torch.float32)
    _call("norm", x_nd, delta_nd, weight_d, sum_nd, out_nd, inverse_n, *x_nd.shape, eps)
    return sum_nd, out_nd, inverse_n


def norm_backward(
    grad_nd: Tensor, residual_nd: Tensor | None, sum_nd: Tensor, weight_d: Tensor, inverse_n: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the sum, the residual's own added, and of the weight."""
    out_nd = torch.empty_like(sum_nd)
    partial_bd = sum_nd.new_empty((BLOCKS, sum_nd.shape[1]), dtype=torch.float32)
    _call(
        "norm_backward",
        grad_nd,
        residual_nd,
        sum_nd,
        weight_d,
        inverse_n,
        out_nd,
        partial_bd,
        *sum_nd.shape,
        BLOCKS,
    )
    return out_nd, partial_bd.sum(dim=0).to(weight_d.dtype)


def swiglu(gate_up_nf: Tensor) -> Tensor:
    """silu(gate) * up of rows that hold both, the gate first."""
    rows, inner = len(gate_up_nf), gate_up_nf.shape[1] // 2
    out_nf = gate_up_nf.new_empty((rows, inner))
    _call("swiglu", gate_up_nf, out_nf, rows, inner)
    return out_nf


def swiglu_backward(grad_nf: Tensor, gate_up_nf: Tensor) -> tuple[Tensor, Tensor]:
    """The product once more, and the gradient of gate and up."""
    out_nf, grad_gate_up_nf = torch.empty_like(grad_nf), torch.empty_like(gate_up_nf)
    _call("swiglu_backward", grad_nf, gate_up_nf, out_nf, grad_gate_up_nf, *grad_nf.shape)
    return out_nf, grad_gate_up_nf


def rotate(x_nd: Tensor, cos_ne: Tensor, sin_ne: Tensor, heads: int) -> None:
    """Turn the first `heads` heads of each row in place; cos and sin (n, half a head) float32."""
    _call("rotate", x_nd, cos_ne, sin_ne, len(x_nd), heads, 2 * cos_ne.shape[1], x_nd.shape[1])


def gather(q_nhe: Tensor, k_nhe: Tensor, v_nhe: Tensor, cos_ne: Tensor, sin_ne: Tensor, groups: int) -> Tensor:
    """Gradients of heads as rows of what was projected: turned back, keys and values summed over their groups."""
    rows, heads, head_dim = q_nhe.shape
    out_no = q_nhe.new_empty((rows, (heads + 2 * (heads // groups)) * head_dim))
    _call("gather", q_nhe, k_nhe, v_nhe, out_no, cos_ne, sin_ne, rows, heads, groups, head_dim)
    return out_no


def transposed(x_nd: Tensor) -> Tensor:
    """A bfloat16 matrix turned, in memory too."""
    out_dn = x_nd.new_empty((x_nd.shape[1], len(x_nd)))
    _call("transpose", x_nd, out_dn, *x_nd.shape)
    return out_dn


def attention_backward(
    q_hne: Tensor,
    k_kne: Tensor,
    v_kne: Tensor,
    out_nhe: Tensor,
    grad_nhe: Tensor,
    lse_hn: Tensor,
    bounds: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Gradients (n, h, e) of queries, and of keys and values for each query head; None where it has no kernel."""
    if q_hne.dtype != torch.bfloat16:
        return None
    heads, rows, dim = q_hne.shape
    longest = max(b - a for a, b in itertools.pairwise(bounds))
    found = attention_library()
    scratch = 0 if found is None else found.midspan_attention_scratch(ctypes.c_int64(longest), ctypes.c_int64(dim))
    if not scratch:
        return None
    threads = torch.get_num_threads()
    memory = torch.empty(threads * scratch + 64, dtype=torch.uint8)
    memory = memory[-memory.data_ptr() % 64 :]
    grads = torch.empty_like(grad_nhe), torch.empty_like(grad_nhe), torch.empty_like(grad_nhe)
    strides = torch.tensor([x.stride(i) for x in (q_hne, k_kne, v_kne) for i in (1, 0)])
    ends = torch.tensor(bounds)
    _call_in(
        found,
        "attention_backward",
        *(q_hne, k_kne, v_kne, strides, out_nhe, grad_nhe, lse_hn, ends),
        *(len(bounds) - 1, heads, heads // len(k_kne), dim, rows),
        *(*grads, dim**-0.5, memory, scratch, threads),
    )
    return grads


def softmax_loss(logits_nv: Tensor, targets_n: Tensor, *, want_error: bool) -> Tensor:
    """The loss of each row (n) float32; the logits become softmax - one-hot where that is wanted."""
    losses_n = logits_nv.new_empty(len(logits_nv), dtype=torch.float32)
    _call("softmax_loss", logits_nv, targets_n, losses_n, *logits_nv.shape, int(want_error))
    return losses_n

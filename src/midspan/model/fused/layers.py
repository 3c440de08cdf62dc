"""A block's forward and backward pass in few passes over memory. Everything is a row a token: (n, d).

    x, normed = norm(x)                     kept: x, 1/rms
    q, k, v   = turned(normed W)            kept: normed, q, k, v
    out       = attention                   kept: out, log-sum-exp
    x, normed = norm(x + out W)             kept: x, 1/rms
    x         = x + swiglu(normed W) W      kept: normed, gate and up; their product is made again

Shape suffixes as in `llama.py`, with n for all tokens of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from midspan.model.attention import attend_documents, attend_documents_backward
from midspan.model.fused import kernels
from midspan.model.fused.maps import Maps

if TYPE_CHECKING:
    from midspan.model.llama import Block, Step


class _Norm(torch.autograd.Function):
    """The residual sum, and its norm."""

    @staticmethod
    def forward(
        ctx: Any, x_nd: Tensor, delta_nd: Tensor | None, weight_d: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        sum_nd, out_nd, inverse_n = kernels.norm(x_nd, delta_nd, weight_d, eps)
        ctx.save_for_backward(sum_nd, weight_d, inverse_n)
        return (x_nd.view_as(x_nd) if delta_nd is None else sum_nd), out_nd

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sum_nd, weight_d, inverse_n = ctx.saved_tensors
        residual_nd, grad_nd = (grad.contiguous() for grad in grads)
        grad_sum_nd, grad_weight_d = kernels.norm_backward(grad_nd, residual_nd, sum_nd, weight_d, inverse_n)
        return grad_sum_nd, grad_sum_nd if ctx.needs_input_grad[1] else None, grad_weight_d, None


class _Project(torch.autograd.Function):
    """Maps, and nothing else."""

    @staticmethod
    def forward(ctx: Any, x_nd: Tensor, maps: Maps, *tensors: Tensor | None) -> Tensor:
        ctx.maps = maps
        ctx.save_for_backward(x_nd, *tensors)
        return maps.forward(x_nd, tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x_nd, *tensors = ctx.saved_tensors
        grad_x_nd, rest = ctx.maps.backward(grads[0].contiguous(), x_nd, tensors, ctx.needs_input_grad[2:])
        return grad_x_nd, None, *rest


class _Attention(torch.autograd.Function):
    """Queries, keys and values of each token, turned by its position, and what they find (n, h * e)."""

    @staticmethod
    def forward(
        ctx: Any,
        x_nd: Tensor,
        cos_ne: Tensor,
        sin_ne: Tensor,
        bounds: tuple[int, ...],
        maps: Maps,
        *tensors: Tensor | None,
    ) -> Tensor:
        head_dim = 2 * cos_ne.shape[1]
        q_heads, kv_heads, _ = heads = [size // head_dim for size in maps.sizes]
        qkv_no = maps.forward(x_nd, tensors)
        kernels.rotate(qkv_no, cos_ne, sin_ne, q_heads + kv_heads)
        q_hne, k_kne, v_kne = torch.split(qkv_no.view(len(qkv_no), -1, head_dim).transpose(0, 1), heads)
        out_nhe, lse_hn = attend_documents(q_hne, k_kne, v_kne, bounds)
        ctx.maps, ctx.bounds, ctx.heads = maps, bounds, heads
        ctx.save_for_backward(x_nd, cos_ne, sin_ne, qkv_no, out_nhe, lse_hn, *tensors)
        return out_nhe.flatten(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x_nd, cos_ne, sin_ne, qkv_no, out_nhe, lse_hn, *tensors = ctx.saved_tensors
        q_hne, k_kne, v_kne = qkv_no.view(len(qkv_no), -1, out_nhe.shape[2]).transpose(0, 1).split(ctx.heads)
        grad_nhe = grads[0].contiguous().view_as(out_nhe)
        parts = kernels.attention_backward(q_hne, k_kne, v_kne, out_nhe, grad_nhe, lse_hn, ctx.bounds)
        if parts is None:
            parts = attend_documents_backward(q_hne, k_kne, v_kne, out_nhe, grad_nhe, lse_hn, ctx.bounds)
        grad_no = kernels.gather(*parts, cos_ne, sin_ne, ctx.heads[0] // ctx.heads[1])
        del parts
        grad_x_nd, rest = ctx.maps.backward(grad_no, x_nd, tensors, ctx.needs_input_grad[5:])
        return grad_x_nd, None, None, None, None, *rest


class _SwiGlu(torch.autograd.Function):
    """down(silu(gate x) * up x)."""

    @staticmethod
    def forward(ctx: Any, x_nd: Tensor, gate_up: Maps, down: Maps, *tensors: Tensor | None) -> Tensor:
        split = len(gate_up.tensors)
        gate_up_nf = gate_up.forward(x_nd, tensors[:split])
        ctx.maps = gate_up, down, split
        ctx.save_for_backward(x_nd, gate_up_nf, *tensors)
        return down.forward(kernels.swiglu(gate_up_nf), tensors[split:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        gate_up, down, split = ctx.maps
        x_nd, gate_up_nf, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        grad_nd = grads[0].contiguous()
        # The gradient of the product needs no product, and that of down's matrix does: made once, in one pass.
        grad_nf = down.backward_input(grad_nd, tensors[split:])
        product_nf, grad_gate_up_nf = kernels.swiglu_backward(grad_nf, gate_up_nf)
        rest_down = down.backward_tensors(grad_nd, product_nf, tensors[split:], needed[split:])
        del grad_nf, product_nf
        grad_x_nd, rest = gate_up.backward(grad_gate_up_nf, x_nd, tensors[:split], needed[:split])
        return grad_x_nd, None, None, *rest, *rest_down


def is_fusible(module: nn.Module, x: Tensor) -> bool:
    """Whether a module can run in few passes: on a CPU, plain tensors of one type, nothing hooked in between.

    Tensors that are spread over processes, quantised matrices and graphs being compiled take the plain way.
    """
    if not kernels.fits(x):
        return False
    for child in module.modules():
        if child is not module and (child._forward_hooks or child._forward_pre_hooks):
            return False
        if isinstance(child, nn.Linear) and type(child) is not nn.Linear:  # float8 multiplies otherwise
            return False
    parameters = list(module.named_parameters())
    for name, parameter in parameters:
        dtype = torch.float32 if ".lora_" in name else x.dtype
        if type(parameter) is not nn.Parameter or parameter.dtype != dtype or not parameter.is_contiguous():
            return False
    return bool(parameters)  # none: it stands for a layer that another pipeline stage has


def fused_block(block: Block, x_bld: Tensor, step: Step) -> Tensor:
    """What `Block.forward` computes of whole rows."""
    attention, feed_forward = block.self_attn, block.mlp
    x_nd = x_bld.flatten(0, 1)
    cos_ne, sin_ne = step.turns
    x_nd, normed_nd = _norm(x_nd, None, block.input_layernorm)
    maps = Maps((attention.q_proj, attention.k_proj, attention.v_proj))
    out_no = _Attention.apply(normed_nd, cos_ne, sin_ne, step.bounds, maps, *maps.tensors)  # type: ignore[no-untyped-call]
    maps = Maps((attention.o_proj,))
    delta_nd: Tensor = _Project.apply(out_no, maps, *maps.tensors)  # type: ignore[no-untyped-call]
    x_nd, normed_nd = _norm(x_nd, delta_nd, block.post_attention_layernorm)
    gate_up, down = Maps((feed_forward.gate_proj, feed_forward.up_proj)), Maps((feed_forward.down_proj,))
    grown_nd: Tensor = _SwiGlu.apply(normed_nd, gate_up, down, *gate_up.tensors, *down.tensors)  # type: ignore[no-untyped-call]
    return (x_nd + grown_nd).view_as(x_bld)


def fused_norm(x_bld: Tensor, norm: nn.RMSNorm) -> Tensor:
    """The norm alone."""
    return _norm(x_bld.flatten(0, 1), None, norm)[1].view_as(x_bld)


def _norm(x_nd: Tensor, delta_nd: Tensor | None, norm: nn.RMSNorm) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = _Norm.apply(x_nd, delta_nd, norm.weight, norm.eps)  # type: ignore[no-untyped-call]
    return found

"""Cross-entropy over chosen positions, without ever holding all logits.

A sum, not a mean: whoever accumulates over rows, steps and ranks divides once by the global number of targets.
The logits of a 49,152-piece vocabulary at 4,096 positions are 800 MB in float32, so positions are taken in chunks:

    chunk of hidden states ── logits ── loss
                                 └── softmax - one-hot ── gradients of the hidden states and of the head

The gradients are made where the logits are at hand, in the forward pass, and only scaled in the backward pass:
that is one product with the vocabulary's matrix less than computing each chunk's logits again. A matrix that is
frozen gets none, nor does its share of the work get done; rows that train in place of frozen ones get theirs.
On a CPU, loss and error are one compiled pass over the logits, where there is a compiler.

Not torch's `F.linear_cross_entropy`: unless it is given options it holds all logits, three times, and with them it
took 2.5 to 4 times as long on two cores.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midspan.model.fused import kernels
from midspan.model.lora import RowsHead

CHUNK = 1024
"""Positions whose bfloat16 logits are held at once; half as many in float32."""
_BLOCK = 32
"""Positions whose loss plain torch makes at once on a CPU, in buffers that stay near the core."""
_STEP = 64
"""On a CPU positions are filled up to a multiple of this with rows of zeros: oneDNN makes kernels for each number
of rows that it meets and keeps them, some megabytes each, so that a run of many numbers only grows."""


class _SummedLoss(torch.autograd.Function):
    """Summed cross-entropy of a head given by its matrix, and optionally by rows that stand in for some of its."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        weight_vd: Tensor,
        rows_rd: Tensor | None,
        row_ids_r: Tensor | None,
        targets_n: Tensor,
    ) -> Tensor:
        grad_hidden = torch.empty_like(hidden_nd) if ctx.needs_input_grad[0] else None
        grad_weight: Tensor | None = None
        grad_rows = torch.zeros_like(rows_rd) if rows_rd is not None and ctx.needs_input_grad[2] else None
        total = hidden_nd.new_zeros((), dtype=torch.float32)
        step = _STEP if hidden_nd.device.type == "cpu" else 1
        chunk = _filled(min(CHUNK * 2 // hidden_nd.element_size(), len(targets_n)), step)
        memory_cv = hidden_nd.new_empty((chunk, len(weight_vd)))
        for start in range(0, len(targets_n), chunk):
            hidden_cd, targets_c = hidden_nd[start : start + chunk], targets_n[start : start + chunk]
            taken, size = len(targets_c), _filled(len(targets_c), step)
            if size > taken:
                hidden_cd = F.pad(hidden_cd, (0, 0, 0, size - taken))
            logits_cv = torch.mm(hidden_cd, weight_vd.t(), out=memory_cv[:size])
            if rows_rd is not None and row_ids_r is not None:
                own_rd = rows_rd.to(hidden_cd.dtype)
                logits_cv.index_copy_(1, row_ids_r, F.linear(hidden_cd, own_rd))
            total += _loss_and_error(logits_cv[:taken], targets_c, want_error=any(ctx.needs_input_grad))
            if not any(ctx.needs_input_grad):
                continue
            error_cv = logits_cv
            error_cv[taken:] = 0.0
            if rows_rd is not None and row_ids_r is not None:
                error_cr = error_cv.index_select(1, row_ids_r)
                error_cv.index_fill_(1, row_ids_r, 0.0)
            if grad_hidden is not None:
                grad_hidden[start : start + taken] = (error_cv @ weight_vd)[:taken]
                if rows_rd is not None and row_ids_r is not None:
                    grad_hidden[start : start + taken] += (error_cr @ own_rd)[:taken]
            if ctx.needs_input_grad[1]:
                if grad_weight is None:  # of several parts, the sum is float32
                    grad_weight = error_cv.T @ hidden_cd
                    grad_weight = grad_weight.float() if chunk < len(targets_n) else grad_weight
                elif grad_weight.dtype == error_cv.dtype:
                    grad_weight.addmm_(error_cv.T, hidden_cd)
                else:
                    grad_weight += error_cv.T @ hidden_cd
            if grad_rows is not None:
                grad_rows += error_cr.T @ hidden_cd
        ctx.save_for_backward(
            grad_hidden, None if grad_weight is None else grad_weight.to(weight_vd.dtype), grad_rows
        )
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        found = (None if grad is None else grad * upstream[0].to(grad.dtype) for grad in ctx.saved_tensors)
        hidden, weight, rows = found
        return hidden, weight, rows, None, None


def _filled(number: int, step: int) -> int:
    """A number, up to the next multiple of `step`."""
    return -(-number // step) * step


def _loss_and_error(logits_cv: Tensor, targets_c: Tensor, *, want_error: bool) -> Tensor:
    """The summed loss; the logits become softmax - one-hot where that is wanted."""
    if kernels.fits(logits_cv):
        return kernels.softmax_loss(logits_cv, targets_c, want_error=want_error).sum()
    if passes_over_filling(logits_cv.device):
        from midspan.model.fused.on_gpu import softmax_loss

        return softmax_loss(logits_cv, targets_c, want_error=want_error).sum()
    block = _BLOCK if logits_cv.device.type == "cpu" else len(logits_cv)
    loss = logits_cv.new_zeros((), dtype=torch.float32)
    for logits_bv, targets_b in zip(torch.split(logits_cv, block), torch.split(targets_c, block), strict=True):
        targets_b1 = targets_b[:, None]
        log_probs_bv = F.log_softmax(logits_bv, dim=1, dtype=torch.float32)
        loss -= log_probs_bv.gather(1, targets_b1).sum()
        if want_error:
            error_bv = log_probs_bv.exp_()
            error_bv.scatter_add_(1, targets_b1, error_bv.new_full((len(targets_b1), 1), -1.0))
            logits_bv.copy_(error_bv)
    return loss


def cross_entropy_sum(hidden_nd: Tensor, head: nn.Linear | RowsHead, targets_n: Tensor) -> Tensor:
    """The summed loss in nats of `targets_n` given final hidden states.

    Args:
        hidden_nd: hidden states at the positions to train (n, hidden size).
        head: the output head, a plain matrix or one some of whose rows train.
        targets_n: the ids that follow (n); those below 0 are left out.

    Returns:
        A scalar, float32; 0 for no positions.
    """
    if not passes_over_filling(targets_n.device) and (filling_n := targets_n < 0).any():
        hidden_nd, targets_n = hidden_nd[~filling_n], targets_n[~filling_n]
    if len(targets_n) == 0:
        return hidden_nd.float().sum() * 0.0  # keeps the graph: a backward pass is still possible
    if isinstance(head, RowsHead):
        weight, rows, row_ids = head.table.frozen, head.table.rows, head.table.token_ids
    else:
        weight, rows, row_ids = head.weight, None, None
    loss: Tensor = _SummedLoss.apply(hidden_nd, weight, rows, row_ids, targets_n)  # type: ignore[no-untyped-call]
    return loss


def passes_over_filling(device: torch.device) -> bool:
    """Whether targets below 0 are known by the kernel itself, and no processor waits to look for them."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


@torch.no_grad()
def token_losses(hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> Tensor:
    """The loss in nats of each target (n), float32, for evaluation."""
    parts = [
        F.cross_entropy(head(hidden_nd[i : i + CHUNK]).float(), targets_n[i : i + CHUNK], reduction="none")
        for i in range(0, len(targets_n), CHUNK)
    ]
    return torch.cat(parts) if parts else hidden_nd.new_zeros(0, dtype=torch.float32)

"""Loss and error of logits on a GPU, read twice and written once; in Triton, which torch brings along there.

As four operations of torch, a chunk's float32 probabilities alone are written and read three times.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


def softmax_loss(logits_cv: Tensor, targets_c: Tensor, *, want_error: bool) -> Tensor:
    """The loss of each row (c), float32, 0 where the target is below 0.

    With `want_error` the logits become softmax - one-hot, and 0 in rows whose target is below 0.
    """
    loss_c = torch.empty(len(targets_c), dtype=torch.float32, device=logits_cv.device)
    _softmax_loss[(len(targets_c),)](
        logits_cv, logits_cv.stride(0), targets_c, loss_c, logits_cv.shape[1], want_error, _BLOCK, num_warps=8
    )
    return loss_c


@triton.jit
def _softmax_loss(
    logits, stride, targets, losses, count: tl.constexpr, want_error: tl.constexpr, block: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    own = logits + row * stride
    target = tl.load(targets + row)
    counted = target >= 0
    # Before the first loop, whose reductions make all threads wait: the second writes over it.
    of_target = tl.load(own + tl.maximum(target, 0)).to(tl.float32)
    highest = float("-inf")
    total = 0.0
    for start in range(0, count, block):
        at = start + tl.arange(0, block)
        x = tl.load(own + at, mask=at < count, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(x, 0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher), 0)
        highest = higher
    log_sum = highest + tl.log(total)
    tl.store(losses + row, tl.where(counted, log_sum - of_target, 0.0))
    if want_error:
        for start in range(0, count, block):
            at = start + tl.arange(0, block)
            x = tl.load(own + at, mask=at < count, other=float("-inf")).to(tl.float32)
            error = tl.exp(x - log_sum) - tl.where(at == target, 1.0, 0.0)
            error = tl.where(counted, error, 0.0)
            tl.store(own + at, error.to(logits.dtype.element_ty), mask=at < count)

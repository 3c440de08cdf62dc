"""Heads, feed-forward and vocabulary in parts: which matrix is cut how, and the loss over a vocabulary in parts.

    x ─ norm ─┬─ q k v (rows cut) ─ attention of own heads ─ o (columns cut) ─┐ summed
              └─ gate up (rows cut) ──────────────────────── down (columns cut)┘

Between those parts every rank holds all tokens, or with `sequence` its share of them: what is summed at the end of
a part is then handed out by tokens, and gathered where the next begins.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn import functional as F

from midspan.model import Llama
from midspan.model.loss import CHUNK


def share_tensors(model: Llama, mesh: DeviceMesh, *, sequence: bool) -> None:
    """Cut a model's parameters along the tensor axis; stages without embedding or head have none to cut."""
    between = Shard(1) if sequence else Replicate()
    gather = {"input_layouts": (between, None, None), "desired_input_layouts": (Replicate(), None, None)}
    layer_plan: dict[str, ParallelStyle] = {
        "self_attn": PrepareModuleInput(**gather),  # type: ignore[arg-type]
        "self_attn.q_proj": ColwiseParallel(),
        "self_attn.k_proj": ColwiseParallel(),
        "self_attn.v_proj": ColwiseParallel(),
        "self_attn.o_proj": RowwiseParallel(output_layouts=between),
        "mlp": PrepareModuleInput(input_layouts=(between,), desired_input_layouts=(Replicate(),)),
        "mlp.gate_proj": ColwiseParallel(),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.down_proj": RowwiseParallel(output_layouts=between),
    }
    if sequence:
        layer_plan |= {name: SequenceParallel() for name in ("input_layernorm", "post_attention_layernorm")}
    for layer in model.model.layers:
        if any(True for _ in layer.parameters()):
            parallelize_module(layer, mesh, layer_plan)
    decoder = model.model
    if isinstance(decoder.embed_tokens, nn.Embedding):
        parallelize_module(
            decoder.embed_tokens, mesh, RowwiseParallel(input_layouts=Replicate(), output_layouts=between)
        )
    if isinstance(model.lm_head, nn.Linear):
        parallelize_module(model.lm_head, mesh, ColwiseParallel())
        if sequence:
            parallelize_module(decoder.norm, mesh, SequenceParallel())
            parallelize_module(
                decoder, mesh, PrepareModuleOutput(output_layouts=Shard(1), desired_output_layouts=Replicate())
            )
        if model.config.tied and isinstance(decoder.embed_tokens, nn.Embedding):
            model.lm_head.weight = decoder.embed_tokens.weight


class VocabularyLoss:
    """Summed cross-entropy where each rank of a group holds rows of the head."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group

    def __call__(self, hidden_nd: Tensor, head: nn.Module, targets_n: Tensor) -> Tensor:
        weight = cast(DTensor, head.weight)
        rank, world = dist.get_rank(self.group), dist.get_world_size(self.group)
        first = min(rank * -(-weight.shape[0] // world), weight.shape[0])  # as Shard(0) cuts it
        loss: Tensor = _Summed.apply(hidden_nd, weight.to_local(), targets_n, first, self.group)  # type: ignore[no-untyped-call]
        return loss


class _Summed(torch.autograd.Function):
    """As `model.loss` does it in chunks, with the maximum and the sum of exponentials taken over all ranks."""

    @staticmethod
    def forward(
        ctx: Any, hidden_nd: Tensor, weight_vd: Tensor, targets_n: Tensor, first: int, group: dist.ProcessGroup
    ) -> Tensor:
        grad_hidden = torch.empty_like(hidden_nd)
        grad_weight = torch.zeros_like(weight_vd, dtype=torch.float32)
        total = hidden_nd.new_zeros((), dtype=torch.float32)
        for start in range(0, len(targets_n), CHUNK):
            hidden_cd, local_c = hidden_nd[start : start + CHUNK], targets_n[start : start + CHUNK] - first
            mine_c = (local_c >= 0) & (local_c < len(weight_vd))
            logits_cv = F.linear(hidden_cd, weight_vd).float()
            top_c = logits_cv.new_full((len(local_c),), -torch.inf)
            if len(weight_vd):
                top_c = logits_cv.amax(dim=1)
            dist.all_reduce(top_c, dist.ReduceOp.MAX, group)
            own = torch.where(mine_c)[0]
            sums_2c = logits_cv.new_zeros(2, len(local_c))  # exponentials, and the target's logit
            sums_2c[1, own] = logits_cv[own, local_c[own]] - top_c[own]
            error_cv = logits_cv.sub_(top_c[:, None]).exp_()
            sums_2c[0] = error_cv.sum(dim=1)
            dist.all_reduce(sums_2c, group=group)
            total += (sums_2c[0].log() - sums_2c[1]).sum()
            error_cv.div_(sums_2c[0, :, None])
            error_cv[own, local_c[own]] -= 1.0
            error_cv = error_cv.to(hidden_cd.dtype)
            grad_hidden[start : start + CHUNK] = error_cv @ weight_vd
            grad_weight += error_cv.T @ hidden_cd
        dist.all_reduce(grad_hidden, group=group)
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight_vd.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * upstream[0].to(grad_hidden.dtype), grad_weight * upstream[0], None, None, None

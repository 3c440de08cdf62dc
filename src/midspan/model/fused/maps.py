"""Linear maps of one input side by side: one matrix product forward, one for each gradient.

    query | key | value      (n, d) x (d, 3 outputs)
    gate  | up               their matrices are joined where they are used: a copy of a megabyte beside a product
                             of gigaflops, and parameters keep their own names and places

Adapters go along: their A matrices are joined as well, their B matrices stand on the diagonal of one.
Written as plain functions with their gradients, since `layers.py` decides what is kept between the two passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midspan.model.fused import kernels

PER_MAP = 4  # weight, bias, and an adapter's A and B; None where there is none


class Maps:
    """The shape of some maps. Their tensors travel beside it, as autograd wants to see them."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.scales: list[float] = [getattr(module, "scale", 0.0) for module in modules]
        self.tensors: list[Tensor | None] = []
        for module in modules:
            for name in ("weight", "bias", "lora_A", "lora_B"):
                self.tensors.append(getattr(module, name, None))
        self.sizes = [len(weight) for weight in self.tensors[::PER_MAP] if weight is not None]

    def forward(self, x_nd: Tensor, tensors: Sequence[Tensor | None]) -> Tensor:
        """All outputs of each row, in order (n, sum of sizes)."""
        biases = [x for x in tensors[1::PER_MAP] if x is not None]
        y_no = F.linear(x_nd, _joined(tensors[::PER_MAP]), torch.cat(biases) if biases else None)
        a_rd, b_or = self._adapters(tensors, x_nd.dtype)
        if a_rd is not None and b_or is not None:
            y_no.addmm_(F.linear(x_nd, a_rd), b_or.t())
        return y_no

    def backward(
        self, grad_no: Tensor, x_nd: Tensor, tensors: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Gradients of the input, and of the tensors that need one."""
        return self.backward_input(grad_no, tensors), self.backward_tensors(grad_no, x_nd, tensors, needed)

    def backward_input(self, grad_no: Tensor, tensors: Sequence[Tensor | None]) -> Tensor:
        """The gradient of the input (n, d)."""
        grad_nd = grad_no @ _joined(tensors[::PER_MAP])
        a_rd, b_or = self._adapters(tensors, grad_no.dtype)
        if a_rd is not None and b_or is not None:
            grad_nd.addmm_(grad_no @ b_or, a_rd)
        return grad_nd

    def backward_tensors(
        self, grad_no: Tensor, x_nd: Tensor, tensors: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of the tensors that need one."""
        grads: list[Tensor | None] = [None] * len(tensors)
        if any(needed[::PER_MAP]):
            grads[::PER_MAP] = torch.split(weight_gradient(grad_no, x_nd), self.sizes)
        if any(needed[1::PER_MAP]):
            sums = iter(torch.split(grad_no.sum(dim=0, dtype=torch.float32).to(x_nd.dtype), self.sizes))
            grads[1::PER_MAP] = [None if bias is None else next(sums) for bias in tensors[1::PER_MAP]]
        a_rd, b_or = self._adapters(tensors, x_nd.dtype)
        if a_rd is not None and b_or is not None:
            grad_a_rd = weight_gradient(grad_no @ b_or, x_nd)
            grad_b_or = weight_gradient(grad_no, F.linear(x_nd, a_rd))
            for index, (rows, columns) in enumerate(self._places(tensors)):
                if columns.stop > columns.start:
                    grads[index * PER_MAP + 2] = grad_a_rd[columns].float()
                    grads[index * PER_MAP + 3] = grad_b_or[rows, columns].float() * self.scales[index]
        return [grad if need else None for grad, need in zip(grads, needed, strict=True)]

    def _adapters(
        self, tensors: Sequence[Tensor | None], dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor | None]:
        """The A matrices joined (ranks, d), and the B matrices on a diagonal (outputs, ranks), scaled."""
        found = [a for a in tensors[2::PER_MAP] if a is not None]
        if not found:
            return None, None
        a_rd = torch.cat(found).to(dtype)
        b_or = a_rd.new_zeros((sum(self.sizes), len(a_rd)))
        for (rows, columns), b, scale in zip(self._places(tensors), tensors[3::PER_MAP], self.scales, strict=True):
            if b is not None:
                b_or[rows, columns] = (b * scale).to(dtype)
        return a_rd, b_or

    def _places(self, tensors: Sequence[Tensor | None]) -> list[tuple[slice, slice]]:
        """Each map's rows and columns on that diagonal."""
        places, row, column = [], 0, 0
        for size, a in zip(self.sizes, tensors[2::PER_MAP], strict=True):
            rank = 0 if a is None else len(a)
            places.append((slice(row, row + size), slice(column, column + rank)))
            row, column = row + size, column + rank
        return places


def weight_gradient(grad_no: Tensor, x_nd: Tensor) -> Tensor:
    """grad^T x (o, d). Torch turns bfloat16 slowly for a product, so the narrower operand comes turned."""
    if grad_no.dtype != torch.bfloat16:
        return grad_no.t() @ x_nd
    if x_nd.shape[1] < grad_no.shape[1]:
        return kernels.transposed(kernels.transposed(x_nd) @ grad_no)
    return kernels.transposed(grad_no) @ x_nd


def _joined(weights: Sequence[Tensor | None]) -> Tensor:
    found = [weight for weight in weights if weight is not None]
    return found[0] if len(found) == 1 else torch.cat(found)

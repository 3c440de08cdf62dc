"""Low-rank adapters (arXiv 2106.09685), and rows of the embedding that train beside them.

    y = W x + (alpha / r) B (A x)          W frozen, A (r, in) random, B (out, r) zero at the start

Adapters alone cannot teach a model a token that it never had: its embedding row is what must change. So the
rows of chosen ids (the sentinels) train as well, in place of the frozen ones. With a tied head the same rows
are also what the model emits, as in PEFT's `trainable_token_indices`.

Adapted modules keep Hugging Face's names: `q_proj.weight` stays where it was, `q_proj.lora_A.weight` and
`q_proj.lora_B.weight` stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midspan.errors import InputError
from midspan.model.llama import Llama

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoRALinear(nn.Module):
    """A frozen linear map and its low-rank correction."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        device = base.weight.device
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, device=device)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False, device=device)
        with torch.no_grad():
            bound = math.sqrt(3.0) * math.sqrt(1.0 / (3.0 * base.in_features))  # PEFT's: Kaiming, a = sqrt(5)
            draw = torch.rand(self.lora_A.weight.shape, generator=generator) * 2 - 1
            self.lora_A.weight.copy_(draw * bound)
            self.lora_B.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.lora_A.weight.to(x.dtype))
        return (
            F.linear(x, self.weight, self.bias) + F.linear(low, self.lora_B.weight.to(x.dtype)) * self.scale
        )


class RowsEmbedding(nn.Module):
    """A frozen embedding some of whose rows train."""

    def __init__(self, base: nn.Embedding, token_ids: Sequence[int]) -> None:
        super().__init__()
        self.weight = base.weight
        self.register_buffer("token_ids", torch.tensor(token_ids), persistent=False)
        self.rows = nn.Parameter(base.weight.detach()[list(token_ids)].float().clone())
        self.token_ids: Tensor

    def merged_weight(self) -> Tensor:
        """The whole matrix with the trained rows in place (vocabulary, hidden size)."""
        return self.weight.index_copy(0, self.token_ids, self.rows.to(self.weight.dtype))

    def forward(self, ids_bl: Tensor) -> Tensor:
        return F.embedding(ids_bl, self.merged_weight())


class RowsHead(nn.Module):
    """The output head that goes with a RowsEmbedding when both are one matrix."""

    def __init__(self, embedding: RowsEmbedding) -> None:
        super().__init__()
        self._embedding = [embedding]  # in a list, so that its parameters are not registered twice

    @property
    def weight(self) -> Tensor:
        """The head's matrix (vocabulary, hidden size)."""
        return self._embedding[0].merged_weight()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

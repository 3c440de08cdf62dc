"""Low-rank adapters (arXiv 2106.09685), and rows of the vocabulary that train beside them.

    y = W x + (alpha / r) B (A x)          W frozen, A (r, in) random, B (out, r) zero at the start

Adapters alone cannot teach a model a token that it never had: its embedding row is what must change. So the
rows of chosen ids (the sentinels) train as well, in place of the frozen ones. With a tied head the same rows
are also what the model emits. Only those rows get gradients: the frozen matrix takes no part in the backward
pass, in the embedding or in the head.

Files are PEFT's: `adapter_model.safetensors` and `adapter_config.json`, the rows as its
`trainable_token_indices`. On a base without the sentinels, `resize_token_embeddings` comes first, as with any
adapter that brings tokens. A third file, `positions.json`, says the rotary base, scaling and number of positions
that it was trained with; Midspan sets them when it reads the adapter, other software is to be told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midspan.errors import InputError
from midspan.model.llama import Llama
from midspan.model.nf4 import block_of, nf4_linear, quantise, restore

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Size and place of the adapters."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS
    """Projections that get an adapter, in every layer."""
    quantise: str = "none"
    """Of the frozen matrices that have an adapter: `none`, or `nf4` (QLoRA), four bits a number."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank is {self.rank}; it must be at least 1")
        if self.quantise not in ("none", "nf4"):
            raise InputError(f"lora.quantise is {self.quantise!r}; the choices are none, nf4")
        for target in self.targets:
            if target not in TARGETS:
                raise InputError(f"lora.targets has {target!r}; the projections are {', '.join(TARGETS)}")


class LoraLinear(nn.Module):
    """A frozen linear map and its low-rank correction, which is float32 and cast where it is used."""

    def __init__(self, base: nn.Linear, config: LoraConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.scale = config.alpha / config.rank
        # On the meta device there is no model yet, but adapters have their start.
        device = torch.device("cpu") if base.weight.is_meta else base.weight.device
        bound = base.in_features**-0.5  # PEFT's start: Kaiming uniform with a = sqrt(5)
        draw = torch.rand((config.rank, base.in_features), generator=generator) * 2 - 1
        self.lora_A = nn.Parameter((draw * bound).to(device))
        self.lora_B = nn.Parameter(torch.zeros((base.out_features, config.rank), device=device))

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.lora_A.to(x.dtype))
        return self.frozen(x) + F.linear(low, (self.lora_B * self.scale).to(x.dtype))

    def frozen(self, x: Tensor) -> Tensor:
        """The map without its correction."""
        return F.linear(x, self.weight, self.bias)

    def frozen_weight(self) -> Tensor:
        """Its matrix (out, in), float32."""
        return self.weight.float()

    def merged(self) -> Tensor:
        """The one matrix that does the same (out, in), float32."""
        return self.frozen_weight() + self.scale * (self.lora_B @ self.lora_A)


class QuantisedLoraLinear(LoraLinear):
    """The same over a frozen matrix in four bits (see `nf4`)."""

    def __init__(self, base: nn.Linear, config: LoraConfig, generator: torch.Generator) -> None:
        super().__init__(base, config, generator)
        del self.weight
        codes, scales = self.parts_of(base.weight.detach())
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)

    @staticmethod
    def parts_of(weight: Tensor) -> tuple[Tensor, Tensor]:
        """The two parameters that stand for a matrix; of one without storage, theirs have none."""
        if not weight.is_meta:
            return quantise(weight)
        rows, columns = weight.shape
        codes = torch.empty((rows, columns // 2), dtype=torch.uint8, device="meta")
        return codes, torch.empty((rows, columns // block_of(columns)), dtype=torch.bfloat16, device="meta")

    def frozen(self, x: Tensor) -> Tensor:
        return nf4_linear(x, self.codes, self.scales, self.bias)

    def frozen_weight(self) -> Tensor:
        return restore(self.codes, self.scales, torch.float32)


class TrainedRows(nn.Module):
    """A frozen matrix over the vocabulary (vocabulary, hidden size), some of whose rows train in float32."""

    token_ids: Tensor
    row_of: Tensor

    def __init__(self, weight: Tensor, token_ids: Sequence[int]) -> None:
        super().__init__()
        self.frozen = weight
        self.rows = nn.Parameter(weight.detach()[list(token_ids)].float().clone())
        # Not of the meta device: they are known before there is a model.
        device = torch.device("cpu") if weight.is_meta else weight.device
        self.register_buffer("token_ids", torch.tensor(token_ids, device=device), persistent=False)
        self.register_buffer("row_of", torch.full((len(weight),), -1, device=device), persistent=False)
        self.row_of[self.token_ids] = torch.arange(len(token_ids), device=device)

    def merged(self) -> Tensor:
        """The whole matrix with the trained rows in place, float32."""
        return self.frozen.float().index_copy(0, self.token_ids, self.rows)


class RowsEmbedding(nn.Module):
    """An embedding some of whose rows train."""

    def __init__(self, table: TrainedRows) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids_bl: Tensor) -> Tensor:
        frozen_bld = F.embedding(ids_bl, self.table.frozen)
        row_bl = self.table.row_of[ids_bl]
        # A product with zeros and ones, not an index: thousands of tokens fall on a handful of rows, and a GPU
        # would sum their gradients one after the other.
        which_blr = row_bl[..., None] == torch.arange(len(self.table.rows), device=row_bl.device)
        trained_bld = which_blr.to(frozen_bld.dtype) @ self.table.rows.to(frozen_bld.dtype)
        return torch.where((row_bl >= 0)[..., None], trained_bld, frozen_bld)


class RowsHead(nn.Module):
    """An output head some of whose rows train."""

    def __init__(self, table: TrainedRows) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: Tensor) -> Tensor:
        logits = F.linear(x, self.table.frozen)
        return logits.index_copy(-1, self.table.token_ids, F.linear(x, self.table.rows.to(x.dtype)))


def add_lora(model: Llama, config: LoraConfig, token_ids: Sequence[int], *, seed: int) -> None:
    """Freeze a model and put trainable adapters, and trainable rows for `token_ids`, into it.

    The model's function is unchanged until training changes them.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    kind = LoraLinear if config.quantise == "none" else QuantisedLoraLinear
    for layer in model.model.layers:
        for parent in (layer.get_submodule("self_attn"), layer.get_submodule("mlp")):
            for name, child in list(parent.named_children()):
                if name in config.targets:
                    setattr(parent, name, kind(cast(nn.Linear, child), config, generator))
    train_rows(model, token_ids)


def train_rows(model: Llama, token_ids: Sequence[int]) -> None:
    """Freeze a model's matrices over the vocabulary but for the rows of `token_ids`."""
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.requires_grad_(False)
    head.requires_grad_(False)
    if token_ids:
        table = TrainedRows(embedding, token_ids)
        head_table = table if model.config.tied else TrainedRows(head, token_ids)
        model.model.embed_tokens = RowsEmbedding(table)  # type: ignore[assignment]
        model.lm_head = RowsHead(head_table)  # type: ignore[assignment]


def merged_state(model: Llama) -> dict[str, Tensor]:
    """The tensors of the plain model that computes the same, by Hugging Face's names; a tied head is absent."""
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            state[f"{name}.weight"] = module.merged().detach()
            if module.bias is not None:
                state[f"{name}.bias"] = module.bias.detach()
        elif isinstance(module, RowsEmbedding | RowsHead):
            state[f"{name}.weight"] = module.table.merged().detach()
        elif isinstance(module, nn.Linear | nn.Embedding | nn.RMSNorm):
            state |= {f"{name}.{key}": tensor.detach() for key, tensor in module.named_parameters()}
    if model.config.tied:
        state.pop("lm_head.weight")
    return state


def save_adapter(model: Llama, config: LoraConfig, folder: Path, *, base: str) -> None:
    """Write a model's adapters and trained rows as PEFT reads them.

    Args:
        folder: an existing folder.
        base: what `base_model_name_or_path` names.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    tables: dict[str, TrainedRows] = {}
    for name, module in model.named_modules():
        prefix = f"base_model.model.{name}"
        if isinstance(module, LoraLinear):
            tensors[f"{prefix}.lora_A.weight"] = module.lora_A.detach().contiguous()
            tensors[f"{prefix}.lora_B.weight"] = module.lora_B.detach().contiguous()
        elif isinstance(module, RowsEmbedding) or (isinstance(module, RowsHead) and not model.config.tied):
            # PEFT calls this a delta, but it holds the rows themselves.
            tensors[f"{prefix}.token_adapter.trainable_tokens_delta"] = module.table.rows.detach().clone()
            tables[name.rpartition(".")[2]] = module.table
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    indices: object = {name: table.token_ids.tolist() for name, table in tables.items()} or None
    if len(tables) == 1:
        indices = next(iter(tables.values())).token_ids.tolist()
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(config.targets),
        "trainable_token_indices": indices,
        "inference_mode": True,
    }
    at = model.config
    positions = {
        "rope_theta": at.rope_theta,
        "max_positions": at.max_positions,
        "rope_scaling": asdict(at.rope_scaling) if at.rope_scaling else None,
    }
    for name, values in (("adapter_config.json", settings), ("positions.json", positions)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

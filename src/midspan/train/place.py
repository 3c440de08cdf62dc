"""Weights into a model whose parameters are parts, and out of it again.

    base files ── one whole tensor at a time, mapped into memory ── this rank's part of it ── parameter

A model far larger than a process is built on the meta device, laid out, and only then filled: a rank keeps of
each tensor what is its own, and of a memory-mapped safetensors file no more than that is read.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Replicate

from midspan.model import Llama
from midspan.model.lora import QuantisedLoraLinear, RowsEmbedding, RowsHead
from midspan.model.weights.assemble import checked, parameter_shapes
from midspan.train.base import Base
from midspan.train.ranks import Ranks

_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


def set_precision(model: nn.Module, *, frozen: torch.dtype, trained: torch.dtype) -> None:
    """Give the parameters of a model on the meta device their types."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(trained if parameter.requires_grad else frozen)


@torch.no_grad()
def fill(root: nn.Module, model: Llama, base: Base, device: torch.device) -> None:
    """Give a laid-out model storage on a device and the base's weights; what has storage keeps its values.

    Args:
        root: what was laid out around the model.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape.
    """
    waiting = {name for name, parameter in _named(model).items() if parameter.is_meta}
    _give_storage(root, device)
    root.to(device)  # FSDP looks at its parameters again
    parameters = _named(model)
    for name, tensor in checked(parameter_shapes(base.config), base.tensors, base.where):
        for target, part in _targets(model, name, tensor):
            if target in waiting:
                _put(parameters[target], part)


def _named(model: Llama) -> dict[str, nn.Parameter]:
    """Parameters by name, a tied head by the embedding's also on a stage that has no embedding."""
    tied = model.config.tied
    return {n.replace("lm_head.", "model.embed_tokens.") if tied else n: p for n, p in model.named_parameters()}


def _targets(model: Llama, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The parameters that a tensor of the base fills: its namesake, or those that stand for it."""
    owner, _, leaf = name.rpartition(".")
    modules = dict(model.named_modules())
    ends = (model.model.embed_tokens, model.lm_head) if model.config.tied else (modules.get(owner),)
    tables = [end.table for end in ends if isinstance(end, RowsEmbedding | RowsHead)]
    module = modules.get(owner)
    if name in _VOCABULARY and tables:
        yield f"{owner}.table.frozen", tensor
        yield f"{owner}.table.rows", tensor[tables[0].token_ids.cpu()].float()
    elif isinstance(module, QuantisedLoraLinear) and leaf == "weight":
        codes, scales = QuantisedLoraLinear.parts_of(tensor)
        yield f"{owner}.codes", codes
        yield f"{owner}.scales", scales
    else:
        yield name, tensor


def _give_storage(root: nn.Module, device: torch.device) -> None:
    """Exchange each parameter on the meta device, in all places that share it, for an empty one."""
    made: dict[int, nn.Parameter] = {}
    for module in root.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                if id(parameter) not in made:
                    empty = torch.empty_like(parameter, device=device)
                    made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                setattr(module, name, made[id(parameter)])


def _put(parameter: Tensor, whole: Tensor) -> None:
    if isinstance(parameter, DTensor):
        parameter.to_local().copy_(own_part(whole, parameter))
    else:
        parameter.copy_(whole)


def own_part(whole: Tensor, like: DTensor) -> Tensor:
    """What of a whole tensor this rank holds, where `like` is cut by the innermost axis first, as FSDP does."""
    mesh = like.device_mesh
    coordinate = mesh.get_coordinate()
    assert coordinate is not None
    for axis in reversed(range(mesh.ndim)):
        placement = like.placements[axis]
        if not placement.is_replicate():
            dim: int = placement.dim  # type: ignore[attr-defined]
            parts = whole.chunk(mesh.size(axis), dim=dim)
            place = coordinate[axis]
            whole = parts[place] if place < len(parts) else whole.narrow(dim, 0, 0)
    return whole


def _whole(tensor: Tensor) -> Tensor:
    """All of a tensor in parts, gathered axis by axis: FSDP's parts are parts of the inner axis's."""
    if not isinstance(tensor, DTensor):
        return tensor
    placements = list(tensor.placements)
    for axis in range(len(placements)):
        placements[axis] = Replicate()
        tensor = tensor.redistribute(placements=placements)
    return tensor.to_local()


@torch.no_grad()
def gather(model: Llama, whole: Llama, ranks: Ranks, *, stages: int) -> Llama | None:
    """A laid-out model's weights in one that is not, on rank 0's host; None on the others. All ranks must call it.

    Args:
        whole: a model of the same parameters on the meta device; it is filled and given back.
        stages: of the pipeline; the first rank of each sends what it has.
    """
    own = _named(model)
    for name, blank in list(whole.named_parameters()):
        parameter = own.get(name)
        tensor: Tensor | None = None
        if parameter is not None:
            tensor = _whole(parameter.detach()).to("cpu", blank.dtype)
        holder = 0
        if stages > 1:
            holder = ranks.everyone(parameter is not None).index(True)
            if holder and ranks.rank in (0, holder):
                tensor = torch.empty(blank.shape, dtype=blank.dtype) if ranks.is_first else tensor
                assert tensor is not None
                if ranks.is_first:
                    dist.recv(tensor, src=holder)
                else:
                    dist.send(tensor.contiguous(), dst=0)
        if ranks.is_first:
            assert tensor is not None
            filled = nn.Parameter(tensor, requires_grad=blank.requires_grad)
            for owner in whole.modules():
                for leaf, found in list(owner.named_parameters(recurse=False)):
                    if found is blank:  # a tied head's is found twice
                        setattr(owner, leaf, filled)
    return whole if ranks.is_first else None

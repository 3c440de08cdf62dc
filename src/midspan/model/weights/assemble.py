"""Tensors into a module, one at a time, with every disagreement named.

The module is built on torch's `meta` device, where it takes no memory, and each tensor is cast and assigned
as it arrives: the peak is the model and one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from midspan.errors import InputError
from midspan.model.config import ModelConfig
from midspan.model.llama import Llama


class _NoInitialValues(TorchFunctionMode):
    """Without storage they have no effect, and torch imports its compiler to find that out: 2.7 seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def empty(config: ModelConfig) -> Llama:
    """A Llama without storage."""
    with torch.device("meta"), _NoInitialValues():
        return Llama(config)


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter's name and shape; a tied head is not among them."""
    return _shapes(empty(config))


def _shapes(model: Llama) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def assemble(
    config: ModelConfig,
    tensors: Iterable[tuple[str, Tensor]],
    where: str,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Llama:
    """A Llama that holds `tensors`, named as in Hugging Face checkpoints.

    Args:
        config: the shape; with `tied` no `lm_head.weight` is expected.
        tensors: (name, tensor) of any float dtype, each name once.
        where: the file or folder that errors name.
        dtype: what parameters are cast to.
        device: where parameters live.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape.
    """
    model = empty(config)
    for name, tensor in checked(_shapes(model), tensors, where):
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.to(device=device, dtype=dtype)))
    if config.tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def checked(
    shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, Tensor]], where: str
) -> Iterator[tuple[str, Tensor]]:
    """The same tensors as they come; InputError where one is unexpected, misshapen or in the end missing."""
    waiting = dict(shapes)
    for name, tensor in tensors:
        if name not in waiting:
            raise InputError(f"{where} holds the tensor {name}, which its configuration has no place for")
        shape = waiting.pop(name)
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"{where}: tensor {name} has shape {tuple(tensor.shape)}, the configuration asks for {shape}"
            )
        yield name, tensor
    if waiting:
        more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        raise InputError(f"{where} lacks the tensor {next(iter(waiting))}{more}; get the checkpoint again")


def to_half_split(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder a query or key projection from interleaved rotary pairs to Hugging Face's halves.

    Meta and llama.cpp rotate dimensions (2i, 2i + 1) of a head, Hugging Face (i, i + d/2).

        weight: (heads * head_dim, in) or, for a bias, (heads * head_dim,)

    A weight that has not as many rows is given back as it is: `assemble` names its shape.
    """
    if weight.shape[0] % (2 * num_heads):
        return weight
    pairs = weight.reshape(num_heads, -1, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def to_interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """The way back from `to_half_split`: Hugging Face's halves to the pairs of Meta and llama.cpp.

    weight: (heads * head_dim, in) or, for a bias, (heads * head_dim,)
    """
    halves = weight.reshape(num_heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)

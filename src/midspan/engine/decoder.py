"""Who reads new tokens against a cache: torch, or the fused step where one can be compiled.

    Decoder.step(cache, [Span(slot 0, ids), Span(slot 3, ids), ...]) -> the logits behind each span

`torch` runs the model as it is, on any device. `fused` (see `fused/`) holds the weights in 16, 8 or 4 bits beside
it and is for CPUs and few tokens at a time. Long prompts are the model's own work in either case: both write one
cache.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from midspan.errors import InputError, WorkError
from midspan.model import KVCache, Llama
from midspan.model.quant import Bits

DecoderKind = Literal["auto", "torch", "fused"]


@dataclass(frozen=True, slots=True)
class Span:
    """New tokens of one sequence: they follow what its slot of the cache holds."""

    slot: int
    ids: Sequence[int]


class Decoder(Protocol):
    """Appends tokens to sequences."""

    few: int
    """Tokens of one sequence that are read here faster than by `Llama.hidden`."""

    def step(self, cache: KVCache, spans: Sequence[Span], *, only_last: bool = True) -> Tensor:
        """Logits (rows, vocabulary) of the last token of every span, or of all tokens."""


class TorchDecoder:
    """The model itself."""

    few = 1

    def __init__(self, model: Llama) -> None:
        self.model = model

    def step(self, cache: KVCache, spans: Sequence[Span], *, only_last: bool = True) -> Tensor:
        """Spans of one token in slots that follow each other run together, others in turns."""
        slots = [span.slot for span in spans]
        together = slots == list(range(slots[0], slots[0] + len(slots))) and {len(s.ids) for s in spans} == {1}
        groups = [list(spans)] if together else [[span] for span in spans]
        hidden = []
        for group in groups:
            ids_nl = torch.tensor([list(span.ids) for span in group], device=cache.memory.device)
            where = slice(group[0].slot, group[0].slot + len(group))
            hidden_nld = self.model.hidden(ids_nl, cache=cache, slots=where)
            hidden.append((hidden_nld[:, -1:] if only_last else hidden_nld).flatten(0, 1))
        return self.model.lm_head(torch.cat(hidden))


def open_decoder(model: Llama, kind: DecoderKind, bits: Bits, path: Path | None = None) -> Decoder:
    """The decoder for a model; `path` is its checkpoint, so that packed weights can be kept for the next time.

    `auto` takes the fused step where the model is on the CPU and a compiler is there, and torch otherwise.

    Raises:
        InputError: `fused` for a model that is not on the CPU.
        WorkError: `fused` without a compiler.
    """
    weight = model.model.norm.weight
    fits = weight.device.type == "cpu" and weight.dtype in (torch.bfloat16, torch.float32)
    if kind == "fused" and not fits:
        raise InputError(
            f"the fused decoder runs bfloat16 and float32 models on the CPU, and this one is {weight.dtype} on "
            f"{weight.device}; use --decoder torch"
        )
    if kind == "torch" or not fits:
        return TorchDecoder(model)
    from midspan.engine.fused import FusedDecoder, packed_weights

    try:
        return FusedDecoder(model.config, packed_weights(model, bits, path), bits=bits)
    except WorkError as error:
        if kind == "fused":
            raise
        warnings.warn(f"{error}; torch decodes meanwhile, more slowly", stacklevel=2)
        return TorchDecoder(model)

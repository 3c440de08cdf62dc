"""Which kernel reads new tokens beside torch: the fused step, where one can be compiled, or none.

`fused` (see `fused/`) holds the weights in 16, 8 or 4 bits beside the model and is for CPUs. What it does not read
is the model's own work; both write one cache.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch

from midspan.engine.deferred import Deferred
from midspan.engine.runner import FewTokens
from midspan.errors import InputError, WorkError
from midspan.model import Llama
from midspan.model.quant import Bits
from midspan.model.weights.peft import Adapter

DecoderKind = Literal["auto", "torch", "fused"]


def open_decoder(
    model: Llama | Deferred, kind: DecoderKind, bits: Bits, path: Path | None = None
) -> FewTokens | None:
    """The kernel for a model; None leaves it all to torch.

    `auto` takes the fused step where the model is on the CPU and a compiler is there, and torch otherwise.

    Args:
        model: read only if its packed weights are not kept.
        path: the model's checkpoint, so that packed weights can be kept for the next time.

    Raises:
        InputError: `fused` for a model that is not on the CPU.
        WorkError: `fused` without a compiler.
    """
    source = Deferred.of(model)
    fits = source.device.type == "cpu" and source.dtype in (torch.bfloat16, torch.float32)
    if kind == "fused" and not fits:
        raise InputError(
            f"the fused decoder runs bfloat16 and float32 models on the CPU, and this one is {source.dtype} on "
            f"{source.device}; use --decoder torch"
        )
    if kind == "torch" or not fits:
        return None
    from midspan.engine.fused import FusedDecoder, packed_weights

    try:
        return FusedDecoder(source.config, packed_weights(source, bits, path), bits=bits)
    except WorkError as error:
        if kind == "fused":
            raise
        warnings.warn(f"{error}; torch decodes meanwhile, more slowly", stacklevel=2)
        return None


def adapt_decoder(kernel: FewTokens | None, adapter: Adapter) -> FewTokens | None:
    """The kernel with an adapter added, over the same weights; None leaves it all to torch.

    Raises:
        InputError: the adapter is of another base.
    """
    from midspan.engine.fused import FusedDecoder

    return kernel.adapted(adapter) if isinstance(kernel, FusedDecoder) else None

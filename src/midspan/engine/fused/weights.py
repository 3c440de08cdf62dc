"""A model's tensors in the shapes that the fused step reads, made once and kept.

    <cache>/packed/<name>-<hash of the checkpoint's path>-<bits>bit/
        index.json      where each tensor begins, and which files it was made from
        weights.bin     the tensors, one behind the other

A checkpoint whose files have changed since is packed anew, over the old. Where nothing can be kept (a full or
read-only disk) the tensors live in memory, and so do those of models that are packed in a moment. The models used
last stay, the others go.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midspan.cache import cache_dir
from midspan.errors import InputError
from midspan.files import atomic_folder
from midspan.model import Llama, ModelConfig
from midspan.model.quant import Bits, interleave, pack

LAYOUT = 1
"""Counts changes of the layout in `model/quant.py` and here."""
_ALIGNED = 64
_HUGE = 2 << 20
_SMALL = 20_000_000
"""Parameters of a model that is packed faster than it is worth keeping."""
_STAY = 4
"""Packed models that are kept."""


def packed_weights(model: Llama, bits: Bits, path: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a model, from the cache where its checkpoint at `path` was packed before."""
    if path is None or model.config.num_parameters() < _SMALL:
        return dict(pack_model(model.state_dict(), model.config, bits))
    folder, identity = _place(path, bits), _identity(path)
    kept = _kept(folder, identity)
    if kept is not None:
        with suppress(OSError):
            os.utime(folder / "index.json")
        return kept
    tensors = pack_model(model.state_dict(), model.config, bits)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder, replace=True) as aside:
            _write(aside, tensors, identity)
        _prune(folder.parent)
    except (OSError, InputError):
        return dict(pack_model(model.state_dict(), model.config, bits))
    return _kept(folder, identity) or dict(pack_model(model.state_dict(), model.config, bits))


def in_huge_pages(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that every step reads whole, copied to memory of 2 MiB pages: a third more tokens a second.

    Mapped files have pages of 4 KiB, and a step that walks through all weights waits for their addresses. The
    embedding, of which a step reads a row, stays where it is.
    """
    sizes = {name: x.numel() * x.element_size() for name, x in tensors.items() if name != "embedding"}
    total = sum(-(-size // _ALIGNED) * _ALIGNED for size in sizes.values()) + _HUGE
    memory = mmap.mmap(-1, total, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    region = torch.frombuffer(memory, dtype=torch.uint8)
    offset = -region.data_ptr() % _HUGE
    found = dict(tensors)
    for name, size in sizes.items():
        source = tensors[name]
        place = region[offset : offset + size]
        place.copy_(source.contiguous().view(-1).view(torch.uint8))
        found[name] = place.view(source.dtype).view(source.shape)
        offset += -(-size // _ALIGNED) * _ALIGNED
    return found


def pack_model(state: Mapping[str, Tensor], config: ModelConfig, bits: Bits) -> Iterator[tuple[str, Tensor]]:
    """Names and packed tensors of a model's state dict, one at a time."""

    def weight(name: str) -> Tensor:
        return state[f"{name}.weight"]

    yield "embedding", weight("model.embed_tokens").to(torch.bfloat16).contiguous()
    yield "norm", weight("model.norm").float().contiguous()
    yield "head", pack(weight("lm_head"), bits)
    for index in range(config.num_layers):
        layer = f"model.layers.{index}"
        attention, feed = f"{layer}.self_attn", f"{layer}.mlp"
        projections = [f"{attention}.{name}_proj" for name in "qkv"]
        yield f"{index}.qkv", pack(torch.cat([weight(name) for name in projections]), bits)
        yield f"{index}.out", pack(weight(f"{attention}.o_proj"), bits)
        yield f"{index}.gate_up", pack(interleave(weight(f"{feed}.gate_proj"), weight(f"{feed}.up_proj")), bits)
        yield f"{index}.down", pack(weight(f"{feed}.down_proj"), bits)
        yield f"{index}.norm1", weight(f"{layer}.input_layernorm").float().contiguous()
        yield f"{index}.norm2", weight(f"{layer}.post_attention_layernorm").float().contiguous()
        if config.qkv_bias:
            yield f"{index}.qkv_bias", torch.cat([state[f"{name}.bias"] for name in projections]).float()
        if config.out_bias:
            yield f"{index}.out_bias", state[f"{attention}.o_proj.bias"].float().contiguous()


def _place(path: Path, bits: Bits) -> Path:
    where = path.resolve()
    name = where.parent.name if where.name == "model" else where.stem
    return cache_dir() / "packed" / f"{name}-{hashlib.sha256(str(where).encode()).hexdigest()[:12]}-{bits}bit"


def _identity(path: Path) -> dict[str, Any]:
    """What a checkpoint's packed weights were made from: names, sizes and times of its files."""
    files = [path] if path.is_file() else sorted(x for x in path.iterdir() if x.is_file())
    stats = [(file.name, file.stat()) for file in files]
    return {"layout": LAYOUT, "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


def _write(folder: Path, tensors: Iterator[tuple[str, Tensor]], identity: dict[str, Any]) -> None:
    index: dict[str, Any] = {}
    with (folder / "weights.bin").open("wb") as file:
        for name, tensor in tensors:
            file.write(bytes(-file.tell() % _ALIGNED))
            index[name] = [file.tell(), list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            file.write(tensor.view(torch.uint8).numpy().tobytes())
    (folder / "index.json").write_text(json.dumps({"made_from": identity, "tensors": index}))


def _prune(root: Path) -> None:
    """Remove the models that were not used for longest."""
    used = sorted(((index.stat().st_mtime, index.parent) for index in root.glob("*/index.json")), reverse=True)
    for _, folder in used[_STAY:]:
        shutil.rmtree(folder, ignore_errors=True)


def _kept(folder: Path, identity: dict[str, Any]) -> dict[str, Tensor] | None:
    """The tensors in a folder, mapped into memory; None where there are none of these files."""
    try:
        index = json.loads((folder / "index.json").read_text())
        if index["made_from"] != identity:
            return None
        data = torch.from_numpy(np.memmap(folder / "weights.bin", dtype=np.uint8, mode="c"))
    except (OSError, ValueError, KeyError):
        return None
    tensors = {}
    for name, (offset, shape, kind) in index["tensors"].items():
        dtype = getattr(torch, kind)
        size = int(np.prod(shape)) * dtype.itemsize
        tensors[name] = data[offset : offset + size].view(dtype).view(shape)
    return tensors

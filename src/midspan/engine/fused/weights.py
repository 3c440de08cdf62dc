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
from torch.nn import functional as F

from midspan.cache import cache_dir
from midspan.engine.deferred import Deferred
from midspan.errors import InputError
from midspan.files import atomic_folder
from midspan.model import Llama, ModelConfig
from midspan.model.quant import COLUMNS, ROWS, Bits, interleave, pack, packed_size, unpack
from midspan.model.weights.assemble import parameter_shapes
from midspan.model.weights.hf import EMBEDDING, HEAD
from midspan.model.weights.peft import Adapter

LAYOUT = 1
"""Counts changes of the layout in `model/quant.py` and here."""
_TOGETHER = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Products of the step, and the projections that each holds."""
_ALIGNED = 64
_HUGE = 2 << 20
_SMALL = 20_000_000
"""Parameters of a model that is packed faster than it is worth keeping."""
_STAY = 4
"""Packed models that are kept."""


def packed_weights(model: Llama | Deferred, bits: Bits, path: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a model, from the cache where its checkpoint at `path` was packed before."""
    source = Deferred.of(model)

    def packed() -> Iterator[tuple[str, Tensor]]:
        return pack_model(source.model.state_dict(), source.config, bits)

    if path is None or source.config.num_parameters() < _SMALL:
        return dict(packed())
    folder, identity = _place(path, bits), _identity(path)
    kept = _kept(folder, identity)
    if kept is not None:
        with suppress(OSError):
            os.utime(folder / "index.json")
        return kept
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder, replace=True) as aside:
            _write(aside, packed(), identity)
        _prune(folder.parent)
    except (OSError, InputError):
        return dict(packed())
    return _kept(folder, identity) or dict(packed())


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


def pack_adapter(
    adapter: Adapter, config: ModelConfig, base: Mapping[str, Tensor], bits: Bits
) -> dict[str, Tensor]:
    """An adapter's tensors in the shapes that the fused step adds to its base's, 16 bits.

        3.qkv.down   A of the projections that stand together, one below the other: (ranks, columns)
        3.qkv.up     their B, each beside the others' zeros, in the order of the base's rows: (rows, ranks)
        rows.*       rows of the vocabulary: their ids, each id's row, and what they are in embedding and head

    Args:
        config, base, bits: of the base, and its packed tensors.

    Raises:
        InputError: the adapter is of another base.
    """
    left = adapter.modules
    found = _rows_of_vocabulary(adapter, config, base, bits)
    shapes = parameter_shapes(config)
    for index in range(config.num_layers):
        layer = f"model.layers.{index}"
        for product, names in _TOGETHER.items():
            modules = [f"{layer}.{name}" for name in names]
            corrected = [name for name in modules if name in left]
            left -= {*modules}
            if not corrected:
                continue
            parts = {name: adapter.low_rank(name, *shapes[f"{name}.weight"]) for name in corrected}
            rank = sum(len(a) for a, _ in parts.values())
            wide, place = [], 0
            for name in modules:
                up = torch.zeros(shapes[f"{name}.weight"][0], rank + -rank % COLUMNS)
                if name in parts:
                    up_nr = adapter.scale * parts[name][1]
                    up[:, place : place + up_nr.shape[1]] = up_nr
                    place += up_nr.shape[1]
                wide.append(up)
            down_rk = F.pad(torch.cat([a for a, _ in parts.values()]), (0, 0, 0, -rank % COLUMNS))
            found[f"{index}.{product}.down"] = pack(down_rk, 16)
            found[f"{index}.{product}.up"] = pack(
                interleave(*wide) if product == "gate_up" else torch.cat(wide), 16
            )
    if left:
        raise InputError(f"the adapter {adapter.folder} is for another base: this one has no {min(left)}")
    return found


def _rows_of_vocabulary(
    adapter: Adapter, config: ModelConfig, base: Mapping[str, Tensor], bits: Bits
) -> dict[str, Tensor]:
    given = {name: dict(zip(ids, rows.float(), strict=True)) for name, (ids, rows) in adapter.rows.items()}
    of_embedding = given.get(EMBEDDING, {})
    of_head = of_embedding if config.tied else given.get(HEAD, {})
    new = range(config.vocab_size, adapter.config.vocab_size)
    ids = sorted({*of_embedding, *of_head, *new})
    if not ids:
        return {}
    size = packed_size(ROWS, config.hidden_size, bits)

    def known(kind: str, index: int) -> Tensor:
        """The base's row, which is what counts where the other matrix alone has one of the adapter's."""
        if index in new:
            return torch.zeros(config.hidden_size)
        if kind == "embedding":
            return base[kind][index].float()
        block = base[kind][index // ROWS * size :][:size]
        return unpack(block, ROWS, config.hidden_size, bits)[index % ROWS]

    row_of = torch.full((adapter.config.vocab_size,), -1, dtype=torch.int32)
    row_of[ids] = torch.arange(len(ids), dtype=torch.int32)
    embedding = torch.stack([of_embedding[i] if i in of_embedding else known("embedding", i) for i in ids])
    head = torch.stack([of_head[i] if i in of_head else known("head", i) for i in ids])
    return {
        "rows.ids": torch.tensor(ids, dtype=torch.int32),
        "rows.row_of": row_of,
        "rows.embedding": embedding.to(torch.bfloat16),
        "rows.head": pack(head, 16),
    }


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

"""A checkpoint in one format → the same model in another.

To GGUF the tensors stream, one in memory at a time. To `hf` and `meta`, whose files cut the model across, it is
held whole in the type that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from midspan.cache import resolve_model
from midspan.errors import InputError
from midspan.model.weights import detect, open_model, read_config, tensor_types, tokenizer_path
from midspan.model.weights.assemble import checked, parameter_shapes
from midspan.model.weights.gguf_write import TYPES, write_gguf
from midspan.model.weights.hf import write_hf
from midspan.model.weights.meta_write import write_meta
from midspan.tokenizer import Tokenizer

FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
FORMATS = ("hf", "gguf", "meta")

Progress = Callable[[int, int], None]
"""Called with the values that are done and the values in all."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written."""

    source: str
    path: str
    format: str
    bytes: int
    stored_as: dict[str, int]
    """Values in each storage type."""
    notes: list[str]
    """What the format could not say."""


def convert(
    source: str | Path,
    target: str | Path,
    to: str,
    *,
    kind: str | None = None,
    num_shards: int | None = None,
    progress: Progress | None = None,
) -> Converted:
    """Write the model at `source` to `target`, whole or not at all.

    Args:
        source: a name, a checkpoint's path or a run's folder.
        target: what is made: a folder, for `gguf` a file; it must not exist.
        to: "hf", "gguf" or "meta".
        kind: how values are stored: f32, f16, bf16, for GGUF also its quantised types. bf16 if not given,
            f16 for GGUF.
        num_shards: files that Meta's format is cut into, 1 if not given.
        progress: told how far it is.

    Raises:
        InputError: as `resolve_model` and `load_model`; the target exists; a format, type or number of shards
            that is not there; a model or a vocabulary that the format cannot hold.
    """
    target = Path(target)
    kind = kind or ("f16" if to == "gguf" else "bf16")
    _check_request(target, to, kind, num_shards)
    path = resolve_model(source)
    config, stored = open_model(path)
    tensors = _reporting(stored, config.num_parameters(), progress)
    notes = []
    try:
        tokenizer = Tokenizer.load(tokenizer_path(path))
    except InputError as error:
        if to == "gguf":  # nothing loads a GGUF without its vocabulary
            raise
        tokenizer = None
        notes.append(f"no tokenizer was written: {error}")
    if to == "gguf":
        assert tokenizer is not None
        write_gguf(target, tensors, config, tokenizer, kind=kind, name=_name(source))
    else:
        dtype = FLOATS[kind]
        state = {
            name: _cast(name, tensor, dtype)
            for name, tensor in checked(parameter_shapes(config), tensors, str(path))
        }
        if to == "hf":
            write_hf(target, state, config, tokenizer=tokenizer, dtype=dtype)
        else:
            write_meta(target, state, config, tokenizer=tokenizer, dtype=dtype, num_shards=num_shards or 1)
    written = read_config(target)
    if written.max_positions != config.max_positions:
        notes.append(
            f"the format does not say the context of {config.max_positions} positions: readers take "
            f"{written.max_positions}"
        )
    return Converted(
        source=str(path),
        path=str(target),
        format=detect(target),
        bytes=sum(file.stat().st_size for file in [target, *target.rglob("*")] if file.is_file()),
        stored_as=tensor_types(target),
        notes=notes,
    )


def _check_request(target: Path, to: str, kind: str, num_shards: int | None) -> None:
    """Everything that can be refused before a tensor is read."""
    if to not in FORMATS:
        raise InputError(f"there is no format {to!r}; use {', '.join(FORMATS)}")
    if to != "gguf" and kind not in FLOATS:
        raise InputError(f"the format {to} stores f32, f16 or bf16, not {kind!r}; choose one, or convert to gguf")
    if kind not in TYPES:
        raise InputError(f"there is no storage type {kind!r}; use one of {', '.join(TYPES)}")
    if num_shards is not None and to != "meta":
        raise InputError(f"shards are of Meta's format; {to} needs none, leave --shards out")
    if to == "gguf" and target.suffix != ".gguf":
        raise InputError(f"{target} would not be known as a GGUF file; name it {target}.gguf")
    if target.exists():
        raise InputError(f"{target} is there already; choose another name, or move it away")
    if not target.parent.is_dir() and to == "gguf":
        raise InputError(f"the folder {target.parent} does not exist; make it, or choose another place")


def _reporting(
    tensors: Iterator[tuple[str, Tensor]], total: int, progress: Progress | None
) -> Iterator[tuple[str, Tensor]]:
    done = 0
    for name, tensor in tensors:
        yield name, tensor
        done += tensor.numel()
        if progress is not None:
            progress(done, total)


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.to(dtype)
    if dtype == torch.float16 and bool(cast.isinf().any()):
        raise InputError(f"{name} holds values too large for f16; use bf16 or f32")
    return cast


def _name(source: str | Path) -> str:
    """A model's name in metadata: what it was called by, without the path; a run's is the run's."""
    path = Path(source).expanduser().absolute()
    return path.parent.name if path.name == "model" else path.name.removesuffix(".gguf")

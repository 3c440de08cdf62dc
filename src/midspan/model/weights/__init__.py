"""Checkpoints in the formats of the field.

    hf     a folder with config.json and model.safetensors (or shards and their index)
    meta   a folder with params.json and consolidated.00.pth, 01, ...
    gguf   a .gguf file, or a folder with exactly one
    peft   an adapter over a base that it names

`load_model` reads any of them into a `Llama`, `read_config` reads the shape alone, `write_hf`, `write_gguf` and
`write_meta` write them, and `convert.convert` does both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from midspan.errors import InputError
from midspan.model.config import ModelConfig
from midspan.model.llama import Llama
from midspan.model.weights import gguf, hf, meta, peft
from midspan.model.weights.assemble import assemble
from midspan.model.weights.gguf_write import write_gguf
from midspan.model.weights.hf import write_hf
from midspan.model.weights.meta_write import write_meta

__all__ = [
    "assemble",
    "detect",
    "load_model",
    "open_model",
    "read_config",
    "tensor_types",
    "tokenizer_path",
    "write_gguf",
    "write_hf",
    "write_meta",
]

Format = Literal["hf", "meta", "gguf", "peft"]


def detect(path: str | Path) -> Format:
    """Which format lies at `path`.

    Raises:
        InputError: nothing there, or nothing that is a checkpoint.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; name a checkpoint folder or a .gguf file")
    if path.is_file():
        if path.suffix == ".gguf":
            return "gguf"
        raise InputError(f"{path} is not a .gguf file; name the folder of a checkpoint, or a .gguf file")
    if (path / "config.json").is_file():
        return "hf"
    if (path / peft.CONFIG).is_file():
        return "peft"
    if (path / "params.json").is_file():
        return "meta"
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        raise InputError(f"{path} holds {len(found)} .gguf files; name one of them, for instance {found[0]}")
    if found:
        return "gguf"
    raise InputError(
        f"{path} holds no checkpoint: it needs config.json with safetensors, params.json with "
        "consolidated.*.pth, adapter_config.json, or one .gguf file"
    )


def tokenizer_path(path: str | Path) -> Path:
    """Where the vocabulary of the checkpoint at `path` is: its folder or .gguf file; an adapter's own."""
    path = Path(path)
    match detect(path):
        case "gguf":
            return gguf_path(path)
        case "peft" if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            return tokenizer_path(peft.base_of(path))
    return path


def gguf_path(path: Path) -> Path:
    """The .gguf file at `path`, which is that file or the folder that holds it."""
    return path if path.is_file() else next(path.glob("*.gguf"))


def read_config(path: str | Path) -> ModelConfig:
    """The shape of the checkpoint at `path`, as `load_model` would build it.

    Raises:
        InputError: as for `load_model`, but for the contents of the tensors.
    """
    return open_model(path)[0]


def load_model(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Llama:
    """The model at `path`, cast to `dtype` on `device`, in evaluation mode.

    Raises:
        InputError: no checkpoint at `path`, a file that is missing or damaged, a model that Midspan does not
            run, or a tensor that is missing, unexpected or of another shape.
    """
    config, tensors = open_model(path)
    return assemble(config, tensors, str(path), dtype=dtype, device=device).eval()


def tensor_types(path: str | Path) -> dict[str, int]:
    """How many values of the checkpoint at `path` are stored in each type: {"Q4_1": 106168320, ...}."""
    path = Path(path)
    counts: Counter[str] = Counter()
    match detect(path):
        case "hf":
            stored = hf.tensor_types(path)
        case "meta":
            stored = meta.tensor_types(path)
        case "gguf":
            stored = gguf.tensor_types(gguf_path(path))
        case "peft":
            return tensor_types(peft.base_of(path))
    for name, number in stored:
        counts[name] += number
    return dict(counts.most_common())


def open_model(path: str | Path) -> tuple[ModelConfig, Iterator[tuple[str, Tensor]]]:
    """The shape of the checkpoint at `path`, and its tensors, read as they are asked for.

    Raises:
        InputError: as for `load_model`.
    """
    path = Path(path)
    match detect(path):
        case "hf":
            return hf.read(path)
        case "meta":
            return meta.read(path)
        case "gguf":
            return gguf.read(gguf_path(path))
        case "peft":
            return peft.read(path, open_model)

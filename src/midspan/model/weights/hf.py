"""Hugging Face folders: config.json with model.safetensors, or shards and their index.

    model/  config.json  generation_config.json  tokenizer files
            model.safetensors                                  or
            model-00001-of-00003.safetensors ...  model.safetensors.index.json

Only safetensors are read and written. A pickled `pytorch_model.bin` can run code on loading and is refused.
Tensor names are the module's own, so nothing is renamed or permuted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from midspan.errors import InputError
from midspan.files import atomic_folder, write_json
from midspan.model.config import ModelConfig
from midspan.model.weights.assemble import parameter_shapes
from midspan.tokenizer.chat import end_ids

if TYPE_CHECKING:
    from midspan.tokenizer import Tokenizer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InputError where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); get the file again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__} where an object is expected; get the file again")
    return values


def read(folder: Path) -> tuple[ModelConfig, Iterator[tuple[str, Tensor]]]:
    """The shape, and (name, tensor) for every weight, read as they are asked for.

    The head is tied where the file has none, or where config.json says so and it equals the embedding.

    Raises:
        InputError: a file is missing or damaged, or only pickled weights are there.
    """
    config = ModelConfig.from_hf(read_json(folder / "config.json"), str(folder / "config.json"))
    files = _files(folder)
    if HEAD not in files:
        config = replace(config, tied=True)
    elif config.tied and EMBEDDING in files:
        pair = dict(_tensors({name: files[name] for name in (HEAD, EMBEDDING)}))
        config = replace(config, tied=torch.equal(pair[HEAD], pair[EMBEDDING]))
    # Buffers that transformers wrote before version 4.32; they follow from the configuration.
    skipped = [name for name in files if name.endswith("rotary_emb.inv_freq")] + [HEAD] * config.tied
    return config, _tensors({name: file for name, file in files.items() if name not in skipped})


def _files(folder: Path) -> dict[str, Path]:
    """Which file holds each tensor."""
    if (folder / SINGLE).is_file():
        with _opened(folder / SINGLE) as file:
            return dict.fromkeys(file.keys(), folder / SINGLE)
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map", {})
        return {name: folder / Path(file).name for name, file in weight_map.items()}
    if pickled := sorted(folder.glob("*.bin")):
        raise InputError(
            f"{folder} holds only pickled weights ({pickled[0].name}), which can run code when read; "
            "convert them to safetensors or get the checkpoint in that format"
        )
    raise InputError(f"{folder} holds neither {SINGLE} nor {INDEX}; get the weights as safetensors")


def tensor_types(folder: Path) -> Iterator[tuple[str, int]]:
    """(type, number of values) of every tensor in the files, as safetensors names types: BF16, F32."""
    files = _files(folder)
    for path in sorted(set(files.values())):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118  (not a dictionary)
                piece = file.get_slice(name)
                yield piece.get_dtype(), math.prod(piece.get_shape())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing, though the index names it; get the shard")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or ends early ({error}); get the file again") from error


def _tensors(files: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(set(files.values())):
        with _opened(path) as file:
            for name in (name for name, where in files.items() if where == path):
                yield name, file.get_tensor(name)


def write_hf(
    folder: str | Path,
    model_or_state: nn.Module | Mapping[str, Tensor],
    config: ModelConfig,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_bytes: int = 5_000_000_000,
    bos_id: int | None = None,
    eos_id: int | None = None,
) -> None:
    """Write a folder that `transformers` loads, whole or not at all.

    Args:
        folder: what is made; it must not exist.
        model_or_state: a Llama, or its state dict; whole tensors, of any float dtype.
        config: the model's shape.
        tokenizer: saved beside the weights.
        dtype: what weights are cast to.
        max_shard_bytes: above this the weights are split over several files.
        bos_id: token that begins a text, for config.json; the tokenizer's where it is not given.
        eos_id: token that ends one, likewise.

    Raises:
        InputError: the folder exists, or config.json cannot express the shape.
        ValueError: the state does not belong to the configuration.
    """
    folder = Path(folder)
    if ModelConfig.from_hf(config.to_hf(), str(folder)) != config:
        raise InputError(
            f"a config.json of model_type {config.family!r} cannot express this shape ({config}); "
            "write it in another format"
        )
    state = model_or_state.state_dict() if isinstance(model_or_state, nn.Module) else dict(model_or_state)
    if config.tied:
        state.pop(HEAD, None)
    shapes = parameter_shapes(config)
    if wrong := sorted({(n, tuple(t.shape)) for n, t in state.items()} ^ set(shapes.items())):
        raise ValueError(f"state and configuration disagree on {wrong[0][0]}")
    ends: list[int] = []
    with atomic_folder(folder) as aside:
        _write_weights(aside, state, dtype, max_shard_bytes)
        if tokenizer is not None:
            tokenizer.save(aside)
            bos_id = tokenizer.bos_id if bos_id is None else bos_id
            ends = end_ids(tokenizer) if eos_id is None else []
            eos_id = tokenizer.eos_id if eos_id is None else eos_id
        tokens = {"bos_token_id": bos_id, "eos_token_id": eos_id}
        name = str(dtype).removeprefix("torch.")
        write_json(aside / "config.json", config.to_hf() | {"torch_dtype": name, "dtype": name} | tokens)
        several = {"eos_token_id": ends} if len(ends) > 1 else {}  # a chat format may end answers in its own way
        write_json(aside / "generation_config.json", tokens | several)


def _write_weights(folder: Path, state: Mapping[str, Tensor], dtype: torch.dtype, max_shard_bytes: int) -> None:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in state.items():
        size = tensor.numel() * dtype.itemsize
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        # A copy, because safetensors refuses tensors that are views of one memory.
        tensors = {n: state[n].detach().to("cpu", dtype, copy=True).contiguous() for n in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(tensor.numel() for tensor in state.values()) * dtype.itemsize
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})

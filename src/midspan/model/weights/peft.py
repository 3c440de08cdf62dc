"""PEFT adapters: a folder with `adapter_config.json` stands for its base with the correction merged in.

Where several adapters share one base, `open_adapter` and `attach` put the correction beside the base's weights.

    W + alpha / rank · B A        for every projection that the adapter has, a tensor at a time
    rows of the vocabulary        replaced, and added behind the base's last one where the adapter brings tokens
    positions.json                rotary base, scaling and number of positions, where the adapter says its own

The base is what `base_model_name_or_path` names: a name of `midspan models list`, or a path, which is looked up
beside the adapter too. Only LoRA as `midspan.model.lora` trains it is read; what would change the sum is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from midspan.cache import resolve_model
from midspan.errors import InputError
from midspan.model.config import ModelConfig, RopeScaling
from midspan.model.llama import Llama
from midspan.model.lora import LoraConfig, LoraLinear
from midspan.model.weights.assemble import assemble
from midspan.model.weights.hf import EMBEDDING, HEAD, read_json

CONFIG, TENSORS, POSITIONS = "adapter_config.json", "adapter_model.safetensors", "positions.json"
Opened = tuple[ModelConfig, Iterator[tuple[str, Tensor]]]
_PREFIX, _ROWS = "base_model.model.", ".token_adapter.trainable_tokens_delta"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter's tensors, over a base of a known shape."""

    folder: Path
    config: ModelConfig
    """Of both together: the base's, with the adapter's positions and tokens."""
    scale: float
    tensors: dict[str, Tensor]
    rows: dict[str, tuple[list[int], Tensor]]
    """Name of a matrix over the vocabulary → ids and their rows."""

    @property
    def modules(self) -> set[str]:
        """Names of the projections that it corrects."""
        return {name.rpartition(".lora_")[0] for name in self.tensors if ".lora_" in name}

    def low_rank(self, module: str, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """A (rank, columns) and B (rows, rank) of a projection, float32.

        Raises:
            InputError: they are of another shape.
        """
        a = self.tensors[f"{module}.lora_A.weight"].float()
        b = self.tensors[f"{module}.lora_B.weight"].float()
        if (b.shape[0], a.shape[1]) != (rows, columns):
            raise InputError(
                f"the adapter {self.folder} is for another base: {module}.weight is {(rows, columns)}"
            )
        return a, b


def open_adapter(folder: Path, base: ModelConfig) -> Adapter:
    """The adapter in a folder, over a base of this shape.

    Raises:
        InputError: it is damaged, or of another kind.
    """
    settings = read_json(folder / CONFIG)
    _check(settings, folder)
    try:
        found = load_file(folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / TENSORS} cannot be read ({error}); get the adapter again") from None
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in found.items()}
    rows = _rows(settings, tensors, base, folder)
    size = max([base.vocab_size, *(max(ids) + 1 for ids, _ in rows.values())])
    config = replace(_at_positions(base, folder), vocab_size=size)
    scale = settings["lora_alpha"] / settings["r"]
    return Adapter(folder=folder, config=config, scale=scale, tensors=tensors, rows=rows)


def attach(base: Llama, adapter: Adapter) -> Llama:
    """The base with an adapter beside its weights, which both then hold; for inference.

    Matrices over the vocabulary are the new model's own where the adapter has rows in them.

    Raises:
        InputError: the adapter is of another base.
    """
    weight = base.model.norm.weight

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in base.state_dict().items():
            if name == HEAD and base.config.tied:
                continue
            yield name, _over_vocabulary(adapter, name, tensor)

    model = assemble(adapter.config, tensors(), str(adapter.folder), dtype=weight.dtype, device=weight.device)
    for module in sorted(adapter.modules):
        parent, _, leaf = module.rpartition(".")
        try:
            linear = cast(nn.Linear, model.get_submodule(module))
        except AttributeError:
            raise _no_such(adapter, module) from None
        a, b = adapter.low_rank(module, *linear.weight.shape)
        corrected = LoraLinear(linear, LoraConfig(rank=len(a), alpha=len(a) * adapter.scale), torch.Generator())
        corrected.lora_A.data, corrected.lora_B.data = a.to(weight.device), b.to(weight.device)
        setattr(model.get_submodule(parent), leaf, corrected)
    return model.requires_grad_(False).eval()


def base_of(folder: Path) -> Path:
    """Where the base of an adapter is.

    Raises:
        InputError: it is not here.
    """
    name = str(read_json(folder / CONFIG).get("base_model_name_or_path") or "")
    if not name:
        raise InputError(f"{folder / CONFIG} names no base; set base_model_name_or_path to the base's path")
    beside = folder / name
    if beside.exists():
        return resolve_model(beside)
    try:
        return resolve_model(name)
    except InputError as error:
        raise InputError(f"the base of {folder} is not here: {error}") from None


def read(folder: Path, open_base: Callable[[Path], Opened]) -> Opened:
    """The base's shape and tensors with the adapter in them.

    Raises:
        InputError: as `open_base`; or the adapter is damaged, of another kind, or not of this base.
    """
    config, of_base = open_base(base_of(folder))
    adapter = open_adapter(folder, config)
    left = adapter.modules

    def merged() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in of_base:
            module = name.removesuffix(".weight")
            if module in left:
                left.remove(module)
                a, b = adapter.low_rank(module, *tensor.shape)
                tensor = tensor.float() + adapter.scale * (b @ a)
            yield name, _over_vocabulary(adapter, name, tensor)
        if left:
            raise _no_such(adapter, min(left))

    return adapter.config, merged()


def _no_such(adapter: Adapter, module: str) -> InputError:
    return InputError(f"the adapter {adapter.folder} is for another base: this one has no {module}")


def _over_vocabulary(adapter: Adapter, name: str, tensor: Tensor) -> Tensor:
    """A base's tensor, with the adapter's rows if it is a matrix over the vocabulary that has some."""
    size = adapter.config.vocab_size
    if name in adapter.rows or (name in (EMBEDDING, HEAD) and size > len(tensor)):
        return _with_rows(tensor, size, *adapter.rows.get(name, ([], None)))
    return tensor


def _at_positions(config: ModelConfig, folder: Path) -> ModelConfig:
    """The base's shape with the adapter's own positions."""
    if not (folder / POSITIONS).is_file():
        return config
    try:
        values = dict(read_json(folder / POSITIONS))
        if values.get("rope_scaling") is not None:
            values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
        return replace(config, **values)
    except TypeError as error:
        raise InputError(f"{folder / POSITIONS} cannot be read ({error}); get the adapter again") from None


def _check(settings: dict[str, Any], folder: Path) -> None:
    if settings.get("peft_type") != "LORA":
        raise InputError(f"{folder} is a {settings.get('peft_type')} adapter; only LORA is read")
    for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out"):
        if settings.get(name):
            raise InputError(
                f"{folder / CONFIG} sets {name}, which is not read; merge the adapter with PEFT first"
            )
    if settings.get("bias", "none") != "none":
        raise InputError(f"{folder / CONFIG} trains biases, which is not read; merge the adapter with PEFT first")
    for name in ("r", "lora_alpha"):
        if not isinstance(settings.get(name), int | float) or settings[name] <= 0:
            raise InputError(
                f"{folder / CONFIG} has {name} = {settings.get(name)!r}; a number above 0 is expected"
            )


def _rows(
    settings: dict[str, Any], tensors: dict[str, Tensor], config: ModelConfig, folder: Path
) -> dict[str, tuple[list[int], Tensor]]:
    """Name of a matrix over the vocabulary → ids and their rows."""
    indices = settings.get("trainable_token_indices")
    found: dict[str, tuple[list[int], Tensor]] = {}
    for name, tensor in tensors.items():
        if not name.endswith(_ROWS):
            continue
        matrix = f"{name.removesuffix(_ROWS)}.weight"
        ids = indices.get(matrix.split(".")[-2]) if isinstance(indices, dict) else indices
        if not isinstance(ids, list) or len(ids) != len(tensor) or tensor.shape[1] != config.hidden_size:
            raise InputError(f"{folder} has rows for tokens that {CONFIG} does not name; get the adapter again")
        found[matrix] = (ids, tensor)
    return found


def _with_rows(matrix: Tensor, size: int, ids: list[int], rows: Tensor | None) -> Tensor:
    """A matrix over the vocabulary with `size` rows, some of them replaced; new ones that are not given are 0."""
    result = torch.zeros((size, matrix.shape[1]), dtype=torch.float32)
    result[: len(matrix)] = matrix.float()
    if rows is not None:
        result[ids] = rows.float()
    return result

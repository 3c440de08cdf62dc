"""What is planned: a recipe's stage as the numbers that decide its memory and its speed.

A base that is not on this machine yet is planned by its shape: that of a name (`smollm2-135m`), of the recipe that
makes it (`runs/NAME`, when NAME is planned along), or of Llama 2 at the size in its name (`./llama-2-7b`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from midspan.cache import REGISTRY, resolve_model
from midspan.errors import InputError
from midspan.model import PRESETS, ModelConfig
from midspan.model.lora import TARGETS, LoraConfig
from midspan.model.weights import read_config
from midspan.train import Recipe
from midspan.train.base import shape_config
from midspan.train.parallel import Layout as Ranks
from midspan.train.parallel import ParallelConfig

CHECKPOINTING = ("none", "selective", "full")
STATES = {"bf16": "masters", "bf16-states": "bf16", "fp32": "float32"}
"""What each of the recipe's precisions keeps of a trained weight (see `Stage.states`)."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a step is spread over GPUs: the recipe's `[parallel]` table."""

    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    context: int = 1
    pipeline: int = 1
    activation_checkpointing: str = "none"
    """`none`, `selective` (attention and every second product are kept) or `full` (only a layer's input is)."""
    compile: bool = True
    float8: bool = False

    @staticmethod
    def of(config: ParallelConfig, gpus: int) -> Layout:
        """The recipe's own table, on so many GPUs.

        Raises:
            InputError: it does not multiply to that number.
        """
        names = ("replicate", "shard", "tensor", "context", "pipeline")
        ranks = Ranks.of(config, gpus)
        return Layout(
            **{name: getattr(ranks, name) for name in names},
            activation_checkpointing=config.activation_checkpointing,
            compile=config.compile,
            float8=config.float8,
        )

    @property
    def data(self) -> int:
        """Ranks that read different rows."""
        return self.replicate * self.shard

    @property
    def gpus(self) -> int:
        """GPUs that the layout takes."""
        return self.data * self.tensor * self.context * self.pipeline

    def __str__(self) -> str:
        parts = [
            f"{name} {getattr(self, name)}"
            for name in ("replicate", "shard", "tensor", "context", "pipeline")
            if getattr(self, name) > 1
        ]
        return ", ".join(parts) or "one GPU"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage's numbers."""

    name: str
    model: ModelConfig
    row_tokens: int
    rows_per_step: int
    steps: int
    method: str = "full"
    lora: LoraConfig = field(default_factory=LoraConfig)
    rows_per_pass: int = 1
    states: str = "masters"
    """What is kept of a trained weight: `masters` (bfloat16 weight and gradient, float32 master and moments),
    `float32` (all in float32) or `bf16` (all in bfloat16)."""
    segment_tokens: int = 0
    """Length of a document in a row, where the recipe fixes it; 0 for whole rows."""
    shape_from: str = ""
    """Where the model's shape comes from, when it is not the base itself."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step over all ranks."""
        return self.row_tokens * self.rows_per_step

    def passes(self, layout: Layout) -> float:
        """Passes of a rank in a step."""
        return self.rows_per_step / (self.rows_per_pass * layout.data)

    @property
    def tokens(self) -> int:
        """Tokens of the stage."""
        return self.tokens_per_step * self.steps

    def trained(self) -> int:
        """Parameters that are trained, leaving out the few rows of sentinels."""
        c = self.model
        if self.method == "lora":
            return c.num_layers * sum(self.lora.rank * sum(projections(c)[target]) for target in self.lora.targets)
        if self.method == "layers":
            return c.num_parameters() - c.vocab_size * c.hidden_size * (1 if c.tied else 2)
        return c.num_parameters()


def projections(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the seven products of a layer."""
    d, f = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes = ((d, q), (d, kv), (d, kv), (q, d), (d, f), (d, f), (f, d))
    return dict(zip(TARGETS, shapes, strict=True))


def layer_parameters(config: ModelConfig) -> int:
    """Parameters of one layer's products."""
    return sum(i * o for i, o in projections(config).values())


def stage_of(recipe: Recipe, beside: Mapping[str, Recipe] | None = None, shape: str | None = None) -> Stage:
    """The numbers of a recipe.

    Args:
        recipe: what is planned.
        beside: recipes by name that are planned along; a base `runs/NAME` can be one of them.
        shape: a preset's name or a `config.json`, in place of the base's shape.

    Raises:
        InputError: the base is not here and its shape cannot be told.
    """
    config, origin = _shape(recipe, dict(beside or {}), shape)
    pieces = recipe.data.piece_tokens
    return Stage(
        name=recipe.name,
        model=config,
        row_tokens=recipe.data.row_tokens,
        rows_per_step=recipe.train.rows_per_step,
        steps=recipe.train.steps,
        method=recipe.train.method,
        lora=recipe.lora,
        rows_per_pass=recipe.train.rows_per_pass,
        states=STATES[recipe.train.precision],
        segment_tokens=min(sum(pieces) // 2, recipe.data.row_tokens) if len(pieces) == 2 else 0,
        shape_from=origin,
    )


def _shape(recipe: Recipe, beside: dict[str, Recipe], shape: str | None) -> tuple[ModelConfig, str]:
    config, origin = _base_shape(recipe, beside, shape)
    made = recipe.model.shape
    if made is not None:  # from nothing: of the base only the vocabulary is used
        config = shape_config(made, config.vocab_size, recipe.data.row_tokens)
    return recipe.model.changed(config), origin


def _base_shape(recipe: Recipe, beside: dict[str, Recipe], shape: str | None) -> tuple[ModelConfig, str]:
    if shape is not None:
        if shape in PRESETS:
            return PRESETS[shape], shape
        try:
            return ModelConfig.from_hf(json.loads(Path(shape).read_text(encoding="utf-8")), shape), shape
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"--shape {shape} is neither one of {', '.join(PRESETS)} nor a config.json that can be read"
            ) from None
    base = recipe.base
    if base in REGISTRY and base in PRESETS:
        return PRESETS[base], ""
    try:
        return read_config(resolve_model(base)), ""
    except InputError as error:
        parent = beside.pop(Path(base).name, None)
        if parent is not None:
            return _shape(parent, beside, None)
        size = re.search(r"(?<![\d.])(7|13|34|70)b(?![a-z\d])", base.lower())
        if "llama" in base.lower() and "llama-3" not in base.lower() and size:
            return PRESETS[size[0]], f"Llama 2 {size[0].upper()}, as {base} is not here"
        raise InputError(
            f"the base {base} of {recipe.name} cannot be planned: {error}; or give its shape with --shape "
            f"(one of {', '.join(PRESETS)}, or a config.json)"
        ) from None

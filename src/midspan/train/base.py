"""The model that a stage starts from: the base, changed as the recipe's `[model]` says, with rows for new pieces.

A vocabulary without sentinels gets four; one without a chat format gets one where the stage reads conversations.
A new row starts as a draw around the mean of the matrix, with the spread that its rows have, so that no two
sentinels look alike to the model. Those that end an infill or an answer start as copies of the vocabulary's end of
text, which stands for something near already. Draws have a fixed seed: every stage on a base starts alike.

With a shape in `[model]`, nothing but the vocabulary is taken from the base, and the weights are random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midspan.cache import resolve_model
from midspan.errors import InputError
from midspan.fim import FimFormat, with_sentinels
from midspan.model import Llama, ModelConfig
from midspan.model.config import RopeScaling
from midspan.model.weights import assemble, open_model, tokenizer_path
from midspan.tokenizer import Tokenizer
from midspan.tokenizer.chat import STEP
from midspan.tokenizer.chat_templates import CHAT_PIECES, CHATS, IM_END, with_chat

_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model to train from nothing."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int = 0
    """Key/value heads; as many as heads if not given."""
    tied: bool = True
    """The output head is the embedding matrix."""
    std: float = 0.02
    """Spread of the random weights."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden_size", "intermediate_size", "num_layers", "num_heads", "std"):
            if getattr(self, name) <= 0:
                raise InputError(f"model.shape.{name} is {getattr(self, name)}; it must be above 0")
        if self.hidden_size % (2 * self.num_heads) or self.num_kv_heads < 0:
            raise InputError(
                f"model.shape has {self.num_heads} heads and {self.num_kv_heads} key/value heads for a "
                f"hidden_size of {self.hidden_size}; give one that splits into heads of an even size"
            )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a stage changes of its base before training; the exported model's config says the same."""

    rope_theta: float | None = None
    """Base of the rotary frequencies: the paper's long-context stage resets it from 10,000 to 1,000,000."""
    rope_scaling: RopeScaling | None = None
    """Another way to longer contexts: `kind` (linear, llama3, yarn), `factor`, `original_max_positions`, ..."""
    max_positions: int | None = None
    """The context that the model is said to have."""
    chat: str = ""
    """Chat format, in place of the base's own or of what `with_chat` chooses: `llama-2`, `steps`, `chatml`."""
    shape: Shape | None = None
    """Train from nothing: of the base only the vocabulary is used."""

    def __post_init__(self) -> None:
        if self.chat and self.chat not in CHATS:
            raise InputError(f"model.chat is {self.chat!r}; the choices are {', '.join(CHATS)}")
        for name in ("rope_theta", "max_positions"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"model.{name} is {value}; it must be above 0")

        scaling = self.rope_scaling
        if scaling is not None and RopeScaling.from_hf(scaling.to_hf(), 0) != scaling:
            raise InputError(
                f"model.rope_scaling gives values that the kind {scaling.kind!r} does not use; take them out"
            )

    def changed(self, config: ModelConfig) -> ModelConfig:
        """The base's config as this stage trains it."""
        names = ("rope_theta", "rope_scaling", "max_positions")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        return replace(config, **{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True)
class Base:
    """A base as it is read: its shape and vocabulary as the stage trains them, its tensors one at a time."""

    where: str
    config: ModelConfig
    tokenizer: Tokenizer
    tensors: Iterator[tuple[str, Tensor]]
    """Whole tensors by Hugging Face's names; of a memory-mapped file only what is used of them is read."""


def open_base(
    name_or_path: str,
    dtype: torch.dtype,
    settings: ModelSettings | None = None,
    *,
    chats: bool = False,
    row_tokens: int = 0,
) -> Base:
    """A base, or one made, that can be taught what the stage teaches, before any of its tensors is read.

    Args:
        name_or_path: a name from `midspan models list`, a checkpoint's path or a run's folder.
        dtype: precision that the weights will have, in which new rows are drawn.
        settings: what is changed of it.
        chats: whether the stage reads conversations.
        row_tokens: the length of the stage's rows, which the model must have positions for.

    Raises:
        InputError: as `resolve_model` and `load_model`; or the model has fewer positions than rows have tokens.
    """
    settings = settings or ModelSettings()
    path = resolve_model(name_or_path)
    before = Tokenizer.load(_vocabulary_path(path) if settings.shape else tokenizer_path(path))
    tokenizer = with_sentinels(before)
    if chats or settings.chat:
        tokenizer = with_chat(tokenizer, settings.chat)
    if settings.shape is not None:
        config = shape_config(settings.shape, tokenizer.vocab_size, row_tokens)
        tensors = _made(config, settings.shape)
    else:
        config, tensors = open_model(path)
        new_ids = list(range(before.vocab_size, tokenizer.vocab_size))
        if new_ids:
            size = max(config.vocab_size, max(new_ids) + 1)
            copies = {} if before.eos_id is None else dict.fromkeys(_ends(tokenizer), before.eos_id)
            config = replace(config, vocab_size=size)
            tensors = (
                (name, grown(tensor.to(dtype), size, new_ids, copies) if name in _VOCABULARY else tensor)
                for name, tensor in tensors
            )
    config = settings.changed(config)
    if row_tokens > config.max_positions:
        raise InputError(
            f"data.row_tokens is {row_tokens}, and {name_or_path} has {config.max_positions} positions; "
            "give shorter rows, or a larger model.max_positions (with model.rope_theta or model.rope_scaling)"
        )
    return Base(str(path), config, tokenizer, tensors)


def prepare_base(
    name_or_path: str,
    dtype: torch.dtype,
    settings: ModelSettings | None = None,
    *,
    chats: bool = False,
    row_tokens: int = 0,
) -> tuple[Llama, Tokenizer]:
    """Load a base, or make one, and see that it can be taught what the stage teaches; arguments as `open_base`.

    Returns:
        The model, whose embedding has a row for every piece, and its vocabulary with sentinels.
    """
    base = open_base(name_or_path, dtype, settings, chats=chats, row_tokens=row_tokens)
    return base_model(base, dtype), base.tokenizer


def base_model(base: Base, dtype: torch.dtype) -> Llama:
    """All of a base, whose tensors are read here and cannot be read again."""
    return assemble(base.config, base.tensors, base.where, dtype=dtype, device="cpu").eval()


def _vocabulary_path(path: Path) -> Path:
    """Where a base's vocabulary is that need not have weights."""
    try:
        return tokenizer_path(path)
    except InputError:
        return path


def shape_config(shape: Shape, vocab_size: int, max_positions: int) -> ModelConfig:
    """What a recipe's shape is as a model of a vocabulary."""
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads or shape.num_heads,
        head_dim=shape.hidden_size // shape.num_heads,
        max_positions=max_positions,
        tied=shape.tied,
    )


def _made(config: ModelConfig, shape: Shape) -> Iterator[tuple[str, Tensor]]:
    """Random weights."""
    model = Llama(config)
    model.initialise(shape.seed, shape.std)
    for name, parameter in model.named_parameters():
        yield name, parameter.detach()


def sentinel_ids(tokenizer: Tokenizer, *, chats: bool = False) -> list[int]:
    """The ids that a stage teaches where it trains little else of the vocabulary.

    Those of the format's sentinels and of what ends an infill, and with `chats` those that mark turns.
    """
    fim = FimFormat.detect(tokenizer)
    assert fim is not None, "with_sentinels gives every vocabulary a format"
    ids = {fim.prefix_id, fim.suffix_id, fim.eot_id} | ({fim.middle_id} if fim.middle_id is not None else set())
    if chats:
        ids |= {i for i in map(tokenizer.id_of, CHAT_PIECES) if i is not None}
    return sorted(ids)


def _ends(tokenizer: Tokenizer) -> list[int]:
    """The ids of what ends an infill or an answer."""
    fim = FimFormat.detect(tokenizer)
    assert fim is not None, "with_sentinels gives every vocabulary a format"
    return [fim.eot_id, *(i for i in map(tokenizer.id_of, (IM_END, STEP)) if i is not None)]


def grown(old_vd: Tensor, size: int, new_ids: list[int], copies: Mapping[int, int]) -> Tensor:
    """An embedding or a head with rows for `new_ids`, longer where it is too short.

    Args:
        old_vd: the matrix (vocabulary, hidden size).
        size: rows of the result.
        new_ids: the ids behind the old vocabulary.
        copies: which of the new ids start as the row of an old one; others are passed over.
    """
    known = old_vd[: min(new_ids)].float()
    draws = torch.randn((len(new_ids), old_vd.shape[1]), generator=torch.Generator().manual_seed(0))
    weight = torch.cat([old_vd, old_vd.new_zeros(size - len(old_vd), old_vd.shape[1])])
    weight[new_ids] = (known.mean(dim=0) + draws.to(old_vd.device) * known.std(dim=0)).to(old_vd.dtype)
    for new, like in copies.items():
        if new in new_ids:
            weight[new] = old_vd[like]
    return weight

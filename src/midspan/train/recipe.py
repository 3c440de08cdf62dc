"""A recipe: one stage of training as a TOML file, read into frozen records.

    name = "code"                 base = "smollm2-135m"
    [model] rotary base, chat     [data]  corpus or sources
    [fim]   rate, layouts, spans  [train] method, steps, batch
    [lora] / [optimizer] / [checkpoint] / [parallel] / [watch]

A key that does not exist is an error that names the closest one that does, and so is a value of the wrong kind.
`--set a.b=c` overrides a value before the file is judged. The resolved recipe, defaults included, is saved in
the run and hashed, so that a run is continued only by the recipe that began it.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import xxhash

from midspan.errors import InputError
from midspan.fim import FimConfig
from midspan.model.lora import LoraConfig
from midspan.rows import DOCUMENTS, RowsConfig, check_shares
from midspan.train.base import ModelSettings
from midspan.train.optimizer import OptimizerConfig
from midspan.train.parallel import ParallelConfig

NOT_DECISIVE = (
    "description",
    "base",
    "data.corpus",
    "data.workers",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "checkpoint.background",
    "watch",
    *(f"parallel.{item.name}" for item in fields(ParallelConfig) if item.name != "float8"),
)
"""Settings that do not change the trained weights. A base and a corpus do, but by their content and not by their
place: the run's record of its base and the rows' fingerprint see to that."""


@dataclass(frozen=True, kw_only=True)
class SourceRecipe:
    """One corpus, or one file of conversations, of a mixture (see `rows.Source`)."""

    name: str
    corpus: str = ""
    """Folder of a corpus that `midspan corpus build` made."""
    conversations: str = ""
    """In place of a corpus: a JSONL file with `{"messages": [{"role": ..., "content": ...}, ...]}` in each line,
    of which the answers are trained."""
    share: float = 1.0
    """Of all tokens; the shares of a mixture sum to 1."""
    fim_rate: float | None = None
    """Share of its whole documents that become infilling examples, where it is not fim.rate."""
    documents: str = "files"

    def __post_init__(self) -> None:
        if bool(self.corpus) == bool(self.conversations):
            both = "both corpus and conversations" if self.corpus else "neither corpus nor conversations"
            raise InputError(f"source {self.name!r} of data.sources has {both}; give it one of them")
        if self.conversations and (self.fim_rate or self.documents != "files"):
            raise InputError(
                f"source {self.name!r} holds conversations, which are neither infilled nor joined; take its "
                "fim_rate and documents out"
            )
        _check_choice(f"documents of source {self.name!r}", self.documents, DOCUMENTS)
        if self.fim_rate is not None and not 0 <= self.fim_rate <= 1:
            raise InputError(f"fim_rate of source {self.name!r} is {self.fim_rate}; it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """What is read, and how it is laid into rows (see `rows.RowsConfig`)."""

    corpus: str = ""
    """Folder of a corpus that `midspan corpus build` made: the only source."""
    sources: tuple[SourceRecipe, ...] = ()
    """A mixture, in place of `corpus`."""
    documents: str = "files"
    """What a document of `corpus` is: `files`, or `repositories` (all files of one, in reading order)."""
    row_tokens: int = 4096
    long_documents: str = "cut"
    piece_tokens: tuple[int, ...] = ()
    window_documents: int = 4096
    seed: int = 0
    workers: int = 1
    """Processes that compile rows; the rows do not depend on it."""

    def __post_init__(self) -> None:
        if bool(self.corpus) == bool(self.sources):
            both = "has both data.corpus and data.sources" if self.corpus else "lacks data.corpus"
            raise InputError(
                f"the recipe {both}; give data.corpus for one corpus, or data.sources for a mixture of several"
            )
        if self.sources and self.documents != "files":
            raise InputError(
                f"data.documents is {self.documents!r} beside data.sources; give each source its own documents"
            )
        _check_choice("data.documents", self.documents, DOCUMENTS)
        if self.sources:
            check_shares([source.name for source in self.sources], [source.share for source in self.sources])

    @property
    def mixture(self) -> tuple[SourceRecipe, ...]:
        """The sources, whichever way they are written."""
        return self.sources or (SourceRecipe(corpus=self.corpus, name="data", documents=self.documents),)

    @property
    def chats(self) -> bool:
        """Whether a source is conversations."""
        return any(source.conversations for source in self.sources)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How much is trained, and what of the model."""

    steps: int
    rows_per_step: int
    """Rows of one optimizer step: the paper's code stage has about 1,024 of 4,096 tokens."""
    rows_per_pass: int = 1
    """Rows that go through the model together; more use the machine better and take more memory."""
    method: str = "full"
    """`full` (every weight), `layers` (every weight but the vocabulary's, of which only the sentinels' rows: in
    a small model they are a fifth of all, with little to learn), or `lora` (adapters, and the sentinels' rows)."""
    precision: str = "bf16"
    """Weights and arithmetic of the model: `bf16` or `fp32`, what the optimizer updates being float32 for both; or
    `bf16-states`, where that is bfloat16 too and a parameter takes 8 bytes in place of 16."""
    seed: int = 0
    """Of the adapters' start."""

    def __post_init__(self) -> None:
        _check_choice("train.method", self.method, ("full", "layers", "lora"))
        _check_choice("train.precision", self.precision, ("bf16", "fp32", "bf16-states"))
        for name in ("steps", "rows_per_step", "rows_per_pass"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state of a run is saved."""

    every_steps: int = 1000
    keep: int = 2
    """Checkpoints kept, newest first; never fewer than two, so that one is always whole."""
    background: bool = True
    """Go on training while one is written, where there is memory for a copy of the state."""

    def __post_init__(self) -> None:
        if self.every_steps < 1:
            raise InputError(f"checkpoint.every_steps is {self.every_steps}; it must be at least 1")
        if self.keep < 2:
            raise InputError(f"checkpoint.keep is {self.keep}; at least 2 are kept, so that one is always whole")


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What is looked at while a stage trains, beside `metrics.jsonl`. Nothing here changes the weights."""

    evaluate_every_steps: int = 0
    """How often the model reads held-out files and infills holes, also before the first step and behind the last;
    0 for never."""
    evaluate_documents: int = 16
    """Held-out files of each source, cut to a row."""
    evaluate_holes: int = 32
    """Lines of these files to infill, each in every layout; 0 for none."""
    tensorboard: bool = False
    """Event files in the run's folder `tensorboard/`."""
    wandb: str = "off"
    """Weights & Biases: `off`, `offline` (files in the run's folder `wandb/`), or `online`, which sends them."""
    trackio: bool = False
    """Trackio, in its data base on this machine."""
    project: str = "midspan"
    """Where Weights & Biases and Trackio put the run."""

    def __post_init__(self) -> None:
        _check_choice("watch.wandb", self.wandb, ("off", "offline", "online"))
        for name, least in (("evaluate_every_steps", 0), ("evaluate_documents", 1), ("evaluate_holes", 0)):
            if getattr(self, name) < least:
                raise InputError(f"watch.{name} is {getattr(self, name)}; it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One stage."""

    name: str
    base: str
    """What is trained: a name from `midspan models list`, a path, or a run's folder."""
    description: str = ""
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataRecipe
    fim: FimConfig = field(default_factory=FimConfig)
    train: TrainConfig
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        assert self.rows  # judges the values of [data] now rather than when rows are compiled

    @property
    def rows(self) -> RowsConfig:
        """The settings that decide the rows."""
        return RowsConfig(
            row_tokens=self.data.row_tokens,
            long_documents=self.data.long_documents,
            piece_tokens=self.data.piece_tokens,
            window_documents=self.data.window_documents,
            seed=self.data.seed,
            fim=self.fim,
        )

    @property
    def num_rows(self) -> int:
        """Rows that the stage reads."""
        return self.train.steps * self.train.rows_per_step

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included, as JSON has it."""
        return json.loads(json.dumps(asdict(self)))

    def hash(self) -> str:
        """The identity of everything that decides the trained weights (not of how fast or how safely)."""
        values = self.resolved()
        for key in NOT_DECISIVE:
            table, _, last = key.rpartition(".")
            del (values[table] if table else values)[last]
        for source in values["data"]["sources"]:
            del source["corpus"]
            source["conversations"] = bool(source["conversations"])
        return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True).encode())


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `a.b=c` overrides.

    Raises:
        InputError: the file is missing or no TOML, or a key or value is not a recipe's.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"recipe {path} cannot be read ({error.strerror}); name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} is not valid TOML: {error}") from error
    for override in overrides:
        _override(values, override)
    return typing.cast(Recipe, _build(Recipe, values, ""))


def _override(values: Any, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override} has no value; write --set train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *tables, last = key.split(".")
    for table in tables:
        found = values.setdefault(table, {}) if isinstance(values, dict) else _named(values, table)
        if not isinstance(found, dict | list):
            raise InputError(f"--set {override} goes through {table}, which is no table of the recipe")
        values = found
    if isinstance(values, list):
        raise InputError(
            f"--set {override} names no value of {tables[-1]}; write --set data.sources.NAME.corpus=..."
        )
    values[last] = value


def _named(tables: list[Any], name: str) -> Any:
    """The table with this name in a list of tables, such as a source of data.sources; None if there is none."""
    return next((table for table in tables if isinstance(table, dict) and table.get("name") == name), None)


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A record from a table: unknown and missing keys are errors, values are converted or refused."""
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)
            raise InputError(f"the recipe has an unknown key {where}{key}; did you mean {where}{near[0]}?")
    arguments = {key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()}
    for item in fields(kind):
        required = item.default is item.default_factory  # both are MISSING
        if required and item.name not in arguments:
            if is_dataclass(hints[item.name]):  # its own required keys make the better sentence
                arguments[item.name] = _build(hints[item.name], {}, f"{where}{item.name}.")
            else:
                raise InputError(
                    f"the recipe lacks {where}{item.name}; add it, or give it with --set {where}{item.name}=..."
                )
    return kind(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}; it is a table of the recipe: write [{where}]")
        return _build(hint, value, f"{where}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # a value or None, which TOML cannot write
        return _convert(arguments[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin in (Mapping, dict) and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and type(value) is hint:
        return value
    name = getattr(hint, "__name__", str(hint))
    raise InputError(f"{where} is {value!r}; a value of the kind {name} is expected")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; the choices are {', '.join(choices)}")

"""Which models a server is to have, by what the command line says."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from midspan.cache import resolve_model
from midspan.engine import Engine
from midspan.engine.front import Front
from midspan.engine.remote import RemoteEngine
from midspan.errors import InputError
from midspan.model.weights import detect, read_config, tokenizer_path
from midspan.model.weights.peft import base_of
from midspan.serve.models import Models
from midspan.tokenizer import Tokenizer


def named_models(
    models: Sequence[str],
    names: Sequence[str],
    adapters: Sequence[str],
    *,
    upstream: str | None = None,
    **options: Any,
) -> Models:
    """Models to load, each under a name of its own; whatever can be seen to be wrong is said before any is loaded.

    Args:
        models: what `resolve_model` takes.
        names: what clients call them, in order; the last part of a path for the rest.
        adapters: NAME=PATH, each of the first model's; served as `model:NAME`.
        upstream: a server that computes in this one's place.
        options: of `Engine.load`.

    Raises:
        InputError: a model is not here, or two have one name.
    """
    if len(names) > len(models):
        raise InputError(f"there are {len(names)} names for {len(models)} models; give at most one each")
    chosen = [*names, *(_name(model) for model in models[len(names) :])]
    wanted = list(zip(chosen, models, strict=True))
    for adapter in adapters:
        label, equals, path = adapter.partition("=")
        if not equals or not label or not path:
            raise InputError(f"--adapter is {adapter!r}; write NAME=PATH, such as ours=runs/mine/adapter")
        wanted.append((f"{chosen[0]}:{label}", path))
    paths: dict[str, Path] = {}
    for name, model in wanted:
        if name in paths:
            raise InputError(f"two models would be called {name}; give them names with --name")
        paths[name] = resolve_model(model)
        read_config(paths[name])  # complains now rather than in the background
    openers = _elsewhere(paths, upstream) if upstream is not None else _here(paths, options)
    found = Models()
    for name, load in openers.items():
        found.add(name, load)
    return found


def _here(paths: Mapping[str, Path], options: dict[str, Any]) -> dict[str, Callable[[], Front]]:
    """Engines in this process. What several are adapters of, they share; one alone is merged, and faster."""
    bases = {name: (base_of(path) if detect(path) == "peft" else path).resolve() for name, path in paths.items()}
    users = Counter(bases.values())
    options = _budgets(len(paths)) | options

    @cache
    def opened(base: Path) -> Engine:
        return Engine.load(base, **options)

    def open_one(path: Path, base: Path) -> Front:
        if users[base] == 1:
            return Engine.load(path, **options)
        return opened(base) if path.resolve() == base else opened(base).adapted(path, **_budgets(len(paths)))

    return {name: partial(open_one, path, bases[name]) for name, path in paths.items()}


def _elsewhere(paths: Mapping[str, Path], url: str) -> dict[str, Callable[[], Front]]:
    def connect(path: Path) -> Front:
        positions = read_config(path).max_positions
        return RemoteEngine(url, Tokenizer.load(tokenizer_path(path)), max_positions=positions)

    return {name: partial(connect, path) for name, path in paths.items()}


def _budgets(number: int) -> dict[str, int]:
    """Bytes of keys and values for each of several engines, so that together they take what one would."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {} if number == 1 else {"cache_memory": memory // 4 // number, "store_memory": memory // 16 // number}


def _name(model: str) -> str:
    """The last part of a path that says something."""
    path = Path(model)
    return (
        path.parent.resolve().name
        if path.name in ("model", "adapter", ".", "")
        else path.name.removesuffix(".gguf")
    )

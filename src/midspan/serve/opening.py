"""Which models a server is to have, by what the command line says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from midspan.cache import resolve_model
from midspan.engine import Engine
from midspan.engine.front import Front
from midspan.engine.remote import RemoteEngine
from midspan.errors import InputError
from midspan.model.weights import read_config, tokenizer_path
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
    found = Models()
    chosen = [*names, *(_name(model) for model in models[len(names) :])]
    for name, model in zip(chosen, models, strict=True):
        _add(found, name, model, _opener(model, upstream, options))
    for adapter in adapters:
        label, equals, path = adapter.partition("=")
        if not equals or not label or not path:
            raise InputError(f"--adapter is {adapter!r}; write NAME=PATH, such as ours=runs/mine/adapter")
        _add(found, f"{chosen[0]}:{label}", path, _opener(path, upstream, options))
    return found


def _add(found: Models, name: str, model: str, load: Callable[[], Front]) -> None:
    if name in found.names:
        raise InputError(f"two models would be called {name}; give them names with --name")
    read_config(resolve_model(model))  # complains now rather than in the background
    found.add(name, load)


def _opener(model: str, upstream: str | None, options: dict[str, Any]) -> Callable[[], Front]:
    if upstream is None:
        return partial(Engine.load, model, **options)

    def connect() -> Front:
        path = resolve_model(model)
        positions = read_config(path).max_positions
        return RemoteEngine(upstream, Tokenizer.load(tokenizer_path(path)), max_positions=positions)

    return connect


def _name(model: str) -> str:
    """The last part of a path that says something."""
    path = Path(model)
    return (
        path.parent.resolve().name
        if path.name in ("model", "adapter", ".", "")
        else path.name.removesuffix(".gguf")
    )

"""A run's folder: begun by one recipe on one base, and gone on with by no other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import xxhash

from midspan.cache import resolve_model
from midspan.errors import InputError
from midspan.files import locked, write_json
from midspan.rows import Rows
from midspan.train.recipe import NOT_DECISIVE, Recipe

RECIPE, LOCK = "recipe.json", ".lock"
_RECORDED = ("hash", "base_identity")
"""What a run's file holds beside the recipe."""
_OF_A_MODEL = (".safetensors", ".gguf", ".pth", ".json", ".model", ".jinja")
_ENOUGH = 1 << 20


def check_run(run: Path, recipe: Recipe, *, resume: bool) -> None:
    """Make sure that a stage may be trained in a folder, before anything is loaded or written.

    Raises:
        InputError: the folder is there without `resume`; it is no run; or its recipe differs, in which case
            the sentence names the first setting that does; or its base does.
    """
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    if not resume:
        raise InputError(f"{run} is there already; go on with --resume, or choose another --out")
    if not (run / RECIPE).is_file():
        raise InputError(f"{run} is no run (it has no {RECIPE}); name a run's folder, or leave --resume out")
    if (why := changed_since(run, recipe)) is not None:
        raise InputError(f"{run} {why}; go back to what it was, or train in another --out")


def changed_since(run: Path, recipe: Recipe) -> str | None:
    """What of a recipe or of its base is not as it was when a run was begun; None where nothing differs.

    A base that is not there any more is not missed: a finished run needs none.
    """
    saved = read_recipe(run)
    if saved.get("hash") != recipe.hash():
        mine, theirs = dict(_flat(recipe.resolved())), dict(_flat(saved))
        changed = sorted(
            k for k in mine.keys() | theirs.keys() if k not in _RECORDED and mine.get(k) != theirs.get(k)
        )
        decisive = (key for key in changed if key not in NOT_DECISIVE and key.split(".")[0] not in NOT_DECISIVE)
        first = next(decisive, "the format of recipes")
        return f"was begun with {first} = {theirs.get(first)!r}, and the recipe now says {mine.get(first)!r}"
    try:
        base = base_identity(recipe.base)
    except InputError:
        return None
    if saved.get("base_identity") != base:
        return f"was begun on another base than what {recipe.base} is now"
    return None


def base_identity(name_or_path: str) -> str:
    """What a base's weights, shape and vocabulary are, cheaply: sizes of its files, their beginnings and ends.

    Raises:
        InputError: there is no such base.
    """
    path = resolve_model(name_or_path)
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in _OF_A_MODEL)
    digest = xxhash.xxh3_128()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_ENOUGH))
            opened.seek(max(0, size - _ENOUGH))
            digest.update(opened.read(_ENOUGH))
    return digest.hexdigest()


def begin_run(run: Path, recipe: Recipe) -> None:
    """Make the folder of a new run; one that goes on is left as it is."""
    if (run / RECIPE).is_file():
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run} cannot be made ({error.strerror}); choose another --out") from error
    identities = {"hash": recipe.hash(), "base_identity": base_identity(recipe.base)}
    write_json(run / RECIPE, recipe.resolved() | identities)


def alone_in(run: Path) -> AbstractContextManager[None]:
    """No other process trains in a run's folder meanwhile.

    Raises:
        InputError: one does.
    """
    return locked(run / LOCK, f"another process is training {run}; wait for it, or stop it")


def read_recipe(run: Path) -> dict[str, Any]:
    """The resolved recipe of a run."""
    try:
        return json.loads((run / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{run} is no run: its {RECIPE} cannot be read ({error})") from error


def check_rows(run: Path, rows: Rows, expected: str, num_rows: int | None = None) -> None:
    """Refuse to go on with rows of another corpus or vocabulary, or of another length, than the run's."""
    if rows.fingerprint != expected or num_rows not in (None, len(rows)):
        raise InputError(
            f"{run / 'rows'} was compiled from another corpus, vocabulary or number of steps than the run's; "
            "bring the corpus back as it was, or train in another --out"
        )


def _flat(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value

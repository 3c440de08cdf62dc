"""`midspan docstring` and `midspan types`: infilling at the places of a Python file that want it."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated

import typer

from midspan.cli.generate import Json, MaxTokens, Model, decode, read
from midspan.errors import InputError

_DOCSTRING_EXAMPLES = """
Examples:

  midspan docstring runs/mine app/main.py:load

  midspan docstring runs/mine app/main.py:Reader.close --write
"""
_TYPES_EXAMPLES = """
Examples:

  midspan types runs/mine app/main.py

  midspan types runs/mine app/main.py --write
"""

Write = Annotated[bool, typer.Option("--write", help="Change the file; without it, print the difference.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("docstring", epilog=_DOCSTRING_EXAMPLES)(docstring)
    app.command("types", epilog=_TYPES_EXAMPLES)(types)


def docstring(
    model: Model,
    place: Annotated[
        str, typer.Argument(metavar="FILE:FUNCTION", help="A function, Class.method or class of a Python file.")
    ],
    max_tokens: MaxTokens = 128,
    write: Write = False,
    as_json: Json = False,
) -> None:
    """Write the docstring of a function."""
    name, colon, function = place.rpartition(":")
    if not colon or not name or not function:
        raise InputError(f"{place!r} is no place; write FILE:FUNCTION, such as app/main.py:Reader.close")
    file = Path(name)
    source = decode(read(file), str(file))
    from midspan.engine import annotate

    annotate.parsed(source, str(file))
    from midspan.engine import Engine

    changed = annotate.docstring(Engine.load(model), source, function, str(file), max_tokens=max_tokens)
    _show(file, source, changed, write, as_json, {"function": function})


def types(
    model: Model,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Python file.")],
    samples: Annotated[int, typer.Option(min=1, help="Types to try at each place.")] = 4,
    write: Write = False,
    as_json: Json = False,
) -> None:
    """Write the types that parameters and results of a Python file lack."""
    from rich.console import Console
    from rich.progress import Progress

    source = decode(read(file), str(file))
    from midspan.engine import annotate

    annotate.parsed(source, str(file))
    from midspan.engine import Engine

    engine = Engine.load(model)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("types", total=None)
        changed, added = annotate.types(
            engine,
            source,
            str(file),
            samples=samples,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    found = [{"place": one.place, "type": one.type} for one in added]
    _show(file, source, changed, write, as_json, {"types": found})


def _show(file: Path, source: str, changed: str, write: bool, as_json: bool, found: dict[str, object]) -> None:
    """Change the file, or print what would change."""
    before, after = source.splitlines(keepends=True), changed.splitlines(keepends=True)
    difference = "".join(difflib.unified_diff(before, after, fromfile=str(file), tofile=str(file)))
    if write and changed != source:
        from midspan.files import atomic_file

        with atomic_file(file) as aside:
            aside.write_bytes(changed.encode())
    if as_json:
        typer.echo(json.dumps({"file": str(file), "written": write, "diff": difference} | found))
    elif not difference:
        typer.echo(f"{file} stays as it is: nothing usable was found", err=True)
    else:
        typer.echo(f"{file} is changed" if write else difference, nl=write)

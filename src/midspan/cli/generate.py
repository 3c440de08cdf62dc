"""`midspan complete` and `midspan infill`: a model's text behind a prompt, or at a place of a file."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midspan.errors import InputError

if TYPE_CHECKING:
    from midspan.engine.prompts import AnyLayout

_COMPLETE_EXAMPLES = """
Examples:

  midspan complete smollm2-135m "def fibonacci(n):"

  midspan complete runs/mine - --max-tokens 200 --temperature 0.2 < prompt.txt
"""
_INFILL_EXAMPLES = """
Examples:

  midspan infill runs/mine app/main.py:12:5

  midspan infill runs/mine app/main.py:12:5 --layout psm --json
"""

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name, a checkpoint's path or a run's folder.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="Longest text to write, in tokens.")]
Temperature = Annotated[float, typer.Option(help="0 takes the most probable token, always.")]
TopP = Annotated[float, typer.Option(help="Choose among the most probable tokens that hold this share.")]
Seed = Annotated[int, typer.Option(help="Another seed, another text; the same seed, the same text.")]
Decoder = Annotated[
    str, typer.Option(help="Who writes tokens: auto, torch or fused (compiled for this CPU the first time).")
]
Bits = Annotated[int, typer.Option(help="The fused decoder's weights: 16, 8 or 4 bits.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]

_SHOWN_LINES = 5
"""Lines of the file that `infill` shows above the hole and below it."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("complete", epilog=_COMPLETE_EXAMPLES)(complete)
    app.command("infill", epilog=_INFILL_EXAMPLES)(infill)


def complete(
    model: Model,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="A text, or - to read standard input.")],
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    decoder: Decoder = "auto",
    bits: Bits = 8,
    as_json: Json = False,
) -> None:
    """Go on with a text."""
    from rich.console import Console
    from rich.text import Text

    from midspan.engine import Engine, SampleConfig

    sample = SampleConfig(temperature=temperature, top_p=top_p, seed=seed)
    if prompt == "-":
        prompt = decode(sys.stdin.buffer.read(), "standard input")
    found = Engine.load(model, **decoding(decoder, bits)).complete(prompt, max_tokens=max_tokens, sample=sample)
    if as_json:
        typer.echo(json.dumps({"prompt": prompt, "text": found.text, "finish_reason": found.finish_reason}))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble((prompt, "dim"), (found.text, "bold green")))


def infill(
    model: Model,
    place: Annotated[
        str,
        typer.Argument(
            metavar="FILE:LINE:COL",
            help="Where to write: before this character. Lines and columns count from 1, columns in characters.",
        ),
    ],
    layout: Annotated[str, typer.Option(help="Order of the parts: auto, spm, psm or line.")] = "auto",
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    decoder: Decoder = "auto",
    bits: Bits = 8,
    raw: Annotated[
        bool, typer.Option("--raw", help="End only where the model ends, even if it writes the suffix again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write what stands at a place of a file, between what is before and behind it."""
    from rich.console import Console
    from rich.text import Text

    from midspan.fim import LAYOUTS
    from midspan.fim.stops import INVOKED, StopRules

    at = Place.parse(place)
    prefix, suffix = at.split(decode(read(at.file), str(at.file)))
    known: tuple[AnyLayout, ...] = ("auto", *LAYOUTS)
    chosen = next((one for one in known if one == layout), None)
    if chosen is None:
        raise InputError(f"--layout is {layout!r}; the layouts are auto, {', '.join(LAYOUTS)}")
    from midspan.engine import Engine, SampleConfig

    sample = SampleConfig(temperature=temperature, top_p=top_p, seed=seed)
    engine = Engine.load(model, **decoding(decoder, bits))
    rules = StopRules() if raw else INVOKED
    found = engine.infill(prefix, suffix, layout=chosen, max_tokens=max_tokens, sample=sample, stops=rules)
    if as_json:
        result = {"file": str(at.file), "line": at.line, "column": at.column, "layout": chosen}
        result |= {"text": found.text, "finish_reason": found.finish_reason, "reason": found.reason}
        typer.echo(json.dumps(result))
        return
    above = "".join(prefix.splitlines(keepends=True)[-_SHOWN_LINES:])
    below = "".join(suffix.splitlines(keepends=True)[:_SHOWN_LINES])
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble((above, "dim"), (found.text, "bold green"), (below.rstrip("\n"), "dim")))


def decoding(decoder: str, bits: int) -> dict[str, Any]:
    """What `Engine.load` takes, once it is known to be something."""
    if decoder not in ("auto", "torch", "fused"):
        raise InputError(f"--decoder is {decoder!r}; it is auto, torch or fused")
    if bits not in (16, 8, 4):
        raise InputError(f"--bits is {bits}; weights have 16, 8 or 4 bits")
    return {"decoder": decoder, "bits": bits}


@dataclass(frozen=True)
class Place:
    """An insertion point of a file; line and column count from 1, the column in characters."""

    file: Path
    line: int
    column: int

    @staticmethod
    def parse(text: str) -> Place:
        """Read FILE:LINE:COL; the file's own name may hold colons."""
        found = re.fullmatch(r"(.+):([0-9]{1,9}):([0-9]{1,9})", text, re.DOTALL)
        if not found:
            raise InputError(f"{text!r} is no place; write FILE:LINE:COL, such as app/main.py:12:5")
        return Place(Path(found[1]), int(found[2]), int(found[3]))

    def split(self, text: str) -> tuple[str, str]:
        """The text before the place and behind it.

        Raises:
            InputError: the place lies outside the text.
        """
        lines = text.split("\n")
        if not 1 <= self.line <= len(lines):
            raise InputError(f"{self.file} has no line {self.line}; its lines are 1 to {len(lines)}")
        line = lines[self.line - 1].removesuffix("\r")
        if not 1 <= self.column <= len(line) + 1:
            raise InputError(
                f"line {self.line} of {self.file} has no column {self.column}; "
                f"its columns are 1 to {len(line) + 1}"
            )
        start = sum(len(line) + 1 for line in lines[: self.line - 1]) + self.column - 1
        return text[:start], text[start:]


def read(path: Path) -> bytes:
    """A file that a user named."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a text file") from error


def decode(data: bytes, name: str) -> str:
    """Text that a user named; InputError for what is none."""
    if b"\0" in data:
        raise InputError(f"{name} is binary (byte 0 at offset {data.index(0)}); name a text file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not UTF-8 (byte {data[error.start]:#04x} at offset {error.start}); convert it first"
        ) from error

"""`midspan chat`: a conversation with a model in the terminal."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from midspan.cli.generate import Bits, Decoder, Model, Seed, Temperature, TopP, decoding
from midspan.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from midspan.instruct.talk import Talk

_EXAMPLES = """
Examples:

  midspan chat smollm2-135m

  midspan chat runs/mine --system "Answer with code alone." --temperature 0.2
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("chat", epilog=_EXAMPLES)(chat)


def chat(
    model: Model,
    system: Annotated[str, typer.Option(help="What the model is told before everything else.")] = "",
    load: Annotated[Path | None, typer.Option(help="Go on with the last conversation of this file.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest answer, in tokens.")] = 512,
    temperature: Temperature = 0.2,
    top_p: TopP = 0.95,
    seed: Seed = 0,
    decoder: Decoder = "auto",
    bits: Bits = 8,
) -> None:
    """Chat with a model; /run executes the code of its answer in the sandbox, /help shows what else there is."""
    from rich.console import Console

    from midspan.engine import Engine, SampleConfig
    from midspan.instruct.talk import Talk

    sample = SampleConfig(temperature=temperature, top_p=top_p, seed=seed)
    options = decoding(decoder, bits)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with Console(stderr=True).status("loading"):
        talk = Talk(Engine.load(model, **options), system=system, max_tokens=max_tokens, sample=sample)
    if load is not None:
        talk.load(load)
    try:
        _converse(talk, console)
    finally:
        talk.close()


def _converse(talk: Talk, console: Console) -> None:
    """Read turns until there are no more."""
    is_terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a stray byte is no reason to lose the conversation
    if is_terminal:
        import readline  # noqa: F401, lines can be edited and come back with the arrow keys

        console.print(
            "/run executes the answer's code, /help shows more, Ctrl-C stops an answer, Ctrl-D ends.", style="dim"
        )
    while True:
        try:
            text = input("> " if is_terminal else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            console.print()
            continue
        if text in ("/exit", "/quit"):
            return
        try:
            if text.startswith("/"):
                _command(talk, console, text)
            elif text:
                _answer(talk, console, text)
        except InputError as error:
            console.print(str(error), style="red")


def _answer(talk: Talk, console: Console, text: str) -> None:
    dropped = talk.dropped
    try:
        for piece in talk.answer(text):
            console.print(piece, end="")
            console.file.flush()
    except KeyboardInterrupt:
        console.print(" (stopped)", style="dim", end="")
    console.print()
    if talk.dropped > dropped:
        console.print("(the oldest turns no longer fit the model and were left out)", style="dim")


def _command(talk: Talk, console: Console, text: str) -> None:
    from midspan.instruct.talk import HELP

    name, _, rest = text.partition(" ")
    rest = rest.strip()
    if name == "/run":
        if rest and not rest.isdecimal():
            raise InputError(f"/run {rest}: a piece of code has a number, such as /run 1")
        language, verdict = talk.run(int(rest) if rest else None)
        console.print(verdict.stdout, end="", style="green")
        console.print(verdict.stderr, end="", style="yellow")
        seconds = f"{verdict.cpu_seconds:.2f} CPU seconds"
        console.print(f"({language} {verdict.status}{f': {verdict.reason}' if verdict.reason else ''}, {seconds})")
    elif name == "/system":
        talk.system = rest
    elif name == "/undo":
        talk.undo()
    elif name == "/clear":
        talk.clear()
    elif name in ("/save", "/load"):
        if not rest:
            raise InputError(f"{name} needs the name of a file, such as {name} talk.jsonl")
        (talk.save if name == "/save" else talk.load)(Path(rest).expanduser())
    elif name == "/help":
        console.print(HELP)
    else:
        raise InputError(f"{text!r} is no command; /help shows them")

"""`midspan lsp`: the language server."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from midspan.cache import DEFAULT
from midspan.cli.generate import Bits, Decoder, decoding
from midspan.errors import InputError

if TYPE_CHECKING:
    from midspan.serve.lsp.suggest import Suggester

_EXAMPLES = """
Examples:

  midspan lsp runs/mine

  midspan lsp --server http://127.0.0.1:8012

  midspan lsp runs/mine --tcp 127.0.0.1:8013
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lsp", epilog=_EXAMPLES)(lsp)


def lsp(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="A name, a checkpoint's path or a run's folder.")
    ] = DEFAULT,
    server: Annotated[
        str | None,
        typer.Option(help="Ask a running `midspan serve` instead; its key is in MIDSPAN_API_KEY."),
    ] = None,
    tcp: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Listen there instead of on stdio.")] = None,
    decoder: Decoder = "auto",
    bits: Bits = 8,
) -> None:
    """Speak LSP with an editor: suggestions as ghost text or in a list, docstrings, types, explanations."""
    try:
        from midspan.serve.lsp.server import run
    except ModuleNotFoundError as error:
        raise InputError(f"the language server needs {error.name}; install `midspan[serve]`") from None
    from midspan.cache import resolve_model
    from midspan.model.weights import read_config

    where = _address(tcp)
    options = decoding(decoder, bits)
    if server is None:
        read_config(resolve_model(model))  # complains now rather than when the editor has said hello

    def open_suggester(stack: ExitStack) -> Suggester:
        from midspan.serve.lsp.suggest import Local, Remote

        if server is not None:
            return Remote(server, key=os.environ.get("MIDSPAN_API_KEY"))
        from midspan.engine import Engine

        engine = Engine.load(model, **options)
        stack.enter_context(engine.background())
        return Local(engine)

    run(open_suggester, server or model, where)


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"--tcp is {text!r}; write HOST:PORT, such as 127.0.0.1:8013")
    if host not in ("127.0.0.1", "localhost", "[::1]"):
        raise InputError(f"--tcp is {text!r}; a language server asks for no key, so it listens on 127.0.0.1 only")
    return host.strip("[]"), int(port)

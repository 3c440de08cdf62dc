"""`midspan serve`: models behind the interfaces that editors speak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midspan.cache import DEFAULT
from midspan.cli.generate import Bits, Decoder, decoding
from midspan.errors import InputError

_EXAMPLES = """
Examples:

  midspan serve runs/mine

  midspan serve midspan-135m --adapter ours=runs/mine/adapter --port 9000

  midspan serve runs/mine --host 0.0.0.0 --api-key-file keys.txt --requests-per-minute 600

  midspan serve ./codellama-7b --upstream http://gpu-box:8000
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", epilog=_EXAMPLES)(serve)


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Names, checkpoints' paths or runs' folders.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="An adapter, served as MODEL:NAME beside its base."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="What clients call each MODEL, in order; its last part if not given.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's want a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes any free one.")] = 8012,
    api_key_file: Annotated[Path | None, typer.Option(help="Keys that clients may use, one a line.")] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open-to-all", help="Listen beyond this machine without a key.")
    ] = False,
    requests_per_minute: Annotated[int, typer.Option(help="Of each key or address; 0 for any number.")] = 0,
    queue: Annotated[int, typer.Option(help="Texts that may wait; further requests get 429.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds after which a text ends as it is.")] = 120.0,
    max_body: Annotated[int, typer.Option(help="Bytes of a request.")] = 4 << 20,
    max_prompt: Annotated[int, typer.Option(help="Tokens of an infilling prompt.")] = 4096,
    layout: Annotated[str, typer.Option(help="Order of an infill's parts: auto, spm, psm or line.")] = "auto",
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A page's address whose scripts may ask, such as https://ide.example.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="Ask this server (vLLM, llama.cpp, OpenAI's) instead of computing here.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No log of requests.")] = False,
    decoder: Decoder = "auto",
    bits: Bits = 8,
) -> None:
    """Serve models to editors, by OpenAI's, Mistral's, llama.cpp's, Ollama's and Tabby's interfaces."""
    from rich.console import Console

    try:
        from midspan.serve.limits import read_keys
        from midspan.serve.opening import named_models
        from midspan.serve.server import serve as run
        from midspan.serve.settings import ServeConfig, known_layout
    except ModuleNotFoundError as error:
        raise InputError(f"serving needs {error.name}; install it with `pip install 'midspan[serve]'`") from None

    config = ServeConfig(
        host=host,
        port=port,
        keys=read_keys(api_key_file) if api_key_file is not None else (),
        open_to_all=open_to_all,
        requests_per_minute=requests_per_minute,
        queue=queue,
        timeout=timeout,
        max_body=max_body,
        max_prompt=max_prompt,
        layout=known_layout(layout),
        cors_origins=tuple(cors_origin or ()),
        log="none" if quiet else "json",
    )
    served = named_models(
        models or [DEFAULT], name or [], adapter or [], upstream=upstream, **decoding(decoder, bits)
    )
    console = Console(stderr=True, highlight=False)

    def started(url: str) -> None:
        console.print(
            f"{', '.join(served.names)} at [bold]{url}[/bold] (loading; {url}/health says when it answers)"
        )

    run(served, config, started=started)

"""The command line: one file per command group, no logic.

Exit codes: 0 done, 1 the work failed or was stopped, 2 bad usage or bad input. What a user can mend is told in
one sentence on standard error, without a traceback.
"""

from __future__ import annotations

import errno
import sys

import typer

from midspan import __version__
from midspan.cli import (
    annotate,
    chat,
    convert,
    corpus,
    evaluate,
    generate,
    instruct,
    lsp,
    models,
    plan,
    run,
    sandbox,
    serve,
    train,
)
from midspan.errors import InputError, WorkError

app = typer.Typer(
    name="midspan",
    help="Make your own code model by the Code Llama recipe: train it on your code, measure it, use it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models.app, name="models")
app.add_typer(corpus.app, name="corpus")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(instruct.app, name="instruct")
train.register(app)
plan.register(app)
run.register(app)
generate.register(app)
chat.register(app)
annotate.register(app)
evaluate.register(app)
serve.register(app)
lsp.register(app)
convert.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run a command and end the process with its exit code."""
    try:
        app()
    except InputError as error:
        _fail(error, 2)
    except WorkError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _fail("interrupted", 1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at {error.filename}" if error.filename else ""
        _fail(f"the disk is full{where}; make room and run the same command again: what is finished is kept", 1)


def _fail(error: Exception | str, code: int) -> None:
    print(f"midspan: {error}", file=sys.stderr)
    sys.exit(code)

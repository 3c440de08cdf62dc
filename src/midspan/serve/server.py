"""The process of a server: its address, its log, and its end.

SIGTERM and Ctrl-C let requests under way finish for a while; then they are cut, and the process ends with 0.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from midspan.errors import InputError
from midspan.serve.app import create_app
from midspan.serve.models import Models
from midspan.serve.settings import ServeConfig

_IDLE_SECONDS = 30
"""A connection without requests is closed after so long."""
_MOST_CONNECTIONS = 1024


class _Server(uvicorn.Server):
    """Uvicorn's server, which otherwise dies of the signal that it ended for."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(models: Models, config: ServeConfig, *, started: Callable[[str], None] = lambda url: None) -> None:
    """Serve until a signal comes.

    Args:
        models: loaded in the background, while /health already says so.
        config: where, for whom, and within which limits.
        started: called with the address once it is listened on.

    Raises:
        InputError: the address is taken, or is none of this machine's.
    """
    listening = _listen(config.host, config.port)
    log = logging.getLogger("midspan.serve")
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.setLevel(logging.INFO)
        log.propagate = False
    server = _Server(
        uvicorn.Config(
            create_app(models, config),
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=max(1, round(config.shutdown_timeout)),
        )
    )
    host, port = listening.getsockname()[:2]
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{host}:{port} cannot be listened on ({getattr(error, 'strerror', None) or error}); "
            "give another --host or --port"
        ) from None
    return listening

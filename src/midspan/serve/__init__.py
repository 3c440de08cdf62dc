"""Serving to editors: many HTTP dialects over one request, limits around them, and what is counted.

    app.py        the application: models, desk, guard and dialects put together
    guard.py      in front of every request: who asks, how often, how much
    desk.py       the engine's requests under way, for the event loop: in at most so many, out as text comes
    dialects/     one file per interface that clients speak; each only translates
    server.py     the process: addresses, keys, logs, a graceful end

Needs `pip install "midspan[serve]"`.
"""

from midspan.serve.app import create_app
from midspan.serve.models import Models, Served
from midspan.serve.settings import ServeConfig

__all__ = ["Models", "ServeConfig", "Served", "create_app"]

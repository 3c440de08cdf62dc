"""In front of every request: a name for it, who asks, from where, how often, how much, and how it ended.

    X-Request-Id ─► another address's page? ─► key ─► rate ─► body's size and time ─► application ─► log line

A browser lets any page send requests to a server on this machine, and takes names of other people's servers for
this machine's where they say so (DNS rebinding). So requests that come from a page of another address are refused
unless it was named, and without keys only this machine's own names are answered.

The log has one line of JSON a request: what was asked of whom, how much and how long, never a word of its content.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from midspan.serve.errors import ApiError, api_error, busy
from midspan.serve.limits import Keys, Rate
from midspan.serve.metrics import Metrics
from midspan.serve.settings import LOOPBACK, ServeConfig

log = logging.getLogger("midspan.serve")
OPEN = ("/", "/health", "/v1/health", "/favicon.ico")
"""What needs no key: the page itself, and whether the server lives."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, config: ServeConfig, metrics: Metrics) -> None:
        self._app, self._config, self._metrics = app, config, metrics
        self._keys, self._rate = Keys(config.keys), Rate(config.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, facts={})
        seen = _Seen(request_id, send)
        begun = time.perf_counter()
        try:
            asker = self._admit(scope, headers)
            scope["state"]["facts"]["asker"] = asker
            _as_json(scope)
            await self._app(scope, _Body(receive, self._config).receive, seen.send)
        except Exception as error:
            refusal = api_error(error)
            if refusal.status == 500:
                log.exception("request %s failed", request_id)
            if not seen.status:
                await seen.refuse(refusal)
        finally:
            self._note(scope, seen.status, time.perf_counter() - begun)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> str:
        """Who asks; an ApiError for who may not."""
        config = self._config
        host = _name(headers.get("host", ""))
        if not self._keys and config.host in LOOPBACK and host not in (*LOOPBACK, "testserver", ""):
            raise ApiError(
                403, f"this server answers on its own machine's names only, not as {host}", code="bad_host"
            )
        origin = headers.get("origin")
        if origin and origin not in config.cors_origins and urlsplit(origin).netloc != headers.get("host"):
            raise ApiError(
                403,
                f"pages of {origin} may not ask here; start the server with --cors-origin to let them",
                code="origin",
            )
        asker = (scope.get("client") or ("unknown", 0))[0]
        if scope["method"] == "OPTIONS" or _is_open(scope["path"]):
            return str(asker)
        if self._keys:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            name = self._keys.name_of(given)
            if name is None:
                self._metrics.refused.labels("key").inc()
                raise ApiError(
                    401,
                    "this server asks for a key; send one as `Authorization: Bearer KEY`",
                    kind="authentication_error",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            asker = name
        if seconds := self._rate.wait(str(asker)):
            self._metrics.refused.labels("rate").inc()
            limit = config.requests_per_minute
            raise busy(f"more than {limit} requests in a minute; ask again in {seconds} s", seconds)
        return str(asker)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if self._config.log == "json":
            facts: dict[str, Any] = {"id": scope["state"]["request_id"], "method": scope["method"], "route": route}
            facts |= {"status": status, "ms": round(1000 * seconds, 1)} | scope["state"]["facts"]
            log.info("%s", json.dumps(facts))


class _Seen:
    """What was sent; every answer gets its request's name."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.status = 0
        """0 until an answer has begun."""
        self._id, self._send = request_id, send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kept = [(k, v) for k, v in message.get("headers", []) if k.lower() != b"x-request-id"]
            safe = [(b"x-request-id", self._id.encode()), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*kept, *safe]}
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        body = json.dumps(error.body()).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        pairs = [(k.lower().encode(), v.encode()) for k, v in (headers | dict(error.headers or {})).items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})


class _Body:
    """A request's body as it arrives: not more than allowed, and not for ever."""

    def __init__(self, receive: Receive, config: ServeConfig) -> None:
        self._receive, self._config = receive, config
        self._size = 0
        self._whole = False
        self._deadline = time.monotonic() + config.body_timeout

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # what comes now is the client's leaving
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            raise ApiError(408, f"the request did not arrive within {self._config.body_timeout:g} s") from None
        self._size += len(message.get("body", b""))
        if self._size > self._config.max_body:
            raise ApiError(
                413, f"a request may have {self._config.max_body} bytes; send less", code="body_too_large"
            )
        self._whole = not message.get("more_body", False)
        return message


def _as_json(scope: Scope) -> None:
    """`curl -d` calls its body a form, and Ollama's users write it so; every body here is JSON."""
    if scope["method"] == "POST":
        kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-type"]
        scope["headers"] = [*kept, (b"content-type", b"application/json")]


def _name(host: str) -> str:
    """A Host header without its port."""
    return urlsplit(f"//{host}").hostname or ""


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith("/playground/")

"""A server that is asked over HTTP: one JSON request, and its answer whole or as events."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from midspan.errors import InputError, WorkError


class Server:
    """Where requests go; every request has a connection of its own, which closing cancels."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 60.0) -> None:
        """
        Args:
            url: such as http://127.0.0.1:8000; a trailing /v1 is taken off.
            api_key: sent as a bearer token.
            timeout: seconds without an answer.

        Raises:
            InputError: the URL is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url!r} is no address of a server; write http://HOST:PORT")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._parts, self._key, self._timeout = urlsplit(self.url), api_key, timeout

    @property
    def is_here(self) -> bool:
        """Whether what is sent stays on this machine."""
        return self._parts.hostname in ("localhost", "127.0.0.1", "::1")

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """One HTTP request.

        Raises:
            WorkError: the server does not answer.
        """
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=self._timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self._key is not None:
            sent["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, self._parts.path + path, data, sent)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise WorkError(f"{self.url} does not answer ({error}); start the server, or name another") from None

    def get(self, path: str) -> dict[str, Any] | None:
        """The JSON object at a path; None where there is none.

        Raises:
            WorkError: the server does not answer, or not yet.
        """
        connection, response = self.request("GET", path, None)
        if response.status == 503:
            connection.close()
            raise WorkError(f"{self.url} is not ready yet (503); ask again in a moment")
        try:
            found = json.loads(response.read() or b"null") if response.status == 200 else None
        except ValueError:
            found = None
        finally:
            connection.close()
        return found if isinstance(found, dict) else None

    def first_model(self) -> str:
        """The first model that the server names. InputError where it names none."""
        data = (self.get("/v1/models") or {}).get("data") or []
        if not data:
            raise InputError(f"{self.url} names no model; give the name that it is served under")
        return str(data[0]["id"])

    def events(
        self, path: str, body: Mapping[str, Any]
    ) -> tuple[http.client.HTTPConnection, Iterator[dict[str, Any]]]:
        """Send a request and read the events of its answer.

        Raises:
            WorkError: the server does not answer, or refuses; with its own words.
        """
        connection, response = self.request("POST", path, body)
        if response.status != 200:
            said = error_text(response.read(2000))
            connection.close()
            raise WorkError(f"{self.url} refuses the request ({response.status}: {said})")
        return connection, _server_sent(response)


def error_text(data: bytes) -> str:
    """What a server says was wrong, in a line."""
    said = data.decode(errors="replace")
    try:
        error = json.loads(said)
        error = error.get("error", error)
        said = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        pass
    return " ".join(said.split())[:300]


def _server_sent(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The JSON of each event of a stream."""
    while line := response.readline():
        name, _, data = line.decode(errors="replace").strip().partition(":")
        if name == "data" and data.strip() and data.strip() != "[DONE]":
            yield json.loads(data)
        elif name == "error":
            yield {"error": data.strip()}

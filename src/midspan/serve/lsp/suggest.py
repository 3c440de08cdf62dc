"""Where suggestions come from: an engine in this process, with a session for each file, or a running server.

Both end their work within a step when the editor takes a request back.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from midspan.engine import Completion, Engine, Handle
from midspan.engine import annotate as annotating
from midspan.engine.session import Session
from midspan.errors import InputError, WorkError
from midspan.fim.stops import EDITOR, INVOKED, is_trifle
from midspan.serve.lsp.document import change
from midspan.serve.news import listening
from midspan.tokenizer.chat import Message

MAX_TOKENS, INVOKED_TOKENS = 64, 128
"""Of a suggestion that comes by itself, and of one that was asked for."""
EXPLAIN = "Explain what this code does, briefly:\n\n"


class Suggester(Protocol):
    """What writes."""

    async def suggest(self, path: str, text: str, cursor: int, files: Mapping[str, str], *, invoked: bool) -> str:
        """What to write at a place of a file.

        Args:
            path: of the file.
            text: of the file.
            cursor: in characters.
            files: path → text of other files that are open.
            invoked: somebody asked for it; one that comes by itself is shorter, and no trifle.
        """

    async def docstring(self, path: str, text: str, function: str) -> str:
        """The file with a docstring in a function.

        Raises:
            InputError, WorkError: as `annotate.docstring`.
        """

    async def types(self, path: str, text: str) -> str:
        """The file with the types that it lacks."""

    async def explain(self, code: str) -> str:
        """What code does, in words."""

    def close(self, path: str) -> None:
        """A file was closed."""


async def finished(handle: Handle, news: asyncio.Event) -> Completion:
    """The end of a request whose `on_news` sets `news`; a task that is cancelled ends the request."""
    try:
        while not handle.done:
            await news.wait()
            news.clear()
        return handle.result()
    finally:
        if not handle.done:
            handle.cancel()


class Local:
    """An engine in this process; somebody keeps its `background`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    async def suggest(self, path: str, text: str, cursor: int, files: Mapping[str, str], *, invoked: bool) -> str:
        """See `Suggester.suggest`."""
        news, wake = listening()

        def ask() -> tuple[Session, Handle | str]:
            with self._lock:
                session = self._sessions.get(path)
                if session is None:
                    session = self._sessions[path] = Session(self._engine, path)
                    session.open(text, cursor)
                else:
                    change(session, text, cursor)
                session.files = files
                if (standing := session.standing()) is not None:
                    return session, "" if is_trifle(standing.text) and not invoked else standing.text
                budget, stops = (INVOKED_TOKENS, INVOKED) if invoked else (MAX_TOKENS, EDITOR)
                return session, session.ask(max_tokens=budget, stops=stops, on_news=wake)

        session, asked = await asyncio.to_thread(ask)
        if isinstance(asked, str):
            return asked
        completion = await finished(asked, news)
        if completion.finish_reason == "cancelled":
            return ""
        with self._lock:
            if (session.text, session.cursor) == (text, cursor):
                session.taken(completion)
        return completion.text

    async def docstring(self, path: str, text: str, function: str) -> str:
        """See `Suggester.docstring`."""
        return await asyncio.to_thread(annotating.docstring, self._engine, text, function, path)

    async def types(self, path: str, text: str) -> str:
        """See `Suggester.types`."""
        return (await asyncio.to_thread(annotating.types, self._engine, text, path))[0]

    async def explain(self, code: str) -> str:
        """See `Suggester.explain`."""
        request = self._engine.chatting([Message("user", EXPLAIN + code)], max_tokens=256)
        news, wake = listening()
        handle = self._engine.submit(request, wake)
        return (await finished(handle, news)).text.strip()

    def close(self, path: str) -> None:
        """See `Suggester.close`."""
        with self._lock:
            self._sessions.pop(path, None)


class Remote:
    """A running `midspan serve`."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 60.0) -> None:
        """
        Raises:
            InputError: the URL is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url!r} is no address of a server; write http://HOST:PORT")
        self._parts, self._timeout = parts, timeout
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    async def suggest(self, path: str, text: str, cursor: int, files: Mapping[str, str], *, invoked: bool) -> str:
        """See `Suggester.suggest`."""
        body: dict[str, Any] = {"input_prefix": text[:cursor], "input_suffix": text[cursor:]}
        body |= {"n_predict": INVOKED_TOKENS if invoked else MAX_TOKENS, "session": path[-200:], "temperature": 0}
        body["stop_rules"] = "invoked" if invoked else "editor"
        body["input_extra"] = [{"filename": name, "text": other} for name, other in files.items()]
        return str((await self._post("/infill", body))["content"])

    async def docstring(self, path: str, text: str, function: str) -> str:
        """See `Suggester.docstring`."""
        body = {"source": text, "path": path, "function": function}
        return str((await self._post("/v1/code/docstring", body))["source"])

    async def types(self, path: str, text: str) -> str:
        """See `Suggester.types`."""
        return str((await self._post("/v1/code/types", {"source": text, "path": path}))["source"])

    async def explain(self, code: str) -> str:
        """See `Suggester.explain`."""
        messages = [{"role": "user", "content": EXPLAIN + code}]
        answer = await self._post(
            "/v1/chat/completions", {"messages": messages, "max_tokens": 256, "temperature": 0}
        )
        return str(answer["choices"][0]["message"]["content"]).strip()

    def close(self, path: str) -> None:
        """See `Suggester.close`; the server forgets by itself."""

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)

        def ask() -> dict[str, Any]:
            try:
                data = json.dumps(body).encode()
                connection.request("POST", self._parts.path.rstrip("/") + path, data, self._headers)
                answer = connection.getresponse()
                found = json.loads(answer.read())
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise WorkError(
                    f"{self._parts.netloc} does not answer ({error}); is `midspan serve` running?"
                ) from None
            if answer.status != 200:
                raise WorkError(str(found.get("error", {}).get("message", found)))
            return dict(found)

        try:
            return await asyncio.to_thread(ask)
        finally:
            connection.close()  # a request that is taken back ends there too

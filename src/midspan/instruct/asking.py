"""Who is asked, and how nothing is paid for twice.

    Ask ──▶ Paid ──▶ ledger: there already?  ── no ──▶ Asker: a model here, or a server ──▶ ledger ──▶ texts

A request's key is the hash of everything that decides its answer: the model's identity, messages, sampling, and
how many texts. An answer is in the ledger before anyone sees it, so a command that was killed goes on with what it
had; what was under way at that moment is asked again, with the same `Idempotency-Key` for servers that know the
header. A server may give fewer texts than were asked for; the rest is asked for by itself.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from midspan.cache import resolve_model
from midspan.engine.front import Front
from midspan.engine.request import GREEDY
from midspan.engine.sample import SampleConfig
from midspan.engine.server import Server, error_text
from midspan.errors import InputError, WorkError
from midspan.instruct.ledger import Ledger, key_of
from midspan.tokenizer.chat import Message

_RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_TRIES = 6
_REFUSED = (400, 413, 422)
_MOST_REFUSED = 8


class RefusedError(WorkError):
    """One request that cannot be answered: too long for the model, or not to a server's liking."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a model is asked."""

    messages: tuple[Message, ...]
    number: int = 1
    """Texts that are wanted."""
    max_tokens: int = 1024
    sample: SampleConfig = GREEDY

    def key(self, identity: str) -> str:
        """The name of its answer in a ledger."""
        return key_of([identity, asdict(self)])


class Asker(Protocol):
    """A model that answers."""

    identity: str
    """What decides its answers, beside what is asked."""

    def ask(self, ask: Ask, key: str) -> list[str]:
        """One or more texts, at most as many as were asked for.

        Raises:
            RefusedError: it cannot answer this.
            WorkError: it cannot answer at all.
        """


class Here:
    """A model in this process, loaded when it is first asked."""

    def __init__(self, identity: str, load: Callable[[], Front]) -> None:
        self.identity, self._load = identity, load
        self._front: Front | None = None
        self._lock = threading.Lock()

    @staticmethod
    def of(model: str, load: Callable[[], Front]) -> Here:
        """The model of a name or path, known by its files. InputError where there is none."""
        path = resolve_model(model)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        known = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]
        return Here(f"{path.resolve()} {key_of(known)}", load)

    def ask(self, ask: Ask, key: str) -> list[str]:
        """See `Asker.ask`."""
        with self._lock:
            if self._front is None:
                self._front = self._load()
        front = self._front
        try:
            request = front.chatting(ask.messages, max_tokens=ask.max_tokens, sample=ask.sample, drafts=None)
            return [completion.text for completion in front.samples(request, ask.number)]
        except InputError as error:
            raise RefusedError(str(error)) from None


class Endpoint:
    """A server with OpenAI's chat completions: vLLM, llama.cpp's, a hosted one, or `midspan serve`."""

    def __init__(self, server: Server, model: str | None = None, *, pause: float = 1.0) -> None:
        """
        Args:
            server: where it is.
            model: the name that it is served under; the first one that the server names if None.
            pause: seconds before a request that failed is sent again, doubled each time.

        Raises:
            InputError: the server names no model.
            WorkError: the server does not answer.
        """
        self.server, self._pause = server, pause
        self.model = model if model is not None else server.first_model()
        self.identity = f"{server.url} {self.model}"

    def ask(self, ask: Ask, key: str) -> list[str]:
        """See `Asker.ask`."""
        sample = ask.sample
        body = {
            "model": self.model,
            "messages": [asdict(message) for message in ask.messages],
            "n": ask.number,
            "max_tokens": ask.max_tokens,
            "temperature": sample.temperature,
            "top_p": sample.top_p,
            "seed": sample.seed % 2**31,
        }
        for attempt in range(_TRIES):
            status, data, after = self._post(body, key)
            if status == 200:
                return _texts(data, self.server.url)
            if status not in _RETRIED:
                break
            if attempt < _TRIES - 1:
                time.sleep(min(60.0, self._pause * 2**attempt if after is None else after))
        said = f"{self.server.url} refuses the request ({status}: {error_text(data)})"
        if status in _REFUSED:
            raise RefusedError(said)
        raise WorkError(f"{said}; what was answered is kept: run the same command again to go on")

    def _post(self, body: dict[str, Any], key: str) -> tuple[int, bytes, float | None]:
        """Status, body and `Retry-After` of an answer; 503 where there was none."""
        headers = {"Idempotency-Key": key}
        try:
            connection, response = self.server.request("POST", "/v1/chat/completions", body, headers)
        except WorkError as error:
            return 503, str(error).encode(), None
        try:
            after = response.headers.get("Retry-After", "")
            return response.status, response.read(), float(after) if after.isdecimal() else None
        except (OSError, http.client.HTTPException) as error:
            return 503, str(error).encode(), None
        finally:
            connection.close()


def _texts(data: bytes, url: str) -> list[str]:
    try:
        return [choice["message"].get("content") or "" for choice in json.loads(data)["choices"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WorkError(f"{url} gives no chat completions ({error_text(data[:2000])}); name another") from None


class Paid:
    """A model and the ledger of its answers."""

    def __init__(self, asker: Asker, ledger: Ledger) -> None:
        self._asker, self._ledger = asker, ledger
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Lock] = {}
        self.paid = self.known = 0
        """Requests that were sent, and those whose answers were there."""

    def texts(self, ask: Ask) -> list[str]:
        """As many texts as are asked for. Raises as `Asker.ask`."""
        found: list[str] = []
        while len(found) < ask.number:
            sample = replace(ask.sample, seed=(ask.sample.seed + len(found)) % 2**64)
            more = self._once(replace(ask, number=ask.number - len(found), sample=sample))
            if not more:
                raise RefusedError("the server answered without a text")
            found += more
        return found[: ask.number]

    def _once(self, ask: Ask) -> list[str]:
        key = ask.key(self._asker.identity)
        with self._lock:
            turn = self._under_way.setdefault(key, threading.Lock())
        with turn:  # two equal requests at a time are one
            known: list[str] | None = self._ledger.get(key)
            if known is None:
                answered = self._asker.ask(ask, key)
                self._ledger.put(key, answered)
        with self._lock:
            self._under_way.pop(key, None)
            self.paid, self.known = self.paid + (known is None), self.known + (known is not None)
        return answered if known is None else known


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of the request with this number."""

    number: int
    texts: list[str]
    refused: str = ""
    """Why there are none."""


def answers(paid: Paid, asks: Iterable[Ask], parallel: int) -> Iterator[Answer]:
    """Ask many things, a number of them at a time; answers in the order of completion.

    Leaving early waits for what is under way, since it is paid for.

    Raises:
        WorkError: the model cannot answer, or refused every one of the first requests.
    """
    numbered = enumerate(asks)
    under_way: dict[Future[list[str]], int] = {}
    refused = answered = 0
    with ThreadPoolExecutor(parallel, thread_name_prefix="asking") as pool:
        try:
            while True:
                while len(under_way) < 2 * parallel and (entry := next(numbered, None)) is not None:
                    under_way[pool.submit(paid.texts, entry[1])] = entry[0]
                if not under_way:
                    return
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    number = under_way.pop(done)
                    try:
                        answer = Answer(number=number, texts=done.result())
                        answered += 1
                    except RefusedError as error:
                        refused += 1
                        if not answered and refused >= _MOST_REFUSED:
                            raise WorkError(f"the first {refused} requests were refused: {error}") from None
                        answer = Answer(number=number, texts=[], refused=str(error))
                    yield answer
        finally:
            for future in under_way:
                future.cancel()


def open_asker(
    model: str | None,
    endpoint: str | None,
    *,
    load: Callable[[str], Front],
    api_key_file: Path | None = None,
    timeout: float = 600.0,
) -> Asker:
    """Who is meant: a server where one is named, else a model here.

    Args:
        model: a name or path; at a server the name that it is served under.
        endpoint: the server's address.
        load: opens a model here.
        api_key_file: holds the server's key.
        timeout: seconds without an answer.

    Raises:
        InputError: neither is named, or what is named is not there.
        WorkError: the server does not answer.
    """
    if endpoint is None:
        if model is None:
            raise InputError("nobody is named to ask; give --model NAME_OR_PATH, or --endpoint http://HOST:PORT")
        return Here.of(model, lambda: load(model))
    key = None
    if api_key_file is not None:
        try:
            key = api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise InputError(f"{api_key_file} cannot be read ({error}); name a file that holds the key") from None
    return Endpoint(Server(endpoint, api_key=key, timeout=timeout), model)


def conversation(*said: str) -> tuple[Message, ...]:
    """Texts by turns, the first the user's."""
    return tuple(Message("assistant" if place % 2 else "user", text) for place, text in enumerate(said))

"""Engines elsewhere: vLLM, llama.cpp's server, or whatever speaks OpenAI's completions.

What these servers lack stays here, in front of them: the sentinels of every family and their order, windows, token
healing, stops inside the text. They get token ids, so nothing that a file says is taken for a sentinel, and no
template of theirs comes in between.

                   prompt   healing                         ends
    vllm           ids      allowed_token_ids, by token     stop_token_ids
    llama.cpp      ids      a grammar: what is owed first   ids as they come
    openai         ids      logit_bias, by token            stop strings

Each reuses the beginning of a prompt by itself (vLLM in blocks, llama.cpp by token), so the order of the parts
matters there as it does here. A request is cancelled by closing its connection.
"""

from __future__ import annotations

import codecs
import http.client
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from midspan.engine.front import Front
from midspan.engine.request import Completion, FinishReason, Handle, Reason, Request, Usage
from midspan.engine.server import Server
from midspan.errors import InputError, WorkError
from midspan.fim.stops import Stopper, StopRules
from midspan.tokenizer import Tokenizer

Kind = Literal["vllm", "llama.cpp", "openai"]
_MOST_BIASED = 300
"""Ids that OpenAI's servers take a bias for."""


class RemoteEngine(Front):
    """A server behind the engine's own interface."""

    def __init__(
        self,
        url: str,
        tokenizer: Tokenizer,
        *,
        kind: Kind | None = None,
        model: str | None = None,
        api_key: str | None = None,
        max_positions: int = 4096,
        timeout: float = 60.0,
    ) -> None:
        """
        Args:
            url: such as http://127.0.0.1:8000; a trailing /v1 is taken off.
            tokenizer: the vocabulary of the model that is served.
            kind: what the server is; it is asked if None.
            model: the name that it is served under; the first one that the server names if None.
            api_key: sent as a bearer token.
            max_positions: of the model, as it is served.
            timeout: seconds without an answer.

        Raises:
            InputError: the URL or the kind is none.
            WorkError: the server does not answer.
        """
        self.server = Server(url, api_key=api_key, timeout=timeout)
        if kind is not None and kind not in get_args(Kind):
            raise InputError(f"there is no kind of server {kind!r}; use {', '.join(get_args(Kind))}")
        super().__init__(tokenizer, max_positions=max_positions, speculate=False)
        self.url = self.server.url
        self.kind: Kind = kind or self._detect()
        self.model = model if model is not None or self.kind == "llama.cpp" else self.server.first_model()

    def match(self, prompt: Sequence[int]) -> int:
        """See `Front.match`; other people's caches are not known."""
        return 0

    def submit(self, request: Request, on_news: Callable[[], None] | None = None) -> Handle:
        """Send a request; its text comes as the server writes it, read by a thread where `on_news` is given.

        Raises:
            InputError: the request cannot be asked, or not of this server.
            WorkError: the server does not answer, or refuses.
        """
        self._check(request)
        if request.constraint is not None or request.example is not None:
            raise InputError(f"{self.kind} at {self.url} takes no constraint or example; use an engine here")
        stream = _Stream(self, request)
        if on_news is None:
            return Handle(request, stream.advance, stream.close)
        handle = Handle(request, stream.advance, stream.close, on_news)
        threading.Thread(target=stream.read_all, args=(handle,), daemon=True).start()
        return handle

    def _detect(self) -> Kind:
        """What the server is, by what only it answers."""
        if self.server.get("/props") is not None:
            return "llama.cpp"
        return "vllm" if "version" in (self.server.get("/version") or {}) else "openai"


class _Stream:
    """One request at a server."""

    def __init__(self, engine: RemoteEngine, request: Request) -> None:
        self._engine, self._request = engine, request
        self._stopper = Stopper(self._rules(), request.prefix, request.suffix)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ids: list[int] = []
        self._to_skip = len(request.owed)
        self._usage = Usage(prompt=len(request.prompt))
        self._closed = False
        self._first, prompt, owed, left = "", list(request.prompt), request.owed, request.max_tokens
        if owed and engine.kind != "llama.cpp":
            prompt, self._first = self._heal(prompt, owed)
        elif owed and not _is_text(owed):
            prompt += engine.healer.spell(owed)
            self._to_skip = 0
        path, body = self._body(prompt, left)
        self._connection, self._events = engine.server.events(path, body)

    def close(self) -> None:
        """End the request: servers stop when nobody listens."""
        self._closed = True
        self._connection.close()

    def read_all(self, handle: Handle) -> None:
        """Read every event."""
        try:
            while not handle.done:
                self.advance(handle, False)
        except Exception as error:
            handle.fail(error)

    def advance(self, handle: Handle, whole: bool) -> None:
        """Read the next event."""
        handle.put(self._stopper.push(self._first))
        self._first = ""
        try:
            event = next(self._events, None) if not handle.is_cancelled and self._stopper.reason is None else None
        except (OSError, ValueError, http.client.HTTPException, AttributeError) as error:
            if not handle.is_cancelled:
                self.close()
                raise WorkError(f"{self._engine.url} broke off ({error}); ask again") from None
            event = None
        if handle.is_cancelled:
            self._finish(handle, "cancelled")
        elif self._stopper.reason is not None:
            self._finish(handle, self._stopper.reason)
        elif event is None:
            self._finish(handle, "eot")
        elif (reason := self._take(handle, event)) is not None:
            self._finish(handle, reason)

    def _take(self, handle: Handle, event: dict[str, Any]) -> Reason | None:
        """Add what an event brings; the reason if it is the last one."""
        if "error" in event:
            self.close()
            error = event["error"]
            said = error.get("message", error) if isinstance(error, dict) else error
            raise WorkError(f"{self._engine.url} failed ({said}); ask again")
        self._count(event)
        if self._engine.kind == "llama.cpp":
            for token_id in event.get("tokens") or []:
                if token_id in self._request.stop_ids:
                    return "eot"
                self._ids.append(token_id)
                data = self._engine.tokenizer.piece_bytes(token_id)
                new = data[self._to_skip :]
                self._to_skip -= len(data) - len(new)
                handle.put(self._stopper.push(self._decoder.decode(new)))
            if event.get("stop"):
                return "length" if event.get("stop_type") == "limit" or event.get("stopped_limit") else "eot"
            return None
        for choice in event.get("choices") or []:
            handle.put(self._stopper.push(choice.get("text") or ""))
            if choice.get("finish_reason") is not None:
                return "length" if choice["finish_reason"] == "length" else "eot"
        return None

    def _finish(self, handle: Handle, reason: Reason) -> None:
        if reason == "eot" or reason == "length":
            for event in () if self._closed or self._engine.kind == "llama.cpp" else self._events:
                self._count(event)  # usage comes behind the end
        self._connection.close()
        handle.put(self._stopper.push(self._decoder.decode(b"", final=True)))
        handle.put(self._stopper.end(complete=reason == "eot"))
        text = self._stopper.text
        if self._stopper.reason is not None and reason == "eot":
            reason = self._stopper.reason
        if reason == "string" and not self._request.stops.strings:
            reason = "eot"  # the name of a sentinel
        finish: FinishReason = "stop"
        if reason in ("length", "cancelled"):
            finish = "length" if reason == "length" else "cancelled"
        ids = self._ids or self._engine.tokenizer.encode(text, leading_space=False)
        handle.finish(Completion(ids, text, finish, None, reason, None, self._usage))

    def _count(self, event: Mapping[str, Any]) -> None:
        """What a server says of its work."""
        timings, usage = event.get("timings") or {}, event.get("usage") or {}
        if "prompt_n" in timings:
            self._usage.evaluated = timings["prompt_n"] + timings.get("predicted_n", 0)
            self._usage.cached = timings.get("cache_n", self._usage.prompt - timings["prompt_n"])
            self._usage.drafted = timings.get("draft_n", 0)
            self._usage.accepted = timings.get("draft_n_accepted", 0)
        elif "prompt_tokens" in usage:
            self._usage.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            self._usage.evaluated = usage["prompt_tokens"] - self._usage.cached + usage.get("completion_tokens", 0)

    def _rules(self) -> StopRules:
        """The rules, with the sentinels' names for servers that give text: none of them may come through."""
        rules, engine = self._request.stops, self._engine
        if engine.kind == "llama.cpp":
            return rules
        names = [engine.tokenizer.piece(i) for i in sorted(self._request.stop_ids)]
        names = [name for name in names if name][:256] + [
            name.lstrip("▁") for name in names if name.startswith("▁<")
        ]
        return replace(rules, strings=(*rules.strings, *filter(None, dict.fromkeys(names))))

    def _body(self, prompt: list[int], max_tokens: int) -> tuple[str, dict[str, Any]]:
        """The path and the request in the server's own words."""
        engine, sample = self._engine, self._request.sample
        body: dict[str, Any] = {
            "prompt": prompt,
            "stream": True,
            "temperature": sample.temperature,
            "top_p": sample.top_p,
            "presence_penalty": sample.presence_penalty,
            "frequency_penalty": sample.frequency_penalty,
            "seed": (sample.seed + self._request.copy) % 2**31,
        }
        if engine.kind == "llama.cpp":
            body |= {"n_predict": max_tokens, "cache_prompt": True, "return_tokens": True}
            body |= {"top_k": sample.top_k, "min_p": sample.min_p, "repeat_penalty": sample.repetition_penalty}
            body["logit_bias"] = [[i, bias if bias > -1e30 else False] for i, bias in sample.logit_bias.items()]
            if self._request.owed and _is_text(self._request.owed):
                body["n_predict"] = max_tokens + len(self._request.owed)
                body["grammar"] = f"root ::= {_quoted(self._request.owed.decode())} ([^\\x00] | [\\n])*"
            return "/completion", body
        body |= {"model": engine.model, "max_tokens": max_tokens, "stream_options": {"include_usage": True}}
        body["logit_bias"] = {str(i): max(-100.0, bias) for i, bias in sample.logit_bias.items()}
        if engine.kind == "vllm":
            body |= {
                "top_k": sample.top_k or -1,
                "min_p": sample.min_p,
                "repetition_penalty": sample.repetition_penalty,
            }
            body |= {"stop_token_ids": sorted(self._request.stop_ids)}
        return "/v1/completions", body

    def _heal(self, prompt: list[int], owed: bytes) -> tuple[list[int], str]:
        """Write what is owed, one allowed token at a time; the prompt behind it, and what is new already."""
        engine, new = self._engine, b""
        while owed:
            allowed = engine.healer.allowed(owed).tolist()
            if engine.kind == "openai" and len(allowed) > _MOST_BIASED:
                return prompt + engine.healer.spell(owed), ""
            path, body = self._body(prompt, 1)
            if engine.kind == "vllm":
                body["allowed_token_ids"] = allowed
            else:
                body["logit_bias"] = dict.fromkeys(map(str, allowed), 100)
            connection, events = engine.server.events(path, body)
            text = "".join(choice.get("text") or "" for event in events for choice in event.get("choices") or [])
            connection.close()
            token_id = next((i for i in allowed if engine.tokenizer.piece_bytes(i) == text.encode()), None)
            if token_id is None:  # half a character, or a server that takes no bias
                return prompt + engine.healer.spell(owed), ""
            prompt = [*prompt, token_id]
            data = engine.tokenizer.piece_bytes(token_id)
            new, owed = data[len(owed) :], owed[len(data) :]
        return prompt, new.decode(errors="replace")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(text: str) -> str:
    """A literal of llama.cpp's grammars."""
    plain = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(plain.get(c, c) for c in text) + '"'

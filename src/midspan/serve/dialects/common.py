"""What all dialects need: the application's parts, sampling in everybody's words, streams."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from fastapi import Request as HttpRequest
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from midspan.engine import Completion, Request, SampleConfig
from midspan.engine.prompts import AnyLayout
from midspan.errors import InputError
from midspan.fim.stops import EDITOR, INVOKED, StopRules
from midspan.serve.desk import Desk, Timing, Work
from midspan.serve.errors import ApiError, api_error
from midspan.serve.models import Models, Served

NO_RULES = StopRules()
PING_SECONDS = 15.0
"""A stream that is silent for so long says that it lives."""
MOST_STOPS = 16


class Parts:
    """What an application is made of, as dialects use it."""

    def __init__(self, models: Models, desk: Desk) -> None:
        self.models, self.desk, self.config = models, desk, desk.config


class Body(BaseModel):
    """A request of any dialect; fields that are not known are left alone."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=2**31 - 1)
    min_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    stream: bool | None = None
    deadline_ms: float | None = Field(None, gt=0)
    """Milliseconds after which the text ends as it is, the reading of the prompt included."""
    session: str | None = Field(None, max_length=200)
    """A newer request of the same session cancels this one."""

    def sample(self, temperature: float, **others: Any) -> SampleConfig:
        """How tokens are chosen, with a dialect's own default for the temperature."""
        given = {
            name: value
            for name in ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty")
            if (value := getattr(self, name)) is not None
        }
        seed = secrets.randbits(63) if self.seed is None or self.seed == -1 else self.seed % 2**64
        return SampleConfig(
            **{"temperature": temperature, "top_k": max(0, self.top_k or 0), "seed": seed} | given | others
        )

    def strings(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        found = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(found) > MOST_STOPS:
            raise ApiError(400, f"stop has {len(found)} strings; at most {MOST_STOPS} are taken", param="stop")
        return tuple(text for text in found if text)

    def options(self) -> dict[str, Any]:
        """Fields of the engine's request that every dialect has."""
        deadline = None if self.deadline_ms is None else self.deadline_ms / 1000
        return {"deadline": deadline, "session": self.session}


class StreamOptions(BaseModel):
    """What a stream has beside its text."""

    include_usage: bool = False


class InfillBody(Body):
    """What an infill can be asked in beside."""

    layout: AnyLayout | None = None
    """Order of the parts; the server's own choice where it is not given."""
    stop_rules: Literal["editor", "invoked", "none"] = "editor"
    """Whether a text ends where it repeats the suffix, leaves the block, closes brackets or goes in circles.
    `editor` also leaves out what only closes a bracket or two, `invoked` does not."""

    def rules(self, **others: Any) -> StopRules:
        """What ends the text beside the model's own end."""
        base = {"editor": EDITOR, "invoked": INVOKED, "none": NO_RULES}[self.stop_rules]
        return replace(base, strings=(*base.strings, *self.strings()), **others)


def infill_request(
    parts: Parts, served: Served, body: InfillBody, prefix: str, suffix: str, max_tokens: int, **options: Any
) -> Request:
    """The engine's request for what stands between two texts."""
    values: dict[str, Any] = {"sample": body.sample(0.0), "stops": body.rules()} | body.options() | options
    return served.front.infilling(
        prefix,
        suffix,
        layout=body.layout or parts.config.layout,
        max_tokens=min(max_tokens, parts.config.max_tokens),
        max_prompt=parts.config.max_prompt,
        **values,
    )


def copies_of(parts: Parts, request: Request, number: int) -> list[Request]:
    """Several texts for one prompt."""
    if number > parts.config.max_copies:
        raise ApiError(
            400, f"{number} texts are asked for; at most {parts.config.max_copies} are given", param="n"
        )
    return [replace(request, copy=copy) for copy in range(number)]


async def texts(parts: Parts, http: HttpRequest, work: Work, timing: Timing | None = None) -> list[Completion]:
    """The texts of a request whose client may leave: then the work ends too."""
    working = asyncio.ensure_future(parts.desk.texts(work, timing))
    leaving = asyncio.ensure_future(_left(http))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "the client left")
        found = working.result()
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
    tell(http, work, found)
    return found


async def _left(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def tell(http: HttpRequest, work: Work, found: Iterable[Completion]) -> None:
    """Numbers for the log: none of them says what was written."""
    facts = http.state.facts
    facts |= {"model": work.served.name, "kind": work.kind, "texts": len(work.requests)}
    for completion in found:
        for name in ("prompt", "cached"):
            facts[name] = facts.get(name, 0) + getattr(completion.usage, name)
        facts["written"] = facts.get("written", 0) + len(completion.ids)
        facts["reason"] = completion.reason


def server_sent(http: HttpRequest, events: AsyncIterator[Any], *, done: bool = True) -> StreamingResponse:
    """JSON values as server-sent events; an error on the way is the last of them."""

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for event in _alive(http, events):
                yield b": ping\n\n" if event is None else b"data: " + _json(event) + b"\n\n"
        except Exception as error:
            yield b"data: " + _json(api_error(error).body()) + b"\n\n"
        if done:
            yield b"data: [DONE]\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


async def first_of(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The same events, once the first one is there: what is refused before it is an answer with its status."""
    try:
        first = await anext(events)
    except StopAsyncIteration:
        return events

    async def again() -> AsyncIterator[Any]:
        try:
            yield first
            async for event in events:
                yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return again()


async def _alive(http: HttpRequest, events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The events until the client leaves, and None where none came for a while."""
    waiting: asyncio.Future[Any] | None = None
    leaving = asyncio.ensure_future(_left(http))
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(events))
            found, _ = await asyncio.wait(
                {waiting, leaving}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if leaving in found:
                return
            if not found:
                yield None
                continue
            try:
                event = waiting.result()
            except StopAsyncIteration:
                return
            waiting = None
            yield event
    finally:
        leaving.cancel()
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]


def usage_of(found: Sequence[Completion], written: Sequence[int] | None = None) -> dict[str, Any]:
    """OpenAI's counts; a prompt that several texts share counts once."""
    prompt = max((c.usage.prompt for c in found), default=0)
    cached = max((c.usage.cached for c in found), default=0)
    number = sum(len(c.ids) for c in found)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": number,
        "total_tokens": prompt + number,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def head_of(served: Served, name: str = "text_completion", prefix: str = "cmpl") -> dict[str, Any]:
    """What every answer of OpenAI's begins with."""
    return {"id": new_id(prefix), "object": name, "created": int(time.time()), "model": served.name}


def finish(completion: Completion) -> str:
    """Why a text ended, as OpenAI says it."""
    return "length" if completion.finish_reason != "stop" else "stop"


def new_id(prefix: str) -> str:
    """A name for an answer."""
    return f"{prefix}-{uuid.uuid4().hex}"


def check_text(text: str, param: str) -> str:
    """A text as it is; half a character of UTF-16 is refused, which no vocabulary can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{param} holds half a character (a lone surrogate); send whole ones") from None
    return text


def check_ids(ids: Sequence[int], served: Served, param: str) -> list[int]:
    """Ids as they are; 400 for one that the vocabulary does not have."""
    size = served.front.tokenizer.vocab_size
    if wrong := [i for i in ids if not 0 <= i < size]:
        raise ApiError(400, f"{param} has the id {wrong[0]}; ids are 0 to {size - 1}", param=param)
    return list(ids)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

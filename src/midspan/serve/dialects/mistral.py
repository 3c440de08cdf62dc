"""Mistral's `/v1/fim/completions`, which Continue asks of every provider: an infill in the shape of a chat."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from midspan.serve.desk import Work
from midspan.serve.dialects.common import (
    InfillBody,
    Parts,
    check_text,
    finish,
    first_of,
    infill_request,
    new_id,
    server_sent,
    tell,
    texts,
    usage_of,
)

DEFAULT_TOKENS = 64


class FimBody(InfillBody):
    """A request."""

    prompt: str
    suffix: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    random_seed: int | None = Field(None, ge=0)


def router(parts: Parts) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["Mistral"])

    @routes.post("/v1/fim/completions")
    async def fim(body: FimBody, http: HttpRequest) -> Response:
        """Write what stands between a prompt and a suffix."""
        served = parts.models.get(body.model)
        body = body.model_copy(update={"seed": body.random_seed if body.seed is None else body.seed})
        prefix, suffix = check_text(body.prompt, "prompt"), check_text(body.suffix or "", "suffix")
        request = await parts.desk.build(
            lambda: infill_request(parts, served, body, prefix, suffix, body.max_tokens or DEFAULT_TOKENS)
        )
        work = Work(served=served, requests=[request], kind="infill")
        head = {"id": new_id("fim"), "created": int(time.time()), "model": served.name}
        if body.stream:
            return server_sent(http, await first_of(_chunks(parts, work, head, http)))
        (found,) = await texts(parts, http, work)
        message = {"role": "assistant", "content": found.text, "tool_calls": None, "prefix": False}
        choice = {"index": 0, "message": message, "finish_reason": finish(found)}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage_of([found])})

    return routes


async def _chunks(
    parts: Parts, work: Work, head: dict[str, Any], http: HttpRequest
) -> AsyncIterator[dict[str, Any]]:
    head = head | {"object": "chat.completion.chunk"}
    async for _, event in parts.desk.events(work):
        if isinstance(event, str):
            delta = {"role": "assistant", "content": event}
            yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        else:
            tell(http, work, [event])
            last = {"index": 0, "delta": {"content": ""}, "finish_reason": finish(event)}
            yield {**head, "choices": [last], "usage": usage_of([event])}

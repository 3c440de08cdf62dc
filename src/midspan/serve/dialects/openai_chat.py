"""OpenAI's `/v1/chat/completions`: conversations, in the model's own chat format, by ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from midspan.engine import Completion, Request
from midspan.engine.constrain import Grammar
from midspan.fim.stops import StopRules
from midspan.serve.desk import Work
from midspan.serve.dialects.common import (
    Body,
    Parts,
    StreamOptions,
    check_text,
    copies_of,
    finish,
    first_of,
    head_of,
    server_sent,
    tell,
    texts,
    usage_of,
)
from midspan.serve.errors import ApiError, unsupported
from midspan.serve.models import Served
from midspan.tokenizer.chat import Message


class TextPart(BaseModel):
    """One part of a message that comes in parts."""

    type: str
    text: str = ""


class ChatMessage(BaseModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None


class ResponseFormat(BaseModel):
    """What an answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class ChatBody(Body):
    """A request of `/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=128)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    logit_bias: dict[int, float] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    stream_options: StreamOptions | None = None


def router(parts: Parts) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/chat/completions")
    async def chat(body: ChatBody, http: HttpRequest) -> Response:
        """Answer a conversation."""
        return await answer(parts, body, http)

    return routes


async def answer(parts: Parts, body: ChatBody, http: HttpRequest) -> Response:
    """Answer `/v1/chat/completions`."""
    served = parts.models.get(body.model)
    for name in ("tools", "functions"):
        if getattr(body, name):
            raise unsupported(name, "describe the function in the conversation instead")
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    requests = await parts.desk.build(lambda: copies_of(parts, _chat_request(parts, served, body), body.n))
    work = Work(served=served, requests=requests, kind="chat")
    if body.stream:
        return server_sent(http, await first_of(_chat_chunks(parts, body, work, http)))
    found = await texts(parts, http, work)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": completion.text},
            "finish_reason": finish(completion),
            "logprobs": _chat_logprobs(served, completion) if body.logprobs else None,
        }
        for index, completion in enumerate(found)
    ]
    head = head_of(served, "chat.completion", "chatcmpl")
    return JSONResponse({**head, "choices": choices, "usage": usage_of(found)})


def turns(messages: Sequence[ChatMessage]) -> list[Message]:
    """A conversation in the roles that formats have."""
    found = []
    for message in messages:
        content = message.content or ""
        if not isinstance(content, str):
            if other := next((part.type for part in content if part.type != "text"), None):
                raise unsupported("messages", f"a part is {other}, and these models read text")
            content = "".join(part.text for part in content)
        if message.role == "tool":
            raise unsupported("messages", "answers of tools are not read; put them into a message of the user")
        role = "system" if message.role == "developer" else message.role
        found.append(Message(role, check_text(content, "messages")))
    return found


def _chat_request(parts: Parts, served: Served, body: ChatBody) -> Request:
    ids = served.front.chat.prompt(turns(body.messages))
    room = served.front.max_positions - len(ids)
    if room < 1:
        raise ApiError(
            400,
            f"the conversation has {len(ids)} tokens, the model reads {served.front.max_positions - 1}; cut it",
            param="messages",
            code="context_length_exceeded",
        )
    wanted = body.max_completion_tokens or body.max_tokens or parts.config.max_tokens
    options: dict[str, Any] = body.options()
    if body.logprobs:
        options["num_logprobs"] = body.top_logprobs or 0
    if body.response_format is not None and body.response_format.type != "text":
        options["constraint"] = Grammar(served.front.tokenizer, schema=_schema(body.response_format))
    return served.front.chatting(
        turns(body.messages),
        max_tokens=min(wanted, room, parts.config.max_tokens),
        sample=body.sample(1.0, logit_bias=body.logit_bias or {}),
        stops=StopRules(strings=body.strings()),
        **options,
    )


def _schema(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type == "json_object":
        return {"type": "object"}
    if not wanted.json_schema or not isinstance(wanted.json_schema.get("schema"), dict):
        raise ApiError(400, "response_format.json_schema has no schema", param="response_format")
    return wanted.json_schema["schema"]


async def _chat_chunks(
    parts: Parts, body: ChatBody, work: Work, http: HttpRequest
) -> AsyncIterator[dict[str, Any]]:
    head, ended = head_of(work.served, "chat.completion.chunk", "chatcmpl"), []
    for index in range(len(work.requests)):
        yield {**head, "choices": [_delta(index, {"role": "assistant", "content": ""}, None)]}
    async for index, event in parts.desk.events(work):
        if isinstance(event, str):
            yield {**head, "choices": [_delta(index, {"content": event}, None)]}
            continue
        ended.append(event)
        logprobs = _chat_logprobs(work.served, event) if body.logprobs else None
        yield {**head, "choices": [_delta(index, {}, finish(event), logprobs)]}
    tell(http, work, ended)
    if body.stream_options and body.stream_options.include_usage:
        yield {**head, "choices": [], "usage": usage_of(ended)}


def _delta(index: int, delta: dict[str, str], reason: str | None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": reason, "logprobs": logprobs}


def _chat_logprobs(served: Served, completion: Completion) -> dict[str, Any]:
    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        data = served.front.tokenizer.piece_bytes(token_id)
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}

    return {
        "content": [
            entry(one.id, one.logprob) | {"top_logprobs": [entry(i, p) for i, p in one.top]}
            for one in completion.logprobs or []
        ]
    }

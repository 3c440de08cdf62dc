"""Ollama's `/api/generate` (with `suffix`), `/api/chat`, `/api/tags`, `/api/show` and `/api/version`.

Streams are JSON lines and are on unless refused. Editors look for ".Suffix" in a model's template before they ask
for an infill; a model that can infill has it.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from midspan import __version__
from midspan.engine import Completion, Request
from midspan.engine.constrain import Grammar
from midspan.errors import InputError
from midspan.fim.stops import StopRules
from midspan.serve.desk import Timing, Work
from midspan.serve.dialects.common import (
    InfillBody,
    Parts,
    _alive,
    check_text,
    first_of,
    infill_request,
    tell,
    texts,
)
from midspan.serve.dialects.openai_chat import ChatMessage, turns
from midspan.serve.errors import api_error
from midspan.serve.models import Served
from midspan.tokenizer.chat import Message

DEFAULT_TOKENS = 128


class Options(InfillBody):
    """How Ollama's clients say what is wanted."""

    num_predict: int | None = Field(None, ge=-2)
    repeat_penalty: float | None = Field(None, gt=0)


class Asked(BaseModel):
    """What both routes take."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    stream: bool = True
    options: Options = Field(default_factory=Options)
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None


class GenerateBody(Asked):
    """A request of `/api/generate`."""

    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    raw: bool = False


class OllamaChatBody(Asked):
    """A request of `/api/chat`."""

    messages: list[ChatMessage] = Field(default_factory=list, max_length=1000)


class ShowBody(BaseModel):
    """Which model is to be shown."""

    model: str | None = None
    name: str | None = None


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Ollama"])

    @routes.post("/api/generate")
    async def generate(body: GenerateBody, http: HttpRequest) -> Response:
        """Go on with a prompt, answer it, or with `suffix` write what stands between the two."""
        served = parts.models.get(body.model)
        if not body.prompt and body.suffix is None:  # how clients load a model
            return JSONResponse(_end(served, None, Timing()) | {"response": ""})
        request = await parts.desk.build(lambda: _generate(parts, served, body))
        kind = "complete" if body.suffix is None else "infill"
        work = Work(served=served, requests=[request], kind=kind)
        return await _answer(parts, body, work, http, lambda text: {"response": text})

    @routes.post("/api/chat")
    async def chat(body: OllamaChatBody, http: HttpRequest) -> Response:
        """Answer a conversation."""
        served = parts.models.get(body.model)

        def message(text: str) -> dict[str, Any]:
            return {"message": {"role": "assistant", "content": text}}

        if not body.messages:
            return JSONResponse(_end(served, None, Timing()) | message(""))
        request = await parts.desk.build(lambda: _chat(parts, served, body, turns(body.messages)))
        return await _answer(parts, body, Work(served=served, requests=[request], kind="chat"), http, message)

    @routes.get("/api/tags")
    @routes.get("/api/ps", include_in_schema=False)
    async def tags() -> dict[str, Any]:
        """The models that are served."""
        return {"models": [_entry(served) for served in parts.models.served]}

    @routes.post("/api/show")
    async def show(body: ShowBody) -> dict[str, Any]:
        """What a model can do."""
        served = parts.models.get(body.model or body.name)
        can_infill = served.front.fim is not None
        return {
            "modelfile": "",
            "template": "{{ .Prompt }}{{ .Suffix }}" if can_infill else "{{ .Prompt }}",
            "details": _details(),
            "model_info": {
                "general.architecture": "llama",
                "llama.context_length": served.front.max_positions,
            },
            "capabilities": ["completion", *(["insert"] if can_infill else [])],
        }

    @routes.get("/api/version")
    async def version() -> dict[str, str]:
        """The version of the server."""
        return {"version": __version__}

    return routes


def _details() -> dict[str, Any]:
    return {"format": "midspan", "family": "llama", "families": ["llama"]} | {
        "parent_model": "",
        "parameter_size": "",
        "quantization_level": "",
    }


def _entry(served: Served) -> dict[str, Any]:
    when = datetime.datetime.fromtimestamp(served.created, datetime.UTC).isoformat()
    facts = {"name": served.name, "model": served.name, "modified_at": when, "size": 0, "digest": ""}
    return facts | {"details": _details()}


def _values(parts: Parts, served: Served, body: Asked, temperature: float) -> tuple[int, dict[str, Any]]:
    options = body.options
    wanted = DEFAULT_TOKENS if options.num_predict is None else options.num_predict
    budget = parts.config.max_tokens if wanted <= 0 else min(wanted, parts.config.max_tokens)
    penalty = {} if options.repeat_penalty is None else {"repetition_penalty": options.repeat_penalty}
    values = options.options() | {"sample": options.sample(temperature, **penalty)}
    if body.format:
        schema = body.format if isinstance(body.format, dict) else {"type": "object"}
        values["constraint"] = Grammar(served.front.tokenizer, schema=schema)
    return budget, values


def _generate(parts: Parts, served: Served, body: GenerateBody) -> Request:
    prompt = check_text(body.prompt, "prompt")
    if body.suffix is not None:
        budget, values = _values(parts, served, body, 0.0)
        suffix = check_text(body.suffix, "suffix")
        return infill_request(parts, served, body.options, prompt, suffix, budget, **values)
    if not body.raw:
        system = [Message("system", check_text(body.system, "system"))] if body.system else []
        with suppress(InputError):  # a base model has no way to be asked: it goes on with the prompt
            return _chat(parts, served, body, [*system, Message("user", prompt)])
    budget, values = _values(parts, served, body, 0.8)
    values["stops"] = StopRules(strings=body.options.strings())
    return served.front.completing(prompt, max_tokens=budget, **values)


def _chat(parts: Parts, served: Served, body: Asked, messages: list[Message]) -> Request:
    budget, values = _values(parts, served, body, 0.8)
    values["stops"] = StopRules(strings=body.options.strings())
    return served.front.chatting(messages, max_tokens=budget, **values)


async def _answer(parts: Parts, body: Asked, work: Work, http: HttpRequest, piece: Any) -> Response:
    timing = Timing()
    if not body.stream:
        (found,) = await texts(parts, http, work, timing)
        return JSONResponse(_end(work.served, found, timing) | piece(found.text))
    events = await first_of(_chunks(parts, work, timing, http, piece))

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for event in _alive(http, events):
                if event is not None:
                    yield json.dumps(event, ensure_ascii=False).encode() + b"\n"
        except Exception as error:
            yield json.dumps({"error": api_error(error).message}).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


async def _chunks(
    parts: Parts, work: Work, timing: Timing, http: HttpRequest, piece: Any
) -> AsyncIterator[dict[str, Any]]:
    async for _, event in parts.desk.events(work, timing):
        if isinstance(event, str):
            yield {"model": work.served.name, "created_at": _now(), "done": False} | piece(event)
        else:
            timing.total = timing.elapsed()
            tell(http, work, [event])
            yield _end(work.served, event, timing) | piece("")


def _now() -> str:
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).isoformat()


def _end(served: Served, completion: Completion | None, timing: Timing) -> dict[str, Any]:
    """The last line of an answer, durations in nanoseconds; without counts where a model was only to be loaded."""
    head = {"model": served.name, "created_at": _now(), "done": True}
    if completion is None:
        return head | {"done_reason": "load"}
    usage, first = completion.usage, timing.first or timing.total
    return head | {
        "done_reason": "length" if completion.finish_reason != "stop" else "stop",
        "total_duration": int(1e9 * timing.total),
        "load_duration": 0,
        "prompt_eval_count": usage.prompt,
        "prompt_eval_duration": int(1e9 * first),
        "eval_count": len(completion.ids),
        "eval_duration": int(1e9 * max(timing.total - first, 0.0)),
    }

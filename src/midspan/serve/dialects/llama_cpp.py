"""llama.cpp's `/infill`, `/completion`, `/tokenize`, `/detokenize` and `/props`, as editors use them.

Two things are as that server's manual says and not as it does: `prompt` of `/infill` is what the middle begins
with, and `input_extra` stands in front of the prefix, behind BOS. Each answer tells what it cost (`timings`), in
which layout it was asked, how many bytes were healed and why it ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from midspan.engine import Completion, Request
from midspan.fim.example import bos_of
from midspan.fim.stops import StopRules
from midspan.serve.desk import Timing, Work
from midspan.serve.dialects.common import (
    InfillBody,
    Parts,
    check_ids,
    check_text,
    copies_of,
    first_of,
    infill_request,
    server_sent,
    tell,
    texts,
)
from midspan.serve.dialects.tabby import context_of
from midspan.serve.models import Served

DEFAULT_TOKENS = 128
_STOP_TYPES = {"eot": "eos", "length": "limit", "string": "word"}


class Extra(BaseModel):
    """A piece of another file."""

    model_config = ConfigDict(extra="ignore")

    text: str = ""
    filename: str = ""


class CompletionBody(InfillBody):
    """A request of `/completion`."""

    prompt: str | list[int] | list[str | int] | None = None
    n_predict: int | None = Field(None, ge=-1)
    repeat_penalty: float | None = Field(None, gt=0)
    n_probs: int = Field(0, ge=0, le=20)
    id_slot: int = -1
    t_max_predict_ms: float | None = None
    t_max_prompt_ms: float | None = None
    response_fields: list[str] | None = None
    n_cmpl: int = Field(1, ge=1, le=128)


class LlamaInfillBody(CompletionBody):
    """A request of `/infill`."""

    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: list[Extra] | None = None
    n_indent: int = 0


class TokenizeBody(BaseModel):
    """A request of `/tokenize`."""

    content: str = ""
    add_special: bool = False
    with_pieces: bool = False


class DetokenizeBody(BaseModel):
    """A request of `/detokenize`."""

    tokens: list[int]


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["llama.cpp"])

    @routes.post("/infill")
    async def infill(body: LlamaInfillBody, http: HttpRequest) -> Response:
        """Write what stands between `input_prefix` and `input_suffix`."""
        served = parts.models.get(body.model, strict=False)
        return await _answer(parts, body, served, http, lambda: _infill(parts, served, body), "infill")

    @routes.post("/completion")
    @routes.post("/completions", include_in_schema=False)
    async def completion(body: CompletionBody, http: HttpRequest) -> Response:
        """Go on with a text, or with ids."""
        served = parts.models.get(body.model, strict=False)
        return await _answer(parts, body, served, http, lambda: _complete(parts, served, body), "complete")

    @routes.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        """The ids of a text; what it says never becomes a special one."""
        tokenizer = parts.models.get(None).front.tokenizer
        text = check_text(body.content, "content")
        ids = await parts.desk.build(
            lambda: (bos_of(tokenizer) if body.add_special else []) + tokenizer.encode(text)
        )
        if not body.with_pieces:
            return {"tokens": ids}
        return {"tokens": [{"id": i, "piece": _readable(tokenizer.piece_bytes(i))} for i in ids]}

    @routes.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        """The text of ids."""
        served = parts.models.get(None)
        ids = check_ids(body.tokens, served, "tokens")
        return {"content": await parts.desk.build(lambda: served.front.tokenizer.decode(ids))}

    @routes.get("/props")
    async def props() -> dict[str, Any]:
        """What is served, and how long prompts may be."""
        served = parts.models.get(None)
        settings = {"n_ctx": served.front.max_positions, "params": {"n_predict": DEFAULT_TOKENS}}
        return {
            "default_generation_settings": settings,
            "total_slots": parts.config.queue,
            "model_path": served.name,
            "model_alias": served.name,
            "chat_template": served.front.tokenizer.chat_template or "",
            "layouts": list(served.front.fim.layouts) if served.front.fim else [],
        }

    return routes


def _readable(data: bytes) -> str | list[int]:
    """A piece as text, or as bytes where it is half a character: as llama.cpp gives it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def _options(body: CompletionBody) -> dict[str, Any]:
    """What its fields mean to the engine."""
    found = body.options()
    limits = [ms for ms in (body.t_max_predict_ms, body.t_max_prompt_ms) if ms is not None and ms > 0]
    if limits and found["deadline"] is None:
        found["deadline"] = sum(limits) / 1000
    if found["session"] is None and body.id_slot >= 0:
        found["session"] = f"slot {body.id_slot}"
    penalty = {} if body.repeat_penalty is None else {"repetition_penalty": body.repeat_penalty}
    found["sample"] = body.sample(0.8 if type(body) is CompletionBody else 0.0, **penalty)
    return found


def _tokens(body: CompletionBody, parts: Parts) -> int:
    wanted = DEFAULT_TOKENS if body.n_predict is None else body.n_predict
    return parts.config.max_tokens if wanted < 0 else max(wanted, 1)


def _infill(parts: Parts, served: Served, body: LlamaInfillBody) -> Request:
    begun = body.prompt if isinstance(body.prompt, str) else ""
    context = context_of([(e.filename, check_text(e.text, "input_extra")) for e in body.input_extra or []])
    return infill_request(
        parts,
        served,
        body,
        check_text(body.input_prefix, "input_prefix") + check_text(begun, "prompt"),
        check_text(body.input_suffix, "input_suffix"),
        _tokens(body, parts),
        context=context,
        **_options(body),
    )


def _complete(parts: Parts, served: Served, body: CompletionBody) -> Request:
    front, options = served.front, _options(body) | {"num_logprobs": body.n_probs or None}
    options["stops"] = StopRules(strings=body.strings())
    budget = min(_tokens(body, parts), parts.config.max_tokens)
    if body.prompt is None or isinstance(body.prompt, str):
        return front.completing(check_text(body.prompt or "", "prompt"), max_tokens=budget, **options)
    ids: list[int] = []
    for part in body.prompt:
        ids += front.tokenizer.encode(check_text(part, "prompt")) if isinstance(part, str) else [part]
    request = front.completing("", max_tokens=budget, heal=False, **options)
    return replace(request, prompt=check_ids(ids, served, "prompt"))


async def _answer(
    parts: Parts, body: CompletionBody, served: Served, http: HttpRequest, make: Any, kind: str
) -> Response:
    request = await parts.desk.build(make)
    work = Work(served=served, requests=copies_of(parts, request, body.n_cmpl), kind=kind)
    timing = Timing()
    if body.stream:
        return server_sent(http, await first_of(_chunks(parts, body, work, timing, http)), done=False)
    found = await texts(parts, http, work, timing)
    if body.n_predict == 0:  # only to have the prompt read
        found = [_without_text(completion) for completion in found]
    answers = [_chosen(_last(work, c, c.text, timing), body.response_fields) for c in found]
    return JSONResponse(answers[0] if len(answers) == 1 else answers)


def _without_text(completion: Completion) -> Completion:
    return Completion([], "", "length", None, "length", None, completion.usage)


async def _chunks(
    parts: Parts, body: CompletionBody, work: Work, timing: Timing, http: HttpRequest
) -> AsyncIterator[dict[str, Any]]:
    async for index, event in parts.desk.events(work, timing):
        if isinstance(event, str):
            yield {"index": index, "content": event, "stop": False, "tokens": []}
        else:
            timing.total = timing.elapsed()
            tell(http, work, [event])
            yield {"index": index} | _chosen(_last(work, event, "", timing), body.response_fields)


def _last(work: Work, completion: Completion, text: str, timing: Timing) -> dict[str, Any]:
    """The end of a text, with what it cost."""
    usage, request = completion.usage, work.requests[0]
    read, written = usage.prompt - usage.cached, len(completion.ids)
    first, rest = timing.first or timing.total, max(timing.total - (timing.first or 0.0), 1e-9)
    return {
        "content": text,
        "tokens": [],
        "stop": True,
        "model": work.served.name,
        "stop_type": _STOP_TYPES.get(completion.reason, "eos"),
        "stopping_word": "",
        "reason": completion.reason,
        "layout": request.layout,
        "healed_bytes": len(request.owed),
        "tokens_predicted": written,
        "tokens_evaluated": usage.prompt,
        "tokens_cached": usage.cached,
        "truncated": False,
        "timings": {
            "cache_n": usage.cached,
            "prompt_n": read,
            "prompt_ms": 1000 * first,
            "prompt_per_second": read / max(first, 1e-9),
            "predicted_n": written,
            "predicted_ms": 1000 * rest,
            "predicted_per_second": written / rest,
            "draft_n": usage.drafted,
            "draft_n_accepted": usage.accepted,
        },
    }


def _chosen(answer: Mapping[str, Any], fields: list[str] | None) -> dict[str, Any]:
    """The fields that a client wants; `timings/prompt_n` comes out under its last name, as llama.cpp does it."""
    if not fields:
        return dict(answer)
    found: dict[str, Any] = {}
    for field in fields:
        value: Any = answer
        for name in field.split("/"):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            found[field.rpartition("/")[2]] = value
    return found

"""OpenAI's `/v1/completions` (with `suffix`) and `/v1/models`.

`suffix` is infilling, by ids in the model's own format. DeepSeek's `/beta/completions` is the same interface;
Tabby's clients ask `/v1/completions` too, with `segments` in place of a prompt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from midspan.engine import Completion, Engine, Request
from midspan.fim.example import bos_of
from midspan.fim.stops import StopRules
from midspan.serve.desk import Work
from midspan.serve.dialects import tabby
from midspan.serve.dialects.common import (
    InfillBody,
    Parts,
    StreamOptions,
    check_ids,
    check_text,
    copies_of,
    finish,
    first_of,
    head_of,
    infill_request,
    server_sent,
    tell,
    texts,
    usage_of,
)
from midspan.serve.errors import ApiError, unsupported
from midspan.serve.models import Served

DEFAULT_TOKENS = 16
MOST_PROMPTS = 64
Prompt = str | list[str] | list[int] | list[list[int]]


class CompletionBody(InfillBody):
    """A request of `/v1/completions`."""

    prompt: Prompt | None = None
    suffix: str | None = None
    segments: tabby.Segments | None = None
    """Tabby's way to ask; there is no prompt then."""
    language: str | None = None
    max_tokens: int | None = Field(None, ge=0)
    n: int = Field(1, ge=1, le=128)
    best_of: int | None = Field(None, ge=1, le=128)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20)
    logit_bias: dict[int, float] | None = None
    stream_options: StreamOptions | None = None


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The models that are served."""
        loaded = {served.name: served.created for served in parts.models.served}
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": loaded.get(name, 0), "owned_by": "midspan"}
                for name in parts.models.names
            ],
        }

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One of the models."""
        served = parts.models.get(name)
        return {"id": served.name, "object": "model", "created": served.created, "owned_by": "midspan"}

    @routes.post("/v1/completions")
    async def completions(body: CompletionBody, http: HttpRequest) -> Response:
        """Go on with a text; with `suffix`, write what stands between the two."""
        if body.segments is not None:
            return JSONResponse(await tabby.complete(parts, body, body.segments, http))
        return await complete(parts, body, http)

    @routes.post("/beta/completions", tags=["DeepSeek"])
    async def beta(body: CompletionBody, http: HttpRequest) -> Response:
        """DeepSeek's address of the same."""
        return await complete(parts, body, http)

    return routes


async def complete(parts: Parts, body: CompletionBody, http: HttpRequest) -> Response:
    """Answer `/v1/completions`."""
    served = parts.models.get(body.model)
    prompts = _prompts(served, body.prompt)
    best_of = body.best_of or body.n
    if best_of < body.n:
        raise ApiError(400, f"best_of is {best_of} and n is {body.n}; the best n need at least n", param="best_of")
    if body.stream and best_of > body.n:
        raise ApiError(400, "best_of cannot be streamed; leave it out, or stream", param="best_of")
    if body.suffix is not None and body.echo:
        raise unsupported("echo", "with suffix, the prompt is not repeated")
    echoed = await parts.desk.build(lambda: [_echoed(served, p, body) for p in prompts] if body.echo else [])
    if body.max_tokens == 0 and body.echo:
        return JSONResponse(_whole(served, body, [[] for _ in prompts], echoed))
    if body.max_tokens == 0:
        raise ApiError(
            400, "max_tokens is 0; it must be at least 1, unless the prompt is echoed", param="max_tokens"
        )
    requests = await parts.desk.build(
        lambda: [r for p in prompts for r in copies_of(parts, _request(parts, served, body, p), best_of)]
    )
    if len(requests) > parts.config.max_copies * MOST_PROMPTS:
        raise ApiError(400, f"{len(requests)} texts are asked for together; ask for fewer", param="prompt")
    kind = "complete" if body.suffix is None else "infill"
    work = Work(served=served, requests=requests, kind=kind)
    if body.stream:
        return server_sent(http, await first_of(_chunks(parts, body, work, echoed, http)))
    found = await texts(parts, http, work)
    groups = [found[i * best_of : (i + 1) * best_of] for i in range(len(prompts))]
    best = [sorted(group, key=lambda c: -c.mean_logprob) if best_of > body.n else group for group in groups]
    return JSONResponse(_whole(served, body, [group[: body.n] for group in best], echoed, found))


def _prompts(served: Served, prompt: Prompt | None) -> list[str | list[int]]:
    if prompt is None:
        raise ApiError(400, "there is no prompt; give a text or token ids", param="prompt")
    if isinstance(prompt, str):
        return [check_text(prompt, "prompt")]
    if prompt and isinstance(prompt[0], int):
        return [check_ids([int(i) for i in prompt], served, "prompt")]
    if not prompt or len(prompt) > MOST_PROMPTS:
        raise ApiError(400, f"there are {len(prompt)} prompts; give 1 to {MOST_PROMPTS}", param="prompt")
    return [
        check_text(p, "prompt") if isinstance(p, str) else check_ids(p, served, "prompt")  # type: ignore[arg-type]
        for p in prompt
    ]


def _request(parts: Parts, served: Served, body: CompletionBody, prompt: str | list[int]) -> Request:
    front, max_tokens = served.front, body.max_tokens or DEFAULT_TOKENS
    wants = body.logprobs if body.logprobs is not None else (0 if (body.best_of or body.n) > body.n else None)
    sample = body.sample(1.0 if body.suffix is None else 0.0, logit_bias=body.logit_bias or {})
    options: dict[str, Any] = {"num_logprobs": wants, "sample": sample}
    if body.suffix is not None:
        if not isinstance(prompt, str):
            raise ApiError(400, "suffix needs a prompt of text, not of ids", param="suffix")
        suffix = check_text(body.suffix, "suffix")
        return infill_request(parts, served, body, prompt, suffix, max_tokens, **options)
    options |= body.options() | {"stops": StopRules(strings=body.strings())}
    budget = min(max_tokens, parts.config.max_tokens)
    if isinstance(prompt, str):
        # A text that is to go on where it ends is mended there; one that is echoed shows what was given.
        return front.completing(prompt, max_tokens=budget, heal=bool(prompt) and not body.echo, **options)
    request = front.completing("", max_tokens=budget, heal=False, **options)
    return replace(request, prompt=prompt or bos_of(front.tokenizer))


def _echoed(served: Served, prompt: str | list[int], body: CompletionBody) -> tuple[str, dict[str, Any] | None]:
    """A prompt as text, and its tokens' log-probabilities where they are asked for."""
    tokenizer = served.front.tokenizer
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    text = prompt if isinstance(prompt, str) else tokenizer.decode(ids)
    if body.logprobs is None:
        return text, None
    if not isinstance(served.front, Engine):
        raise unsupported("logprobs", "a server elsewhere does not say how probable a prompt is")
    bos = bos_of(tokenizer) if isinstance(prompt, str) else []
    if len(bos) + len(ids) > served.front.max_positions:
        raise ApiError(400, f"the prompt has {len(ids)} tokens; shorten it", code="context_length_exceeded")
    losses = served.front.losses([*bos, *ids]) if len(bos) + len(ids) > 1 else []
    known: list[float | None] = [None] * (len(ids) - len(losses)) + [-loss for loss in losses]
    names = [_piece(served, i) for i in ids]
    return text, {
        "tokens": names,
        "token_logprobs": known,
        "top_logprobs": [None] * len(ids),
        "text_offset": _offsets(names),
    }


def _whole(
    served: Served,
    body: CompletionBody,
    groups: Sequence[Sequence[Completion]],
    echoed: Sequence[tuple[str, dict[str, Any] | None]],
    found: Sequence[Completion] = (),
) -> dict[str, Any]:
    choices: list[dict[str, Any]] = []
    for number, group in enumerate(groups):
        lead, known = echoed[number] if echoed else ("", None)
        for completion in group:
            logprobs = (
                _joined(known, _logprobs(served, completion, len(lead))) if body.logprobs is not None else None
            )
            text = lead + completion.text
            choices.append(_choice(len(choices), text, finish(completion), logprobs, completion))
        if not group:
            choices.append(_choice(len(choices), lead, "length", known))
    return {**head_of(served), "choices": choices, "usage": usage_of(found or [c for g in groups for c in g])}


def _choice(
    index: int,
    text: str,
    reason: str | None,
    logprobs: dict[str, Any] | None,
    completion: Completion | None = None,
) -> dict[str, Any]:
    choice = {"index": index, "text": text, "finish_reason": reason, "logprobs": logprobs}
    return choice | ({"stop_type": completion.reason} if completion else {})


async def _chunks(
    parts: Parts,
    body: CompletionBody,
    work: Work,
    echoed: Sequence[tuple[str, dict[str, Any] | None]],
    http: HttpRequest,
) -> AsyncIterator[dict[str, Any]]:
    head, ended = head_of(work.served), []
    for number, (lead, known) in enumerate(echoed):
        for copy in range(body.n):
            yield {**head, "choices": [_choice(number * body.n + copy, lead, None, known)]}
    async for index, event in parts.desk.events(work):
        if isinstance(event, str):
            yield {**head, "choices": [_choice(index, event, None, None)]}
            continue
        ended.append(event)
        lead = echoed[index // body.n][0] if echoed else ""
        logprobs = None if body.logprobs is None else _logprobs(work.served, event, len(lead))
        yield {**head, "choices": [_choice(index, "", finish(event), logprobs, event)]}
    tell(http, work, ended)
    if body.stream_options and body.stream_options.include_usage:
        yield {**head, "choices": [], "usage": usage_of(ended)}


def _piece(served: Served, token_id: int) -> str:
    return served.front.tokenizer.piece_bytes(token_id).decode(errors="replace")


def _offsets(names: Sequence[str], start: int = 0) -> list[int]:
    found = []
    for name in names:
        found.append(start)
        start += len(name)
    return found


def _logprobs(served: Served, completion: Completion, start: int) -> dict[str, Any]:
    """OpenAI's four lists: tokens, how probable each was, what else was probable, where each begins."""
    entries = completion.logprobs or []
    names = [_piece(served, entry.id) for entry in entries]
    return {
        "tokens": names,
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [{_piece(served, i): p for i, p in entry.top} for entry in entries],
        "text_offset": _offsets(names, start),
    }


def _joined(first: dict[str, Any] | None, second: dict[str, Any]) -> dict[str, Any]:
    return second if first is None else {name: first[name] + second[name] for name in second}

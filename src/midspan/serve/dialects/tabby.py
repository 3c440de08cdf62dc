"""Tabby's clients: `/v1/completions` with `segments`, `/v1/events` (what became of suggestions), `/v1/health`.

The route of completions is OpenAI's; it comes here where a request has segments.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from midspan import __version__
from midspan.engine.context import Piece, written
from midspan.serve.desk import Work
from midspan.serve.dialects.common import InfillBody, Parts, check_text, infill_request, new_id, texts

if TYPE_CHECKING:
    from midspan.serve.dialects.openai import CompletionBody

DEFAULT_TOKENS = 64
EVENTS = {"view": "shown", "select": "accepted", "dismiss": "dismissed", "accept": "accepted", "show": "shown"}
MOST_CONTEXT = 6000
"""Characters of other files."""


class Snippet(BaseModel):
    """A piece of another file."""

    model_config = ConfigDict(extra="ignore")

    filepath: str = ""
    body: str = ""


class Segments(BaseModel):
    """A place of a file, and what the client knows round it."""

    model_config = ConfigDict(extra="ignore")

    prefix: str
    suffix: str | None = None
    filepath: str | None = None
    git_url: str | None = None
    declarations: list[Snippet] | None = None
    relevant_snippets_from_changed_files: list[Snippet] | None = None
    relevant_snippets_from_recently_opened_files: list[Snippet] | None = None
    clipboard: str | None = None


class EventBody(BaseModel):
    """What became of a suggestion."""

    model_config = ConfigDict(extra="ignore")

    type: str
    completion_id: str = ""
    choice_index: int = 0


def router(parts: Parts) -> APIRouter:
    """The routes that are Tabby's alone."""
    routes = APIRouter(tags=["Tabby"])

    @routes.get("/v1/health")
    async def health() -> dict[str, Any]:
        """What Tabby's clients look for when they connect."""
        parts.models.get(None)
        names = parts.models.names
        version = {
            "build_date": "",
            "build_timestamp": "",
            "git_sha": "",
            "git_describe": f"midspan {__version__}",
        }
        return {"model": names[0], "chat_model": names[0], "device": "cpu", "arch": platform.machine()} | {
            "cpu_info": "",
            "cpu_count": 0,
            "version": version,
        }

    @routes.post("/v1/events", status_code=200)
    async def events(body: EventBody) -> Response:
        """Count what became of a suggestion; nothing else is kept."""
        parts.desk.metrics.suggestions.labels(EVENTS.get(body.type, "other")).inc()
        return Response(status_code=200)

    return routes


async def complete(parts: Parts, body: CompletionBody, segments: Segments, http: HttpRequest) -> dict[str, Any]:
    """Answer a request with segments."""
    served = parts.models.get(body.model)
    prefix, suffix = check_text(segments.prefix, "segments"), check_text(segments.suffix or "", "segments")
    snippets = [
        *(segments.declarations or []),
        *(segments.relevant_snippets_from_changed_files or []),
        *(segments.relevant_snippets_from_recently_opened_files or []),
    ]
    given = InfillBody.model_validate(body.model_dump(include=set(InfillBody.model_fields)))
    context = context_of([(s.filepath, check_text(s.body, "segments")) for s in snippets])
    request = await parts.desk.build(
        lambda: infill_request(
            parts, served, given, prefix, suffix, body.max_tokens or DEFAULT_TOKENS, context=context
        )
    )
    (found,) = await texts(parts, http, Work(served=served, requests=[request], kind="infill"))
    return {"id": new_id("cmpl"), "choices": [{"index": 0, "text": found.text}]}


def context_of(files: Sequence[tuple[str, str]]) -> str:
    """Pieces of other files as the model is shown them: each whole, under its path, as many as fit."""
    found: list[Piece] = []
    room = MOST_CONTEXT
    for path, text in files:
        if text.strip() and len(text) <= room:
            found.append(Piece(path or "snippet", text.rstrip("\n") + "\n"))
            room -= len(text)
    return written(found)

"""Midspan's own: docstrings and types of a Python file, as the paper's section 2.3 uses infilling."""

from __future__ import annotations

import difflib

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from midspan.engine import Engine, annotate
from midspan.errors import WorkError
from midspan.serve.dialects.common import Parts, check_text
from midspan.serve.errors import ApiError


class FileBody(BaseModel):
    """A file."""

    model_config = ConfigDict(extra="ignore")

    source: str
    path: str = Field("file.py", max_length=1000)
    model: str | None = None


class DocstringBody(FileBody):
    """Where a docstring is wanted."""

    function: str
    """A function, `Class.method` or class."""
    max_tokens: int = Field(128, ge=1)


class TypesBody(FileBody):
    """Where types are wanted: wherever parameters and results have none."""

    samples: int = Field(4, ge=1, le=16)


class Changed(BaseModel):
    """The file afterwards."""

    source: str
    diff: str


class Typed(Changed):
    """The file afterwards, and what was added."""

    types: list[dict[str, str]]


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/code", tags=["Code"])

    @routes.post("/docstring")
    async def docstring(body: DocstringBody) -> Changed:
        """Write the docstring of a function."""
        engine, source = _engine(parts, body.model), check_text(body.source, "source")
        budget = min(body.max_tokens, parts.config.max_tokens)
        try:
            changed = await parts.desk.build(
                lambda: annotate.docstring(engine, source, body.function, body.path, max_tokens=budget)
            )
        except WorkError as error:  # the model wrote nothing usable, which is an answer too
            raise ApiError(422, str(error), code="nothing_usable") from None
        return Changed(source=changed, diff=_diff(body, changed))

    @routes.post("/types")
    async def types(body: TypesBody) -> Typed:
        """Write the types that a file lacks."""
        engine, source = _engine(parts, body.model), check_text(body.source, "source")
        changed, added = await parts.desk.build(
            lambda: annotate.types(engine, source, body.path, samples=body.samples)
        )
        found = [{"place": one.place, "type": one.type} for one in added]
        return Typed(source=changed, diff=_diff(body, changed), types=found)

    return routes


def _engine(parts: Parts, name: str | None) -> Engine:
    front = parts.models.get(name).front
    if not isinstance(front, Engine):
        raise ApiError(400, f"{name or 'this model'} is served elsewhere; docstrings and types need it here")
    return front


def _diff(body: FileBody, changed: str) -> str:
    before, after = body.source.splitlines(keepends=True), changed.splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, fromfile=body.path, tofile=body.path))

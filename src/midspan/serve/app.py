"""The application: every dialect's routes, behind one guard, over one desk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from midspan import __version__
from midspan.serve.desk import Desk
from midspan.serve.dialects import code, llama_cpp, mistral, ollama, openai, openai_chat, tabby
from midspan.serve.dialects.common import Parts
from midspan.serve.errors import ApiError, api_error
from midspan.serve.guard import Guard
from midspan.serve.metrics import CONTENT_TYPE, Metrics
from midspan.serve.models import Models
from midspan.serve.settings import ServeConfig

PAGE = Path(__file__).parent / "playground" / "dist"
_NO_PAGE = (
    "<!doctype html><title>Midspan</title><p>Midspan serves here. The playground is not built: make playground."
)
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
"""Nothing from elsewhere, and in nobody's frame; the editor brings its styles along."""
_DESCRIPTION = "Infilling, completion and chat by one engine, through the interfaces that editors already speak."


def create_app(models: Models, config: ServeConfig) -> FastAPI:
    """An application that serves models; they are loaded when it starts, and closed when it ends."""
    metrics = Metrics()
    parts = Parts(models, Desk(config, metrics))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        models.start()
        try:
            yield
        finally:
            models.close()

    app = FastAPI(
        title="Midspan", version=__version__, description=_DESCRIPTION, lifespan=life, responses=_REFUSALS
    )
    app.state.parts = parts
    for dialect in (openai, openai_chat, mistral, llama_cpp, ollama, tabby, code):
        app.include_router(dialect.router(parts))
    _own_routes(app, parts)
    _refusals(app)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(config.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Guard, config=config, metrics=metrics)
    return app


_REFUSAL = {
    "description": "What was wrong, in OpenAI's shape",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    },
}
_STATUSES = (400, 401, 403, 404, 405, 408, 413, 422, 429, 503)
_REFUSALS: dict[int | str, dict[str, Any]] = dict.fromkeys(_STATUSES, _REFUSAL)


def _own_routes(app: FastAPI, parts: Parts) -> None:
    @app.get("/health", tags=["Server"])
    async def health() -> JSONResponse:
        """Whether models answer: 200, or 503 while they are loaded or where none could be."""
        models = parts.models
        failed = {name: str(error) for name, error in models.failed.items()}
        if models.served:
            status = "ok" if models.ready else "loading more models"
            return JSONResponse({"status": status, "models": [s.name for s in models.served]})
        if failed and len(failed) == len(models.names):
            raise ApiError(503, f"no model could be loaded: {failed}", kind="server_error", code="load_failed")
        raise ApiError(503, "Loading model", kind="unavailable_error", code="model_loading")

    @app.get("/metrics", tags=["Server"])
    async def metrics() -> Response:
        """Counters and histograms, as Prometheus reads them."""
        return Response(parts.desk.metrics.page(), media_type=CONTENT_TYPE)

    if (PAGE / "index.html").is_file():
        app.mount("/playground", StaticFiles(directory=PAGE), name="playground")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        index = PAGE / "index.html"
        text = index.read_text(encoding="utf-8") if index.is_file() else _NO_PAGE
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"})


def _refusals(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(http: HttpRequest, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(http: HttpRequest, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body") or None
        if first["type"] == "json_invalid":
            message = f"the body is no JSON: {first.get('ctx', {}).get('error', 'it cannot be read')}"
            return JSONResponse(ApiError(400, message).body(), 400)
        message = f"{place or 'the body'}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        return JSONResponse(ApiError(400, message, param=place).body(), 400)

    @app.exception_handler(HTTPException)
    async def http_error(http: HttpRequest, error: HTTPException) -> JSONResponse:
        message = f"{http.method} {http.url.path}: {error.detail}"
        code = "not_found" if error.status_code == 404 else None
        refusal = ApiError(error.status_code, message, code=code)
        return JSONResponse(refusal.body(), error.status_code, error.headers)

    from midspan.errors import InputError, WorkError

    for kind in (InputError, WorkError):

        @app.exception_handler(kind)
        async def mistake(http: HttpRequest, error: Exception) -> JSONResponse:
            refusal = api_error(error)
            return JSONResponse(refusal.body(), refusal.status, refusal.headers)

"""What goes wrong, in OpenAI's words: {"error": {"message", "type", "param", "code"}} and a status."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException

from midspan.errors import InputError, WorkError


class ApiError(HTTPException):
    """A refusal that a client can read; as FastAPI's own it passes through where bodies are read."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code

    def body(self) -> dict[str, Any]:
        """What is sent."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def unsupported(param: str, remedy: str) -> ApiError:
    """A field that is known and not served."""
    return ApiError(400, f"{param} is not supported; {remedy}", param=param, code="unsupported_parameter")


def busy(message: str, seconds: int) -> ApiError:
    """Too many requests for now."""
    return ApiError(
        429,
        message,
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(max(1, seconds))},
    )


def api_error(error: BaseException) -> ApiError:
    """An exception as a refusal; what is not a user's mistake says nothing of its inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        return ApiError(400, str(error))
    if isinstance(error, WorkError):
        return ApiError(503, str(error), kind="server_error", code="engine_error")
    return ApiError(500, "the server failed at this request; its log says why", kind="server_error")

"""Errors in the form of OpenAI's API, with the HTTP status codes that its clients understand."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from helix_kit.errors import HelixKitError, InputError
from helix_kit.runtime.api.fields import INVALID, UNKNOWN, UNSUPPORTED
from helix_kit.runtime.errors import EngineError
from helix_kit.runtime.handle import RequestFailedError

STATUS_OF = {
    "queue_full": 429, "too_large": 400, "timeout": 503, "no_pipeline": 503, "policy_failed": 500, "not_numbers": 500,
    "closed": 503, "failed": 503,
}  # fmt: skip
"""HTTP status for a request that the engine did not finish, by `RequestFailedError.code`."""
RETRY_AFTER_S = "1"
CONTEXT_EXCEEDED = "context_length_exceeded"
"""The code by which clients notice that they should shorten a conversation."""
_TYPES = {401: "authentication_error", 404: "not_found_error", 413: "invalid_request_error", 429: "rate_limit_error"}


ENDPOINTS = (
    "expected POST /v1/completions, POST /v1/chat/completions, GET /v1/models, GET /health or GET /metrics; GET /docs "
    "describes them"
)
"""What the answer to another path or method says."""
_UNION = re.compile(r"str|int|float|bool|(constrained|literal|list|dict|function)\b.*")
"""What pydantic puts between a field and its items to say which of several types it tried."""


class RefusedError(HelixKitError):
    """A request that is answered with an error of OpenAI's form: its status, code and field."""

    def __init__(self, message: str, *, status: int = 400, code: str, param: str) -> None:
        self.status, self.code, self.param = status, code, param
        super().__init__(message)


def body(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The JSON of an error, as OpenAI's API has it."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    # A message may quote what cannot be written as UTF-8.
    message = message.encode("utf-8", "backslashreplace").decode()
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def response(status: int, message: str, code: str | None = None, param: str | None = None) -> JSONResponse:
    """The HTTP response for an error; it asks the client to try again later where that may help."""
    headers = {"Retry-After": RETRY_AFTER_S} if status in {429, 503} else None
    return JSONResponse(body(status, message, code, param), status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Have the application answer errors of the engine and of FastAPI with such responses."""

    @app.exception_handler(RequestFailedError)
    async def failed(_: Request, error: RequestFailedError) -> JSONResponse:
        return response(STATUS_OF[error.code], str(error), error.code)

    @app.exception_handler(EngineError)
    async def closed(_: Request, error: EngineError) -> JSONResponse:
        return response(503, str(error), "closed")

    @app.exception_handler(InputError)
    async def refused(_: Request, error: InputError) -> JSONResponse:
        return response(400, str(error), "invalid_value", error.field)

    @app.exception_handler(RefusedError)
    async def not_served(_: Request, error: RefusedError) -> JSONResponse:
        return response(error.status, str(error), error.code, error.param)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = error.errors()[:5]
        if reason := _no_object(request, problems[0]):
            return response(400, reason, "invalid_request")
        first = problems[0]
        code = first["type"] if first["type"] in {UNKNOWN, UNSUPPORTED, INVALID} else "invalid_request"
        return response(400, "; ".join(_say(problem) for problem in problems), code, _field(first))

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        return response(500, f"internal error: {type(error).__name__}", "internal_error")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code in (404, 405):
            message = f"{request.method} {request.url.path}: {message}; {ENDPOINTS}"
        answer = response(error.status_code, message)
        answer.headers.update(error.headers or {})
        return answer


def _no_object(request: Request, problem: dict[str, Any]) -> str | None:
    """Why the body is no JSON object; None where it is one."""
    if problem["type"] == "json_invalid":
        reason = problem.get("ctx", {}).get("error", "JSON decode error")
        return f"the body is no JSON: {reason} at character {problem['loc'][-1]}"
    if tuple(problem["loc"]) != ("body",):
        return None
    if problem["type"] == "missing":
        return "the body is empty: expected a JSON object"
    if problem["type"] not in {"model_attributes_type", "model_type", "dict_type"}:
        return None
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return f"Content-Type = {media_type!r}: expected the header `Content-Type: application/json`"
    return "expected a JSON object"


def _say(problem: dict[str, Any]) -> str:
    """Place and message of what pydantic found."""
    parts = [str(part) for part in problem["loc"] if part != "body"]
    place = ".".join(part for part in parts if not _UNION.fullmatch(part))
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _field(problem: dict[str, Any]) -> str | None:
    """The field of the request in which pydantic found it; None for a body that is no JSON."""
    name = problem.get("ctx", {}).get("name")
    if name is None:
        name = next((part for part in problem["loc"] if part != "body"), None)
    return name.encode("utf-8", "backslashreplace").decode() if isinstance(name, str) else None

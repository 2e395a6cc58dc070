"""The application: its endpoints turn requests of OpenAI's API into requests to the engine, and answers back."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import helix_kit
from helix_kit.errors import HelixKitError, InputError
from helix_kit.runtime.api import errors
from helix_kit.runtime.api.conversation import prompt_ids
from helix_kit.runtime.api.fields import INVALID
from helix_kit.runtime.api.guard import Guard
from helix_kit.runtime.api.metrics import ApiMetrics
from helix_kit.runtime.api.schema import ChatRequest, Common, CompletionRequest
from helix_kit.runtime.engine import ContextLengthError, Engine, EngineError
from helix_kit.runtime.handle import Completion, Handle, RequestFailedError

DISCONNECT_POLL_S = 0.5
"""How often a client that waits for an answer is looked for."""
RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"description": text}
    for code, text in {
        400: "The request is not valid; the message says why",
        401: "No API key, or a wrong one",
        404: "No such model",
        413: "The body is too large",
        429: "The queue is full",
        503: "No pipeline is up, or the request took too long",
    }.items()
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for.

    Examples
    --------
    >>> Limits(seconds=60).default_new_tokens
    16
    """

    body_bytes: int = 1 << 20
    """Largest body."""
    new_tokens: int | None = None
    """Most tokens of an answer; None: the model's context alone limits it."""
    seconds: float = 600.0
    """Longest time from arrival to the last token."""
    default_new_tokens: int = 16
    """Most tokens of a completion that does not say how many, as in OpenAI's API. A chat may take all that fit."""


def create_app(
    engine: Engine, *, model_name: str | None = None, api_key: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """The ASGI application for a running engine.

    Parameters
    ----------
    engine
        Answers the requests; the application does not close it.
    model_name
        What /v1/models lists; None: the name of the plan's model.
    api_key
        Requests other than /health need it as a bearer token. None: no key is needed.
    limits
        What one request may ask for; None: `Limits()`.

    Returns
    -------
    FastAPI
        For any ASGI server.

    Examples
    --------
    >>> uvicorn.run(create_app(engine, api_key="secret"))                    # doctest: +SKIP
    """
    limits = limits or Limits()
    name = model_name or engine.plan.model.name
    app = FastAPI(title="helix_kit", version=helix_kit.__version__, description="An engine of helix_kit.")
    metrics = ApiMetrics(engine)
    created = int(time.time())
    errors.install(app)
    app.add_middleware(Guard, metrics=metrics, api_key=api_key, max_body_bytes=limits.body_bytes)
    service = _Service(engine, name, limits, metrics)

    @app.post("/v1/completions", responses=RESPONSES)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue one or several prompts."""
        service.check_model(body.model)
        handles = service.submit_all(body.prompts, body, "prompt", limits.default_new_tokens)
        return await service.answer(handles, request, _Shape("text_completion", name), body)

    @app.post("/v1/chat/completions", responses=RESPONSES)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """The assistant's next message."""
        service.check_model(body.model)
        handles = service.submit_all([prompt_ids(engine, body.messages)], body, "messages", None)
        return await service.answer(handles, request, _Shape("chat.completion", name), body)

    card = {"id": name, "object": "model", "created": created, "owned_by": "helix_kit"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model that is served."""
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{model}", responses={404: RESPONSES[404]})
    async def model(model: str) -> Response:
        """One model's card."""
        service.check_model(model)
        return JSONResponse(card)

    @app.get("/health", responses={503: RESPONSES[503]})
    def health() -> Response:
        """Whether requests can be served: state of the workers, and flow of the plan over those that are up."""
        try:
            status = engine.status()
        except EngineError as error:
            return errors.response(503, str(error), "closed")
        ok = status.flow_tokens_per_s > 0
        content = {
            "status": "ok" if ok else "no pipeline",
            "workers": {node: worker.state for node, worker in status.workers.items()},
            "flow_tokens_per_s": status.flow_tokens_per_s,
            "waiting": status.waiting,
            "running": status.running,
        }
        return JSONResponse(content, status_code=200 if ok else 503)

    @app.get("/metrics")
    def prometheus() -> Response:
        """Metrics in the text format of Prometheus."""
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


class _Event(NamedTuple):
    """What one step added to one of the choices; `reason` says why the choice ends, None: it goes on."""

    choice: int
    text: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class _Shape:
    """The form of the answers of one endpoint."""

    kind: str
    model: str

    @property
    def is_chat(self) -> bool:
        return self.kind == "chat.completion"

    def head(self, *, chunk: bool) -> dict[str, Any]:
        kind = f"{self.kind}.chunk" if chunk and self.is_chat else self.kind
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": self.model}

    def choice(self, index: int, text: str, reason: str | None, *, chunk: bool, first: bool = False) -> dict[str, Any]:
        body: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": None}
        if not self.is_chat:
            return {**body, "text": text}
        if not chunk:
            return {**body, "message": {"role": "assistant", "content": text, "refusal": None}}
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        return {**body, "delta": {**delta, "content": text} if text or first else delta}


def _usage(answers: Sequence[Completion], choices_per_prompt: int) -> dict[str, int]:
    # A prompt with several choices is counted once, as OpenAI does.
    prompt = sum(answer.prompt_tokens for answer in answers[::choices_per_prompt])
    new = sum(len(answer.token_ids) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


class _Service:
    """What the endpoints for completions and for chat share."""

    def __init__(self, engine: Engine, name: str, limits: Limits, metrics: ApiMetrics) -> None:
        self.engine, self.name, self.limits, self.metrics = engine, name, limits, metrics

    def check_model(self, asked: str | None) -> None:
        """Answer 404 when another model is asked for than the one that is served."""
        if asked is not None and asked != self.name:
            message = f"no model {asked!r}: this engine serves {self.name!r}"
            raise errors.RefusedError(message, status=404, code="model_not_found", param="model")

    def submit_all(
        self, prompts: Sequence[str | list[int]], body: Common, prompt_field: str, default_tokens: int | None
    ) -> list[Handle]:
        """Submit all choices of all prompts; when one is refused, cancel the others.

        `default_tokens` limits an answer whose request does not say how many tokens it may have; None: all that fit.
        """
        limit_field, asked = body.asked_tokens
        limit = self.limits.new_tokens
        if asked is not None and limit is not None and asked > limit:
            message = f"{limit_field} = {asked}: expected at most {limit}"
            raise errors.RefusedError(message, code=INVALID, param=limit_field)
        handles: list[Handle] = []
        try:
            for prompt in prompts:
                ids = self.engine.prompt_ids(prompt)
                wanted = asked or self._tokens_that_fit(len(ids), default_tokens)
                for choice in range(body.n or 1):
                    options = {**body.sampling(1.0, choice), "queue_timeout_s": self.limits.seconds}
                    handles.append(self.engine.submit(ids, max_new_tokens=wanted, **options))
        except HelixKitError as error:
            for handle in handles:
                handle.cancel()
            if isinstance(error, ContextLengthError):
                field = prompt_field if error.prompt_tokens >= error.limit else limit_field
                message = f"{field}: {error.expected}"
                raise errors.RefusedError(message, code=errors.CONTEXT_EXCEEDED, param=field) from None
            if isinstance(error, InputError) and error.field == "prompt":
                raise errors.RefusedError(str(error), code=INVALID, param=prompt_field) from None
            raise
        return handles

    def _tokens_that_fit(self, prompt_tokens: int, default: int | None) -> int:
        """How many tokens an answer may have that was not limited by the request."""
        fit = self.engine.max_request_tokens() - prompt_tokens
        return max(1, min([fit, *(n for n in (default, self.limits.new_tokens) if n is not None)]))

    async def answer(self, handles: list[Handle], request: Request, shape: _Shape, body: Any) -> Response:
        """The response, whole or as a stream; the requests are cancelled when the client no longer waits."""
        try:
            if not body.stream:
                answers = await self._within_limits(self._all(handles), request)
                choices = [
                    shape.choice(index, answer.text, answer.finish_reason, chunk=False)
                    for index, answer in enumerate(answers)
                ]
                return JSONResponse(
                    {**shape.head(chunk=False), "choices": choices, "usage": _usage(answers, body.n or 1)}
                )
            # A request that fails before its first piece is answered with an error status, not with a stream.
            events = self._events(handles)
            first = await self._within_limits(anext(events), request)
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise
        wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        stream = self._stream(first, events, handles, shape, (body.n or 1) if wants_usage else 0)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def _all(self, handles: list[Handle]) -> list[Completion]:
        answers = []
        for handle in handles:
            async for _ in handle:
                pass
            answers.append(handle.result())
        for handle in handles:
            self.metrics.observe(handle.record)
        return answers

    async def _within_limits(self, work: Any, request: Request) -> Any:
        """The result of `work`; fails when the time limit has passed or the client has disconnected."""
        task = asyncio.ensure_future(work)
        end = time.monotonic() + self.limits.seconds
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=min(DISCONNECT_POLL_S, max(0.0, end - time.monotonic())))
                if done:
                    return task.result()
                if time.monotonic() >= end:
                    raise RequestFailedError(f"not finished within {self.limits.seconds:g} s", code="timeout")
                if await request.is_disconnected():
                    raise RequestFailedError("the client has gone", code="closed")
        finally:
            task.cancel()

    async def _events(self, handles: list[Handle]) -> AsyncIterator[_Event]:
        """The pieces of all handles in the order in which they come; one with a reason is the last of its choice."""
        merged: asyncio.Queue[_Event | Exception] = asyncio.Queue()

        async def forward(index: int, handle: Handle) -> None:
            try:
                async for piece in handle:
                    if piece.text:
                        merged.put_nowait(_Event(index, piece.text, None))
                merged.put_nowait(_Event(index, "", handle.result().finish_reason))
            except RequestFailedError as error:
                merged.put_nowait(error)

        tasks = [asyncio.create_task(forward(index, handle)) for index, handle in enumerate(handles)]
        try:
            unfinished = len(handles)
            while unfinished:
                event = await merged.get()
                if isinstance(event, Exception):
                    raise event
                unfinished -= event.reason is not None
                yield event
        finally:
            for task in tasks:
                task.cancel()

    async def _stream(
        self,
        first: _Event,
        events: AsyncIterator[_Event],
        handles: list[Handle],
        shape: _Shape,
        choices_per_prompt: int,
    ) -> AsyncIterator[str]:
        head = shape.head(chunk=True)
        opened: set[int] = set()

        def event(content: dict[str, Any]) -> str:
            return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

        def chunk(piece: _Event) -> str:
            choice = shape.choice(piece.choice, piece.text, piece.reason, chunk=True, first=piece.choice not in opened)
            opened.add(piece.choice)
            return event({**head, "choices": [choice]})

        try:
            yield chunk(first)
            async with asyncio.timeout(self.limits.seconds):
                async for later in events:
                    yield chunk(later)
            if choices_per_prompt:
                answers = [handle.result() for handle in handles]
                yield event({**head, "choices": [], "usage": _usage(answers, choices_per_prompt)})
            for handle in handles:
                self.metrics.observe(handle.record)
        except (RequestFailedError, TimeoutError) as error:
            # The HTTP status has been sent already, so that the error becomes an event of the stream, which then ends.
            message = str(error) or f"not finished within {self.limits.seconds:g} s"
            code = error.code if isinstance(error, RequestFailedError) else "timeout"
            yield event(errors.body(503, message, code))
        finally:
            for handle in handles:
                handle.cancel()
        yield "data: [DONE]\n\n"
